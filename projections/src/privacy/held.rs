//! What is held of a person beside their punches: notes, pictures, items in quarantine.

use std::time::Duration;

use punchtrail_infra::postgres::{Pool, within};
use punchtrail_protocol::{Digest, EmployeeId, Position, PunchId};
use serde::Serialize;
use sqlx::{Row, postgres::PgRow};

use crate::{punches::photos::KeptPhoto, rulings::quarantine};

/// Items that are read together.
const ITEMS_PAGE: u32 = 500;
/// How long a page of them may take.
const PAGE_MAX: Duration = Duration::from_secs(30);

/// A note that an event about a person names. The note itself may be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedNote {
    pub digest: Digest,
    /// Where the event stands that names it.
    pub position: Position,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
}

/// The events that are about a person, by their streams: a kind of aggregate a line.
const STREAMS: &str = "with streams (kind, id) as ( \
     select 'employee', $1::uuid::text \
     union all select 'punch', punch::text from read.timeline where employee = $1 \
     union all select 'quarantine', encode(item, 'hex') from read.quarantine where employee = $1 \
     union all select 'dispute', dispute::text from read.disputes where employee = $1)";

/// Every note that events about a person name, in the order of the ledger.
///
/// # Errors
/// When the database is out of reach.
pub async fn notes(pool: &Pool, employee: EmployeeId) -> Result<Vec<NamedNote>, sqlx::Error> {
    let statement = format!(
        "{STREAMS} select * from (select decode(event.payload -> event.event_type ->> 'note', \
             'hex') as note, event.position, event.aggregate_type, event.aggregate_id, \
             event.event_type from streams cross join lateral (select * from events \
             where aggregate_type = streams.kind and aggregate_id = streams.id offset 0) event) \
             as named \
         where note is not null order by position"
    );
    sqlx::query(&statement)
        .bind(employee.uuid())
        .try_map(|row: PgRow| {
            Ok(NamedNote {
                digest: digest(&row, "note")?,
                position: Position::from_db(row.try_get("position")?),
                aggregate_type: row.try_get("aggregate_type")?,
                aggregate_id: row.try_get("aggregate_id")?,
                event_type: row.try_get("event_type")?,
            })
        })
        .fetch_all(pool)
        .await
}

/// How many pictures of a person's punches are kept, and how many reference photos.
///
/// # Errors
/// When the database is out of reach.
pub async fn pictures(pool: &Pool, employee: EmployeeId) -> Result<(u64, u64), sqlx::Error> {
    let (photos, references): (i64, i64) = sqlx::query_as(
        "select (select count(*) from read.photos where employee = $1 \
             and received_at is not null and not erased), \
         (select count(*) from read.reference_photos where employee = $1 and stands)",
    )
    .bind(employee.uuid())
    .fetch_one(pool)
    .await?;
    Ok((photos.cast_unsigned(), references.cast_unsigned()))
}

/// The pictures of a person's punches whose bytes are kept, in the order of their digests, after
/// that one; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn photos_after(
    pool: &Pool,
    employee: EmployeeId,
    after: Option<KeptPhoto>,
    limit: u32,
) -> Result<Vec<KeptPhoto>, sqlx::Error> {
    let (photo, punch) =
        after.map_or((Vec::new(), PunchId::NIL), |kept| (kept.photo.0.to_vec(), kept.punch));
    sqlx::query(
        "select photo, punch from read.photos where employee = $1 and received_at is not null \
         and not erased and (photo, punch) > ($2, $3) order by photo, punch limit $4",
    )
    .bind(employee.uuid())
    .bind(photo)
    .bind(punch.uuid())
    .bind(i64::from(limit))
    .try_map(|row: PgRow| {
        Ok(KeptPhoto { photo: digest(&row, "photo")?, punch: PunchId(row.try_get("punch")?) })
    })
    .fetch_all(pool)
    .await
}

/// The items that say to be a person's punches, whatever became of them, in the order they came
/// after that position; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn items_after(
    pool: &Pool,
    employee: EmployeeId,
    after: Position,
    limit: u32,
) -> Result<Vec<(Digest, Position)>, sqlx::Error> {
    sqlx::query(
        "select item, position from read.quarantine where employee = $1 and position > $2 \
         order by position limit $3",
    )
    .bind(employee.uuid())
    .bind(after.to_db())
    .bind(i64::from(limit))
    .try_map(|row: PgRow| Ok((digest(&row, "item")?, Position::from_db(row.try_get("position")?))))
    .fetch_all(pool)
    .await
}

/// The pictures that items say to be of a person's punches, and that no punch names: no event says
/// of these that they came.
///
/// # Errors
/// When the database is out of reach.
pub async fn photos_of_items(
    pool: &Pool,
    employee: EmployeeId,
) -> Result<Vec<Digest>, sqlx::Error> {
    let (mut photos, mut after) = (Vec::new(), Position::START);
    loop {
        let items = items_after(pool, employee, after, ITEMS_PAGE).await?;
        let Some((_, last)) = items.last().copied() else { break };
        after = last;
        let said = within(PAGE_MAX, async {
            let mut connection = pool.acquire().await?;
            quarantine::said(&mut connection, items.into_iter().map(|(id, _)| id)).await
        })
        .await?;
        photos.extend(said.into_values().filter_map(|capture| capture.photo));
    }
    let asked: Vec<Vec<u8>> = photos.iter().map(|photo| photo.0.to_vec()).collect();
    sqlx::query(
        "select photo from unnest($1::bytea[]) as asked (photo) where not exists (select from \
         read.photos named where named.photo = asked.photo and named.site is not null)",
    )
    .bind(asked)
    .try_map(|row: PgRow| digest(&row, "photo"))
    .fetch_all(pool)
    .await
}

fn digest(row: &PgRow, column: &str) -> Result<Digest, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    let length = || sqlx::Error::Decode("a digest has 32 bytes".into());
    bytes.try_into().map(Digest).map_err(|_| length())
}
