//! What may be asked of an epoch.

use punchtrail_protocol::{EpochId, Position};

use super::NoticedBy;

/// A command to an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochCommand {
    /// The database went back.
    Open {
        /// Up to where the histories agree.
        after: Position,
        ends: EpochId,
        lost: Option<EpochId>,
        /// The highest position that somebody remembers of what is gone.
        seen: Position,
        noticed_by: NoticedBy,
    },
}
