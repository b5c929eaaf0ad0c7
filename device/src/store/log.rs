//! Whether the log that a crash left beside the database (`-wal`) is whole.
//!
//! SQLite reads it up to the first frame whose checksum is wrong and takes the rest for what a
//! crash had half written. It is that where one transaction follows: the one under way when the
//! power failed, which nobody was told of. Where several commits follow, something was written
//! over that had been synced before them: confirmed punches would be gone, and their numbers
//! given out again, without anybody noticing. So the log is looked at before SQLite opens it, by
//! whoever finds nobody else at work
//! (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>).

use std::{fs, io, path::Path};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Without its lowest bit, which says in which order of bytes checksums are made.
const MAGIC: u32 = 0x377f_0682;

/// How many transactions the log beside the database at `path` holds that can't be read, though
/// others were committed after one of them; none where it is whole.
///
/// # Errors
/// When it can't be read.
pub fn lost_commits(path: &Path) -> io::Result<Option<u64>> {
    let mut beside = path.as_os_str().to_owned();
    beside.push("-wal");
    match fs::read(beside) {
        Ok(log) => Ok(lost(&log)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn lost(log: &[u8]) -> Option<u64> {
    let (header, frames) = log.split_at_checked(HEADER_BYTES)?;
    let big_endian = word(header, 0) == MAGIC | 1;
    let page_bytes = word(header, 8) as usize;
    let mut sum = checksum(big_endian, (0, 0), &header[..24]);
    let sound = word(header, 0) & !1 == MAGIC && sum == (word(header, 24), word(header, 28));
    if !sound || !page_bytes.is_power_of_two() || !(512..=65_536).contains(&page_bytes) {
        // A header alone is written before its first frame is; with frames it was synced.
        return (!frames.is_empty()).then_some(0);
    }
    let mut lost = None::<u64>;
    for frame in frames.chunks_exact(FRAME_HEADER_BYTES + page_bytes) {
        // Of an earlier use of the log, and the present one ends before it.
        if frame[8..16] != header[16..24] {
            lost?;
            continue;
        }
        let commit = word(frame, 4) != 0;
        if let Some(lost) = &mut lost {
            *lost += u64::from(commit);
            continue;
        }
        let told = (word(frame, 16), word(frame, 20));
        sum = checksum(big_endian, sum, &frame[..8]);
        sum = checksum(big_endian, sum, &frame[FRAME_HEADER_BYTES..]);
        if sum != told {
            lost = Some(u64::from(commit));
        }
    }
    lost.filter(|commits| *commits > 1)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn checksum(big_endian: bool, (mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let read = |four: &[u8]| {
        let word = word(four, 0);
        if big_endian { word } else { word.swap_bytes() }
    };
    for pair in bytes.chunks_exact(8) {
        a = a.wrapping_add(read(&pair[..4])).wrapping_add(b);
        b = b.wrapping_add(read(&pair[4..])).wrapping_add(a);
    }
    (a, b)
}
