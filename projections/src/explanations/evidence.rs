//! What is known of a worker's day, as a dispute about it keeps it: which devices may still hold a
//! punch, by their last reports, which numbers are missing, what waits in quarantine, and which
//! badges nobody knew at those doors. The same facts as the day's explanation, in codes and counts.

use std::collections::BTreeSet;

use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    dispute::{DeviceEvidence, EVIDENCE_GAPS_MAX, EVIDENCE_LISTED_MAX, Evidence, ReportKept},
    explanation::absence::{Absence, DeviceAnswer, Holds},
};
use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, dispute::Day};
use uuid::Uuid;

use super::{AbsenceError, explain_absence};

/// What is known of a worker's business day; none if the ledger has no worker of that id.
///
/// # Errors
/// See [`AbsenceError`].
pub async fn evidence(
    pool: &Pool,
    employee: EmployeeId,
    day: Day,
) -> Result<Option<Evidence>, AbsenceError> {
    let Some(absence) = explain_absence(pool, (employee, true), day.date()).await? else {
        return Ok(None);
    };
    let mut unknown_badges = unknown_badges(pool, &absence).await?;
    let mut devices: Vec<_> = absence.devices.iter().filter(|one| is_telling(one)).collect();
    let most = EVIDENCE_LISTED_MAX;
    let more = absence.quarantined_more
        || absence.quarantined.len() > most
        || unknown_badges.len() > most
        || devices.len() > most
        || devices.iter().any(|one| one.missing_more || one.missing.len() > EVIDENCE_GAPS_MAX);
    unknown_badges.truncate(most);
    devices.truncate(most);
    Ok(Some(Evidence {
        day,
        punches: u32::try_from(absence.punches.len()).unwrap_or(u32::MAX),
        quarantined: absence.quarantined.iter().take(most).map(|item| item.item).collect(),
        unknown_badges,
        devices: devices.into_iter().map(of_device).collect(),
        more,
        known_through: absence.position,
    }))
}

/// Whether a device may hold or lack something of that day.
fn is_telling(device: &DeviceAnswer) -> bool {
    device.holds != Holds::Nothing || !device.missing.is_empty() || device.missing_more
}

fn of_device(device: &DeviceAnswer) -> DeviceEvidence {
    let last_report = device.reported_at.map(|reported_at| ReportKept {
        reported_at,
        waiting: device.waiting.unwrap_or_default(),
        oldest: device.oldest,
    });
    let missing = device.missing.iter().take(EVIDENCE_GAPS_MAX).map(|run| run.gap).collect();
    DeviceEvidence { device: device.device, last_report, missing }
}

/// Punches of that day at the worker's sites by badges that nobody knew; one more than is listed.
async fn unknown_badges(pool: &Pool, absence: &Absence) -> Result<Vec<PunchId>, sqlx::Error> {
    let sites: BTreeSet<SiteId> = absence.devices.iter().map(|device| device.site).collect();
    let found: Vec<Uuid> = sqlx::query_scalar(
        "select punch from read.timeline where site = any($1) and employee is null \
         and effective_at >= $2 and effective_at < $3 order by effective_at, punch limit $4",
    )
    .bind(sites.iter().map(|site| site.uuid()).collect::<Vec<_>>())
    .bind(absence.from.timestamp().to_sqlx())
    .bind(absence.to.timestamp().to_sqlx())
    .bind(i64::try_from(EVIDENCE_LISTED_MAX + 1).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().map(PunchId).collect())
}
