//! Work whose answer is kept with it: in one transaction, so that it is done once however often it
//! is asked for.
//!
//! An answer names positions, which nobody knows before the commit; and who commits first and keeps
//! the answer after it may die in between. So within [`Once::scope`] nothing is appended at once:
//! whoever appends is told positions that stand for those to come, and goes on as if it were done.
//! When the answer is there, [`Ledger::settle`] writes all of it as one append, and with it the
//! answer, each position put in its place. What can't be taken is told to whoever appended it by
//! doing the work once more ([`Once::failing`]); so work must change nothing else on its way.
//!
//! Never holds what followers append: they are in no scope.

use std::{
    mem,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use punchtrail_protocol::Position;
use sqlx::PgConnection;

use super::{Append, AppendError, Appended, Ledger, Metadata, SideWrite};
use crate::postgres::{Pool, Transaction, within};

/// Positions that stand for others have as many digits as this, and no ledger gets there.
const BEYOND: std::ops::Range<u64> = 4_000_000_000_000_000..8_000_000_000_000_000;
/// Digits of each.
const BEYOND_DIGITS: usize = 16;
/// How long a write beside the ledger may take that goes with no event.
const BESIDE_MAX: Duration = Duration::from_secs(10);

tokio::task_local! {
    static SCOPE: Once;
}

/// What is held back of one request. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Once(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    /// Stands for the position of the first event.
    base: u64,
    events: u64,
    appends: Vec<Append>,
    /// What was done beside the ledger in a transaction that isn't committed yet.
    open: Option<Transaction>,
    fails: Option<(usize, AppendError)>,
}

/// Where the held events stand in an answer, until it is known where they are.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    base: u64,
    events: u64,
}

/// Why nothing of a request was written.
#[derive(Debug)]
pub enum Unsettled {
    /// What keeps the answer found that another one is kept.
    Taken,
    /// Others came first: the work has to be done anew.
    Stale,
    /// The append of that number was refused: whoever made it has to be told.
    Failed(usize, AppendError),
    /// All of it was refused.
    Refused(AppendError),
}

impl Default for Once {
    fn default() -> Self {
        Self::failing(None)
    }
}

impl Once {
    /// Whoever makes the append of that number is told that it failed so.
    pub fn failing(fails: Option<(usize, AppendError)>) -> Self {
        let base = rand::random_range(BEYOND);
        Self(Arc::new(Mutex::new(Held { base, events: 0, appends: Vec::new(), open: None, fails })))
    }

    /// Does work whose appends are held back.
    pub async fn scope<T>(&self, work: impl Future<Output = T>) -> T {
        SCOPE.scope(self.clone(), work).await
    }

    /// Where what is held stands in the answer.
    pub fn places(&self) -> Places {
        let held = self.held();
        Places { base: held.base, events: held.events }
    }

    pub(super) fn current() -> Option<Self> {
        SCOPE.try_with(Self::clone).ok()
    }

    pub(super) fn hold(&self, append: Append) -> Result<Appended, AppendError> {
        let mut held = self.held();
        match held.fails.take() {
            Some((at, error)) if at == held.appends.len() => return Err(error),
            other => held.fails = other,
        }
        held.fits(&append)?;
        let count: usize = append.streams.iter().map(|stream| stream.events.len()).sum();
        let before = held.base + held.events;
        held.events += count as u64;
        held.appends.push(append);
        let last = Position(before + count as u64 - 1);
        let first = if count > 0 { Position(before) } else { last };
        Ok(Appended { first, last })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// That it can be one append with what is held: by the same author, and of other streams, for
    /// nobody has seen in those what is held of them.
    fn fits(&self, append: &Append) -> Result<(), AppendError> {
        let same_author = |other: &Append| {
            other.is_beside() || append.is_beside() || other.metadata == append.metadata
        };
        let mut held = self.appends.iter().flat_map(|other| &other.streams);
        let twice = held.any(|one| {
            let same = |other: &super::StreamAppend| {
                (one.aggregate_type, &one.aggregate_id)
                    == (other.aggregate_type, &other.aggregate_id)
            };
            append.streams.iter().any(same)
        });
        match self.appends.iter().all(same_author) && !twice {
            true => Ok(()),
            false => Err(AppendError::Side(sqlx::Error::Protocol(
                "a request that is done once appends to a stream twice, or for two authors"
                    .to_owned(),
            ))),
        }
    }
}

impl Append {
    /// Whether it is nothing but a write beside the ledger.
    fn is_beside(&self) -> bool {
        self.streams.is_empty()
    }
}

impl Places {
    /// How many events there are.
    pub fn events(self) -> u64 {
        self.events
    }

    /// The last event, if there is one, when the first stands at `next`.
    pub fn last(self, next: Position) -> Option<Position> {
        (self.events > 0).then(|| Position(next.0 + self.events - 1))
    }

    /// A text with each position put in its place, when the first event stands at `next`.
    pub fn put(self, text: &[u8], next: Position) -> Vec<u8> {
        let mut put = Vec::with_capacity(text.len());
        for run in text.chunk_by(|one, other| one.is_ascii_digit() == other.is_ascii_digit()) {
            match self.placed(run, next) {
                Some(position) => put.extend(position.to_string().into_bytes()),
                None => put.extend(run),
            }
        }
        put
    }

    fn placed(self, run: &[u8], next: Position) -> Option<u64> {
        if run.len() != BEYOND_DIGITS {
            return None;
        }
        let number: u64 = std::str::from_utf8(run).ok()?.parse().ok()?;
        // The one before the first is the head, as it was.
        let at = number.checked_add(1)?.checked_sub(self.base)?;
        (at <= self.events).then(|| (next.0 + at).saturating_sub(1))
    }
}

/// Writes rows beside the ledger that no event goes with: in a transaction of their own, or with
/// all else of a request that is done once.
///
/// # Errors
/// As [`SideWrite`] refuses, or when the database is out of reach: then nothing was written.
pub async fn beside(writer: &Pool, side: SideWrite) -> Result<(), sqlx::Error> {
    let Some(once) = Once::current() else { return alone(writer, &side, Position::START).await };
    let append = Append { side: Some(side), ..Append::default() };
    once.hold(append).map(drop).map_err(|error| match error {
        AppendError::Side(error) => error,
        other => sqlx::Error::Protocol(other.to_string()),
    })
}

/// A transaction beside the ledger. In a request that is done once it is committed with the answer.
#[derive(Debug)]
pub struct Beside {
    tx: Transaction,
    once: Option<Once>,
}

/// Begins a transaction beside the ledger, or goes on with the one that the request has begun.
///
/// # Errors
/// When the database is out of reach.
pub async fn begin_beside(writer: &Pool) -> Result<Beside, sqlx::Error> {
    let once = Once::current();
    let open = once.as_ref().and_then(|once| once.held().open.take());
    let tx = match open {
        Some(tx) => tx,
        None => writer.begin().await?,
    };
    Ok(Beside { tx, once })
}

impl Beside {
    /// Makes what was done in it last, now or with the answer.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self.once {
            Some(once) => {
                once.held().open = Some(self.tx);
                Ok(())
            }
            None => self.tx.commit().await,
        }
    }
}

impl Deref for Beside {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for Beside {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

async fn alone(writer: &Pool, side: &SideWrite, next: Position) -> Result<(), sqlx::Error> {
    within(BESIDE_MAX, async { finish(writer.begin().await?, side, next).await }).await
}

async fn finish(mut tx: Transaction, side: &SideWrite, next: Position) -> Result<(), sqlx::Error> {
    side.run(&mut tx, next).await?;
    tx.commit().await
}

impl Ledger {
    /// Writes what is held, all or nothing, and `keep` before it, which refuses by `RowNotFound`
    /// when another answer is kept. Gives where the first event stands.
    ///
    /// # Errors
    /// See [`Unsettled`].
    pub async fn settle(&self, once: &Once, keep: SideWrite) -> Result<Position, Unsettled> {
        let places = once.places();
        let (appends, open) = {
            let mut held = once.held();
            (mem::take(&mut held.appends), held.open.take())
        };
        let (mut streams, mut metadata, mut writes) = (Vec::new(), Metadata::default(), vec![]);
        writes.push((0, keep));
        for (at, append) in appends.into_iter().enumerate() {
            if !append.is_beside() {
                metadata = append.metadata;
            }
            streams.extend(append.streams);
            writes.extend(append.side.map(|side| (at + 1, side)));
        }
        let reached = Arc::new(AtomicUsize::new(0));
        let side = in_turn(writes, Arc::clone(&reached));
        let written = if streams.is_empty() {
            let next = self.seen().plus(1);
            let written = match open {
                Some(tx) => within(BESIDE_MAX, finish(tx, &side, next)).await,
                None => alone(&self.writer, &side, next).await,
            };
            written.map(|()| next).map_err(AppendError::from_alone)
        } else if open.is_some() {
            let what = "a request that is done once appends, and begins a transaction beside it";
            Err(AppendError::Side(sqlx::Error::Protocol(what.to_owned())))
        } else {
            let append = Append { streams, metadata, side: Some(side) };
            self.append_now(append).await.map(|Appended { first, last }| match places.events {
                0 => last.plus(1),
                _ => first,
            })
        };
        written.map_err(|error| match (error, reached.load(Ordering::Relaxed)) {
            (AppendError::Stale, _) => Unsettled::Stale,
            (AppendError::Side(sqlx::Error::RowNotFound), 0) => Unsettled::Taken,
            (error @ AppendError::Side(_), at @ 1..) => Unsettled::Failed(at - 1, error),
            (error, _) => Unsettled::Refused(error),
        })
    }
}

impl AppendError {
    fn from_alone(error: sqlx::Error) -> Self {
        match error {
            error @ (sqlx::Error::Database(_) | sqlx::Error::RowNotFound) => Self::Side(error),
            error => Self::Unavailable(Arc::new(error)),
        }
    }
}

/// Writes one after the other; `reached` says which one it was that refused.
fn in_turn(writes: Vec<(usize, SideWrite)>, reached: Arc<AtomicUsize>) -> SideWrite {
    let writes = Arc::new(writes);
    SideWrite::at(move |connection, next| {
        let (writes, reached) = (Arc::clone(&writes), Arc::clone(&reached));
        Box::pin(async move {
            for (at, write) in writes.iter() {
                reached.store(*at, Ordering::Relaxed);
                write.run(&mut *connection, next).await?;
            }
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_put_in_their_places_and_other_numbers_stay() {
        let places = Places { base: 5_000_000_000_000_000, events: 2 };
        let text = r#"{"a":5000000000000000,"b":[5000000000000001,4999999999999999],
            "c":5000000000000002,"d":50000000000000000,"e":"2026-11-26","f":7}"#;
        let put = String::from_utf8(places.put(text.as_bytes(), Position(41))).unwrap();
        let expected = r#"{"a":41,"b":[42,40],
            "c":5000000000000002,"d":50000000000000000,"e":"2026-11-26","f":7}"#;
        assert_eq!(put, expected);
        assert_eq!(places.last(Position(41)), Some(Position(42)));
        let none = Places { base: 5_000_000_000_000_000, events: 0 };
        assert_eq!(none.put(b"4999999999999999", Position(41)), b"40");
        assert_eq!(none.last(Position(41)), None);
    }
}
