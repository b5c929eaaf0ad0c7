//! What integrators are told: one event for each of the ledger's that bears on hours, disputes,
//! devices or people.
//!
//! A body is made once, when the follower comes to its event, and kept: what is sent, what is sent
//! again and what fills gaps are the same bytes. It holds ids, times and codes, enough to run
//! payroll without asking back; never a name, a photo or a text that somebody typed. The one thing
//! of a person's in it, their id in another system, is taken out when they are erased.

mod follower;
mod made;
mod read;

use punchtrail_protocol::Position;

pub use follower::{NAME, Teller};
pub use read::{Asked, Told, after, place};

/// What is told.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::VariantArray,
    strum::EnumString,
    strum::IntoStaticStr,
)]
pub enum EventType {
    #[strum(serialize = "punch.recorded")]
    PunchRecorded,
    #[strum(serialize = "punch.identified")]
    PunchIdentified,
    #[strum(serialize = "punch.accepted")]
    PunchAccepted,
    #[strum(serialize = "punch.referred")]
    PunchReferred,
    #[strum(serialize = "punch.rejected")]
    PunchRejected,
    #[strum(serialize = "punch.amended")]
    PunchAmended,
    #[strum(serialize = "punch.voided")]
    PunchVoided,
    #[strum(serialize = "dispute.opened")]
    DisputeOpened,
    #[strum(serialize = "dispute.resolved")]
    DisputeResolved,
    #[strum(serialize = "device.enrolled")]
    DeviceEnrolled,
    #[strum(serialize = "device.gap")]
    DeviceGap,
    #[strum(serialize = "device.revoked")]
    DeviceRevoked,
    #[strum(serialize = "device.command_finished")]
    DeviceCommandFinished,
    #[strum(serialize = "employee.changed")]
    EmployeeChanged,
}

/// Of a test event, which is of nothing in the ledger.
pub const TEST_TYPE: &str = "webhook.test";

/// In SQL: whether an `endpoint` wants to be told of an `event`.
pub(super) const IS_TOLD: &str = "(endpoint.types is null or event.type = any(endpoint.types)) \
    and (endpoint.sites is null or event.sites && endpoint.sites)";

impl EventType {
    /// Its name, as bodies and filters write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// All names.
    pub fn names() -> Vec<&'static str> {
        let all = <Self as strum::VariantArray>::VARIANTS;
        all.iter().map(|one| one.as_str()).collect()
    }
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What a receiver knows it by: of these very bytes of the ledger, so that another event at the
    /// same position, should the database ever go back, is another one.
    pub id: String,
    pub position: Position,
    pub event_type: EventType,
    pub sites: Vec<uuid::Uuid>,
    pub employee: Option<uuid::Uuid>,
    pub external_id: Option<String>,
    pub body: String,
    pub at: jiff::Timestamp,
}
