//! What may be asked of a punch.

use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, SiteId, Time,
    capture::{CaptureText, PunchKind},
    signing::Signature,
};

use crate::punch::{Anomaly, Clock, RejectionReason};

/// A command to a punch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PunchCommand {
    /// Record a capture whose signature and fields were found good.
    Record {
        /// The signed bytes.
        capture: CaptureText,
        /// The signature.
        signature: Signature,
        /// The device that delivered it.
        device: DeviceId,
        /// When it was received.
        received_at: Time,
        /// What is known of the device's clock.
        clock: Clock,
    },
    /// Take a quarantined item in as this punch.
    Admit {
        /// The quarantined item.
        quarantine: Digest,
        /// Who worked.
        employee: EmployeeId,
        /// Where.
        site: SiteId,
        /// What the punch says.
        kind: PunchKind,
        /// When.
        captured_at: Time,
        /// The device that delivered the item.
        device: DeviceId,
        /// Digest of the note.
        note: Option<Digest>,
    },
    /// Record what the policy found; without a doubt the punch is accepted.
    Judge {
        /// Everything doubtful.
        anomalies: Vec<Anomaly>,
    },
    /// A person accepts it.
    Accept {
        /// Digest of the note.
        note: Option<Digest>,
    },
    /// A person rejects it.
    Reject {
        /// Why.
        reason: RejectionReason,
        /// Digest of the note.
        note: Option<Digest>,
    },
    /// A person corrects the time or the kind that counts.
    Amend {
        /// The time that shall count, if another.
        effective_at: Option<Time>,
        /// The kind that shall count, if another.
        kind: Option<PunchKind>,
        /// Digest of the note.
        note: Option<Digest>,
    },
    /// A person takes it out of the count.
    Void {
        /// Digest of the note.
        note: Option<Digest>,
    },
}
