//! What can happen to a dispute.

use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time,
    dispute::{About, Day, DisputeCause, Settlement},
};
use serde::{Deserialize, Serialize};

use crate::device::Gap;

/// An event of a dispute. Past tense, versioned, never edited. Whoever caused it stands in its
/// metadata: a device, when a worker opened it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DisputeEvent {
    /// Somebody disputes how a punch stands, or that a day is complete.
    Opened {
        subject: Subject,
        /// Digest of the text that came with it, salted.
        note: Option<Digest>,
    },
    /// What was known of its day just then.
    EvidenceAdded { evidence: Evidence },
    /// Somebody said something to it.
    Answered {
        /// Digest of what, salted.
        note: Digest,
    },
    /// It was settled.
    Resolved {
        how: Settlement,
        /// The punch that settles it, where another one does.
        by_punch: Option<PunchId>,
        /// Digest of why, salted.
        note: Digest,
    },
    /// It was taken up again.
    Reopened {
        /// Digest of why, salted.
        note: Digest,
    },
}

/// Whose dispute it is, where, about what and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subject {
    pub site: SiteId,
    /// Whose hours it is about.
    pub employee: EmployeeId,
    pub about: About,
    pub cause: DisputeCause,
}

/// What was known of a worker's day: where a punch that is missing might be. Codes, ids and counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evidence {
    pub day: Day,
    /// How many punches of the worker the ledger held for it.
    pub punches: u32,
    /// Items in quarantine that say to be the worker's punch of that day.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub quarantined: Vec<Digest>,
    /// Punches of that day by badges that the worker's sites' devices didn't know.
    pub unknown_badges: Vec<PunchId>,
    /// The devices of the worker's sites that may still hold something, or lack something.
    pub devices: Vec<DeviceEvidence>,
    /// Whether there was more of any of these than is listed.
    pub more: bool,
    /// Up to where in the ledger this was known.
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub known_through: Position,
}

/// What was known of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceEvidence {
    pub device: DeviceId,
    /// What it last said of itself; null if it never did. A report, no event.
    pub last_report: Option<ReportKept>,
    /// Numbers of its that are missing and may be of that day.
    pub missing: Vec<Gap>,
}

/// What a device last said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportKept {
    /// When, by the server's clock.
    pub reported_at: Time,
    /// How many punches waited on it.
    pub waiting: u64,
    /// The time of the oldest of them, by the device's clock.
    pub oldest: Option<Time>,
}
