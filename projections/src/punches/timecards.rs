//! What pairing punches into worked time needs, per person and in order of time.
//!
//! Pairing itself is done when a card is read ([`punchtrail_domain::timecard`]): a punch that comes
//! late, moves or goes then needs no card made anew, and a changed policy pairs all days at once.
//! Cards rest on this model and on `sites`; a reader who waits, waits for both ([`RESTS_ON`]).

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use punchtrail_domain::timecard::{CountedAs, Timecard, TimecardPunch, punches_needed, timecards};
use punchtrail_infra::{ledger::Entry, postgres::Pool, postgres::copy::Rows};
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, vocabulary::Standing};
use serde::Serialize;
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    engine::{
        Generation, Projection, ProjectionError,
        columns::{parsed, time},
        page::Page,
    },
    punches::batch::{self, ChangedPunches, NewPunch, Receipts},
    sites::PairingPolicies,
};

/// The model's name.
pub const NAME: &str = "timecards";
/// The models that a card rests on, for `Punchtrail-After`.
pub const RESTS_ON: [&str; 2] = [NAME, crate::sites::NAME];

/// The most business days one read may span.
pub const RANGE_DAYS_MAX: i32 = 92;
/// The most people on one page of a site's cards.
pub const PAGE_PEOPLE_MAX: u32 = 200;
/// The most punches one read pairs: 200 people, 92 days, ten punches a day.
const READ_PUNCHES_MAX: i64 = 184_000;

/// The model.
#[derive(Debug)]
pub struct Timecards;

impl Projection for Timecards {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["timecards", "timecards_people"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        // Room on each page, so that a judgement in a later batch writes no index.
        format!(
            "create table {punches} (
                 -- Serves every change of a punch.
                 punch        uuid primary key,
                 -- Null when only an unknown badge was read.
                 employee     uuid,
                 effective_at timestamptz not null,
                 -- When it truly was, as far as is known: by the device's clock less what that was
                 -- known to be ahead, and not after its receipt; of what a person amended the time
                 -- they found.
                 true_at      timestamptz not null,
                 kind         text not null,
                 standing     text not null,
                 site         uuid not null,
                 -- Zone of the wall clock the worker saw; null for an admitted punch.
                 tz           text
             ) with (fillfactor = 60);
             -- Who ever punched where.
             create table {people} (
                 site     uuid not null,
                 employee uuid not null,
                 -- Serves a site's cards, a page of people at a time.
                 primary key (site, employee)
             );",
            punches = generation.table("timecards"),
            people = generation.table("timecards_people"),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        format!(
            "-- Serves a person's punches of some days.
             create index if not exists {person} on {punches} (employee, effective_at, punch)
                 where employee is not null;
             -- Serves a person's latest punch, of whichever clock.
             create index if not exists {latest} on {punches} (employee, true_at)
                 where employee is not null;
             -- Serves the policies that a person's punches are paired by.
             create index if not exists {sites} on {people} (employee);",
            person = generation.index("timecards", "person"),
            latest = generation.index("timecards", "latest"),
            punches = generation.table("timecards"),
            sites = generation.index("timecards_people", "employee"),
            people = generation.table("timecards_people"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let batch = batch::fold_with_true_times(events).await?;
            let table = generation.table("timecards");
            insert(tx, &table, &batch.new).await?;
            insert_people(tx, &generation.table("timecards_people"), &batch.new).await?;
            receive(tx, &table, &batch.receipts).await?;
            change(tx, &table, &batch.changed).await
        })
    }
}

async fn insert(
    tx: &mut PgConnection,
    table: &str,
    new: &[NewPunch<'_>],
) -> Result<(), ProjectionError> {
    let mut rows = Rows::new(8);
    for punch in new {
        rows.row()
            .uuid(punch.punch.uuid())
            .uuid_or_null(punch.employee.map(EmployeeId::uuid))
            .timestamp_us(punch.effective_at.timestamp().as_microsecond())
            .timestamp_us(punch.true_at.timestamp().as_microsecond())
            .text(punch.kind.as_str())
            .text(punch.standing.as_str())
            .uuid(punch.site.uuid())
            .text_or_null(punch.zone);
    }
    let statement = format!(
        "copy {table} (punch, employee, effective_at, true_at, kind, standing, site, tz) \
             from stdin (format binary)"
    );
    Ok(rows.copy_into(tx, &statement).await?)
}

async fn insert_people(
    tx: &mut PgConnection,
    table: &str,
    new: &[NewPunch<'_>],
) -> Result<(), ProjectionError> {
    let pairs: HashSet<(Uuid, Uuid)> =
        new.iter().filter_map(|punch| Some((punch.site.uuid(), punch.employee?.uuid()))).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let (sites, people): (Vec<Uuid>, Vec<Uuid>) = pairs.into_iter().unzip();
    let statement = format!(
        "insert into {table} (site, employee) select * from unnest($1::uuid[], $2::uuid[]) \
         on conflict do nothing"
    );
    sqlx::query(&statement).bind(sites).bind(people).execute(tx).await?;
    Ok(())
}

/// What was known of a capture's clock follows the capture at once, before anybody can amend it.
async fn receive(
    tx: &mut PgConnection,
    table: &str,
    receipts: &Receipts,
) -> Result<(), ProjectionError> {
    if receipts.punches.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "update {table} as held set true_at = least(now.received_at, \
             held.effective_at - now.offset_ms * interval '1 millisecond') \
         from unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) \
         as now (punch, received_at, offset_ms) where held.punch = now.punch"
    );
    sqlx::query(&statement)
        .bind(&receipts.punches)
        .bind(&receipts.received_at)
        .bind(&receipts.offsets_ms)
        .execute(tx)
        .await?;
    Ok(())
}

async fn change(
    tx: &mut PgConnection,
    table: &str,
    changed: &ChangedPunches,
) -> Result<(), ProjectionError> {
    if changed.punches.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "update {table} as held set \
             employee = coalesce(now.employee, held.employee), \
             kind = coalesce(now.kind, held.kind), \
             effective_at = coalesce(now.effective_at, held.effective_at), \
             true_at = coalesce(now.true_at, held.true_at), \
             standing = coalesce(now.standing, held.standing) \
         from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], \
             $6::uuid[]) as now (punch, kind, effective_at, true_at, standing, employee) \
         where held.punch = now.punch"
    );
    let done = sqlx::query(&statement)
        .bind(&changed.punches)
        .bind(&changed.kinds)
        .bind(&changed.effective_at)
        .bind(&changed.true_at)
        .bind(&changed.standings)
        .bind(&changed.employees)
        .execute(tx)
        .await?;
    changed.check(done.rows_affected())
}

/// Why no cards could be made.
#[derive(Debug, thiserror::Error)]
pub enum TimecardsError {
    /// The days asked for are too many, or end before they start.
    #[error("the days must be in order and no more than {RANGE_DAYS_MAX}")]
    Range,
    /// The punches of those days are too many for one read.
    #[error("those days hold too many punches for one read; ask for fewer days or people")]
    TooMany,
    /// The database is out of reach.
    #[error("the database is out of reach")]
    Database(#[from] sqlx::Error),
}

/// A person's timecards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PersonTimecards {
    pub employee: EmployeeId,
    // None until somebody who shows cards to people looks it up.
    /// The name, if the directory has it.
    pub employee_name: Option<String>,
    /// A card for each business day with a punch, in order.
    pub cards: Vec<Timecard>,
}

/// A person's cards for the business days `first` to `last`, at whichever sites.
///
/// # Errors
/// See [`TimecardsError`].
pub async fn of_employee(
    pool: &Pool,
    employee: EmployeeId,
    first: Date,
    last: Date,
) -> Result<Vec<Timecard>, TimecardsError> {
    check(first, last)?;
    let made = make(pool, &[employee], first, last).await?;
    Ok(made.into_iter().flat_map(|person| person.cards).collect())
}

/// The cards of several people for the business days `first` to `last`, at whichever sites, in the
/// order given.
///
/// # Errors
/// See [`TimecardsError`].
pub(crate) async fn of_people(
    pool: &Pool,
    people: &[EmployeeId],
    first: Date,
    last: Date,
) -> Result<Vec<PersonTimecards>, TimecardsError> {
    check(first, last)?;
    make(pool, people, first, last).await
}

/// The cards of the people who punched at a site, for the business days `first` to `last`, in the
/// order of their ids after `after`; at most `limit` people, and never more than
/// [`PAGE_PEOPLE_MAX`]. Only cards with a punch at the site are given, each whole: with what the
/// person punched elsewhere that day. A person whose punches turn out to belong to other days has
/// none.
///
/// # Errors
/// See [`TimecardsError`].
pub async fn of_site(
    pool: &Pool,
    site: SiteId,
    first: Date,
    last: Date,
    after: Option<EmployeeId>,
    limit: u32,
) -> Result<Page<PersonTimecards>, TimecardsError> {
    check(first, last)?;
    let limit = limit.clamp(1, PAGE_PEOPLE_MAX);
    let policies = PairingPolicies::of(pool, &[site]).await?;
    let (from, to) = punches_needed(first, last, policies.get(site));
    let people: Vec<Uuid> = sqlx::query_scalar(
        "select person.employee from read.timecards_people person \
         where person.site = $1 and person.employee > $2 and exists ( \
             select from read.timecards punch where punch.employee = person.employee \
             and punch.site = $1 and punch.effective_at >= $3 and punch.effective_at < $4) \
         order by person.employee limit $5",
    )
    .bind(site.uuid())
    .bind(after.unwrap_or(EmployeeId::NIL).uuid())
    .bind(from.timestamp().to_sqlx())
    .bind(to.timestamp().to_sqlx())
    .bind(Page::<Uuid>::to_ask(limit))
    .fetch_all(pool)
    .await?;
    let Page { rows, more } = Page::cut(people, limit);
    let people: Vec<EmployeeId> = rows.into_iter().map(EmployeeId).collect();
    let mut made = make(pool, &people, first, last).await?;
    for person in &mut made {
        person.cards.retain(|card| touches(card, site));
    }
    Ok(Page { rows: made, more })
}

fn check(first: Date, last: Date) -> Result<(), TimecardsError> {
    let days = first.until(last).map(|span| span.get_days()).unwrap_or(i32::MAX);
    if (0..RANGE_DAYS_MAX).contains(&days) { Ok(()) } else { Err(TimecardsError::Range) }
}

fn touches(card: &Timecard, site: SiteId) -> bool {
    card.segments.iter().any(|segment| segment.from.site == site || segment.to.site == site)
        || card.unmatched.iter().any(|unmatched| unmatched.mark.site == site)
}

/// The cards of these people, who are given in order.
async fn make(
    pool: &Pool,
    people: &[EmployeeId],
    first: Date,
    last: Date,
) -> Result<Vec<PersonTimecards>, TimecardsError> {
    let ids: Vec<Uuid> = people.iter().map(|employee| employee.uuid()).collect();
    let policies = policies_of(pool, &ids).await?;
    let needed = policies.all().map(|policy| punches_needed(first, last, policy));
    let window = needed
        .reduce(|(from, to), (other_from, other_to)| (from.min(other_from), to.max(other_to)));
    let punches = match window {
        Some((from, to)) => read(pool, &ids, from, to, &policies).await?,
        None => BTreeMap::new(),
    };
    let cards = |employee: &EmployeeId| {
        let mut cards = punches
            .get(employee)
            .map(|punches| timecards(punches, |site| policies.get(site)))
            .unwrap_or_default();
        cards.retain(|card| (first..=last).contains(&card.day));
        PersonTimecards { employee: *employee, employee_name: None, cards }
    };
    Ok(people.iter().map(cards).collect())
}

/// The policies of all sites where one of these people punched.
pub(super) async fn policies_of(
    pool: &Pool,
    people: &[Uuid],
) -> Result<PairingPolicies, sqlx::Error> {
    let sites: Vec<Uuid> = sqlx::query_scalar(
        "select distinct site from read.timecards_people where employee = any($1)",
    )
    .bind(people)
    .fetch_all(pool)
    .await?;
    let sites: Vec<SiteId> = sites.into_iter().map(SiteId).collect();
    PairingPolicies::of(pool, &sites).await
}

/// The punches of these people that count, from then until then.
pub(super) async fn read(
    pool: &Pool,
    people: &[Uuid],
    from: Time,
    to: Time,
    policies: &PairingPolicies,
) -> Result<BTreeMap<EmployeeId, Vec<TimecardPunch>>, TimecardsError> {
    let rows: Vec<PgRow> = sqlx::query(
        "select employee, punch, effective_at, kind, standing, site, tz from read.timecards \
         where employee = any($1) and effective_at >= $2 and effective_at < $3 \
         and standing not in ('rejected', 'voided') limit $4",
    )
    .bind(people)
    .bind(from.timestamp().to_sqlx())
    .bind(to.timestamp().to_sqlx())
    .bind(READ_PUNCHES_MAX + 1)
    .fetch_all(pool)
    .await?;
    if rows.len() as i64 > READ_PUNCHES_MAX {
        return Err(TimecardsError::TooMany);
    }
    let mut punches: BTreeMap<EmployeeId, Vec<TimecardPunch>> = BTreeMap::new();
    for row in &rows {
        let employee = EmployeeId(row.try_get("employee")?);
        punches.entry(employee).or_default().push(timecard_punch(row, policies)?);
    }
    Ok(punches)
}

fn timecard_punch(row: &PgRow, policies: &PairingPolicies) -> Result<TimecardPunch, sqlx::Error> {
    let site = SiteId(row.try_get("site")?);
    let tz: Option<String> = row.try_get("tz")?;
    Ok(TimecardPunch {
        punch: PunchId(row.try_get("punch")?),
        kind: parsed(row, "kind")?,
        effective_at: time(row, "effective_at")?,
        standing: match parsed(row, "standing")? {
            Standing::Accepted => CountedAs::Accepted,
            _ => CountedAs::Provisional,
        },
        site,
        tz: tz.unwrap_or_else(|| policies.zone(site).to_owned()),
    })
}
