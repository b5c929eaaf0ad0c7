//! A worker's day, for punches that never came: which devices of the worker's sites still hold
//! punches, by their last reports, and which of their numbers are missing.

use jiff::{civil::Date, tz::TimeZone};
use punchtrail_domain::{
    AggregateType, Event, Recorded,
    aggregate::Undecodable,
    device::Gap,
    employee::EmployeeEvent,
    explanation::{
        Backlog, Names, Place,
        absence::{
            self, Absence, AbsenceFacts, DayDispute, DayItem, DayPunch, DeviceFacts, MissingRun,
        },
    },
    site::SiteRules,
    timecard::{TimecardPolicy, day_bounds},
};
use punchtrail_infra::{
    ledger::{self, ReadError},
    people::directory,
    postgres::Pool,
};
use punchtrail_protocol::{DeviceId, EmployeeId, Position, SiteId, Time};
use sqlx::{Row, postgres::PgRow, types::Json};
use uuid::Uuid;

use crate::{
    engine::page::Order,
    punches::timeline::{self, Filter},
    rulings::{disputes, quarantine},
};

/// The models that an answer rests on.
pub const RESTS_ON: [&str; 4] = [super::NAME, timeline::NAME, quarantine::NAME, disputes::NAME];
/// The most punches of the day that an answer lists.
pub const PUNCHES_MAX: u32 = 200;
/// The most items in quarantine that an answer lists.
pub const ITEMS_MAX: usize = 20;
/// The most disputes about the day that an answer lists.
pub const DISPUTES_MAX: u32 = 50;
/// The most devices that an answer lists.
pub const DEVICES_MAX: u32 = 200;
/// The most runs of missing numbers that an answer lists of one device.
pub const MISSING_RUNS_MAX: usize = 20;

/// Why a day could not be answered for.
#[derive(Debug, thiserror::Error)]
pub enum AbsenceError {
    /// The events of the worker or a site can't be read, now or by this program.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<sqlx::Error> for AbsenceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

impl From<Undecodable> for AbsenceError {
    fn from(error: Undecodable) -> Self {
        Self::Read(error.into())
    }
}

/// Answers for a worker's business day; none if the ledger has no worker of that id.
///
/// The day is meant in the zone, and with the start of day, of the site that the worker was
/// assigned to last.
///
/// # Errors
/// See [`AbsenceError`].
pub async fn explain_absence(
    pool: &Pool,
    employee: EmployeeId,
    day: Date,
) -> Result<Option<Absence>, AbsenceError> {
    let events = ledger::streams(pool, AggregateType::Employee, &[employee.to_string()]).await?;
    if events.is_empty() {
        return Ok(None);
    }
    let worked_at = sites(&events)?;
    let pairing = pairing(pool, worked_at.last().map(|(site, _)| *site), day).await?;
    let bounds = day_bounds(day, &pairing);
    let punches = punches(pool, employee, bounds).await?;
    let mut places: Vec<SiteId> = worked_at
        .into_iter()
        .filter(|(_, until)| until.is_none_or(|until| until >= bounds.0))
        .map(|(site, _)| site)
        .collect();
    places.extend(punches.iter().map(|(site, _)| *site));
    let mut names = Names::default();
    names.employees.extend(name(pool, employee).await?.map(|name| (employee, name)));
    names.erased.extend(erased(&events)?.map(|at| (employee, at)));
    let devices = devices(pool, &places, &mut names).await?;
    let mut quarantined = items(pool, employee, bounds, &mut names).await?;
    let quarantined_more = quarantined.len() > ITEMS_MAX;
    quarantined.truncate(ITEMS_MAX);
    let disputes = disputes_of(pool, employee, day, &punches).await?;
    let facts = AbsenceFacts {
        disputes,
        quarantined,
        quarantined_more,
        employee,
        day,
        zone: pairing.zone,
        bounds,
        punches: punches.into_iter().map(|(_, punch)| punch).collect(),
        devices,
        position: position(pool).await?,
    };
    Ok(Some(absence::explain_absence(facts, &names)))
}

/// The sites that a worker was ever assigned to, the last assigned last, with when that ended.
fn sites(events: &[Recorded]) -> Result<Vec<(SiteId, Option<Time>)>, Undecodable> {
    let mut sites: Vec<(SiteId, Option<Time>)> = Vec::new();
    for recorded in events {
        match recorded.event()? {
            Event::Employee(_, EmployeeEvent::AssignedToSite { site, .. }) => {
                sites.retain(|(known, _)| *known != site);
                sites.push((site, None));
            }
            Event::Employee(_, EmployeeEvent::UnassignedFromSite { site, until }) => {
                let until = until.or(Some(Time::from(recorded.recorded_at)));
                sites
                    .iter_mut()
                    .filter(|(known, _)| *known == site)
                    .for_each(|left| left.1 = until);
            }
            _ => {}
        }
    }
    // Where the worker still is comes after where the worker was.
    sites.sort_by_key(|(_, until)| until.is_none());
    Ok(sites)
}

/// When the worker was erased, if so.
fn erased(events: &[Recorded]) -> Result<Option<Time>, Undecodable> {
    for recorded in events.iter().rev() {
        if let Event::Employee(_, EmployeeEvent::Erased { at }) = recorded.event()? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// How a site's days are cut; in UTC from midnight when there is no site.
async fn pairing(
    pool: &Pool,
    site: Option<SiteId>,
    day: Date,
) -> Result<TimecardPolicy, AbsenceError> {
    let Some(site) = site else { return Ok(TimecardPolicy::new(TimeZone::UTC)) };
    let mut rules = SiteRules::default();
    for recorded in ledger::streams(pool, AggregateType::Site, &[site.to_string()]).await? {
        if let Event::Site(_, event) = recorded.event()? {
            rules.evolve(&event);
        }
    }
    let zone = rules.zone_on(day).and_then(|tz| TimeZone::get(tz).ok()).unwrap_or(TimeZone::UTC);
    Ok(TimecardPolicy::of_site(rules.policy_on(day), zone))
}

async fn punches(
    pool: &Pool,
    employee: EmployeeId,
    (from, to): (Time, Time),
) -> Result<Vec<(SiteId, DayPunch)>, sqlx::Error> {
    let filter =
        Filter { employee: Some(employee), from: Some(from), to: Some(to), ..Filter::default() };
    let page = timeline::list(pool, &filter, Order::OldestFirst, None, PUNCHES_MAX).await?;
    let day_punch = |row: crate::punches::PunchView| {
        let (punch, kind, standing) = (row.punch, row.kind, row.standing);
        (row.site, DayPunch { punch, kind, effective_at: row.effective_at, standing })
    };
    Ok(page.rows.into_iter().map(day_punch).collect())
}

/// What waits in quarantine and says to be a punch of that day; one more than is listed.
async fn items(
    pool: &Pool,
    employee: EmployeeId,
    bounds: (Time, Time),
    names: &mut Names,
) -> Result<Vec<DayItem>, sqlx::Error> {
    let limit = u32::try_from(ITEMS_MAX + 1).unwrap_or(u32::MAX);
    let found = quarantine::of_person(pool, employee, bounds, limit).await?;
    let senders: Vec<DeviceId> = found.iter().map(|item| item.device).collect();
    names.devices.extend(directory::device_names(pool, &senders).await?);
    let item = |row: quarantine::QuarantineItem| {
        Some(DayItem {
            item: row.item,
            code: row.code.parse().ok()?,
            device: row.device,
            captured_at: row.captured_at?,
            received_at: row.received_at,
        })
    };
    Ok(found.into_iter().filter_map(item).collect())
}

/// What is disputed about the day or its punches.
async fn disputes_of(
    pool: &Pool,
    employee: EmployeeId,
    day: Date,
    punches: &[(SiteId, DayPunch)],
) -> Result<Vec<DayDispute>, sqlx::Error> {
    let held: Vec<_> = punches.iter().map(|(_, punch)| punch.punch).collect();
    let found = disputes::of_day(pool, employee, day.into(), &held, DISPUTES_MAX).await?;
    let dispute = |row: disputes::DisputeView| {
        let (dispute, about, cause) = (row.dispute, row.about()?, row.cause);
        let (state, opened_at, how) = (row.state, row.opened_at, row.how);
        Some(DayDispute { dispute, about, cause, state, opened_at, how })
    };
    Ok(found.into_iter().filter_map(dispute).collect())
}

async fn name(pool: &Pool, employee: EmployeeId) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select name from employee_directory where employee = $1")
        .bind(employee.uuid())
        .fetch_optional(pool)
        .await
}

async fn devices(
    pool: &Pool,
    sites: &[SiteId],
    names: &mut Names,
) -> Result<Vec<DeviceFacts>, sqlx::Error> {
    let ids: Vec<Uuid> = sites.iter().map(|site| site.uuid()).collect();
    let rows = sqlx::query(include_str!("absence.sql"))
        .bind(ids)
        .bind(i64::from(DEVICES_MAX))
        .bind(i64::try_from(MISSING_RUNS_MAX).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await?;
    let mut devices = Vec::with_capacity(rows.len());
    for row in rows {
        let (facts, name) = device(&row)?;
        names.devices.extend(name.map(|name| (facts.device, name)));
        devices.push(facts);
    }
    Ok(devices)
}

/// Missing numbers as the statement lists them: from, to, noticed where and when, the times of the
/// punches before and after.
type MissingRow = (u64, u64, i64, i64, Option<i64>, Option<i64>);

fn device(row: &PgRow) -> Result<(DeviceFacts, Option<String>), sqlx::Error> {
    let place = |(position, ms)| Place {
        position: Position::from_db(position),
        recorded_at: Time::from_millis(ms),
    };
    let revoked: Option<Json<(i64, i64)>> = row.try_get("revoked")?;
    let missing: Option<Json<Vec<MissingRow>>> = row.try_get("missing")?;
    let missing = missing.map(|Json(rows)| rows).unwrap_or_default();
    let run = |(from, to, position, ms, after, before): &MissingRow| MissingRun {
        gap: Gap { from: *from, to: *to },
        noticed: place((*position, *ms)),
        after: after.map(Time::from_millis),
        before: before.map(Time::from_millis),
    };
    let facts = DeviceFacts {
        device: DeviceId(row.try_get("device")?),
        site: SiteId(row.try_get("site")?),
        revoked: revoked.map(|Json(at)| place(at)),
        report: report(row)?,
        highest: row.try_get::<i64, _>("highest")?.cast_unsigned(),
        missing_more: missing.len() > MISSING_RUNS_MAX,
        missing: missing.iter().take(MISSING_RUNS_MAX).map(run).collect(),
    };
    Ok((facts, row.try_get("name")?))
}

fn report(row: &PgRow) -> Result<Option<Backlog>, sqlx::Error> {
    let Some(reported_ms) = row.try_get::<Option<i64>, _>("reported_ms")? else { return Ok(None) };
    Ok(Some(Backlog {
        reported_at: Time::from_millis(reported_ms),
        waiting: row.try_get::<i64, _>("outbox")?.cast_unsigned(),
        oldest: row.try_get::<Option<i64>, _>("oldest_ms")?.map(Time::from_millis),
        made_through: row.try_get::<i64, _>("seq")?.cast_unsigned(),
        held_through: row.try_get::<i64, _>("acked_through")?.cast_unsigned(),
    }))
}

/// Up to where the models stand that an answer was read from.
async fn position(pool: &Pool) -> Result<Position, sqlx::Error> {
    let position: Option<i64> = sqlx::query_scalar(
        "select min(position) from read.projections where live and name = any($1)",
    )
    .bind(RESTS_ON)
    .fetch_one(pool)
    .await?;
    Ok(Position::from_db(position.unwrap_or_default()))
}
