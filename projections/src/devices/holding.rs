//! Which devices of a site may still hold punches of some time: the answer for a punch that never came.

use jiff_sqlx::ToSqlx;
use punchtrail_domain::{SiteId, Time, device::Gap};
use sqlx::{FromRow, PgPool, Row, postgres::PgRow};

use super::read::{DeviceRow, JOINS, columns};

/// The most devices named in one answer.
pub const HOLDING_DEVICES_MAX: i64 = 200;
/// A device not heard of for so long may hold punches that nobody knows of: three reports missed at the
/// default rate, in seconds.
pub const SILENT_AFTER_S: u32 = 900;

/// A device that may hold punches which the ledger lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The device, with its last report.
    pub device: DeviceRow,
    /// How many punches it still held when it last said so.
    pub waiting: u64,
    /// Since when: the oldest of those, by the device's clock.
    pub since: Option<Time>,
    /// Sequence numbers that the ledger lacks, as far as known: gaps between those it has, and what the
    /// device says it has made beyond them.
    pub missing: Vec<Gap>,
    /// Whether it has not been heard of since the time asked for ended, or for [`SILENT_AFTER_S`] when
    /// that time goes on: then it may hold punches that nobody knows of.
    pub silent: bool,
}

/// The devices that ever served the site and may hold punches captured between `from` and `to`: by
/// their last report, by numbers that are missing, or because they have not been heard of since. Those
/// revoked before `from` and those that have never made a capture are left out unless they say they
/// hold some. In the order of ids, at most [`HOLDING_DEVICES_MAX`].
///
/// # Errors
/// When the database is out of reach.
pub async fn holding(
    pool: &PgPool,
    site: SiteId,
    from: Time,
    to: Time,
) -> Result<Vec<Holding>, sqlx::Error> {
    let columns = columns();
    let heard = "coalesce(greatest(said.reported_at, device.last_synced_at), 'epoch')";
    let silent = format!("{heard} < least($3, now() - make_interval(secs => $4))");
    // What it said it held is settled once every number it had made then is here. Of what waits, the
    // oldest says that nothing before it does.
    let statement = format!(
        "select {columns}, {HIGHEST} as highest, {silent} as silent, {WAITS} as waits \
         from read.devices device {JOINS} \
         join read.devices_sites at on at.device = device.device and at.site = $1 \
         where ({WAITS} and (said.oldest is null or said.oldest < $3)) \
             or said.seq > {HIGHEST} \
             or exists (select from read.devices_gaps gap where gap.device = device.device) \
             or ({silent} and (device.revoked_at is null or device.revoked_at >= $2) \
                 and (said.device is not null or device.last_seq > 0)) \
         order by device.device limit $5"
    );
    let rows: Vec<PgRow> = sqlx::query(&statement)
        .bind(site.uuid())
        .bind(from.timestamp().to_sqlx())
        .bind(to.timestamp().to_sqlx())
        .bind(f64::from(SILENT_AFTER_S))
        .bind(HOLDING_DEVICES_MAX)
        .fetch_all(pool)
        .await?;
    rows.iter().map(made).collect()
}

const HIGHEST: &str = "coalesce(held.highest, device.last_seq)";
const WAITS: &str = "coalesce(said.outbox > 0 and said.seq > coalesce(held.acked_through, 0), false)";

fn made(row: &PgRow) -> Result<Holding, sqlx::Error> {
    let device = DeviceRow::from_row(row)?;
    let highest = row.try_get::<i64, _>("highest")?.cast_unsigned();
    let waits: bool = row.try_get("waits")?;
    let mut missing = device.gaps.clone();
    let made_through = device.report.as_ref().map_or(0, |report| report.seq);
    if made_through > highest {
        missing.push(Gap { from: highest + 1, to: made_through });
    }
    let said = device.report.as_ref().filter(|_| waits);
    Ok(Holding {
        waiting: said.map_or(0, |report| report.outbox),
        since: said.and_then(|report| report.oldest),
        missing,
        silent: row.try_get("silent")?,
        device,
    })
}
