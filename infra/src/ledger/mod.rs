//! The ledger on Postgres: append-only, one dense order, every event hashed.
//!
//! # How an append goes
//! Callers prepare outside: they parse, verify signatures, decide. Then they hand their part to the
//! one committer of this node (`committer`), which takes all that wait and settles them together:
//!
//! 1. begin, and lock the one row of `ledger_head`; nobody else appends until the commit;
//! 2. in new statements (an advisory or row wait does not refresh a running statement's snapshot),
//!    read for all callers at once what their parts rest on: last sequences, captures held,
//!    followers;
//! 3. settle every caller in memory (`settle`): a stale one alone is turned away, and tries again;
//! 4. number and hash the events, write them in one COPY, write the side rows in key order, move
//!    the head, commit, answer.
//!
//! What bounds a group: [`GROUP_REQUESTS_MAX`] callers, [`GROUP_EVENTS_MAX`] events and
//! [`GROUP_BYTES_MAX`]; a caller who brings more than these is alone in its group, and may bring
//! [`CALLER_EVENTS_MAX`] events and [`CALLER_BYTES_MAX`]. So nobody holds the head for long. Every
//! writer of every node goes this way, so a unique violation is a bug; should one happen all the
//! same, the group is taken apart and each caller is committed alone, so that callers can't fail
//! one another.
//!
//! The ledger must never number an event before the lock, never answer before the commit, and never
//! write an event by another way.

mod clock;
mod commits;
mod committer;
mod delivery;
mod entry;
mod epochs;
mod event_store;
mod execute;
mod feed;
mod holders;
mod inspect;
mod judging;
mod known;
mod metadata;
mod once;
mod part;
mod pressure;
mod read;
mod rows;
mod settle;
mod side;
mod witness;

use std::{any::Any, borrow::Cow, io, path::PathBuf, sync::Arc, time::Duration};

use punchtrail_domain::{
    AggregateType, StoredEvent,
    aggregate::Undecodable,
    epoch::{History, Whereabouts},
    punch::PunchEvent,
};
use punchtrail_protocol::{Digest, Position, Time};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    postgres::{Pool, Pools, within},
    supervision::{Supervised, Supervisor},
};

pub use clock::Clock;
use commits::Commits;
pub use commits::{COMMITTED_MS_MAX, CommitStatus};
pub use delivery::{Delivery, DeliveryItem, DeliveryOutcome, ItemOutcome, QuarantineRoom};
pub use entry::Entry;
use epochs::Doubt;
pub use epochs::Recollection;
pub use event_store::LedgerStore;
pub use execute::{ExecuteError, Executed};
pub use feed::{Feed, READ_EVENTS_MAX, give_way};
pub use inspect::{JudgedThrough, dated_head, judged_through, leaf_hash};
pub use judging::{DeviceMark, JudgedPunch, Judging};
pub(crate) use known::BEYOND_GAP_MAX;
pub use metadata::Metadata;
pub use once::{Beside, Once, Places, Unsettled, begin_beside, beside};
use part::{Part, Size};
use pressure::Deliveries;
pub use pressure::Returning;
pub use read::{Loaded, ReadError, load, streams};
pub use side::SideWrite;
use witness::Witness;

/// The most callers settled in one transaction.
pub const GROUP_REQUESTS_MAX: usize = 64;
/// The most events of all callers of a group; one caller alone may bring more.
pub const GROUP_EVENTS_MAX: usize = 6_000;
/// The most bytes of all callers of a group, in texts; one caller alone may bring more.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// The most events of one caller: what is more is brought in parts, or refused.
pub const CALLER_EVENTS_MAX: usize = 20_000;
/// The most bytes of one caller, in texts. The largest batch of a device has less.
pub const CALLER_BYTES_MAX: usize = 16 << 20;
/// How many callers may wait for the committer; one more is refused as busy.
pub const WAITING_REQUESTS_MAX: usize = 512;
/// How many bytes of theirs, those included whose group is being committed; more is refused as
/// busy.
pub const WAITING_BYTES_MAX: usize = 128 << 20;
/// How long a caller waits for the committer, in milliseconds: less than its own client waits for
/// it. What it asked may still be done then.
pub const ANSWER_MS_MAX: u64 = 10_000;
/// How long the database may prepare an answer to who reads the ledger, in seconds: a fold of a
/// large one begins with a sort. A little more than the session's own limit.
const READ_S_MAX: u64 = 32;

/// Why an append was not made. Nothing of it was written, but for [`AppendError::Unavailable`],
/// where the answer to the commit may have been lost.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another append came first: what this one rests on has changed. Load again and decide anew.
    #[error("what this append rests on has changed meanwhile")]
    Stale,
    /// Too many callers wait already.
    #[error("too many appends wait already")]
    Busy,
    /// The database was out of reach, or lost during the commit. Sending again is always safe.
    #[error("the database is out of reach")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// What this append rests on was written by a newer program.
    #[error(transparent)]
    Unreadable(Undecodable),
    /// A side row was refused by the database.
    #[error("a row beside the ledger was refused")]
    Side(#[source] sqlx::Error),
    /// An event is longer than a leaf may be, 65,535 bytes with its metadata.
    #[error("the event has {0} bytes; the ledger takes at most 65,535")]
    TooLong(usize),
    /// One caller may not bring so much: it would hold the ledger for too long.
    #[error(
        "this would be {events} events of {bytes} bytes in one append; at most \
         {CALLER_EVENTS_MAX} events of {CALLER_BYTES_MAX} bytes are taken at once. Nothing was \
         written; bring it in parts"
    )]
    TooMuch { events: usize, bytes: usize },
    /// The committer has stopped: the server is going down.
    #[error("the server is stopping")]
    Stopping,
}

/// Events for one stream, at the place where they must follow.
#[derive(Debug, Clone)]
pub struct StreamAppend {
    pub aggregate_type: AggregateType,
    pub aggregate_id: String,
    /// The sequence of its last event; 0 when it has none.
    pub expected: u64,
    /// Without any, the stream is only held to what was expected of it.
    pub events: Vec<NewEvent>,
}

impl StreamAppend {
    /// These events for the aggregate of that id, after its last sequence; 0 when it has none.
    pub fn of<E: StoredEvent>(id: impl ToString, expected: u64, events: &[E]) -> Self {
        Self {
            aggregate_type: E::AGGREGATE,
            aggregate_id: id.to_string(),
            expected,
            events: events.iter().map(NewEvent::of).collect(),
        }
    }
}

/// An event that is not yet in the ledger.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub event_type: Cow<'static, str>,
    /// The version of its shape.
    pub event_version: Cow<'static, str>,
    /// The exact text that is kept and hashed.
    pub payload: String,
    /// The event that the payload was made from, if it is a punch's: nearly all are, and their
    /// followers on this node need not read them again.
    of_punch: Option<PunchEvent>,
}

impl NewEvent {
    /// Writes an event.
    pub fn of<E: StoredEvent>(event: &E) -> Self {
        Self {
            event_type: event.name().into(),
            event_version: event.version().into(),
            payload: serde_json::to_string(event).unwrap_or_default(),
            of_punch: (event as &dyn Any).downcast_ref::<PunchEvent>().cloned(),
        }
    }
}

/// An append over any number of streams, all or nothing.
#[derive(Debug, Default)]
pub struct Append {
    pub streams: Vec<StreamAppend>,
    pub metadata: Metadata,
    /// Rows beside the ledger, written in the same transaction.
    pub side: Option<SideWrite>,
}

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first event; of the head when there were none.
    pub first: Position,
    /// Position of the last event; of the head when there were none.
    pub last: Position,
}

enum Request {
    Append(Append, Answer<Appended>),
    Delivery(Delivery, Answer<DeliveryOutcome>),
    Judging(Judging, Answer<Appended>),
    /// Look whether the database still has the history that it should have.
    Compare(Doubt, Answer<()>),
}

/// Where a caller waits for what became of its part, and the memory that is set aside for that
/// until then.
struct Answer<T> {
    to: oneshot::Sender<Result<T, AppendError>>,
    _held: Option<OwnedSemaphorePermit>,
}

impl<T> Answer<T> {
    fn send(self, outcome: Result<T, AppendError>) {
        // A caller that no longer waits has been disconnected; what was committed stays.
        let _ = self.to.send(outcome);
    }
}

/// The head's position, read from the database.
///
/// # Errors
/// When the database is out of reach.
pub async fn head(pool: &Pool) -> Result<Position, sqlx::Error> {
    read::head(pool).await
}

/// The ledger of this deployment, as this node reaches it. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    /// First, so that it is dropped first: the committer and the poller end with the last clone.
    _running: Arc<DropGuard>,
    supervisor: Supervisor,
    writer: Pool,
    requests: mpsc::Sender<Request>,
    waiting_bytes: Arc<Semaphore>,
    head: watch::Receiver<Position>,
    recent: Arc<entry::Recent>,
    deliveries: Arc<Deliveries>,
    commits: Commits,
    wanted: Arc<watch::Sender<Position>>,
    witness: Arc<Witness>,
    clock: Clock,
    committer: Arc<Mutex<Option<Supervised>>>,
    stop: CancellationToken,
}

impl Ledger {
    /// Opens the ledger and starts this node's committer.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn open(writer: Pool) -> Result<Self, sqlx::Error> {
        let (supervisor, clock) = (Supervisor::default(), Clock::default());
        Self::open_on(writer.clone(), writer, None, supervisor, None, clock).await
    }

    /// The same for a node that serves: with connections for the committer that nobody else uses,
    /// among the tasks that `supervisor` watches over, with what the node remembered of this ledger
    /// in that file, and always knowing whether it can commit ([`Ledger::commits`]).
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn open_for(
        pools: &Pools,
        supervisor: Supervisor,
        memory: Option<PathBuf>,
        clock: Clock,
    ) -> Result<Self, sqlx::Error> {
        let Pools { writer, committer, owner, .. } = pools.clone();
        metrics::counter!("punchtrail_database_unanswered_total").absolute(0);
        let ledger =
            Self::open_on(writer, committer, Some(owner), supervisor, memory, clock).await?;
        ledger.commits.first(Duration::from_millis(COMMITTED_MS_MAX)).await;
        Ok(ledger)
    }

    async fn open_on(
        writer: Pool,
        committing: Pool,
        owner: Option<Pool>,
        supervisor: Supervisor,
        memory: Option<PathBuf>,
        clock: Clock,
    ) -> Result<Self, sqlx::Error> {
        let (history, newest) = within(Duration::from_secs(READ_S_MAX), async {
            epochs::history(&mut *writer.acquire().await?).await
        })
        .await?;
        let asked = clock.own();
        clock.measured(read::clock_us(&writer).await?, asked, clock.own());
        let (requests, waiting) = mpsc::channel(WAITING_REQUESTS_MAX);
        let (publish, head) = watch::channel(newest.position);
        let stop = CancellationToken::new();
        let recent = Arc::new(entry::Recent::default());
        let deliveries = Arc::new(Deliveries::new());
        let commits = Commits::default();
        let wanted = Arc::new(watch::Sender::new(Position::START));
        let witness = Arc::new(Witness::open(history, newest, memory));
        let committer = committer::Committer {
            waiting: Arc::new(Mutex::new(waiting)),
            pool: committing,
            owner,
            commits: commits.clone(),
            head: publish.clone(),
            recent: Arc::clone(&recent),
            deliveries: Arc::clone(&deliveries),
            witness: Arc::clone(&witness),
            stop: stop.clone(),
        };
        let committing =
            supervisor.spawn("committer", stop.clone(), move || committer.clone().run());
        let poller = feed::Poller {
            pool: writer.clone(),
            head: publish,
            wanted: Arc::clone(&wanted),
            witness: Arc::clone(&witness),
            clock: clock.clone(),
            requests: requests.downgrade(),
            stop: stop.clone(),
        };
        supervisor.spawn("head_poller", stop.clone(), move || poller.clone().run());
        metrics::counter!("punchtrail_ledger_went_back_total").absolute(0);
        Ok(Self {
            _running: Arc::new(stop.clone().drop_guard()),
            supervisor,
            writer,
            requests,
            waiting_bytes: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            head,
            recent,
            deliveries,
            commits,
            wanted,
            witness,
            clock,
            committer: Arc::new(Mutex::new(Some(committing))),
            stop,
        })
    }

    /// Lets the adjudicator forget what it knew, if the event that it stands at is gone: it walks
    /// the ledger anew, and finds again what it found.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn forget_judged(&self) -> Result<(), sqlx::Error> {
        within(Duration::from_secs(READ_S_MAX), async {
            let mut tx = self.writer.begin().await?;
            // No judgement is committed meanwhile.
            epochs::lock_head(&mut tx, Position::START).await?;
            if !judged_through(&mut *tx).await?.stands {
                sqlx::query("select forget_judged()").execute(&mut *tx).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// What watches over the tasks of this node.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Stops taking appends and waits until those in flight are answered.
    pub async fn close(&self) {
        self.stop.cancel();
        if let Some(committing) = self.committer.lock().await.take() {
            committing.settled().await;
        }
    }

    /// Appends events to streams, all or nothing. Within the scope of a [`Once`] they are only
    /// held.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        match Once::current() {
            Some(once) => once.hold(append),
            None => self.append_now(append).await,
        }
    }

    async fn append_now(&self, append: Append) -> Result<Appended, AppendError> {
        let size = Part::Append(&append).size();
        self.ask(size, |answer| Request::Append(append, answer)).await
    }

    /// Takes a device's delivery: every item is applied, known, in conflict or quarantined.
    ///
    /// # Errors
    /// See [`AppendError`]; never [`AppendError::Stale`].
    pub async fn deliver(&self, delivery: Delivery) -> Result<DeliveryOutcome, AppendError> {
        let size = Part::Delivery(&delivery).size();
        self.ask(size, |answer| Request::Delivery(delivery, answer)).await
    }

    /// What is to hear of devices that were turned away.
    pub fn returning(&self) -> Returning {
        Returning::new(Arc::clone(&self.deliveries))
    }

    /// Appends what the adjudicator found and moves it on, in one transaction.
    ///
    /// # Errors
    /// [`AppendError::Stale`] when another node moved the adjudicator, or a stream has grown.
    pub async fn judge(&self, judging: Judging) -> Result<Appended, AppendError> {
        let size = Part::Judging(&judging).size();
        self.ask(size, |answer| Request::Judging(judging, answer)).await
    }

    /// The epochs of the ledger, as this node knows them.
    pub fn history(&self) -> Arc<History> {
        self.witness.history()
    }

    /// The newest event that this node has seen committed, and its epoch: what a device is told
    /// under seal.
    pub fn newest(&self) -> Recollection {
        let (epoch, anchor) = self.witness.newest();
        Recollection { epoch, anchor }
    }

    /// Whether the ledger still has what somebody was told of it, given the hash that stands there.
    /// If it hasn't, and nobody has noticed before, a new epoch begins. Who is told must not be
    /// able to make it up.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn compare(
        &self,
        told: Recollection,
        stored: Option<Digest>,
    ) -> Result<(), AppendError> {
        match self.history().whereabouts(told.epoch, told.anchor, stored) {
            Whereabouts::Unnoticed => {
                let doubt = Doubt::Told(told);
                self.ask(Size::default(), |answer| Request::Compare(doubt, answer)).await
            }
            Whereabouts::Stands | Whereabouts::Gone { .. } => Ok(()),
        }
    }

    /// Records that an older copy of the database was put back, which ends at `end`: a new epoch
    /// begins, by which devices hear that they have to send again what came after it. `seen` is
    /// the highest position of what is gone that anybody knows of. Once: not if the ledger has
    /// grown since.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn put_back(&self, end: Position, seen: Position) -> Result<(), AppendError> {
        let doubt = Doubt::PutBack { end, seen };
        self.ask(Size::default(), |answer| Request::Compare(doubt, answer)).await
    }

    async fn ask<T>(
        &self,
        size: Size,
        request: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<T, AppendError> {
        if self.stop.is_cancelled() {
            return Err(AppendError::Stopping);
        }
        let Size { events, bytes } = size;
        if !size.within(Size { events: CALLER_EVENTS_MAX, bytes: CALLER_BYTES_MAX }) {
            return Err(AppendError::TooMuch { events, bytes });
        }
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let held = Arc::clone(&self.waiting_bytes).try_acquire_many_owned(permits);
        let held = held.map_err(|_| AppendError::Busy)?;
        let (to, answered) = oneshot::channel();
        self.requests.try_send(request(Answer { to, _held: Some(held) })).map_err(|error| {
            match error {
                mpsc::error::TrySendError::Full(_) => AppendError::Busy,
                mpsc::error::TrySendError::Closed(_) => AppendError::Stopping,
            }
        })?;
        // The committer died with the request in its hands; whether it was committed isn't known.
        let lost = || match self.stop.is_cancelled() {
            true => AppendError::Stopping,
            false => AppendError::Unavailable(Arc::new(sqlx::Error::WorkerCrashed)),
        };
        match timeout(Duration::from_millis(ANSWER_MS_MAX), answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(lost())),
            Err(_) => Err(AppendError::Unavailable(Arc::new(sqlx::Error::Io(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the committer did not come to it within {ANSWER_MS_MAX} ms"),
            ))))),
        }
    }

    /// The events after a position, as they come.
    pub fn feed(&self) -> Feed {
        Feed::new(
            self.writer.answering_within(Duration::from_secs(READ_S_MAX)),
            self.head.clone(),
            Arc::clone(&self.recent),
            Arc::clone(&self.deliveries),
            Arc::clone(&self.wanted),
        )
    }

    /// What time it is, by the database's clock.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// The newest position that this node has seen committed.
    pub fn seen(&self) -> Position {
        *self.head.borrow()
    }

    /// Whether this node can commit, as far as it knows: it tries when it has nothing to do, but
    /// only if it was opened by [`Ledger::open_for`]. Waits for nothing.
    pub fn commits(&self) -> CommitStatus {
        self.commits.status()
    }

    /// The head, read from the database.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn head(&self) -> Result<Position, sqlx::Error> {
        read::head(&self.writer).await
    }

    /// The pool of the writing role, for rows beside the ledger that no event goes with.
    pub fn pool(&self) -> &Pool {
        &self.writer
    }
}
