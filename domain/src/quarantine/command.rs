//! What may be asked of a quarantined item.

use punchtrail_protocol::vocabulary::QuarantineCode;
use punchtrail_protocol::{DeviceId, Digest, Position, PunchId, Time};

/// A command to a quarantined item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantineCommand {
    Quarantine {
        /// Why it can't be taken as a punch.
        code: QuarantineCode,
        device: DeviceId,
        /// The punch id, if readable.
        punch: Option<PunchId>,
        /// The sequence number, if readable and signed.
        seq: Option<u64>,
        received_at: Time,
    },
    AdmitAsPunch {
        punch: PunchId,
        /// The punch that it is already, and where that stands in the ledger.
        stands: Option<(PunchId, Position)>,
    },
    /// Find that it is no punch.
    Dismiss { note: Option<Digest> },
}
