//! What other rules of a site would do to everybody's hours, before they are set: each day's as
//! they are, and as they would be, paired from the same punches.

use std::collections::BTreeSet;

use punchtrail_domain::{site::SiteRules, timecard::Rules};
use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use serde::Serialize;
use uuid::Uuid;

use super::{
    preview::{DayPreview, changed, hours},
    timecards::{Pairing, TimecardsError, read},
};

/// The most days that are shown; more are counted.
pub const DAYS_SHOWN_MAX: usize = 200;
/// The most punches that are looked at.
const PUNCHES_MAX: usize = 500_000;
/// People whose punches are read together.
const PEOPLE_AT_ONCE: i64 = 10;

/// Whose hours of which days would move.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Moved {
    /// How many people.
    pub people: u64,
    /// How many of their days.
    pub days: u64,
    /// The first 200 of those days, person after person.
    pub shown: Vec<MovedDay>,
    /// Whether everybody who punched there was looked at. Of very many punches they aren't; then
    /// more may move than is counted.
    pub complete: bool,
}

/// A person's business day whose hours would move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MovedDay {
    pub employee: EmployeeId,
    // None until somebody who shows them to people looks it up.
    /// The name, if the directory has it.
    pub employee_name: Option<String>,
    #[serde(flatten)]
    pub hours: DayPreview,
}

/// What would move if a site had these rules.
///
/// # Errors
/// See [`TimecardsError`].
pub async fn by_rules(
    pool: &Pool,
    site: SiteId,
    then: &SiteRules,
) -> Result<Moved, TimecardsError> {
    let then = Rules::of_site(then);
    let mut moved = Moved { complete: true, ..Moved::default() };
    let (mut after, mut looked_at) = (Uuid::nil(), 0);
    loop {
        let people: Vec<Uuid> = sqlx::query_scalar(
            "select employee from read.timecards_people where site = $1 and employee > $2 \
             order by employee limit $3",
        )
        .bind(site.uuid())
        .bind(after)
        .bind(PEOPLE_AT_ONCE)
        .fetch_all(pool)
        .await?;
        let Some(last) = people.last() else { return Ok(moved) };
        after = *last;
        let pairing = Pairing::of(pool, &people).await?;
        let (from, to) = (Time::FIRST, Time::from_millis(i64::MAX));
        let punches = match read(pool, &people, from, to, &pairing.rules).await {
            Err(TimecardsError::TooMany) => {
                moved.complete = false;
                continue;
            }
            read => read?,
        };
        let other = pairing.rules.clone().with(site, then.clone());
        for (employee, punches) in punches {
            looked_at += punches.len();
            let (now, then) = (hours(&punches, &pairing.rules), hours(&punches, &other));
            moved.take(employee, changed(&now, &then, &BTreeSet::new()));
        }
        if looked_at > PUNCHES_MAX {
            moved.complete = false;
            return Ok(moved);
        }
        punchtrail_infra::ledger::give_way(0).await;
    }
}

impl Moved {
    fn take(&mut self, employee: EmployeeId, days: Vec<DayPreview>) {
        self.people += u64::from(!days.is_empty());
        self.days += days.len() as u64;
        let room = DAYS_SHOWN_MAX.saturating_sub(self.shown.len());
        let shown = |hours| MovedDay { employee, employee_name: None, hours };
        self.shown.extend(days.into_iter().take(room).map(shown));
    }
}
