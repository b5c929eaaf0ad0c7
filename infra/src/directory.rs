//! The directory: names, badges and PINs of people, names of sites and devices. It stands beside the
//! ledger so that it can be erased, and nothing of it ever goes into an event or a log.

use punchtrail_domain::{DeviceId, EmployeeId, SiteId};
use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

/// A site's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteEntry {
    /// The site.
    pub site: SiteId,
    /// Its name; no two sites share one.
    pub name: String,
}

/// A person's entry.
#[derive(Clone, PartialEq, Eq)]
pub struct EmployeeEntry {
    /// The person.
    pub employee: EmployeeId,
    /// The badge's number; no two people share one.
    pub badge: Option<String>,
    /// The name.
    pub name: String,
    /// The PIN's Argon2id hash, PHC string format.
    pub pin_phc: Option<String>,
    /// The id in another system; no two people share one.
    pub external_id: Option<String>,
}

/// Puts a site's name into the directory, or changes it.
///
/// # Errors
/// When another site has the name, or the database is out of reach.
pub async fn put_site(
    connection: &mut PgConnection,
    site: SiteId,
    name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into site_directory (site, name) values ($1, $2) \
         on conflict (site) do update set name = excluded.name",
    )
    .bind(site.uuid())
    .bind(name)
    .execute(connection)
    .await
    .map(drop)
}

/// Puts a device's name into the directory, or changes it.
///
/// # Errors
/// When the database is out of reach.
pub async fn put_device(
    connection: &mut PgConnection,
    device: DeviceId,
    name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into device_directory (device, name) values ($1, $2) \
         on conflict (device) do update set name = excluded.name",
    )
    .bind(device.uuid())
    .bind(name)
    .execute(connection)
    .await
    .map(drop)
}

/// Puts a person's entry into the directory, or replaces it.
///
/// # Errors
/// When another person has the badge or the external id, or the database is out of reach.
pub async fn put_employee(
    connection: &mut PgConnection,
    entry: &EmployeeEntry,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into employee_directory (employee, badge, name, pin_phc, external_id) \
         values ($1, $2, $3, $4, $5) on conflict (employee) do update set badge = excluded.badge, \
         name = excluded.name, pin_phc = excluded.pin_phc, external_id = excluded.external_id",
    )
    .bind(entry.employee.uuid())
    .bind(&entry.badge)
    .bind(&entry.name)
    .bind(&entry.pin_phc)
    .bind(&entry.external_id)
    .execute(connection)
    .await
    .map(drop)
}

/// At most `limit` sites after one, in the order of their ids.
///
/// # Errors
/// When the database is out of reach.
pub async fn sites(
    executor: impl PgExecutor<'_>,
    after: Option<SiteId>,
    limit: i64,
) -> Result<Vec<SiteEntry>, sqlx::Error> {
    sqlx::query(
        "select site, name from site_directory where $1::uuid is null or site > $1 \
         order by site limit $2",
    )
    .bind(after.map(SiteId::uuid))
    .bind(limit)
    .try_map(|row: PgRow| {
        Ok(SiteEntry { site: SiteId(row.try_get("site")?), name: row.try_get("name")? })
    })
    .fetch_all(executor)
    .await
}

/// Whether there is such a site.
///
/// # Errors
/// When the database is out of reach.
pub async fn site_exists(executor: impl PgExecutor<'_>, site: SiteId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from site_directory where site = $1)")
        .bind(site.uuid())
        .fetch_one(executor)
        .await
}

/// At most `limit` people after one, in the order of their ids.
///
/// # Errors
/// When the database is out of reach.
pub async fn employees(
    executor: impl PgExecutor<'_>,
    after: Option<EmployeeId>,
    limit: i64,
) -> Result<Vec<EmployeeEntry>, sqlx::Error> {
    sqlx::query(
        "select employee, badge, name, pin_phc, external_id from employee_directory \
         where $1::uuid is null or employee > $1 order by employee limit $2",
    )
    .bind(after.map(EmployeeId::uuid))
    .bind(limit)
    .try_map(|row| employee_entry(&row))
    .fetch_all(executor)
    .await
}

fn employee_entry(row: &PgRow) -> Result<EmployeeEntry, sqlx::Error> {
    Ok(EmployeeEntry {
        employee: EmployeeId(row.try_get("employee")?),
        badge: row.try_get("badge")?,
        name: row.try_get("name")?,
        pin_phc: row.try_get("pin_phc")?,
        external_id: row.try_get("external_id")?,
    })
}

/// The names of these devices, as far as they have one.
///
/// # Errors
/// When the database is out of reach.
pub async fn device_names(
    executor: impl PgExecutor<'_>,
    devices: &[Uuid],
) -> Result<std::collections::HashMap<DeviceId, String>, sqlx::Error> {
    sqlx::query("select device, name from device_directory where device = any($1)")
        .bind(devices)
        .try_map(|row: PgRow| Ok((DeviceId(row.try_get("device")?), row.try_get("name")?)))
        .fetch_all(executor)
        .await
        .map(|rows| rows.into_iter().collect())
}
