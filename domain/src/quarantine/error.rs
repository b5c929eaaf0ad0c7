//! Why a quarantined item refuses a command.

/// A command that a quarantined item refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuarantineError {
    #[error("there is no such item")]
    Unknown,
    #[error("the item was admitted as a punch already")]
    Admitted,
    #[error("the item was dismissed already")]
    Dismissed,
}
