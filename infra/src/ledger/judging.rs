//! What the adjudicator hands to the committer: judgements, what it must remember, and its own
//! place.

use punchtrail_domain::{device::Chain, epoch::Anchor, policy::judging::Doubted};
use punchtrail_protocol::{DeviceId, EmployeeId, PunchId, SiteId, Time, capture::PunchKind};

use super::StreamAppend;

/// The follower's name in the table of followers.
pub(super) const ADJUDICATOR: &str = "adjudicator";

/// A stretch of the ledger, judged.
#[derive(Debug, Default)]
pub struct Judging {
    /// Where the adjudicator stood; another place in the table makes this stale.
    pub from: Anchor,
    /// Where it stands afterwards; an event that the ledger doesn't have makes this stale.
    pub to: Anchor,
    pub streams: Vec<StreamAppend>,
    /// The punches it walked, to be found as neighbours later.
    pub punches: Vec<JudgedPunch>,
    /// Punches voided or brought back meanwhile, and whether they are voided now.
    pub voided: Vec<(PunchId, bool)>,
    /// Punches walked before that it doubted because of a neighbour, and what they are doubted for
    /// now.
    pub doubted: Vec<(PunchId, Doubted)>,
    /// How far it walked each device's chain.
    pub devices: Vec<DeviceMark>,
}

/// A punch as the adjudicator remembers it.
#[derive(Debug, Clone, Copy)]
pub struct JudgedPunch {
    pub punch: PunchId,
    pub employee: EmployeeId,
    pub captured_at: Time,
    pub site: SiteId,
    pub kind: PunchKind,
    pub doubted: Doubted,
}

/// How far a device's chain was walked.
#[derive(Debug, Clone)]
pub struct DeviceMark {
    pub device: DeviceId,
    pub chain: Chain,
}
