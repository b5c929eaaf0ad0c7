//! A worker's own record: what they punched, where it stands and why in words, the hours it comes
//! to, and what became of what they disputed. Without names: it is shown at a door.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

use jiff::{ToSpan, civil::Date};
use punchtrail_domain::{
    dispute::DisputeEvent,
    explanation::{reason_in_words, settlement_in_words},
    timecard::{Timecard, business_day, day_bounds},
};
use punchtrail_infra::{
    ledger::ReadError,
    postgres::Pool,
    rulings::disputes::{self as ruled, Happened},
};
use punchtrail_protocol::{
    DisputeId, EmployeeId, PunchId, SiteId, Time,
    dispute::Day,
    wire::{
        RECORD_DAYS_MAX, RECORD_DISPUTES_MAX, RecordAnswer, RecordDay, RecordDispute, RecordPunch,
        RecordReason, RecordResolution, WorkerRecord,
    },
};

use crate::{
    engine::page::{Order, PAGE_ROWS_MAX},
    punches::{
        PunchView,
        timecards::{self, TimecardsError},
        timeline::{self, Filter},
    },
    rulings::disputes::{self, DisputeView},
    sites::PairingRules,
};

/// The models that a record rests on.
pub const RESTS_ON: [&str; 4] =
    [timeline::NAME, timecards::NAME, crate::sites::NAME, disputes::NAME];

/// Why a record could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Timecards(#[from] TimecardsError),
    /// A dispute's events can't be read, now or by this program.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<sqlx::Error> for RecordError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

/// A worker's record of the last `days` business days up to `now`, today among them, as a site
/// counts days; at most [`RECORD_DAYS_MAX`]. Of more than a thousand punches the newest.
///
/// # Errors
/// See [`RecordError`].
pub async fn record(
    pool: &Pool,
    employee: EmployeeId,
    site: SiteId,
    days: u32,
    now: Time,
) -> Result<WorkerRecord, RecordError> {
    let rules = PairingRules::of(pool, &[site]).await?;
    let rules = rules.get(site);
    let last = business_day(now, rules);
    let back = i64::from(days.clamp(1, RECORD_DAYS_MAX)) - 1;
    let first = last.checked_sub(back.days()).unwrap_or(last);
    let cards = timecards::of_employee(pool, employee, first, last).await?;
    let (from, to) = (day_bounds(first, rules).0, day_bounds(last, rules).1);
    let filter =
        Filter { employee: Some(employee), from: Some(from), to: Some(to), ..Filter::default() };
    let page = timeline::list(pool, &filter, Order::NewestFirst, None, PAGE_ROWS_MAX).await?;
    let mut punches = page.rows;
    if !page.more {
        punches.extend(elsewhere(pool, &cards, &punches).await?);
        punches.sort_by_key(|punch| Reverse((punch.effective_at, punch.punch)));
    }
    let of_day = |punch: &PunchView| business_day(punch.effective_at, rules);
    let days = by_day(cards, punches, of_day);
    Ok(WorkerRecord { employee, days, disputes: disputed(pool, employee).await? })
}

/// The punches of the cards that by their own clocks, known to have been wrong, were made on other
/// days.
async fn elsewhere(
    pool: &Pool,
    cards: &[Timecard],
    known: &[PunchView],
) -> Result<Vec<PunchView>, sqlx::Error> {
    let known: HashSet<PunchId> = known.iter().map(|punch| punch.punch).collect();
    let ends = cards.iter().flat_map(|card| &card.segments).flat_map(|part| [&part.from, &part.to]);
    let lone = cards.iter().flat_map(|card| &card.unmatched).map(|one| &one.mark);
    let wrong = ends.chain(lone).filter(|mark| mark.true_at.is_some()).map(|mark| mark.punch);
    let missing: HashSet<PunchId> = wrong.filter(|punch| !known.contains(punch)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let missing: Vec<PunchId> = missing.into_iter().take(PAGE_ROWS_MAX as usize).collect();
    timeline::several(pool, &missing).await
}

/// Each punch on the day of its card: what ends a night's work belongs to the day it began.
fn by_day(
    cards: Vec<Timecard>,
    punches: Vec<PunchView>,
    of_day: impl Fn(&PunchView) -> Date,
) -> Vec<RecordDay> {
    let mut on: HashMap<PunchId, Date> = HashMap::new();
    let mut days: BTreeMap<Date, RecordDay> = BTreeMap::new();
    let empty = |day: Date| RecordDay {
        day: day.into(),
        accepted_min: 0,
        provisional_min: 0,
        punches: Vec::new(),
    };
    for card in cards {
        let marks = card.segments.iter().flat_map(|part| [part.from.punch, part.to.punch]);
        on.extend(marks.map(|punch| (punch, card.day)));
        on.extend(card.unmatched.iter().map(|one| (one.mark.punch, card.day)));
        let day = days.entry(card.day).or_insert_with(|| empty(card.day));
        day.accepted_min = card.totals.worked_accepted_min();
        day.provisional_min = card.totals.worked_provisional_min();
    }
    for punch in punches.into_iter().rev() {
        let day = on.get(&punch.punch).copied().unwrap_or_else(|| of_day(&punch));
        days.entry(day).or_insert_with(|| empty(day)).punches.push(told(punch));
    }
    days.into_values().collect()
}

fn told(punch: PunchView) -> RecordPunch {
    let reason = |code: String| RecordReason { text: reason_in_words(&code), code };
    RecordPunch {
        punch: punch.punch,
        kind: punch.kind,
        captured_at: punch.captured_at,
        effective_at: punch.effective_at,
        standing: punch.standing,
        reasons: punch.reasons.into_iter().map(reason).collect(),
    }
}

async fn disputed(pool: &Pool, employee: EmployeeId) -> Result<Vec<RecordDispute>, RecordError> {
    let rows = disputes::of_employee(pool, employee, RECORD_DISPUTES_MAX).await?;
    let ids: Vec<DisputeId> = rows.iter().map(|row| row.dispute).collect();
    let mut happened: HashMap<DisputeId, Vec<Happened>> = HashMap::new();
    for one in ruled::history(pool, &ids).await? {
        happened.entry(one.dispute).or_default().push(one);
    }
    let of = |row: DisputeView| {
        let happened = happened.remove(&row.dispute).unwrap_or_default();
        dispute(row, happened)
    };
    Ok(rows.into_iter().map(of).collect())
}

fn dispute(row: DisputeView, happened: Vec<Happened>) -> RecordDispute {
    let (mut text, mut answers, mut resolution) = (None, Vec::new(), None);
    for one in happened {
        match one.event {
            DisputeEvent::Opened { .. } => text = one.text,
            DisputeEvent::Answered { .. } => {
                answers.extend(one.text.map(|text| RecordAnswer { at: one.at, text }));
            }
            DisputeEvent::Resolved { how, by_punch, .. } => {
                let words = settlement_in_words(how).to_owned();
                let (at, text) = (one.at, one.text);
                resolution = Some(RecordResolution { how, words, by_punch, at, text });
            }
            DisputeEvent::Reopened { .. } => resolution = None,
            DisputeEvent::EvidenceAdded { .. } => {}
        }
    }
    let (dispute, punch, day): (_, _, Option<Day>) = (row.dispute, row.punch, row.day);
    let (cause, state, opened_at) = (row.cause, row.state, row.opened_at);
    RecordDispute { dispute, punch, day, cause, state, opened_at, text, answers, resolution }
}
