//! The punches that wait for a person's ruling, and how many wait for which reason. A punch that is
//! ruled on leaves, and so does one whose doubts were taken back; so the model stays small, however
//! many punches there are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::future::BoxFuture;
use jiff_sqlx::{Timestamp, ToSqlx};
use punchtrail_domain::{AggregateType, Event, punch::PunchEvent};
use punchtrail_infra::{
    ledger::{Entry, give_way},
    postgres::Pool,
};
use punchtrail_protocol::{EmployeeId, Position, PunchId, SiteId, Time, vocabulary::Reason};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use super::{as_of, unknown};
use crate::engine::{
    Generation, Projection, ProjectionError,
    columns::{ids, time, time_or_none},
    page::Page,
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "reviews";
/// The length of a place in the list as bytes: a time and an id.
pub const PLACE_BYTES: usize = 8 + 16;

/// The events that bring a punch in, change it here or take it out.
const CONCERNING: [&str; 8] = [
    "ReferredForReview",
    "ReviewEscalated",
    "Accepted",
    "Rejected",
    "Voided",
    "ReferralLifted",
    "Identified",
    "Reassigned",
];

/// The model.
#[derive(Debug)]
pub struct Reviews;

impl Projection for Reviews {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["reviews", "review_reasons", "review_counts", unknown::TABLES[0], unknown::TABLES[1]]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {reviews} (
                 -- Serves one punch, and every change of it.
                 punch        uuid primary key,
                 site         uuid not null,
                 employee     uuid,
                 reasons      text[] not null,
                 referred_at  timestamptz not null,
                 escalated_at timestamptz
             );
             -- One for each reason of each punch.
             create table {reasons} (
                 reason      text not null,
                 punch       uuid not null,
                 site        uuid not null,
                 referred_at timestamptz not null,
                 -- Serves taking a punch out.
                 primary key (punch, reason)
             );
             -- How many wait for each reason; under the empty one, how many in all.
             create table {counts} (
                 site   uuid not null,
                 reason text not null,
                 open   bigint not null,
                 -- Serves a site's, and all.
                 primary key (site, reason)
             );
             {unknown}",
            unknown = unknown::create_sql(generation),
            reviews = generation.table("reviews"),
            reasons = generation.table("review_reasons"),
            counts = generation.table("review_counts"),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        let (reviews, reasons) = (generation.table("reviews"), generation.table("review_reasons"));
        let index = |what| generation.index("reviews", what);
        format!(
            "-- Serves all, the oldest first.
             create index if not exists {all} on {reviews} (referred_at, punch);
             -- Serves a site's, and those of it whose time is over.
             create index if not exists {site} on {reviews} (site, referred_at, punch);
             -- Serves a person's.
             create index if not exists {person} on {reviews} (employee, referred_at, punch)
                 where employee is not null;
             -- Serves those for one reason.
             create index if not exists {reason} on {reasons} (reason, referred_at, punch);
             -- Serves a site's for one reason.
             create index if not exists {site_reason}
                 on {reasons} (site, reason, referred_at, punch);
             {unknown}",
            unknown = unknown::index_sql(generation),
            all = index("all"),
            site = index("site"),
            person = index("person"),
            reason = generation.index("review_reasons", "reason"),
            site_reason = generation.index("review_reasons", "site"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            unknown::apply(tx, generation, events).await?;
            let changes = fold(events).await?;
            let Some(through) = events.last().map(|entry| entry.position()) else { return Ok(()) };
            if changes.is_empty() {
                return Ok(());
            }
            let before = held(tx, &generation.table("reviews"), changes.keys()).await?;
            let after = after(tx, &before, changes, through).await?;
            write(tx, generation, &before, &after).await
        })
    }
}

/// What a batch does to a punch here.
#[derive(Debug, Default)]
struct Change {
    /// Whether what was there before the batch is ruled on.
    ruled: bool,
    /// Why it is referred since, and when it was first.
    referred: Option<(BTreeSet<Reason>, Timestamp)>,
    escalated: Option<Timestamp>,
    /// Who was found to have made it.
    found: Option<EmployeeId>,
}

async fn fold(events: &[Arc<Entry>]) -> Result<BTreeMap<PunchId, Change>, ProjectionError> {
    let mut changes: BTreeMap<PunchId, Change> = BTreeMap::new();
    for (index, entry) in events.iter().enumerate() {
        give_way(index).await;
        let recorded = &entry.recorded;
        let concerns = recorded.aggregate_type == AggregateType::Punch
            && CONCERNING.contains(&recorded.event_type.as_str());
        if !concerns {
            continue;
        }
        let Event::Punch(punch, event) = entry.event()? else { continue };
        let at = recorded.recorded_at.to_sqlx();
        match event {
            PunchEvent::ReferredForReview { reasons } => {
                let change = changes.entry(*punch).or_default();
                change.referred.get_or_insert((BTreeSet::new(), at)).0.extend(reasons);
            }
            PunchEvent::ReviewEscalated { .. } => {
                changes.entry(*punch).or_default().escalated = Some(at);
            }
            PunchEvent::Identified { employee, .. } | PunchEvent::Reassigned { employee, .. } => {
                changes.entry(*punch).or_default().found = Some(*employee);
            }
            // As two in three events are, of a punch that was never referred.
            PunchEvent::Accepted { .. } if recorded.sequence <= 3 => {}
            _ => {
                let found = changes.get(punch).and_then(|change| change.found);
                changes.insert(*punch, Change { ruled: true, found, ..Change::default() });
            }
        }
    }
    Ok(changes)
}

/// A punch that waits, as a row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    site: SiteId,
    employee: Option<EmployeeId>,
    reasons: BTreeSet<Reason>,
    referred_at: Timestamp,
    escalated_at: Option<Timestamp>,
}

async fn held(
    tx: &mut PgConnection,
    table: &str,
    punches: impl Iterator<Item = &PunchId>,
) -> Result<BTreeMap<PunchId, Waiting>, sqlx::Error> {
    let ids: Vec<Uuid> = punches.map(|punch| punch.uuid()).collect();
    let statement = format!("select * from {table} where punch = any($1)");
    sqlx::query(&statement)
        .bind(ids)
        .try_map(|row: PgRow| {
            let waiting = Waiting {
                site: SiteId(row.try_get("site")?),
                employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
                reasons: reasons(&row)?.into_iter().collect(),
                referred_at: row.try_get("referred_at")?,
                escalated_at: row.try_get("escalated_at")?,
            };
            Ok((PunchId(row.try_get("punch")?), waiting))
        })
        .fetch_all(tx)
        .await
        .map(|rows| rows.into_iter().collect())
}

fn reasons(row: &PgRow) -> Result<Vec<Reason>, sqlx::Error> {
    let codes: Vec<String> = row.try_get("reasons")?;
    let read = |code: String| code.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)));
    codes.into_iter().map(read).collect()
}

/// What waits after the batch, of those that it changes. Where a punch was made and by whom, its
/// events say up to there.
async fn after(
    tx: &mut PgConnection,
    before: &BTreeMap<PunchId, Waiting>,
    changes: BTreeMap<PunchId, Change>,
    through: Position,
) -> Result<BTreeMap<PunchId, Waiting>, ProjectionError> {
    let unknown: Vec<PunchId> = changes
        .iter()
        .filter(|(punch, change)| change.referred.is_some() && !before.contains_key(punch))
        .map(|(punch, _)| *punch)
        .collect();
    let punches = as_of(tx, &unknown, through).await?;
    let mut after = BTreeMap::new();
    for (punch, Change { ruled, referred, escalated, found }) in changes {
        let known = before.get(&punch).filter(|_| !ruled).cloned();
        let mut waiting = match (known, referred) {
            (Some(mut waiting), referred) => {
                waiting.reasons.extend(referred.into_iter().flat_map(|(reasons, _)| reasons));
                waiting.escalated_at = waiting.escalated_at.or(escalated);
                waiting
            }
            (None, Some((reasons, referred_at))) => {
                let made = before.get(&punch).map(|waiting| (waiting.site, waiting.employee));
                let stood = punches.get(&punch);
                let made = made.or_else(|| stood.and_then(|it| Some((it.site()?, it.employee()))));
                let Some((site, employee)) = made else { continue };
                Waiting { site, employee, reasons, referred_at, escalated_at: escalated }
            }
            (None, None) => continue,
        };
        waiting.employee = found.or(waiting.employee);
        after.insert(punch, waiting);
    }
    Ok(after)
}

async fn write(
    tx: &mut PgConnection,
    generation: &Generation,
    before: &BTreeMap<PunchId, Waiting>,
    after: &BTreeMap<PunchId, Waiting>,
) -> Result<(), ProjectionError> {
    let gone: Vec<Uuid> = before.keys().map(|punch| punch.uuid()).collect();
    for table in ["reviews", "review_reasons"] {
        let statement = format!("delete from {} where punch = any($1)", generation.table(table));
        sqlx::query(&statement).bind(&gone).execute(&mut *tx).await?;
    }
    insert(tx, &generation.table("reviews"), after).await?;
    insert_reasons(tx, &generation.table("review_reasons"), after).await?;
    count(tx, &generation.table("review_counts"), before, after).await
}

async fn insert(
    tx: &mut PgConnection,
    table: &str,
    rows: &BTreeMap<PunchId, Waiting>,
) -> Result<(), ProjectionError> {
    let statement = format!(
        "insert into {table} (punch, site, employee, reasons, referred_at, escalated_at) \
         select punch, site, employee, string_to_array(reasons, ','), referred_at, escalated_at \
         from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], \
             $6::timestamptz[]) \
         as new (punch, site, employee, reasons, referred_at, escalated_at)"
    );
    let codes = |waiting: &Waiting| {
        waiting.reasons.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(",")
    };
    sqlx::query(&statement)
        .bind(rows.keys().map(|punch| punch.uuid()).collect::<Vec<_>>())
        .bind(rows.values().map(|row| row.site.uuid()).collect::<Vec<_>>())
        .bind(rows.values().map(|row| row.employee.map(EmployeeId::uuid)).collect::<Vec<_>>())
        .bind(rows.values().map(codes).collect::<Vec<_>>())
        .bind(rows.values().map(|row| row.referred_at).collect::<Vec<_>>())
        .bind(rows.values().map(|row| row.escalated_at).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

async fn insert_reasons(
    tx: &mut PgConnection,
    table: &str,
    rows: &BTreeMap<PunchId, Waiting>,
) -> Result<(), ProjectionError> {
    let (mut reasons, mut punches, mut sites, mut times) = (vec![], vec![], vec![], vec![]);
    for (punch, waiting) in rows {
        for reason in &waiting.reasons {
            reasons.push(reason.as_str());
            punches.push(punch.uuid());
            sites.push(waiting.site.uuid());
            times.push(waiting.referred_at);
        }
    }
    let statement = format!(
        "insert into {table} (reason, punch, site, referred_at) select * from \
         unnest($1::text[], $2::uuid[], $3::uuid[], $4::timestamptz[])"
    );
    sqlx::query(&statement).bind(reasons).bind(punches).bind(sites).bind(times).execute(tx).await?;
    Ok(())
}

async fn count(
    tx: &mut PgConnection,
    table: &str,
    before: &BTreeMap<PunchId, Waiting>,
    after: &BTreeMap<PunchId, Waiting>,
) -> Result<(), ProjectionError> {
    let mut changed: BTreeMap<(SiteId, &str), i64> = BTreeMap::new();
    for (rows, by) in [(before, -1), (after, 1)] {
        for waiting in rows.values() {
            *changed.entry((waiting.site, "")).or_default() += by;
            for reason in &waiting.reasons {
                *changed.entry((waiting.site, reason.as_str())).or_default() += by;
            }
        }
    }
    changed.retain(|_, by| *by != 0);
    let statement = format!(
        "insert into {table} as held (site, reason, open) select * from \
         unnest($1::uuid[], $2::text[], $3::bigint[]) \
         on conflict (site, reason) do update set open = held.open + excluded.open"
    );
    let (keys, by): (Vec<_>, Vec<i64>) = changed.into_iter().unzip();
    let (sites, reasons): (Vec<Uuid>, Vec<&str>) =
        keys.into_iter().map(|(site, reason)| (site.uuid(), reason)).unzip();
    sqlx::query(&statement).bind(sites).bind(reasons).bind(by).execute(&mut *tx).await?;
    let statement = format!("delete from {table} where open = 0");
    sqlx::query(&statement).execute(tx).await?;
    Ok(())
}

/// A punch that waits for a ruling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    pub punch: PunchId,
    pub site: SiteId,
    pub employee: Option<EmployeeId>,
    pub reasons: Vec<Reason>,
    /// When it was first referred since it was last ruled on, by the server's clock.
    pub referred_at: Time,
    /// The same to the microsecond, by which the list is ordered.
    referred_us: i64,
    /// When it was escalated, if it was.
    pub escalated_at: Option<Time>,
    /// The punch's newest sequence, as the ledger has it now.
    pub sequence: u64,
}

impl FromRow<'_, PgRow> for Review {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            punch: PunchId(row.try_get("punch")?),
            site: SiteId(row.try_get("site")?),
            employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
            reasons: reasons(row)?,
            referred_at: time(row, "referred_at")?,
            referred_us: row.try_get::<Timestamp, _>("referred_at")?.to_jiff().as_microsecond(),
            escalated_at: time_or_none(row, "escalated_at")?,
            sequence: row.try_get::<i64, _>("sequence")?.cast_unsigned(),
        })
    }
}

/// Which reviews; what is none is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter<'a> {
    pub site: Option<SiteId>,
    /// Only those of these sites: of a caller who sees no others.
    pub within: Option<&'a [SiteId]>,
    pub employee: Option<EmployeeId>,
    pub reason: Option<Reason>,
    /// Only those referred before then.
    pub before: Option<Time>,
    /// Only those that were escalated, or only those that weren't.
    pub escalated: Option<bool>,
}

impl Review {
    /// Its place in the list, for a cursor: microseconds since 1970, then the punch's id.
    pub fn place(&self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes[..8].copy_from_slice(&self.referred_us.to_be_bytes());
        bytes[8..].copy_from_slice(self.punch.0.as_bytes());
        bytes
    }
}

/// The microseconds and the id of what [`Review::place`] made.
fn place(bytes: [u8; PLACE_BYTES]) -> (i64, Uuid) {
    let (mut at, mut punch) = ([0; 8], [0; 16]);
    at.copy_from_slice(&bytes[..8]);
    punch.copy_from_slice(&bytes[8..]);
    (i64::from_be_bytes(at), Uuid::from_bytes(punch))
}

/// The newest sequence of a punch's stream, in the ledger.
const SEQUENCE: &str = "(select max(sequence) from events where aggregate_type = 'punch' \
     and aggregate_id = r.punch::text) as sequence";

/// The reviews that `filter` asks for, the oldest first, after `after`; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    filter: &Filter<'_>,
    after: Option<[u8; PLACE_BYTES]>,
    limit: u32,
) -> Result<Page<Review>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("select r.*, ");
    query.push(SEQUENCE).push(match filter.reason {
        Some(_) => " from read.review_reasons k join read.reviews r using (punch) where true",
        None => " from read.reviews r where true",
    });
    // Of the table whose index has the order.
    let ordered = if filter.reason.is_some() { "k" } else { "r" };
    if let Some(reason) = filter.reason {
        query.push(" and k.reason = ").push_bind(reason.as_str());
    }
    if let Some(site) = filter.site {
        query.push(format!(" and {ordered}.site = ")).push_bind(site.uuid());
    }
    if let Some(sites) = filter.within {
        query.push(format!(" and {ordered}.site = any(")).push_bind(ids(sites)).push(")");
    }
    if let Some(employee) = filter.employee {
        query.push(" and r.employee = ").push_bind(employee.uuid());
    }
    if let Some(before) = filter.before {
        query.push(format!(" and {ordered}.referred_at < "));
        query.push_bind(before.timestamp().to_sqlx());
    }
    match filter.escalated {
        Some(true) => drop(query.push(" and r.escalated_at is not null")),
        Some(false) => drop(query.push(" and r.escalated_at is null")),
        None => {}
    }
    if let Some((micros, punch)) = after.map(place) {
        query.push(format!(" and ({ordered}.referred_at, {ordered}.punch) > ("));
        query.push("timestamptz 'epoch' + interval '1 microsecond' * ").push_bind(micros);
        query.push(", ").push_bind(punch).push(")");
    }
    query.push(format!(" order by {ordered}.referred_at, {ordered}.punch limit "));
    query.push_bind(Page::<Review>::to_ask(limit));
    let rows = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, limit))
}

/// The review of a punch; none if it doesn't wait for one.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(pool: &Pool, punch: PunchId) -> Result<Option<Review>, sqlx::Error> {
    let statement = format!("select r.*, {SEQUENCE} from read.reviews r where r.punch = $1");
    sqlx::query_as(&statement).bind(punch.uuid()).fetch_optional(pool).await
}

/// How many wait.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    pub open: u64,
    /// A punch that waits for two reasons is in both.
    pub by_reason: BTreeMap<Reason, u64>,
}

/// How many wait, at these sites or everywhere.
///
/// # Errors
/// When the database is out of reach.
pub async fn counts(pool: &Pool, sites: Option<&[SiteId]>) -> Result<Counts, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select reason, sum(open)::bigint from read.review_counts \
         where $1::uuid[] is null or site = any($1) group by reason",
    )
    .bind(sites.map(ids))
    .fetch_all(pool)
    .await?;
    let counts: HashMap<String, i64> = rows.into_iter().collect();
    let open = counts.get("").copied().unwrap_or_default().cast_unsigned();
    let of = |(reason, open): (&String, &i64)| Some((reason.parse().ok()?, open.cast_unsigned()));
    Ok(Counts { open, by_reason: counts.iter().filter_map(of).collect() })
}
