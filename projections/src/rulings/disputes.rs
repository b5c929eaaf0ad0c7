//! Disputes: what is disputed, by whom, and what became of it. Takes nothing out of any count.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    AggregateType, Event,
    dispute::{DisputeEvent, Subject},
};
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_protocol::{
    DeviceId, DisputeId, EmployeeId, Position, PunchId, SiteId, Time,
    dispute::{About, Day, DisputeCause, DisputeState, Settlement},
};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use crate::engine::{
    Generation, Projection, ProjectionError,
    columns::{ids, parsed, time, time_or_none},
    page::Page,
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "disputes";

/// The model.
#[derive(Debug)]
pub struct Disputes;

impl Projection for Disputes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["disputes"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {table} (
                 -- Serves one dispute, and what became of it.
                 dispute     uuid primary key,
                 site        uuid not null,
                 employee    uuid not null,
                 -- One of the two is null.
                 punch       uuid,
                 day         text,
                 cause       text not null,
                 state       text not null,
                 opened_at   timestamptz not null,
                 -- Who opened it: a device, when a worker did so there.
                 opened_by   text,
                 answers     integer not null,
                 -- Null while it waits.
                 resolved_at timestamptz,
                 resolved_by text,
                 how         text,
                 by_punch    uuid,
                 -- How many events it has.
                 sequence    bigint not null,
                 -- Of its first event: the order of the list.
                 position    bigint not null
             )",
            table = generation.table("disputes"),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        let table = generation.table("disputes");
        let index = |what| generation.index("disputes", what);
        format!(
            "-- Serves all disputes in the order they were opened.
             create index if not exists {all} on {table} (position);
             -- Serves a site's.
             create index if not exists {site} on {table} (site, position);
             -- Serves a person's, and how many of theirs wait.
             create index if not exists {employee} on {table} (employee, position);
             -- Serves those in one state: few wait among many.
             create index if not exists {state} on {table} (state, position);
             -- Serves those about a punch.
             create index if not exists {punch} on {table} (punch, position)
                 where punch is not null;
             -- Serves how many that came from a device wait.
             create index if not exists {opener} on {table} (opened_by)
                 where state <> 'resolved';",
            all = index("position"),
            site = index("site"),
            employee = index("employee"),
            state = index("state"),
            punch = index("punch"),
            opener = index("opener"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let table = generation.table("disputes");
            let concerned =
                |entry: &&Arc<Entry>| entry.recorded.aggregate_type == AggregateType::Dispute;
            let (mut opened, mut changed) = (Vec::new(), BTreeMap::new());
            for entry in events.iter().filter(concerned) {
                let Event::Dispute(dispute, event) = entry.event()? else { continue };
                if let DisputeEvent::Opened { subject, .. } = event {
                    opened.push((*dispute, *subject, entry.as_ref()));
                }
                changed.entry(*dispute).or_insert_with(Changed::default).take(event, entry);
            }
            insert(tx, &table, &opened).await?;
            change(tx, &table, &changed).await
        })
    }
}

/// What a batch does to one dispute.
#[derive(Debug, Default)]
struct Changed {
    answers: i32,
    state: Option<DisputeState>,
    /// Whether how it is settled is known anew.
    settles: bool,
    resolved: Option<(Settlement, Option<PunchId>, Option<String>, Time)>,
    sequence: u64,
    position: Position,
}

impl Changed {
    fn take(&mut self, event: &DisputeEvent, entry: &Entry) {
        let recorded = &entry.recorded;
        (self.sequence, self.position) = (recorded.sequence, recorded.position);
        match event {
            DisputeEvent::Opened { .. } | DisputeEvent::EvidenceAdded { .. } => {}
            DisputeEvent::Answered { .. } => {
                self.answers += 1;
                self.state = Some(DisputeState::Answered);
            }
            DisputeEvent::Resolved { how, by_punch, .. } => {
                let by = recorded.actor().map(|actor| actor.to_string());
                (self.state, self.settles) = (Some(DisputeState::Resolved), true);
                self.resolved = Some((*how, *by_punch, by, recorded.recorded_at.into()));
            }
            DisputeEvent::Reopened { .. } => {
                (self.state, self.settles) = (Some(DisputeState::Reopened), true);
                self.resolved = None;
            }
        }
    }
}

async fn insert(
    tx: &mut PgConnection,
    table: &str,
    opened: &[(DisputeId, Subject, &Entry)],
) -> Result<(), ProjectionError> {
    if opened.is_empty() {
        return Ok(());
    }
    let column =
        |of: fn(&Subject) -> Uuid| opened.iter().map(|(_, s, _)| of(s)).collect::<Vec<_>>();
    let (ids, entries): (Vec<Uuid>, Vec<&Entry>) =
        opened.iter().map(|(dispute, _, entry)| (dispute.uuid(), *entry)).unzip();
    let punches: Vec<Option<Uuid>> =
        opened.iter().map(|(_, s, _)| s.about.punch().map(PunchId::uuid)).collect();
    let days: Vec<Option<String>> =
        opened.iter().map(|(_, s, _)| s.about.day().map(|day| day.to_string())).collect();
    let causes: Vec<&str> = opened.iter().map(|(_, s, _)| s.cause.as_str()).collect();
    let times: Vec<_> = entries.iter().map(|entry| entry.recorded.recorded_at.to_sqlx()).collect();
    let actors: Vec<Option<String>> =
        entries.iter().map(|entry| entry.recorded.actor().map(|actor| actor.to_string())).collect();
    let positions: Vec<i64> = entries.iter().map(|entry| entry.position().to_db()).collect();
    let statement = format!(
        "insert into {table} (dispute, site, employee, punch, day, cause, state, opened_at, \
             opened_by, answers, sequence, position) \
         select dispute, site, employee, punch, day, cause, 'open', opened_at, opened_by, 0, 1, \
             position \
         from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], \
             $7::timestamptz[], $8::text[], $9::bigint[]) \
         as new (dispute, site, employee, punch, day, cause, opened_at, opened_by, position)"
    );
    sqlx::query(&statement)
        .bind(ids)
        .bind(column(|subject| subject.site.uuid()))
        .bind(column(|subject| subject.employee.uuid()))
        .bind(punches)
        .bind(days)
        .bind(causes)
        .bind(times)
        .bind(actors)
        .bind(positions)
        .execute(tx)
        .await?;
    Ok(())
}

async fn change(
    tx: &mut PgConnection,
    table: &str,
    changed: &BTreeMap<DisputeId, Changed>,
) -> Result<(), ProjectionError> {
    let Some(last) = changed.values().map(|change| change.position).max() else { return Ok(()) };
    let ids: Vec<Uuid> = changed.keys().map(|dispute| dispute.uuid()).collect();
    let (mut answers, mut states, mut settles) = (vec![], vec![], vec![]);
    let (mut hows, mut punches, mut actors, mut times) = (vec![], vec![], vec![], vec![]);
    let mut sequences = vec![];
    for change in changed.values() {
        answers.push(change.answers);
        states.push(change.state.map(DisputeState::as_str));
        settles.push(change.settles);
        sequences.push(change.sequence.cast_signed());
        let resolved = change.resolved.as_ref();
        hows.push(resolved.map(|(how, ..)| how.as_str()));
        punches.push(resolved.and_then(|(_, punch, ..)| punch.map(PunchId::uuid)));
        actors.push(resolved.and_then(|(_, _, by, _)| by.clone()));
        times.push(resolved.map(|(.., at)| at.timestamp().to_sqlx()));
    }
    let statement = format!(
        "update {table} as held set answers = held.answers + now.answers, \
             state = coalesce(now.state, held.state), sequence = now.sequence, \
             how = case when now.settles then now.how else held.how end, \
             by_punch = case when now.settles then now.by_punch else held.by_punch end, \
             resolved_by = case when now.settles then now.resolved_by else held.resolved_by end, \
             resolved_at = case when now.settles then now.resolved_at else held.resolved_at end \
         from unnest($1::uuid[], $2::integer[], $3::text[], $4::boolean[], $5::bigint[], \
             $6::text[], $7::uuid[], $8::text[], $9::timestamptz[]) \
         as now (dispute, answers, state, settles, sequence, how, by_punch, resolved_by, \
             resolved_at) \
         where held.dispute = now.dispute"
    );
    let done = sqlx::query(&statement)
        .bind(&ids)
        .bind(answers)
        .bind(states)
        .bind(settles)
        .bind(sequences)
        .bind(hows)
        .bind(punches)
        .bind(actors)
        .bind(times)
        .execute(tx)
        .await?;
    if done.rows_affected() == ids.len() as u64 {
        return Ok(());
    }
    Err(ProjectionError::inconsistent(last, "a dispute that changes is not in the model"))
}

/// A dispute as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisputeView {
    pub dispute: DisputeId,
    pub site: SiteId,
    /// Whose hours it is about.
    pub employee: EmployeeId,
    // None until somebody who shows disputes to people looks it up.
    /// The person's name, if the directory has it.
    pub employee_name: Option<String>,
    /// The punch that it is about; null if it is about a day.
    pub punch: Option<PunchId>,
    /// The business day that it is about, `YYYY-MM-DD`; null if it is about a punch.
    pub day: Option<Day>,
    pub cause: DisputeCause,
    pub state: DisputeState,
    /// When it was opened, by the server's clock.
    pub opened_at: Time,
    /// Who opened it, as events name them: `device:…` when a worker did so there, `key:…` or
    /// `command_line`.
    pub opened_by: Option<String>,
    pub answers: u32,
    /// When it was settled; null while it waits.
    pub resolved_at: Option<Time>,
    /// Who settled it.
    pub resolved_by: Option<String>,
    pub how: Option<Settlement>,
    /// The punch that settles it, where another one does.
    pub by_punch: Option<PunchId>,
    /// How many events it has: what to expect when it is changed.
    pub sequence: u64,
    /// Position of its first event.
    pub position: Position,
}

impl DisputeView {
    /// What it is about.
    pub fn about(&self) -> Option<About> {
        self.punch.map(About::Punch).or(self.day.map(About::Day))
    }
}

/// A column that holds one of our codes, or null.
fn parsed_or_none<T>(row: &PgRow, column: &str) -> Result<Option<T>, sqlx::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match row.try_get::<Option<&str>, _>(column)? {
        Some(_) => parsed(row, column).map(Some),
        None => Ok(None),
    }
}

impl FromRow<'_, PgRow> for DisputeView {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            dispute: DisputeId(row.try_get("dispute")?),
            site: SiteId(row.try_get("site")?),
            employee: EmployeeId(row.try_get("employee")?),
            employee_name: None,
            punch: row.try_get::<Option<_>, _>("punch")?.map(PunchId),
            day: parsed_or_none(row, "day")?,
            cause: parsed(row, "cause")?,
            state: parsed(row, "state")?,
            opened_at: time(row, "opened_at")?,
            opened_by: row.try_get("opened_by")?,
            answers: row.try_get::<i32, _>("answers")?.cast_unsigned(),
            resolved_at: time_or_none(row, "resolved_at")?,
            resolved_by: row.try_get("resolved_by")?,
            how: parsed_or_none(row, "how")?,
            by_punch: row.try_get::<Option<_>, _>("by_punch")?.map(PunchId),
            sequence: row.try_get::<i64, _>("sequence")?.cast_unsigned(),
            position: Position::from_db(row.try_get("position")?),
        })
    }
}

/// Which disputes to list; what is none is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter<'a> {
    pub site: Option<SiteId>,
    /// Only those of these sites: of a caller who sees no others.
    pub within: Option<&'a [SiteId]>,
    pub state: Option<DisputeState>,
    pub employee: Option<EmployeeId>,
    pub cause: Option<DisputeCause>,
}

/// The disputes that `filter` asks for, in the order they were opened, after that position; at most
/// `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    filter: &Filter<'_>,
    after: Option<Position>,
    limit: u32,
) -> Result<Page<DisputeView>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("select * from read.disputes where true");
    if let Some(site) = filter.site {
        query.push(" and site = ").push_bind(site.uuid());
    }
    if let Some(sites) = filter.within {
        query.push(" and site = any(").push_bind(ids(sites)).push(")");
    }
    if let Some(state) = filter.state {
        query.push(" and state = ").push_bind(state.as_str());
    }
    if let Some(employee) = filter.employee {
        query.push(" and employee = ").push_bind(employee.uuid());
    }
    if let Some(cause) = filter.cause {
        query.push(" and cause = ").push_bind(cause.as_str());
    }
    if let Some(after) = after {
        query.push(" and position > ").push_bind(after.to_db());
    }
    query.push(" order by position limit ").push_bind(Page::<DisputeView>::to_ask(limit));
    let rows = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, limit))
}

/// One dispute; none if there is none of that id.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(pool: &Pool, dispute: DisputeId) -> Result<Option<DisputeView>, sqlx::Error> {
    sqlx::query_as("select * from read.disputes where dispute = $1")
        .bind(dispute.uuid())
        .fetch_optional(pool)
        .await
}

/// A person's disputes, the newest first; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_employee(
    pool: &Pool,
    employee: EmployeeId,
    limit: u32,
) -> Result<Vec<DisputeView>, sqlx::Error> {
    sqlx::query_as(
        "select * from read.disputes where employee = $1 order by position desc limit $2",
    )
    .bind(employee.uuid())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

/// A person's disputes, in the order they were opened after that position; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_employee_after(
    pool: &Pool,
    employee: EmployeeId,
    after: Position,
    limit: u32,
) -> Result<Vec<DisputeView>, sqlx::Error> {
    sqlx::query_as(
        "select * from read.disputes where employee = $1 and position > $2 \
         order by position limit $3",
    )
    .bind(employee.uuid())
    .bind(after.to_db())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

/// A person's disputes about a day or about these punches, in the order they were opened; at most
/// `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_day(
    pool: &Pool,
    employee: EmployeeId,
    day: Day,
    punches: &[PunchId],
    limit: u32,
) -> Result<Vec<DisputeView>, sqlx::Error> {
    sqlx::query_as(
        "select * from read.disputes where employee = $1 and (day = $2 or punch = any($3)) \
         order by position limit $4",
    )
    .bind(employee.uuid())
    .bind(day.to_string())
    .bind(punches.iter().map(|punch| punch.uuid()).collect::<Vec<_>>())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

/// The disputes about these punches, of each the first `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn about_punches(
    pool: &Pool,
    punches: &[PunchId],
    limit: u32,
) -> Result<Vec<DisputeId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "select held.dispute from unnest($1::uuid[]) as asked (punch) cross join lateral \
             (select dispute from read.disputes where punch = asked.punch \
              order by position limit $2) held",
    )
    .bind(punches.iter().map(|punch| punch.uuid()).collect::<Vec<_>>())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(DisputeId).collect())
}

/// How many disputes of a person wait, and how many that came from a device.
///
/// # Errors
/// When the database is out of reach.
pub async fn waiting(
    pool: &Pool,
    employee: EmployeeId,
    device: DeviceId,
) -> Result<(u64, u64), sqlx::Error> {
    let (of_person, of_device): (i64, i64) = sqlx::query_as(
        "select (select count(*) from read.disputes \
                 where employee = $1 and state <> 'resolved'), \
             (select count(*) from read.disputes where opened_by = $2 and state <> 'resolved')",
    )
    .bind(employee.uuid())
    .bind(punchtrail_domain::log::recorded::Actor::Device(device).to_string())
    .fetch_one(pool)
    .await?;
    Ok((of_person.cast_unsigned(), of_device.cast_unsigned()))
}
