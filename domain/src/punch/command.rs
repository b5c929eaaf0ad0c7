//! What may be asked of a punch.

use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, PunchId, SiteId, Time,
    capture::{CaptureText, PunchKind},
    signing::Signature,
};

use crate::{
    erasure::Erasure,
    punch::{
        Anomaly, Check, Clock, Comparison, Failing, Ground, Missing, RejectionReason, RulingReason,
    },
};

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
    /// Add a punch that nobody made at a device.
    Enter {
        employee: EmployeeId,
        site: SiteId,
        kind: PunchKind,
        at: Time,
        reason: RulingReason,
        note: Option<Digest>,
    },
    /// Note that the badge that was read tells who made it.
    Identify {
        employee: EmployeeId,
        ground: Ground,
    },
    /// A person says who made it.
    Assign {
        employee: EmployeeId,
        reason: Option<RulingReason>,
        note: Option<Digest>,
    },
    /// A person joins this `in` with an `out` to one shift.
    JoinShift {
        out: PunchId,
        note: Option<Digest>,
    },
    /// A person undoes that.
    PartShift {
        note: Option<Digest>,
    },
    /// Record what the policy finds now, after what it rests on changed: doubts that are gone are
    /// taken back, new ones are raised.
    Revise {
        /// Every doubt about its person.
        person: Vec<Anomaly>,
        /// Every doubt that a neighbour gives, the nearest first; one of a kind is enough.
        beside: Vec<Anomaly>,
        /// As for a first judgement.
        verify_by: Option<Time>,
    },
    /// Record what the policy found; without a doubt the punch is accepted, or waits for the
    /// verdict on its picture.
    Judge {
        anomalies: Vec<Anomaly>,
        /// Until when a verdict on its picture is waited for; none where faces aren't checked.
        verify_by: Option<Time>,
    },
    /// Record another picture, whose signature and fields were found good.
    Retake {
        /// The bytes that the device signed, as one string.
        record: String,
        signature: Signature,
        received_at: Time,
    },
    /// Note that the bytes of a picture are there.
    ReceivePhoto {
        photo: Digest,
        received_at: Time,
    },
    /// Record what a check of a picture found.
    Verify {
        verdict: Verdict,
    },
    /// Record that no verdict could be had.
    GiveUp {
        missing: Missing,
    },
    /// Let what the checks found have its effect.
    Settle {},
    /// Note that the bytes of a picture were erased.
    ErasePhoto {
        photo: Digest,
        because: Erasure,
        at: Time,
    },
    Accept {
        reason: Option<RulingReason>,
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
        reason: Option<RulingReason>,
        note: Option<Digest>,
    },
    /// A person lets the time count that it had by the server's clock, where that is known.
    UseServerTime {
        note: Option<Digest>,
    },
    /// A person takes it out of the count.
    Void {
        reason: Option<RulingReason>,
        note: Option<Digest>,
    },
    /// Nobody has ruled on it in time.
    Escalate {
        /// When it was due, by the server's clock.
        due_at: Time,
    },
}

/// What a check of a picture found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Match { check: Check, comparison: Comparison },
    Miss { check: Check, failing: Failing, comparison: Option<Comparison> },
}

impl Verdict {
    /// The check that it comes from.
    pub const fn check(&self) -> &Check {
        match self {
            Self::Match { check, .. } | Self::Miss { check, .. } => check,
        }
    }
}
