//! Who delivers on a node: takes what is due, sends it, writes what became of it.
//!
//! A receiver that is slow or dead costs itself and nobody else. One that took its last delivery is
//! sent several at once; of one that didn't, or that nobody knows yet, one is in hand at a time,
//! and those together never take the room of the others.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    queue::{self, Leased, Outcome, Room},
    secrets::Keeper,
    sending::{Sender, TRY_MAX},
};
use crate::postgres::Pool;

/// Deliveries of a receiver that takes them, in hand …
const OF_ONE_MAX: usize = 96;
/// … and sent at once.
const AT_ONCE: usize = 8;
/// Deliveries in hand of receivers that take them.
const IN_HAND_MAX: usize = 2_048;
/// And of those that don't, or that nobody knows yet: one each.
const DOUBTFUL_MAX: usize = 1_024;
/// Taken from the queue at once, and written to it.
const LEASE_MAX: usize = 512;
/// How often the queue is looked into for what other nodes put there, and what came due.
const POLL: Duration = Duration::from_millis(500);
/// After the database failed.
const BACK_OFF: Duration = Duration::from_millis(500);
/// How long a stop waits for what is being sent.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What time it is: a test's own where one needs it.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Who delivers.
pub struct Deliverer {
    pool: Pool,
    keeper: Keeper,
    sender: Sender,
    node: Uuid,
    now: Now,
    news: Arc<Notify>,
    lanes: HashMap<Uuid, Lane>,
    sending: JoinSet<Outcome>,
    /// What became of deliveries and isn't written yet.
    done: Vec<Outcome>,
    stop: CancellationToken,
}

impl fmt::Debug for Deliverer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliverer").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What is in hand of a receiver.
struct Lane {
    in_hand: usize,
    turns: Arc<Semaphore>,
    /// Whether it took its last delivery.
    is_proven: Arc<AtomicBool>,
}

impl Default for Lane {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { in_hand: 0, turns, is_proven: Arc::default() }
    }
}

impl Lane {
    fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    fn room(&self) -> usize {
        let most = if self.is_proven() { OF_ONE_MAX } else { 1 };
        most.saturating_sub(self.in_hand)
    }
}

impl Deliverer {
    /// One that has nothing in hand, on that node; woken by `news`.
    pub fn new(
        pool: Pool,
        keeper: Keeper,
        sender: Sender,
        (node, now): (Uuid, Now),
        news: Arc<Notify>,
    ) -> Self {
        Self {
            pool,
            keeper,
            sender,
            node,
            now,
            news,
            lanes: HashMap::new(),
            sending: JoinSet::new(),
            done: Vec::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Delivers until it is stopped. What a node had in hand that is no more, `former`, is given
    /// back first.
    pub async fn run(mut self, former: Option<Uuid>, stop: CancellationToken) {
        self.stop = stop.clone();
        for outcome in ["delivered", "failed"] {
            metrics::counter!("punchtrail_webhook_tries_total", "outcome" => outcome).absolute(0);
        }
        let mut former: Vec<Uuid> = former.into_iter().chain([self.node]).collect();
        let mut fails = false;
        while !stop.is_cancelled() {
            let worked = self.go(&mut former).await;
            let failed = worked.is_err();
            if let Err(error) = &worked
                && !fails
            {
                tracing::warn!(%error, "the queue of webhooks can't be reached; it is tried again");
            }
            fails = failed;
            match worked {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                Err(_) => tokio::time::sleep(BACK_OFF).await,
            }
        }
        self.end().await;
    }

    /// Writes what is done and takes what is due; whether there was anything.
    async fn go(&mut self, former: &mut Vec<Uuid>) -> Result<bool, sqlx::Error> {
        while let Some(node) = former.last() {
            queue::give_back(&self.pool, *node).await?;
            former.pop();
        }
        let settled = self.settle().await?;
        let taken = self.take().await?;
        Ok(settled + taken > 0)
    }

    /// Waits until something became of a delivery, or something may be due.
    async fn wait(&mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            Some(done) = self.sending.join_next() => self.took(done),
            () = self.news.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }

    fn took(&mut self, done: Result<Outcome, tokio::task::JoinError>) {
        // A try that panicked leaves a lease that runs out, and its lane a place less.
        let Ok(outcome) = done else { return };
        if let Some(lane) = self.lanes.get_mut(&outcome.endpoint) {
            lane.in_hand = lane.in_hand.saturating_sub(1);
            if lane.in_hand == 0 && !lane.is_proven() {
                self.lanes.remove(&outcome.endpoint);
            }
        }
        self.done.push(outcome);
    }

    async fn settle(&mut self) -> Result<usize, sqlx::Error> {
        while self.done.len() < LEASE_MAX {
            let Some(done) = self.sending.try_join_next() else { break };
            self.took(done);
        }
        if self.done.is_empty() {
            return Ok(0);
        }
        queue::settle(&self.pool, (self.node, (self.now)()), &self.done).await?;
        for outcome in self.done.iter().filter_map(|outcome| outcome.answer.as_ref()) {
            let outcome = if outcome.is_success() { "delivered" } else { "failed" };
            metrics::counter!("punchtrail_webhook_tries_total", "outcome" => outcome).increment(1);
        }
        let count = self.done.len();
        self.done.clear();
        Ok(count)
    }

    /// How many may be taken, and whose.
    fn room(&self) -> Room {
        let (mut doubtful, mut in_hand) = (0, 0);
        for lane in self.lanes.values() {
            *(if lane.is_proven() { &mut in_hand } else { &mut doubtful }) += lane.in_hand;
        }
        let left = IN_HAND_MAX.saturating_sub(in_hand);
        let of = |(id, lane): (&Uuid, &Lane)| {
            let room = if lane.is_proven() { lane.room().min(left) } else { lane.room() };
            (*id, room as i64)
        };
        let each = i64::from(doubtful < DOUBTFUL_MAX);
        let most = if each == 0 { left } else { left.max(1) };
        Room { most: most.min(LEASE_MAX), each, of: self.lanes.iter().map(of).collect() }
    }

    async fn take(&mut self) -> Result<usize, sqlx::Error> {
        let room = self.room();
        if room.most == 0 || self.stop.is_cancelled() {
            return Ok(0);
        }
        let at = (self.node, (self.now)());
        let leased = queue::lease(&self.pool, &self.keeper, at, &room).await?;
        let count = leased.len();
        for delivery in leased {
            self.send(delivery);
        }
        Ok(count)
    }

    fn send(&mut self, delivery: Leased) {
        let lane = self.lanes.entry(delivery.endpoint).or_default();
        lane.in_hand += 1;
        let (turns, is_proven) = (Arc::clone(&lane.turns), Arc::clone(&lane.is_proven));
        let (sender, now, stop) = (self.sender.clone(), Arc::clone(&self.now), self.stop.clone());
        let was_proven = lane.is_proven();
        self.sending.spawn(async move {
            let _turn = turns.acquire().await;
            let (at, longest) = (now(), SignedDuration::try_from(TRY_MAX).unwrap_or_default());
            let has_doubts = was_proven && !is_proven.load(Ordering::Relaxed);
            let answer = if stop.is_cancelled() || has_doubts || at + longest > delivery.until {
                None
            } else {
                let answer = sender.send(&delivery, at).await;
                is_proven.store(answer.is_success(), Ordering::Relaxed);
                Some(answer)
            };
            let Leased { id, endpoint, tries, .. } = delivery;
            Outcome { delivery: id, endpoint, tries, answer }
        });
    }

    /// What is being sent is waited for, for a while; the rest goes back in line.
    async fn end(&mut self) {
        let deadline = Instant::now() + STOP_MAX;
        while let Ok(Some(done)) = timeout_at(deadline, self.sending.join_next()).await {
            self.took(done);
        }
        self.sending.abort_all();
        let written = async {
            self.settle().await?;
            queue::give_back(&self.pool, self.node).await
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, "what became of webhooks isn't written; they are sent again");
        }
    }

    /// Sends everything that is due, and writes what became of it; how many were tried.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn round(&mut self) -> Result<usize, sqlx::Error> {
        let mut count = 0;
        while self.take().await? > 0 {
            while let Some(done) = self.sending.join_next().await {
                self.took(done);
            }
            count += self.done.iter().filter(|outcome| outcome.answer.is_some()).count();
            self.settle().await?;
        }
        Ok(count)
    }
}
