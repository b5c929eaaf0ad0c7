//! What may be asked of a quarantined item.

use punchtrail_protocol::vocabulary::QuarantineCode;
use punchtrail_protocol::{DeviceId, Digest, PunchId, Time};

/// A command to a quarantined item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantineCommand {
    /// Keep it.
    Quarantine {
        /// Why it can't be taken as a punch.
        code: QuarantineCode,
        /// The device that sent it.
        device: DeviceId,
        /// The punch id, if readable.
        punch: Option<PunchId>,
        /// The sequence number, if readable and signed.
        seq: Option<u64>,
        /// When it was received.
        received_at: Time,
    },
    /// Take it in as a punch.
    AdmitAsPunch {
        /// The punch's id.
        punch: PunchId,
    },
    /// Find that it is no punch.
    Dismiss {
        /// Digest of the note.
        note: Option<Digest>,
    },
}
