//! Who works where, and a version of each site's roster for devices to compare.
//!
//! Rows hold ids; badges, names and PINs are joined from the directory when read, so that erasing
//! one there reaches every page. The kind of a person's last punch, by the true time as far as it is
//! known, is looked up in `timecards` when read: a manifest is read far more rarely than people
//! punch. A reader of it who waits, waits for both ([`RESTS_ON`]).
//!
//! A departed person stays on the roster until the moment of leaving.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    AggregateType, Event,
    employee::{Biometrics, EmployeeEvent},
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
        3
    }

    fn tables(&self) -> &'static [&'static str] {
        &["roster", "roster_people", "roster_sites"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {roster} (
                 site        uuid not null,
                 employee    uuid not null,
                 departed_at timestamptz,
                 -- Serves a site's people in the order of ids.
                 primary key (site, employee)
             );
             -- Serves a person's sites: for the API, and for changes of a person.
             create index {person} on {roster} (employee);
             -- Serves a roster's version: how many have left by now.
             create index {departed} on {roster} (site, departed_at) where departed_at is not null;
             create table {people} (
                 -- Serves one person, and the list in the order of ids.
                 employee      uuid primary key,
                 registered_at timestamptz,
                 departed_at   timestamptz,
                 -- When everything that can be erased of them was.
                 erased_at     timestamptz,
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
             );",
            roster = generation.table("roster"),
            person = generation.index("roster", "employee"),
            departed = generation.index("roster", "departed"),
            people = generation.table("roster_people"),
            kept = generation.index("roster_people", "kept"),
            erased = generation.index("roster_people", "erased"),
            sites = generation.table("roster_sites"),
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
    sites: BTreeSet<SiteId>,
    registered_at: Option<Time>,
    departed_at: Option<Time>,
    erased_at: Option<Time>,
    biometrics: Biometrics,
    position: Position,
}

/// The people of a batch as they were, and as it leaves them.
#[derive(Debug, Default)]
struct Batch {
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
            "select employee, registered_at, departed_at, erased_at, biometrics from {} \
             where employee = any($1)",
            generation.table("roster_people")
        );
        for row in sqlx::query(&known).bind(&ids).fetch_all(&mut *tx).await? {
            let person = batch.people.entry(EmployeeId(row.try_get("employee")?)).or_default();
            person.registered_at = time_or_none(&row, "registered_at")?;
            person.departed_at = time_or_none(&row, "departed_at")?;
            person.erased_at = time_or_none(&row, "erased_at")?;
            person.biometrics = serde_json::from_str(row.try_get("biometrics")?)
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
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
            person.sites.insert(SiteId(site));
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
                person.biometrics.evolve(event);
                let changed: BTreeSet<SiteId> = match event {
                    EmployeeEvent::Registered {} => {
                        person.registered_at = Some(entry.recorded.recorded_at.into());
                        BTreeSet::new()
                    }
                    EmployeeEvent::AssignedToSite { site, .. } => {
                        person.sites.insert(*site);
                        BTreeSet::from([*site])
                    }
                    EmployeeEvent::UnassignedFromSite { site, .. } => {
                        person.sites.remove(site);
                        BTreeSet::from([*site])
                    }
                    // A device never sees ids of other systems.
                    EmployeeEvent::DirectoryChanged { fields }
                        if !fields.iter().any(|field| field.is_told_to_devices()) =>
                    {
                        BTreeSet::new()
                    }
                    EmployeeEvent::DirectoryChanged { .. }
                    | EmployeeEvent::BiometricConsentGiven { .. }
                    | EmployeeEvent::BiometricConsentWithdrawn { .. }
                    | EmployeeEvent::ReferencePhotoEnrolled { .. }
                    | EmployeeEvent::ReferencePhotoRemoved { .. }
                    | EmployeeEvent::BiometricsErased { .. } => person.sites.clone(),
                    EmployeeEvent::Departed { at } => {
                        person.departed_at = Some(*at);
                        person.sites.clone()
                    }
                    EmployeeEvent::DepartureCancelled {} | EmployeeEvent::Returned { .. } => {
                        person.departed_at = None;
                        person.sites.clone()
                    }
                    EmployeeEvent::BadgeIssued { .. } | EmployeeEvent::BadgeEnded { .. } => {
                        person.sites.clone()
                    }
                    EmployeeEvent::LegalHoldPlaced { .. }
                    | EmployeeEvent::LegalHoldLifted { .. } => BTreeSet::new(),
                    // They stand on no roster any more, and devices forget them.
                    EmployeeEvent::Erased { at } => {
                        person.erased_at = Some(*at);
                        std::mem::take(&mut person.sites)
                    }
                };
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
        sqlx::query(&versions).bind(sites).bind(positions).execute(tx).await?;
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
        let mut erased = vec![];
        for (employee, person) in &self.people {
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
                 kept, erased_at, position) \
             select * from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[], \
                 $5::bool[], $6::bool[], $7::timestamptz[], $8::bigint[]) \
             on conflict (employee) do update set registered_at = excluded.registered_at, \
                 departed_at = excluded.departed_at, biometrics = excluded.biometrics, \
                 face = excluded.face, kept = excluded.kept, erased_at = excluded.erased_at, \
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
        for (employee, person) in &self.people {
            for site in person.sites_before.difference(&person.sites) {
                left_sites.push(site.uuid());
                left_people.push(employee.uuid());
            }
            for site in &person.sites {
                sites.push(site.uuid());
                people.push(employee.uuid());
                departed.push(person.departed_at.map(|at| at.timestamp().to_sqlx()));
            }
        }
        let leave = format!(
            "delete from {table} as held using unnest($1::uuid[], $2::uuid[]) as gone (site, \
             employee) where held.site = gone.site and held.employee = gone.employee"
        );
        sqlx::query(&leave).bind(left_sites).bind(left_people).execute(&mut *tx).await?;
        let arrive = format!(
            "insert into {table} as held (site, employee, departed_at) \
             select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) \
             on conflict (site, employee) do update set departed_at = excluded.departed_at \
             where held.departed_at is distinct from excluded.departed_at"
        );
        sqlx::query(&arrive).bind(sites).bind(people).bind(departed).execute(tx).await?;
        Ok(())
    }
}

fn manifest_row(row: &PgRow) -> Result<ManifestRow, sqlx::Error> {
    let phc: Option<String> = row.try_get("pin_phc")?;
    Ok(ManifestRow {
        employee: EmployeeId(row.try_get("employee")?),
        badge: row.try_get("badge")?,
        name: row.try_get("name")?,
        pin: phc.map(|phc| PinHash { phc }),
        face: row.try_get("face")?,
        last_kind: last_kind(row)?,
    })
}

fn found_employee(row: &PgRow) -> Result<FoundEmployee, sqlx::Error> {
    Ok(FoundEmployee {
        employee: EmployeeId(row.try_get("employee")?),
        badge: row.try_get("badge")?,
        name: row.try_get("name")?,
        face: row.try_get("face")?,
        last_kind: last_kind(row)?,
    })
}

fn last_kind(row: &PgRow) -> Result<Option<PunchKind>, sqlx::Error> {
    let kind: Option<&str> = row.try_get("last_kind")?;
    Ok(kind.and_then(|kind| kind.parse().ok()))
}

const MANIFEST: &str = "select place.employee, entry.badge, entry.name, entry.pin_phc, \
         last.kind as last_kind, coalesce(person.face, false) as face \
     from read.roster place join employee_directory entry on entry.employee = place.employee \
     left join read.roster_people person on person.employee = place.employee \
     left join lateral (select punch.kind from read.timecards punch \
         where punch.employee = place.employee and punch.standing not in ('rejected', 'voided') \
         order by punch.true_at desc, punch.punch desc limit 1) last on true \
     where place.site = $1 and (place.departed_at is null or place.departed_at > now())";

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
        "select {VERSION}, (select rules from read.sites where site = $1), \
         exists (select from read.device_commands where device = $2 and state = 'waiting' \
             and expires_at > $3)"
    );
    let (version, rules, commands): (String, Option<String>, bool) = sqlx::query_as(&statement)
        .bind(site.uuid())
        .bind(device.uuid())
        .bind(now.timestamp().to_sqlx())
        .fetch_one(database)
        .await?;
    let policy = sites::policy_at(rules.as_deref(), now)?;
    Ok(InForce { version, policy, commands })
}

/// Of the site `$1`.
const VERSION: &str = "coalesce((select position from read.roster_sites where site = $1), 0) || \
    '.' || (select count(*) from read.roster where site = $1 and departed_at <= now())";

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

/// Those who were erased and of whom the directory has an entry all the same, as after a copy of it
/// was put back; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn erased_with_names(pool: &Pool, limit: u32) -> Result<Vec<EmployeeId>, sqlx::Error> {
    let people: Vec<Uuid> = sqlx::query_scalar(
        "select person.employee from read.roster_people person \
         join employee_directory entry on entry.employee = person.employee \
         where person.erased_at is not null order by person.employee limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    Ok(people.into_iter().map(EmployeeId).collect())
}
