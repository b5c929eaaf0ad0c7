//! Filling a model anew from the ledger's beginning, beside the live one, and swapping the two.
//!
//! The next generation's tables are filled in order, a batch a transaction, the next batch read and
//! decoded while Postgres applies the last. The swap is one transaction that holds both rows of
//! progress: it takes what the live one is still ahead by, points the views at the new tables and
//! retires the old ones. So readers see the old model whole, then the new one whole, never behind
//! it.
//!
//! It works while servers run: a rebuild only claims the generation that it fills, for as long as
//! it shows signs of life. One that was killed leaves a generation that the next rebuild drops.

use std::{sync::Arc, time::Duration};

use punchtrail_infra::{
    ledger::{Entry, Feed, ReadError},
    postgres::{Pool, within},
};
use punchtrail_protocol::Position;
use sqlx::PgConnection;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::engine::{
    progress::{self, Claim},
    projection::{Generation, Projection, ProjectionError},
};

/// The most events in one batch of a rebuild.
pub const BATCH_EVENTS_MAX: u32 = 10_000;

/// How long the views may be waited for: a reader that comes while we wait, waits, too.
const SWAP_LOCK_TIMEOUT: &str = "2s";
const SWAP_ATTEMPTS_MAX: u32 = 30;
/// How long a batch may take: a few statements, each of which the session gives a minute.
const BATCH_MAX: Duration = Duration::from_secs(120);
/// How long the indexes may take, which grow with the ledger: a night.
const INDEX_MAX: Duration = Duration::from_secs(8 * 60 * 60);
const SWAP_MAX: Duration = Duration::from_secs(60);
/// How long a rebuild waits for the claim of one that may have died, beyond the lease.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);
const CLAIM_POLL: Duration = Duration::from_millis(500);
/// The database may be away for a moment; a rebuild of hours isn't given up for that.
const BATCH_ATTEMPTS_MAX: u32 = 6;
const BATCH_BACKOFF: Duration = Duration::from_millis(250);

/// Why a rebuild did not come to its end. The live model is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("there is no read model `{name}`; there are {known}")]
    Unknown { name: String, known: String },
    /// Another rebuild of the model is at work.
    #[error(
        "another rebuild of `{name}` is at work; the live model is untouched, wait for that one \
         to end"
    )]
    Running { name: &'static str },
    /// This rebuild paused for so long that another took over.
    #[error("another rebuild of `{name}` took over, because this one had shown no sign of life")]
    Lost { name: &'static str },
    /// The live tables are of a newer version of the program.
    #[error(
        "the live `{name}` is of version {live}, which this program, at version {own}, does not \
         know; use the newer program"
    )]
    Newer { name: &'static str, live: i32, own: i32 },
    /// Asked to stop. What was filled so far is dropped.
    #[error("the rebuild was stopped; the live model is untouched")]
    Cancelled,
    /// The model can't take an event, or the database refused.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
}

impl From<ReadError> for RebuildError {
    fn from(error: ReadError) -> Self {
        Self::Projection(error.into())
    }
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Projection(error.into())
    }
}

/// Told after every batch how many events were taken and how many there are.
pub type Told<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// What a rebuild came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    pub name: &'static str,
    /// The generation that is live now.
    pub generation: u32,
    /// The ledger's position it stood at when it was swapped in.
    pub position: Position,
    pub took: Duration,
}

/// Rebuilds that one of the models and swaps. `pool` is the reading role's; `progress` is told
/// after every batch how many events were taken and how many there are.
///
/// # Errors
/// See [`RebuildError`]; the live model is untouched then.
pub async fn rebuild(
    models: &[Arc<dyn Projection>],
    pool: &Pool,
    feed: &Feed,
    name: &str,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<Rebuilt, RebuildError> {
    let Some(model) = models.iter().find(|model| model.name() == name) else {
        let known: Vec<_> = models.iter().map(|model| model.name()).collect();
        return Err(RebuildError::Unknown { name: name.to_owned(), known: known.join(", ") });
    };
    let cancel = CancellationToken::new();
    rebuild_model(pool, feed, model.as_ref(), &cancel, BATCH_EVENTS_MAX, &mut progress).await
}

/// Rebuilds this model with batches of that many events, until `cancel`.
///
/// # Errors
/// See [`RebuildError`]; the live model is untouched then.
pub async fn rebuild_model(
    pool: &Pool,
    feed: &Feed,
    model: &dyn Projection,
    cancel: &CancellationToken,
    batch_events: u32,
    progress: Told<'_>,
) -> Result<Rebuilt, RebuildError> {
    let begun = Instant::now();
    progress::ensure_table(pool).await?;
    progress::ensure_first(pool, model).await?;
    let (name, own) = (model.name(), model.version());
    if let Some(live) = progress::live(pool, name).await?.filter(|live| live.version > own) {
        return Err(RebuildError::Newer { name, live: live.version, own });
    }
    progress::drop_retired(pool, name).await?;
    let builder = Uuid::new_v4();
    let generation = claim(pool, model, builder, cancel).await?;
    let building = Building { pool, feed, model, cancel, builder, generation, batch_events };
    match building.carry_out(progress).await {
        Ok(position) => {
            // What could not be dropped now is dropped by the next rebuild.
            if let Err(error) = progress::drop_retired(pool, name).await {
                tracing::warn!(projection = name, %error, "the old tables stay for now");
            }
            Ok(Rebuilt { name, generation: generation.number(), position, took: begun.elapsed() })
        }
        Err(error) => {
            if let Err(error) = progress::abandon(pool, name, generation, builder).await {
                tracing::warn!(projection = name, %error, "the half-filled tables stay for now");
            }
            Err(error)
        }
    }
}

/// Claims the next generation. A claim that doesn't move may be a dead one's: its lease is waited
/// for.
async fn claim(
    pool: &Pool,
    model: &dyn Projection,
    builder: Uuid,
    cancel: &CancellationToken,
) -> Result<Generation, RebuildError> {
    let name = model.name();
    let patience = Duration::from_secs_f64(progress::LEASE_S) + CLAIM_PATIENCE;
    let deadline = Instant::now() + patience;
    let mut seen = None;
    loop {
        let at = match progress::claim_next(pool, model, builder).await? {
            Claim::Ours(generation) => return Ok(generation),
            Claim::Busy { position: None } => return Err(RebuildError::Running { name }),
            Claim::Busy { position: Some(at) } => at,
        };
        let moves = seen.replace(at).is_some_and(|before| before != at);
        if moves || Instant::now() >= deadline {
            return Err(RebuildError::Running { name });
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(RebuildError::Cancelled),
            () = tokio::time::sleep(CLAIM_POLL) => {}
        }
    }
}

/// A generation on its way to become the live one.
struct Building<'a> {
    pool: &'a Pool,
    feed: &'a Feed,
    model: &'a dyn Projection,
    cancel: &'a CancellationToken,
    builder: Uuid,
    generation: Generation,
    batch_events: u32,
}

impl Building<'_> {
    async fn carry_out(&self, progress: Told<'_>) -> Result<Position, RebuildError> {
        let mut position = self.fill(Position::START, &mut *progress).await?;
        self.index().await?;
        for _ in 0..SWAP_ATTEMPTS_MAX {
            position = self.fill(position, &mut *progress).await?;
            if let Some(swapped) = self.swap(position).await? {
                progress(swapped.0, swapped.0);
                return Ok(swapped);
            }
        }
        let what = "readers hold its views for too long to swap them; try again";
        Err(ProjectionError::Database(sqlx::Error::Protocol(what.to_owned())).into())
    }

    /// Takes everything after `position` up to what this node has seen; where it came to.
    async fn fill(
        &self,
        mut position: Position,
        progress: Told<'_>,
    ) -> Result<Position, RebuildError> {
        let mut events = self.read_surely(position).await?;
        while let Some(last) = events.last().map(|entry| entry.recorded.position) {
            if self.cancel.is_cancelled() {
                return Err(RebuildError::Cancelled);
            }
            let (applied, next) =
                tokio::join!(self.batch_surely(&events, position, last), self.read_surely(last));
            applied?;
            (position, events) = (last, next?);
            progress(position.0, self.feed.seen().0.max(position.0));
        }
        Ok(position)
    }

    async fn read(&self, after: Position) -> Result<Vec<Arc<Entry>>, RebuildError> {
        let events = self.feed.read(after, self.batch_events).await?;
        Ok(events)
    }

    async fn read_surely(&self, after: Position) -> Result<Vec<Arc<Entry>>, RebuildError> {
        let mut patience = Patience::new(self.model.name());
        loop {
            match self.read(after).await {
                Err(RebuildError::Projection(error)) => patience.after(error).await?,
                settled => return settled,
            }
        }
    }

    async fn batch_surely(
        &self,
        events: &[Arc<Entry>],
        after: Position,
        last: Position,
    ) -> Result<(), RebuildError> {
        let mut patience = Patience::new(self.model.name());
        loop {
            match self.batch(events, after, last).await {
                Err(RebuildError::Projection(error)) => patience.after(error).await?,
                settled => return settled,
            }
        }
    }

    /// Applies one batch, unless an earlier try of it was committed after all.
    async fn batch(
        &self,
        events: &[Arc<Entry>],
        after: Position,
        last: Position,
    ) -> Result<(), RebuildError> {
        within(BATCH_MAX, async {
            let mut tx = self.pool.begin().await?;
            let at = self.lock(&mut tx).await?;
            if at == last {
                return Ok(());
            }
            if at != after {
                return Err(RebuildError::Lost { name: self.model.name() });
            }
            self.model.apply(&mut tx, &self.generation, events).await?;
            progress::advance(&mut tx, self.model.name(), self.generation, last).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    async fn lock(&self, tx: &mut PgConnection) -> Result<Position, RebuildError> {
        let name = self.model.name();
        progress::lock_building(tx, name, self.generation, self.builder)
            .await?
            .map(|row| row.position)
            .ok_or(RebuildError::Lost { name })
    }

    /// Creates the readers' indexes, and gathers the planner's statistics. The row stays locked
    /// meanwhile, which keeps the claim however long it takes.
    async fn index(&self) -> Result<(), RebuildError> {
        within(INDEX_MAX, async {
            let mut tx = self.pool.begin().await?;
            self.lock(&mut tx).await?;
            progress::run(&mut tx, "set local statement_timeout = 0").await?;
            progress::run(&mut tx, &self.model.index_sql(&self.generation)).await?;
            for base in self.model.tables() {
                let analyze = format!("analyze {}", self.generation.table(base));
                progress::run(&mut tx, &analyze).await?;
            }
            let at = self.lock(&mut tx).await?;
            progress::advance(&mut tx, self.model.name(), self.generation, at).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Swaps, if the live model is no more than a batch ahead and no reader is in the way for long.
    async fn swap(&self, position: Position) -> Result<Option<Position>, RebuildError> {
        within(SWAP_MAX, async {
            let mut tx = self.pool.begin().await?;
            let timeout = format!("set local lock_timeout = '{SWAP_LOCK_TIMEOUT}'");
            progress::run(&mut tx, &timeout).await?;
            match self.try_swap(&mut tx, position).await {
                Ok(Some(swapped)) => {
                    tx.commit().await?;
                    Ok(Some(swapped))
                }
                Ok(None) => Ok(None),
                Err(RebuildError::Projection(error)) if !error.is_poison() => {
                    tracing::info!(projection = self.model.name(), %error, "not swapped yet");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn try_swap(
        &self,
        tx: &mut PgConnection,
        position: Position,
    ) -> Result<Option<Position>, RebuildError> {
        let at = self.lock(tx).await?;
        let name = self.model.name();
        if at != position {
            return Err(RebuildError::Lost { name });
        }
        let live = progress::await_live(tx, name).await?;
        let mut reached = at;
        if live.position > at {
            let events = self.read(at).await?;
            self.model.apply(tx, &self.generation, &events).await?;
            reached = events.last().map_or(at, |entry| entry.recorded.position);
            if reached < live.position {
                return Ok(None);
            }
            progress::advance(tx, name, self.generation, reached).await?;
        }
        progress::swap(tx, self.model, self.generation).await?;
        Ok(Some(reached))
    }
}

/// How often, and how long apart, something is tried that the database refused.
struct Patience {
    name: &'static str,
    attempts_left: u32,
    pause: Duration,
}

impl Patience {
    fn new(name: &'static str) -> Self {
        Self { name, attempts_left: BATCH_ATTEMPTS_MAX - 1, pause: BATCH_BACKOFF }
    }

    /// Waits before the next attempt, or gives the error up.
    async fn after(&mut self, error: ProjectionError) -> Result<(), ProjectionError> {
        if error.is_poison() || self.attempts_left == 0 {
            return Err(error);
        }
        tracing::warn!(projection = self.name, %error, "a rebuild tries again");
        tokio::time::sleep(self.pause).await;
        self.attempts_left -= 1;
        self.pause *= 2;
        Ok(())
    }
}
