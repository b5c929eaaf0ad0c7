//! How often somebody may call, exact to ten minutes and right across nodes: a sliding window in
//! the database, by the database's clock.
//!
//! Never more are let in within any window than may be; who is refused would have been by an exact
//! log, too, or is let in ten minutes later than by one at most. A row a caller, one statement a
//! call. What is refused isn't counted. A caller who isn't counted for a window's length is
//! forgotten.
//!
//! Where not every call may cost a statement, calls are counted in blocks ([`Blocks`]), each used
//! up within a moment or lost: then who calls little is counted as more than it is, by one block a
//! node and moment at most.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgExecutor;

use crate::postgres::Pool;

/// The length of a bucket, in seconds: how much later than by an exact log somebody may be let in.
pub const BUCKET_S: u32 = 600;
/// Buckets of a day.
const BUCKETS_OF_DAY: u32 = 144;
/// A quota beyond this is as good as none; the database's numbers go no further than twice as far.
const CALLS_COUNTED_MAX: u32 = 1 << 30;
/// Calls that are counted together where not each is counted by itself.
const BLOCK_CALLS: u32 = 100;
/// And until when they have to be made.
const BLOCK_FOR: Duration = Duration::from_secs(10);
/// How many callers hold a block at once on this node.
const BLOCKS_MAX: usize = 4_096;

/// What is counted together, and how much of it may be.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// Of what, for callers are counted apart by it.
    pub kind: &'static str,
    /// The most calls.
    pub calls_max: u32,
    bucket_s: u32,
    buckets: u32,
}

impl Quota {
    /// So many within any 24 hours.
    pub const fn a_day(kind: &'static str, calls_max: u32) -> Self {
        Self { kind, calls_max, bucket_s: BUCKET_S, buckets: BUCKETS_OF_DAY }
    }

    /// So many within any hour, counted by minutes.
    pub const fn an_hour(kind: &'static str, calls_max: u32) -> Self {
        Self { kind, calls_max, bucket_s: 60, buckets: 60 }
    }

    /// Counts a call, if it fits.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn count(self, writer: &Pool, caller: &str) -> Result<Count, sqlx::Error> {
        self.ask(writer, caller, 1, None).await
    }

    /// Whether one more would fit, without counting it: for what only counts when it fails. Then
    /// [`Quota::count`] it.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn look(self, writer: &Pool, caller: &str) -> Result<Count, sqlx::Error> {
        self.ask(writer, caller, 0, None).await
    }

    /// The same at a time that is given, in seconds since 1970, for tests.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn count_at(
        self,
        executor: impl PgExecutor<'_>,
        caller: &str,
        at_s: i64,
    ) -> Result<Count, sqlx::Error> {
        self.ask(executor, caller, 1, Some(at_s)).await
    }

    async fn ask(
        self,
        executor: impl PgExecutor<'_>,
        caller: &str,
        calls: u32,
        at_s: Option<i64>,
    ) -> Result<Count, sqlx::Error> {
        let (granted, held, fits_s, now_s): (i32, i32, i64, i64) = sqlx::query_as(
            "select granted, held, fits_s, now_s from count_calls($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.kind)
        .bind(caller)
        .bind(calls.cast_signed())
        .bind(self.calls_max.min(CALLS_COUNTED_MAX).cast_signed())
        .bind(self.bucket_s.cast_signed())
        .bind(self.buckets.cast_signed())
        .bind(at_s)
        .fetch_one(executor)
        .await?;
        let left = self.calls_max.saturating_sub(held.cast_unsigned());
        Ok(Count { granted: granted.cast_unsigned(), left, fits_s, now_s, most: self.calls_max })
    }
}

/// What became of a call that was to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    granted: u32,
    /// How many more fit now.
    pub left: u32,
    /// When the next one fits, in seconds since 1970.
    pub fits_s: i64,
    /// When it was counted, by the database's clock.
    pub now_s: i64,
    /// The most that there may be.
    pub most: u32,
}

impl Count {
    /// Whether it was let in.
    pub fn is_granted(self) -> bool {
        self.granted > 0
    }

    /// In how many seconds the next one fits; 0 for at once.
    pub fn wait_s(self) -> u64 {
        u64::try_from(self.fits_s - self.now_s).unwrap_or_default()
    }
}

/// Calls that were counted before they were made. They are counted a moment early, so the window
/// that they are held in is a bucket longer.
#[derive(Debug)]
pub struct Blocks {
    quota: Quota,
    held: Mutex<HashMap<String, (Count, Instant)>>,
}

impl Blocks {
    /// Of calls that are counted so.
    pub fn new(quota: Quota) -> Self {
        Self { quota: Quota { buckets: quota.buckets + 1, ..quota }, held: Mutex::default() }
    }

    /// Counts a call, if it fits, with a statement only now and then.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn count(&self, writer: &Pool, caller: &str) -> Result<Count, sqlx::Error> {
        if let Some(count) = self.take(caller, Instant::now()) {
            return Ok(count);
        }
        let asked = Instant::now();
        let block = BLOCK_CALLS.min(self.quota.calls_max / BLOCK_CALLS).max(1);
        let mut count = self.quota.ask(writer, caller, block, None).await?;
        if count.granted > 1 {
            count.left += count.granted - 1;
            self.put(caller, Count { granted: count.granted - 1, ..count }, asked);
        }
        Ok(count)
    }

    fn take(&self, caller: &str, now: Instant) -> Option<Count> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, asked) = held.get_mut(caller)?;
        if count.granted == 0 || now.saturating_duration_since(*asked) >= BLOCK_FOR {
            held.remove(caller);
            return None;
        }
        let taken = Count { left: count.left.saturating_sub(1), ..*count };
        (count.granted, count.left) = (count.granted - 1, taken.left);
        Some(taken)
    }

    fn put(&self, caller: &str, count: Count, asked: Instant) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= BLOCKS_MAX {
            held.retain(|_, (_, asked)| asked.elapsed() < BLOCK_FOR);
        }
        // What finds no room is lost: counted, and not made.
        if held.len() < BLOCKS_MAX {
            held.insert(caller.to_owned(), (count, asked));
        }
    }
}

/// Forgets who wasn't counted for longer than the window.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget(writer: &Pool) -> Result<(), sqlx::Error> {
    sqlx::query("delete from call_windows where over_at < now()").execute(writer).await.map(drop)
}
