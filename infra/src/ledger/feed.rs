//! Following the ledger: everything after a position, in order, at least once.
//!
//! A follower reads a batch, does its work, stores its place, and asks again. It is woken by this
//! node's commits at once and by other nodes' through a poll every [`POLL_MS`]. It must never move
//! beyond what it read: positions are dense, so what it read is all there is.

use std::{sync::Arc, time::Duration};

use punchtrail_domain::{AggregateType, Recorded, epoch::Anchor};
use punchtrail_protocol::{EpochId, Position};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::postgres::{Pool, within};

use super::{
    Answer, AppendError, Clock, Entry, ReadError, Request,
    entry::Recent,
    epochs::Doubt,
    pressure::Deliveries,
    read::{self, Seen},
    witness::Witness,
};

/// Steps of a walk between two pauses for others ([`give_way`]).
const STEP: usize = 500;
/// How often the head is read for appends of other nodes, in milliseconds.
pub const POLL_MS: u64 = 200;
/// How often what this node remembers is written down, when it has changed.
const WRITE_DOWN: Duration = Duration::from_secs(1);
/// How long a read of the head may take, in milliseconds: it is the next one that counts then.
const POLL_MS_MAX: u64 = 2_000;
/// The most events one read from the database gives. From memory it may be more: they are shared.
pub const READ_EVENTS_MAX: u32 = 2_500;

/// The events after a position, as they come. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    pool: Pool,
    head: watch::Receiver<Position>,
    recent: Arc<Recent>,
    pub(super) deliveries: Arc<Deliveries>,
    wanted: Arc<watch::Sender<Position>>,
}

impl Feed {
    pub(super) fn new(
        pool: Pool,
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
            Ok(none) if none.is_empty() && self.seen() > after => self.beyond(after, limit).await,
            read => read,
        }
    }

    /// Nothing stands after `after`, though the head was seen beyond it. Read in this order, the
    /// events can't be older than the head.
    async fn beyond(&self, after: Position, limit: u32) -> Result<Vec<Arc<Entry>>, ReadError> {
        let head = read::head(&self.pool).await?;
        let events = self.dense(after, limit).await?;
        if events.is_empty() && head > after {
            return Err(ReadError::CutOff { missing: after.plus(1), head });
        }
        Ok(events)
    }

    async fn dense(&self, after: Position, limit: u32) -> Result<Vec<Arc<Entry>>, ReadError> {
        let events = read::after(&self.pool, after, limit).await?;
        let place_of = |event: &Entry| event.position();
        match events.iter().map(place_of).zip(after.0 + 1..).find(|(at, place)| at.0 != *place) {
            Some((before, place)) => Err(ReadError::Hole { missing: Position(place), before }),
            None => Ok(events.into_iter().map(Arc::new).collect()),
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

/// Looks at the head now and then: for what other nodes append, for what their readers wait for,
/// and whether the database still has what this node saw.
#[derive(Clone)]
pub(super) struct Poller {
    pub pool: Pool,
    pub head: watch::Sender<Position>,
    pub wanted: Arc<watch::Sender<Position>>,
    pub witness: Arc<Witness>,
    pub clock: Clock,
    pub requests: mpsc::WeakSender<Request>,
    pub stop: CancellationToken,
}

impl Poller {
    pub(super) async fn run(self) {
        let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut written, mut said) = ((Instant::now(), None), None);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return self.write_down(&mut written).await,
                _ = tick.tick() => {}
            }
            let fails = self.look().await.err();
            // Once, until it can again or fails for another reason.
            if let Some(why) = fails.as_ref().filter(|_| fails != said) {
                tracing::warn!("{why}");
            }
            said = fails;
            if written.0.elapsed() >= WRITE_DOWN {
                self.write_down(&mut written).await;
            }
        }
    }

    /// Looks once; why it couldn't, if it couldn't.
    async fn look(&self) -> Result<(), String> {
        let (epoch, known) = self.witness.newest();
        let asked = self.clock.own();
        let looking = read::look(&self.pool, known.position);
        let Seen { look, newest, wanted, clock_us } =
            within(Duration::from_millis(POLL_MS_MAX), looking)
                .await
                .map_err(|error| format!("the head can't be read now: {error}"))?;
        self.clock.measured(clock_us, asked, self.clock.own());
        forward(&self.wanted, wanted);
        if look.agrees(epoch, known) {
            self.witness.take(epoch, newest);
            forward(&self.head, newest.position);
        } else if self.witness.newest().0 == epoch {
            self.have_compared().await?;
        }
        Ok(())
    }

    /// Only the committer judges that, under the head's lock: what was read here may come from a
    /// standby.
    async fn have_compared(&self) -> Result<(), String> {
        let Some(requests) = self.requests.upgrade() else { return Ok(()) };
        let (to, answered) = oneshot::channel();
        let answer = Answer { to, _held: None };
        // Of a committer that is busy or stops it is asked again, at the next look.
        if requests.try_send(Request::Compare(Doubt::Own, answer)).is_ok()
            && let Ok(Err(error)) = answered.await
        {
            let why = match error {
                AppendError::Unavailable(database) => database.to_string(),
                other => other.to_string(),
            };
            let what = "the database has another history than this node knows";
            return Err(format!("{what}, and can't be written to now: {why}"));
        }
        Ok(())
    }

    async fn write_down(&self, written: &mut (Instant, Option<(EpochId, Anchor)>)) {
        let (now, newest) = (Instant::now(), Some(self.witness.newest()));
        if std::mem::replace(written, (now, newest)).1 == newest {
            return;
        }
        let witness = Arc::clone(&self.witness);
        match tokio::task::spawn_blocking(move || witness.write_down()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "what this node remembers of the ledger can't be written \
                    down");
            }
            // The process ends before it began.
            Err(error) if error.is_cancelled() => {}
            Err(error) => tracing::warn!(%error, "writing down was interrupted"),
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

/// Moves what this node has seen forward, never back: only a look under the head's lock does.
pub(super) fn forward(publish: &watch::Sender<Position>, to: Position) {
    publish.send_if_modified(|seen| {
        let moves = to > *seen;
        if moves {
            *seen = to;
        }
        moves
    });
}
