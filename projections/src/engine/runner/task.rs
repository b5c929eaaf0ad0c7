//! One model's task: batch after batch, and what to do when there is none or it fails.

use std::{sync::Arc, time::Duration};

use punchtrail_infra::ledger::{Entry, Feed};
use punchtrail_protocol::Position;
use sqlx::PgPool;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    BATCH_EVENTS_MAX, BUSY_BATCH_EVENTS, BUSY_LINGER_MS, DELIVERING_LINGER_MS, LINGER_MS,
    ProjectionState, ProjectionStatus,
};
use crate::engine::{
    progress::{self, State},
    projection::{Projection, ProjectionError},
    rebuild::{self, RebuildError},
};

/// How often a model at the head looks at its row all the same: another node may have swapped it.
const IDLE_POLL: Duration = Duration::from_secs(5);
/// How often one that stands still looks whether another node or a rebuild has moved it.
const STILL_POLL: Duration = Duration::from_secs(1);
/// How soon a row that another node holds is looked at again.
const HELD_RETRY: Duration = Duration::from_millis(50);
/// How often in a row the feed may announce events that aren't there: one can be committed between a look
/// and the next, more than that means that the database was put back to an earlier copy under this node.
const FRUITLESS_MAX: u32 = 2;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// One model's task.
pub(super) struct Runner {
    pub(super) model: Arc<dyn Projection>,
    pub(super) pool: PgPool,
    pub(super) feed: Feed,
    pub(super) cancel: CancellationToken,
    pub(super) slots: Arc<Semaphore>,
    pub(super) wanted: watch::Receiver<Position>,
    pub(super) status: watch::Sender<ProjectionStatus>,
    /// How far the live generation was when last seen.
    pub(super) place: Position,
    /// Events in the next batch; halved to find the one that can't be taken.
    pub(super) limit: u32,
    /// How often in a row the feed announced events that weren't there.
    pub(super) fruitless: u32,
}

/// What a step came to.
enum Step {
    /// A batch of so many events was applied, in this time.
    Applied { count: usize, worked: Duration },
    /// Nothing was left to apply.
    AtHead,
    /// Another node is at it.
    Held,
    /// The row says that it stopped.
    Stopped(Option<String>),
    /// The tables are of this other version.
    OtherVersion(i32),
}

impl Runner {
    /// Feeds the model until it is asked to stop.
    pub(super) async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        while !self.cancel.is_cancelled() {
            match self.step().await {
                Ok(step) => {
                    backoff = BACKOFF_FIRST;
                    self.after(step).await;
                }
                Err(error) if error.is_poison() => self.narrow(&error).await,
                Err(error) => {
                    let name = self.model.name();
                    tracing::warn!(projection = name, %error, "a read model could not be fed; trying again");
                    self.say(ProjectionState::Retrying, Some(error.to_string()));
                    self.pause(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn after(&mut self, step: Step) {
        match step {
            Step::Applied { count, worked } => {
                self.say(ProjectionState::Following, None);
                self.limit = self.limit.saturating_mul(2).min(BATCH_EVENTS_MAX);
                self.gather(count >= BUSY_BATCH_EVENTS, worked).await;
            }
            Step::AtHead => {
                self.fruitless = if self.feed.seen() > self.place { self.fruitless + 1 } else { 0 };
                self.say(ProjectionState::Following, None);
                self.await_more().await;
            }
            Step::Held => self.pause(HELD_RETRY).await,
            Step::Stopped(error) => {
                self.say(ProjectionState::Stopped, error);
                self.pause(STILL_POLL).await;
            }
            Step::OtherVersion(version) if version < self.model.version() => self.renew().await,
            Step::OtherVersion(_) => {
                self.say(ProjectionState::Newer, None);
                self.pause(STILL_POLL).await;
            }
        }
    }

    /// One batch, in one transaction with its progress.
    async fn step(&mut self) -> Result<Step, ProjectionError> {
        // No batch is held in memory by a model that waits for its slot.
        let Ok(_slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return Ok(Step::Held);
        };
        // Read before the row is locked, which mostly proves right, so that the lock is held shortly.
        let mut events = self.feed.read(self.place, self.limit).await?;
        let model = Arc::clone(&self.model);
        let begun = Instant::now();
        let mut tx = self.pool.begin().await?;
        let Some(live) = progress::lock_live(&mut tx, model.name()).await? else {
            return Ok(Step::Held);
        };
        let moved = live.position != self.place;
        self.see(&live);
        if live.version != model.version() {
            return Ok(Step::OtherVersion(live.version));
        }
        if live.state == State::Stopped {
            return Ok(Step::Stopped(live.error));
        }
        if moved {
            events = self.feed.read(self.place, self.limit).await?;
        }
        let Some(last) = events.last().map(|entry| entry.recorded.position) else {
            return Ok(Step::AtHead);
        };
        model.apply(&mut tx, &live.generation, &events).await?;
        progress::advance(&mut tx, model.name(), live.generation, last).await?;
        tx.commit().await?;
        let worked = begun.elapsed();
        self.applied(&events, last, worked);
        Ok(Step::Applied { count: events.len(), worked })
    }

    fn see(&mut self, live: &progress::Progress) {
        self.place = live.position;
        self.status.send_if_modified(|status| {
            let number = live.generation.number();
            let news = (status.generation, status.version, status.position)
                != (number, live.version, live.position);
            (status.generation, status.version, status.position) =
                (number, live.version, live.position);
            news
        });
    }

    fn applied(&mut self, events: &[Arc<Entry>], last: Position, worked: Duration) {
        let name = self.model.name();
        let count = events.len() as u64;
        self.place = last;
        self.status.send_modify(|status| status.position = last);
        let lag = self.feed.seen().0.saturating_sub(last.0);
        metrics::gauge!("punchtrail_projection_position", "projection" => name).set(last.0 as f64);
        metrics::gauge!("punchtrail_projection_lag_events", "projection" => name).set(lag as f64);
        metrics::counter!("punchtrail_projection_events_total", "projection" => name)
            .increment(count);
        metrics::histogram!("punchtrail_projection_batch_seconds", "projection" => name)
            .record(worked.as_secs_f64());
        let duration_ms = u64::try_from(worked.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(projection = name, position = last.0, count, duration_ms, "applied");
    }

    /// A batch that can't be taken is halved until the event is found; the events before it are applied.
    async fn narrow(&mut self, error: &ProjectionError) {
        if self.limit > 1 {
            // The batch may have been shorter than the limit.
            let waiting = self.feed.seen().0.saturating_sub(self.place.0);
            let batch = u64::from(self.limit).min(waiting.max(2));
            self.limit = u32::try_from(batch / 2).unwrap_or(1).max(1);
            return;
        }
        let (name, at) = (self.model.name(), self.place.plus(1));
        let generation = crate::engine::Generation::new(self.status.borrow().generation);
        tracing::error!(projection = name, position = at.0, %error,
            "a read model stopped at an event it can't take; the ledger and the other models go on");
        match progress::stop(&self.pool, name, generation, at, &error.to_string()).await {
            Ok(()) => self.say(ProjectionState::Stopped, Some(error.to_string())),
            Err(refused) => self.say(ProjectionState::Retrying, Some(refused.to_string())),
        }
        self.pause(HELD_RETRY).await;
    }

    /// Fills this program's version of the model beside the live one, and swaps.
    async fn renew(&mut self) {
        let name = self.model.name();
        self.say(ProjectionState::Rebuilding, None);
        tracing::info!(
            projection = name,
            version = self.model.version(),
            "rebuilding a changed read model"
        );
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
            Ok(_) | Err(RebuildError::Cancelled) => {}
            // Another node rebuilds it.
            Err(RebuildError::Running { .. } | RebuildError::Lost { .. }) => {
                self.pause(STILL_POLL).await
            }
            Err(error) => {
                tracing::error!(projection = name, %error, "a changed read model could not be rebuilt");
                self.say(ProjectionState::Stopped, Some(error.to_string()));
                self.pause(BACKOFF_MAX).await;
            }
        }
    }

    fn say(&self, state: ProjectionState, error: Option<String>) {
        let name = self.model.name();
        let stopped = if state == ProjectionState::Stopped { 1.0 } else { 0.0 };
        metrics::gauge!("punchtrail_projection_stopped", "projection" => name).set(stopped);
        self.status.send_if_modified(|status| {
            let news = (status.state, &status.error) != (state, &error);
            (status.state, status.error) = (state, error);
            news
        });
    }

    /// Waits until something is there to apply, or it is time to look at the row again.
    async fn await_more(&mut self) {
        if self.fruitless > FRUITLESS_MAX {
            return self.pause(HELD_RETRY).await;
        }
        let (place, deadline) = (self.place, Instant::now() + IDLE_POLL);
        tokio::select! {
            () = self.cancel.cancelled() => {}
            _ = self.feed.wait_beyond(place, deadline) => {}
        }
    }

    /// Lets events gather after a batch, unless a batch is full already or a reader waits. A full batch
    /// is no reason to go on while deliveries press.
    async fn gather(&mut self, busy: bool, worked: Duration) {
        let place = self.place;
        let full = place.plus(u64::from(self.limit) - 1);
        let mut feed = self.feed.clone();
        let gathered = async {
            let linger = if busy { BUSY_LINGER_MS } else { LINGER_MS };
            let until = Instant::now() + Duration::from_millis(DELIVERING_LINGER_MS);
            let until_judged = async {
                tokio::time::sleep(Duration::from_millis(linger)).await;
                if busy {
                    tokio::select! {
                        () = self.feed.deliveries_ceased() => {}
                        () = self.feed.judged() => {}
                    }
                }
            };
            tokio::select! {
                () = until_judged => {}
                _ = feed.wait_beyond(full, until) => {}
            }
            if self.feed.is_pressed() {
                self.feed.rest(worked).await;
            }
        };
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = gathered => {}
            Ok(_) = self.wanted.wait_for(|wanted| *wanted > place) => {}
        }
    }

    async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}
