//! What can happen to a quarantined item.

use serde::{Deserialize, Serialize};

use punchtrail_protocol::{DeviceId, Digest, PunchId, Time, vocabulary::QuarantineCode};

/// An event of a quarantined item. Past tense, versioned, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum QuarantineEvent {
    /// The item was received and kept.
    Quarantined {
        /// Why it can't be taken as a punch.
        code: QuarantineCode,
        device: DeviceId,
        /// The punch id, if it could be read.
        punch: Option<PunchId>,
        /// The sequence number, if it could be read from bytes that the device signed.
        seq: Option<u64>,
        /// When, by the server's clock.
        received_at: Time,
    },
    /// A person took it in as a punch.
    AdmittedAsPunch { punch: PunchId },
    /// A person found that it is no punch.
    Dismissed {
        /// Digest of the person's note, salted.
        note: Option<Digest>,
    },
}
