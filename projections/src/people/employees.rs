//! Employees as the API lists them: read from the `roster` model, joined with the directory.

use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    engine::columns::{ids, time_or_none},
    engine::page::Page,
    people::finding::{self, Among},
};

pub use finding::FOUND_MAX;

/// A person, as the ledger and the directory have one now.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EmployeeView {
    pub employee: EmployeeId,
    /// The name; null once it was taken out of the directory.
    pub name: Option<String>,
    /// The badge that they got last, of those that they hold now.
    pub badge: Option<String>,
    /// The badges that they hold now, the one they got last first.
    pub badges: Vec<String>,
    /// The id in another system.
    pub external_id: Option<String>,
    pub has_pin: bool,
    /// Since when they are asked for another PIN, because a device that knew it was revoked; null if
    /// they aren't.
    pub pin_renewal_asked_at: Option<Time>,
    /// The sites where the person works, in the order of their ids.
    pub sites: Vec<SiteId>,
    /// When the person leaves or left.
    pub departed_at: Option<Time>,
    /// When everything that can be erased of the person was; then there is no name, no badge and no
    /// site.
    pub erased_at: Option<Time>,
}

impl std::fmt::Debug for EmployeeView {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmployeeView").field("employee", &self.employee).finish_non_exhaustive()
    }
}

impl FromRow<'_, PgRow> for EmployeeView {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let sites: Vec<Uuid> = row.try_get("sites")?;
        let badges: Vec<String> = row.try_get("badges")?;
        Ok(Self {
            employee: EmployeeId(row.try_get("employee")?),
            name: row.try_get("name")?,
            badge: badges.first().cloned(),
            badges,
            external_id: row.try_get("external_id")?,
            has_pin: row.try_get("has_pin")?,
            pin_renewal_asked_at: time_or_none(row, "pin_renewal_asked_at")?,
            sites: sites.into_iter().map(SiteId).collect(),
            departed_at: time_or_none(row, "departed_at")?,
            erased_at: time_or_none(row, "erased_at")?,
        })
    }
}

const SELECT: &str = "select person.employee, entry.name, entry.external_id, \
         array(select held.number from badge_holdings held \
             where held.employee = person.employee and held.held_from <= now() \
             and (held.held_until is null or held.held_until > now()) \
             order by held.held_from desc, held.number) as badges, \
         coalesce(entry.pin_phc is not null, false) as has_pin, \
         entry.pin_renewal_asked_at, \
         array(select place.site from read.roster place where place.employee = person.employee \
             and (place.until is null or place.until > now()) order by place.site) as sites, \
         person.departed_at, person.erased_at \
     from read.roster_people person \
     left join employee_directory entry on entry.employee = person.employee";

/// One employee; none if there is none of that id.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(pool: &Pool, employee: EmployeeId) -> Result<Option<EmployeeView>, sqlx::Error> {
    let statement = format!("{SELECT} where person.employee = $1");
    sqlx::query_as(&statement).bind(employee.uuid()).fetch_optional(pool).await
}

/// The employees whom `typed` may mean, of one site or of all, by name or badge, best first; at
/// most [`FOUND_MAX`]. Who has left is among them, nobody who was erased.
///
/// # Errors
/// When the database is out of reach.
pub async fn search(
    pool: &Pool,
    site: Option<SiteId>,
    typed: &str,
) -> Result<Vec<EmployeeView>, sqlx::Error> {
    let among = site.map_or(Among::Everybody, Among::Of);
    let found = finding::best(pool, among, typed).await?;
    let statement =
        format!("{SELECT} where person.erased_at is null and person.employee = any($1)");
    let mut rows: Vec<EmployeeView> =
        sqlx::query_as(&statement).bind(&found).fetch_all(pool).await?;
    rows.sort_by_key(|row| found.iter().position(|employee| *employee == row.employee.uuid()));
    Ok(rows)
}

/// The employees in the order of their ids, after `after`, of one site or of all; at most `limit`.
/// Only those who work at one of the sites `within`, if these are given. Nobody who was erased.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    (site, within): (Option<SiteId>, Option<&[SiteId]>),
    after: Option<EmployeeId>,
    limit: u32,
) -> Result<Page<EmployeeView>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT);
    if let Some(site) = site {
        query.push(" join read.roster at on at.employee = person.employee and at.site = ");
        query.push_bind(site.uuid());
        query.push(" where person.erased_at is null and (at.until is null or at.until > now())");
        query.push(" and at.employee > ").push_bind(after.unwrap_or(EmployeeId::NIL).uuid());
        query.push(" order by at.employee");
    } else {
        query.push(" where person.erased_at is null");
        if let Some(sites) = within {
            query.push(" and exists (select from read.roster at where at.site = any(");
            query.push_bind(ids(sites)).push(") and at.employee = person.employee)");
        }
        query.push(" and person.employee > ").push_bind(after.unwrap_or(EmployeeId::NIL).uuid());
        query.push(" order by person.employee");
    }
    query.push(" limit ").push_bind(Page::<EmployeeView>::to_ask(limit));
    let rows = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, limit))
}
