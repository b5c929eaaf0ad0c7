//! What the adjudicator remembers: every punch it walked over whose person is known, and how far
//! it walked each device's chain; and its place. A false memory makes it see a duplicate where none
//! is, or none where one is, so it is compared with the events up to its place.

use std::collections::HashMap;

use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, capture::PunchKind};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    FINDINGS_MAX,
    report::{Finding, FindingCode, Findings},
};
use crate::{adjudicator, postgres::Pool};

/// A punch that the adjudicator comes by.
#[derive(Debug)]
pub(super) struct Walked {
    /// Where it stands when the adjudicator has walked over it.
    pub position: u64,
    pub punch: PunchId,
    /// What it then remembers of it; nothing while the person isn't known.
    pub remembered: Option<Remembered>,
}

/// What the adjudicator remembers of a punch and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    pub employee: EmployeeId,
    pub captured_at: Time,
    pub site: SiteId,
    pub kind: PunchKind,
}

/// The adjudicator's place; none when its row is gone.
pub(super) async fn place(executor: impl sqlx::PgExecutor<'_>) -> Result<Option<u64>, sqlx::Error> {
    let place: Option<i64> = sqlx::query_scalar("select position from followers where name = $1")
        .bind(adjudicator::NAME)
        .fetch_optional(executor)
        .await?;
    Ok(place.map(i64::cast_unsigned))
}

/// Compares what is remembered of these punches. Beside a server at work: what stands up to the
/// place as it was before must be there, the rest may be.
pub(super) async fn check(
    pool: &Pool,
    walked: &[Walked],
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    if walked.is_empty() {
        return Ok(());
    }
    let place = place(pool).await?.unwrap_or_default();
    let punches: Vec<Uuid> = walked.iter().map(|one| one.punch.uuid()).collect();
    let rows = sqlx::query(
        "select punch, employee, site, kind, (extract(epoch from true_at) * 1000000)::bigint \
         as captured_us from judged_punches where punch = any($1)",
    )
    .bind(punches)
    .fetch_all(pool)
    .await?;
    let mut held = HashMap::new();
    for row in &rows {
        held.insert(PunchId(row.try_get("punch")?), remembered(row)?);
    }
    for Walked { position, punch, remembered } in walked {
        let row = held.get(punch).copied().flatten();
        let right = match (row, remembered) {
            (None, Some(_)) => *position > place,
            (row, remembered) => row == *remembered,
        };
        if !right {
            findings.add(Finding::at(
                *position,
                FindingCode::MemoryAltered,
                format!("what the adjudicator remembers of punch {punch} is gone or was altered"),
            ));
        }
    }
    Ok(())
}

/// What a row says; nothing when no punch can be like that.
fn remembered(row: &PgRow) -> Result<Option<Remembered>, sqlx::Error> {
    let captured_us: i64 = row.try_get("captured_us")?;
    let kind: Option<PunchKind> = row.try_get::<&str, _>("kind")?.parse().ok();
    let remembered = Remembered {
        employee: EmployeeId(row.try_get("employee")?),
        captured_at: Time::from_millis(captured_us.div_euclid(1_000)),
        site: SiteId(row.try_get("site")?),
        kind: match kind {
            Some(kind) if captured_us.rem_euclid(1_000) == 0 => kind,
            _ => return Ok(None),
        },
    };
    Ok(Some(remembered))
}

/// Memory that can't be right wherever a punch stands, each kind by one statement: what rests on no
/// event, what is there twice, and what was added to a memory later.
const STRANGE: [(&str, &str); 3] = [
    (
        "select punch from judged_punches judged where not exists (select from events \
         where aggregate_type = 'punch' and aggregate_id = judged.punch::text and sequence = 1 \
         and position <= $1) limit $2",
        "a punch that it has not come by yet, or that isn't there",
    ),
    (
        "select punch from judged_punches where $1::bigint is not null group by punch \
         having count(*) > 1 limit $2",
        "a punch twice",
    ),
    (
        "with said as (select aggregate_id, coalesce(max(position) filter (where \
                 event_type = 'Voided' and position <= $1), 0) > coalesce(max(position) filter \
                 (where event_type = 'Reinstated' and position <= $1), 0) as voided, \
             bool_or(event_type = 'Admitted') as admitted, bool_or(payload -> \
             'AnomalyFlagged' -> 'anomaly' ->> 'code' = 'near_duplicate') as near_duplicate, \
             bool_or(payload -> 'AnomalyFlagged' -> 'anomaly' ->> 'code' = 'two_sites') \
             as two_sites from events where aggregate_type = 'punch' and event_type in \
             ('Voided', 'Reinstated', 'Admitted', 'AnomalyFlagged') group by aggregate_id) \
         select punch from judged_punches judged left join said on aggregate_id = punch::text \
         where judged.is_out <> coalesce(said.voided, false) \
         or not coalesce(said.admitted, false) \
         and (judged.near_duplicate, judged.two_sites) is distinct from \
             (coalesce(said.near_duplicate, false), coalesce(said.two_sites, false)) limit $2",
        "a punch as voided or doubted that isn't, or as neither",
    ),
];

/// Compares the memory as a whole, and the place with where the judging ends.
pub(super) async fn check_whole(
    snapshot: &mut PgConnection,
    place: u64,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let limit = i64::try_from(FINDINGS_MAX).unwrap_or(i64::MAX);
    for (statement, what) in STRANGE {
        let strange: Vec<Uuid> = sqlx::query_scalar(statement)
            .bind(place.cast_signed())
            .bind(limit)
            .fetch_all(&mut *snapshot)
            .await?;
        for punch in strange {
            findings.add(Finding::aside(
                FindingCode::MemoryAltered,
                format!("the adjudicator remembers {what}: {punch}"),
            ));
        }
    }
    // Whatever comes of a judgement is the third event of a captured punch.
    let (passed_over, first): (i64, Option<i64>) = sqlx::query_as(
        "select count(*), min(position) from events synced where event_type = 'Synced' \
         and aggregate_type = 'punch' and position <= $1 and not exists (select from events \
             where aggregate_type = 'punch' and aggregate_id = synced.aggregate_id \
             and sequence > synced.sequence)",
    )
    .bind(place.cast_signed())
    .fetch_one(snapshot)
    .await?;
    if let Some(first) = first {
        findings.add(Finding::aside(
            FindingCode::PlaceAltered,
            format!(
                "the adjudicator's place is {place}, and {passed_over} punch(es) up to there were \
                 never judged, the first at position {first}"
            ),
        ));
    }
    Ok(())
}
