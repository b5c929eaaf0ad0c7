//! Bodies, made from events and from what they happened to.

use std::collections::HashMap;

use punchtrail_domain::{
    Recorded,
    device::{Device, DeviceEvent, Gap},
    dispute::{Dispute, DisputeEvent},
    employee::{DirectoryField, Employee, EmployeeEvent},
    punch::{Basis, Punch, PunchEvent, RejectionReason, RulingReason},
};
use punchtrail_protocol::{
    CommandId, DeviceId, Digest, DisputeId, EmployeeId, Position, PunchId, SiteId, Time,
    capture::PunchKind,
    dispute::{Day, DisputeCause, DisputeState, Settlement},
    vocabulary::{Reason, Standing},
};
use serde::Serialize;

use super::{EventType, NewEvent};

/// The ids of people in another system.
pub(super) type ExternalIds = HashMap<uuid::Uuid, String>;

/// A body: what is sent, and what `GET /v1/events` gives.
#[derive(Debug, Serialize)]
struct Body<'a, D> {
    r#type: &'a str,
    timestamp: Time,
    data: &'a D,
}

/// How a punch stands after the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PunchTold {
    /// The event's place in the ledger.
    pub position: Position,
    pub punch: PunchId,
    /// Whose it is; null while nobody knows.
    pub employee: Option<EmployeeId>,
    /// Their id in another system, if they have one.
    pub external_id: Option<String>,
    pub site: Option<SiteId>,
    /// The device that captured it; null for one that a person entered or admitted.
    pub device: Option<DeviceId>,
    /// The kind that counts.
    pub kind: Option<PunchKind>,
    /// When it was made, by the device's clock or by whoever entered it.
    pub captured_at: Option<Time>,
    /// The time that counts.
    pub effective_at: Option<Time>,
    pub standing: Standing,
    /// Whether it counts, at least provisionally.
    pub counts: bool,
    /// What it is referred for.
    pub reasons: Vec<Reason>,
    /// The `out` that a person joined this `in` with.
    pub joined: Option<PunchId>,
    /// Of one accepted: on what ground.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// Of one ruled on by a person: why, as a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ruled_for: Option<Ruled>,
    /// Of one given to somebody else: whose it was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_employee: Option<EmployeeId>,
}

/// Why a person ruled so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Ruled {
    Reason(RulingReason),
    Rejection(RejectionReason),
}

/// A dispute after the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DisputeTold {
    pub position: Position,
    pub dispute: DisputeId,
    pub employee: Option<EmployeeId>,
    pub external_id: Option<String>,
    pub site: Option<SiteId>,
    /// The punch that it is about, if it is about one.
    pub punch: Option<PunchId>,
    /// The day that it is about, if it is about one.
    pub day: Option<Day>,
    pub cause: Option<DisputeCause>,
    /// `open`, `reopened` or `resolved`.
    pub state: DisputeState,
    /// How it was settled.
    pub settlement: Option<Settlement>,
    /// The punch that settles it, where another one does.
    pub by_punch: Option<PunchId>,
}

/// What a device did or what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceTold {
    pub position: Position,
    pub device: DeviceId,
    /// The site that it serves.
    pub site: Option<SiteId>,
    /// Of a gap: the numbers that are missing, or came after all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// Of a gap: `opened` or `closed`; of a command: `done`, `failed`, `refused`, `expired` or
    /// `cancelled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandId>,
    /// Since when it is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
}

/// What changed about a person.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmployeeTold {
    pub position: Position,
    pub employee: EmployeeId,
    pub external_id: Option<String>,
    /// `registered`, `assigned`, `unassigned`, `directory`, `departed`, `departure_cancelled`,
    /// `returned`, `badge_issued`, `badge_ended` or `erased`.
    pub change: &'static str,
    /// The site that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
    /// Of the directory: which of its fields, never what stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<DirectoryField>>,
    /// From when on it holds; null for since ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// The name by which receivers know an event of the ledger.
fn id(of: &Recorded) -> String {
    let digest = Digest::of_parts(&[
        b"punchtrail.webhook.v1",
        of.aggregate_type.as_str().as_bytes(),
        of.aggregate_id.as_bytes(),
        &of.sequence.to_be_bytes(),
        &of.position.0.to_be_bytes(),
        &of.recorded_at.as_microsecond().to_be_bytes(),
        of.payload.as_bytes(),
    ]);
    format!("evt_{}", hex::encode(&digest.0[..16]))
}

fn made<D: Serialize>(
    of: &Recorded,
    event_type: EventType,
    sites: impl IntoIterator<Item = SiteId>,
    (employee, external_id): (Option<EmployeeId>, Option<String>),
    data: &D,
) -> Option<NewEvent> {
    let timestamp = of.recorded_at.into();
    let body = Body { r#type: event_type.as_str(), timestamp, data };
    Some(NewEvent {
        id: id(of),
        position: of.position,
        event_type,
        sites: sites.into_iter().map(SiteId::uuid).collect(),
        employee: employee.map(EmployeeId::uuid),
        external_id,
        // Ids, times and codes: nothing that can't be written.
        body: serde_json::to_string(&body).ok()?,
        at: of.recorded_at,
    })
}

/// What is told of a punch's event; `after` is the punch as it is then.
pub(super) fn of_punch(
    of: &Recorded,
    (punch, event): (PunchId, &PunchEvent),
    (before, after): (Option<EmployeeId>, &Punch),
    ids: &ExternalIds,
) -> Option<NewEvent> {
    use PunchEvent as On;
    let (mut basis, mut ruled_for, mut previous_employee) = (None, None, None);
    let event_type = match event {
        On::Captured { .. } | On::Admitted { .. } => EventType::PunchRecorded,
        On::Entered { reason, .. } => {
            ruled_for = Some(Ruled::Reason(*reason));
            EventType::PunchRecorded
        }
        On::Identified { .. } => EventType::PunchIdentified,
        On::Reassigned { reason, .. } => {
            (ruled_for, previous_employee) = (reason.map(Ruled::Reason), before);
            EventType::PunchIdentified
        }
        On::Accepted { basis: on, reason, .. } => {
            (basis, ruled_for) = (Some(*on), reason.map(Ruled::Reason));
            EventType::PunchAccepted
        }
        On::ReferredForReview { .. } => EventType::PunchReferred,
        On::Rejected { reason, .. } => {
            ruled_for = Some(Ruled::Rejection(*reason));
            EventType::PunchRejected
        }
        On::Amended { reason, .. } => {
            ruled_for = reason.map(Ruled::Reason);
            EventType::PunchAmended
        }
        On::ShiftJoined { .. } | On::ShiftParted { .. } => EventType::PunchAmended,
        On::Voided { reason, .. } => {
            ruled_for = reason.map(Ruled::Reason);
            EventType::PunchVoided
        }
        _ => return None,
    };
    let employee = after.employee();
    let external_id = employee.and_then(|who| ids.get(&who.uuid()).cloned());
    let effective = after.effective();
    let told = PunchTold {
        position: of.position,
        punch,
        employee,
        external_id: external_id.clone(),
        site: after.site(),
        device: after.captured_by(),
        kind: effective.map(|(_, kind)| kind),
        captured_at: after.origin().map(captured_at),
        effective_at: effective.map(|(at, _)| at),
        standing: after.standing(),
        counts: after.standing().counts(),
        reasons: after.referred_for().to_vec(),
        joined: after.joined(),
        basis,
        ruled_for,
        previous_employee,
    };
    made(of, event_type, after.site(), (employee, external_id), &told)
}

fn captured_at(origin: &punchtrail_domain::punch::Origin) -> Time {
    use punchtrail_domain::punch::Origin;
    match origin {
        Origin::Captured { capture, .. } => capture.captured_at,
        Origin::Admitted { captured_at, .. } => *captured_at,
        Origin::Entered { at, .. } => *at,
    }
}

/// What is told of a dispute's event; `after` is the dispute as it is then.
pub(super) fn of_dispute(
    of: &Recorded,
    (dispute, event): (DisputeId, &DisputeEvent),
    after: &Dispute,
    ids: &ExternalIds,
) -> Option<NewEvent> {
    let event_type = match event {
        DisputeEvent::Opened { .. } | DisputeEvent::Reopened { .. } => EventType::DisputeOpened,
        DisputeEvent::Resolved { .. } => EventType::DisputeResolved,
        DisputeEvent::EvidenceAdded { .. } | DisputeEvent::Answered { .. } => return None,
    };
    let subject = after.subject();
    let employee = subject.map(|subject| subject.employee);
    let external_id = employee.and_then(|who| ids.get(&who.uuid()).cloned());
    let settled = after.settled().filter(|_| event_type == EventType::DisputeResolved);
    let told = DisputeTold {
        position: of.position,
        dispute,
        employee,
        external_id: external_id.clone(),
        site: subject.map(|subject| subject.site),
        punch: subject.and_then(|subject| subject.about.punch()),
        day: subject.and_then(|subject| subject.about.day()),
        cause: subject.map(|subject| subject.cause),
        state: after.state(),
        settlement: settled.map(|(how, _)| how),
        by_punch: settled.and_then(|(_, by)| by),
    };
    made(of, event_type, told.site, (employee, external_id), &told)
}

/// What is told of a device's event; `now` is the device as it was when this was made.
pub(super) fn of_device(
    of: &Recorded,
    (device, event): (DeviceId, &DeviceEvent),
    now: &Device,
) -> Option<NewEvent> {
    use DeviceEvent as On;
    let mut told = DeviceTold {
        position: of.position,
        device,
        site: now.sites().last().copied(),
        gap: None,
        status: None,
        command: None,
        revoked_at: None,
    };
    let event_type = match event {
        On::Enrolled { .. } => EventType::DeviceEnrolled,
        On::SequenceGapOpened { gap } => {
            (told.gap, told.status) = (Some(*gap), Some("opened"));
            EventType::DeviceGap
        }
        On::SequenceGapClosed { gap } => {
            (told.gap, told.status) = (Some(*gap), Some("closed"));
            EventType::DeviceGap
        }
        On::Revoked { at } => {
            told.revoked_at = Some(*at);
            EventType::DeviceRevoked
        }
        On::CommandFinished { command, status, .. } => {
            (told.command, told.status) = (Some(*command), Some(status.as_str()));
            EventType::DeviceCommandFinished
        }
        On::CommandExpired { command } => {
            (told.command, told.status) = (Some(*command), Some("expired"));
            EventType::DeviceCommandFinished
        }
        On::CommandCancelled { command } => {
            (told.command, told.status) = (Some(*command), Some("cancelled"));
            EventType::DeviceCommandFinished
        }
        _ => return None,
    };
    made(of, event_type, now.sites().iter().copied(), (None, None), &told)
}

/// What is told of a person's event; `now` is the person as they were when this was made. Nothing
/// of their face, nor of what is held for a court.
pub(super) fn of_employee(
    of: &Recorded,
    (employee, event): (EmployeeId, &EmployeeEvent),
    now: &Employee,
    ids: &ExternalIds,
) -> Option<NewEvent> {
    use EmployeeEvent as On;
    let (mut site, mut fields, mut at) = (None, None, None);
    let change = match event {
        On::Registered {} => "registered",
        On::AssignedToSite { site: to, from } => {
            (site, at) = (Some(*to), *from);
            "assigned"
        }
        On::UnassignedFromSite { site: of, until } => {
            (site, at) = (Some(*of), *until);
            "unassigned"
        }
        On::DirectoryChanged { fields: changed } => {
            let told = |field: &DirectoryField| *field != DirectoryField::HeadCovering;
            let changed: Vec<_> = changed.iter().copied().filter(told).collect();
            if changed.is_empty() {
                return None;
            }
            fields = Some(changed);
            "directory"
        }
        On::Departed { at: when } => {
            at = Some(*when);
            "departed"
        }
        On::DepartureCancelled {} => "departure_cancelled",
        On::Returned { at: when } => {
            at = Some(*when);
            "returned"
        }
        On::BadgeIssued { from, .. } => {
            at = Some(*from);
            "badge_issued"
        }
        On::BadgeEnded { until, .. } => {
            at = Some(*until);
            "badge_ended"
        }
        On::Erased { at: when } => {
            at = Some(*when);
            "erased"
        }
        _ => return None,
    };
    let external_id = ids.get(&employee.uuid()).cloned();
    let told = EmployeeTold {
        position: of.position,
        employee,
        external_id: external_id.clone(),
        change,
        site,
        fields,
        at,
    };
    let mut sites: Vec<SiteId> = now.assignments().open().chain(site).collect();
    sites.sort_unstable();
    sites.dedup();
    made(of, EventType::EmployeeChanged, sites, (Some(employee), external_id), &told)
}
