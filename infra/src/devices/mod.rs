//! The devices, as an operator looks after them: listed, moved to another site, told what to do,
//! revoked.
//!
//! What devices say of themselves is current state, read here from its tables; what happened to
//! them is in the ledger. A device is never deleted: what it captured stands under its key.

pub mod commands;
pub mod delivery;
pub mod enrolment;
pub mod reports;

use jiff_sqlx::Timestamp;
use punchtrail_domain::device::{Device, DeviceCommand, DeviceError};
use punchtrail_protocol::{DeviceId, Position, SiteId, Time};
use sqlx::{Row, postgres::PgRow};

use crate::{
    access::credentials,
    ledger::{ExecuteError, Ledger, Metadata, SideWrite},
    postgres::Pool,
};

/// A device as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedDevice {
    pub device: DeviceId,
    pub name: Option<String>,
    pub site: Option<SiteId>,
    /// When its access ended, if it did.
    pub revoked_at: Option<Time>,
    /// When it last reported, by the server's clock.
    pub reported_at: Option<Time>,
    /// How many punches it held then that were not acknowledged.
    pub outbox: Option<u64>,
    /// Up to which number everything it captured is held.
    pub acked_through: u64,
    /// The highest of its numbers that is held.
    pub highest: u64,
    /// How many of the numbers that it made, by its last report or by what came since, aren't
    /// held. After a restore that is what it brings back; it itself believes then that nothing
    /// waits, until it hears of it.
    pub lacking: u64,
}

/// Every site that a device was ever assigned to, the present one last.
///
/// # Errors
/// When the database is out of reach.
pub async fn sites_of(reader: &Pool, device: DeviceId) -> Result<Vec<SiteId>, sqlx::Error> {
    let sites: Vec<uuid::Uuid> =
        sqlx::query_scalar("select site from device_sites where device = $1 order by ordinal")
            .bind(device.uuid())
            .fetch_all(reader)
            .await?;
    Ok(sites.into_iter().map(SiteId).collect())
}

/// Every device, oldest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(writer: &Pool) -> Result<Vec<ListedDevice>, sqlx::Error> {
    sqlx::query(
        "select c.device, d.name, s.site, c.revoked_at, r.reported_at, r.outbox, \
         held.through as acked_through, held.highest, \
         greatest(coalesce(r.seq, 0), held.highest) - held.through \
             - (select count(distinct seq) from device_chain chain \
                where chain.device = c.device and chain.seq > held.through) as lacking \
         from device_credentials c left join device_directory d using (device) \
         left join device_reports r using (device) \
         left join device_progress p using (device) \
         cross join lateral (select coalesce(p.acked_through, 0) as through, \
         coalesce(p.highest, 0) as highest) held left join lateral (select site \
         from device_sites where device = c.device \
         order by ordinal desc limit 1) s on true order by c.device",
    )
    .try_map(|row: PgRow| {
        let time = |column: &str| -> Result<Option<Time>, sqlx::Error> {
            let at: Option<Timestamp> = row.try_get(column)?;
            Ok(at.map(|at| at.to_jiff().into()))
        };
        Ok(ListedDevice {
            device: DeviceId(row.try_get("device")?),
            name: row.try_get("name")?,
            site: row.try_get::<Option<uuid::Uuid>, _>("site")?.map(SiteId),
            revoked_at: time("revoked_at")?,
            reported_at: time("reported_at")?,
            outbox: row.try_get::<Option<i64>, _>("outbox")?.map(i64::cast_unsigned),
            acked_through: row.try_get::<i64, _>("acked_through")?.cast_unsigned(),
            highest: row.try_get::<i64, _>("highest")?.cast_unsigned(),
            // Below nothing only if a report came out of order.
            lacking: row.try_get::<i64, _>("lacking")?.try_into().unwrap_or(0),
        })
    })
    .fetch_all(writer)
    .await
}

/// A device that may bring back what a restored server lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturningDevice {
    pub device: DeviceId,
    pub name: Option<String>,
    /// When it last reported, by the server's clock.
    pub reported_at: Option<Time>,
    /// How many of its numbers are held.
    pub held: u64,
    /// The highest of them.
    pub highest: u64,
    /// How many of the numbers that it made, by its last report or by what came since, aren't held.
    pub lacking: u64,
}

/// Every device that has access, oldest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn returning(writer: &Pool) -> Result<Vec<ReturningDevice>, sqlx::Error> {
    sqlx::query(
        "select c.device, d.name, r.reported_at, held.count, held.highest, \
         greatest(coalesce(r.seq, 0), held.highest) - held.count as lacking \
         from device_credentials c left join device_directory d using (device) \
         left join device_reports r using (device) left join device_progress p using (device) \
         cross join lateral (select coalesce(p.highest, 0) as highest, \
             coalesce(p.acked_through, 0) + (select count(distinct seq) from device_chain chain \
                 where chain.device = c.device and chain.seq > coalesce(p.acked_through, 0)) \
             as count) held where c.revoked_at is null order by c.device",
    )
    .try_map(|row: PgRow| {
        let at: Option<Timestamp> = row.try_get("reported_at")?;
        Ok(ReturningDevice {
            device: DeviceId(row.try_get("device")?),
            name: row.try_get("name")?,
            reported_at: at.map(|at| at.to_jiff().into()),
            held: row.try_get::<i64, _>("count")?.cast_unsigned(),
            highest: row.try_get::<i64, _>("highest")?.cast_unsigned(),
            lacking: row.try_get::<i64, _>("lacking")?.try_into().unwrap_or(0),
        })
    })
    .fetch_all(writer)
    .await
}

/// Ends a device's access. What it still holds it may deliver; that is referred to a person.
///
/// # Errors
/// When there is no such device, or the append was not made.
pub async fn revoke(
    ledger: &Ledger,
    device: DeviceId,
    at: Time,
    metadata: &Metadata,
) -> Result<Position, ExecuteError<DeviceError>> {
    let side = || {
        Some(SideWrite::new(move |connection| {
            Box::pin(credentials::revoke_device(connection, device))
        }))
    };
    let command = DeviceCommand::Revoke { at };
    let executed =
        ledger.execute_with::<Device>(&device.to_string(), command, metadata, side).await?;
    Ok(executed.position)
}

/// Makes a site the device's present one. It still delivers for its earlier ones.
///
/// # Errors
/// When there is no such device, or the append was not made.
pub async fn assign(
    ledger: &Ledger,
    device: DeviceId,
    site: SiteId,
    metadata: &Metadata,
) -> Result<Position, ExecuteError<DeviceError>> {
    let side = || {
        Some(SideWrite::new(move |connection| {
            Box::pin(enrolment::assign_site(connection, device, site))
        }))
    };
    let command = DeviceCommand::AssignSite { site };
    let executed =
        ledger.execute_with::<Device>(&device.to_string(), command, metadata, side).await?;
    Ok(executed.position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{devices::enrolment::Enrolment, testing::TestDatabase};
    use punchtrail_protocol::{BootId, OrgId, signing::PublicKey, wire::Heartbeat};
    use uuid::Uuid;

    #[tokio::test]
    async fn a_device_is_moved_and_revoked_and_listed_so() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let ledger = Ledger::open(pools.writer.clone()).await.unwrap();
        let [first, second] = [1, 2].map(|n| SiteId(Uuid::from_u128(n)));
        let code = enrolment::make_code(&pools.writer, first).await.unwrap();
        let enrolment = Enrolment {
            code: code.shown().replace('-', ""),
            name: "door".to_owned(),
            key: PublicKey::from(&ed25519_dalek::SigningKey::from_bytes(&[7; 32])),
            app: "test".to_owned(),
        };
        let enrolled = enrolment::enroll(&ledger, OrgId::NIL, enrolment).await.unwrap();
        let (device, metadata) = (enrolled.device, Metadata::default());
        assign(&ledger, device, second, &metadata).await.unwrap();
        let at = Time::from_millis(1);
        let revoked = revoke(&ledger, device, at, &metadata).await.unwrap();
        assert_eq!(
            revoke(&ledger, device, at, &metadata).await.unwrap(),
            revoked,
            "once is enough"
        );
        let listed = list(&pools.writer).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].device, listed[0].site), (device, Some(second)));
        assert_eq!(listed[0].name.as_deref(), Some("door"));
        assert_eq!((listed[0].outbox, listed[0].lacking), (None, 0), "nothing is known of it");
        assert!(listed[0].revoked_at.is_some());
        // A restored server lacks what the device made, which says that nothing waits.
        let now = Time::from_millis(2);
        let nothing_waits = Heartbeat {
            outbox: 0,
            photos: 0,
            oldest: None,
            seq: 9,
            clock: now,
            boot: BootId(Uuid::from_u128(3)),
            uptime_ms: 1,
            app: "test".to_owned(),
            anchor: None,
        };
        let nowhere = Position::START;
        reports::record(&pools.writer, device, now, &nothing_waits, nowhere).await.unwrap();
        let listed = list(&pools.writer).await.unwrap();
        assert_eq!((listed[0].outbox, listed[0].lacking), (Some(0), 9));
        assert_eq!(returning(&pools.writer).await.unwrap(), [], "it has no access any more");
        let nobody = DeviceId(Uuid::from_u128(9));
        let refused = revoke(&ledger, nobody, at, &metadata).await;
        assert!(matches!(refused, Err(ExecuteError::Refused(DeviceError::Unknown))));
        ledger.close().await;
        pools.close().await;
        database.close().await;
    }
}
