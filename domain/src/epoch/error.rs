//! Why an epoch refuses a command.

/// A command that an epoch refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    #[error("this epoch was opened already")]
    Opened,
}
