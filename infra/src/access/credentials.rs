//! Tokens of devices, operators, sessions and browsers: made here, shown once, kept only as SHA-256
//! digests.
//!
//! A token holds 256 random bits, so a plain digest is enough: there is nothing to guess, and a
//! copy of the database lets nobody in. A request is checked by one look-up.

use std::fmt;

use punchtrail_protocol::{
    DeviceId, Digest, SiteId,
    signing::{PublicKey, to_base64url},
};
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::postgres::Pool;
use uuid::Uuid;

pub use super::keys::create_operator_key;

/// How a device's token starts.
pub const DEVICE_TOKEN_PREFIX: &str = "ptd_";
/// How an operator's key starts.
pub const OPERATOR_KEY_PREFIX: &str = "ptk_";
/// How a session's token starts.
pub const SESSION_TOKEN_PREFIX: &str = "pts_";
/// How a known browser's token starts.
pub const BROWSER_TOKEN_PREFIX: &str = "ptb_";
/// How the token of a browser starts that signs in by a provider.
pub const PROVIDER_TOKEN_PREFIX: &str = "pto_";
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

    /// A new key for an operator.
    pub fn operator_key() -> Self {
        Self::new(OPERATOR_KEY_PREFIX)
    }

    /// A session's new token.
    pub fn session_token() -> Self {
        Self::new(SESSION_TOKEN_PREFIX)
    }

    /// A known browser's new token.
    pub fn browser_token() -> Self {
        Self::new(BROWSER_TOKEN_PREFIX)
    }

    /// A new token of a browser that signs in by a provider.
    pub fn provider_token() -> Self {
        Self::new(PROVIDER_TOKEN_PREFIX)
    }

    /// What is kept of a token that somebody shows.
    pub fn digest_of(token: &str) -> Digest {
        Digest::of(token.as_bytes())
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

/// Whether a text can be such a token at all.
pub(super) fn plausible(token: &str, prefix: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_by_accident() {
        let secret = Secret::device_token();
        assert!(plausible(secret.reveal(), DEVICE_TOKEN_PREFIX));
        assert!(!format!("{secret:?}").contains(secret.reveal()));
    }
}
