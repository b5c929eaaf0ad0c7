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
        capture: CaptureText,
        signature: Signature,
        /// The device that delivered it.
        device: DeviceId,
        received_at: Time,
        /// What is known of the device's clock.
        clock: Clock,
    },
    /// Take a quarantined item in as this punch.
    Admit {
        quarantine: Digest,
        employee: EmployeeId,
        site: SiteId,
        kind: PunchKind,
        captured_at: Time,
        /// The device that delivered the item.
        device: DeviceId,
        note: Option<Digest>,
    },
    /// Record what the policy found; without a doubt the punch is accepted.
    Judge {
        anomalies: Vec<Anomaly>,
    },
    Accept {
        note: Option<Digest>,
    },
    Reject {
        reason: RejectionReason,
        note: Option<Digest>,
    },
    /// A person corrects the time or the kind that counts.
    Amend {
        /// The time that shall count, if another.
        effective_at: Option<Time>,
        /// The kind that shall count, if another.
        kind: Option<PunchKind>,
        note: Option<Digest>,
    },
    /// A person takes it out of the count.
    Void {
        note: Option<Digest>,
    },
}
