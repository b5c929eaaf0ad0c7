//! Pairing codes, and the enrolment of devices by them.
//!
//! A code is used up in the transaction that makes the device, so of any number of devices that try
//! it at once exactly one is enrolled. Wrong, used and expired codes look the same from outside.

use punchtrail_domain::device::{Device, DeviceCommand, DeviceError};
use punchtrail_protocol::{DeviceId, Digest, OrgId, Position, SiteId, signing::PublicKey};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    access::{
        codes::{self, Issued},
        credentials::{self, Secret},
    },
    ledger::{AppendError, ExecuteError, Ledger, Metadata, SideWrite},
    people::directory,
    postgres::Pool,
};

/// What a pairing code is kept for.
const PAIRING: &[u8] = b"punchtrail.pairing.v1";

/// Makes a code for a site, to be shown to the person at the device.
///
/// # Errors
/// When the database is out of reach.
pub async fn make_code(writer: &Pool, site: SiteId) -> Result<Issued, sqlx::Error> {
    let insert = "insert into pairing_codes (code_hash, site, expires_at) values ($1, $2, $3)";
    codes::make(writer, PAIRING, insert, site.uuid()).await
}

/// Forgets codes that nobody could use for a day.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget_codes(writer: &Pool) -> Result<(), sqlx::Error> {
    sqlx::query("delete from pairing_codes where expires_at < now() - interval '1 day'")
        .execute(writer)
        .await
        .map(drop)
}

/// A device that asks to be enrolled; its proof was found good.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The code's eight upper-case letters.
    pub code: String,
    /// The device's name, for people.
    pub name: String,
    pub key: PublicKey,
    pub app: String,
}

/// A device that was enrolled.
#[derive(Debug)]
pub struct EnrolledDevice {
    pub device: DeviceId,
    pub site: SiteId,
    /// Its token, shown this once.
    pub token: Secret,
    /// Position of the last of its events.
    pub position: Position,
    name: String,
    key: PublicKey,
    app: String,
}

impl EnrolledDevice {
    /// What is certified of this enrolment.
    pub fn certified(&self) -> Certified {
        Certified {
            device: self.device,
            site: self.site,
            name: self.name.clone(),
            key: self.key,
            app: self.app.clone(),
            token_digest: self.token.digest(),
        }
    }
}

/// All that an enrolment made, for a server that went back to before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certified {
    pub device: DeviceId,
    pub site: SiteId,
    pub name: String,
    pub key: PublicKey,
    pub app: String,
    pub token_digest: Digest,
}

/// What became of a device that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comeback {
    /// It wasn't known, and is again as it was enrolled.
    Taken,
    /// It is known, and nothing was changed.
    Known,
    Revoked,
}

/// Takes back a device that the ledger doesn't know, as it was enrolled. Whoever calls has seen to
/// it that this deployment certified that, and that the device holds the key.
///
/// # Errors
/// See [`EnrolmentError`].
pub async fn come_back(
    ledger: &Ledger,
    org: OrgId,
    certified: Certified,
) -> Result<Comeback, EnrolmentError> {
    let Certified { device, site, key, ref app, .. } = certified;
    let known = ledger.load::<Device>(&device.to_string()).await.map_err(ExecuteError::Load)?;
    if known.sequence > 0 {
        let revoked = known.aggregate.revoked_at().is_some();
        return Ok(if revoked { Comeback::Revoked } else { Comeback::Known });
    }
    let metadata = Metadata::new(punchtrail_domain::log::recorded::Actor::Device(device));
    let command = DeviceCommand::Enroll { org, site, key, app: app.clone() };
    let side = || {
        let certified = certified.clone();
        Some(SideWrite::new(move |connection| {
            let certified = certified.clone();
            Box::pin(async move {
                let Certified { device, site, token_digest, .. } = certified;
                credentials::insert_device(connection, device, token_digest, &certified.key)
                    .await?;
                assign_site(connection, device, site).await?;
                directory::put_device(connection, device, &certified.name).await
            })
        }))
    };
    match ledger.execute_with::<Device>(&device.to_string(), command, &metadata, side).await {
        Ok(_) => Ok(Comeback::Taken),
        // It came twice at once.
        Err(ExecuteError::Refused(DeviceError::Exists)) => Ok(Comeback::Known),
        Err(error) => Err(error.into()),
    }
}

/// Why a device was not enrolled. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The code is wrong, used or expired.
    #[error("the pairing code is wrong, used or expired")]
    CodeInvalid,
    /// The ledger did not take it.
    #[error(transparent)]
    Ledger(#[from] ExecuteError<DeviceError>),
    /// The database is out of reach.
    #[error("the database is out of reach")]
    Database(#[from] sqlx::Error),
}

/// Enrols a device by a pairing code.
///
/// # Errors
/// See [`EnrolmentError`].
pub async fn enroll(
    ledger: &Ledger,
    org: OrgId,
    enrolment: Enrolment,
) -> Result<EnrolledDevice, EnrolmentError> {
    let code = codes::digest(PAIRING, &enrolment.code);
    let site = open_code(ledger.pool(), code).await?.ok_or(EnrolmentError::CodeInvalid)?;
    let device = DeviceId(Uuid::now_v7());
    let token = Secret::device_token();
    let metadata = Metadata::new(punchtrail_domain::log::recorded::Actor::Device(device));
    let command =
        DeviceCommand::Enroll { org, site, key: enrolment.key, app: enrolment.app.clone() };
    let executed = ledger
        .execute_with::<Device>(&device.to_string(), command, &metadata, || {
            let (token, enrolment) = (token.clone(), enrolment.clone());
            Some(SideWrite::new(move |connection| {
                let (token, enrolment) = (token.clone(), enrolment.clone());
                Box::pin(async move {
                    use_up(connection, code).await?;
                    let token = token.digest();
                    credentials::insert_device(connection, device, token, &enrolment.key).await?;
                    assign_site(connection, device, site).await?;
                    directory::put_device(connection, device, &enrolment.name).await
                })
            }))
        })
        .await;
    match executed {
        Ok(executed) => {
            let (position, Enrolment { name, key, app, .. }) = (executed.position, enrolment);
            Ok(EnrolledDevice { device, site, token, position, name, key, app })
        }
        Err(ExecuteError::Append(AppendError::Side(sqlx::Error::RowNotFound))) => {
            Err(EnrolmentError::CodeInvalid)
        }
        Err(error) => Err(error.into()),
    }
}

async fn open_code(writer: &Pool, code: Digest) -> Result<Option<SiteId>, sqlx::Error> {
    let site: Option<Uuid> = sqlx::query_scalar(
        "select site from pairing_codes \
         where code_hash = $1 and used_at is null and expires_at > now()",
    )
    .bind(code.0.as_slice())
    .fetch_optional(writer)
    .await?;
    Ok(site.map(SiteId))
}

async fn use_up(connection: &mut PgConnection, code: Digest) -> Result<(), sqlx::Error> {
    let used = sqlx::query(
        "update pairing_codes set used_at = now() \
         where code_hash = $1 and used_at is null and expires_at > now()",
    )
    .bind(code.0.as_slice())
    .execute(connection)
    .await?;
    if used.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Makes a site the device's present one; it still delivers for its earlier ones.
///
/// # Errors
/// When the database is out of reach.
pub async fn assign_site(
    connection: &mut PgConnection,
    device: DeviceId,
    site: SiteId,
) -> Result<(), sqlx::Error> {
    sqlx::query("delete from device_sites where device = $1 and site = $2")
        .bind(device.uuid())
        .bind(site.uuid())
        .execute(&mut *connection)
        .await?;
    sqlx::query("insert into device_sites (device, site) values ($1, $2)")
        .bind(device.uuid())
        .bind(site.uuid())
        .execute(connection)
        .await
        .map(drop)
}
