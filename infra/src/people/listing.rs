//! People as an operator lists them: from the directory and the ledger, without a read model.

use std::collections::HashMap;

use punchtrail_domain::employee::Employee;
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use serde::Serialize;
use uuid::Uuid;

use super::{badges::rows, error::PeopleError};
use crate::ledger::{Ledger, load};

/// How many people are loaded at a time.
const PAGE: usize = 1_000;

/// A person as they are listed.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ListedEmployee {
    pub employee: EmployeeId,
    pub name: String,
    /// The badges that they hold now, the one they got last first.
    pub badges: Vec<String>,
    pub external_id: Option<String>,
    /// The sites where they work now.
    pub sites: Vec<SiteId>,
    /// When they left or leave.
    pub departed_at: Option<Time>,
}

impl std::fmt::Debug for ListedEmployee {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListedEmployee").field("employee", &self.employee).finish_non_exhaustive()
    }
}

/// Everybody in the directory, or who works at a site, by name.
///
/// # Errors
/// When the database is out of reach, or holds what this program can't read.
pub async fn list(
    ledger: &Ledger,
    site: Option<SiteId>,
) -> Result<Vec<ListedEmployee>, PeopleError> {
    let (pool, now) = (ledger.pool(), ledger.now());
    let entries: Vec<(Uuid, String, Option<String>)> = sqlx::query_as(
        "select employee, name, external_id from employee_directory order by name, employee",
    )
    .fetch_all(pool)
    .await?;
    let mut listed = Vec::with_capacity(entries.len());
    for page in entries.chunks(PAGE) {
        let ids: Vec<Uuid> = page.iter().map(|(employee, ..)| *employee).collect();
        let mut badges: HashMap<EmployeeId, Vec<String>> = HashMap::new();
        let held = rows::of_employees(pool, &ids).await?;
        let holds_now = |row: &rows::HoldingRow| row.goes_on(now) && row.from <= Some(now);
        for row in held.into_iter().rev().filter(holds_now) {
            badges.entry(row.employee).or_default().push(row.number);
        }
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let mut known = load::<Employee>(pool, &texts).await?;
        for ((employee, name, external_id), id) in page.iter().zip(texts) {
            let person = known.remove(&id).unwrap_or_default().aggregate;
            let mut sites: Vec<SiteId> =
                person.assignments().all().iter().map(|at| at.site).collect();
            sites.retain(|site| person.assignments().holds_at(*site, now));
            sites.sort_unstable();
            sites.dedup();
            let employee = EmployeeId(*employee);
            listed.push(ListedEmployee {
                employee,
                name: name.clone(),
                badges: badges.remove(&employee).unwrap_or_default(),
                external_id: external_id.clone(),
                sites,
                departed_at: person.employment().departed_at(),
            });
        }
    }
    listed.retain(|one| site.is_none_or(|site| one.sites.contains(&site)));
    Ok(listed)
}
