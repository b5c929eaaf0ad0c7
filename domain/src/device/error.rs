//! Why a device refuses a command.

/// A command that a device refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("there is no such device")]
    Unknown,
    #[error("this device is enrolled already")]
    Exists,
    /// It reads nothing more.
    #[error(
        "this device was revoked: it would never hear of a command, so none was issued. Enrol it \
         anew to use it"
    )]
    Revoked,
    #[error(
        "{0} such commands wait for this device already; none was issued. Cancel those that \
         aren't needed, or wait until the device has been in contact"
    )]
    TooManyCommands(usize),
    #[error("there is no such command for this device, or it was settled long ago")]
    NoSuchCommand,
    /// Another result stands.
    #[error("another result of this command is recorded already, and stands")]
    OtherResult,
    #[error("the command is finished or expired; it can't be cancelled any more")]
    Settled,
}
