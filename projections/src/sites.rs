//! Sites as they are now: zone and policy. Small; the API lists them, and timecards pair by them.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use punchtrail_domain::{
    AggregateType, Event, policy::Policy, site::SiteEvent, timecard::TimecardPolicy,
};
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_protocol::{Position, SiteId};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::engine::{Generation, Projection, ProjectionError, columns::ids, page::Page};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "sites";

/// The model.
#[derive(Debug)]
pub struct Sites;

impl Projection for Sites {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["sites"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {table} (
                 -- Serves one site, and the list in the order of ids.
                 site     uuid primary key,
                 tz       text,
                 -- The policy in force, as JSON; null for the default one.
                 policy   text,
                 position bigint not null
             )",
            table = generation.table("sites"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let changed = fold(events)?;
            write(tx, &generation.table("sites"), changed).await
        })
    }
}

#[derive(Default)]
struct Changed {
    tz: Option<String>,
    policy: Option<String>,
    position: Position,
}

fn fold(events: &[Arc<Entry>]) -> Result<HashMap<SiteId, Changed>, ProjectionError> {
    let mut sites: HashMap<SiteId, Changed> = HashMap::new();
    for entry in events {
        if entry.recorded.aggregate_type != AggregateType::Site {
            continue;
        }
        let Event::Site(site, event) = entry.event()? else { continue };
        let changed = sites.entry(*site).or_default();
        changed.position = entry.recorded.position;
        match event {
            SiteEvent::Registered { tz } => changed.tz = Some(tz.clone()),
            SiteEvent::ZoneChanged { tz, .. } => changed.tz = Some(tz.clone()),
            SiteEvent::PolicyChanged { policy, .. } => {
                let text = serde_json::to_string(policy).map_err(|error| {
                    ProjectionError::inconsistent(changed.position, error.to_string())
                })?;
                changed.policy = Some(text);
            }
        }
    }
    Ok(sites)
}

async fn write(
    tx: &mut PgConnection,
    table: &str,
    changed: HashMap<SiteId, Changed>,
) -> Result<(), ProjectionError> {
    if changed.is_empty() {
        return Ok(());
    }
    let (mut sites, mut zones, mut policies, mut positions) = (vec![], vec![], vec![], vec![]);
    for (site, Changed { tz, policy, position }) in changed {
        sites.push(site.uuid());
        zones.push(tz);
        policies.push(policy);
        positions.push(position.to_db());
    }
    let statement = format!(
        "insert into {table} as held (site, tz, policy, position) \
         select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) \
         on conflict (site) do update set tz = coalesce(excluded.tz, held.tz), \
             policy = coalesce(excluded.policy, held.policy), position = excluded.position"
    );
    sqlx::query(&statement)
        .bind(sites)
        .bind(zones)
        .bind(policies)
        .bind(positions)
        .execute(tx)
        .await?;
    Ok(())
}

/// A site as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteView {
    pub site: SiteId,
    /// Its name; null once it was taken out of the directory.
    pub name: Option<String>,
    pub tz: String,
    pub policy: Policy,
}

impl FromRow<'_, PgRow> for SiteView {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            site: SiteId(row.try_get("site")?),
            name: row.try_get("name")?,
            tz: row.try_get("tz")?,
            policy: policy(row.try_get("policy")?)?,
        })
    }
}

/// The policy in force, as it is held; the default one where none is.
pub(crate) fn policy(text: Option<&str>) -> Result<Policy, sqlx::Error> {
    text.map_or_else(|| Ok(Policy::default()), serde_json::from_str)
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

const SELECT: &str = "select s.site, d.name, s.tz, s.policy from read.sites s \
     left join site_directory d on d.site = s.site where s.tz is not null";

/// One site; none if there is none of that id.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(pool: &Pool, site: SiteId) -> Result<Option<SiteView>, sqlx::Error> {
    let statement = format!("{SELECT} and s.site = $1");
    sqlx::query_as(&statement).bind(site.uuid()).fetch_optional(pool).await
}

/// The sites in the order of their ids, after `after`; at most `limit`. Only those `within`, if these
/// are given.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    within: Option<&[SiteId]>,
    after: Option<SiteId>,
    limit: u32,
) -> Result<Page<SiteView>, sqlx::Error> {
    let statement = format!(
        "{SELECT} and s.site > $1 and ($3::uuid[] is null or s.site = any($3)) \
         order by s.site limit $2"
    );
    let rows = sqlx::query_as(&statement)
        .bind(after.unwrap_or(SiteId::NIL).uuid())
        .bind(Page::<SiteView>::to_ask(limit))
        .bind(within.map(ids))
        .fetch_all(pool)
        .await?;
    Ok(Page::cut(rows, limit))
}

/// How punches are paired, a site each. One that isn't known pairs by the default policy in UTC.
#[derive(Debug)]
pub struct PairingPolicies {
    by_site: HashMap<SiteId, (String, TimecardPolicy)>,
    unknown: (String, TimecardPolicy),
}

impl PairingPolicies {
    /// The policies of these sites.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn of(pool: &Pool, sites: &[SiteId]) -> Result<Self, sqlx::Error> {
        let ids: Vec<Uuid> = sites.iter().map(|site| site.uuid()).collect();
        let rows: Vec<(Uuid, String, Option<String>)> = sqlx::query_as(
            "select site, tz, policy from read.sites where site = any($1) and tz is not null",
        )
        .bind(ids)
        .fetch_all(pool)
        .await?;
        let mut by_site = HashMap::with_capacity(rows.len());
        let unknown = ("Etc/UTC".to_owned(), TimecardPolicy::new(TimeZone::UTC));
        for site in sites {
            by_site.insert(*site, unknown.clone());
        }
        for (site, tz, text) in rows {
            // The zone was known when the site was registered.
            let zone = TimeZone::get(&tz).unwrap_or(TimeZone::UTC);
            let pairing = TimecardPolicy::of_site(&policy(text.as_deref())?, zone);
            by_site.insert(SiteId(site), (tz, pairing));
        }
        Ok(Self { by_site, unknown })
    }

    /// The site's.
    pub fn get(&self, site: SiteId) -> &TimecardPolicy {
        &self.by_site.get(&site).unwrap_or(&self.unknown).1
    }

    /// Those of all sites that were asked for.
    pub fn all(&self) -> impl Iterator<Item = &TimecardPolicy> {
        self.by_site.values().map(|(_, policy)| policy)
    }

    /// The site's zone, by its IANA name.
    pub fn zone(&self, site: SiteId) -> &str {
        &self.by_site.get(&site).unwrap_or(&self.unknown).0
    }
}

/// The policies of all sites.
///
/// # Errors
/// When the database is out of reach.
pub async fn policies(pool: &Pool) -> Result<Vec<(SiteId, Policy)>, sqlx::Error> {
    let rows: Vec<(Uuid, Option<String>)> =
        sqlx::query_as("select site, policy from read.sites where tz is not null order by site")
            .fetch_all(pool)
            .await?;
    rows.into_iter().map(|(site, text)| Ok((SiteId(site), policy(text.as_deref())?))).collect()
}
