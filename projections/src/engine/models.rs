//! The read models of a node, fed from the ledger: each is a follower
//! ([`punchtrail_infra::follower`]), one across all nodes.
//!
//! A batch and the model's progress are one transaction, so every event takes effect once. The
//! first event after a pause is applied at once. While the ledger is busy, events are gathered for
//! [`BUSY_LINGER_MS`], and while devices deliver for up to [`DELIVERING_LINGER_MS`]: a punch's
//! capture and its judgement then mostly meet in one batch, and cost one row instead of two. For
//! the same reason a gathering ends, if it can, when a judgement was committed. A reader that waits
//! ends it at once, on whichever node.
//!
//! An event that a model can't take stops that model, loudly and at that event: its row says
//! `stopped` and why, its status says so. It is tried again at the next start, or by a rebuild. No
//! event is ever skipped, and no other model waits for it.

use std::{sync::Arc, time::Duration};

use punchtrail_infra::{
    follower::{FollowerState, FollowerStatus, Followers, Gathering, Pace, Scope},
    ledger::Feed,
    postgres::Pool,
};
use punchtrail_protocol::Position;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};

pub use super::feeding::BATCH_EVENTS_MAX;
use super::{
    feeding::{Feeding, Live},
    progress,
    projection::{Projection, ProjectionError},
};

/// How long events are gathered after a batch before the next, in milliseconds.
pub const LINGER_MS: u64 = 50;
/// A batch of so many events shows that the ledger is busy.
pub const BUSY_BATCH_EVENTS: usize = 500;
/// How long events are gathered while the ledger is busy, in milliseconds: longer than judging
/// takes.
pub const BUSY_LINGER_MS: u64 = 300;
/// How long events are gathered while devices deliver, in milliseconds: several times what judging
/// takes, so that few punches are cut off from their judgement by the end of a batch.
pub const DELIVERING_LINGER_MS: u64 = 1_000;
/// How many models apply a batch at one time on a node: the rest of the pool stays free for
/// readers.
pub const BATCHES_AT_ONCE_MAX: usize = 4;

/// How often a waiting reader looks at the rows themselves, which other nodes move, too.
const WAIT_POLL: Duration = Duration::from_millis(100);

/// A read model did not reach a position in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the read model `{name}` stands at {position} and did not get to the position asked for in time"
)]
pub struct ReadBehind {
    /// The first model that is behind.
    pub name: String,
    pub position: Position,
}

/// A model that is fed, as this node knows it.
#[derive(Debug)]
struct Model {
    name: &'static str,
    status: watch::Receiver<FollowerStatus>,
    live: Arc<watch::Sender<Live>>,
}

/// The read models of this node.
#[derive(Debug)]
pub struct Projections {
    pool: Pool,
    feed: Feed,
    models: Vec<Model>,
}

impl Projections {
    /// Creates what is missing and starts feeding these models, among `followers` and until these
    /// are stopped. `pool` is the reading role's. When it returns, every model can be read.
    ///
    /// # Errors
    /// When the database is out of reach, or refuses the tables.
    pub async fn start(
        models: Vec<Arc<dyn Projection>>,
        pool: Pool,
        feed: Feed,
        followers: &Followers,
    ) -> Result<Self, ProjectionError> {
        progress::ensure_table(&pool).await?;
        for model in &models {
            progress::ensure_first(&pool, model.as_ref()).await?;
            progress::restart(&pool, model.name()).await?;
        }
        let (slots, cancel) = (Arc::new(Semaphore::new(BATCHES_AT_ONCE_MAX)), followers.stopping());
        let models = models.into_iter().map(|model| {
            let (name, version) = (model.name(), model.version());
            let live = Arc::new(watch::Sender::new((0, version)));
            let (pool, feed, shown) = (pool.clone(), feed.clone(), Arc::clone(&live));
            let (slots, cancel) = (Arc::clone(&slots), cancel.clone());
            let make = move || Feeding {
                model: Arc::clone(&model),
                pool: pool.clone(),
                feed: feed.clone(),
                cancel: cancel.clone(),
                slots: Arc::clone(&slots),
                live: Arc::clone(&shown),
                place: Position::START,
                limit: BATCH_EVENTS_MAX,
            };
            let scope = Scope::Deployment { version };
            let status = followers.start(name, scope, Pace::Gathering(PACE), make);
            Model { name, status, live }
        });
        let models = models.collect();
        Ok(Self { pool, feed, models })
    }

    /// Where a model stands, as this node knows; none if there is no such model here.
    pub fn status(&self, name: &str) -> Option<FollowerStatus> {
        Some(self.model(name)?.status.borrow().clone())
    }

    /// The live tables of a model, as this node knows: their generation and version.
    pub fn live(&self, name: &str) -> Option<(u32, i32)> {
        Some(*self.model(name)?.live.borrow())
    }

    fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
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
        self.feed.want(position);
        for model in self.models.iter().filter(|model| names.contains(&model.name)) {
            self.wait_for_one(model.status.clone(), position, deadline).await?;
        }
        Ok(())
    }

    async fn wait_for_one(
        &self,
        mut watched: watch::Receiver<FollowerStatus>,
        position: Position,
        deadline: Instant,
    ) -> Result<(), ReadBehind> {
        let mut asked = false;
        loop {
            let poll = deadline.min(Instant::now() + WAIT_POLL);
            let settled = |status: &FollowerStatus| {
                status.position >= Some(position) || status.state == FollowerState::Stopped
            };
            let _ = timeout_at(poll, watched.wait_for(settled)).await;
            let FollowerStatus { name, state, position: known, .. } = watched.borrow().clone();
            let mut there = known.unwrap_or_default();
            if there < position
                && let Ok(Some(live)) = progress::live(&self.pool, name).await
            {
                there = live.position;
            }
            if there >= position {
                return Ok(());
            }
            if state == FollowerState::Stopped || Instant::now() >= deadline {
                return Err(ReadBehind { name: name.to_owned(), position: there });
            }
            if state == FollowerState::Standby && !asked {
                // Without it the owner comes there, too, if later.
                asked = self.feed.want_elsewhere(position).await.is_ok();
            }
        }
    }
}

const PACE: Gathering = Gathering {
    linger_ms: LINGER_MS,
    busy_events: BUSY_BATCH_EVENTS,
    busy_linger_ms: BUSY_LINGER_MS,
    judged_linger_ms: DELIVERING_LINGER_MS,
    full_events: BATCH_EVENTS_MAX as u64,
};
