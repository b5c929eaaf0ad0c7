//! What pairing punches into worked time needs, per person and in order of time.
//!
//! Pairing itself is done when a card is read ([`punchtrail_domain::timecard`]): a punch that comes
//! late, moves or goes then needs no card made anew. The same punches give the same cards, since a
//! site's rules hold from a day on. Cards rest on this model and on `sites`; a reader who waits,
//! waits for both ([`RESTS_ON`]).
//!
//! Punches are kept by true time, as far as their clocks are known. One that may be somebody else's
//! (its badge had another holder) is on nobody's card until that is ruled on.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use jiff::civil::Date;
use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    punch::CLOCK_NOISE_MS,
    timecard::{
        CountedAs, JOINED_SHIFT_MAX_MS, Timecard, TimecardPunch, punches_needed, timecards,
        true_time,
    },
};
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
    punches::batch::{self, ChangedPunches, NewPunch, Receipts, Takes},
    sites::PairingRules,
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
        3
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
                 captured_at  timestamptz not null,
                 effective_at timestamptz not null,
                 -- When it truly was, as far as its clock is known: the time it is paired by.
                 paired_at    timestamptz not null,
                 -- The same, and not after its receipt, or of what a person amended not after they
                 -- said so: the time that tells which was the last, whatever the clocks showed.
                 true_at      timestamptz not null,
                 -- How far the clock it was captured by led, in milliseconds; null where nothing
                 -- is known of it, 0 where a person said when it was.
                 lead_ms      bigint,
                 kind         text not null,
                 standing     text not null,
                 site         uuid not null,
                 -- Zone of the wall clock the worker saw; null where a person said when it was.
                 tz           text,
                 -- Whether a person added it.
                 entered      boolean not null,
                 -- The `out` that it was joined with to one shift.
                 joined       uuid,
                 -- How many doubts say that somebody else held the badge.
                 other_holders bigint not null
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
            "-- Serves a person's punches of some days, and the latest one.
             create index if not exists {person} on {punches} (employee, paired_at, punch)
                 where employee is not null;
             -- Serves a person's latest punch, of whichever clock.
             create index if not exists {latest} on {punches} (employee, true_at)
                 where employee is not null;
             -- Serves the question whether a person has a joined shift: few have.
             create index if not exists {joined} on {punches} (employee)
                 where joined is not null;
             -- Serves the policies that a person's punches are paired by.
             create index if not exists {sites} on {people} (employee);",
            person = generation.index("timecards", "person"),
            latest = generation.index("timecards", "latest"),
            joined = generation.index("timecards", "joined"),
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
            let batch = batch::fold(events, Takes::Pairings).await?;
            let (table, people) =
                (generation.table("timecards"), generation.table("timecards_people"));
            insert(tx, &table, &batch.new).await?;
            insert_people(tx, &people, &batch.new).await?;
            receive(tx, &table, &batch.receipts).await?;
            change(tx, &table, &batch.changed).await?;
            insert_found(tx, &table, &people, &batch.changed).await
        })
    }
}

async fn insert(
    tx: &mut PgConnection,
    table: &str,
    new: &[NewPunch<'_>],
) -> Result<(), ProjectionError> {
    let mut rows = Rows::new(14);
    for punch in new {
        let shown = punch.effective_at == punch.captured_at;
        let lead_ms = if shown { punch.lead_ms } else { None };
        let paired_at = true_time(punch.effective_at, lead_ms);
        rows.row()
            .uuid(punch.punch.uuid())
            .uuid_or_null(punch.employee.map(EmployeeId::uuid))
            .timestamp_us(punch.captured_at.timestamp().as_microsecond())
            .timestamp_us(punch.effective_at.timestamp().as_microsecond())
            .timestamp_us(paired_at.timestamp().as_microsecond())
            .timestamp_us(punch.true_at.timestamp().as_microsecond())
            .bigint_or_null(punch.lead_ms)
            .text(punch.kind.as_str())
            .text(punch.standing.as_str())
            .uuid(punch.site.uuid())
            .text_or_null(punch.zone)
            .boolean(punch.device.is_none())
            .uuid_or_null(punch.joined.map(PunchId::uuid))
            .bigint(punch.other_holders);
    }
    let statement = format!(
        "copy {table} (punch, employee, captured_at, effective_at, paired_at, true_at, lead_ms, \
             kind, standing, site, tz, entered, joined, other_holders) from stdin (format binary)"
    );
    Ok(rows.copy_into(tx, &statement).await?)
}

async fn insert_people(
    tx: &mut PgConnection,
    table: &str,
    new: &[NewPunch<'_>],
) -> Result<(), ProjectionError> {
    let of = |punch: &NewPunch<'_>| {
        let site = punch.site.uuid();
        punch.employees.iter().map(move |employee| (site, employee.uuid())).collect::<Vec<_>>()
    };
    let pairs: HashSet<(Uuid, Uuid)> = new.iter().flat_map(of).collect();
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
        "update {table} as held set lead_ms = now.lead_ms, \
             true_at = least(now.received_at, {by_clock}), paired_at = {by_lead} \
         from unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) \
         as now (punch, received_at, lead_ms) where held.punch = now.punch",
        by_clock = earlier("coalesce(now.lead_ms, 0)"),
        by_lead = earlier(&whole_lead("now.lead_ms")),
    );
    sqlx::query(&statement)
        .bind(&receipts.punches)
        .bind(&receipts.received_at)
        .bind(&receipts.leads_ms)
        .execute(tx)
        .await?;
    Ok(())
}

/// What a clock must have led by for [`true_time`], as SQL.
fn whole_lead(lead_ms: &str) -> String {
    format!(
        "(case when coalesce({lead_ms}, 0) between -{CLOCK_NOISE_MS} and {CLOCK_NOISE_MS} then 0 \
         else ({lead_ms} + sign({lead_ms})::bigint * 500) / 1000 * 1000 end)"
    )
}

/// When a punch was captured, by so many milliseconds earlier, within the times that there are.
fn earlier(by_ms: &str) -> String {
    let (first_ms, last_ms) = (Time::FIRST.millis(), Time::LAST.millis());
    format!(
        "(case when extract(epoch from held.captured_at) * 1000 - {by_ms} < {first_ms} \
             then timestamptz '0001-01-01 00:00:00+00 BC' \
         when extract(epoch from held.captured_at) * 1000 - {by_ms} > {last_ms} \
             then timestamptz '9999-12-30 22:00:00.999+00' \
         else held.captured_at - {by_ms} / 1000 * interval '1 second' \
             - {by_ms} % 1000 * interval '1 millisecond' end)"
    )
}

async fn change(
    tx: &mut PgConnection,
    table: &str,
    changed: &ChangedPunches,
) -> Result<(), ProjectionError> {
    if changed.punches.is_empty() {
        return Ok(());
    }
    // A time that a person gave is true; what the clock showed is put right by what is known of it.
    let statement = format!(
        "update {table} as held set \
             employee = coalesce(now.employee, held.employee), \
             kind = coalesce(now.kind, held.kind), \
             effective_at = coalesce(now.effective_at, held.effective_at), \
             paired_at = case when now.effective_at is null then held.paired_at \
                 when now.effective_at <> held.captured_at then now.effective_at \
                 else {by_lead} end, \
             true_at = coalesce(now.true_at, held.true_at), \
             standing = coalesce(now.standing, held.standing), \
             joined = case when now.joined_changed then now.joined else held.joined end, \
             other_holders = held.other_holders + now.other_holders \
         from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], \
             $6::uuid[], $7::uuid[], $8::bool[], $9::bigint[]) as now (punch, kind, \
             effective_at, true_at, standing, employee, joined, joined_changed, other_holders) \
         where held.punch = now.punch",
        by_lead = earlier(&whole_lead("held.lead_ms")),
    );
    let done = sqlx::query(&statement)
        .bind(&changed.punches)
        .bind(&changed.kinds)
        .bind(&changed.effective_at)
        .bind(&changed.true_at)
        .bind(&changed.standings)
        .bind(&changed.employees)
        .bind(&changed.joined)
        .bind(&changed.joined_changed)
        .bind(&changed.other_holders)
        .execute(tx)
        .await?;
    changed.check(done.rows_affected())
}

/// Whoever is found to have made a punch is one who punched there.
async fn insert_found(
    tx: &mut PgConnection,
    table: &str,
    people: &str,
    changed: &ChangedPunches,
) -> Result<(), ProjectionError> {
    if changed.found.is_empty() {
        return Ok(());
    }
    let (punches, employees): (Vec<Uuid>, Vec<Uuid>) = changed.found.iter().copied().unzip();
    let statement = format!(
        "insert into {people} (site, employee) select held.site, found.employee \
         from unnest($1::uuid[], $2::uuid[]) as found (punch, employee) \
         join {table} held using (punch) on conflict do nothing"
    );
    sqlx::query(&statement).bind(punches).bind(employees).execute(tx).await?;
    Ok(())
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
    let rules = PairingRules::of(pool, &[site]).await?;
    let (from, to) = punches_needed(first, last, rules.get(site));
    let people: Vec<Uuid> = sqlx::query_scalar(
        "select person.employee from read.timecards_people person \
         where person.site = $1 and person.employee > $2 and exists ( \
             select from read.timecards punch where punch.employee = person.employee \
             and punch.site = $1 and punch.paired_at >= $3 and punch.paired_at < $4) \
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
    let pairing = Pairing::of(pool, &ids).await?;
    let punches = match pairing.window(first, last) {
        Some((from, to)) => read(pool, &ids, from, to, &pairing.rules).await?,
        None => BTreeMap::new(),
    };
    let cards = |employee: &EmployeeId| {
        let mut cards = punches
            .get(employee)
            .map(|punches| timecards(punches, |site| pairing.rules.get(site)))
            .unwrap_or_default();
        cards.retain(|card| (first..=last).contains(&card.day));
        PersonTimecards { employee: *employee, employee_name: None, cards }
    };
    Ok(people.iter().map(cards).collect())
}

/// How some people's punches are paired.
#[derive(Debug, Clone)]
pub(crate) struct Pairing {
    /// Of all sites where one of them punched.
    pub rules: PairingRules,
    /// Whether one of them has a joined shift, which reaches further than others.
    pub joined: bool,
}

impl Pairing {
    pub(crate) async fn of(pool: &Pool, people: &[Uuid]) -> Result<Self, sqlx::Error> {
        let rows: Vec<(Uuid, bool)> = sqlx::query_as(
            "select distinct site, (select exists (select from read.timecards \
                 where employee = any($1) and joined is not null)) \
             from read.timecards_people where employee = any($1)",
        )
        .bind(people)
        .fetch_all(pool)
        .await?;
        let joined = rows.iter().any(|(_, joined)| *joined);
        let sites: Vec<SiteId> = rows.into_iter().map(|(site, _)| SiteId(site)).collect();
        Ok(Self { rules: PairingRules::of(pool, &sites).await?, joined })
    }

    /// With those of sites where none of them may have punched yet.
    pub(super) async fn with_sites(
        mut self,
        pool: &Pool,
        sites: impl Iterator<Item = SiteId>,
    ) -> Result<Self, sqlx::Error> {
        let missing: Vec<SiteId> = sites.filter(|site| !self.rules.has(*site)).collect();
        if !missing.is_empty() {
            let found = PairingRules::of(pool, &missing).await?;
            for site in missing {
                self.rules = self.rules.with(site, found.get(site).clone());
            }
        }
        Ok(self)
    }

    /// By how much more a joined shift may reach.
    pub(crate) const fn more_ms(&self) -> i64 {
        if self.joined { JOINED_SHIFT_MAX_MS } else { 0 }
    }

    /// From when to when punches are needed for cards of these days; none if nobody ever punched.
    pub(crate) fn window(&self, first: Date, last: Date) -> Option<(Time, Time)> {
        let needed = self.rules.all().map(|rules| punches_needed(first, last, rules));
        let (from, to) = needed.reduce(|(from, to), (other_from, other_to)| {
            (from.min(other_from), to.max(other_to))
        })?;
        Some((from.plus_millis(-self.more_ms()), to.plus_millis(self.more_ms())))
    }
}

const COLUMNS: &str = "employee, punch, effective_at, kind, standing, site, tz, entered, joined, \
     case when effective_at = captured_at then lead_ms else 0 end as lead_ms";

/// The punches of these people that count, from then until then by true time.
pub(crate) async fn read(
    pool: &Pool,
    people: &[Uuid],
    from: Time,
    to: Time,
    rules: &PairingRules,
) -> Result<BTreeMap<EmployeeId, Vec<TimecardPunch>>, TimecardsError> {
    let statement = format!(
        "select {COLUMNS} from read.timecards \
         where employee = any($1) and paired_at >= $2 and paired_at < $3 \
         and standing not in ('rejected', 'voided') \
         and not (standing = 'referred' and other_holders > 0) limit $4"
    );
    let rows: Vec<PgRow> = sqlx::query(&statement)
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
        punches.entry(employee).or_default().push(timecard_punch(row, rules)?);
    }
    Ok(punches)
}

/// These punches, whether they count or not, as far as they are there.
pub(super) async fn several(
    pool: &Pool,
    punches: &[PunchId],
    rules: &PairingRules,
) -> Result<Vec<TimecardPunch>, sqlx::Error> {
    let statement = format!("select {COLUMNS} from read.timecards where punch = any($1)");
    let ids: Vec<Uuid> = punches.iter().map(|punch| punch.uuid()).collect();
    let rows = sqlx::query(&statement).bind(ids).fetch_all(pool).await?;
    rows.iter().map(|row| timecard_punch(row, rules)).collect()
}

/// When a person's last punch before `before` truly was, or the last of all.
///
/// # Errors
/// When the database is out of reach.
pub async fn last_before(
    pool: &Pool,
    employee: EmployeeId,
    before: Option<Time>,
) -> Result<Option<Time>, sqlx::Error> {
    let at: Option<jiff_sqlx::Timestamp> = sqlx::query_scalar(
        "select paired_at from read.timecards where employee = $1 \
         and ($2::timestamptz is null or paired_at < $2) order by paired_at desc limit 1",
    )
    .bind(employee.uuid())
    .bind(before.map(|at| at.timestamp().to_sqlx()))
    .fetch_optional(pool)
    .await?;
    Ok(at.map(|at| at.to_jiff().into()))
}

fn timecard_punch(row: &PgRow, rules: &PairingRules) -> Result<TimecardPunch, sqlx::Error> {
    let site = SiteId(row.try_get("site")?);
    let effective_at = time(row, "effective_at")?;
    let tz: Option<String> = row.try_get("tz")?;
    Ok(TimecardPunch {
        punch: PunchId(row.try_get("punch")?),
        kind: parsed(row, "kind")?,
        effective_at,
        lead_ms: row.try_get("lead_ms")?,
        standing: match parsed(row, "standing")? {
            Standing::Accepted => CountedAs::Accepted,
            _ => CountedAs::Provisional,
        },
        site,
        tz: tz.unwrap_or_else(|| rules.zone(site, effective_at).to_owned()),
        joined: row.try_get::<Option<_>, _>("joined")?.map(PunchId),
        entered: row.try_get("entered")?,
    })
}
