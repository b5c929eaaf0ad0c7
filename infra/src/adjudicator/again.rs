//! Looking at punches again whose judgement rests on what has changed: who they are whose badge was
//! read, whether they had left, which punches stand beside theirs. As of where the adjudicator
//! stands, before it goes on; a part at a time, so that ten thousand at once are no burden.

use std::collections::HashMap;

use punchtrail_domain::{
    epoch::Anchor,
    policy::judging::{
        Doubted, Facts, NEIGHBOURS_MAX, Neighbour, about_person, doubts_beside, verify_by,
    },
    punch::{Ground, Origin, Punch},
};
use punchtrail_protocol::{Digest, EmployeeId, PunchId, Time, capture::Capture};

use super::{
    AdjudicatorError,
    badges::Holders,
    changes,
    found::{Found, Walked},
    memory::{self, Captured, Remembered},
    register::{Maker, Register},
};
use crate::{
    ledger::{give_way, load},
    postgres::Pool,
};

/// How many are looked at in one transaction.
const PART_PUNCHES_MAX: usize = 500;

/// A punch that is looked at.
struct Looked {
    punch: PunchId,
    capture: Capture,
    employee: Option<EmployeeId>,
    true_at: Time,
    received_at: Time,
    is_out: bool,
}

/// Looks at the next ones, as of `place`; none when nothing is left.
pub(super) async fn look(
    pool: &Pool,
    register: &Register,
    place: Anchor,
) -> Result<Option<Walked>, AdjudicatorError> {
    let wanted = memory::to_look_at_again(pool, PART_PUNCHES_MAX).await?;
    if wanted.is_empty() {
        return Ok(None);
    }
    let looked = read(pool, &wanted).await?;
    let (numbers, holdings) = badges(register, &looked);
    let holders = Holders::read(pool, &numbers, &holdings).await?;
    let around_ms = register.neighbourhood_ms();
    let around: Vec<_> = looked
        .iter()
        .flat_map(|one| candidates(one, &holders).map(|who| (who, one.true_at, one.punch)))
        .collect();
    let mut neighbours = memory::neighbours(pool, &around, around_ms).await?;
    let mut walked = Walked { looked: wanted, ..Walked::from(place) };
    let mut identified = Vec::new();
    for (index, one) in looked.iter().enumerate() {
        give_way(index).await;
        let found = revise(register, one, &holders, &mut neighbours);
        if let Found::Revised { who: Some((employee, _)), .. } = &found {
            walked.people.insert(one.punch, *employee);
            identified.push((*employee, one.true_at, one.punch));
        }
        walked.found(one.punch, found);
    }
    // Whoever stands after one that is somebody's by now may double it.
    walked.again = memory::doubted_by(pool, &identified, around_ms).await?;
    walked.again.retain(|punch| !walked.looked.contains(punch));
    Ok(Some(walked))
}

/// The captured ones among them, in their order: what people entered, they ruled on.
async fn read(pool: &Pool, wanted: &[PunchId]) -> Result<Vec<Looked>, AdjudicatorError> {
    let ids: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let (loaded, held) =
        (load::<Punch>(pool, &ids).await?, memory::remembered(pool, wanted).await?);
    let looked = |punch: &PunchId| {
        // Whose it is, and whether it counts, as of where the adjudicator stands: its stream may
        // be further on.
        let Remembered { employee, is_out, .. } = *held.get(punch)?;
        let state = &loaded.get(&punch.to_string())?.aggregate;
        let Origin::Captured { capture, .. } = state.origin()? else { return None };
        let (_, received_at, clock) = state.synced()?;
        let true_at = clock.true_time(capture.captured_at);
        let capture = Capture::clone(capture);
        Some(Looked { punch: *punch, capture, employee, true_at, received_at, is_out })
    };
    Ok(wanted.iter().filter_map(looked).collect())
}

/// The badges that it turns on: those that were read, and those that are no longer held.
fn badges(register: &Register, looked: &[Looked]) -> (Vec<String>, Vec<Digest>) {
    let read = |one: &Looked| super::walk::badge_read(&one.capture);
    let numbers = looked.iter().filter_map(read).collect();
    let people = looked.iter().filter_map(|one| one.employee);
    (numbers, people.flat_map(|employee| register.ended_badges(employee)).collect())
}

/// Whose it may be.
fn candidates(one: &Looked, holders: &Holders) -> impl Iterator<Item = EmployeeId> {
    let number = one.capture.badge.as_deref().filter(|_| one.employee.is_none());
    let held = number.map_or(&[][..], |number| holders.of(number));
    one.employee.into_iter().chain(held.iter().map(|holder| holder.employee))
}

fn revise(
    register: &Register,
    one: &Looked,
    holders: &Holders,
    neighbours: &mut HashMap<EmployeeId, Captured>,
) -> Found {
    let Looked { punch, ref capture, true_at, received_at, .. } = *one;
    let who = match (one.employee, &capture.badge) {
        (None, Some(badge)) => register.holder(badge, true_at, holders),
        _ => None,
    };
    let employee = one.employee.or(who.map(|(employee, _)| employee));
    let maker = employee.map(|employee| Maker::of(capture, employee));
    let said = who.and_then(|(_, ground): (_, Ground)| changes::since(register, ground));
    let facts = Facts {
        punch,
        site: capture.site,
        kind: capture.kind,
        captured_at: capture.captured_at,
        true_at,
        // A verdict on the picture can't be waited for before it is known whose it is.
        received_at: said.map_or(received_at, |said| said.max(received_at)),
        clock_offset_ms: None,
        person: register.person(maker, capture.site, true_at, holders),
        compares: register.compares(employee, capture.captured_at),
        device_revoked: false,
        fork: None,
    };
    let policy = register.policy(capture.site, true_at);
    let known = employee.map(|employee| neighbours.entry(employee).or_default());
    let before = known.as_ref().map(|known| known.range(..(true_at, punch)).rev());
    let nearest: Vec<Neighbour> = before
        .into_iter()
        .flatten()
        .take(NEIGHBOURS_MAX)
        .map(|(_, neighbour)| *neighbour)
        .collect();
    if let (Some(known), true, Some(_)) = (known, !one.is_out, who) {
        let (site, kind) = (capture.site, capture.kind);
        let doubted = Doubted::default();
        known.insert(
            (true_at, punch),
            Neighbour { punch, site, kind, true_at, out: false, doubted },
        );
    }
    Found::Revised {
        who,
        person: about_person(policy, &facts),
        beside: doubts_beside(policy, &facts, &nearest),
        verify_by: who.and_then(|_| verify_by(policy, &facts)),
    }
}
