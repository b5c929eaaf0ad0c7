//! What changes the ground of judgements: people and their badges, sites, and what people ruled. It
//! makes no judgement by itself; what rests on it is looked at again ([`super::again`]) before
//! anything after it is judged, as if it had always been so.

use std::{collections::HashSet, sync::Arc};

use punchtrail_domain::{
    Event,
    employee::EmployeeEvent,
    epoch::Anchor,
    punch::{Basis, Ground, PunchEvent},
};
use punchtrail_protocol::{Digest, EmployeeId, PunchId, Time};

use super::{
    AdjudicatorError, Entries,
    badges::Holders,
    found::Walked,
    memory::{self, Remembered},
    register::Register,
};
use crate::{
    ledger::{Entry, give_way},
    postgres::Pool,
};

/// From so many punches on that must be looked at again, a walk ends even within a commit.
const AGAIN_MAX: usize = 10_000;

/// What an event is to the adjudicator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearing {
    /// It changes what judgements rest on.
    Changes,
    /// It is judged, or doubted for what its device did.
    Judged,
    /// Nothing follows from it.
    None,
}

impl Bearing {
    /// An event's.
    pub(super) const fn of(event: &Event) -> Self {
        match event {
            Event::Site(..) | Event::Employee(..) => Self::Changes,
            Event::Device(..) | Event::Quarantine(..) => Self::Judged,
            Event::Epoch(..) | Event::Dispute(..) => Self::None,
            Event::Punch(_, event) => Self::of_punch(event),
        }
    }

    const fn of_punch(event: &PunchEvent) -> Self {
        match event {
            PunchEvent::Voided { .. }
            | PunchEvent::Rejected { .. }
            | PunchEvent::Reinstated {}
            | PunchEvent::Accepted { basis: Basis::Manager, .. }
            | PunchEvent::Reassigned { .. }
            | PunchEvent::Identified { ground: Ground::Manager, .. } => Self::Changes,
            PunchEvent::Captured { .. }
            | PunchEvent::Synced { .. }
            | PunchEvent::Admitted { .. }
            | PunchEvent::Entered { .. }
            | PunchEvent::ConflictingCaptureReceived { .. }
            | PunchEvent::VerificationSucceeded { .. }
            | PunchEvent::VerificationFailed { .. }
            | PunchEvent::VerificationUnavailable { .. } => Self::Judged,
            PunchEvent::Accepted { .. }
            | PunchEvent::AnomalyFlagged { .. }
            | PunchEvent::AnomalyWithdrawn { .. }
            | PunchEvent::Amended { .. }
            | PunchEvent::Identified { .. }
            | PunchEvent::PhotoErased { .. }
            | PunchEvent::PhotoReceived { .. }
            | PunchEvent::PhotoRetaken { .. }
            | PunchEvent::ReferralLifted {}
            | PunchEvent::ReferredForReview { .. }
            | PunchEvent::ReviewEscalated { .. }
            | PunchEvent::ShiftJoined { .. }
            | PunchEvent::ShiftParted { .. }
            | PunchEvent::VerificationRequested { .. } => Self::None,
        }
    }
}

/// A walk is about changes alone, or about what is judged; which it is.
pub(super) fn cut(entries: &mut Vec<Arc<Entry>>) -> Bearing {
    let mut about = Bearing::None;
    let other = |entry: &Arc<Entry>| {
        let bearing = entry.event().map_or(Bearing::None, Bearing::of);
        if about == Bearing::None {
            about = bearing;
        }
        bearing != Bearing::None && bearing != about
    };
    let cut = entries.iter().position(other);
    entries.truncate(cut.unwrap_or(entries.len()));
    about
}

/// What stands already of what a stretch of changes is about.
struct Known {
    holders: Holders,
    /// Who of those concerned has a punch.
    punched: HashSet<EmployeeId>,
    /// The badges that punches of nobody wait with.
    waiting: HashSet<String>,
    punches: std::collections::HashMap<PunchId, Remembered>,
}

impl Known {
    async fn read(pool: &Pool, entries: &Entries) -> Result<Self, AdjudicatorError> {
        let (mut people, mut holdings, mut punches) = (Vec::new(), Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            give_way(index).await;
            match entry.event()? {
                Event::Employee(employee, event) => {
                    people.push(*employee);
                    holdings.extend(holding(event));
                }
                Event::Punch(punch, _) => punches.push(*punch),
                _ => {}
            }
        }
        let holders = Holders::read(pool, &[], &holdings).await?;
        people.extend(holdings.iter().flat_map(|of| holders.beside(*of)).map(|of| of.employee));
        let numbers: Vec<String> =
            holdings.iter().filter_map(|of| holders.number(*of)).cloned().collect();
        Ok(Self {
            punched: memory::who_punched(pool, &people).await?,
            waiting: memory::badges_that_wait(pool, &numbers).await?,
            punches: memory::remembered(pool, &punches).await?,
            holders,
        })
    }
}

const fn holding(event: &EmployeeEvent) -> Option<Digest> {
    match event {
        EmployeeEvent::BadgeIssued { holding, .. } | EmployeeEvent::BadgeEnded { holding, .. } => {
            Some(*holding)
        }
        _ => None,
    }
}

/// Whether what people ruled in one commit goes on with this entry: it is looked at together, wherever
/// a read was cut, for nothing is judged in between.
pub(super) fn goes_on(last: &Entry, next: &Entry) -> bool {
    let is_of_punch = |entry: &Entry| matches!(entry.event(), Ok(Event::Punch(..)));
    let bearing = next.event().map_or(Bearing::Judged, Bearing::of);
    is_of_punch(last)
        && is_of_punch(next)
        && bearing != Bearing::Judged
        && last.recorded.recorded_at == next.recorded.recorded_at
}

/// Walks over changes, up to the first after which something must be looked at again, before
/// anything else changes.
pub(super) async fn walk(
    pool: &Pool,
    register: &mut Register,
    entries: &Entries,
    from: Anchor,
) -> Result<Walked, AdjudicatorError> {
    let mut known = Known::read(pool, entries).await?;
    let mut walked = Walked::from(from);
    let mut last: Option<&Entry> = None;
    for (index, entry) in entries.iter().enumerate() {
        give_way(index).await;
        let to_be_looked_at = walked.again.len();
        let together = last.is_some_and(|last| goes_on(last, entry)) && to_be_looked_at < AGAIN_MAX;
        if to_be_looked_at > 0 && !together {
            break;
        }
        let event = entry.event()?;
        let again = match event {
            Event::Employee(employee, changed) => {
                of_person(pool, register, (*employee, changed), &known).await?
            }
            Event::Punch(punch, ruled) => {
                let around_ms = register.neighbourhood_ms();
                of_punch(pool, (*punch, ruled), &mut known, &mut walked, around_ms).await?
            }
            _ => Vec::new(),
        };
        register.take(event, entry.position(), entry.recorded.recorded_at.into());
        walked.to = entry.anchor();
        walked.again.extend(again);
        last = Some(entry);
    }
    register.moved_to(walked.to);
    Ok(walked)
}

/// The punches whose judgement may rest on what happens to a person.
async fn of_person(
    pool: &Pool,
    register: &Register,
    (employee, event): (EmployeeId, &EmployeeEvent),
    known: &Known,
) -> Result<Vec<PunchId>, AdjudicatorError> {
    let Some(since) = register.changes_from(employee, event) else { return Ok(Vec::new()) };
    let holding = holding(event);
    let beside = holding.map_or(&[][..], |holding| known.holders.beside(holding));
    let mut people: Vec<EmployeeId> = beside.iter().map(|holder| holder.employee).collect();
    people.push(employee);
    people.sort_unstable();
    people.dedup();
    people.retain(|employee| known.punched.contains(employee));
    let number = holding.and_then(|holding| known.holders.number(holding));
    let badges: Vec<String> =
        number.filter(|number| known.waiting.contains(*number)).cloned().into_iter().collect();
    if people.is_empty() && badges.is_empty() {
        return Ok(Vec::new());
    }
    Ok(memory::punches_since(pool, &people, &badges, since).await?)
}

/// The punches on which a ruling on one of them bears: those that it stands, or stood, beside; and
/// itself, if it became another's.
async fn of_punch(
    pool: &Pool,
    (punch, event): (PunchId, &PunchEvent),
    known: &mut Known,
    walked: &mut Walked,
    around_ms: i64,
) -> Result<Vec<PunchId>, AdjudicatorError> {
    let Some(held) = known.punches.get_mut(&punch) else { return Ok(Vec::new()) };
    let (before, true_at) = (*held, held.true_at);
    let beside = |employee: Option<EmployeeId>| {
        employee.map(|employee| (employee, true_at, punch)).into_iter().collect::<Vec<_>>()
    };
    match event {
        PunchEvent::Reassigned { employee, .. } | PunchEvent::Identified { employee, .. } => {
            held.employee = Some(*employee);
            walked.people.insert(punch, *employee);
            let mut around = beside(before.employee);
            around.push((*employee, true_at, punch));
            let mut again = memory::doubted_by(pool, &around, around_ms).await?;
            again.push(punch);
            Ok(again)
        }
        event => {
            let is_out = matches!(event, PunchEvent::Voided { .. } | PunchEvent::Rejected { .. });
            if before.is_out == is_out {
                return Ok(Vec::new());
            }
            held.is_out = is_out;
            walked.out.insert(punch, is_out);
            Ok(memory::doubted_by(pool, &beside(before.employee), around_ms).await?)
        }
    }
}

/// When a person's word was recorded on which an identification rests: what follows from it begins
/// then.
pub(super) fn since(register: &Register, ground: Ground) -> Option<Time> {
    match ground {
        Ground::Badge { holding, .. } => register.issued_at(holding),
        Ground::Manager => None,
    }
}
