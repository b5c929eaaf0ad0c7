//! What is known of a worker's day, and the answer in its parts.

use jiff::{civil::Date, tz::TimeZone};
use punchtrail_protocol::{
    DeviceId, Digest, DisputeId, EmployeeId, Position, PunchId, SiteId, Time,
    capture::PunchKind,
    dispute::{About, DisputeCause, DisputeState, Settlement},
    vocabulary::{QuarantineCode, Standing},
};
use serde::Serialize;

use crate::{
    device::Gap,
    explanation::{Backlog, Place},
};

/// Up to this, what waits for a person is counted.
pub const LISTED_COUNT_MAX: u64 = 1_001;

/// What is known of a worker's day.
#[derive(Debug, Clone)]
pub struct AbsenceFacts {
    pub employee: EmployeeId,
    pub day: Date,
    /// The zone in which the day is meant.
    pub zone: TimeZone,
    /// When the day begins, included, and ends, excluded.
    pub bounds: (Time, Time),
    /// The worker's punches of that day, in order of time.
    pub punches: Vec<DayPunch>,
    /// What waits in quarantine and may be the worker's punch of that day; some of so many.
    pub quarantined: Vec<DayItem>,
    pub quarantined_count: u64,
    /// Punches of that day by badges that were nobody's, which may be the worker's; some of so
    /// many.
    pub unknown_badges: Vec<DayBadge>,
    pub unknown_badges_count: u64,
    /// Others' punches by a badge that the worker held then; some of so many.
    pub doubted: Vec<DayDoubt>,
    pub doubted_count: u64,
    /// The worker's punches that a wrong clock put on this day, or took from it; some of so many.
    pub wrong_clocks: Vec<DayClock>,
    pub wrong_clocks_count: u64,
    /// What is disputed about the day or its punches.
    pub disputes: Vec<DayDispute>,
    /// The devices of the worker's sites.
    pub devices: Vec<DeviceFacts>,
    /// Up to where in the ledger these facts are known.
    pub position: Position,
}

impl AbsenceFacts {
    /// Whether something that may be the worker's waits for a person.
    pub(super) fn waits_for_a_person(&self) -> bool {
        self.quarantined_count + self.unknown_badges_count + self.doubted_count > 0
            || self.punches.iter().any(|punch| punch.nobodys)
    }
}

/// A punch of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DayPunch {
    pub punch: PunchId,
    pub kind: PunchKind,
    pub effective_at: Time,
    pub standing: Standing,
    /// Whether it is in doubt who made it: then it counts for nobody until a manager has ruled.
    pub nobodys: bool,
}

/// An item in quarantine that may be a punch of the day: it names the worker, or comes from a
/// device of the worker's sites and names nobody that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DayItem {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub item: Digest,
    /// Why it can't be taken as a punch.
    pub code: QuarantineCode,
    /// Who sent it.
    pub device: DeviceId,
    /// Whether it says to be the worker's.
    pub names_worker: bool,
    /// When the punch was made, as it says; null where that can't be read. Then it is of the day on
    /// which it came.
    pub captured_at: Option<Time>,
    /// When it came, by the server's clock.
    pub received_at: Time,
}

/// A punch of the day by a badge that was nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DayBadge {
    pub punch: PunchId,
    pub kind: PunchKind,
    pub at: Time,
    pub site: SiteId,
    pub device: DeviceId,
    pub standing: Standing,
    /// Why it may be the worker's.
    pub tie: BadgeTie,
}

/// Why a punch by a badge that was nobody's may be a worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum BadgeTie {
    /// The worker held the badge then.
    Held,
    /// Nobody held it then; the worker holds it, or did, at another time.
    HeldOtherwise,
    /// Nobody held it then; it was read at a site of the worker's, whose day has no punch, or one
    /// without its partner.
    Here,
}

/// A punch of the day that is recorded as somebody else's, by a badge that the worker held by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DayDoubt {
    pub punch: PunchId,
    pub kind: PunchKind,
    pub at: Time,
    pub site: SiteId,
    pub device: DeviceId,
}

/// A punch of the worker's whose clock was wrong by so much that it shows another day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DayClock {
    pub punch: PunchId,
    pub kind: PunchKind,
    /// When, by the device's clock.
    pub shown_at: Time,
    /// When, by the server's.
    pub true_at: Time,
    pub site: SiteId,
    pub device: DeviceId,
    pub standing: Standing,
    /// Whether it truly is of this day; else it only shows it.
    pub of_this_day: bool,
}

/// A dispute about a day, or about one of its punches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DayDispute {
    pub dispute: DisputeId,
    pub about: About,
    pub cause: DisputeCause,
    pub state: DisputeState,
    /// When it was opened, by the server's clock.
    pub opened_at: Time,
    /// How it was settled; null while it waits.
    pub how: Option<Settlement>,
}

/// What is known of a device.
#[derive(Debug, Clone)]
pub struct DeviceFacts {
    pub device: DeviceId,
    /// The site that it serves for this worker.
    pub site: SiteId,
    /// When its access was ended, if it was.
    pub revoked: Option<Place>,
    /// Its last report; none if it never made one.
    pub report: Option<Backlog>,
    /// The highest of its numbers that the ledger holds; 0 for none.
    pub highest: u64,
    /// Numbers that are missing now.
    pub missing: Vec<MissingRun>,
    /// Whether more are missing than are listed.
    pub missing_more: bool,
}

/// Numbers of a device that have not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingRun {
    pub gap: Gap,
    /// Where the ledger notes that they are missing.
    pub noticed: Place,
    /// The time of the punch before them, by the device's clock, if it is held.
    pub after: Option<Time>,
    /// The time of the punch after them, by the device's clock, if it is held.
    pub before: Option<Time>,
}

impl MissingRun {
    /// Whether punches of that time could be among them. What isn't known doesn't rule them out.
    pub(super) fn may_be_within(&self, (from, to): (Time, Time)) -> bool {
        let (Some(after), Some(before)) = (self.after, self.before) else {
            return self.after.is_none_or(|after| after < to)
                && self.before.is_none_or(|before| before >= from);
        };
        // A clock that was set back between the two bounds nothing.
        after > before || (after < to && before >= from)
    }
}

/// Where a worker's missing punches of a day might be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Absence {
    pub employee: EmployeeId,
    /// The business day, `YYYY-MM-DD`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Date))]
    pub day: Date,
    /// When it begins, included.
    pub from: Time,
    pub to: Time,
    /// The worker's punches of that day that the ledger holds.
    pub punches: Vec<DayPunch>,
    /// What waits in quarantine for a person and may be the worker's punch of that day.
    pub quarantined: Vec<DayItem>,
    /// Whether more waits there than is listed.
    pub quarantined_more: bool,
    /// How many wait there; counted up to 1,001.
    pub quarantined_count: u64,
    /// Punches of that day by badges that were nobody's, and that may be the worker's.
    pub unknown_badges: Vec<DayBadge>,
    /// How many there are; counted up to 1,001.
    pub unknown_badges_count: u64,
    /// Punches of that day recorded as somebody else's, by a badge that the worker held by then.
    pub doubted: Vec<DayDoubt>,
    /// How many there are.
    pub doubted_count: u64,
    /// The worker's punches that a wrong clock put on this day, or took from it.
    pub wrong_clocks: Vec<DayClock>,
    /// How many there are; counted up to 1,001.
    pub wrong_clocks_count: u64,
    /// What is disputed about the day or its punches. It takes nothing out of the count.
    pub disputes: Vec<DayDispute>,
    /// What the ledger says, in plain sentences.
    pub sentences: Vec<String>,
    /// Each device of the worker's sites, with what it last said of itself.
    pub devices: Vec<DeviceAnswer>,
    /// What follows. It rests on the devices' last reports.
    pub conclusion: Conclusion,
    /// Up to where in the ledger this is known.
    pub position: Position,
}

/// What a device may still hold of that day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceAnswer {
    pub device: DeviceId,
    pub site: SiteId,
    pub holds: Holds,
    /// When it last reported, by the server's clock; null if never.
    pub reported_at: Option<Time>,
    /// How many punches waited on it then.
    pub waiting: Option<u64>,
    /// The time of the oldest of them, by the device's clock.
    pub oldest: Option<Time>,
    /// Numbers that are missing and may be of that day.
    pub missing: Vec<MissingRun>,
    /// Whether more are missing than are listed.
    pub missing_more: bool,
    /// When its access was ended, if it was.
    pub revoked_at: Option<Time>,
    /// Its last report in words.
    pub report: String,
}

/// What a device may hold of a day, by its last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// Punches that may be of that day.
    Punches,
    /// It has made punches that neither wait on it nor are in the ledger; after a restore of the
    /// server they come again.
    Unaccounted,
    /// Not known: it never reported.
    Unknown,
    /// Nothing up to its last report, which was before the day ended.
    NothingUntilReport,
    Nothing,
}

/// What follows for the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conclusion {
    pub code: ConclusionCode,
    /// Up to when everything that was made is known to be in the ledger; null if that isn't known.
    pub known_until: Option<Time>,
    pub sentence: String,
}

/// What follows for the day, as a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ConclusionCode {
    /// A device still holds punches that may be of that day.
    OnTheWay,
    /// Numbers are missing that may be of that day.
    NumbersMissing,
    NotKnown,
    /// Nothing is on its way of what was made up to the devices' last reports; the day went on
    /// after.
    DeliveredSoFar,
    /// Nothing of that day is on its way.
    NothingOnTheWay,
    /// The worker's sites have no device.
    NoDevices,
}
