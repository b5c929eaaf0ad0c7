//! This deployment: whose ledger it is, and the key that authenticates cursors. Made on the first
//! start and never changed: another organisation would make every enrolled device's captures
//! foreign.

use std::fmt;

use punchtrail_protocol::OrgId;
use sqlx::{Row, postgres::PgRow};

use crate::postgres::Pool;
use uuid::Uuid;

/// The key's length, that of an HMAC-SHA256 block's digest.
const CURSOR_KEY_BYTES: usize = 32;

/// What one deployment is known by.
#[derive(Clone, Copy)]
pub struct Deployment {
    /// The organisation whose ledger this is.
    pub org: OrgId,
    /// Authenticates cursors. Whoever has it can make a cursor, which shows only what its bearer
    /// may see anyway, and can hide a restore from a device.
    pub cursor_key: [u8; CURSOR_KEY_BYTES],
}

impl fmt::Debug for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployment").field("org", &self.org).finish_non_exhaustive()
    }
}

impl Deployment {
    /// Reads the deployment, and makes it when there is none. Of two that make it at once, one wins
    /// and both read that one.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn open(writer: &Pool) -> Result<Self, sqlx::Error> {
        if let Some(found) = Self::existing(writer).await? {
            return Ok(found);
        }
        let key: [u8; CURSOR_KEY_BYTES] = rand::random();
        sqlx::query(
            "insert into deployment (org, cursor_key) values ($1, $2) on conflict do nothing",
        )
        .bind(Uuid::new_v4())
        .bind(key.as_slice())
        .execute(writer)
        .await?;
        Self::existing(writer).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Reads the deployment; none before the first start.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn existing(writer: &Pool) -> Result<Option<Self>, sqlx::Error> {
        sqlx::query("select org, cursor_key from deployment")
            .try_map(|row: PgRow| {
                let key: Vec<u8> = row.try_get("cursor_key")?;
                let cursor_key = key
                    .try_into()
                    .map_err(|_| sqlx::Error::Decode("the cursor key has another length".into()))?;
                Ok(Self { org: OrgId(row.try_get("org")?), cursor_key })
            })
            .fetch_optional(writer)
            .await
    }
}

/// The version of the schema, as migrated; none before the first migration.
///
/// # Errors
/// When the database is out of reach.
pub async fn schema_version(owner: &Pool) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
        .fetch_one(owner)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn of_many_first_starts_at_once_all_read_the_same() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let opened =
            futures::future::join_all((0..8).map(|_| Deployment::open(&pools.writer))).await;
        let keys: std::collections::HashSet<_> =
            opened.into_iter().map(|one| one.map(|d| (d.org, d.cursor_key)).unwrap()).collect();
        assert_eq!(keys.len(), 1);
        pools.close().await;
        database.close().await;
    }
}
