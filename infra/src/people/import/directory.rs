//! What an import reads of the directory and writes to it, many entries a statement.

use std::{collections::HashMap, sync::Arc};

use punchtrail_protocol::{EmployeeId, SiteId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    ledger::SideWrite,
    people::{badges::rows::Moves, directory::EmployeeEntry},
    postgres::Pool,
};

use super::RosterRow;

/// The entries of these people, and those with an external id of the rows.
pub(super) async fn entries(
    pool: &Pool,
    employees: &[Uuid],
    rows: &[RosterRow],
) -> Result<Vec<EmployeeEntry>, sqlx::Error> {
    let externals: Vec<&str> = rows.iter().filter_map(|row| row.external_id.as_deref()).collect();
    // Two selects: an `or` over two indexes is planned as a scan of the table.
    let found = sqlx::query(
        "select employee, name, pin_phc, external_id from employee_directory \
         where employee = any($1) \
         union select employee, name, pin_phc, external_id from employee_directory \
         where external_id = any($2)",
    )
    .bind(employees)
    .bind(externals)
    .fetch_all(pool)
    .await?;
    found
        .iter()
        .map(|row| {
            Ok(EmployeeEntry {
                employee: EmployeeId(row.try_get("employee")?),
                name: row.try_get("name")?,
                pin_phc: row.try_get("pin_phc")?,
                external_id: row.try_get("external_id")?,
            })
        })
        .collect()
}

/// Everybody's name.
pub(super) async fn names(pool: &Pool) -> Result<Vec<(EmployeeId, String)>, sqlx::Error> {
    let rows: Vec<(Uuid, String)> =
        sqlx::query_as("select employee, name from employee_directory order by employee")
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(|(employee, name)| (EmployeeId(employee), name)).collect())
}

/// Every site by its name.
pub(super) async fn sites(pool: &Pool) -> Result<HashMap<String, SiteId>, sqlx::Error> {
    let rows: Vec<(String, Uuid)> =
        sqlx::query_as("select name, site from site_directory").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(name, site)| (name, SiteId(site))).collect())
}

/// Writes whole entries, new or changed, and what changes of badges.
pub(super) fn write(entries: Vec<EmployeeEntry>, moves: Moves) -> SideWrite {
    let beside = Arc::new((entries, moves));
    SideWrite::new(move |connection| {
        let beside = Arc::clone(&beside);
        Box::pin(async move {
            let (entries, moves) = &*beside;
            upsert(connection, entries).await?;
            moves.write(connection).await
        })
    })
}

async fn upsert(
    connection: &mut PgConnection,
    entries: &[EmployeeEntry],
) -> Result<(), sqlx::Error> {
    let employees: Vec<Uuid> = entries.iter().map(|entry| entry.employee.uuid()).collect();
    let column =
        |of: fn(&EmployeeEntry) -> Option<&str>| entries.iter().map(of).collect::<Vec<_>>();
    sqlx::query(
        "insert into employee_directory as kept (employee, name, pin_phc, external_id, pin_set_at) \
         select *, now() from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) \
         on conflict (employee) do update set name = excluded.name, \
         pin_phc = excluded.pin_phc, external_id = excluded.external_id, \
         pin_set_at = case when kept.pin_phc is distinct from excluded.pin_phc \
             then excluded.pin_set_at else kept.pin_set_at end, \
         pin_renewal_asked_at = case when kept.pin_phc is distinct from excluded.pin_phc \
             then null else kept.pin_renewal_asked_at end",
    )
    .bind(&employees)
    .bind(column(|entry| Some(&entry.name)))
    .bind(column(|entry| entry.pin_phc.as_deref()))
    .bind(column(|entry| entry.external_id.as_deref()))
    .execute(connection)
    .await?;
    Ok(())
}
