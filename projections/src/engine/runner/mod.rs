//! Feeds the read models from the ledger: one task a model on every node.
//!
//! A task locks the model's row of progress for one batch and only then moves it, so the nodes share
//! the work and every event takes effect once; a node that finds the row locked leaves it to the other.
//! The first event after a pause is applied at once. While the ledger is busy, events are gathered for
//! [`BUSY_LINGER_MS`], and while devices deliver for up to [`DELIVERING_LINGER_MS`]: a punch's capture and
//! its judgement then mostly meet in one batch, and cost one row instead of two. For the same reason a
//! gathering ends, if it can, when a judgement was committed. While devices that were turned away are to come back, a
//! model rests as the feed says ([`Feed::rest`]). A reader that waits ends the gathering, and the rest, at once.
//!
//! An event that a model can't take stops that model, loudly and at that event: its row says `stopped`
//! and why, the metric `punchtrail_projection_stopped` is 1, the status says so. It is tried again at
//! the next start, or by a rebuild. No event is ever skipped, and no other model waits for it.

mod task;

use std::{sync::Arc, time::Duration};

use punchtrail_infra::ledger::Feed;
use punchtrail_protocol::Position;
use sqlx::PgPool;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::engine::{
    progress,
    projection::{Projection, ProjectionError},
};
use task::Runner;

/// The most events in one batch.
pub const BATCH_EVENTS_MAX: u32 = 30_000;
/// How long events are gathered after a batch before the next, in milliseconds.
pub const LINGER_MS: u64 = 50;
/// A batch of so many events shows that the ledger is busy.
pub const BUSY_BATCH_EVENTS: usize = 500;
/// How long events are gathered while the ledger is busy, in milliseconds: longer than judging takes.
pub const BUSY_LINGER_MS: u64 = 300;
/// How long events are gathered while devices deliver, in milliseconds: several times what judging takes,
/// so that few punches are cut off from their judgement by the end of a batch.
pub const DELIVERING_LINGER_MS: u64 = 1_000;
/// How many models apply a batch at one time on a node: the rest of the pool stays free for readers.
pub const BATCHES_AT_ONCE_MAX: usize = 4;

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
                fruitless: 0,
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
