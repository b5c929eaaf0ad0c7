//! What may be asked of a dispute.

use punchtrail_protocol::{Digest, PunchId, dispute::Settlement};

use super::{Evidence, Subject};

/// A command to a dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisputeCommand {
    /// Open it.
    Open {
        subject: Subject,
        /// Of the text that came with it.
        note: Option<Digest>,
    },
    /// Keep what was found out about its day.
    AddEvidence(Evidence),
    /// Say something to it.
    Answer { note: Digest },
    /// Settle it.
    Resolve {
        how: Settlement,
        /// The punch that settles it, where another one does.
        by_punch: Option<PunchId>,
        /// Why.
        note: Digest,
    },
    /// Take it up again.
    Reopen { note: Digest },
}
