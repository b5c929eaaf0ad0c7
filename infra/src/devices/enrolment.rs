//! Pairing codes, and the enrolment of devices by them.
//!
//! A code is used up in the transaction that makes the device, so of any number of devices that try
//! it at once exactly one is enrolled. Wrong, used and expired codes look the same from outside.

use jiff_sqlx::Timestamp;
use punchtrail_domain::device::{Device, DeviceCommand, DeviceError};
use punchtrail_protocol::{
    DeviceId, Digest, OrgId, Position, SiteId, Time,
    signing::PublicKey,
    wire::{PAIRING_ALPHABET, PAIRING_CODE_CHARS, PAIRING_CODE_LIFE_S},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    access::credentials::{self, Secret},
    ledger::{AppendError, ExecuteError, Ledger, Metadata, SideWrite},
    people::directory,
    postgres::Pool,
};

/// A pairing code, to be shown to the person at the device.
#[derive(Clone)]
pub struct PairingCode {
    letters: String,
    /// When it can no longer be used.
    pub expires_at: Time,
}

impl PairingCode {
    /// The code as it is shown, `BCDF-GHJK`.
    pub fn shown(&self) -> String {
        let (left, right) = self.letters.split_at(PAIRING_CODE_CHARS / 2);
        format!("{left}-{right}")
    }
}

/// Makes a code for a site.
///
/// # Errors
/// When the database is out of reach.
pub async fn make_code(writer: &Pool, site: SiteId) -> Result<PairingCode, sqlx::Error> {
    let letter = |_| char::from(PAIRING_ALPHABET[rand::random_range(0..PAIRING_ALPHABET.len())]);
    let letters: String = (0..PAIRING_CODE_CHARS).map(letter).collect();
    let expires_at: Timestamp = sqlx::query_scalar(
        "insert into pairing_codes (code_hash, site, expires_at) \
         values ($1, $2, now() + make_interval(secs => $3)) returning expires_at",
    )
    .bind(code_digest(&letters).0.as_slice())
    .bind(site.uuid())
    .bind(f64::from(PAIRING_CODE_LIFE_S))
    .fetch_one(writer)
    .await?;
    Ok(PairingCode { letters, expires_at: expires_at.to_jiff().into() })
}

fn code_digest(letters: &str) -> Digest {
    Digest::of_parts(&[b"punchtrail.pairing.v1", letters.as_bytes()])
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
    let code = code_digest(&enrolment.code);
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
                    credentials::insert_device(connection, device, &token, &enrolment.key).await?;
                    assign_site(connection, device, site).await?;
                    directory::put_device(connection, device, &enrolment.name).await
                })
            }))
        })
        .await;
    match executed {
        Ok(executed) => Ok(EnrolledDevice { device, site, token, position: executed.position }),
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
