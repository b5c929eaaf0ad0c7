//! What may be of a worker's day and is nobody's yet: items in quarantine, punches by badges that
//! nobody held, others' punches by a badge that was the worker's by then; and the worker's own that
//! a wrong clock put on another day.
//!
//! Whose a badge was is looked up where numbers stand, beside the ledger; none leaves here.
//! True times and unknown badges are as the adjudicator remembers them, so as far as it has judged.

use std::collections::BTreeSet;

use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    explanation::absence::{BadgeTie, DayBadge, DayClock, DayDoubt, DayItem, LISTED_COUNT_MAX},
    punch::{Anomaly, Punch},
};
use punchtrail_infra::{ledger, postgres::Pool};
use punchtrail_protocol::{DeviceId, EmployeeId, PunchId, SiteId, Time, vocabulary::Reason};
use sqlx::{Row, postgres::PgRow};

use super::absence::AbsenceError;
use crate::{
    engine::columns::{parsed, time},
    punches::{PunchView, row::COLUMNS},
    rulings::quarantine::{self, QuarantineItem},
};

/// The most items or punches of a kind that an answer lists.
pub const ITEMS_MAX: usize = 20;
/// The most referred punches whose events are read for who else may have made them.
const DOUBTS_READ_MAX: i64 = 200;

/// The day that is asked for, and of whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub employee: EmployeeId,
    /// When the day begins, included, and ends, excluded.
    pub bounds: (Time, Time),
}

/// Some of what was found, and how much there is.
pub(super) type Listed<T> = (Vec<T>, u64);

/// What waits in quarantine.
pub(super) async fn items(
    pool: &Pool,
    asked: Asked,
    devices: &[DeviceId],
) -> Result<Listed<DayItem>, sqlx::Error> {
    let limits = (u32::try_from(ITEMS_MAX).unwrap_or(u32::MAX), LISTED_COUNT_MAX);
    let (found, count) =
        quarantine::of_person(pool, (asked.employee, devices), asked.bounds, limits).await?;
    let item = |row: QuarantineItem| {
        Some(DayItem {
            item: row.item,
            code: row.code.parse().ok()?,
            device: row.device,
            names_worker: row.employee == Some(asked.employee),
            captured_at: row.captured_at,
            received_at: row.received_at,
        })
    };
    Ok((found.into_iter().filter_map(item).collect(), count))
}

/// Punches by badges that were nobody's. At the worker's sites those of badges that nobody held, if
/// the day lacks a punch; at any site those of a badge that the worker holds or held.
pub(super) async fn unknown_badges(
    pool: &Pool,
    asked: Asked,
    sites: &BTreeSet<SiteId>,
    lacking: bool,
) -> Result<Listed<DayBadge>, sqlx::Error> {
    let rows: Vec<PgRow> = sqlx::query(include_str!("badges.sql"))
        .bind(asked.employee.uuid())
        .bind(sites.iter().map(|site| site.uuid()).collect::<Vec<_>>())
        .bind(asked.bounds.0.timestamp().to_sqlx())
        .bind(asked.bounds.1.timestamp().to_sqlx())
        .bind(lacking)
        .bind(i64::try_from(ITEMS_MAX).unwrap_or(i64::MAX))
        .bind(LISTED_COUNT_MAX.cast_signed())
        .fetch_all(pool)
        .await?;
    let badge = |row: &PgRow| {
        let tie: BadgeTie = parsed(row, "tie")?;
        Ok(DayBadge {
            punch: PunchId(row.try_get("punch")?),
            kind: parsed(row, "kind")?,
            at: time(row, "effective_at")?,
            site: SiteId(row.try_get("site")?),
            device: DeviceId(row.try_get("device")?),
            standing: parsed(row, "standing")?,
            tie,
        })
    };
    Ok((rows.iter().map(badge).collect::<Result<_, sqlx::Error>>()?, found(&rows)?))
}

/// Others' punches that wait because the badge was this worker's by then.
pub(super) async fn doubted(pool: &Pool, asked: Asked) -> Result<Listed<DayDoubt>, AbsenceError> {
    let statement = format!(
        "select {COLUMNS} from read.timeline where exception = 'referred' \
         and effective_at >= $1 and effective_at < $2 and $3 = any(reasons) \
         and employee is distinct from $4 order by effective_at, punch limit $5"
    );
    let rows: Vec<PunchView> = sqlx::query_as(&statement)
        .bind(asked.bounds.0.timestamp().to_sqlx())
        .bind(asked.bounds.1.timestamp().to_sqlx())
        .bind(Reason::OtherHolder.as_str())
        .bind(asked.employee.uuid())
        .bind(DOUBTS_READ_MAX)
        .fetch_all(pool)
        .await?;
    let ids: Vec<PunchId> = rows.iter().map(|row| row.punch).collect();
    let theirs = held_by(pool, &ids, asked.employee).await?;
    let doubt = |row: PunchView| DayDoubt {
        punch: row.punch,
        kind: row.kind,
        at: row.effective_at,
        site: row.site,
        device: row.device,
    };
    let mut found: Vec<DayDoubt> =
        rows.into_iter().filter(|row| theirs.contains(&row.punch)).map(doubt).collect();
    let count = found.len() as u64;
    found.truncate(ITEMS_MAX);
    Ok((found, count))
}

/// Those of some punches that are doubted because this worker held the badge.
async fn held_by(
    pool: &Pool,
    punches: &[PunchId],
    employee: EmployeeId,
) -> Result<BTreeSet<PunchId>, AbsenceError> {
    let ids: Vec<String> = punches.iter().map(PunchId::to_string).collect();
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let held = |anomaly: &Anomaly| *anomaly == Anomaly::OtherHolder { holder: Some(employee) };
    let found = ledger::load::<Punch>(pool, &ids).await?;
    let theirs = found.into_iter().filter(|(_, found)| {
        found.aggregate.is_nobodys() && found.aggregate.anomalies().iter().any(held)
    });
    Ok(theirs.filter_map(|(id, _)| id.parse().ok().map(PunchId)).collect())
}

/// The worker's punches that show this day and truly are of another, or the other way round. One
/// whose time a person has corrected is where it is.
pub(super) async fn wrong_clocks(
    pool: &Pool,
    asked: Asked,
) -> Result<Listed<DayClock>, sqlx::Error> {
    let rows: Vec<PgRow> = sqlx::query(include_str!("clocks.sql"))
        .bind(asked.employee.uuid())
        .bind(asked.bounds.0.timestamp().to_sqlx())
        .bind(asked.bounds.1.timestamp().to_sqlx())
        .bind(i64::try_from(ITEMS_MAX).unwrap_or(i64::MAX))
        .bind(LISTED_COUNT_MAX.cast_signed())
        .fetch_all(pool)
        .await?;
    let clock = |row: &PgRow| {
        Ok(DayClock {
            punch: PunchId(row.try_get("punch")?),
            kind: parsed(row, "kind")?,
            shown_at: time(row, "captured_at")?,
            true_at: time(row, "true_at")?,
            site: SiteId(row.try_get("site")?),
            device: DeviceId(row.try_get("device")?),
            standing: parsed(row, "standing")?,
            of_this_day: row.try_get("of_this_day")?,
        })
    };
    Ok((rows.iter().map(clock).collect::<Result<_, sqlx::Error>>()?, found(&rows)?))
}

/// How many rows a statement found, of which it gave some.
fn found(rows: &[PgRow]) -> Result<u64, sqlx::Error> {
    rows.first().map_or(Ok(0), |row| Ok(row.try_get::<i64, _>("found")?.cast_unsigned()))
}
