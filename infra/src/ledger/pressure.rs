//! The pressure of deliveries on what follows the ledger. The committer says when it committed one,
//! or a judgement of some; whoever turns devices away says until when they are to come back
//! ([`Returning`]); and a follower asks its [`Feed`] when to rest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::Feed;

/// For how long after a delivery more of them are to be expected, in milliseconds: longer than a
/// disk that is written full by them makes them pause.
const DELIVERING_MS: u64 = 500;
/// While deliveries come, a follower rests so many times as long as it worked. Much more would be
/// dearer: what is judged late costs every read model of punches a second write.
const REST_FACTOR: u32 = 3;
/// But never longer than this, in milliseconds: what was delivered is to be judged and shown soon.
const REST_MS_MAX: u64 = 1_000;
/// The same while devices that were turned away are to come back: there isn't enough for all, and
/// they come first.
const PRESSED_REST_FACTOR: u32 = 19;
/// And the longest rest then, in milliseconds: a follower does something now and then, however long
/// a storm goes on.
const PRESSED_REST_MS_MAX: u64 = 30_000;

/// When this node last committed a device's delivery, and when it committed a judgement of some.
/// While deliveries come, followers yield to them: devices wait for answers, and what is in the
/// ledger is safe.
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

    /// For how long deliveries are still to be expected, if no other comes; none when they have
    /// ceased.
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

/// Devices that were turned away and are to come back: until they have, followers leave them what
/// they can. Cheap to clone.
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

impl Feed {
    /// Whether deliveries press: devices deliver, and more of them were turned away and are to come
    /// back.
    pub fn is_pressed(&self) -> bool {
        self.deliveries.expected_for().is_some()
            && self.deliveries.due_ms.load(Ordering::Relaxed) > self.deliveries.now_ms()
    }

    /// Rests, as a follower that worked for so long is to before it goes on: not at all, unless
    /// devices are delivering. A follower whose reader waits need not.
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

    /// Waits until this node commits the next judgement of what devices delivered: the moment at
    /// which the fewest captures of the ledger are without theirs.
    pub async fn judged(&self) {
        self.deliveries.judged.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use punchtrail_protocol::Position;
    use sqlx::PgPool;
    use tokio::sync::watch;

    use super::*;
    use crate::postgres::Pool;

    #[tokio::test]
    async fn deliveries_press_while_devices_that_were_turned_away_are_to_come_back() {
        let deliveries = Arc::new(Deliveries::new());
        let pool = PgPool::connect_lazy("postgres://nobody@localhost/nothing").unwrap();
        let pool = Pool::new(pool, Duration::from_secs(1));
        let (_publish, head) = watch::channel(Position::START);
        let feed =
            Feed::new(pool.clone(), head, Arc::default(), Arc::clone(&deliveries), Arc::default());
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
        let feed = Feed::new(pool, head, Arc::default(), others, Arc::default());
        assert!(!feed.is_pressed(), "nobody was turned away");
    }
}
