//! One model as a follower of the ledger: batch after batch, and what to do when one can't be
//! taken.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use punchtrail_infra::{
    follower::{Failure, Follower, FollowerState, Step, Tell},
    ledger::Feed,
    postgres::{Pool, within},
};
use punchtrail_protocol::Position;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Generation,
    progress::{self, State},
    projection::{Projection, ProjectionError},
    rebuild::{self, RebuildError},
};

/// The most events in one batch.
pub const BATCH_EVENTS_MAX: u32 = 30_000;
/// A batch that failed in passing isn't made smaller than this: it was mostly not its size.
const RETRY_EVENTS_MIN: u32 = 1_000;
/// How long one may take. It is smaller when it is tried again.
const BATCH_MAX: Duration = Duration::from_secs(30);
/// How often one that stands still looks whether another node or a rebuild has moved it.
const STILL_POLL: Duration = Duration::from_secs(1);
/// How soon a row that a swap holds is looked at again.
const HELD_RETRY: Duration = Duration::from_millis(50);
/// How long after a failed rebuild the next is tried.
const REBUILD_RETRY: Duration = Duration::from_secs(5);

/// The live tables of a model: their generation and version.
pub(super) type Live = (u32, i32);

/// Feeds one model.
pub(super) struct Feeding {
    pub(super) model: Arc<dyn Projection>,
    pub(super) pool: Pool,
    pub(super) feed: Feed,
    pub(super) cancel: CancellationToken,
    pub(super) slots: Arc<Semaphore>,
    pub(super) live: Arc<watch::Sender<Live>>,
    /// How far the live generation was when last seen.
    pub(super) place: Position,
    /// Events in the next batch; halved to find the one that can't be taken.
    pub(super) limit: u32,
}

/// What a batch came to.
enum Batch {
    Applied {
        to: Position,
        events: usize,
    },
    /// Nothing was left to apply.
    AtHead,
    /// A swap, or a node that lost its lease, is at it.
    Held,
    /// The row says that it stopped.
    Stopped(Option<String>),
    /// The tables are of this other version.
    OtherVersion(i32),
}

impl Follower for Feeding {
    fn place(&mut self) -> BoxFuture<'_, Result<Option<Position>, Failure>> {
        Box::pin(async {
            let live = progress::live(&self.pool, self.model.name()).await?;
            if let Some(live) = &live {
                self.see(live);
            }
            Ok(live.map(|live| live.position))
        })
    }

    fn step<'a>(&'a mut self, tell: &'a Tell) -> BoxFuture<'a, Result<Step, Failure>> {
        Box::pin(async {
            match self.batch().await {
                Ok(Batch::Applied { to, events }) => {
                    self.limit = self.limit.saturating_mul(2).min(BATCH_EVENTS_MAX);
                    Ok(Step::Moved { to, events })
                }
                Ok(Batch::AtHead) => Ok(Step::AtHead(self.place)),
                Ok(Batch::Held) => Ok(Step::Waits(HELD_RETRY)),
                Ok(Batch::Stopped(error)) => {
                    tell.position(Some(self.place));
                    let why = error.unwrap_or_else(|| "its row says so".to_owned());
                    Err(Failure::Stopped { at: Some(self.place.plus(1)), why })
                }
                Ok(Batch::OtherVersion(version)) if version < self.model.version() => {
                    self.renew(tell).await
                }
                Ok(Batch::OtherVersion(_)) => {
                    tell.state(FollowerState::Newer, None);
                    Ok(Step::Waits(STILL_POLL))
                }
                Err(error) if error.is_poison() => self.narrow(&error).await,
                Err(error) => {
                    if self.limit > RETRY_EVENTS_MIN {
                        self.limit = (self.limit / 2).max(RETRY_EVENTS_MIN);
                    }
                    Err(Failure::passing(error))
                }
            }
        })
    }
}

impl Feeding {
    /// One batch, in one transaction with its progress.
    async fn batch(&mut self) -> Result<Batch, ProjectionError> {
        // No batch is held in memory by a model that waits for its slot.
        let Ok(_slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return Ok(Batch::Held);
        };
        // Read before the row is locked, which mostly proves right, so that the lock is held
        // shortly.
        let mut events = self.feed.read(self.place, self.limit).await?;
        within(BATCH_MAX, async {
            let model = Arc::clone(&self.model);
            let mut tx = self.pool.begin().await?;
            let Some(live) = progress::lock_live(&mut tx, model.name()).await? else {
                return Ok(Batch::Held);
            };
            let moved = live.position != self.place;
            self.see(&live);
            if live.version != model.version() {
                return Ok(Batch::OtherVersion(live.version));
            }
            if live.state == State::Stopped {
                return Ok(Batch::Stopped(live.error));
            }
            if moved {
                events = self.feed.read(self.place, self.limit).await?;
            }
            let Some(to) = events.last().map(|entry| entry.recorded.position) else {
                return Ok(Batch::AtHead);
            };
            model.apply(&mut tx, &live.generation, &events).await?;
            progress::advance(&mut tx, model.name(), live.generation, to).await?;
            tx.commit().await?;
            self.place = to;
            Ok(Batch::Applied { to, events: events.len() })
        })
        .await
    }

    fn see(&mut self, live: &progress::Progress) {
        self.place = live.position;
        let seen = (live.generation.number(), live.version);
        self.live.send_if_modified(|known| std::mem::replace(known, seen) != seen);
    }

    /// A batch that can't be taken is halved until the event is found; the events before it are
    /// applied.
    async fn narrow(&mut self, error: &ProjectionError) -> Result<Step, Failure> {
        if self.limit > 1 {
            // The batch may have been shorter than the limit.
            let waiting = self.feed.seen().0.saturating_sub(self.place.0);
            let batch = u64::from(self.limit).min(waiting.max(2));
            self.limit = u32::try_from(batch / 2).unwrap_or(1).max(1);
            return Ok(Step::Again);
        }
        let (name, at, why) = (self.model.name(), self.place.plus(1), error.to_string());
        let generation = Generation::new(self.live.borrow().0);
        progress::stop(&self.pool, name, generation, at, &why).await?;
        Err(Failure::Stopped { at: Some(at), why })
    }

    /// Fills this program's version of the model beside the live one, and swaps.
    async fn renew(&mut self, tell: &Tell) -> Result<Step, Failure> {
        let (projection, version) = (self.model.name(), self.model.version());
        tell.state(FollowerState::Rebuilding, None);
        tracing::info!(projection, version, "rebuilding a changed read model");
        let mut ignore = |_, _| {};
        let rebuilt = rebuild::rebuild_model(
            &self.pool,
            &self.feed,
            self.model.as_ref(),
            &self.cancel,
            rebuild::BATCH_EVENTS_MAX,
            &mut ignore,
        );
        match rebuilt.await {
            Ok(_) | Err(RebuildError::Cancelled) => Ok(Step::Again),
            // Another node rebuilds it.
            Err(RebuildError::Running { .. } | RebuildError::Lost { .. }) => {
                Ok(Step::Waits(STILL_POLL))
            }
            Err(error) => {
                tracing::error!(projection, %error, "a changed read model could not be rebuilt");
                tell.state(FollowerState::Stopped, Some(error.to_string()));
                Ok(Step::Waits(REBUILD_RETRY))
            }
        }
    }
}
