//! Following the ledger: everything after a position, in order, at least once.
//!
//! A follower reads a batch, does its work, stores its place, and asks again. It is woken by this
//! node's commits at once and by other nodes' through a poll every [`POLL_MS`]. It must never move
//! beyond what it read: positions are dense, so what it read is all there is.

use std::{sync::Arc, time::Duration};

use punchtrail_domain::{AggregateType, Recorded};
use punchtrail_protocol::Position;
use sqlx::PgPool;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Entry, ReadError, entry::Recent, pressure::Deliveries, read};

/// Steps of a walk between two pauses for others ([`give_way`]).
const STEP: usize = 500;
/// How often the head is read for appends of other nodes, in milliseconds.
pub const POLL_MS: u64 = 200;
/// The most events one read from the database gives. From memory it may be more: they are shared.
pub const READ_EVENTS_MAX: u32 = 2_500;

/// The events after a position, as they come. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    pool: PgPool,
    head: watch::Receiver<Position>,
    recent: Arc<Recent>,
    pub(super) deliveries: Arc<Deliveries>,
    wanted: Arc<watch::Sender<Position>>,
}

impl Feed {
    pub(super) fn new(
        pool: PgPool,
        head: watch::Receiver<Position>,
        recent: Arc<Recent>,
        deliveries: Arc<Deliveries>,
        wanted: Arc<watch::Sender<Position>>,
    ) -> Self {
        Self { pool, head, recent, deliveries, wanted }
    }

    /// At most `limit` events after `after`, in order, without a hole; none at the head. From
    /// memory when they are recent, else from the database.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, after: Position, limit: u32) -> Result<Vec<Arc<Entry>>, ReadError> {
        let recent = self.recent.after(after, limit as usize);
        if !recent.is_empty() {
            return Ok(recent);
        }
        let limit = limit.min(READ_EVENTS_MAX);
        match self.dense(after, limit).await {
            // What stands before it can be taken all the same; it is refused when it is the next.
            Err(error) => match error.stops_at().and_then(|at| at.0.checked_sub(after.0 + 1)) {
                Some(before @ 1..) if before < u64::from(limit) => {
                    self.dense(after, before as u32).await
                }
                _ => Err(error),
            },
            read => read,
        }
    }

    async fn dense(&self, after: Position, limit: u32) -> Result<Vec<Arc<Entry>>, ReadError> {
        let events = read::after(&self.pool, after, limit).await?;
        match events.iter().zip(after.0 + 1..).find(|(event, place)| event.position.0 != *place) {
            Some((event, place)) => {
                Err(ReadError::Hole { missing: Position(place), before: event.position })
            }
            None => Ok(events.into_iter().map(|event| Arc::new(Entry::from(event))).collect()),
        }
    }

    /// Gives the events of all streams of one type that stand up to `to` to `take`, each stream's
    /// in their order; a page after the other, so that it costs memory for one, however many there
    /// are.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn of_type(
        &self,
        aggregate_type: AggregateType,
        to: Position,
        mut take: impl FnMut(&Recorded) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (mut id, mut sequence) = (String::new(), 0);
        loop {
            let after = (id.as_str(), sequence);
            let page =
                read::of_type(&self.pool, aggregate_type, after, to, READ_EVENTS_MAX).await?;
            page.iter().try_for_each(&mut take)?;
            let full = page.len() == READ_EVENTS_MAX as usize;
            match page.into_iter().last().filter(|_| full) {
                Some(last) => (id, sequence) = (last.aggregate_id, last.sequence),
                None => return Ok(()),
            }
        }
    }

    /// The events of many streams of one type, ordered by stream and sequence.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn streams(
        &self,
        aggregate_type: AggregateType,
        aggregate_ids: &[String],
    ) -> Result<Vec<Recorded>, ReadError> {
        read::streams(&self.pool, aggregate_type, aggregate_ids).await
    }

    /// The newest position this node has seen committed.
    pub fn seen(&self) -> Position {
        *self.head.borrow()
    }

    /// Waits until something after `position` is there, at most until `deadline`. Whether it is.
    pub async fn wait_beyond(&mut self, position: Position, deadline: Instant) -> bool {
        let beyond = self.head.wait_for(|head| *head > position);
        matches!(tokio::time::timeout_at(deadline, beyond).await, Ok(Ok(_)))
    }

    /// A reader waits for followers to come up to there: those of this node hurry.
    pub fn want(&self, position: Position) {
        forward(&self.wanted, position);
    }

    /// And those of other nodes, as soon as these look at the head.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn want_elsewhere(&self, position: Position) -> Result<(), sqlx::Error> {
        read::want(&self.pool, position).await
    }

    /// Waits until a reader waits for something after `position`.
    pub async fn wanted_beyond(&self, position: Position) {
        // It can't end: the sender is here.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted > position).await;
    }
}

/// Reads the head now and then, for what other nodes append and what their readers wait for.
pub(super) async fn poll_head(
    pool: PgPool,
    head: watch::Sender<Position>,
    wanted: Arc<watch::Sender<Position>>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match read::head_and_wanted(&pool).await {
            Ok((there, wished)) => {
                forward(&head, there);
                forward(&wanted, wished);
            }
            Err(error) => tracing::debug!(%error, "the head can't be read now"),
        }
    }
}

/// Lets others on the same thread have their turn after every 500 steps of a long walk: a person's
/// read doesn't wait for a follower's whole batch.
pub async fn give_way(step: usize) {
    if step % STEP == STEP - 1 {
        tokio::task::yield_now().await;
    }
}

/// Moves what this node has seen forward, never back.
pub(super) fn forward(publish: &watch::Sender<Position>, to: Position) {
    publish.send_if_modified(|seen| {
        let moves = to > *seen;
        if moves {
            *seen = to;
        }
        moves
    });
}
