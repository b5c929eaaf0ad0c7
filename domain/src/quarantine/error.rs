//! Why a quarantined item refuses a command.

use punchtrail_protocol::{Position, PunchId};

/// A command that a quarantined item refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuarantineError {
    #[error("there is no such item")]
    Unknown,
    #[error("the item was admitted as a punch already")]
    Admitted,
    #[error("the item was dismissed already")]
    Dismissed,
    /// The same press twice would count twice.
    #[error(
        "the item is in the ledger already, as the punch {punch}, last changed at position \
         {position}; that one counts, and can be amended. The item can be dismissed"
    )]
    Stands { punch: PunchId, position: Position },
}
