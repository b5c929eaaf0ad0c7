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
    /// Punches taken out of the count or brought back meanwhile, and whether they are out now.
    pub out: Vec<(PunchId, bool)>,
    /// Punches that became somebody's.
    pub people: Vec<(PunchId, EmployeeId)>,
    /// Punches walked before whose neighbours give other doubts, and what they are doubted for now.
    pub doubted: Vec<(PunchId, Doubted)>,
    /// How far it walked each device's chain.
    pub devices: Vec<DeviceMark>,
    /// Punches to be looked at again before it goes on.
    pub again: Vec<PunchId>,
    /// Punches that it looked at again.
    pub looked: Vec<PunchId>,
}

/// A punch as the adjudicator remembers it.
#[derive(Debug, Clone)]
pub struct JudgedPunch {
    pub punch: PunchId,
    /// Whose it is, as far as that is known.
    pub employee: Option<EmployeeId>,
    /// The badge that was read, where nothing else was known.
    pub badge: Option<String>,
    /// When it truly was made, as far as the device's clock is known.
    pub true_at: Time,
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
