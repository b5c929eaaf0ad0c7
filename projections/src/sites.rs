//! Sites: zone and policy, each from its day on. Small; the API lists them, and timecards pair by
//! them.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use jiff::civil::Date;
use punchtrail_domain::{
    AggregateType, Event,
    policy::Policy,
    site::{SiteEvent, SiteRules},
    timecard::Rules,
};
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_protocol::{Position, SiteId, Time};
use serde::Serialize;
use sqlx::PgConnection;
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
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["sites"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {table} (
                 -- Serves one site, and the list in the order of ids.
                 site     uuid primary key,
                 -- Zones and policies, each from its day on, as JSON.
                 rules    text not null,
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
            if changed.is_empty() {
                return Ok(());
            }
            write(tx, &generation.table("sites"), changed).await
        })
    }
}

type Changed<'a> = HashMap<SiteId, (Position, Vec<&'a SiteEvent>)>;

fn fold(events: &[Arc<Entry>]) -> Result<Changed<'_>, ProjectionError> {
    let mut sites: Changed<'_> = HashMap::new();
    for entry in events {
        if entry.recorded.aggregate_type != AggregateType::Site {
            continue;
        }
        let Event::Site(site, event) = entry.event()? else { continue };
        let changed = sites.entry(*site).or_default();
        changed.0 = entry.recorded.position;
        changed.1.push(event);
    }
    Ok(sites)
}

async fn write(
    tx: &mut PgConnection,
    table: &str,
    changed: Changed<'_>,
) -> Result<(), ProjectionError> {
    let ids: Vec<Uuid> = changed.keys().map(|site| site.uuid()).collect();
    let select = format!("select site, rules from {table} where site = any($1)");
    let held: Vec<(Uuid, String)> = sqlx::query_as(&select).bind(&ids).fetch_all(&mut *tx).await?;
    let held: HashMap<Uuid, String> = held.into_iter().collect();
    let (mut sites, mut texts, mut positions) = (vec![], vec![], vec![]);
    for (site, (position, events)) in changed {
        let mut rules = match held.get(&site.uuid()) {
            Some(text) => rules(text)?,
            None => SiteRules::default(),
        };
        events.into_iter().for_each(|event| rules.evolve(event));
        let text = serde_json::to_string(&rules)
            .map_err(|error| ProjectionError::inconsistent(position, error.to_string()))?;
        sites.push(site.uuid());
        texts.push(text);
        positions.push(position.to_db());
    }
    let statement = format!(
        "insert into {table} (site, rules, position) \
         select * from unnest($1::uuid[], $2::text[], $3::bigint[]) \
         on conflict (site) do update set rules = excluded.rules, position = excluded.position"
    );
    sqlx::query(&statement).bind(sites).bind(texts).bind(positions).execute(tx).await?;
    Ok(())
}

/// The rules as they are held.
pub(crate) fn rules(text: &str) -> Result<SiteRules, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// The policy that holds at `now`; the default one where the site isn't known.
pub(crate) fn policy_at(text: Option<&str>, now: Time) -> Result<Policy, sqlx::Error> {
    text.map_or_else(|| Ok(Policy::default()), |text| Ok(rules(text)?.policy_at(now).clone()))
}

/// A site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteView {
    pub site: SiteId,
    /// Its name; null once it was taken out of the directory.
    pub name: Option<String>,
    /// The zone that holds now.
    pub tz: String,
    /// The policy that holds now.
    pub policy: Policy,
    /// Every zone, in the order of the days from which they hold.
    pub zones: Vec<ZoneFrom>,
    /// Every policy that was set, in the order of the days from which they hold; before the first
    /// the default one does.
    pub policies: Vec<PolicyFrom>,
}

/// A zone from a day on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ZoneFrom {
    /// The first day, `YYYY-MM-DD`; null: since ever.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Date))]
    pub from: Option<Date>,
    pub tz: String,
}

/// A policy from a business day on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyFrom {
    /// The first business day, `YYYY-MM-DD`; null: since ever.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Date))]
    pub from: Option<Date>,
    pub policy: Policy,
}

/// What a site set, in the order of its days.
pub fn zones_of(rules: &SiteRules) -> Vec<ZoneFrom> {
    let zone = |zone: &punchtrail_domain::site::Dated<String>| ZoneFrom {
        from: zone.day,
        tz: zone.value.clone(),
    };
    rules.zones().iter().map(zone).collect()
}

/// What a site set, in the order of its days.
pub fn policies_of(rules: &SiteRules) -> Vec<PolicyFrom> {
    let policy = |policy: &punchtrail_domain::site::Dated<Policy>| PolicyFrom {
        from: policy.day,
        policy: policy.value.clone(),
    };
    rules.policies().iter().map(policy).collect()
}

type SiteRow = (Uuid, Option<String>, String);

fn view((site, name, text): SiteRow, now: Time) -> Result<SiteView, sqlx::Error> {
    let rules = rules(&text)?;
    Ok(SiteView {
        site: SiteId(site),
        name,
        tz: rules.zone_at(now).unwrap_or(UNKNOWN_ZONE).to_owned(),
        policy: rules.policy_at(now).clone(),
        zones: zones_of(&rules),
        policies: policies_of(&rules),
    })
}

/// The zone of what isn't known.
const UNKNOWN_ZONE: &str = "Etc/UTC";

const SELECT: &str = "select s.site, d.name, s.rules from read.sites s \
     left join site_directory d on d.site = s.site where true";

/// One site as it is at `now`; none if there is none of that id.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(pool: &Pool, site: SiteId, now: Time) -> Result<Option<SiteView>, sqlx::Error> {
    let statement = format!("{SELECT} and s.site = $1");
    let row: Option<SiteRow> =
        sqlx::query_as(&statement).bind(site.uuid()).fetch_optional(pool).await?;
    row.map(|row| view(row, now)).transpose()
}

/// The sites in the order of their ids, after `after`, as they are at `now`; at most `limit`. Only
/// those `within`, if these are given.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    within: Option<&[SiteId]>,
    after: Option<SiteId>,
    limit: u32,
    now: Time,
) -> Result<Page<SiteView>, sqlx::Error> {
    let statement = format!(
        "{SELECT} and s.site > $1 and ($3::uuid[] is null or s.site = any($3)) \
          order by s.site limit $2"
    );
    let rows: Vec<SiteRow> = sqlx::query_as(&statement)
        .bind(after.unwrap_or(SiteId::NIL).uuid())
        .bind(Page::<SiteView>::to_ask(limit))
        .bind(within.map(ids))
        .fetch_all(pool)
        .await?;
    let rows: Result<Vec<SiteView>, _> = rows.into_iter().map(|row| view(row, now)).collect();
    Ok(Page::cut(rows?, limit))
}

/// How punches are paired, a site each. One that isn't known pairs by the default policy in UTC.
#[derive(Debug, Clone)]
pub struct PairingRules {
    by_site: HashMap<SiteId, Rules>,
    unknown: Rules,
}

impl PairingRules {
    /// The rules of these sites.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn of(pool: &Pool, sites: &[SiteId]) -> Result<Self, sqlx::Error> {
        let ids: Vec<Uuid> = sites.iter().map(|site| site.uuid()).collect();
        let rows: Vec<(Uuid, String)> =
            sqlx::query_as("select site, rules from read.sites where site = any($1)")
                .bind(ids)
                .fetch_all(pool)
                .await?;
        let unknown = Rules::of_site(&SiteRules::default());
        let mut by_site: HashMap<SiteId, Rules> =
            sites.iter().map(|site| (*site, unknown.clone())).collect();
        for (site, text) in rows {
            by_site.insert(SiteId(site), Rules::of_site(&rules(&text)?));
        }
        Ok(Self { by_site, unknown })
    }

    /// The same, with others for one site.
    #[must_use]
    pub fn with(mut self, site: SiteId, rules: Rules) -> Self {
        self.by_site.insert(site, rules);
        self
    }

    /// Whether it was asked for.
    pub(crate) fn has(&self, site: SiteId) -> bool {
        self.by_site.contains_key(&site)
    }

    /// The site's.
    pub fn get(&self, site: SiteId) -> &Rules {
        self.by_site.get(&site).unwrap_or(&self.unknown)
    }

    /// Those of all sites that were asked for.
    pub fn all(&self) -> impl Iterator<Item = &Rules> {
        self.by_site.values()
    }

    /// The site's zone at that time, by its IANA name.
    pub fn zone(&self, site: SiteId, at: Time) -> &str {
        self.get(site).at(at).zone.iana_name().unwrap_or(UNKNOWN_ZONE)
    }
}

/// The policies of all sites that hold at `now`.
///
/// # Errors
/// When the database is out of reach.
pub async fn policies(pool: &Pool, now: Time) -> Result<Vec<(SiteId, Policy)>, sqlx::Error> {
    let rows: Vec<(Uuid, String)> =
        sqlx::query_as("select site, rules from read.sites order by site").fetch_all(pool).await?;
    rows.into_iter()
        .map(|(site, text)| Ok((SiteId(site), rules(&text)?.policy_at(now).clone())))
        .collect()
}
