//! Why a device refuses a command.

/// A command that a device refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device.
    #[error("there is no such device")]
    Unknown,
    /// The id is taken.
    #[error("this device is enrolled already")]
    Exists,
}
