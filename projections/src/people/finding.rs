//! Finding people by what somebody typed, among those of a site or everybody: one search for
//! devices and operators ([`search`](super::search) says who fits, and how well).
//!
//! Everybody is compared, so that a typo finds them too; in steps of bounded size, each read by
//! itself, so that neither memory nor anybody who waits beside it feels how many they are.

use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{EmployeeId, SiteId};
use uuid::Uuid;

use super::search::{Fit, Query};

/// The most people a search finds.
pub const FOUND_MAX: usize = 20;
/// How many people are read at once.
const STEP_PEOPLE: i64 = 2_000;
/// How many people are compared before others may run.
const COMPARED_MAX: usize = 500;

/// Among whom somebody is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Among {
    /// All in the directory, who have left, too.
    Everybody,
    /// All that are assigned to a site, who have left, too.
    Of(SiteId),
    /// Those of a site who haven't left.
    WorkingAt(SiteId),
}

type Person = (Uuid, Option<String>, Vec<String>);

/// Whom `typed` may mean, by name or badge, best first; at most [`FOUND_MAX`].
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn best(pool: &Pool, among: Among, typed: &str) -> Result<Vec<Uuid>, sqlx::Error> {
    let Some(query) = Query::new(typed) else { return Ok(Vec::new()) };
    let mut fits: Vec<(Fit, String, Uuid)> = Vec::new();
    let mut after = EmployeeId::NIL.uuid();
    loop {
        let people = step(pool, among, after).await?;
        let Some((last, ..)) = people.last() else { break };
        after = *last;
        for some in people.chunks(COMPARED_MAX) {
            fits.extend(some.iter().filter_map(|(employee, name, badges)| {
                let name = name.as_deref()?;
                Some((query.fit(name, badges)?, name.to_owned(), *employee))
            }));
            fits.sort_unstable();
            fits.truncate(FOUND_MAX);
            tokio::task::yield_now().await;
        }
        if people.len() < STEP_PEOPLE as usize {
            break;
        }
    }
    Ok(fits.into_iter().map(|(_, _, employee)| employee).collect())
}

/// The next people in the order of their ids, with their names where the directory has them,
/// and their badges.
async fn step(pool: &Pool, among: Among, after: Uuid) -> Result<Vec<Person>, sqlx::Error> {
    let (statement, site) = match among {
        Among::Everybody => (EVERYBODY, SiteId::NIL),
        Among::Of(site) => (OF_SITE, site),
        Among::WorkingAt(site) => (WORKING_AT_SITE, site),
    };
    let statement = format!(
        "select step.employee, step.name, {BADGES} as badges from ({statement}) step \
         order by step.employee"
    );
    sqlx::query_as(&statement).bind(after).bind(STEP_PEOPLE).bind(site.uuid()).fetch_all(pool).await
}

/// The badges that they hold now.
const BADGES: &str = "array(select held.number from badge_holdings held \
     where held.employee = step.employee and held.held_from <= now() \
     and (held.held_until is null or held.held_until > now()))";

const EVERYBODY: &str = "select employee, name from employee_directory \
     where employee > $1 and $3::uuid is not null order by employee limit $2";

// Each person of the step is looked up by the key: a plain join might read the whole directory.
const OF_SITE: &str = "select place.employee, entry.name from ( \
         select employee from read.roster where site = $3 and employee > $1 \
         order by employee limit $2) place \
     left join lateral (select name from employee_directory held \
         where held.employee = place.employee limit 1) entry on true";

const WORKING_AT_SITE: &str = "select place.employee, entry.name from ( \
         select employee from read.roster where site = $3 and employee > $1 \
         and (departed_at is null or departed_at > now()) and (until is null or until > now()) \
         order by employee limit $2) place \
     left join lateral (select name from employee_directory held \
         where held.employee = place.employee limit 1) entry on true";
