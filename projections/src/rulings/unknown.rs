//! The punches by badges that nobody knew, until it is known who made them: which badges wait, with
//! how many punches, since when and where. Kept with the reviews ([`super::reviews`]), which such
//! punches come to in the same way; one that was ruled on waits on here, for it counts for nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    AggregateType, Event,
    punch::{Anomaly, Origin, Punch, PunchEvent},
};
use punchtrail_infra::{
    ledger::{Entry, give_way},
    postgres::Pool,
};
use punchtrail_protocol::{PunchId, SiteId, Time, capture::PunchKind, spelling::normal};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use crate::engine::{
    Generation, ProjectionError,
    columns::{parsed, time},
    page::Page,
};

/// The model's tables.
pub(super) const TABLES: [&str; 2] = ["unknown_punches", "unknown_badges"];

/// The events that make a punch wait here, change it, or tell whose it is.
const CONCERNING: [&str; 8] = [
    "AnomalyFlagged",
    "Identified",
    "Reassigned",
    "Accepted",
    "Rejected",
    "Voided",
    "Reinstated",
    "Amended",
];

pub(super) fn create_sql(generation: &Generation) -> String {
    format!(
        "create table {punches} (
             -- Serves every change of a punch.
             punch  uuid primary key,
             -- As it was read, in the spelling in which numbers are compared.
             badge  text collate \"C\" not null,
             site   uuid not null,
             -- The time that counts.
             at     timestamptz not null,
             kind   text not null,
             -- Whether a person took it out of the count: then it waits for nobody.
             is_out boolean not null
         );
         -- How many wait of each badge at each site.
         create table {badges} (
             badge   text collate \"C\" not null,
             site    uuid not null,
             punches bigint not null,
             -- Serves all badges in order.
             primary key (badge, site)
         )",
        punches = generation.table("unknown_punches"),
        badges = generation.table("unknown_badges"),
    )
}

pub(super) fn index_sql(generation: &Generation) -> String {
    format!(
        "-- Serves a badge's punches in order of time, the first and the last.
         create index if not exists {badge} on {punches} (badge, at, punch) where not is_out;
         -- Serves a site's badges in order.
         create index if not exists {site} on {badges} (site, badge);",
        badge = generation.index("unknown_punches", "badge"),
        punches = generation.table("unknown_punches"),
        site = generation.index("unknown_badges", "site"),
        badges = generation.table("unknown_badges"),
    )
}

/// What happens to punches in a batch.
#[derive(Debug, Default)]
struct Touched {
    /// Those of which the device did not know the badge.
    flagged: BTreeSet<PunchId>,
    /// Those that may wait here.
    others: BTreeSet<PunchId>,
}

async fn touched(events: &[Arc<Entry>]) -> Result<Touched, ProjectionError> {
    let mut touched = Touched::default();
    for (index, entry) in events.iter().enumerate() {
        give_way(index).await;
        let recorded = &entry.recorded;
        let event_type = recorded.event_type.as_str();
        let concerns =
            recorded.aggregate_type == AggregateType::Punch && CONCERNING.contains(&event_type);
        // As one in three events is, of a punch that never was doubted.
        if !concerns || (event_type == "Accepted" && recorded.sequence <= 3) {
            continue;
        }
        let Event::Punch(punch, event) = entry.event()? else { continue };
        match event {
            PunchEvent::AnomalyFlagged { anomaly: Anomaly::UnknownBadge } => {
                touched.flagged.insert(*punch);
            }
            PunchEvent::AnomalyFlagged { .. } => {}
            _ => drop(touched.others.insert(*punch)),
        }
    }
    Ok(touched)
}

/// A punch that waits, as a row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    badge: String,
    site: SiteId,
    at: Time,
    kind: PunchKind,
    is_out: bool,
}

impl Waiting {
    /// None once it is known who made it.
    fn of(punch: &Punch) -> Option<Self> {
        let Some(Origin::Captured { capture, .. }) = punch.origin() else { return None };
        let read = capture.badge.as_deref().filter(|_| punch.employee().is_none())?;
        let badge = normal(read);
        let (at, kind) = punch.effective()?;
        Some(Self { badge, site: capture.site, at, kind, is_out: !punch.standing().counts() })
    }
}

/// Takes a batch.
pub(super) async fn apply(
    tx: &mut PgConnection,
    generation: &Generation,
    events: &[Arc<Entry>],
) -> Result<(), ProjectionError> {
    let Touched { flagged, others } = touched(events).await?;
    let Some(through) = events.last().map(|entry| entry.position()) else { return Ok(()) };
    if flagged.is_empty() && others.is_empty() {
        return Ok(());
    }
    let table = generation.table("unknown_punches");
    let before = held(tx, &table, flagged.iter().chain(&others)).await?;
    let wanted: BTreeSet<PunchId> = flagged.into_iter().chain(before.keys().copied()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted: Vec<PunchId> = wanted.into_iter().collect();
    let stood = super::as_of(tx, &wanted, through).await?;
    let after: BTreeMap<PunchId, Waiting> =
        stood.iter().filter_map(|(punch, stood)| Some((*punch, Waiting::of(stood)?))).collect();
    write(tx, &table, &before, &after).await?;
    count(tx, &generation.table("unknown_badges"), &before, &after).await?;
    Ok(())
}

async fn held(
    tx: &mut PgConnection,
    table: &str,
    punches: impl Iterator<Item = &PunchId>,
) -> Result<BTreeMap<PunchId, Waiting>, sqlx::Error> {
    let ids: Vec<Uuid> = punches.map(|punch| punch.uuid()).collect();
    let statement = format!("select * from {table} where punch = any($1)");
    let read = |row: PgRow| {
        let waiting = Waiting {
            badge: row.try_get("badge")?,
            site: SiteId(row.try_get("site")?),
            at: time(&row, "at")?,
            kind: parsed(&row, "kind")?,
            is_out: row.try_get("is_out")?,
        };
        Ok((PunchId(row.try_get("punch")?), waiting))
    };
    let rows = sqlx::query(&statement).bind(ids).try_map(read).fetch_all(tx).await?;
    Ok(rows.into_iter().collect())
}

async fn write(
    tx: &mut PgConnection,
    table: &str,
    before: &BTreeMap<PunchId, Waiting>,
    after: &BTreeMap<PunchId, Waiting>,
) -> Result<(), sqlx::Error> {
    let changed = |punch: &&PunchId| before.get(punch) != after.get(punch);
    let gone: Vec<Uuid> = before.keys().filter(changed).map(|punch| punch.uuid()).collect();
    if !gone.is_empty() {
        let statement = format!("delete from {table} where punch = any($1)");
        sqlx::query(&statement).bind(gone).execute(&mut *tx).await?;
    }
    let new: Vec<(&PunchId, &Waiting)> = after.iter().filter(|(punch, _)| changed(punch)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "insert into {table} (punch, badge, site, at, kind, is_out) select * from \
         unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::text[], $6::bool[])"
    );
    sqlx::query(&statement)
        .bind(new.iter().map(|(punch, _)| punch.uuid()).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| row.badge.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| row.site.uuid()).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| row.at.timestamp().to_sqlx()).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| row.kind.as_str()).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, row)| row.is_out).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

async fn count(
    tx: &mut PgConnection,
    table: &str,
    before: &BTreeMap<PunchId, Waiting>,
    after: &BTreeMap<PunchId, Waiting>,
) -> Result<(), sqlx::Error> {
    let mut changed: BTreeMap<(&str, SiteId), i64> = BTreeMap::new();
    for (rows, by) in [(before, -1), (after, 1)] {
        for row in rows.values().filter(|row| !row.is_out) {
            *changed.entry((row.badge.as_str(), row.site)).or_default() += by;
        }
    }
    changed.retain(|_, by| *by != 0);
    if changed.is_empty() {
        return Ok(());
    }
    let (keys, by): (Vec<_>, Vec<i64>) = changed.into_iter().unzip();
    let (badges, sites): (Vec<&str>, Vec<Uuid>) =
        keys.into_iter().map(|(badge, site)| (badge, site.uuid())).unzip();
    let statement = format!(
        "insert into {table} as held (badge, site, punches) select * from \
         unnest($1::text[], $2::uuid[], $3::bigint[]) \
         on conflict (badge, site) do update set punches = held.punches + excluded.punches"
    );
    sqlx::query(&statement).bind(&badges).bind(&sites).bind(by).execute(&mut *tx).await?;
    let statement = format!(
        "delete from {table} held using unnest($1::text[], $2::uuid[]) as gone (badge, site) \
         where held.badge = gone.badge and held.site = gone.site and held.punches = 0"
    );
    sqlx::query(&statement).bind(badges).bind(sites).execute(tx).await?;
    Ok(())
}

/// A badge that nobody is known to have held when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnknownBadge {
    /// The number, as it was read.
    pub badge: String,
    /// How many punches wait with it.
    pub punches: u64,
    /// The time of the first of them.
    pub first_at: Time,
    /// The time of the last of them.
    pub last_at: Time,
    /// The sites where they were made.
    pub sites: Vec<SiteId>,
}

impl FromRow<'_, PgRow> for UnknownBadge {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let sites: Vec<Uuid> = row.try_get("sites")?;
        Ok(Self {
            badge: row.try_get("badge")?,
            punches: row.try_get::<i64, _>("punches")?.cast_unsigned(),
            first_at: time(row, "first_at")?,
            last_at: time(row, "last_at")?,
            sites: sites.into_iter().map(SiteId).collect(),
        })
    }
}

/// The badges that punches wait with, in the order of their numbers after `after`, with all their
/// punches; only those that were read at a site, if one is given. At most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn badges(
    pool: &Pool,
    site: Option<SiteId>,
    after: &str,
    limit: u32,
) -> Result<Page<UnknownBadge>, sqlx::Error> {
    let side = |order: &str| {
        format!(
            "(select at from read.unknown_punches p where p.badge = page.badge and not p.is_out \
             order by p.at {order} limit 1)"
        )
    };
    let mut query = QueryBuilder::<Postgres>::new("select page.badge, held.*, ");
    query.push(format!("{} as first_at, {} as last_at from (", side("asc"), side("desc")));
    query.push("select distinct badge from read.unknown_badges where badge > ").push_bind(after);
    if let Some(site) = site {
        query.push(" and site = ").push_bind(site.uuid());
    }
    query.push(" order by badge limit ").push_bind(Page::<UnknownBadge>::to_ask(limit));
    query.push(
        ") page cross join lateral (select sum(punches)::bigint as punches, \
         array_agg(site order by site) as sites from read.unknown_badges b \
         where b.badge = page.badge) held order by page.badge",
    );
    let rows = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, limit))
}

/// Which punches of a badge; what is none is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfBadge {
    /// The number, as it was read.
    pub badge: String,
    /// Only those from then on.
    pub from: Option<Time>,
    /// Only those before then.
    pub until: Option<Time>,
}

/// A punch that waits with a badge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownPunch {
    pub punch: PunchId,
    pub site: SiteId,
    /// The time that counts.
    pub at: Time,
    pub kind: PunchKind,
}

impl FromRow<'_, PgRow> for UnknownPunch {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            punch: PunchId(row.try_get("punch")?),
            site: SiteId(row.try_get("site")?),
            at: time(row, "at")?,
            kind: parsed(row, "kind")?,
        })
    }
}

/// The punches that wait with a badge, in order of time after `after`; at most `limit`, however
/// large.
///
/// # Errors
/// When the database is out of reach.
pub async fn punches(
    pool: &Pool,
    of: &OfBadge,
    after: Option<(Time, PunchId)>,
    limit: u32,
) -> Result<Vec<UnknownPunch>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("select punch, site, at, kind ");
    query.push("from read.unknown_punches where not is_out and badge = ");
    query.push_bind(normal(&of.badge));
    if let Some(from) = of.from {
        query.push(" and at >= ").push_bind(from.timestamp().to_sqlx());
    }
    if let Some(until) = of.until {
        query.push(" and at < ").push_bind(until.timestamp().to_sqlx());
    }
    if let Some((at, punch)) = after {
        query.push(" and (at, punch) > (").push_bind(at.timestamp().to_sqlx());
        query.push(", ").push_bind(punch.uuid()).push(")");
    }
    query.push(" order by at, punch limit ").push_bind(i64::from(limit));
    query.build_query_as().fetch_all(pool).await
}

/// How many punches wait with a badge.
///
/// # Errors
/// When the database is out of reach.
pub async fn how_many(pool: &Pool, of: &OfBadge) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "select count(*) from read.unknown_punches where not is_out and badge = $1 \
         and ($2::timestamptz is null or at >= $2) and ($3::timestamptz is null or at < $3)",
    )
    .bind(normal(&of.badge))
    .bind(of.from.map(|at| at.timestamp().to_sqlx()))
    .bind(of.until.map(|at| at.timestamp().to_sqlx()))
    .fetch_one(pool)
    .await?;
    Ok(count.cast_unsigned())
}
