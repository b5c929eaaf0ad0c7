//! Device tokens and operators' keys: made here, shown once, kept only as SHA-256 digests.
//!
//! A token holds 256 random bits, so a plain digest is enough: there is nothing to guess, and a
//! copy of the database lets nobody in. A request is checked by one look-up.

use std::{collections::HashMap, fmt};

use jiff_sqlx::Timestamp;
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, SiteId, Time,
    signing::{PublicKey, to_base64url},
};
use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow};

use crate::postgres::Pool;
use uuid::Uuid;

/// How a device's token starts.
pub const DEVICE_TOKEN_PREFIX: &str = "ptd_";
/// How an operator's key starts.
pub const OPERATOR_KEY_PREFIX: &str = "ptk_";
const SECRET_BYTES: usize = 32;
/// The longest text that can be a token: prefix and 32 bytes in base64url.
const TOKEN_CHARS: usize = 4 + 43;

/// A secret that is shown once. It isn't printed by accident.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    fn new(prefix: &str) -> Self {
        let bytes: [u8; SECRET_BYTES] = rand::random();
        Self(format!("{prefix}{}", to_base64url(&bytes)))
    }

    /// A device's new token.
    pub fn device_token() -> Self {
        Self::new(DEVICE_TOKEN_PREFIX)
    }

    /// The text, to be shown to the one it is for.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A device whose token was found good.
#[derive(Debug, Clone)]
pub struct DeviceAccess {
    pub device: DeviceId,
    /// The key that signs its captures.
    pub key: PublicKey,
    /// Whether its access has ended: it may deliver what it holds, and reads nothing.
    pub revoked: bool,
    /// Every site it was ever assigned to, the present one last.
    pub sites: Vec<SiteId>,
    /// How many of its items ever went into quarantine.
    pub quarantined: u64,
}

/// An operator whose key was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorKey {
    /// The key's id, which events name.
    pub id: Uuid,
    /// The worker whose key it is, if one's: nobody rules on their own.
    pub employee: Option<EmployeeId>,
}

fn plausible(token: &str, prefix: &str) -> bool {
    token.len() == TOKEN_CHARS && token.starts_with(prefix)
}

/// The device that a token belongs to; none when it is nobody's.
///
/// # Errors
/// When the database is out of reach.
pub async fn device_of_token(
    writer: &Pool,
    token: &str,
) -> Result<Option<DeviceAccess>, sqlx::Error> {
    if !plausible(token, DEVICE_TOKEN_PREFIX) {
        return Ok(None);
    }
    sqlx::query(
        "select device, public_key, revoked_at is not null as revoked, array(select site from \
         device_sites s where s.device = c.device order by ordinal) as sites, \
         coalesce((select quarantined from device_progress p where p.device = c.device), 0) \
         as quarantined \
         from device_credentials c where token_hash = $1",
    )
    .bind(Digest::of(token.as_bytes()).0.as_slice())
    .try_map(|row: PgRow| {
        let bytes: Vec<u8> = row.try_get("public_key")?;
        let sites: Vec<Uuid> = row.try_get("sites")?;
        Ok(DeviceAccess {
            device: DeviceId(row.try_get("device")?),
            key: public_key(&bytes)?,
            revoked: row.try_get("revoked")?,
            sites: sites.into_iter().map(SiteId).collect(),
            quarantined: row.try_get::<i64, _>("quarantined")?.cast_unsigned(),
        })
    })
    .fetch_optional(writer)
    .await
}

fn public_key(bytes: &[u8]) -> Result<PublicKey, sqlx::Error> {
    let bytes = bytes.try_into().map_err(|_| sqlx::Error::Decode("a key has 32 bytes".into()))?;
    PublicKey::kept(bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Keeps a device's key and the digest of its token.
///
/// # Errors
/// When the database is out of reach, or the device has credentials already.
pub async fn insert_device(
    connection: &mut PgConnection,
    device: DeviceId,
    token_digest: Digest,
    key: &PublicKey,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into device_credentials (device, token_hash, public_key) values ($1, $2, $3)",
    )
    .bind(device.uuid())
    .bind(token_digest.0.as_slice())
    .bind(key.to_bytes().as_slice())
    .execute(connection)
    .await
    .map(drop)
}

/// Ends a device's reading; what it holds it may still deliver.
///
/// # Errors
/// When the database is out of reach.
pub async fn revoke_device(
    connection: &mut PgConnection,
    device: DeviceId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update device_credentials set revoked_at = now() where device = $1 and revoked_at is null",
    )
    .bind(device.uuid())
    .execute(connection)
    .await
    .map(drop)
}

/// Makes a key for an operator; `name` says whose or what for, `employee` which worker's it is, if
/// one's.
///
/// # Errors
/// When the database is out of reach.
pub async fn create_operator_key(
    writer: &Pool,
    name: &str,
    employee: Option<EmployeeId>,
) -> Result<(OperatorKey, Secret), sqlx::Error> {
    let (id, secret) = (Uuid::now_v7(), Secret::new(OPERATOR_KEY_PREFIX));
    sqlx::query("insert into operator_keys (id, key_hash, name, employee) values ($1, $2, $3, $4)")
        .bind(id)
        .bind(secret.digest().0.as_slice())
        .bind(name)
        .bind(employee.map(EmployeeId::uuid))
        .execute(writer)
        .await?;
    Ok((OperatorKey { id, employee }, secret))
}

/// The operator that a key belongs to; none when it is nobody's or was revoked.
///
/// # Errors
/// When the database is out of reach.
pub async fn operator_of_key(writer: &Pool, key: &str) -> Result<Option<OperatorKey>, sqlx::Error> {
    if !plausible(key, OPERATOR_KEY_PREFIX) {
        return Ok(None);
    }
    let found: Option<(Uuid, Option<Uuid>)> = sqlx::query_as(
        "select id, employee from operator_keys where key_hash = $1 and revoked_at is null",
    )
    .bind(Digest::of(key.as_bytes()).0.as_slice())
    .fetch_optional(writer)
    .await?;
    let key =
        |(id, employee): (_, Option<_>)| OperatorKey { id, employee: employee.map(EmployeeId) };
    Ok(found.map(key))
}

/// A key as it is listed: never the key itself, which isn't kept.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedKey {
    /// The key's id, which events name.
    pub id: Uuid,
    /// Whose it is, or what for.
    pub name: String,
    /// The worker whose key it is, if one's.
    pub employee: Option<EmployeeId>,
    pub created_at: Time,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Time>,
}

/// Every operator's key, oldest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn operator_keys(writer: &Pool) -> Result<Vec<ListedKey>, sqlx::Error> {
    sqlx::query("select id, name, employee, created_at, revoked_at from operator_keys order by id")
        .try_map(|row: PgRow| {
            let time = |at: Timestamp| Time::from(at.to_jiff());
            Ok(ListedKey {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
                created_at: time(row.try_get("created_at")?),
                revoked_at: row.try_get::<Option<Timestamp>, _>("revoked_at")?.map(time),
            })
        })
        .fetch_all(writer)
        .await
}

/// The names of these operators' keys, revoked ones, too.
///
/// # Errors
/// When the database is out of reach.
pub async fn operator_key_names(
    executor: impl PgExecutor<'_>,
    keys: &[Uuid],
) -> Result<HashMap<Uuid, String>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<(Uuid, String)> =
        sqlx::query_as("select id, name from operator_keys where id = any($1)")
            .bind(keys)
            .fetch_all(executor)
            .await?;
    Ok(names.into_iter().collect())
}

/// Ends a key's access, and gives when that was; none when there is no such key.
///
/// # Errors
/// When the database is out of reach.
pub async fn revoke_operator_key(writer: &Pool, id: Uuid) -> Result<Option<Time>, sqlx::Error> {
    let revoked_at: Option<Timestamp> = sqlx::query_scalar(
        "update operator_keys set revoked_at = coalesce(revoked_at, now()) where id = $1 \
         returning revoked_at",
    )
    .bind(id)
    .fetch_optional(writer)
    .await?;
    Ok(revoked_at.map(|at| at.to_jiff().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[test]
    fn a_secret_is_not_printed_by_accident() {
        let secret = Secret::device_token();
        assert!(plausible(secret.reveal(), DEVICE_TOKEN_PREFIX));
        assert!(!format!("{secret:?}").contains(secret.reveal()));
    }

    #[tokio::test]
    async fn a_key_opens_until_it_is_revoked_and_is_not_kept() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let (key, secret) = create_operator_key(&pools.writer, "payroll", None).await.unwrap();
        let found = operator_of_key(&pools.writer, secret.reveal()).await.unwrap();
        assert_eq!(found, Some(key));
        let wrong = Secret::new(OPERATOR_KEY_PREFIX);
        assert_eq!(operator_of_key(&pools.writer, wrong.reveal()).await.unwrap(), None);
        let kept: Vec<u8> = sqlx::query_scalar("select key_hash from operator_keys")
            .fetch_one(&pools.writer)
            .await
            .unwrap();
        assert_eq!(kept, Digest::of(secret.reveal().as_bytes()).0);
        let revoked = revoke_operator_key(&pools.writer, key.id).await.unwrap();
        assert!(revoked.is_some());
        let again = revoke_operator_key(&pools.writer, key.id).await.unwrap();
        assert_eq!(again, revoked, "the first time stands");
        assert_eq!(operator_of_key(&pools.writer, secret.reveal()).await.unwrap(), None);
        pools.close().await;
        database.close().await;
    }
}
