//! Following the ledger: everything after a position, in order, at least once.
//!
//! A follower reads a batch, does its work, stores its place, and asks again. It is woken by this node's
//! commits at once and by other nodes' through a poll every [`POLL_MS`]. It must never move beyond what
//! it read: positions are dense, so what it read is all there is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use punchtrail_domain::{AggregateType, Recorded};
use punchtrail_protocol::Position;
use sqlx::PgPool;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Entry, ReadError, entry::Recent, read};

/// Steps of a walk between two pauses for others ([`give_way`]).
const STEP: usize = 500;
/// How often the head is read for appends of other nodes, in milliseconds.
pub const POLL_MS: u64 = 200;
/// The most events one read from the database gives. From memory it may be more: they are shared.
pub const READ_EVENTS_MAX: u32 = 2_500;

/// For how long after a delivery more of them are to be expected, in milliseconds: longer than a disk that
/// is written full by them makes them pause.
const DELIVERING_MS: u64 = 500;
/// While deliveries come, a follower rests so many times as long as it worked. Much more would be dearer:
/// what is judged late costs every read model of punches a second write.
const REST_FACTOR: u32 = 3;
/// But never longer than this, in milliseconds: what was delivered is to be judged and shown soon.
const REST_MS_MAX: u64 = 1_000;
/// The same while devices that were turned away are to come back: there isn't enough for all, and they
/// come first.
const PRESSED_REST_FACTOR: u32 = 19;
/// And the longest rest then, in milliseconds: a follower does something now and then, however long a
/// storm goes on.
const PRESSED_REST_MS_MAX: u64 = 30_000;

/// When this node last committed a device's delivery, and when it committed a judgement of some. While
/// deliveries come, followers yield to them: devices wait for answers, and what is in the ledger is safe.
#[derive(Debug)]
pub(super) struct Deliveries {
    opened: Instant,
    last_ms: AtomicU64,
    /// Until when devices that were turned away are to come back.
    due_ms: AtomicU64,
    judged: Notify,
}

impl Deliveries {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            last_ms: AtomicU64::new(0),
            due_ms: AtomicU64::new(0),
            judged: Notify::new(),
        }
    }

    pub(super) fn committed(&self) {
        self.last_ms.store(self.now_ms() + 1, Ordering::Relaxed);
    }

    pub(super) fn judged(&self) {
        self.judged.notify_waiters();
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// For how long deliveries are still to be expected, if no other comes; none when they have ceased.
    fn expected_for(&self) -> Option<Duration> {
        match self.last_ms.load(Ordering::Relaxed) {
            0 => None,
            last_ms => match (last_ms + DELIVERING_MS).saturating_sub(self.now_ms()) {
                0 => None,
                left_ms => Some(Duration::from_millis(left_ms)),
            },
        }
    }
}

/// Devices that were turned away and are to come back: until they have, followers leave them what they
/// can. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Returning(Arc<Deliveries>);

impl Returning {
    pub(super) fn new(deliveries: Arc<Deliveries>) -> Self {
        Self(deliveries)
    }

    /// One more is, within this time.
    pub fn within(&self, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.0.due_ms.fetch_max(self.0.now_ms().saturating_add(wait_ms), Ordering::Relaxed);
    }
}

/// The events after a position, as they come. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    pool: PgPool,
    head: watch::Receiver<Position>,
    recent: Arc<Recent>,
    deliveries: Arc<Deliveries>,
}

impl Feed {
    pub(super) fn new(
        pool: PgPool,
        head: watch::Receiver<Position>,
        recent: Arc<Recent>,
        deliveries: Arc<Deliveries>,
    ) -> Self {
        Self { pool, head, recent, deliveries }
    }

    /// At most `limit` events after `after`, in order, without a hole; none at the head. From memory
    /// when they are recent, else from the database.
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

    /// The events of all streams of these types, after one position and up to another, in order.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn of_types(
        &self,
        types: &[AggregateType],
        after: Position,
        to: Position,
    ) -> Result<Vec<Recorded>, ReadError> {
        read::of_types(&self.pool, types, after, to).await
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

    /// Whether deliveries press: devices deliver, and more of them were turned away and are to come back.
    pub fn is_pressed(&self) -> bool {
        self.deliveries.expected_for().is_some()
            && self.deliveries.due_ms.load(Ordering::Relaxed) > self.deliveries.now_ms()
    }

    /// Rests, as a follower that worked for so long is to before it goes on: not at all, unless devices
    /// are delivering. A follower whose reader waits need not.
    pub async fn rest(&self, worked: Duration) {
        let (factor, ms_max) = match self.is_pressed() {
            true => (PRESSED_REST_FACTOR, PRESSED_REST_MS_MAX),
            false => (REST_FACTOR, REST_MS_MAX),
        };
        let rest = (worked * factor).min(Duration::from_millis(ms_max));
        // The other way to end: an error means that the time was up.
        let _ = tokio::time::timeout(rest, self.deliveries_ceased()).await;
    }

    /// Waits until devices have ceased to deliver to this node.
    pub async fn deliveries_ceased(&self) {
        while let Some(left) = self.deliveries.expected_for() {
            tokio::time::sleep(left).await;
        }
    }

    /// Waits until this node commits the next judgement of what devices delivered: the moment at which
    /// the fewest captures of the ledger are without theirs.
    pub async fn judged(&self) {
        self.deliveries.judged.notified().await;
    }

    /// Waits until something after `position` is there, at most until `deadline`. Whether it is.
    pub async fn wait_beyond(&mut self, position: Position, deadline: Instant) -> bool {
        let beyond = self.head.wait_for(|head| *head > position);
        matches!(tokio::time::timeout_at(deadline, beyond).await, Ok(Ok(_)))
    }
}

/// Reads the head now and then, for what other nodes append.
pub(super) async fn poll_head(
    pool: PgPool,
    publish: watch::Sender<Position>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match read::head(&pool).await {
            Ok(head) => advance(&publish, head),
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
pub(super) fn advance(publish: &watch::Sender<Position>, head: Position) {
    publish.send_if_modified(|seen| {
        let moves = head > *seen;
        if moves {
            *seen = head;
        }
        moves
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn deliveries_press_while_devices_that_were_turned_away_are_to_come_back() {
        let deliveries = Arc::new(Deliveries::new());
        let pool = PgPool::connect_lazy("postgres://nobody@localhost/nothing").unwrap();
        let (_publish, head) = watch::channel(Position::START);
        let feed = Feed::new(pool, head, Arc::default(), Arc::clone(&deliveries));
        let returning = Returning::new(Arc::clone(&deliveries));
        returning.within(Duration::from_secs(60));
        assert!(!feed.is_pressed(), "nobody has delivered yet");
        deliveries.committed();
        assert!(feed.is_pressed());
        returning.within(Duration::ZERO);
        assert!(feed.is_pressed(), "the latest of them counts");
        let others = Arc::new(Deliveries::new());
        others.committed();
        let (_publish, head) = watch::channel(Position::START);
        let feed = Feed::new(feed.pool.clone(), head, Arc::default(), others);
        assert!(!feed.is_pressed(), "nobody was turned away");
    }
}
