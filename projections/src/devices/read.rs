//! Devices as the API shows them.

use jiff_sqlx::Timestamp;
use punchtrail_domain::device::Gap;
use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{DeviceId, EmployeeId, Position, SiteId, Time};
use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    engine::columns::{ids, time, time_or_none},
    engine::page::Page,
};

/// How many runs of missing numbers are shown of one device; their number counts them all.
pub const GAPS_SHOWN_MAX: i64 = 100;

/// A device: what the ledger proves about it, and apart from that its last report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceView {
    pub device: DeviceId,
    /// Its name; null once it was taken out of the directory.
    pub name: Option<String>,
    pub site: Option<SiteId>,
    /// Every site it was ever assigned to, in the order of their ids.
    pub sites: Vec<SiteId>,
    /// Program and version that enrolled.
    pub app: Option<String>,
    /// When its key was recorded; null for a device that never enrolled here.
    pub enrolled_at: Option<Time>,
    /// When its access ended, if it did.
    pub revoked_at: Option<Time>,
    /// How many of its punches are in the ledger.
    pub punches: u64,
    /// How many items it sent that can't be taken as punches.
    pub quarantined: u64,
    /// How many numbers it used twice.
    pub forks: u64,
    /// Of how many punches it used the id again. What came under it is in quarantine.
    pub conflicts: u64,
    /// How many of its captures name another predecessor than the one that is held.
    pub broken_links: u64,
    /// The highest number in the ledger; 0 when there is none.
    pub last_seq: u64,
    /// When it last delivered, by the server's clock.
    pub last_synced_at: Option<Time>,
    /// Up to which every number is held.
    pub acked_through: u64,
    /// Numbers that never came, the first 100 runs.
    pub gaps: Vec<Gap>,
    /// How many numbers never came, in all.
    pub missing: u64,
    /// Position of its latest event.
    pub position: Position,
    /// What it last said of itself: its own word, as of then.
    pub report: Option<LastReport>,
}

/// What a device last said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastReport {
    /// When, by the server's clock.
    pub reported_at: Time,
    pub outbox: u64,
    pub photos: u64,
    /// When the oldest of the waiting punches was captured, by the device's clock.
    pub oldest: Option<Time>,
    /// The last number it had made.
    pub seq: u64,
    pub clock: Time,
    pub app: String,
}

fn unsigned(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}

impl FromRow<'_, PgRow> for DeviceView {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let sites: Vec<Uuid> = row.try_get("sites")?;
        let (firsts, lasts): (Vec<i64>, Vec<i64>) =
            (row.try_get("gap_firsts")?, row.try_get("gap_lasts")?);
        let gap =
            |(from, to): (i64, i64)| Gap { from: from.cast_unsigned(), to: to.cast_unsigned() };
        Ok(Self {
            device: DeviceId(row.try_get("device")?),
            name: row.try_get("name")?,
            site: row.try_get::<Option<_>, _>("site")?.map(SiteId),
            sites: sites.into_iter().map(SiteId).collect(),
            app: row.try_get("app")?,
            enrolled_at: time_or_none(row, "enrolled_at")?,
            revoked_at: time_or_none(row, "revoked_at")?,
            punches: unsigned(row, "punches")?,
            quarantined: unsigned(row, "quarantined")?,
            forks: unsigned(row, "forks")?,
            conflicts: unsigned(row, "conflicts")?,
            broken_links: unsigned(row, "broken_links")?,
            last_seq: unsigned(row, "last_seq")?,
            last_synced_at: time_or_none(row, "last_synced_at")?,
            acked_through: unsigned(row, "acked_through")?,
            gaps: firsts.into_iter().zip(lasts).map(gap).collect(),
            missing: unsigned(row, "missing")?,
            position: Position::from_db(row.try_get("position")?),
            report: report(row)?,
        })
    }
}

fn report(row: &PgRow) -> Result<Option<LastReport>, sqlx::Error> {
    if row.try_get::<Option<Timestamp>, _>("reported_at")?.is_none() {
        return Ok(None);
    }
    Ok(Some(LastReport {
        reported_at: time(row, "reported_at")?,
        outbox: unsigned(row, "outbox")?,
        photos: unsigned(row, "photos")?,
        oldest: time_or_none(row, "oldest")?,
        seq: unsigned(row, "report_seq")?,
        clock: time(row, "clock")?,
        app: row.try_get("report_app")?,
    }))
}

/// The columns that make a [`DeviceView`].
fn columns() -> String {
    format!(
        "device.*, entry.name, \
     array(select place.site from read.devices_sites place where place.device = device.device \
         order by place.site) as sites, \
     array(select gap.first from read.devices_gaps gap where gap.device = device.device \
         order by gap.first limit {GAPS_SHOWN_MAX}) as gap_firsts, \
     array(select gap.last from read.devices_gaps gap where gap.device = device.device \
         order by gap.first limit {GAPS_SHOWN_MAX}) as gap_lasts, \
     (select coalesce(sum(gap.last - gap.first + 1), 0)::bigint from read.devices_gaps gap \
         where gap.device = device.device) as missing, \
     coalesce(held.acked_through, 0) as acked_through, \
     said.reported_at, said.outbox, said.photos, said.oldest, said.seq as report_seq, said.clock, \
     said.app as report_app"
    )
}

const JOINS: &str = "left join device_directory entry on entry.device = device.device \
     left join device_progress held on held.device = device.device \
     left join device_reports said on said.device = device.device";

/// One device; none if there is none of that id.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(pool: &Pool, device: DeviceId) -> Result<Option<DeviceView>, sqlx::Error> {
    let columns = columns();
    let statement =
        format!("select {columns} from read.devices device {JOINS} where device.device = $1");
    sqlx::query_as(&statement).bind(device.uuid()).fetch_optional(pool).await
}

/// The devices that may hold what was captured of a person: those not revoked that ever served one
/// of `sites` or a site where the person ever punched.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_person(
    pool: &Pool,
    employee: EmployeeId,
    sites: &[SiteId],
) -> Result<Vec<DeviceId>, sqlx::Error> {
    let sites: Vec<Uuid> = sites.iter().map(|site| site.uuid()).collect();
    let devices: Vec<Uuid> = sqlx::query_scalar(
        "select device from read.devices where revoked_at is null and device = any(array( \
             select device from read.devices_sites where site = any($2) or site = any(array( \
                 select site from read.timecards_people where employee = $1)))) \
         order by device",
    )
    .bind(employee.uuid())
    .bind(sites)
    .fetch_all(pool)
    .await?;
    Ok(devices.into_iter().map(DeviceId).collect())
}

/// The devices in the order of their ids, after `after`, of all that ever served a site or of all;
/// at most `limit`. Only those that ever served one of the sites `within`, if these are given.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    (site, within): (Option<SiteId>, Option<&[SiteId]>),
    after: Option<DeviceId>,
    limit: u32,
) -> Result<Page<DeviceView>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("select ");
    query.push(columns()).push(" from read.devices device ").push(JOINS);
    if let Some(site) = site {
        query.push(" join read.devices_sites at on at.device = device.device and at.site = ");
        query.push_bind(site.uuid());
    }
    query.push(" where device.device > ").push_bind(after.unwrap_or(DeviceId::NIL).uuid());
    if let Some(sites) = within {
        query.push(" and exists (select from read.devices_sites at where at.site = any(");
        query.push_bind(ids(sites)).push(") and at.device = device.device)");
    }
    query.push(" order by device.device limit ").push_bind(Page::<DeviceView>::to_ask(limit));
    let rows = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, limit))
}
