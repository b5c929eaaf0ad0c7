//! What can happen to a punch.

use serde::{Deserialize, Serialize};

use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time,
    capture::{CaptureText, PunchKind},
    signing::Signature,
    vocabulary::Reason,
};

use super::verification::{Check, Comparison, Failing, Missing};
use crate::erasure::Erasure;

/// An event of a punch. Past tense, versioned, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PunchEvent {
    /// A device captured the punch; first event of every punch that came as one.
    Captured {
        /// The bytes that the device signed, as one string.
        capture: CaptureText,
        /// The device's signature over them.
        signature: Signature,
    },
    /// The server received the capture.
    Synced {
        /// The device that delivered it.
        device: DeviceId,
        /// When the request that carried it was received, by the server's clock.
        received_at: Time,
        /// What was known of the device's clock then.
        clock: Clock,
    },
    /// A person admitted a quarantined item as this punch; first event of every such punch.
    Admitted {
        quarantine: Digest,
        employee: EmployeeId,
        site: SiteId,
        kind: PunchKind,
        /// When, as the person admitting it found.
        captured_at: Time,
        /// The device that delivered the item.
        device: DeviceId,
        /// Digest of the person's note, salted; the note stands beside the ledger.
        note: Option<Digest>,
    },
    /// A person added the punch, which nobody made at a device; first event of every such punch.
    /// It is marked so for ever.
    Entered {
        employee: EmployeeId,
        site: SiteId,
        kind: PunchKind,
        /// When, as the person who added it found.
        at: Time,
        reason: RulingReason,
        /// Digest of the person's note, salted.
        note: Option<Digest>,
    },
    /// It became known who made the punch, of whom nobody knew before.
    Identified {
        employee: EmployeeId,
        ground: Ground,
        /// Digest of the note of the person who said so, salted.
        note: Option<Digest>,
    },
    /// A person found that somebody else than was recorded made the punch.
    Reassigned {
        employee: EmployeeId,
        reason: Option<RulingReason>,
        /// Digest of the person's note, salted.
        note: Option<Digest>,
    },
    /// A person joined this `in` with an `out` to one shift, however long it is.
    ShiftJoined {
        out: PunchId,
        /// Digest of the person's note, salted.
        note: Option<Digest>,
    },
    /// A person undid that.
    ShiftParted {
        /// Digest of the person's note, salted.
        note: Option<Digest>,
    },
    /// What the policy found doubtful no longer is: what it rested on is gone, or was known wrong.
    AnomalyWithdrawn { anomaly: Anomaly },
    /// Nothing is left of what the punch was referred for before; what follows says where it stands
    /// now.
    ReferralLifted {},
    /// Other bytes came under this punch's id. The first stand; these are kept as evidence, and are
    /// in quarantine. Noted once, however many more come: those are in quarantine alone.
    ConflictingCaptureReceived {
        /// Digest of the other bytes.
        digest: Digest,
        /// The device that delivered them.
        device: DeviceId,
        /// When, by the server's clock.
        received_at: Time,
    },
    /// The punch waits for the verdict on its picture, and counts provisionally until then.
    VerificationRequested {
        /// When it is referred to a person if no verdict came, by the server's clock.
        due_at: Time,
    },
    /// The bytes of a picture reached the server.
    PhotoReceived {
        photo: Digest,
        /// 0 for the capture's own frame.
        attempt: u32,
        /// When, by the server's clock.
        received_at: Time,
    },
    /// The device took another picture for this punch.
    PhotoRetaken {
        /// The bytes that the device signed, as one string.
        record: String,
        /// The device's signature over them.
        signature: Signature,
        /// When the record came, by the server's clock.
        received_at: Time,
    },
    /// Compared, and alike enough.
    VerificationSucceeded { check: Check, comparison: Comparison },
    /// No match: a picture that can't be used, or one that was not recognised.
    VerificationFailed {
        check: Check,
        failing: Failing,
        /// Where it was compared; none where the picture could not be used.
        comparison: Option<Comparison>,
    },
    /// No verdict on the picture could be had; a person looks.
    VerificationUnavailable { missing: Missing },
    /// The bytes of a picture of this punch were erased.
    PhotoErased {
        photo: Digest,
        because: Erasure,
        /// When, by the server's clock.
        at: Time,
    },
    /// The policy found something doubtful.
    AnomalyFlagged { anomaly: Anomaly },
    /// The punch waits for a person's ruling, and counts provisionally until then.
    ReferredForReview { reasons: Vec<Reason> },
    Accepted {
        basis: Basis,
        /// Digest of the person's note, salted, if a person accepted it with one.
        note: Option<Digest>,
        /// Why a person accepted it, if they said so; since version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<RulingReason>,
    },
    /// A person rejected the punch; it doesn't count.
    Rejected {
        reason: RejectionReason,
        /// Digest of the person's note, salted.
        note: Option<Digest>,
    },
    /// A person corrected what the punch counts as; the capture stands as it was.
    Amended {
        /// The time that counts from now on.
        effective_at: Time,
        /// The kind that counts from now on.
        kind: PunchKind,
        /// Digest of the person's note, salted.
        note: Option<Digest>,
        /// Why, if the person said so; since version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<RulingReason>,
    },
    /// The punch was taken out of the count as one that should not exist, a double tap for one.
    Voided {
        /// Digest of the person's note, salted.
        note: Option<Digest>,
        /// Why, if the person said so; since version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<RulingReason>,
    },
    /// A person undid that the punch was voided; the ruling that follows says where it stands.
    Reinstated {},
    /// Nobody had ruled on the punch when its site wants it ruled on.
    ReviewEscalated {
        /// When that was, by the server's clock.
        due_at: Time,
    },
}

impl PunchEvent {
    /// The digest of the note that a person left with it.
    pub const fn note(&self) -> Option<Digest> {
        match self {
            Self::Accepted { note, .. }
            | Self::Rejected { note, .. }
            | Self::Amended { note, .. }
            | Self::Voided { note, .. }
            | Self::Entered { note, .. }
            | Self::Identified { note, .. }
            | Self::Reassigned { note, .. }
            | Self::ShiftJoined { note, .. }
            | Self::ShiftParted { note, .. }
            | Self::Admitted { note, .. } => *note,
            _ => None,
        }
    }
}

/// How it became known who made a punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Ground {
    /// Exactly one person held the badge that was read, at that time.
    Badge {
        /// What the ledger names that time of holding it by.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        holding: Digest,
        /// Where in the ledger it stands that they held it; null for a badge that was held before
        /// holdings were dated.
        #[cfg_attr(feature = "schema", schemars(with = "Option<u64>"))]
        issued: Option<Position>,
    },
    Manager,
}

/// Up to this, a clock isn't known to be off, in milliseconds: a heartbeat takes its way, and
/// clocks that differ by less are as good as one.
pub const CLOCK_NOISE_MS: i64 = 2_000;

/// What the server knew of a device's clock when a capture came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// A heartbeat of the same boot gave the true time of the capture.
    Known {
        /// How far the device's clock was ahead of the true time, in milliseconds.
        offset_ms: i64,
    },
    /// No heartbeat of that boot has been received.
    Unknown,
}

impl Clock {
    /// The clock's known lead over the true time, in milliseconds.
    pub const fn offset_ms(self) -> Option<i64> {
        match self {
            Self::Known { offset_ms } => Some(offset_ms),
            Self::Unknown => None,
        }
    }

    /// By how much the clock led, as far as that can be told: what is known of it is known to
    /// within a heartbeat's way there and back ([`CLOCK_NOISE_MS`]).
    pub fn lead_ms(self) -> i64 {
        self.offset_ms().filter(|lead| lead.saturating_abs() > CLOCK_NOISE_MS).unwrap_or_default()
    }

    /// When it truly was, when the clock showed `shown`; within the years that a capture can name,
    /// however far off a clock is said to have been.
    pub fn true_time(self, shown: Time) -> Time {
        shown.plus_millis(self.lead_ms().saturating_neg()).clamp(Time::FIRST, Time::LAST)
    }
}

/// Something doubtful about a punch, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum Anomaly {
    /// The same person made a punch of the same kind shortly before.
    NearDuplicate {
        /// The earlier captured one.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        of: PunchId,
        /// How much earlier, in milliseconds.
        apart_ms: i64,
    },
    /// The device's clock is known to have been off by more than the policy allows.
    ClockSuspect {
        /// How far it was ahead, in milliseconds; negative when behind.
        offset_ms: i64,
    },
    /// The punch claims a time that had not come when it was received.
    InFuture {
        /// How far ahead, in milliseconds.
        ahead_ms: i64,
    },
    /// The device had already used the sequence number for another punch.
    Fork {
        seq: u64,
        /// The punch that came first under it.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        other: Option<PunchId>,
    },
    /// The badge read is nobody's that the device knew.
    UnknownBadge,
    /// The employee is not known to this ledger.
    UnknownEmployee,
    /// The worker had left before the punch.
    DepartedWorker { departed_at: Time },
    /// The badge by which the device knew the worker was somebody else's by then.
    OtherHolder {
        /// Who held it then, if that was exactly one.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        holder: Option<EmployeeId>,
    },
    /// The worker wasn't assigned to the site then.
    Visitor,
    /// The same person made a punch of the opposite kind seconds before: perhaps one reading that
    /// was taken twice.
    OppositeKind {
        /// The earlier captured one.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        of: PunchId,
        /// How much earlier, in milliseconds.
        apart_ms: i64,
    },
    /// The device was revoked before the punch was received.
    RevokedDevice,
    /// The punch is older than the policy looks back.
    BeyondLookback {
        /// Its age on receipt, in milliseconds.
        age_ms: i64,
    },
    /// The same person punched at another site too short a time before.
    TwoSites {
        /// The punch at the other site.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        other: PunchId,
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        site: SiteId,
        /// How much earlier, in milliseconds.
        apart_ms: i64,
    },
}

impl Anomaly {
    /// Whether it says that nobody knows who made the punch.
    pub const fn is_who(&self) -> bool {
        matches!(self, Self::UnknownBadge | Self::UnknownEmployee | Self::OtherHolder { .. })
    }

    /// Its code.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NearDuplicate { .. } => Reason::NearDuplicate,
            Self::ClockSuspect { .. } => Reason::ClockSuspect,
            Self::InFuture { .. } => Reason::InFuture,
            Self::Fork { .. } => Reason::Fork,
            Self::UnknownBadge => Reason::UnknownBadge,
            Self::UnknownEmployee => Reason::UnknownEmployee,
            Self::DepartedWorker { .. } => Reason::DepartedWorker,
            Self::OtherHolder { .. } => Reason::OtherHolder,
            Self::Visitor => Reason::Visitor,
            Self::OppositeKind { .. } => Reason::OppositeKind,
            Self::RevokedDevice => Reason::RevokedDevice,
            Self::BeyondLookback { .. } => Reason::BeyondLookback,
            Self::TwoSites { .. } => Reason::TwoSites,
        }
    }
}

/// On what ground a punch was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The site's policy found nothing doubtful.
    Policy,
    /// An identity check succeeded.
    Verification,
    Manager,
}

/// Why a person ruled as they did, where they didn't reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum RulingReason {
    /// The worker, or somebody who was there, confirmed it.
    Confirmed,
    /// The person on the picture is the worker.
    Recognised,
    /// The device's clock was wrong.
    ClockWrong,
    /// The worker pressed later or earlier than they came or went.
    WrongTime,
    /// The worker pressed for another kind.
    WrongKind,
    /// It repeats another punch.
    Duplicate,
    /// Somebody tried the device.
    Test,
    /// Somebody else made it.
    WrongPerson,
    /// The worker didn't punch.
    Forgotten,
    /// There was no device that worked.
    NoDevice,
    /// An earlier ruling was a mistake.
    Mistake,
    /// Another reason, in the note.
    Other,
}

impl RulingReason {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a person rejected a punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum RejectionReason {
    WrongPerson,
    /// It doubles another punch.
    Duplicate,
    WrongTime,
    /// The worker was not there.
    NotPresent,
    /// Another reason, in the note.
    Other,
}

impl RejectionReason {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
