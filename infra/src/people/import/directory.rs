//! What an import reads of the directory and writes to it, many entries a statement.

use std::{collections::HashMap, sync::Arc};

use punchtrail_protocol::{EmployeeId, SiteId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{ledger::SideWrite, people::directory::EmployeeEntry, postgres::Pool};

use super::RosterRow;

/// The entries that rows could mean: those with a badge or an external id of theirs.
pub(super) async fn entries(
    pool: &Pool,
    rows: &[RosterRow],
) -> Result<Vec<EmployeeEntry>, sqlx::Error> {
    let badges: Vec<&str> = rows.iter().filter_map(|row| row.badge.as_deref()).collect();
    let externals: Vec<&str> = rows.iter().filter_map(|row| row.external_id.as_deref()).collect();
    // Two selects: an `or` over two indexes is planned as a scan of the table.
    let found = sqlx::query(
        "select employee, badge, name, pin_phc, external_id from employee_directory \
         where badge = any($1) \
         union select employee, badge, name, pin_phc, external_id from employee_directory \
         where external_id = any($2)",
    )
    .bind(badges)
    .bind(externals)
    .fetch_all(pool)
    .await?;
    found
        .iter()
        .map(|row| {
            Ok(EmployeeEntry {
                employee: EmployeeId(row.try_get("employee")?),
                badge: row.try_get("badge")?,
                name: row.try_get("name")?,
                pin_phc: row.try_get("pin_phc")?,
                external_id: row.try_get("external_id")?,
            })
        })
        .collect()
}

/// Every site by its name.
pub(super) async fn sites(pool: &Pool) -> Result<HashMap<String, SiteId>, sqlx::Error> {
    let rows: Vec<(String, Uuid)> =
        sqlx::query_as("select name, site from site_directory").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(name, site)| (name, SiteId(site))).collect())
}

/// Writes whole entries, new or changed.
pub(super) fn write(entries: Vec<EmployeeEntry>) -> SideWrite {
    let entries = Arc::new(entries);
    SideWrite::new(move |connection| {
        let entries = Arc::clone(&entries);
        Box::pin(async move { upsert(connection, &entries).await })
    })
}

async fn upsert(
    connection: &mut PgConnection,
    entries: &[EmployeeEntry],
) -> Result<(), sqlx::Error> {
    let employees: Vec<Uuid> = entries.iter().map(|entry| entry.employee.uuid()).collect();
    let column =
        |of: fn(&EmployeeEntry) -> Option<&str>| entries.iter().map(of).collect::<Vec<_>>();
    // A badge may move from one of them to another; uniqueness is checked row by row.
    sqlx::query("update employee_directory set badge = null where employee = any($1)")
        .bind(&employees)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "insert into employee_directory (employee, badge, name, pin_phc, external_id) \
         select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) \
         on conflict (employee) do update set badge = excluded.badge, name = excluded.name, \
         pin_phc = excluded.pin_phc, external_id = excluded.external_id",
    )
    .bind(&employees)
    .bind(column(|entry| entry.badge.as_deref()))
    .bind(column(|entry| Some(&entry.name)))
    .bind(column(|entry| entry.pin_phc.as_deref()))
    .bind(column(|entry| entry.external_id.as_deref()))
    .execute(connection)
    .await?;
    Ok(())
}
