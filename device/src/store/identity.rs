//! The identities of this folder: a row an enrolment, and the end of each one's chain.

use std::fmt;

use ed25519_dalek::SigningKey;
use punchtrail_protocol::{DeviceId, Digest, OrgId, SiteId, Time};
use sqlx::{Row, sqlite::SqliteRow};
use zeroize::Zeroizing;

use super::{Db, StoreError, contact, from_stored, to_stored};

/// Which enrolment of this folder, in their order.
pub type IdentityId = i64;

/// Who this device is to a server.
#[derive(Clone)]
pub struct Identity {
    /// Which enrolment of this folder.
    pub id: IdentityId,
    pub device: DeviceId,
    pub org: OrgId,
    /// Where it is, by what the server said last: stamped into what is made from now on.
    pub site: SiteId,
    pub server: String,
    /// The device's name, for people.
    pub name: String,
    pub token: Zeroizing<String>,
    /// Signs captures. Never leaves this folder.
    pub key: SigningKey,
    /// What the server sealed of the enrolment.
    pub certificate: Option<String>,
    /// The last capture's number; 0 if there is none.
    pub seq: u64,
    /// The last capture's digest; zeros if there is none.
    pub head: Digest,
    /// Whether a salvage ended its chain: it delivers, and captures no more.
    pub ended: bool,
    /// How many of its confirmed punches that salvage could not read, if anybody can know.
    pub unreadable: Option<u64>,
}

impl fmt::Debug for Identity {
    /// Without token and key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("device", &self.device)
            .field("site", &self.site)
            .field("server", &self.server)
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

fn read(row: &SqliteRow) -> Result<Identity, StoreError> {
    let id = |column: &str| -> Result<uuid::Uuid, StoreError> {
        let text: String = row.try_get(column)?;
        uuid::Uuid::try_parse(&text).map_err(StoreError::unreadable)
    };
    let key = Zeroizing::new(row.try_get::<Vec<u8>, _>("signing_key")?);
    let key: &[u8; 32] =
        key.as_slice().try_into().map_err(|_| StoreError::unreadable("the signing key"))?;
    let head: Vec<u8> = row.try_get("head")?;
    Ok(Identity {
        id: row.try_get("id")?,
        device: id("device")?.into(),
        org: id("org")?.into(),
        site: id("site")?.into(),
        server: row.try_get("server")?,
        name: row.try_get("name")?,
        token: Zeroizing::new(row.try_get("token")?),
        key: SigningKey::from_bytes(key),
        certificate: row.try_get("certificate")?,
        seq: from_stored(row.try_get("seq")?),
        ended: row.try_get::<Option<i64>, _>("ended_at_ms")?.is_some(),
        unreadable: row.try_get::<Option<i64>, _>("unreadable")?.map(from_stored),
        head: Digest(head.try_into().map_err(|_| StoreError::unreadable("the chain's head"))?),
    })
}

/// The current identity; none before the first enrolment.
///
/// # Errors
/// When the store refuses.
pub async fn current(db: Db<'_>) -> Result<Option<Identity>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM identity ORDER BY id DESC LIMIT 1").fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// One identity; none once it is retired.
///
/// # Errors
/// When the store refuses.
pub async fn by_id(db: Db<'_>, id: IdentityId) -> Result<Option<Identity>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM identity WHERE id = ?").bind(id).fetch_optional(db).await?;
    row.as_ref().map(read).transpose()
}

/// All identities, the oldest first, the current one last.
///
/// # Errors
/// When the store refuses.
pub async fn all(db: Db<'_>) -> Result<Vec<Identity>, StoreError> {
    sqlx::query("SELECT * FROM identity ORDER BY id")
        .fetch_all(db)
        .await?
        .iter()
        .map(read)
        .collect()
}

/// Becomes a new device. `identity.id`, `seq` and `head` are the store's to give.
///
/// # Errors
/// When the store refuses.
pub async fn add(db: Db<'_>, identity: &Identity, at: Time) -> Result<IdentityId, StoreError> {
    let id = sqlx::query_scalar(
        "INSERT INTO identity (device, org, site, server, name, token, signing_key, certificate,
             enrolled_at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(identity.device.to_string())
    .bind(identity.org.to_string())
    .bind(identity.site.to_string())
    .bind(&identity.server)
    .bind(&identity.name)
    .bind(identity.token.as_str())
    .bind(identity.key.to_bytes().to_vec())
    .bind(identity.certificate.as_deref())
    .bind(at.millis())
    .fetch_one(&mut *db)
    .await?;
    sqlx::query("INSERT INTO contact (identity) VALUES (?)").bind(id).execute(db).await?;
    Ok(id)
}

/// Moves the chain's end by `count` captures to the capture `seq` with digest `head`.
///
/// # Errors
/// [`StoreError::Damaged`] when the chain doesn't end there.
pub async fn advance(
    db: Db<'_>,
    id: IdentityId,
    count: u64,
    seq: u64,
    head: Digest,
) -> Result<(), StoreError> {
    let moved = sqlx::query("UPDATE identity SET seq = ?, head = ? WHERE id = ? AND seq = ? - ?")
        .bind(to_stored(seq))
        .bind(head.0.to_vec())
        .bind(id)
        .bind(to_stored(seq))
        .bind(to_stored(count))
        .execute(db)
        .await?;
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let first = (seq + 1).saturating_sub(count);
    Err(StoreError::Damaged(format!("the capture chain does not end before number {first}")))
}

/// The server says that the device is at `site`. If that is news, what is made from now on is made
/// there and the manifest is to be walked anew; until that is whole, the earlier people and policy
/// stand. Gives where it was, if it was elsewhere.
///
/// # Errors
/// When the store refuses.
pub async fn moved(db: Db<'_>, id: IdentityId, site: SiteId) -> Result<Option<SiteId>, StoreError> {
    let Some(known) = by_id(&mut *db, id).await?.filter(|known| known.site != site) else {
        return Ok(None);
    };
    sqlx::query("UPDATE identity SET site = ? WHERE id = ?")
        .bind(site.to_string())
        .bind(id)
        .execute(&mut *db)
        .await?;
    // Two sites' manifests may have versions that read the same.
    contact::forget_roster(db, id).await?;
    Ok(Some(known.site))
}

/// Removes an identity that isn't the current one and of which nothing is left here. Gives how
/// many.
///
/// # Errors
/// When the store refuses.
pub async fn retire_emptied(db: Db<'_>, id: IdentityId) -> Result<u64, StoreError> {
    let retired = sqlx::query(
        "DELETE FROM identity WHERE id = ?1 AND id < (SELECT max(id) FROM identity)
           AND NOT EXISTS (SELECT 1 FROM capture WHERE identity = ?1)
           AND NOT EXISTS (SELECT 1 FROM attachment WHERE identity = ?1)
           AND NOT EXISTS (SELECT 1 FROM dispute WHERE identity = ?1)
           AND NOT EXISTS (SELECT 1 FROM photo WHERE identity = ?1)
           AND NOT EXISTS (SELECT 1 FROM command WHERE identity = ?1 AND told = 0)",
    )
    .bind(id)
    .execute(db)
    .await?;
    Ok(retired.rows_affected())
}
