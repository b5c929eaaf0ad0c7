//! Which photos there are to know of: those that punches name, and items in quarantine that say to
//! be punches; reference photos of people; and the punches that wait for a verdict on one. A photo
//! that none of them names was sent for a punch that is still to come, or for nothing.

use std::{collections::HashSet, sync::Arc};

use futures::future::BoxFuture;
use jiff_sqlx::{Timestamp, ToSqlx};
use punchtrail_domain::{
    AggregateType, Event, aggregate::Stored, employee::EmployeeEvent, punch::PunchEvent,
    quarantine::QuarantineEvent,
};
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_protocol::{
    Digest, EmployeeId, Position, PunchId, SiteId, Time, attachment::Attachment,
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    engine::{Generation, Projection, ProjectionError, columns::ids},
    rulings::{as_of, quarantine},
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "photos";

/// The model.
#[derive(Debug)]
pub struct Photos;

impl Projection for Photos {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        3
    }

    fn tables(&self) -> &'static [&'static str] {
        &["photos", "reference_photos", "verifications"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {photos} (
                 photo       bytea not null,
                 punch       uuid not null,
                 employee    uuid,
                 -- Null for an item in quarantine.
                 site        uuid,
                 received_at timestamptz,
                 erased      boolean not null default false,
                 -- Serves whether a punch names a photo, and which.
                 primary key (photo, punch)
             );
             -- Serves what is kept of a person.
             create index {employee} on {photos} (employee, photo)
                 where received_at is not null and not erased;
             -- Serves what a site keeps no longer.
             create index {retention} on {photos} (site, received_at)
                 where received_at is not null and not erased;
             create table {references} (
                 employee uuid not null,
                 photo    bytea not null,
                 -- Whether pictures are compared with it still.
                 stands   boolean not null,
                 -- Serves a person's.
                 primary key (employee, photo)
             );
             -- Serves whether a photo is one.
             create index {reference} on {references} (photo);
             create table {verifications} (
                 punch  uuid primary key,
                 due_at timestamptz not null
             );
             -- Serves whose time is over.
             create index {due} on {verifications} (due_at);",
            photos = generation.table("photos"),
            employee = generation.index("photos", "employee"),
            retention = generation.index("photos", "retention"),
            references = generation.table("reference_photos"),
            reference = generation.index("reference_photos", "photo"),
            verifications = generation.table("verifications"),
            due = generation.index("verifications", "due"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let mut batch = Batch::default();
            for entry in events {
                batch.take(entry)?;
            }
            let through = events.last().map(|entry| entry.position()).unwrap_or_default();
            batch.write(tx, generation, through).await
        })
    }
}

/// What a batch says of photos, by kind. A punch names a photo before it comes, and it comes before
/// it is erased, so the kinds can be written one after the other.
#[derive(Debug, Default)]
struct Batch {
    named: Vec<Named>,
    retaken: Vec<(Digest, PunchId)>,
    items: Vec<Digest>,
    received: Vec<(Digest, PunchId, Time)>,
    erased: Vec<(Digest, PunchId)>,
    references: Vec<Reference>,
    requested: Vec<(PunchId, Time)>,
    closed: Vec<PunchId>,
    /// Punches of which it was found who made them, and those retaken, which may be such.
    found: Vec<PunchId>,
}

#[derive(Debug, Clone, Copy)]
struct Named {
    photo: Digest,
    punch: PunchId,
    employee: Option<EmployeeId>,
    site: Option<SiteId>,
}

/// A reference photo came to stand, or no longer does; without a photo, none of the person's does.
#[derive(Debug, Clone, Copy)]
struct Reference {
    employee: EmployeeId,
    photo: Option<Digest>,
    stands: bool,
}

impl Batch {
    fn take(&mut self, entry: &Entry) -> Result<(), ProjectionError> {
        let kind = entry.recorded.aggregate_type;
        if !matches!(
            kind,
            AggregateType::Punch | AggregateType::Quarantine | AggregateType::Employee
        ) {
            return Ok(());
        }
        match entry.event()? {
            Event::Punch(punch, event) => self.punch(*punch, event),
            Event::Quarantine(item, QuarantineEvent::Quarantined { .. }) => self.items.push(*item),
            Event::Employee(employee, event) => self.employee(*employee, event),
            _ => {}
        }
        Ok(())
    }

    fn punch(&mut self, punch: PunchId, event: &PunchEvent) {
        match event {
            PunchEvent::Captured { capture, .. } => {
                let Ok(capture) = capture.capture() else { return };
                self.named.extend(capture.photo.map(|photo| Named {
                    photo,
                    punch,
                    employee: capture.employee,
                    site: Some(capture.site),
                }));
            }
            PunchEvent::PhotoRetaken { record, .. } => {
                let read = Attachment::parse_kept(record.as_bytes());
                self.retaken.extend(read.ok().map(|read| (read.photo, punch)));
                self.found.push(punch);
            }
            PunchEvent::Identified { .. } | PunchEvent::Reassigned { .. } => {
                self.found.push(punch);
            }
            PunchEvent::PhotoReceived { photo, received_at, .. } => {
                self.received.push((*photo, punch, *received_at));
            }
            PunchEvent::PhotoErased { photo, .. } => self.erased.push((*photo, punch)),
            PunchEvent::VerificationRequested { due_at } => self.requested.push((punch, *due_at)),
            PunchEvent::VerificationSucceeded { .. }
            | PunchEvent::VerificationFailed { .. }
            | PunchEvent::VerificationUnavailable { .. } => self.closed.push(punch),
            _ => {}
        }
    }

    fn employee(&mut self, employee: EmployeeId, event: &EmployeeEvent) {
        let (photo, stands) = match event {
            EmployeeEvent::ReferencePhotoEnrolled { photo, .. } => (Some(*photo), true),
            EmployeeEvent::ReferencePhotoRemoved { photo } => (Some(*photo), false),
            EmployeeEvent::BiometricsErased { .. } => (None, false),
            _ => return,
        };
        self.references.push(Reference { employee, photo, stands });
    }
}

impl Batch {
    async fn write(
        mut self,
        tx: &mut PgConnection,
        generation: &Generation,
        through: Position,
    ) -> Result<(), ProjectionError> {
        self.add_retaken(tx).await?;
        self.add_items(tx).await?;
        let photos = generation.table("photos");
        insert(tx, &photos, &self.named).await?;
        self.write_found(tx, &photos, through).await?;
        self.write_fates(tx, &photos).await?;
        self.write_references(tx, &generation.table("reference_photos")).await?;
        self.write_verifications(tx, &generation.table("verifications")).await
    }

    /// Whose a retake is and where, its punch's capture says.
    async fn add_retaken(&mut self, tx: &mut PgConnection) -> Result<(), ProjectionError> {
        if self.retaken.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = self.retaken.iter().map(|(_, punch)| punch.to_string()).collect();
        let rows = sqlx::query(
            "select position, event_type, event_version, payload::text as payload from events \
             where aggregate_type = 'punch' and aggregate_id = any($1) and sequence = 1",
        )
        .bind(ids)
        .fetch_all(tx)
        .await?;
        for row in rows {
            let stored = Stored {
                position: Position::from_db(row.try_get("position")?),
                event_type: row.try_get("event_type")?,
                event_version: row.try_get("event_version")?,
                payload: row.try_get("payload")?,
            };
            let PunchEvent::Captured { capture, .. } = stored.read()? else { continue };
            let Ok(capture) = capture.capture() else { continue };
            let of_it = self.retaken.iter().filter(|(_, punch)| *punch == capture.punch);
            let named = of_it.map(|&(photo, punch)| Named {
                photo,
                punch,
                employee: capture.employee,
                site: Some(capture.site),
            });
            self.named.extend(named);
        }
        Ok(())
    }

    /// The pictures of a punch are of whoever was found to have made it, up to there.
    async fn write_found(
        &self,
        tx: &mut PgConnection,
        table: &str,
        through: Position,
    ) -> Result<(), ProjectionError> {
        let stood = as_of(tx, &self.found, through).await?;
        let (mut photos, mut punches, mut employees) = (vec![], vec![], vec![]);
        for (punch, stood) in &stood {
            let Some(employee) = stood.employee() else { continue };
            for picture in stood.pictures().attempts().values() {
                photos.push(picture.photo.0.to_vec());
                punches.push(punch.uuid());
                employees.push(employee.uuid());
            }
        }
        if photos.is_empty() {
            return Ok(());
        }
        let statement = format!(
            "update {table} as held set employee = now.employee \
             from unnest($1::bytea[], $2::uuid[], $3::uuid[]) as now (photo, punch, employee) \
             where held.photo = now.photo and held.punch = now.punch and held.site is not null \
             and held.employee is distinct from now.employee"
        );
        sqlx::query(&statement).bind(photos).bind(punches).bind(employees).execute(tx).await?;
        Ok(())
    }

    async fn add_items(&mut self, tx: &mut PgConnection) -> Result<(), ProjectionError> {
        if self.items.is_empty() {
            return Ok(());
        }
        let said = quarantine::said(tx, std::mem::take(&mut self.items).into_iter()).await?;
        let named = said.values().filter_map(|said| {
            Some(Named { photo: said.photo?, punch: said.punch, employee: None, site: None })
        });
        self.named.extend(named);
        Ok(())
    }

    async fn write_fates(&self, tx: &mut PgConnection, table: &str) -> Result<(), ProjectionError> {
        if !self.received.is_empty() {
            let photos: Vec<_> = self.received.iter().map(|(photo, ..)| photo.0.to_vec()).collect();
            let punches: Vec<Uuid> = self.received.iter().map(|(_, of, _)| of.uuid()).collect();
            let at: Vec<Timestamp> =
                self.received.iter().map(|(.., at)| at.timestamp().to_sqlx()).collect();
            let statement = format!(
                "update {table} as held set received_at = now.at \
                 from unnest($1::bytea[], $2::uuid[], $3::timestamptz[]) as now (photo, punch, at) \
                 where held.photo = now.photo and held.punch = now.punch"
            );
            sqlx::query(&statement).bind(photos).bind(punches).bind(at).execute(&mut *tx).await?;
        }
        if !self.erased.is_empty() {
            let photos: Vec<_> = self.erased.iter().map(|(photo, _)| photo.0.to_vec()).collect();
            let punches: Vec<Uuid> = self.erased.iter().map(|(_, of)| of.uuid()).collect();
            let statement = format!(
                "update {table} as held set erased = true \
                 from unnest($1::bytea[], $2::uuid[]) as now (photo, punch) \
                 where held.photo = now.photo and held.punch = now.punch"
            );
            sqlx::query(&statement).bind(photos).bind(punches).execute(tx).await?;
        }
        Ok(())
    }

    /// One by one, for their order matters and they are rare.
    async fn write_references(
        &self,
        tx: &mut PgConnection,
        table: &str,
    ) -> Result<(), ProjectionError> {
        let put = format!(
            "insert into {table} (employee, photo, stands) values ($1, $2, $3) \
             on conflict (employee, photo) do update set stands = excluded.stands"
        );
        let end = format!("update {table} set stands = false where employee = $1 and stands");
        for Reference { employee, photo, stands } in &self.references {
            match photo {
                Some(photo) => {
                    sqlx::query(&put).bind(employee.uuid()).bind(photo.0.as_slice()).bind(stands)
                }
                None => sqlx::query(&end).bind(employee.uuid()),
            }
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }

    async fn write_verifications(
        &self,
        tx: &mut PgConnection,
        table: &str,
    ) -> Result<(), ProjectionError> {
        if !self.requested.is_empty() {
            let punches: Vec<Uuid> = self.requested.iter().map(|(punch, _)| punch.uuid()).collect();
            let due: Vec<Timestamp> =
                self.requested.iter().map(|(_, at)| at.timestamp().to_sqlx()).collect();
            let statement = format!(
                "insert into {table} (punch, due_at) \
                 select * from unnest($1::uuid[], $2::timestamptz[]) on conflict do nothing"
            );
            sqlx::query(&statement).bind(punches).bind(due).execute(&mut *tx).await?;
        }
        if !self.closed.is_empty() {
            let punches: Vec<Uuid> = self.closed.iter().map(|punch| punch.uuid()).collect();
            let statement = format!("delete from {table} where punch = any($1)");
            sqlx::query(&statement).bind(punches).execute(tx).await?;
        }
        Ok(())
    }
}

async fn insert(
    tx: &mut PgConnection,
    table: &str,
    named: &[Named],
) -> Result<(), ProjectionError> {
    if named.is_empty() {
        return Ok(());
    }
    let photos: Vec<_> = named.iter().map(|named| named.photo.0.to_vec()).collect();
    let punches: Vec<_> = named.iter().map(|named| named.punch.uuid()).collect();
    let employees: Vec<_> = named.iter().map(|named| named.employee.map(|of| of.uuid())).collect();
    let sites: Vec<_> = named.iter().map(|named| named.site.map(|at| at.uuid())).collect();
    // A punch says more of it than an item in quarantine that claims to be that punch.
    let statement = format!(
        "insert into {table} as held (photo, punch, employee, site) \
         select distinct on (photo, punch) photo, punch, employee, site \
         from unnest($1::bytea[], $2::uuid[], $3::uuid[], $4::uuid[]) \
             as now (photo, punch, employee, site) order by photo, punch, site nulls last \
         on conflict (photo, punch) do update set employee = excluded.employee, \
             site = excluded.site where held.site is null and excluded.site is not null"
    );
    sqlx::query(&statement)
        .bind(photos)
        .bind(punches)
        .bind(employees)
        .bind(sites)
        .execute(tx)
        .await?;
    Ok(())
}

/// Those of the photos that a punch names, or a person is compared with.
///
/// # Errors
/// When the database is out of reach.
pub async fn named(pool: &Pool, photos: &[Digest]) -> Result<HashSet<Digest>, sqlx::Error> {
    let asked: Vec<_> = photos.iter().map(|photo| photo.0.to_vec()).collect();
    let found: Vec<Vec<u8>> = sqlx::query_scalar(
        "select photo from read.photos where photo = any($1) and not erased \
         union select photo from read.reference_photos where photo = any($1) and stands",
    )
    .bind(asked)
    .fetch_all(pool)
    .await?;
    Ok(digests(found))
}

fn digests(found: Vec<Vec<u8>>) -> HashSet<Digest> {
    found.into_iter().filter_map(|photo| photo.try_into().ok().map(Digest)).collect()
}

/// Those of the photos that were erased from every punch that names them, and that nobody is
/// compared with: they are not to be kept again.
///
/// # Errors
/// When the database is out of reach.
pub async fn erased(pool: &Pool, photos: &[Digest]) -> Result<HashSet<Digest>, sqlx::Error> {
    let asked: Vec<_> = photos.iter().map(|photo| photo.0.to_vec()).collect();
    let found: Vec<Vec<u8>> = sqlx::query_scalar(
        "select photo from read.photos where photo = any($1) group by photo \
         having bool_and(erased) \
         except select photo from read.reference_photos where photo = any($1) and stands",
    )
    .bind(asked)
    .fetch_all(pool)
    .await?;
    Ok(digests(found))
}

/// The punches that name a photo and don't know yet that it came.
///
/// # Errors
/// When the database is out of reach.
pub async fn awaiting(pool: &Pool, photo: Digest) -> Result<Vec<PunchId>, sqlx::Error> {
    let punches: Vec<Uuid> = sqlx::query_scalar(
        "select punch from read.photos where photo = $1 and site is not null \
         and received_at is null order by punch limit $2",
    )
    .bind(photo.0.as_slice())
    .bind(AWAITING_MAX)
    .fetch_all(pool)
    .await?;
    Ok(punches.into_iter().map(PunchId).collect())
}

/// So many punches that name one photo are told at once that it came; more are none of a device
/// that is right.
const AWAITING_MAX: i64 = 100;

/// Punches that wait for a verdict and whose time is over, the longest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn overdue(pool: &Pool, limit: u32) -> Result<Vec<PunchId>, sqlx::Error> {
    let punches: Vec<Uuid> = sqlx::query_scalar(
        "select punch from read.verifications where due_at <= now() order by due_at limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    Ok(punches.into_iter().map(PunchId).collect())
}

/// A photo of a punch whose bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptPhoto {
    pub photo: Digest,
    pub punch: PunchId,
}

/// What is kept of a person's punches, after that one.
///
/// # Errors
/// When the database is out of reach.
pub async fn kept_of(
    pool: &Pool,
    employee: EmployeeId,
    limit: u32,
) -> Result<Vec<KeptPhoto>, sqlx::Error> {
    sqlx::query(
        "select photo, punch from read.photos where employee = $1 and received_at is not null \
         and not erased order by photo limit $2",
    )
    .bind(employee.uuid())
    .bind(i64::from(limit))
    .try_map(|row| kept(&row))
    .fetch_all(pool)
    .await
}

/// What a site has kept since before then.
///
/// # Errors
/// When the database is out of reach.
pub async fn kept_since(
    pool: &Pool,
    site: SiteId,
    before: Time,
    limit: u32,
) -> Result<Vec<KeptPhoto>, sqlx::Error> {
    sqlx::query(
        "select photo, punch from read.photos where site = $1 and received_at < $2 \
         and received_at is not null and not erased order by received_at limit $3",
    )
    .bind(site.uuid())
    .bind(before.timestamp().to_sqlx())
    .bind(i64::from(limit))
    .try_map(|row| kept(&row))
    .fetch_all(pool)
    .await
}

fn kept(row: &PgRow) -> Result<KeptPhoto, sqlx::Error> {
    Ok(KeptPhoto { photo: digest(row)?, punch: PunchId(row.try_get("punch")?) })
}

fn digest(row: &PgRow) -> Result<Digest, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get("photo")?;
    let length = || sqlx::Error::Decode("a digest has 32 bytes".into());
    bytes.try_into().map(Digest).map_err(|_| length())
}

/// Whether a photo is of a punch at one of these sites, or a reference photo of somebody who works
/// there.
///
/// # Errors
/// When the database is out of reach.
pub async fn is_of_sites(
    pool: &Pool,
    photo: Digest,
    sites: &[SiteId],
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from read.photos where photo = $1 and site = any($2)) \
         or exists (select from read.reference_photos r join read.roster at using (employee) \
             where r.photo = $1 and at.site = any($2))",
    )
    .bind(photo.0.as_slice())
    .bind(ids(sites))
    .fetch_one(pool)
    .await
}

/// Every photo that a person was ever compared with.
///
/// # Errors
/// When the database is out of reach.
pub async fn references_of(
    pool: &Pool,
    employee: EmployeeId,
) -> Result<Vec<(Digest, bool)>, sqlx::Error> {
    sqlx::query("select photo, stands from read.reference_photos where employee = $1")
        .bind(employee.uuid())
        .try_map(|row: PgRow| Ok((digest(&row)?, row.try_get("stands")?)))
        .fetch_all(pool)
        .await
}
