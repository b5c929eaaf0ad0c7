//! The steps of an explanation as data: codes, numbers, ids and digests. Never names or free text.

use punchtrail_protocol::{
    DeviceId, Digest, DisputeId, EmployeeId, Position, PunchId, Time,
    capture::{IdentifiedBy, PunchKind},
    dispute::{DisputeCause, Settlement},
    guidance::Guidance,
    vocabulary::{QuarantineCode, Reason},
};
use serde::Serialize;

use crate::{
    device::Gap,
    erasure::Erasure,
    log::recorded::Actor,
    punch::{
        Anomaly, Basis, Check, Clock, Comparison, Ground, Miss, Missing, RejectionReason,
        RulingReason,
    },
};

/// One thing that happened to a punch, or that has not happened and is worth saying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    #[serde(flatten)]
    pub what: What,
    /// When, by the device's own clock.
    pub device_time: Option<Time>,
    /// When it entered the ledger; null for what has not happened.
    pub ledger_time: Option<Time>,
    pub actor: Option<Actor>,
    /// Digest of the note that the person left.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub note: Option<Digest>,
    /// Where it stands in the ledger; empty for what has not happened.
    pub positions: Vec<Position>,
}

/// What a step says, with its evidence: codes, numbers, ids and digests; never names or free text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "step", content = "evidence")]
pub enum What {
    /// How the punch came to be.
    Captured(Origin),
    /// How it reached the server.
    Synced(Receipt),
    /// What came of the check of somebody's identity.
    Verified(Verification),
    /// What was decided, and on what ground.
    Decided(Decision),
    /// Doubts that came up and changed nothing, because a person had ruled already.
    Doubted(Doubt),
    /// Doubts whose ground is gone.
    Withdrawn(Doubt),
    /// It became known who made it, or that somebody else did.
    Identified(Identification),
    /// A person joined it with another to one shift, or undid that.
    Joined(Joined),
    /// A person corrected what counts.
    Amended(Amendment),
    /// Other data came under the same punch.
    Conflict(Conflict),
    /// Nobody had ruled on it in time.
    Escalated(Escalation),
    /// What the device's numbers say around this punch. It never counts against the punch.
    Chain(ChainFact),
    /// Somebody disputes how it stands, or what became of that. It changes nothing by itself.
    Disputed(Disputed),
}

/// How a punch came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "source")]
pub enum Origin {
    /// A device captured and signed it.
    Device {
        kind: PunchKind,
        /// The device's number for it.
        seq: u64,
        /// How the device knew who punched.
        identified_by: IdentifiedBy,
        /// Whether the badge was one that the device didn't know.
        badge_unknown: bool,
        /// Whether a photo was taken.
        photo: bool,
        /// The wall clock's offset from UTC, in seconds.
        utc_offset_s: i32,
        /// Digest of the bytes that the device signed.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        digest: Digest,
    },
    /// A person admitted a quarantined item.
    Quarantine {
        /// What it says, as that person found.
        kind: PunchKind,
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        item: Digest,
        /// Whether the person left a note.
        note: bool,
    },
    /// A person added it; nobody made it at a device.
    Entered {
        kind: PunchKind,
        reason: RulingReason,
        /// Whether the person left a note.
        note: bool,
    },
}

/// Who made a punch, as was found later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Identification {
    pub employee: EmployeeId,
    pub ground: Ground,
    /// Who was said to have made it before; null if nobody was.
    pub instead_of: Option<EmployeeId>,
    /// Why, if a person said so.
    pub reason: Option<RulingReason>,
    /// Whether the person left a note.
    pub note: bool,
}

/// That a punch is joined with another to one shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Joined {
    /// The `out` of the shift; null where it was undone.
    pub out: Option<PunchId>,
    /// Whether the person left a note.
    pub note: bool,
}

/// How a punch reached the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// The device that delivered it.
    pub device: DeviceId,
    /// When, by the server's clock.
    pub received_at: Time,
    /// Whether the server was out of reach at the press; null if that isn't known.
    pub offline: Option<bool>,
    /// What was known of the device's clock.
    pub clock: Clock,
    /// How much later than the time on the punch, in milliseconds; negative when the device's clock
    /// was ahead by more.
    pub delay_ms: i64,
    /// Why the item could not be taken as it came, for an admitted one.
    pub quarantined: Option<QuarantineCode>,
}

/// What came of the check of somebody's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Verification {
    NotChecked {
        reason: NotChecked,
        /// How the device knew who punched; null where it didn't, or where no device was there.
        identified_by: Option<IdentifiedBy>,
    },
    /// A verdict on its picture was asked for.
    Requested {
        /// Until when it is waited for, by the server's clock.
        due_at: Time,
        /// Whether it is waited for still.
        waits: bool,
    },
    /// A picture reached the server.
    Received {
        /// 0 for the capture's own frame.
        attempt: u32,
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        photo: Digest,
        /// How much later than the press, in milliseconds.
        delay_ms: i64,
    },
    /// The device took another picture.
    Retaken {
        attempt: u32,
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        photo: Digest,
    },
    /// Alike enough.
    Matched { check: Box<Checked>, comparison: Comparison },
    /// A picture that can't be used, or one that was not recognised.
    Missed {
        check: Box<Checked>,
        miss: Miss,
        /// What the worker was told.
        guidance: Vec<Guidance>,
        comparison: Option<Comparison>,
    },
    /// No verdict could be had.
    Unavailable { reason: Missing },
    /// The bytes of a picture were erased.
    Erased {
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        photo: Digest,
        because: Erasure,
    },
}

/// Who checked what, by which measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checked {
    #[serde(flatten)]
    pub check: Check,
    /// Whether a person had ruled already, so that it changed nothing.
    pub after_ruling: bool,
}

/// Why no picture was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NotChecked {
    /// No picture was to be compared, and nothing else tells who punched.
    NoneSetUp,
    /// No picture was to be compared: something else tells who punched, or somebody.
    Otherwise,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Decision {
    Pending {},
    Accepted {
        basis: Basis,
        /// Why a person accepted it, if they said so.
        reason: Option<RulingReason>,
        /// Whether a person left a note.
        note: bool,
    },
    /// It waits for a person, and counts until then.
    Referred {
        reasons: Vec<Reason>,
        /// What of it the site's rules found.
        anomalies: Vec<Anomaly>,
    },
    Rejected {
        reason: RejectionReason,
        /// Whether the person left a note.
        note: bool,
    },
    /// A person took it out of the count.
    Voided {
        /// Why, if they said so.
        reason: Option<RulingReason>,
        /// Whether the person left a note.
        note: bool,
    },
    /// A person brought it back into the count, by the decision that follows.
    Reinstated {},
}

/// Nobody had ruled in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Escalation {
    /// When a ruling was due, by the server's clock.
    pub due_at: Time,
}

/// Doubts that came up and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Doubt {
    pub anomalies: Vec<Anomaly>,
}

/// A correction by a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Amendment {
    /// The time that counted before.
    pub from_at: Time,
    /// The kind that counted before.
    pub from_kind: PunchKind,
    /// The time that counts since.
    pub to_at: Time,
    /// The kind that counts since.
    pub to_kind: PunchKind,
    /// Why, if the person said so.
    pub reason: Option<RulingReason>,
    /// Whether the person left a note.
    pub note: bool,
}

/// Other bytes under one punch's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conflict {
    /// Digest of the bytes that were kept as evidence.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Digest,
    /// The device that delivered them.
    pub device: DeviceId,
    /// When, by the server's clock.
    pub received_at: Time,
}

/// What a device's numbers say around a punch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum ChainFact {
    /// Numbers next to the punch's, or its own, were missing when a later one came.
    Missing {
        gap: Gap,
        /// When they came after all, by the server's clock.
        came_at: Option<Time>,
    },
    /// The punch names another predecessor than the one that is held.
    LinkBroken {
        /// The predecessor it names.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        named: Digest,
        /// The predecessor that is held.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        held: Digest,
    },
    /// Two captures came under the punch's number.
    Fork {
        seq: u64,
        /// The punch that came first; null if that item was quarantined.
        first: Option<PunchId>,
        /// The punch that came later; null if that item was quarantined.
        second: Option<PunchId>,
    },
}

/// What happened to a dispute about the punch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum Disputed {
    /// It was opened; by a worker, if the step's actor is a device.
    Opened {
        dispute: DisputeId,
        /// Whose dispute it is: not always who is said to have punched.
        employee: EmployeeId,
        cause: DisputeCause,
        /// Whether a text came with it.
        text: bool,
    },
    Answered {
        dispute: DisputeId,
    },
    Resolved {
        dispute: DisputeId,
        how: Settlement,
        /// The punch that settles it, where another one does.
        by_punch: Option<PunchId>,
    },
    Reopened {
        dispute: DisputeId,
    },
}
