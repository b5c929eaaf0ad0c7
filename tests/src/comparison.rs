//! Devices' own files held against the ledger: what was captured is there exactly once, byte for
//! byte.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use punchtrail_protocol::{DeviceId, Digest};
use sqlx::PgPool;
use uuid::Uuid;

use crate::file;

/// Devices' files that are read at a time. Each is up to three files (database, log, the log's
/// index), and no more than 256 may be open.
const FOLDERS_AT_ONCE: usize = 32;
/// Every capture of the ledger, once: its punch, and the digest of the bytes that the device
/// signed.
const CAPTURES: &str = "copy (select aggregate_id, \
    encode(sha256(convert_to(payload #>> '{Captured,capture}', 'UTF8')), 'hex') \
    from events where event_type = 'Captured') to stdout";
/// Positions are dense from 1 if there are as many as the highest says, and the head says the same.
const POSITIONS: &str = "select (select position from ledger_head), count(*), \
    coalesce(max(position), 0) from events";

/// How devices' files and the ledger compare.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    pub captures: u64,
    /// Of these, how many aren't acknowledged by the device's own account.
    pub waiting: u64,
    /// Of those that wait, how many aren't in the ledger, by device; only devices that have some.
    /// The others are there, and only the answer is missing.
    pub unsent: BTreeMap<DeviceId, u64>,
    /// Acknowledged, and not in the ledger.
    pub lost: u64,
    /// In the ledger more than once.
    pub twice: u64,
    /// In the ledger with other bytes than in the file.
    pub other_bytes: u64,
    /// In the ledger and in none of the files.
    pub foreign: u64,
    /// The ledger's head: its highest position.
    pub head: u64,
    /// Positions below the head that are missing.
    pub holes: u64,
}

impl Comparison {
    /// Holds what holds at any moment, also in the middle of a fault: nothing acknowledged is
    /// missing, nothing is there twice or otherwise, and positions are dense.
    ///
    /// # Errors
    /// When it doesn't, with all counts.
    pub fn holds(&self) -> anyhow::Result<()> {
        let wrong = self.lost + self.twice + self.other_bytes + self.holes;
        ensure!(wrong == 0, "files and ledger don't agree: {self:?}");
        Ok(())
    }

    /// Holds what holds in the end, too: nothing waits, and the ledger has these devices' captures
    /// only.
    ///
    /// # Errors
    /// When it doesn't, with all counts.
    pub fn is_complete(&self) -> anyhow::Result<()> {
        self.holds()?;
        ensure!(self.waiting == 0 && self.foreign == 0, "not everything is delivered: {self:?}");
        Ok(())
    }
}

/// A capture in a file, and how often the ledger has it. Small: a fleet has millions.
struct Entry {
    punch: Uuid,
    digest: Digest,
    folder: u32,
    waits: bool,
    times: u8,
    other_bytes: bool,
}

/// Compares the files of the devices in `folders` with the ledger that `pool` leads to (as a user
/// without a time limit: the ledger is read in one statement). Works on any number of devices: 32
/// are open at a time, and a capture takes 64 bytes of memory.
///
/// May be called while devices deliver. The files are read first, so what they call acknowledged
/// then has to be in the ledger that is read afterwards.
///
/// ```no_run
/// # async fn example(folders: Vec<std::path::PathBuf>, pool: sqlx::PgPool) -> anyhow::Result<()> {
/// let comparison = punchtrail_tests::compare(&folders, &pool).await?;
/// comparison.is_complete()
/// # }
/// ```
///
/// # Errors
/// When a file or the ledger can't be read. What doesn't agree is no error but counted.
pub async fn compare(folders: &[PathBuf], pool: &PgPool) -> anyhow::Result<Comparison> {
    let (mut entries, devices) = read_files(folders).await?;
    entries.sort_unstable_by_key(|entry| entry.punch);
    let mut comparison = Comparison { captures: entries.len() as u64, ..Comparison::default() };
    comparison.foreign = note_captures(pool, &mut entries).await?;
    let (head, events, highest): (i64, i64, i64) =
        sqlx::query_as(POSITIONS).fetch_one(pool).await?;
    comparison.head = u64::try_from(head)?;
    comparison.holes = head.max(highest).abs_diff(events) + head.abs_diff(highest);
    for entry in &entries {
        comparison.note(entry, &devices);
    }
    Ok(comparison)
}

impl Comparison {
    fn note(&mut self, entry: &Entry, devices: &[DeviceId]) {
        self.waiting += u64::from(entry.waits);
        self.twice += u64::from(entry.times > 1);
        self.other_bytes += u64::from(entry.other_bytes);
        if entry.times == 0 && entry.waits {
            *self.unsent.entry(devices[entry.folder as usize]).or_default() += 1;
        } else if entry.times == 0 {
            self.lost += 1;
        }
    }
}

/// All captures of all files, and the device of each folder.
async fn read_files(folders: &[PathBuf]) -> anyhow::Result<(Vec<Entry>, Vec<DeviceId>)> {
    let mut entries = Vec::new();
    let mut devices = vec![DeviceId::NIL; folders.len()];
    let mut reading = stream::iter(folders.iter().enumerate())
        .map(|(folder, dir)| async move { anyhow::Ok((folder, read_file(folder, dir).await?)) })
        .buffer_unordered(FOLDERS_AT_ONCE);
    while let Some((folder, (device, read))) = reading.try_next().await? {
        devices[folder] = device;
        entries.extend(read);
    }
    Ok((entries, devices))
}

async fn read_file(folder: usize, dir: &Path) -> anyhow::Result<(DeviceId, Vec<Entry>)> {
    let kept = file::kept(dir).await?;
    let device = kept.last().map_or(DeviceId::NIL, |kept| kept.device);
    let entry = |kept: file::Kept| {
        Ok(Entry {
            punch: kept.punch.parse()?,
            digest: kept.digest,
            folder: u32::try_from(folder)?,
            waits: kept.status.is_none(),
            times: 0,
            other_bytes: false,
        })
    };
    Ok((device, kept.into_iter().map(entry).collect::<anyhow::Result<_>>()?))
}

/// Notes in `entries`, which are sorted by punch, what the ledger has; gives how many captures of
/// the ledger are in no file.
async fn note_captures(pool: &PgPool, entries: &mut [Entry]) -> anyhow::Result<u64> {
    let mut foreign = 0;
    let mut connection = pool.acquire().await?;
    let mut copied = connection.copy_out_raw(CAPTURES).await?;
    let mut rest = Vec::new();
    while let Some(chunk) = copied.try_next().await? {
        rest.extend_from_slice(&chunk);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in std::str::from_utf8(&rest[..whole])?.lines() {
            let (punch, digest) = line.split_once('\t').context("a punch and a digest")?;
            let punch: Uuid = punch.parse()?;
            let Ok(at) = entries.binary_search_by_key(&punch, |entry| entry.punch) else {
                foreign += 1;
                continue;
            };
            let entry = &mut entries[at];
            entry.times = entry.times.saturating_add(1);
            entry.other_bytes |= entry.digest != digest.parse()?;
        }
        rest.drain(..whole);
    }
    ensure!(rest.is_empty(), "the ledger's last line has no end");
    Ok(foreign)
}
