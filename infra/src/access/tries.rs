//! How often somebody failed lately, by whatever it is told apart by. It stands in the database, so
//! that a second node counts on.

use jiff_sqlx::ToSqlx as _;
use punchtrail_protocol::Digest;

use crate::postgres::Pool;

/// A count, with this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub tries: u64,
    /// In how many seconds it starts anew.
    pub over_in_s: u64,
}

/// Counts one more, in a window of so many seconds that begins with its first.
///
/// # Errors
/// When the database is out of reach.
pub async fn count(writer: &Pool, bucket: Digest, window_s: u32) -> Result<Counted, sqlx::Error> {
    let (tries, over_in_s): (i64, f64) = sqlx::query_as(
        "insert into sign_in_tries as held (bucket, since, tries) values ($1, now(), 1) \
         on conflict (bucket) do update set \
             tries = case when held.since <= now() - make_interval(secs => $2) \
                 then 1 else held.tries + 1 end, \
             since = case when held.since <= now() - make_interval(secs => $2) \
                 then now() else held.since end \
         returning tries, extract(epoch from since - now())::double precision + $2",
    )
    .bind(bucket.0.as_slice())
    .bind(f64::from(window_s))
    .fetch_one(writer)
    .await?;
    let over_in_s = over_in_s.ceil().max(1.0) as u64;
    Ok(Counted { tries: tries.cast_unsigned(), over_in_s })
}

/// Takes one back that was no failure.
///
/// # Errors
/// When the database is out of reach.
pub async fn take_back(writer: &Pool, bucket: Digest) -> Result<(), sqlx::Error> {
    sqlx::query("update sign_in_tries set tries = greatest(tries - 1, 0) where bucket = $1")
        .bind(bucket.0.as_slice())
        .execute(writer)
        .await
        .map(drop)
}

/// Forgets counts of before then.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget(writer: &Pool, before: jiff::Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query("delete from sign_in_tries where since < $1")
        .bind(before.to_sqlx())
        .execute(writer)
        .await
        .map(drop)
}
