//! Feeds the read models from the ledger: one task a model on every node.
//!
//! A task locks the model's row of progress for one batch and only then moves it, so the nodes share
//! the work and every event takes effect once; a node that finds the row locked leaves it to the other.
//! The first event after a pause is applied at once. While the ledger is busy, events are gathered for
//! [`BUSY_LINGER_MS`]: a punch's capture and its judgement then mostly meet in one batch, and cost one row
//! instead of two. A reader that waits ends the gathering at once.
//!
//! An event that a model can't take stops that model, loudly and at that event: its row says `stopped`
//! and why, the metric `punchtrail_projection_stopped` is 1, the status says so. It is tried again at
//! the next start, or by a rebuild. No event is ever skipped, and no other model waits for it.

use std::{sync::Arc, time::Duration};

use punchtrail_domain::Position;
use punchtrail_infra::ledger::{Entry, Feed};
use sqlx::PgPool;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    progress::{self, State},
    projection::{Projection, ProjectionError},
    rebuild::{self, RebuildError},
};

/// The most events in one batch.
pub const BATCH_EVENTS_MAX: u32 = 10_000;
/// How long events are gathered after a batch before the next, in milliseconds.
pub const LINGER_MS: u64 = 50;
/// A batch of so many events shows that the ledger is busy.
pub const BUSY_BATCH_EVENTS: usize = 500;
/// How long events are gathered while the ledger is busy, in milliseconds: longer than judging takes.
pub const BUSY_LINGER_MS: u64 = 500;
/// How many models apply a batch at one time on a node: the rest of the pool stays free for readers.
pub const BATCHES_AT_ONCE_MAX: usize = 4;

/// How often a model at the head looks at its row all the same: another node may have swapped it.
const IDLE_POLL: Duration = Duration::from_secs(5);
/// How often one that stands still looks whether another node or a rebuild has moved it.
const STILL_POLL: Duration = Duration::from_secs(1);
/// How soon a row that another node holds is looked at again.
const HELD_RETRY: Duration = Duration::from_millis(50);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a waiting reader looks at the rows themselves, which other nodes move, too.
const WAIT_POLL: Duration = Duration::from_millis(100);

/// What a model is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectionState {
    /// It follows the ledger.
    Following,
    /// The database keeps refusing; it is tried again and again.
    Retrying,
    /// A new version of it is filled beside the live one, which stands still until the swap.
    Rebuilding,
    /// It stopped at an event that it can't take.
    Stopped,
    /// Its tables belong to a newer version of the program, which feeds them.
    Newer,
}

impl ProjectionState {
    /// The state as the API and the logs write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Retrying => "retrying",
            Self::Rebuilding => "rebuilding",
            Self::Stopped => "stopped",
            Self::Newer => "newer",
        }
    }

    /// Whether it goes on by itself. What has stopped needs a person; what retries or is rebuilt is only
    /// behind, and no reason to turn devices away.
    pub const fn is_ready(self) -> bool {
        !matches!(self, Self::Stopped)
    }
}

/// Where a model stands, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectionStatus {
    /// The model.
    pub name: &'static str,
    /// The live generation of its tables.
    pub generation: u32,
    /// The version of those tables.
    pub version: i32,
    /// How far they have taken the ledger.
    pub position: Position,
    /// What the model is doing.
    pub state: ProjectionState,
    /// Why it stopped or retries.
    pub error: Option<String>,
}

/// A read model did not reach a position in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the read model `{name}` stands at {position} and did not get to the position asked for in time"
)]
pub struct ReadBehind {
    /// The first model that is behind.
    pub name: String,
    /// Where it stands.
    pub position: Position,
}

/// The running read models of this node.
#[derive(Debug)]
pub struct Projections {
    pool: PgPool,
    statuses: Vec<watch::Receiver<ProjectionStatus>>,
    wanted: watch::Sender<Position>,
    cancel: CancellationToken,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Projections {
    /// Creates what is missing and starts feeding every model of [`crate::all`], until `cancel` or
    /// [`Projections::stop`]. `pool` is the reading role's. When it returns, every model can be read.
    ///
    /// # Errors
    /// When the database is out of reach, or refuses the tables.
    pub async fn start(
        pool: PgPool,
        feed: Feed,
        cancel: CancellationToken,
    ) -> Result<Self, ProjectionError> {
        Self::start_with(crate::all(), pool, feed, cancel).await
    }

    /// The same with other models, for programs that add their own, and for tests.
    ///
    /// # Errors
    /// When the database is out of reach, or refuses the tables.
    pub async fn start_with(
        models: Vec<Arc<dyn Projection>>,
        pool: PgPool,
        feed: Feed,
        cancel: CancellationToken,
    ) -> Result<Self, ProjectionError> {
        let cancel = cancel.child_token();
        progress::ensure_table(&pool).await?;
        let (wanted, want) = watch::channel(Position::START);
        let slots = Arc::new(Semaphore::new(BATCHES_AT_ONCE_MAX));
        let mut statuses = Vec::with_capacity(models.len());
        let mut tasks = JoinSet::new();
        for model in models {
            progress::ensure_first(&pool, model.as_ref()).await?;
            progress::restart(&pool, model.name()).await?;
            let (status, watched) = watch::channel(ProjectionStatus {
                name: model.name(),
                generation: 0,
                version: model.version(),
                position: Position::START,
                state: ProjectionState::Following,
                error: None,
            });
            statuses.push(watched);
            let runner = Runner {
                model,
                pool: pool.clone(),
                feed: feed.clone(),
                cancel: cancel.clone(),
                slots: Arc::clone(&slots),
                wanted: want.clone(),
                status,
                place: Position::START,
                limit: BATCH_EVENTS_MAX,
            };
            tasks.spawn(runner.run());
        }
        Ok(Self { pool, statuses, wanted, cancel, tasks: tokio::sync::Mutex::new(tasks) })
    }

    /// Where every model stands, as this node knows it.
    pub fn status(&self) -> Vec<ProjectionStatus> {
        self.statuses.iter().map(|status| status.borrow().clone()).collect()
    }

    /// Waits until the models of these names have taken the ledger as far as `position`; answers as
    /// soon as they have. Names that aren't models are not waited for.
    ///
    /// # Errors
    /// Names the first that is behind at `deadline`, or that has stopped before.
    pub async fn wait_for(
        &self,
        names: &[&str],
        position: Position,
        deadline: Instant,
    ) -> Result<(), ReadBehind> {
        self.wanted.send_if_modified(|wanted| {
            let further = position > *wanted;
            *wanted = (*wanted).max(position);
            further
        });
        for watched in &self.statuses {
            if names.contains(&watched.borrow().name) {
                self.wait_for_one(watched.clone(), position, deadline).await?;
            }
        }
        Ok(())
    }

    async fn wait_for_one(
        &self,
        mut watched: watch::Receiver<ProjectionStatus>,
        position: Position,
        deadline: Instant,
    ) -> Result<(), ReadBehind> {
        loop {
            let poll = deadline.min(Instant::now() + WAIT_POLL);
            let settled = |status: &ProjectionStatus| {
                status.position >= position || status.state == ProjectionState::Stopped
            };
            let _ = timeout_at(poll, watched.wait_for(settled)).await;
            let mut status = watched.borrow().clone();
            if status.position < position
                && let Ok(Some(live)) = progress::live(&self.pool, status.name).await
            {
                status.position = live.position;
            }
            if status.position >= position {
                return Ok(());
            }
            if status.state == ProjectionState::Stopped || Instant::now() >= deadline {
                return Err(ReadBehind { name: status.name.to_owned(), position: status.position });
            }
        }
    }

    /// Stops feeding, after the batches in flight have settled.
    pub async fn stop(&self) {
        self.cancel.cancel();
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

/// One model's task.
struct Runner {
    model: Arc<dyn Projection>,
    pool: PgPool,
    feed: Feed,
    cancel: CancellationToken,
    slots: Arc<Semaphore>,
    wanted: watch::Receiver<Position>,
    status: watch::Sender<ProjectionStatus>,
    /// How far the live generation was when last seen.
    place: Position,
    /// Events in the next batch; halved to find the one that can't be taken.
    limit: u32,
}

/// What a step came to.
enum Step {
    /// A batch of so many events was applied.
    Applied(usize),
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
    async fn run(mut self) {
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
            Step::Applied(count) => {
                self.say(ProjectionState::Following, None);
                self.limit = self.limit.saturating_mul(2).min(BATCH_EVENTS_MAX);
                let busy = count >= BUSY_BATCH_EVENTS;
                self.gather(if busy { BUSY_LINGER_MS } else { LINGER_MS }).await;
            }
            Step::AtHead => {
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
        // Read before the row is locked, which mostly proves right, so that the lock is held shortly.
        let mut events = self.feed.read(self.place, self.limit).await?;
        let model = Arc::clone(&self.model);
        let Ok(_slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return Ok(Step::Held);
        };
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
        self.applied(&events, last, begun);
        Ok(Step::Applied(events.len()))
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

    fn applied(&mut self, events: &[Arc<Entry>], last: Position, begun: Instant) {
        let name = self.model.name();
        let count = events.len() as u64;
        self.place = last;
        self.status.send_modify(|status| status.position = last);
        let lag = self.feed.seen().0.saturating_sub(last.0);
        metrics::gauge!("punchtrail_projection_position", "projection" => name).set(last.0 as f64);
        metrics::gauge!("punchtrail_projection_lag_events", "projection" => name).set(lag as f64);
        metrics::counter!("punchtrail_projection_events_total", "projection" => name)
            .increment(count);
        let duration = begun.elapsed();
        metrics::histogram!("punchtrail_projection_batch_seconds", "projection" => name)
            .record(duration.as_secs_f64());
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
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
        let generation = crate::Generation::new(self.status.borrow().generation);
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
        let (place, deadline) = (self.place, Instant::now() + IDLE_POLL);
        tokio::select! {
            () = self.cancel.cancelled() => {}
            _ = self.feed.wait_beyond(place, deadline) => {}
        }
    }

    /// Lets events gather after a batch, unless a batch is full already or a reader waits.
    async fn gather(&mut self, linger_ms: u64) {
        let (place, until) = (self.place, Instant::now() + Duration::from_millis(linger_ms));
        let full = place.plus(u64::from(self.limit) - 1);
        tokio::select! {
            () = self.cancel.cancelled() => {}
            _ = self.feed.wait_beyond(full, until) => {}
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
