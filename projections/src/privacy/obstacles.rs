//! What stands in the way of a person's erasure. Each reason is one function here and one line in
//! [`obstacles`]; all that stand are told at once.

use jiff_sqlx::Timestamp;
use punchtrail_domain::employee::Employee;
use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use serde::Serialize;
use uuid::Uuid;

use crate::sites;

const DAY_MS: i64 = 86_400_000;

/// Why a person can't be erased now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Obstacle {
    /// A site must keep the records of their work for longer.
    RetentionRuns {
        site: SiteId,
        /// Until when.
        until: Time,
    },
    /// A court or an authority asks for their records.
    LegalHold {
        /// How many holds stand.
        holds: u32,
    },
    /// Something of theirs waits for a person's ruling.
    ReviewOpen {
        /// How many punches of theirs are referred.
        punches: u64,
        /// How many items in quarantine say to be punches of theirs.
        items: u64,
    },
    /// Something that they dispute isn't settled.
    DisputeOpen {
        /// How many disputes wait.
        disputes: u64,
    },
}

impl Obstacle {
    /// The code, as `errors` of a refusal name it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::RetentionRuns { .. } => "retention_runs",
            Self::LegalHold { .. } => "legal_hold",
            Self::ReviewOpen { .. } => "review_open",
            Self::DisputeOpen { .. } => "dispute_open",
        }
    }

    /// What stands in the way and what to do about it, in a sentence.
    pub fn sentence(self) -> String {
        match self {
            Self::RetentionRuns { site, until } => format!(
                "The records of site {site} must be kept until {until} \
                 (`record_retention_days`): ask again then."
            ),
            Self::LegalHold { holds } => format!(
                "Legal holds stand, {holds} of them: lift each once what it is about is over."
            ),
            Self::ReviewOpen { punches, items } => format!(
                "{punches} punches wait for a manager and {items} items in quarantine for \
                 somebody's eye: rule on them first."
            ),
            Self::DisputeOpen { disputes } => {
                format!("{disputes} disputes of theirs wait for an answer: settle them first.")
            }
        }
    }
}

/// Everything that stands in the way, as the models stand now.
///
/// # Errors
/// When the database is out of reach.
pub async fn obstacles(
    pool: &Pool,
    employee: EmployeeId,
    person: &Employee,
    now: Time,
) -> Result<Vec<Obstacle>, sqlx::Error> {
    let mut found = Vec::new();
    found.extend(retention(pool, employee, now).await?);
    found.extend(legal_hold(person));
    found.extend(reviews(pool, employee).await?);
    found.extend(disputes(pool, employee).await?);
    Ok(found)
}

/// A reason for each site whose records are too young, by the newest punch there.
async fn retention(
    pool: &Pool,
    employee: EmployeeId,
    now: Time,
) -> Result<Vec<Obstacle>, sqlx::Error> {
    let rows: Vec<(Uuid, Timestamp, Option<String>)> = sqlx::query_as(
        "select punch.site, max(punch.effective_at), site.rules from read.timeline punch \
         left join read.sites site on site.site = punch.site where punch.employee = $1 \
         group by punch.site, site.rules order by punch.site",
    )
    .bind(employee.uuid())
    .fetch_all(pool)
    .await?;
    let mut running = Vec::new();
    for (site, newest, rules) in rows {
        let days = i64::from(sites::policy_at(rules.as_deref(), now)?.record_retention_days);
        let until = Time::from(newest.to_jiff()).plus_millis(days * DAY_MS);
        if until > now {
            running.push(Obstacle::RetentionRuns { site: SiteId(site), until });
        }
    }
    Ok(running)
}

const fn legal_hold(person: &Employee) -> Option<Obstacle> {
    match person.holds() {
        0 => None,
        holds => Some(Obstacle::LegalHold { holds }),
    }
}

async fn reviews(pool: &Pool, employee: EmployeeId) -> Result<Option<Obstacle>, sqlx::Error> {
    let (punches, items): (i64, i64) = sqlx::query_as(
        "select (select count(*) from read.timeline where employee = $1 \
             and exception = 'referred'), \
         (select count(*) from read.quarantine where employee = $1 and state = 'waiting')",
    )
    .bind(employee.uuid())
    .fetch_one(pool)
    .await?;
    let (punches, items) = (punches.cast_unsigned(), items.cast_unsigned());
    Ok((punches + items > 0).then_some(Obstacle::ReviewOpen { punches, items }))
}

async fn disputes(pool: &Pool, employee: EmployeeId) -> Result<Option<Obstacle>, sqlx::Error> {
    let disputes: i64 = sqlx::query_scalar(
        "select count(*) from read.disputes where employee = $1 and state <> 'resolved'",
    )
    .bind(employee.uuid())
    .fetch_one(pool)
    .await?;
    let disputes = disputes.cast_unsigned();
    Ok((disputes > 0).then_some(Obstacle::DisputeOpen { disputes }))
}
