//! Who works where, and a version of each site's roster for devices to compare.
//!
//! Rows hold ids; badges, names and PINs are joined from beside the ledger when read, so that
//! erasing one there reaches every page. The kind of a person's last punch, by the true time as far
//! as it is known, is looked up in `timecards` when read: a manifest is read far more rarely than
//! people punch. A reader of it who waits, waits for both ([`RESTS_ON`]).
//!
//! A departed person stays on the roster until the moment of leaving, and whoever works at a site
//! until a day until that day. Who begins there later, or gets a badge later, is told at once: a
//! device may be without a network by then. What changes by itself when its time comes, as no event
//! says it again, is a turn: the version counts those that have passed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    AggregateType, Event,
    employee::{Assignments, Badges, Biometrics, EmployeeEvent},
    policy::Policy,
};
use punchtrail_infra::{
    ledger::Entry,
    postgres::{Pool, within},
};
use punchtrail_protocol::{
    DeviceId, EmployeeId, Position, SiteId, Time,
    capture::PunchKind,
    wire::{FoundEmployee, ManifestRow, PinHash},
};
use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    engine::columns::time_or_none,
    engine::{Generation, Projection, ProjectionError, page::Page},
    people::finding::{self, Among},
    sites,
};

/// The model's name.
pub const NAME: &str = "roster";
/// The models that a manifest rests on, for `Punchtrail-After`.
pub const RESTS_ON: [&str; 2] = [NAME, crate::punches::timecards::NAME];

/// The model.
#[derive(Debug)]
pub struct Roster;

impl Projection for Roster {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        4
    }

    fn tables(&self) -> &'static [&'static str] {
        &["roster", "roster_people", "roster_sites", "roster_turns"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {roster} (
                 site        uuid not null,
                 employee    uuid not null,
                 departed_at timestamptz,
                 -- Until when they work there; null while there is no end in sight.
                 until       timestamptz,
                 -- Serves a site's people in the order of ids.
                 primary key (site, employee)
             );
             -- Serves a person's sites: for the API, and for changes of a person.
             create index {person} on {roster} (employee);
             create table {people} (
                 -- Serves one person, and the list in the order of ids.
                 employee      uuid primary key,
                 registered_at timestamptz,
                 departed_at   timestamptz,
                 -- When everything that can be erased of them was.
                 erased_at     timestamptz,
                 -- Sites and badges, as the domain keeps them.
                 assignments   text not null,
                 badges        text not null,
                 -- Consent and reference photos, as the domain keeps them.
                 biometrics    text not null,
                 -- Whether a picture of theirs may be compared, and with something.
                 face          boolean not null,
                 -- Whether something of their face is kept.
                 kept          boolean not null,
                 position      bigint not null
             );
             -- Serves whose is to be erased since they left.
             create index {kept} on {people} (departed_at) where kept and departed_at is not null;
             -- Serves of whom nothing may be left in the directory.
             create index {erased} on {people} (employee) where erased_at is not null;
             create table {sites} (
                 -- Serves a roster's version.
                 site     uuid primary key,
                 -- Of the latest event that changed a row of the manifest, or the policy.
                 position bigint not null
             );
             create table {turns} (
                 -- Serves a roster's version: how often it has changed by itself.
                 site uuid not null,
                 at   timestamptz not null,
                 primary key (site, at)
             );",
            roster = generation.table("roster"),
            person = generation.index("roster", "employee"),
            people = generation.table("roster_people"),
            kept = generation.index("roster_people", "kept"),
            erased = generation.index("roster_people", "erased"),
            sites = generation.table("roster_sites"),
            turns = generation.table("roster_turns"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let concerned: Vec<&Arc<Entry>> = events
                .iter()
                .filter(|entry| {
                    let kind = entry.recorded.aggregate_type;
                    matches!(kind, AggregateType::Employee | AggregateType::Site)
                })
                .collect();
            if concerned.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::load(tx, generation, &concerned).await?;
            for entry in concerned {
                batch.take(entry)?;
            }
            batch.write(tx, generation).await
        })
    }
}

#[derive(Debug, Default)]
struct Person {
    sites_before: BTreeSet<SiteId>,
    assignments: Assignments,
    badges: Badges,
    registered_at: Option<Time>,
    departed_at: Option<Time>,
    erased_at: Option<Time>,
    biometrics: Biometrics,
    position: Position,
}

impl Person {
    /// The sites that they have a row at.
    fn sites(&self) -> BTreeSet<SiteId> {
        self.assignments.all().iter().map(|at| at.site).collect()
    }

    /// When a row of theirs changes after `now`, as nothing says it again then.
    fn turns(&self, now: Time) -> impl Iterator<Item = Time> {
        let ends = self.assignments.all().iter().filter_map(|at| at.until);
        let badges = self.badges.all().iter();
        let begun = badges.clone().filter_map(|held| held.from);
        let ended = badges.filter_map(|held| held.until);
        let all = ends.chain(begun).chain(ended).chain(self.departed_at);
        all.filter(move |at| *at > now)
    }
}

/// The people of a batch as they were, and as it leaves them.
#[derive(Debug, Default)]
struct Batch {
    /// When sites' rosters change by themselves.
    turns: BTreeSet<(SiteId, Time)>,
    people: HashMap<EmployeeId, Person>,
    /// Where each site's roster changed last.
    changed: HashMap<SiteId, Position>,
}

impl Batch {
    async fn load(
        tx: &mut PgConnection,
        generation: &Generation,
        events: &[&Arc<Entry>],
    ) -> Result<Self, ProjectionError> {
        let mut batch = Self::default();
        for entry in events {
            if let Event::Employee(employee, _) = entry.event()? {
                batch.people.entry(*employee).or_default();
            }
        }
        let ids: Vec<Uuid> = batch.people.keys().map(|employee| employee.uuid()).collect();
        let known = format!(
            "select employee, registered_at, departed_at, erased_at, assignments, badges, \
                 biometrics from {} where employee = any($1)",
            generation.table("roster_people")
        );
        for row in sqlx::query(&known).bind(&ids).fetch_all(&mut *tx).await? {
            let person = batch.people.entry(EmployeeId(row.try_get("employee")?)).or_default();
            person.registered_at = time_or_none(&row, "registered_at")?;
            person.departed_at = time_or_none(&row, "departed_at")?;
            person.erased_at = time_or_none(&row, "erased_at")?;
            person.assignments = read(&row, "assignments")?;
            person.badges = read(&row, "badges")?;
            person.biometrics = read(&row, "biometrics")?;
        }
        let places = format!(
            "select employee, site from {} where employee = any($1)",
            generation.table("roster")
        );
        let rows: Vec<(Uuid, Uuid)> =
            sqlx::query_as(&places).bind(&ids).fetch_all(&mut *tx).await?;
        for (employee, site) in rows {
            let person = batch.people.entry(EmployeeId(employee)).or_default();
            person.sites_before.insert(SiteId(site));
        }
        Ok(batch)
    }

    fn take(&mut self, entry: &Entry) -> Result<(), ProjectionError> {
        let position = entry.recorded.position;
        match entry.event()? {
            // A new zone or policy: the manifest carries the policy.
            Event::Site(site, _) => {
                self.changed.insert(*site, position);
            }
            Event::Employee(employee, event) => {
                let person = self.people.entry(*employee).or_default();
                person.position = position;
                let sites_before = person.sites();
                person.biometrics.evolve(event);
                person.assignments.evolve(event);
                person.badges.evolve(event);
                let changed: BTreeSet<SiteId> = match event {
                    EmployeeEvent::Registered {} => {
                        person.registered_at = Some(entry.recorded.recorded_at.into());
                        BTreeSet::new()
                    }
                    EmployeeEvent::AssignedToSite { site, .. }
                    | EmployeeEvent::UnassignedFromSite { site, .. } => BTreeSet::from([*site]),
                    // A device never sees ids of other systems.
                    EmployeeEvent::DirectoryChanged { fields }
                        if !fields.iter().any(|field| field.is_told_to_devices()) =>
                    {
                        BTreeSet::new()
                    }
                    EmployeeEvent::DirectoryChanged { .. }
                    | EmployeeEvent::BadgeIssued { .. }
                    | EmployeeEvent::BadgeEnded { .. }
                    | EmployeeEvent::BiometricConsentGiven { .. }
                    | EmployeeEvent::BiometricConsentWithdrawn { .. }
                    | EmployeeEvent::ReferencePhotoEnrolled { .. }
                    | EmployeeEvent::ReferencePhotoRemoved { .. }
                    | EmployeeEvent::BiometricsErased { .. } => person.sites(),
                    EmployeeEvent::Departed { at } => {
                        person.departed_at = Some(*at);
                        person.sites()
                    }
                    EmployeeEvent::DepartureCancelled {} | EmployeeEvent::Returned { .. } => {
                        person.departed_at = None;
                        person.sites()
                    }
                    EmployeeEvent::LegalHoldPlaced { .. }
                    | EmployeeEvent::LegalHoldLifted { .. } => BTreeSet::new(),
                    // They stand on no roster any more, and devices forget them.
                    EmployeeEvent::Erased { at } => {
                        person.erased_at = Some(*at);
                        sites_before
                    }
                };
                let now = entry.recorded.recorded_at.into();
                for at in person.turns(now) {
                    self.turns.extend(changed.iter().map(|site| (*site, at)));
                }
                for site in changed {
                    self.changed.insert(site, position);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn write(
        self,
        tx: &mut PgConnection,
        generation: &Generation,
    ) -> Result<(), ProjectionError> {
        self.write_people(tx, &generation.table("roster_people")).await?;
        self.write_places(tx, &generation.table("roster")).await?;
        let (sites, positions): (Vec<Uuid>, Vec<i64>) =
            self.changed.iter().map(|(site, position)| (site.uuid(), position.to_db())).unzip();
        let versions = format!(
            "insert into {} (site, position) select * from unnest($1::uuid[], $2::bigint[]) \
             on conflict (site) do update set position = excluded.position",
            generation.table("roster_sites")
        );
        sqlx::query(&versions).bind(sites).bind(positions).execute(&mut *tx).await?;
        let (sites, at): (Vec<Uuid>, Vec<_>) =
            self.turns.iter().map(|(site, at)| (site.uuid(), at.timestamp().to_sqlx())).unzip();
        let turns = format!(
            "insert into {} (site, at) select * from unnest($1::uuid[], $2::timestamptz[]) \
             on conflict do nothing",
            generation.table("roster_turns")
        );
        sqlx::query(&turns).bind(sites).bind(at).execute(tx).await?;
        Ok(())
    }

    async fn write_people(
        &self,
        tx: &mut PgConnection,
        table: &str,
    ) -> Result<(), ProjectionError> {
        let (mut ids, mut registered, mut departed, mut positions) =
            (vec![], vec![], vec![], vec![]);
        let (mut biometrics, mut faces, mut kept) = (vec![], vec![], vec![]);
        let (mut erased, mut assignments, mut badges) = (vec![], vec![], vec![]);
        for (employee, person) in &self.people {
            assignments.push(serde_json::to_string(&person.assignments).unwrap_or_default());
            badges.push(serde_json::to_string(&person.badges).unwrap_or_default());
            ids.push(employee.uuid());
            registered.push(person.registered_at.map(|at| at.timestamp().to_sqlx()));
            departed.push(person.departed_at.map(|at| at.timestamp().to_sqlx()));
            biometrics.push(serde_json::to_string(&person.biometrics).unwrap_or_default());
            faces.push(person.biometrics.is_comparable());
            kept.push(person.biometrics.is_kept());
            erased.push(person.erased_at.map(|at| at.timestamp().to_sqlx()));
            positions.push(person.position.to_db());
        }
        let statement = format!(
            "insert into {table} (employee, registered_at, departed_at, biometrics, face, \
                 kept, erased_at, assignments, badges, position) \
             select * from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[], \
                 $5::bool[], $6::bool[], $7::timestamptz[], $8::text[], $9::text[], $10::bigint[]) \
             on conflict (employee) do update set registered_at = excluded.registered_at, \
                 departed_at = excluded.departed_at, biometrics = excluded.biometrics, \
                 face = excluded.face, kept = excluded.kept, erased_at = excluded.erased_at, \
                 assignments = excluded.assignments, badges = excluded.badges, \
                 position = excluded.position"
        );
        sqlx::query(&statement)
            .bind(ids)
            .bind(registered)
            .bind(departed)
            .bind(biometrics)
            .bind(faces)
            .bind(kept)
            .bind(erased)
            .bind(assignments)
            .bind(badges)
            .bind(positions)
            .execute(tx)
            .await?;
        Ok(())
    }

    async fn write_places(
        &self,
        tx: &mut PgConnection,
        table: &str,
    ) -> Result<(), ProjectionError> {
        let (mut left_sites, mut left_people) = (vec![], vec![]);
        let (mut sites, mut people, mut departed) = (vec![], vec![], vec![]);
        let mut until = vec![];
        for (employee, person) in &self.people {
            for site in person.sites_before.difference(&person.sites()) {
                left_sites.push(site.uuid());
                left_people.push(employee.uuid());
            }
            for site in person.sites() {
                sites.push(site.uuid());
                people.push(employee.uuid());
                let ends = person.assignments.latest(site).and_then(|at| at.until);
                until.push(ends.map(|at| at.timestamp().to_sqlx()));
                departed.push(person.departed_at.map(|at| at.timestamp().to_sqlx()));
            }
        }
        let leave = format!(
            "delete from {table} as held using unnest($1::uuid[], $2::uuid[]) as gone (site, \
             employee) where held.site = gone.site and held.employee = gone.employee"
        );
        sqlx::query(&leave).bind(left_sites).bind(left_people).execute(&mut *tx).await?;
        let arrive = format!(
            "insert into {table} as held (site, employee, departed_at, until) \
             select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[]) \
             on conflict (site, employee) do update set departed_at = excluded.departed_at, \
                 until = excluded.until where (held.departed_at, held.until) \
                 is distinct from (excluded.departed_at, excluded.until)"
        );
        sqlx::query(&arrive)
            .bind(sites)
            .bind(people)
            .bind(departed)
            .bind(until)
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// What the domain keeps of a person, as a column holds it.
fn read<T: serde::de::DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    let text = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn manifest_row(row: &PgRow) -> Result<ManifestRow, sqlx::Error> {
    let phc: Option<String> = row.try_get("pin_phc")?;
    let badges: Vec<String> = row.try_get("badges")?;
    Ok(ManifestRow {
        employee: EmployeeId(row.try_get("employee")?),
        badge: badges.first().cloned(),
        badges,
        name: row.try_get("name")?,
        pin: phc.map(|phc| PinHash { phc }),
        face: row.try_get("face")?,
        last_kind: last_kind(row)?,
    })
}

fn found_employee(row: &PgRow) -> Result<FoundEmployee, sqlx::Error> {
    Ok(FoundEmployee {
        employee: EmployeeId(row.try_get("employee")?),
        badge: row.try_get::<Vec<String>, _>("badges")?.into_iter().next(),
        name: row.try_get("name")?,
        face: row.try_get("face")?,
        last_kind: last_kind(row)?,
    })
}

fn last_kind(row: &PgRow) -> Result<Option<PunchKind>, sqlx::Error> {
    let kind: Option<&str> = row.try_get("last_kind")?;
    Ok(kind.and_then(|kind| kind.parse().ok()))
}

const MANIFEST: &str = "select place.employee, entry.name, entry.pin_phc, \
         array(select held.number from badge_holdings held \
             where held.employee = place.employee and held.held_until is distinct from \
                 held.held_from and (held.held_until is null or held.held_until > now()) \
             order by held.held_from > now(), held.held_from desc, held.number) as badges, \
         last.kind as last_kind, coalesce(person.face, false) as face \
     from read.roster place join employee_directory entry on entry.employee = place.employee \
     left join read.roster_people person on person.employee = place.employee \
     left join lateral (select punch.kind from read.timecards punch \
         where punch.employee = place.employee and punch.standing not in ('rejected', 'voided') \
         order by punch.true_at desc, punch.punch desc limit 1) last on true \
     where place.site = $1 and (place.departed_at is null or place.departed_at > now()) \
     and (place.until is null or place.until > now())";

/// How long a page may take: a device waits for it.
const MANIFEST_MAX: Duration = Duration::from_secs(10);

/// A page of a site's manifest, and the version of the roster that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestPage {
    pub version: String,
    pub people: Page<ManifestRow>,
}

/// The people of a site in the order of their ids, after `after`; at most `limit`. They and the
/// version are read from one snapshot: neither can be newer than the other. `face` is whether a
/// picture of theirs may be compared; whether the site takes any is the policy's to say.
///
/// # Errors
/// When the database is out of reach.
pub async fn manifest(
    pool: &Pool,
    site: SiteId,
    after: Option<EmployeeId>,
    limit: u32,
) -> Result<ManifestPage, sqlx::Error> {
    within(MANIFEST_MAX, async {
        let mut snapshot =
            pool.begin_with("begin isolation level repeatable read, read only").await?;
        let version = version(&mut *snapshot, site).await?;
        let statement =
            format!("{MANIFEST} and place.employee > $2 order by place.employee limit $3");
        let rows = sqlx::query(&statement)
            .bind(site.uuid())
            .bind(after.unwrap_or(EmployeeId::NIL).uuid())
            .bind(Page::<ManifestRow>::to_ask(limit))
            .try_map(|row| manifest_row(&row))
            .fetch_all(&mut *snapshot)
            .await?;
        snapshot.commit().await?;
        Ok(ManifestPage { version, people: Page::cut(rows, limit) })
    })
    .await
}

/// The version of a site's roster: another one whenever a row of its manifest has changed in
/// anything but `last_kind`, or its policy has. Opaque; compare it, nothing else.
///
/// # Errors
/// When the database is out of reach.
pub async fn version(database: impl PgExecutor<'_>, site: SiteId) -> Result<String, sqlx::Error> {
    let statement = format!("select {VERSION}");
    sqlx::query_scalar(&statement).bind(site.uuid()).fetch_one(database).await
}

/// What a heartbeat is answered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The site's [`version`].
    pub version: String,
    /// The policy in force there.
    pub policy: Policy,
    /// Whether commands wait for the device.
    pub commands: bool,
}

/// What is in force for a device at a site at `now`, in one statement.
///
/// # Errors
/// When the database is out of reach.
pub async fn in_force(
    database: impl PgExecutor<'_>,
    site: SiteId,
    device: DeviceId,
    now: Time,
) -> Result<InForce, sqlx::Error> {
    let statement = format!(
        "select {VERSION}, (select policy from read.sites where site = $1), \
         exists (select from read.device_commands where device = $2 and state = 'waiting' \
             and expires_at > $3)"
    );
    let (version, policy, commands): (String, Option<String>, bool) = sqlx::query_as(&statement)
        .bind(site.uuid())
        .bind(device.uuid())
        .bind(now.timestamp().to_sqlx())
        .fetch_one(database)
        .await?;
    Ok(InForce { version, policy: sites::policy(policy.as_deref())?, commands })
}

/// Of the site `$1`.
const VERSION: &str = "coalesce((select position from read.roster_sites where site = $1), 0) || \
    '.' || (select count(*) from read.roster_turns where site = $1 and at <= now())";

/// The people of a site whom `typed` may mean, by name or badge, best first; at most
/// [`FOUND_MAX`](super::employees::FOUND_MAX). `face` as in [`manifest`].
///
/// # Errors
/// When the database is out of reach.
pub async fn search(
    pool: &Pool,
    site: SiteId,
    typed: &str,
) -> Result<Vec<FoundEmployee>, sqlx::Error> {
    let found = finding::best(pool, Among::WorkingAt(site), typed).await?;
    let statement = format!("{MANIFEST} and place.employee = any($2)");
    let mut rows = sqlx::query(&statement)
        .bind(site.uuid())
        .bind(&found)
        .try_map(|row| found_employee(&row))
        .fetch_all(pool)
        .await?;
    rows.sort_by_key(|row| found.iter().position(|employee| *employee == row.employee.uuid()));
    Ok(rows)
}

/// Who left a site before then and has something of their face kept; a page of them.
///
/// # Errors
/// When the database is out of reach.
pub async fn departed_with_faces(
    pool: &Pool,
    site: SiteId,
    before: Time,
) -> Result<Vec<EmployeeId>, sqlx::Error> {
    let people: Vec<Uuid> = sqlx::query_scalar(
        "select person.employee from read.roster_people person \
         join read.roster place on place.employee = person.employee and place.site = $1 \
         where person.kept and person.departed_at < $2 order by person.departed_at limit 200",
    )
    .bind(site.uuid())
    .bind(before.timestamp().to_sqlx())
    .fetch_all(pool)
    .await?;
    Ok(people.into_iter().map(EmployeeId).collect())
}

/// Those who were erased and of whom the directory has an entry, or a badge its number, all the
/// same, as after a copy of it was put back; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn erased_with_names(pool: &Pool, limit: u32) -> Result<Vec<EmployeeId>, sqlx::Error> {
    let people: Vec<Uuid> = sqlx::query_scalar(
        "select person.employee from read.roster_people person \
         where person.erased_at is not null and (exists (select from employee_directory entry \
             where entry.employee = person.employee) or exists (select from badge_holdings held \
             where held.employee = person.employee)) order by person.employee limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    Ok(people.into_iter().map(EmployeeId).collect())
}
