//! Why a device refuses a command.

/// A command that a device refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("there is no such device")]
    Unknown,
    #[error("this device is enrolled already")]
    Exists,
}
