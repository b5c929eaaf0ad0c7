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
    /// What it then remembers of it.
    pub remembered: Remembered,
}

/// What the adjudicator remembers of a punch that it came by; whose it is may be found later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub employee: Option<EmployeeId>,
    /// The badge that was read, where nothing else was known.
    pub badge: Option<String>,
    /// By which it was remembered before true times were.
    pub captured_at: Time,
    pub true_at: Time,
    pub site: SiteId,
    pub kind: PunchKind,
}

impl Remembered {
    /// Of a punch that a person entered.
    pub(super) const fn entered(
        employee: EmployeeId,
        at: Time,
        site: SiteId,
        kind: PunchKind,
    ) -> Self {
        let (employee, badge) = (Some(employee), None);
        Self { employee, badge, captured_at: at, true_at: at, site, kind }
    }

    /// Whether a row says the same, but for whose it is.
    fn is_as_in(&self, row: &Row) -> bool {
        let at = row.true_at == self.true_at || row.true_at == self.captured_at;
        at && (row.site, row.kind) == (self.site, self.kind) && row.badge == self.badge
    }
}

/// A row of the memory.
struct Row {
    employee: Option<EmployeeId>,
    badge: Option<String>,
    true_at: Time,
    site: SiteId,
    kind: PunchKind,
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
        "select punch, employee, badge, site, kind, \
         (extract(epoch from true_at) * 1000000)::bigint as true_us from judged_punches \
         where punch = any($1)",
    )
    .bind(punches)
    .fetch_all(pool)
    .await?;
    let mut held = HashMap::new();
    for row in &rows {
        held.insert(PunchId(row.try_get("punch")?), remembered(row)?);
    }
    let mut others = Vec::new();
    let mut wrong = Vec::new();
    for Walked { position, punch, remembered } in walked {
        match held.get(punch) {
            None if *position > place => {}
            Some(Some(row)) if remembered.is_as_in(row) => {
                if row.employee != remembered.employee {
                    others.push((*position, *punch, row.employee));
                }
            }
            _ => wrong.push((*position, *punch)),
        }
    }
    let found = found_since(pool, &others, place).await?;
    let strange = others.into_iter().filter(|(_, punch, who)| found.get(punch) != Some(who));
    wrong.extend(strange.map(|(position, punch, _)| (position, punch)));
    for (position, punch) in wrong {
        findings.add(Finding::at(
            position,
            FindingCode::MemoryAltered,
            format!("what the adjudicator remembers of punch {punch} is gone or was altered"),
        ));
    }
    Ok(())
}

/// Whose these punches were found to be, up to where the adjudicator stands or by what it appended.
async fn found_since(
    pool: &Pool,
    others: &[(u64, PunchId, Option<EmployeeId>)],
    place: u64,
) -> Result<HashMap<PunchId, Option<EmployeeId>>, sqlx::Error> {
    if others.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<String> = others.iter().map(|(_, punch, _)| punch.to_string()).collect();
    let rows: Vec<(String, Option<Uuid>)> = sqlx::query_as(
        "select distinct on (aggregate_id) aggregate_id, coalesce( \
             payload -> 'Identified' ->> 'employee', payload -> 'Reassigned' ->> 'employee')::uuid \
         from events where aggregate_type = 'punch' and aggregate_id = any($1) \
         and event_type in ('Identified', 'Reassigned') \
         and (position <= $2 or metadata ->> 'actor' = 'policy') \
         order by aggregate_id, sequence desc",
    )
    .bind(ids)
    .bind(place.cast_signed())
    .fetch_all(pool)
    .await?;
    let parsed = |(id, who): (String, Option<Uuid>)| Some((id.parse().ok()?, who.map(EmployeeId)));
    Ok(rows.into_iter().filter_map(parsed).collect())
}

/// What a row says; nothing when no punch can be like that.
fn remembered(row: &PgRow) -> Result<Option<Row>, sqlx::Error> {
    let true_us: i64 = row.try_get("true_us")?;
    let kind: Option<PunchKind> = row.try_get::<&str, _>("kind")?.parse().ok();
    let Some(kind) = kind.filter(|_| true_us.rem_euclid(1_000) == 0) else { return Ok(None) };
    Ok(Some(Row {
        employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
        badge: row.try_get("badge")?,
        true_at: Time::from_millis(true_us.div_euclid(1_000)),
        site: SiteId(row.try_get("site")?),
        kind,
    }))
}

/// Memory that can't be right wherever a punch stands, each kind by one statement: what rests on no
/// event, what is there twice, and what was added to a memory later.
const STRANGE: [(&str, &str); 4] = [
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
        "select punch from judged_again again where $1::bigint is not null and not exists ( \
         select from judged_punches judged where judged.punch = again.punch) limit $2",
        "to look again at a punch that it never came by",
    ),
    (
        "with said as (select aggregate_id, \
             coalesce(max(position) filter (where event_type in ('Voided', 'Rejected') \
                 and position <= $1), 0) > coalesce(max(position) filter (where \
                 event_type in ('Reinstated', 'Accepted') and position <= $1), 0) as is_out, \
             bool_or(event_type in ('Admitted', 'Entered')) as entered, \
             sum(doubts) filter (where code = 'near_duplicate') > 0 as near_duplicate, \
             sum(doubts) filter (where code = 'two_sites') > 0 as two_sites, \
             sum(doubts) filter (where code = 'opposite_kind') > 0 as opposite_kind \
             from (select aggregate_id, event_type, position, \
                 case event_type when 'AnomalyWithdrawn' then -1 else 1 end as doubts, \
                 coalesce(payload -> 'AnomalyFlagged', payload -> 'AnomalyWithdrawn') \
                     -> 'anomaly' ->> 'code' as code \
                 from events where aggregate_type = 'punch' and event_type in ('Voided', \
                     'Rejected', 'Reinstated', 'Accepted', 'Admitted', 'Entered', \
                     'AnomalyFlagged', 'AnomalyWithdrawn')) told group by aggregate_id) \
         select punch from judged_punches judged left join said on aggregate_id = punch::text \
         where judged.is_out <> coalesce(said.is_out, false) \
         or not coalesce(said.entered, false) \
         and (judged.near_duplicate, judged.two_sites, judged.opposite_kind) is distinct from \
             (coalesce(said.near_duplicate, false), coalesce(said.two_sites, false), \
             coalesce(said.opposite_kind, false)) limit $2",
        "a punch as out of the count or doubted that isn't, or as neither",
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
