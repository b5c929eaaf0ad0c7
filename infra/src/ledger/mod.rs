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
//! What bounds a group: [`GROUP_REQUESTS_MAX`] callers and [`GROUP_EVENTS_MAX`] events. Every
//! writer of every node goes this way, so a unique violation is a bug; should one happen all the
//! same, the group is taken apart and each caller is committed alone, so that callers can't fail
//! one another.
//!
//! The ledger must never number an event before the lock, never answer before the commit, and never
//! write an event by another way.

mod committer;
mod delivery;
mod entry;
mod event_store;
mod execute;
mod feed;
mod inspect;
mod judging;
mod known;
mod metadata;
mod part;
mod pressure;
mod read;
mod rows;
mod settle;
mod side;

use std::{any::Any, borrow::Cow, sync::Arc};

use punchtrail_domain::{AggregateType, StoredEvent, aggregate::Undecodable, punch::PunchEvent};
use punchtrail_protocol::Position;
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    postgres::Pools,
    supervision::{Supervised, Supervisor},
};

pub use delivery::{Delivery, DeliveryItem, DeliveryOutcome, ItemOutcome};
pub use entry::Entry;
pub use event_store::LedgerStore;
pub use execute::{ExecuteError, Executed};
pub use feed::{Feed, give_way};
pub use inspect::{dated_head, judged_through, leaf_hash};
pub use judging::{DeviceMark, JudgedPunch, Judging};
pub(crate) use known::BEYOND_GAP_MAX;
pub use metadata::Metadata;
use pressure::Deliveries;
pub use pressure::Returning;
pub use read::{Loaded, ReadError, load, streams};
pub use side::SideWrite;

/// The most callers settled in one transaction.
pub const GROUP_REQUESTS_MAX: usize = 64;
/// How many events a group gathers before it is committed; one caller alone may bring more.
pub const GROUP_EVENTS_MAX: usize = 6_000;
/// How many callers may wait for the committer; one more is refused as busy.
pub const WAITING_REQUESTS_MAX: usize = 512;

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
#[derive(Default)]
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
    Append(Append, oneshot::Sender<Result<Appended, AppendError>>),
    Delivery(Delivery, oneshot::Sender<Result<DeliveryOutcome, AppendError>>),
    Judging(Judging, oneshot::Sender<Result<Appended, AppendError>>),
}

/// The head's position, read from the database.
///
/// # Errors
/// When the database is out of reach.
pub async fn head(pool: &PgPool) -> Result<Position, sqlx::Error> {
    read::head(pool).await
}

/// The ledger of this deployment, as this node reaches it. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    /// First, so that it is dropped first: the committer and the poller end with the last clone.
    _running: Arc<DropGuard>,
    supervisor: Supervisor,
    writer: PgPool,
    requests: mpsc::Sender<Request>,
    head: watch::Receiver<Position>,
    recent: Arc<entry::Recent>,
    deliveries: Arc<Deliveries>,
    wanted: Arc<watch::Sender<Position>>,
    committer: Arc<Mutex<Option<Supervised>>>,
    stop: CancellationToken,
}

impl Ledger {
    /// Opens the ledger and starts this node's committer.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn open(writer: PgPool) -> Result<Self, sqlx::Error> {
        Self::open_on(writer.clone(), writer, Supervisor::default()).await
    }

    /// The same, with connections for the committer that nobody else uses, and among the tasks that
    /// `supervisor` watches over.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn open_for(pools: &Pools, supervisor: Supervisor) -> Result<Self, sqlx::Error> {
        Self::open_on(pools.writer.clone(), pools.committer.clone(), supervisor).await
    }

    async fn open_on(
        writer: PgPool,
        committing: PgPool,
        supervisor: Supervisor,
    ) -> Result<Self, sqlx::Error> {
        let head = read::head(&writer).await?;
        let (requests, waiting) = mpsc::channel(WAITING_REQUESTS_MAX);
        let (publish, head) = watch::channel(head);
        let stop = CancellationToken::new();
        let recent = Arc::new(entry::Recent::default());
        let deliveries = Arc::new(Deliveries::new());
        let wanted = Arc::new(watch::Sender::new(Position::START));
        let committer = committer::Committer {
            waiting: Arc::new(Mutex::new(waiting)),
            pool: committing,
            head: publish.clone(),
            recent: Arc::clone(&recent),
            deliveries: Arc::clone(&deliveries),
            stop: stop.clone(),
        };
        let committing =
            supervisor.spawn("committer", stop.clone(), move || committer.clone().run());
        let (pool, until, wished) = (writer.clone(), stop.clone(), Arc::clone(&wanted));
        supervisor.spawn("head_poller", stop.clone(), move || {
            feed::poll_head(pool.clone(), publish.clone(), Arc::clone(&wished), until.clone())
        });
        Ok(Self {
            _running: Arc::new(stop.clone().drop_guard()),
            supervisor,
            writer,
            requests,
            head,
            recent,
            deliveries,
            wanted,
            committer: Arc::new(Mutex::new(Some(committing))),
            stop,
        })
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

    /// Appends events to streams, all or nothing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.ask(|answer| Request::Append(append, answer)).await
    }

    /// Takes a device's delivery: every item is applied, known, in conflict or quarantined.
    ///
    /// # Errors
    /// See [`AppendError`]; never [`AppendError::Stale`].
    pub async fn deliver(&self, delivery: Delivery) -> Result<DeliveryOutcome, AppendError> {
        self.ask(|answer| Request::Delivery(delivery, answer)).await
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
        self.ask(|answer| Request::Judging(judging, answer)).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, AppendError>>) -> Request,
    ) -> Result<T, AppendError> {
        if self.stop.is_cancelled() {
            return Err(AppendError::Stopping);
        }
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(request(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AppendError::Busy,
            mpsc::error::TrySendError::Closed(_) => AppendError::Stopping,
        })?;
        // The committer died with the request in its hands; whether it was committed isn't known.
        let lost = || match self.stop.is_cancelled() {
            true => AppendError::Stopping,
            false => AppendError::Unavailable(Arc::new(sqlx::Error::WorkerCrashed)),
        };
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// The events after a position, as they come.
    pub fn feed(&self) -> Feed {
        Feed::new(
            self.writer.clone(),
            self.head.clone(),
            Arc::clone(&self.recent),
            Arc::clone(&self.deliveries),
            Arc::clone(&self.wanted),
        )
    }

    /// The newest position that this node has seen committed.
    pub fn seen(&self) -> Position {
        *self.head.borrow()
    }

    /// The head, read from the database.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn head(&self) -> Result<Position, sqlx::Error> {
        read::head(&self.writer).await
    }

    /// The pool of the writing role, for rows beside the ledger that no event goes with.
    pub fn pool(&self) -> &PgPool {
        &self.writer
    }
}
