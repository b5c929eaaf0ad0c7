//! What devices last said of themselves: current state, not history. From it comes what is known of
//! a device's clock, and what can be said of punches that never came.

use std::collections::HashMap;

use jiff_sqlx::{Timestamp, ToSqlx};
use punchtrail_domain::{explanation::Backlog, punch::Clock};
use punchtrail_protocol::{BootId, DeviceId, Digest, Position, Time, wire::Heartbeat};
use sqlx::{Row, postgres::PgRow};

use crate::postgres::Pool;
use uuid::Uuid;

/// The latest heartbeat of one boot of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootReport {
    /// The server's clock when it came.
    pub server_time: Time,
    /// The device's monotonic clock then, in milliseconds since its boot.
    pub uptime_ms: u64,
}

impl BootReport {
    /// What is known of the device's clock at a capture of this boot: its true time is the
    /// heartbeat's server time less the difference of uptimes.
    pub fn clock_at(&self, captured_at: Time, uptime_ms: u64) -> Clock {
        let after_ms = uptime_ms.cast_signed().saturating_sub(self.uptime_ms.cast_signed());
        let true_time = self.server_time.plus_millis(after_ms);
        Clock::Known { offset_ms: captured_at.millis_since(true_time) }
    }
}

/// The boots of a device that are remembered, those that reported last. Of a capture from one that
/// isn't, nothing is known of the clock.
pub const BOOTS_MAX: u32 = 1_000;

/// What is known of a device that reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    /// How far its numbers are held without a hole.
    pub acked_through: u64,
    /// The hash of the event that stands where it was asked for.
    pub stored: Option<Digest>,
}

/// Keeps a heartbeat, and looks which event stands at a position.
///
/// # Errors
/// When the database is out of reach.
pub async fn record(
    writer: &Pool,
    device: DeviceId,
    received_at: Time,
    heartbeat: &Heartbeat,
    at: Position,
) -> Result<Reported, sqlx::Error> {
    let (acked_through, stored): (Option<i64>, Option<Vec<u8>>) = sqlx::query_as(
        "with report as ( \
             insert into device_reports (device, reported_at, outbox, photos, oldest, seq, clock, \
             boot, uptime_ms, app) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             on conflict (device) do update set reported_at = excluded.reported_at, \
             outbox = excluded.outbox, photos = excluded.photos, oldest = excluded.oldest, \
             seq = excluded.seq, clock = excluded.clock, boot = excluded.boot, \
             uptime_ms = excluded.uptime_ms, app = excluded.app \
             where device_reports.reported_at <= excluded.reported_at \
         ), boot as ( \
             insert into device_boots (device, boot, server_time, uptime_ms) values ($1, $8, $2, \
             $9) \
             on conflict (device, boot) do update set server_time = excluded.server_time, \
             uptime_ms = excluded.uptime_ms where device_boots.uptime_ms <= excluded.uptime_ms \
             returning xmax = 0 as is_new \
         ), swept as ( \
             delete from device_boots old using ( \
                 select device, boot from device_boots where device = $1 \
                 order by server_time desc, boot offset $12 - 1 \
             ) as beyond where old.device = beyond.device and old.boot = beyond.boot \
             and old.boot <> $8 and exists (select from boot where is_new) \
         ) select (select acked_through from device_progress where device = $1), \
         (select leaf_hash from events where position = $11)",
    )
    .bind(device.uuid())
    .bind(received_at.timestamp().to_sqlx())
    .bind(heartbeat.outbox.cast_signed())
    .bind(heartbeat.photos.cast_signed())
    .bind(heartbeat.oldest.map(|oldest| oldest.timestamp().to_sqlx()))
    .bind(heartbeat.seq.cast_signed())
    .bind(heartbeat.clock.timestamp().to_sqlx())
    .bind(heartbeat.boot.uuid())
    .bind(heartbeat.uptime_ms.cast_signed())
    .bind(&heartbeat.app)
    .bind(at.to_db())
    .bind(i64::from(BOOTS_MAX))
    .fetch_one(writer)
    .await?;
    Ok(Reported {
        acked_through: acked_through.unwrap_or_default().cast_unsigned(),
        stored: stored.and_then(|hash| hash.try_into().ok()).map(Digest),
    })
}

/// What a device last said it holds, and how far its numbers have come since; none if it never
/// reported.
///
/// # Errors
/// When the database is out of reach.
pub async fn backlog(pool: &Pool, device: DeviceId) -> Result<Option<Backlog>, sqlx::Error> {
    sqlx::query(
        "select reported_at, outbox, oldest, seq, coalesce(acked_through, 0) as held_through \
         from device_reports left join device_progress using (device) where device = $1",
    )
    .bind(device.uuid())
    .try_map(|row: PgRow| {
        let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        let oldest: Option<Timestamp> = row.try_get("oldest")?;
        Ok(Backlog {
            reported_at: row.try_get::<Timestamp, _>("reported_at")?.to_jiff().into(),
            waiting: number("outbox")?,
            oldest: oldest.map(|at| at.to_jiff().into()),
            made_through: number("seq")?,
            held_through: number("held_through")?,
        })
    })
    .fetch_optional(pool)
    .await
}

/// The latest heartbeats of these boots of a device, as far as one came.
///
/// # Errors
/// When the database is out of reach.
pub async fn boots(
    writer: &Pool,
    device: DeviceId,
    boots: &[Uuid],
) -> Result<HashMap<BootId, BootReport>, sqlx::Error> {
    if boots.is_empty() {
        return Ok(HashMap::new());
    }
    sqlx::query(
        "select boot, server_time, uptime_ms from device_boots where device = $1 and boot = \
         any($2)",
    )
    .bind(device.uuid())
    .bind(boots)
    .try_map(|row: PgRow| {
        let report = BootReport {
            server_time: row.try_get::<Timestamp, _>("server_time")?.to_jiff().into(),
            uptime_ms: row.try_get::<i64, _>("uptime_ms")?.cast_unsigned(),
        };
        Ok((BootId(row.try_get("boot")?), report))
    })
    .fetch_all(writer)
    .await
    .map(|rows| rows.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    fn heartbeat(boot: u128, uptime_ms: u64) -> Heartbeat {
        Heartbeat {
            outbox: 3,
            photos: 1,
            oldest: Some(Time::from_millis(0)),
            seq: 9,
            clock: Time::from_millis(5),
            boot: BootId(Uuid::from_u128(boot)),
            uptime_ms,
            app: "test/1".to_owned(),
            anchor: None,
        }
    }

    #[test]
    fn a_fast_clock_is_known_by_its_uptime() {
        let report = BootReport { server_time: Time::from_millis(100_000), uptime_ms: 60_000 };
        let three_hours_ms = 10_800_000;
        let captured_at = Time::from_millis(70_000 + three_hours_ms);
        assert_eq!(
            report.clock_at(captured_at, 30_000),
            Clock::Known { offset_ms: three_hours_ms }
        );
        let after = Time::from_millis(140_000);
        assert_eq!(report.clock_at(after, 100_000), Clock::Known { offset_ms: 0 });
    }

    #[tokio::test]
    async fn no_more_boots_are_remembered_than_fit() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let device = DeviceId(Uuid::from_u128(7));
        let (at, first) = (Time::from_millis(1_000), heartbeat(1, 500));
        let acked = record(&pools.writer, device, at, &first, Position::START).await.unwrap();
        assert_eq!(acked, Reported { acked_through: 0, stored: None });
        // A device that says another boot each time is remembered by its last ones.
        for n in 0..u128::from(BOOTS_MAX) + 20 {
            let at = Time::from_millis(10_000 + i64::try_from(n).unwrap());
            record(&pools.writer, device, at, &heartbeat(100 + n, 1), Position::START)
                .await
                .unwrap();
        }
        let count = "select count(*) from device_boots";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&pools.writer).await.unwrap();
        assert_eq!(count, i64::from(BOOTS_MAX));
        let last = Uuid::from_u128(100 + u128::from(BOOTS_MAX) + 19);
        assert_eq!(boots(&pools.writer, device, &[last]).await.unwrap().len(), 1);
        pools.close().await;
        database.close().await;
    }

    #[tokio::test]
    async fn each_boot_has_its_latest() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let device = DeviceId(Uuid::from_u128(7));
        for (at_ms, boot, uptime_ms) in [(1_000, 1, 500), (2_000, 2, 10), (3_000, 1, 400)] {
            let at = Time::from_millis(at_ms);
            record(&pools.writer, device, at, &heartbeat(boot, uptime_ms), Position::START)
                .await
                .unwrap();
        }
        let asked = [1, 2, 3].map(Uuid::from_u128);
        let found = boots(&pools.writer, device, &asked).await.unwrap();
        let of = |boot| found.get(&BootId(Uuid::from_u128(boot))).map(|r| r.server_time.millis());
        assert_eq!([of(1), of(2), of(3)], [Some(1_000), Some(2_000), None]);
        pools.close().await;
        database.close().await;
    }
}
