//! Why a quarantined item refuses a command.

/// A command that a quarantined item refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuarantineError {
    /// There is no such item.
    #[error("there is no such item")]
    Unknown,
    /// It was admitted.
    #[error("the item was admitted as a punch already")]
    Admitted,
    /// It was dismissed.
    #[error("the item was dismissed already")]
    Dismissed,
}
