//! The adjudicator: the only one to judge.
//!
//! It walks the ledger in order, applies each site's policy to each punch (`policy::judge`, a pure
//! function), and appends `Accepted`, or the anomalies and `ReferredForReview`; and to devices what
//! their chains show. What it must remember (neighbours, chains, its own place) moves in the same
//! transaction as what it appends, so a punch is judged exactly once, and on nothing but what stood
//! before it: the outcome doesn't depend on how arrivals were batched, nor on where a walk stopped.
//!
//! It never rejects, and it never skips: an event it can't read stops it, loudly.

mod known;
mod walk;

use std::{sync::Arc, time::Duration};

use punchtrail_domain::log::recorded::Undecodable;
use punchtrail_protocol::Position;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::ledger::{AppendError, Ledger, ReadError};
use known::Standing;

/// The most events walked in one transaction.
pub const WALK_EVENTS_MAX: u32 = 8_000;
/// How long the adjudicator waits to be woken before it looks by itself, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// How long it waits after a failure before it tries again, in milliseconds.
const RETRY_MS: u64 = 500;
/// How often a walk is decided anew when its streams keep growing meanwhile.
const DECIDE_TRIES_MAX: u32 = 8;

/// Why the adjudicator could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AdjudicatorError {
    /// The ledger can't be read. An event that this program doesn't know stops it: nothing after it is
    /// judged until the program is replaced by one that does; punches count provisionally meanwhile.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The append was not made. It tries again by itself.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<sqlx::Error> for AdjudicatorError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

impl From<Undecodable> for AdjudicatorError {
    fn from(error: Undecodable) -> Self {
        Self::Read(error.into())
    }
}

/// What the adjudicator is doing, for readiness and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to this position is judged.
    At(Position),
    /// It stopped for good, for this reason.
    Stopped(String),
}

/// The adjudicator of this node. Several nodes may run one each: who is second finds its place moved.
pub struct Adjudicator {
    ledger: Ledger,
    standing: Standing,
    walk_events_max: u32,
}

impl Adjudicator {
    /// An adjudicator that knows nothing yet.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, standing: Standing::default(), walk_events_max: WALK_EVENTS_MAX }
    }

    /// Walks at most so many events in one transaction; at least 2, for a capture and its receipt
    /// belong together.
    #[must_use]
    pub fn with_walk_events_max(mut self, events: u32) -> Self {
        self.walk_events_max = events.max(2);
        self
    }

    /// Judges what comes next. Whether there was anything.
    ///
    /// # Errors
    /// See [`AdjudicatorError`]; after any but an undecodable event it may be called again.
    pub async fn step(&mut self) -> Result<Option<Position>, AdjudicatorError> {
        let from = known::place(self.ledger.pool()).await?;
        self.standing.catch_up(&self.ledger.feed(), from).await?;
        let mut entries = self.ledger.feed().read(from, self.walk_events_max).await?;
        walk::keep_receipts_with_captures(&mut entries);
        let Some(to) = entries.last().map(|entry| entry.position()) else { return Ok(None) };
        let walked = walk::walk(self.ledger.pool(), &mut self.standing, &entries, from).await;
        let walked = match walked {
            Ok(walked) => walked,
            Err(error) => {
                self.standing = Standing::default();
                return Err(error);
            }
        };
        match self.append(walked).await {
            Ok(()) => Ok(Some(to)),
            Err(error) => {
                // What was walked in memory was not kept; know nothing rather than too much.
                self.standing = Standing::default();
                Err(error)
            }
        }
    }

    async fn append(&self, walked: walk::Walked) -> Result<(), AdjudicatorError> {
        if let Some(judging) = walked.judging_of_fresh() {
            match self.ledger.judge(judging).await {
                Ok(_) => return Ok(()),
                Err(AppendError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for _ in 0..DECIDE_TRIES_MAX {
            if known::place(self.ledger.pool()).await? != walked.from {
                return Err(AppendError::Stale.into());
            }
            match self.ledger.judge(walked.judging_of_loaded(self.ledger.pool()).await?).await {
                Ok(_) => return Ok(()),
                Err(AppendError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AppendError::Stale.into())
    }

    /// Walks on until cancelled, or until an event can't be read.
    async fn run(mut self, progress: watch::Sender<Progress>, stop: CancellationToken) {
        let mut feed = self.ledger.feed();
        let mut at = Position::START;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            match self.step().await {
                Ok(Some(to)) => {
                    at = to;
                    metrics::gauge!("punchtrail_adjudicator_position").set(to.0 as f64);
                    progress.send_replace(Progress::At(to));
                    let rest = feed.rest(begun.elapsed());
                    tokio::select! { () = stop.cancelled() => {}, () = rest => {} }
                }
                Ok(None) => {
                    let deadline = Instant::now() + Duration::from_millis(LOOK_MS);
                    let place = known::place(self.ledger.pool()).await.unwrap_or(at);
                    at = place.max(at);
                    progress.send_replace(Progress::At(at));
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = feed.wait_beyond(at, deadline) => {}
                    }
                }
                Err(AdjudicatorError::Read(error)) if error.stops_at().is_some() => {
                    tracing::error!(%error, "the adjudicator stopped");
                    metrics::gauge!("punchtrail_adjudicator_stopped").set(1.0);
                    progress.send_replace(Progress::Stopped(error.to_string()));
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "the adjudicator tries again");
                    let pause = tokio::time::sleep(Duration::from_millis(RETRY_MS));
                    tokio::select! { () = stop.cancelled() => {}, () = pause => {} }
                }
            }
        }
    }
}

/// A running adjudicator.
#[derive(Debug)]
pub struct Running {
    /// What it is doing.
    pub progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

impl Running {
    /// Waits until the walk in hand has settled, after its token was cancelled.
    pub async fn settled(self) {
        let _ = self.task.await;
    }
}

/// Starts the adjudicator of this node.
pub fn spawn(ledger: Ledger, stop: CancellationToken) -> Running {
    let (publish, progress) = watch::channel(Progress::At(Position::START));
    let task = tokio::spawn(Adjudicator::new(ledger).run(publish, stop));
    Running { progress, task }
}

/// Entries of one walk, shared with the other followers.
type Entries = [Arc<crate::ledger::Entry>];
