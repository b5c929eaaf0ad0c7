//! What the other punches of those who made some make of them: which have no partner on the card,
//! and after which one comes that is doubted for standing so near.

use std::collections::{BTreeSet, HashMap};

use jiff::{ToSpan, civil::Date, tz::TimeZone};
use jiff_sqlx::ToSqlx;
use punchtrail_domain::explanation::{Account, DoubtedAfter, OnCard};
use punchtrail_infra::{ledger::ReadError, postgres::Pool};
use punchtrail_protocol::{EmployeeId, PunchId, Time, capture::PunchKind, vocabulary::Reason};
use sqlx::{Row, postgres::PgRow};

use super::{context::Surroundings, read::Found};
use crate::{
    engine::columns::parsed,
    punches::timecards::{self, TimecardsError},
};

/// A card is named by the day on which its shift began, in any zone: so many days before.
const DAYS_BEFORE: i64 = 4;
/// And so many days after the punch's day in UTC.
const DAYS_AFTER: i64 = 1;
/// Punches of so many days are looked at in one read of cards.
const DAYS_AT_ONCE: i32 = 14;
/// How far on a later punch is looked for that is doubted because of one, in milliseconds.
const NEAR_MS: i64 = 3_600_000;

/// A punch on somebody's card.
#[derive(Clone, Copy)]
struct Placed {
    punch: PunchId,
    employee: EmployeeId,
    at: Time,
    kind: PunchKind,
}

impl Placed {
    fn of(account: &Account) -> Option<Self> {
        let (employee, at, kind) = account.on_card_of()?;
        Some(Self { punch: account.punch(), employee, at, kind })
    }

    fn date(&self) -> Date {
        TimeZone::UTC.to_datetime(self.at.timestamp()).date()
    }
}

/// Adds what cards say of punches that were found.
pub(super) async fn add(
    pool: &Pool,
    found: &[Found],
    to: &mut Surroundings,
) -> Result<(), ReadError> {
    let accounts = found.iter().filter_map(|found| found.as_ref().ok()?.as_ref());
    let mut placed: Vec<Placed> = accounts.filter_map(Placed::of).collect();
    if placed.is_empty() {
        return Ok(());
    }
    placed.sort_unstable_by_key(|one| one.at);
    let near = |a: &Placed, b: &Placed| {
        a.date().until(b.date()).is_ok_and(|span| span.get_days() <= DAYS_AT_ONCE)
    };
    let mut rest = &placed[..];
    while let Some(first) = rest.first() {
        let within = rest.iter().take_while(|one| near(first, one)).count().max(1);
        let (together, later) = rest.split_at(within);
        to.on_cards(unmatched(pool, together).await?);
        rest = later;
    }
    to.doubted_after(doubted_after(pool, &placed).await?);
    Ok(())
}

/// Those without a partner. Cards that can't be made say nothing of their punches.
async fn unmatched(
    pool: &Pool,
    placed: &[Placed],
) -> Result<HashMap<PunchId, OnCard>, sqlx::Error> {
    let (Some(first), Some(last)) = (placed.first(), placed.last()) else {
        return Ok(HashMap::new());
    };
    let people: BTreeSet<EmployeeId> = placed.iter().map(|one| one.employee).collect();
    let people: Vec<EmployeeId> = people.into_iter().collect();
    let (from, to) = (
        first.date().saturating_sub(DAYS_BEFORE.days()),
        last.date().saturating_add(DAYS_AFTER.days()),
    );
    let made = match timecards::of_people(pool, &people, from, to).await {
        Ok(made) => made,
        Err(TimecardsError::Database(error)) => return Err(error),
        Err(TimecardsError::Range | TimecardsError::TooMany) => return Ok(HashMap::new()),
    };
    let cards: HashMap<EmployeeId, _> =
        made.into_iter().map(|person| (person.employee, person.cards)).collect();
    let said = |one: &Placed| Some((one.punch, OnCard::of(one.punch, cards.get(&one.employee)?)?));
    Ok(placed.iter().filter_map(said).collect())
}

/// Of each the person's next punch, where that waits for a manager because it stands so near.
async fn doubted_after(
    pool: &Pool,
    placed: &[Placed],
) -> Result<HashMap<PunchId, DoubtedAfter>, sqlx::Error> {
    let rows: Vec<PgRow> = sqlx::query(
        "select want.n, later.punch, later.kind, later.reasons, \
             (extract(epoch from later.effective_at - want.at) * 1000)::bigint as apart_ms \
         from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) with ordinality \
             as want (punch, employee, at, n) \
         cross join lateral (select punch, kind, reasons, effective_at, standing \
             from read.timeline where employee = want.employee \
             and (effective_at, punch) > (want.at, want.punch) \
             and effective_at <= want.at + $4 * interval '1 millisecond' \
             and standing not in ('rejected', 'voided') \
             order by effective_at, punch limit 1) later \
         where later.standing = 'referred' \
         and later.reasons && array['near_duplicate', 'opposite_kind']",
    )
    .bind(placed.iter().map(|one| one.punch.uuid()).collect::<Vec<_>>())
    .bind(placed.iter().map(|one| one.employee.uuid()).collect::<Vec<_>>())
    .bind(placed.iter().map(|one| one.at.timestamp().to_sqlx()).collect::<Vec<_>>())
    .bind(NEAR_MS)
    .fetch_all(pool)
    .await?;
    let mut found = HashMap::new();
    for row in &rows {
        let at = usize::try_from(row.try_get::<i64, _>("n")? - 1).unwrap_or(usize::MAX);
        let Some(one) = placed.get(at) else { continue };
        let kind: PunchKind = parsed(row, "kind")?;
        let reasons: Vec<String> = row.try_get("reasons")?;
        // One of the same kind repeats it, one of the opposite kind may be the same reading.
        let reason = if kind == one.kind { Reason::NearDuplicate } else { Reason::OppositeKind };
        if reasons.iter().any(|held| held == reason.as_str()) {
            let punch = PunchId(row.try_get("punch")?);
            let apart_ms = row.try_get("apart_ms")?;
            found.insert(one.punch, DoubtedAfter { punch, kind, apart_ms, reason });
        }
    }
    Ok(found)
}
