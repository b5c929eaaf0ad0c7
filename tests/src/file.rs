//! A device's own file, read beside whatever runs on it, or after that was killed.

use std::{path::Path, time::Duration};

use anyhow::Context;
use punchtrail_protocol::{DeviceId, Digest};
use sqlx::{
    Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

/// For a writer on the same folder.
const BUSY_WAIT: Duration = Duration::from_secs(60);

/// More than a log and its index take while one batch is noted down, in bytes.
const LOG_BYTES: u64 = 256 << 10;

/// A capture as the device's own file has it.
#[derive(Debug, Clone)]
pub struct Kept {
    pub device: DeviceId,
    pub seq: u64,
    pub punch: String,
    /// The digest of the signed bytes.
    pub digest: Digest,
    /// What the server said; none while it waits.
    pub status: Option<String>,
}

/// How many captures wait in the device's folder `dir`.
///
/// # Errors
/// When its file can't be read.
pub async fn waiting(dir: &Path) -> anyhow::Result<u64> {
    let mut file = open(dir).await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM capture WHERE acked_ms IS NULL")
        .fetch_one(&mut file)
        .await?;
    file.close().await?;
    Ok(u64::try_from(count)?)
}

/// Every capture in the device's folder `dir`, in order.
///
/// # Errors
/// When its file can't be read.
pub async fn kept(dir: &Path) -> anyhow::Result<Vec<Kept>> {
    let mut file = open(dir).await?;
    let rows = sqlx::query(
        "SELECT device, capture.seq AS seq, punch, bytes, status
         FROM capture JOIN identity ON identity.id = capture.identity
         ORDER BY capture.identity, capture.seq",
    )
    .fetch_all(&mut file)
    .await?;
    file.close().await?;
    rows.iter().map(read).collect()
}

/// The signature of the capture of that number rots on the device's disk.
///
/// # Errors
/// When its file can't be written.
pub async fn rot(dir: &Path, seq: i64) -> anyhow::Result<()> {
    let options =
        SqliteConnectOptions::new().filename(dir.join("device.db")).busy_timeout(BUSY_WAIT);
    let mut file = SqliteConnection::connect_with(&options).await?;
    sqlx::query("UPDATE capture SET signature = zeroblob(64) WHERE seq = ?")
        .bind(seq)
        .execute(&mut file)
        .await?;
    Ok(file.close().await?)
}

async fn open(dir: &Path) -> anyhow::Result<SqliteConnection> {
    let path = dir.join("device.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .read_only(true)
        .immutable(is_full(dir)?)
        .busy_timeout(BUSY_WAIT);
    SqliteConnection::connect_with(&options)
        .await
        .with_context(|| format!("can't read {}", path.display()))
}

/// Whether SQLite can't make its log, whose index it needs even for reading. Nobody can write then,
/// so the file may be read as it stands.
fn is_full(dir: &Path) -> anyhow::Result<bool> {
    let disk = rustix::fs::statvfs(dir).with_context(|| format!("no folder {}", dir.display()))?;
    Ok(disk.f_bavail * disk.f_frsize < LOG_BYTES)
}

fn read(row: &SqliteRow) -> anyhow::Result<Kept> {
    Ok(Kept {
        device: row.try_get::<String, _>("device")?.parse()?,
        seq: u64::try_from(row.try_get::<i64, _>("seq")?)?,
        punch: row.try_get("punch")?,
        digest: Digest::of(&row.try_get::<Vec<u8>, _>("bytes")?),
        status: row.try_get("status")?,
    })
}
