//! A worker's day, for punches that never came: which devices of the worker's sites still hold
//! punches, by their last reports, and which of their numbers are missing.

use std::collections::BTreeSet;

use jiff::civil::Date;
use punchtrail_domain::{
    AggregateType, Event, Recorded,
    aggregate::Undecodable,
    device::Gap,
    employee::EmployeeEvent,
    explanation::{
        Backlog, Names, Place,
        absence::{self, Absence, AbsenceFacts, DayDispute, DayPunch, DeviceFacts, MissingRun},
    },
    site::SiteRules,
    timecard::{Rules, day_bounds},
};
use punchtrail_infra::{
    ledger::{self, ReadError},
    people::directory,
    postgres::Pool,
};
use punchtrail_protocol::{
    DeviceId, EmployeeId, Position, SiteId, Time,
    vocabulary::{Reason, Standing},
};
use sqlx::{Row, postgres::PgRow, types::Json};
use uuid::Uuid;

use super::waiting::{self, Asked};
use crate::{
    engine::page::Order,
    punches::{
        timecards::{self, TimecardsError},
        timeline::{self, Filter},
    },
    rulings::{disputes, quarantine},
    sites,
};

/// The models that an answer rests on.
pub const RESTS_ON: [&str; 6] =
    [super::NAME, timeline::NAME, timecards::NAME, sites::NAME, quarantine::NAME, disputes::NAME];
/// The most punches of the day that an answer lists.
pub const PUNCHES_MAX: u32 = 200;
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
/// Without the worker's name for whoever may not see it. The day is meant in the zone, and with the
/// start of day, of the site that the worker was assigned to last.
///
/// # Errors
/// See [`AbsenceError`].
pub async fn explain_absence(
    pool: &Pool,
    (employee, with_names): (EmployeeId, bool),
    day: Date,
) -> Result<Option<Absence>, AbsenceError> {
    let events = ledger::streams(pool, AggregateType::Employee, &[employee.to_string()]).await?;
    if events.is_empty() {
        return Ok(None);
    }
    let worked_at = sites_of(&events)?;
    let pairing = pairing(pool, worked_at.last().map(|(site, _)| *site)).await?;
    let bounds = day_bounds(day, &pairing);
    let punches = punches(pool, employee, bounds).await?;
    let mut places: Vec<SiteId> = worked_at
        .into_iter()
        .filter(|(_, until)| until.is_none_or(|until| until >= bounds.0))
        .map(|(site, _)| site)
        .collect();
    places.extend(punches.iter().map(|(site, _)| *site));
    let mut names = Names::default();
    if with_names {
        names.employees.extend(name(pool, employee).await?.map(|name| (employee, name)));
    }
    names.erased.extend(erased(&events)?.map(|at| (employee, at)));
    let devices = devices(pool, &places, &mut names).await?;
    let senders: Vec<DeviceId> = devices.iter().map(|device| device.device).collect();
    let asked = Asked { employee, bounds };
    let (quarantined, quarantined_count) = waiting::items(pool, asked, &senders).await?;
    let lacking = is_lacking(pool, employee, day, &punches).await?;
    let places: BTreeSet<SiteId> = places.into_iter().collect();
    let (unknown_badges, unknown_badges_count) =
        waiting::unknown_badges(pool, asked, &places, lacking).await?;
    let (doubted, doubted_count) = waiting::doubted(pool, asked).await?;
    let (wrong_clocks, wrong_clocks_count) = waiting::wrong_clocks(pool, asked).await?;
    let disputes = disputes_of(pool, employee, day, &punches).await?;
    let facts = AbsenceFacts {
        disputes,
        quarantined,
        quarantined_count,
        unknown_badges,
        unknown_badges_count,
        doubted,
        doubted_count,
        wrong_clocks,
        wrong_clocks_count,
        employee,
        day,
        zone: pairing.on(day).zone.clone(),
        bounds,
        punches: punches.into_iter().map(|(_, punch)| punch).collect(),
        devices,
        position: position(pool).await?,
    };
    name_places(pool, &facts, &mut names).await?;
    Ok(Some(absence::explain_absence(facts, &names)))
}

/// The sites that a worker was ever assigned to, the last assigned last, with when that ended.
fn sites_of(events: &[Recorded]) -> Result<Vec<(SiteId, Option<Time>)>, Undecodable> {
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
async fn pairing(pool: &Pool, site: Option<SiteId>) -> Result<Rules, AbsenceError> {
    let mut rules = SiteRules::default();
    let site: Vec<String> = site.iter().map(ToString::to_string).collect();
    for recorded in ledger::streams(pool, AggregateType::Site, &site).await? {
        if let Event::Site(_, event) = recorded.event()? {
            rules.evolve(&event);
        }
    }
    Ok(Rules::of_site(&rules))
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
        let in_doubt = row.reasons.iter().any(|reason| reason == Reason::OtherHolder.as_str());
        let nobodys = standing == Standing::Referred && in_doubt;
        (row.site, DayPunch { punch, kind, effective_at: row.effective_at, standing, nobodys })
    };
    Ok(page.rows.into_iter().map(day_punch).collect())
}

/// Whether the day has no punch that counts, or one without its partner.
async fn is_lacking(
    pool: &Pool,
    employee: EmployeeId,
    day: Date,
    punches: &[(SiteId, DayPunch)],
) -> Result<bool, sqlx::Error> {
    if !punches.iter().any(|(_, punch)| punch.standing.counts() && !punch.nobodys) {
        return Ok(true);
    }
    match timecards::of_employee(pool, employee, day, day).await {
        Ok(cards) => Ok(cards.iter().any(|card| !card.unmatched.is_empty())),
        Err(TimecardsError::Database(error)) => Err(error),
        Err(TimecardsError::Range | TimecardsError::TooMany) => Ok(false),
    }
}

/// Adds the names of the devices and sites that are spoken of.
async fn name_places(
    pool: &Pool,
    facts: &AbsenceFacts,
    names: &mut Names,
) -> Result<(), sqlx::Error> {
    let badges = facts.unknown_badges.iter().map(|badge| (badge.device, badge.site));
    let doubts = facts.doubted.iter().map(|doubt| (doubt.device, doubt.site));
    let (mut devices, sites): (Vec<DeviceId>, Vec<SiteId>) = badges.chain(doubts).unzip();
    devices.extend(facts.quarantined.iter().map(|item| item.device));
    names.devices.extend(directory::device_names(pool, &devices).await?);
    names.sites.extend(directory::site_names(pool, &sites).await?);
    Ok(())
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

/// Up to where the models stand that an answer was read from, and the adjudicator, whose memory it
/// was read from, too.
async fn position(pool: &Pool) -> Result<Position, sqlx::Error> {
    let position: Option<i64> = sqlx::query_scalar(
        "select least(min(position), \
             (select position from followers where name = 'adjudicator')) \
         from read.projections where live and name = any($1)",
    )
    .bind(RESTS_ON)
    .fetch_one(pool)
    .await?;
    Ok(Position::from_db(position.unwrap_or_default()))
}
