//! The directory: names and PINs of people, names of sites and devices. It stands beside the ledger
//! so that it can be erased, and nothing of it ever goes into an event or a log. Whose a badge is
//! stands in [`super::badges`].

use std::{collections::HashMap, hash::Hash};

use punchtrail_protocol::{DeviceId, EmployeeId, SiteId, spelling::normal};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

/// A person's entry.
#[derive(Clone, PartialEq, Eq)]
pub struct EmployeeEntry {
    pub employee: EmployeeId,
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
    .bind(normal(name))
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
/// When another person has the external id, or the database is out of reach.
pub async fn put_employee(
    connection: &mut PgConnection,
    entry: &EmployeeEntry,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into employee_directory (employee, name, pin_phc, external_id, pin_set_at) \
         values ($1, $2, $3, $4, now()) on conflict (employee) do update set name = excluded.name, \
         pin_phc = excluded.pin_phc, external_id = excluded.external_id, \
         pin_set_at = excluded.pin_set_at, pin_renewal_asked_at = null",
    )
    .bind(entry.employee.uuid())
    .bind(&entry.name)
    .bind(&entry.pin_phc)
    .bind(entry.external_id.as_deref().map(normal))
    .execute(connection)
    .await
    .map(drop)
}

/// Gives a person of the directory another name.
///
/// # Errors
/// When the database is out of reach.
pub async fn put_name(
    connection: &mut PgConnection,
    employee: EmployeeId,
    name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("update employee_directory set name = $2 where employee = $1")
        .bind(employee.uuid())
        .bind(name)
        .execute(connection)
        .await
        .map(drop)
}

/// Gives a person of the directory another PIN, by its hash, or none; they are asked for none any
/// more.
///
/// # Errors
/// When the database is out of reach.
pub async fn put_pin(
    connection: &mut PgConnection,
    employee: EmployeeId,
    phc: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update employee_directory set pin_phc = $2, pin_set_at = now(), \
         pin_renewal_asked_at = null where employee = $1",
    )
    .bind(employee.uuid())
    .bind(phc)
    .execute(connection)
    .await
    .map(drop)
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

/// The names of these people, as far as the directory has them.
///
/// # Errors
/// When the database is out of reach.
pub async fn employee_names(
    executor: impl PgExecutor<'_>,
    employees: &[EmployeeId],
) -> Result<HashMap<EmployeeId, String>, sqlx::Error> {
    let statement = "select employee, name from employee_directory where employee = any($1)";
    names(executor, statement, employees.iter().map(|employee| employee.uuid()).collect()).await
}

/// The names of these devices, as far as the directory has them.
///
/// # Errors
/// When the database is out of reach.
pub async fn device_names(
    executor: impl PgExecutor<'_>,
    devices: &[DeviceId],
) -> Result<HashMap<DeviceId, String>, sqlx::Error> {
    let statement = "select device, name from device_directory where device = any($1)";
    names(executor, statement, devices.iter().map(|device| device.uuid()).collect()).await
}

/// The names of these sites, as far as the directory has them.
///
/// # Errors
/// When the database is out of reach.
pub async fn site_names(
    executor: impl PgExecutor<'_>,
    sites: &[SiteId],
) -> Result<HashMap<SiteId, String>, sqlx::Error> {
    let statement = "select site, name from site_directory where site = any($1)";
    names(executor, statement, sites.iter().map(|site| site.uuid()).collect()).await
}

/// Names by id, of those ids that a statement finds; none is asked for when there are no ids.
async fn names<Id: From<Uuid> + Eq + Hash>(
    executor: impl PgExecutor<'_>,
    statement: &'static str,
    ids: Vec<Uuid>,
) -> Result<HashMap<Id, String>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, String)> = sqlx::query_as(statement).bind(ids).fetch_all(executor).await?;
    Ok(rows.into_iter().map(|(id, name)| (id.into(), name)).collect())
}

/// Whether the directory has such a person.
///
/// # Errors
/// When the database is out of reach.
pub async fn employee_exists(
    executor: impl PgExecutor<'_>,
    employee: EmployeeId,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from employee_directory where employee = $1)")
        .bind(employee.uuid())
        .fetch_one(executor)
        .await
}

/// The person of that id of another system.
///
/// # Errors
/// When the database is out of reach.
pub async fn employee_of_external_id(
    executor: impl PgExecutor<'_>,
    external_id: &str,
) -> Result<Option<EmployeeId>, sqlx::Error> {
    let found: Option<Uuid> =
        sqlx::query_scalar("select employee from employee_directory where external_id = $1")
            .bind(normal(external_id.trim()))
            .fetch_optional(executor)
            .await?;
    Ok(found.map(EmployeeId))
}

/// Somebody whom a word may mean, as people tell them apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Meant {
    pub employee: EmployeeId,
    pub name: Option<String>,
    pub external_id: Option<String>,
    /// The badges that they hold now.
    pub badges: Vec<String>,
}

impl std::fmt::Debug for Meant {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meant").field("employee", &self.employee).finish_non_exhaustive()
    }
}

/// Everybody whom a word may mean: the one of that id; else those of that external id, badge or
/// name; else who held that badge last, or will; else those of that name in other letters (`ada`).
/// More than one means that nobody knows who is meant.
///
/// # Errors
/// When the database is out of reach.
pub async fn employees_called(
    executor: impl PgExecutor<'_>,
    word: &str,
) -> Result<Vec<Meant>, sqlx::Error> {
    /// Where it was found, whose id, name, external id and badges.
    type Row = (i32, Uuid, Option<String>, Option<String>, Vec<String>);
    /// Places of which only the first is meant: who held a badge last.
    const ONE_ALONE: [i32; 2] = [2, 3];
    let rows: Vec<Row> = sqlx::query_as(
        "select found.place, found.employee, entry.name, entry.external_id, \
             array(select held.number from badge_holdings held \
                 where held.employee = found.employee and held.held_from <= now() \
                 and (held.held_until is null or held.held_until > now()) order by held.number) \
         from ( \
             select employee, 0 as place, null::timestamptz as since from employee_directory \
             where employee = $1 \
             union all select employee, 1, null from employee_directory \
                 where external_id = $2 or name = $2 \
             union all select employee, case when held_from > now() then 3 \
                 when held_until <= now() then 2 else 1 end, held_from \
                 from badge_holdings where number = $2 \
             union all select employee, 4, null from employee_directory \
                 where lower(name) = lower($2)) found \
         left join employee_directory entry using (employee) \
         order by found.place, found.since desc nulls last, entry.name, found.employee",
    )
    .bind(word.parse::<Uuid>().ok())
    .bind(normal(word.trim()))
    .fetch_all(executor)
    .await?;
    let first = rows.first().map(|(place, ..)| *place);
    let mut meant: Vec<Meant> = Vec::new();
    for (place, employee, name, external_id, badges) in rows {
        let counts = Some(place) == first && (meant.is_empty() || !ONE_ALONE.contains(&place));
        let employee = EmployeeId(employee);
        if counts && meant.iter().all(|known| known.employee != employee) {
            meant.push(Meant { employee, name, external_id, badges });
        }
    }
    Ok(meant)
}
