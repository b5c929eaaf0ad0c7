//! Who looked at which photo. Written down before anybody sees one.

use jiff_sqlx::Timestamp;
use punchtrail_domain::log::recorded::Actor;
use punchtrail_protocol::{Digest, Time};
use sqlx::{Row, postgres::PgRow};

use crate::postgres::Pool;

/// The most that are told of at once.
pub const READS_TOLD_MAX: u32 = 1_000;

/// A look at a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoRead {
    /// Who looked, as events name an actor.
    pub reader: String,
    /// The request, for the operator's log.
    pub request: Option<String>,
    pub at: Time,
}

/// Notes that somebody looks at a photo.
///
/// # Errors
/// When the database is out of reach: then nobody sees it.
pub async fn note(
    writer: &Pool,
    photo: Digest,
    reader: &Actor,
    request: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query("insert into photo_reads (photo, reader, request) values ($1, $2, $3)")
        .bind(photo.0.as_slice())
        .bind(reader.to_string())
        .bind(request)
        .execute(writer)
        .await
        .map(drop)
}

/// Who looked at a photo, the newest first; at most [`READS_TOLD_MAX`].
///
/// # Errors
/// When the database is out of reach.
pub async fn of(reader: &Pool, photo: Digest) -> Result<Vec<PhotoRead>, sqlx::Error> {
    sqlx::query(
        "select reader, request, read_at from photo_reads where photo = $1 \
         order by id desc limit $2",
    )
    .bind(photo.0.as_slice())
    .bind(i64::from(READS_TOLD_MAX))
    .try_map(|row: PgRow| {
        let at: Timestamp = row.try_get("read_at")?;
        Ok(PhotoRead {
            reader: row.try_get("reader")?,
            request: row.try_get("request")?,
            at: at.to_jiff().into(),
        })
    })
    .fetch_all(reader)
    .await
}
