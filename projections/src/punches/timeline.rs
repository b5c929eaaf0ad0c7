//! Every punch that is in the ledger, one row each: who, where, when, and where it stands.
//!
//! Punches that don't count (rejected, voided) stay, with that standing: a list that hid them would
//! hide a ruling. Rows hold ids; names are joined where they are shown.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx;
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_protocol::{DeviceId, EmployeeId, PunchId, SiteId, Time, vocabulary::Standing};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    engine::{
        Generation, Projection, ProjectionError,
        columns::ids,
        page::{Order, Page},
    },
    punches::{
        batch::{self, Takes},
        row::{COLUMNS, PunchView},
    },
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "timeline";

/// The length of a [`Key`] as bytes: a time and an id.
pub const KEY_BYTES: usize = 8 + 16;

/// The model.
#[derive(Debug)]
pub struct Timeline;

impl Projection for Timeline {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["timeline"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        // Room on each page, so that a judgement that comes in a later batch than its capture
        // writes no index: recorded to accepted changes no indexed column.
        format!(
            "create table {table} (
                 -- Serves one punch by its id, and every change of a punch.
                 punch        uuid primary key,
                 employee     uuid,
                 site         uuid not null,
                 -- Null for one that a person added.
                 device       uuid,
                 kind         text not null,
                 captured_at  timestamptz not null,
                 effective_at timestamptz not null,
                 standing     text not null,
                 reasons      text[],
                 position     bigint not null,
                 -- The standing, where it is one of the rare ones.
                 exception    text generated always as (
                     case when standing not in ('recorded', 'accepted') then standing end) stored
             ) with (fillfactor = 60)",
            table = generation.table("timeline"),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        let table = generation.table("timeline");
        let index = |what| generation.index("timeline", what);
        format!(
            "-- Serves a person's punches in order of time.
             create index if not exists {employee} on {table} (employee, effective_at, punch)
                 where employee is not null;
             -- Serves a site's punches in order of time.
             create index if not exists {site} on {table} (site, effective_at, punch);
             -- Serves a device's punches in order of time.
             create index if not exists {device} on {table} (device, effective_at, punch);
             -- Serves all punches in order of time.
             create index if not exists {time} on {table} (effective_at, punch);
             -- Serves the punches that wait for a person or don't count: few among many.
             create index if not exists {exceptions} on {table} (exception, effective_at, punch)
                 where exception is not null;",
            employee = index("employee"),
            site = index("site"),
            device = index("device"),
            time = index("time"),
            exceptions = index("exception"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let punches = batch::fold(events, Takes::Standings).await?;
            let table = generation.table("timeline");
            batch::insert(tx, &table, &punches.new).await?;
            batch::change(tx, &table, &punches.changed).await
        })
    }
}

/// Which punches to list; what is none is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter<'a> {
    pub employee: Option<EmployeeId>,
    pub site: Option<SiteId>,
    /// Only those of these sites: of a caller who sees no others.
    pub within: Option<&'a [SiteId]>,
    pub device: Option<DeviceId>,
    pub standing: Option<Standing>,
    pub from: Option<Time>,
    pub to: Option<Time>,
}

/// A place in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Effective time of the last row of a page.
    pub effective_at: Time,
    pub punch: PunchId,
}

impl From<&PunchView> for Key {
    fn from(row: &PunchView) -> Self {
        Self { effective_at: row.effective_at, punch: row.punch }
    }
}

impl Key {
    /// As bytes, for a cursor: milliseconds since 1970, then the punch's id.
    pub fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[..8].copy_from_slice(&self.effective_at.millis().to_be_bytes());
        bytes[8..].copy_from_slice(self.punch.0.as_bytes());
        bytes
    }

    /// From what [`Key::to_bytes`] made.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        let (mut time, mut punch) = ([0; 8], [0; 16]);
        time.copy_from_slice(&bytes[..8]);
        punch.copy_from_slice(&bytes[8..]);
        let effective_at = Time::from_millis(i64::from_be_bytes(time));
        Self { effective_at, punch: PunchId(Uuid::from_bytes(punch)) }
    }
}

/// One punch; none if there is none of that id.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(pool: &Pool, punch: PunchId) -> Result<Option<PunchView>, sqlx::Error> {
    let statement = format!("select {COLUMNS} from read.timeline where punch = $1");
    sqlx::query_as(&statement).bind(punch.uuid()).fetch_optional(pool).await
}

/// These punches, as far as they are there, in no order.
///
/// # Errors
/// When the database is out of reach.
pub async fn several(pool: &Pool, punches: &[PunchId]) -> Result<Vec<PunchView>, sqlx::Error> {
    let statement = format!("select {COLUMNS} from read.timeline where punch = any($1)");
    let ids: Vec<Uuid> = punches.iter().map(|punch| punch.uuid()).collect();
    sqlx::query_as(&statement).bind(ids).fetch_all(pool).await
}

/// The punches that `filter` asks for, in order of effective time, after `after`; at most `limit`,
/// and never more than [`crate::engine::page::PAGE_ROWS_MAX`].
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    filter: &Filter<'_>,
    order: Order,
    after: Option<Key>,
    limit: u32,
) -> Result<Page<PunchView>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("select ");
    query.push(COLUMNS).push(" from read.timeline where true");
    if let Some(employee) = filter.employee {
        query.push(" and employee = ").push_bind(employee.uuid());
    }
    if let Some(site) = filter.site {
        query.push(" and site = ").push_bind(site.uuid());
    }
    if let Some(sites) = filter.within {
        query.push(" and site = any(").push_bind(ids(sites)).push(")");
    }
    if let Some(device) = filter.device {
        query.push(" and device = ").push_bind(device.uuid());
    }
    if let Some(standing) = filter.standing {
        query.push(match standing {
            Standing::Recorded | Standing::Accepted => " and standing = ",
            Standing::Referred | Standing::Rejected | Standing::Voided => " and exception = ",
        });
        query.push_bind(standing.as_str());
    }
    if let Some(from) = filter.from {
        query.push(" and effective_at >= ").push_bind(from.timestamp().to_sqlx());
    }
    if let Some(to) = filter.to {
        query.push(" and effective_at < ").push_bind(to.timestamp().to_sqlx());
    }
    let (beyond, direction) = match order {
        Order::NewestFirst => ("<", "desc"),
        Order::OldestFirst => (">", "asc"),
    };
    if let Some(Key { effective_at, punch }) = after {
        query.push(" and (effective_at, punch) ").push(beyond).push(" (");
        query.push_bind(effective_at.timestamp().to_sqlx()).push(", ");
        query.push_bind(punch.uuid()).push(")");
    }
    query.push(" order by effective_at ").push(direction).push(", punch ").push(direction);
    query.push(" limit ").push_bind(Page::<PunchView>::to_ask(limit));
    let rows = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, limit))
}
