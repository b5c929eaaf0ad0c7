//! Whether the photos that punches name came: their bytes are in the store, and the punches know.

use std::path::Path;

use punchtrail_protocol::Digest;
use punchtrail_testkit::eventually;
use serde::Serialize;
use sqlx::PgPool;

use crate::fleet::SETTLE_MAX;

/// Punches whose photo didn't come, as far as they know.
const UNTOLD: &str = "select count(*) from read.photos where received_at is null";

/// What was found of the photos that punches name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    pub named: u64,
    /// Punches that don't know that theirs came.
    pub untold: u64,
    /// Photos that aren't in the store.
    pub missing: u64,
}

/// Waits until every punch with a photo was told that it came: the follower that tells those whose
/// photo was there first may be behind.
pub async fn told(pool: &PgPool) -> anyhow::Result<()> {
    eventually("every punch told that its photo came", SETTLE_MAX, async || {
        let untold: i64 = sqlx::query_scalar(UNTOLD).fetch_one(pool).await?;
        Ok((untold == 0).then_some(()))
    })
    .await
}

/// Looks for them in the database, and in the `store`, which is a folder by the digests' digits.
pub async fn found(pool: &PgPool, store: &Path) -> anyhow::Result<Found> {
    let untold: i64 = sqlx::query_scalar(UNTOLD).fetch_one(pool).await?;
    let named: Vec<Vec<u8>> =
        sqlx::query_scalar("select photo from read.photos").fetch_all(pool).await?;
    let is_there = |photo: &Vec<u8>| {
        let digits =
            <[u8; 32]>::try_from(photo.as_slice()).map(|digest| Digest(digest).to_string());
        digits.is_ok_and(|digits| store.join(&digits[..2]).join(&digits[2..]).is_file())
    };
    let missing = named.iter().filter(|photo| !is_there(photo)).count();
    Ok(Found { named: named.len() as u64, untold: u64::try_from(untold)?, missing: missing as u64 })
}
