//! Following the ledger: the one way in which everything asynchronous hangs off it. The
//! adjudicator, each read model, the checkpoints, and whatever else will take the ledger's events
//! in order are [`Follower`]s; this runs them.
//!
//! A follower knows its place, takes what comes next in one step, and moves its place in the
//! transaction of what it writes. Everything around that is here: it is woken by commits, lets
//! events gather, rests while devices deliver, tries again with backoff, stops loudly at what it
//! can't take, is one across all nodes by a lease, is started again when it dies
//! ([`crate::supervision`]), and tells where it stands.
//!
//! Arrows: `supervision` ← `ledger` ← `follower` ← `adjudicator`, `audit`. The runtime knows no
//! follower by name.

mod lease;
mod node;
mod pace;
pub mod place;
mod run;

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use punchtrail_protocol::Position;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use lease::{LEASE_MS, RENEW_MS};
pub use node::Node;
pub use pace::{Gathering, Pace};

use crate::{
    ledger::{Feed, Ledger, ReadError},
    postgres::Trouble,
    supervision::{Supervised, Supervisor},
};
use lease::Leases;

/// Something that takes the ledger's events in order.
pub trait Follower: Send + Sync {
    /// Where it stands, as it is kept; none when nothing is kept. Read while another node has it,
    /// and before its first step.
    fn place(&mut self) -> BoxFuture<'_, Result<Option<Position>, Failure>>;

    /// Takes what comes next, and moves its place with it. Always run to its end.
    fn step<'a>(&'a mut self, tell: &'a Tell) -> BoxFuture<'a, Result<Step, Failure>>;
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It took so many events, up to here.
    Moved { to: Position, events: usize },
    /// Nothing was there to take.
    AtHead(Position),
    /// Nothing was to be done here, for a reason that it told; to be looked at again after so long.
    Waits(std::time::Duration),
    /// It did something that isn't following, and goes on.
    Again,
}

/// Why a step was not made. Nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// What comes next can't be taken, however often it is tried: by a person or another program it
    /// can.
    Stopped { at: Option<Position>, why: String },
    /// It refuses to go on until a person has looked, and nothing else is the worse for it.
    Refused(String),
    /// It may pass; tried again with backoff.
    Passing(String),
}

impl Failure {
    /// A failure that may pass.
    pub fn passing(error: impl std::fmt::Display) -> Self {
        Self::Passing(error.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let (at, why) = (error.stops_at(), error.to_string());
        match error {
            ReadError::Database(error) if Trouble::of(&error) == Trouble::Passing => {
                Self::Passing(why)
            }
            _ => Self::Stopped { at, why },
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        ReadError::from(error).into()
    }
}

/// What a follower is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum FollowerState {
    Following,
    Standby,
    /// Something keeps failing; it is tried again and again.
    Retrying,
    /// A new version of it is filled beside the live one, which stands still until the swap.
    Rebuilding,
    /// What it writes belongs to a newer version of the program, which takes care of it.
    Newer,
    /// It refuses to go on until a person has looked; nothing else is the worse for it.
    Refused,
    /// It stopped at something that it can't take.
    Stopped,
}

impl FollowerState {
    /// The state as the API and the logs write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the node is ready with it. What has stopped needs a person; what retries or is
    /// rebuilt is only behind, and no reason to turn devices away.
    pub const fn is_ready(self) -> bool {
        !matches!(self, Self::Stopped)
    }

    /// Whether it needs a person.
    pub const fn needs_a_person(self) -> bool {
        matches!(self, Self::Stopped | Self::Refused)
    }
}

/// Where a follower stands, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerStatus {
    pub name: &'static str,
    /// How far it has taken the ledger; none until that is known.
    pub position: Option<Position>,
    pub state: FollowerState,
    /// Why it stopped, refuses or retries.
    pub error: Option<String>,
}

/// Whose follower it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One for all nodes that run this version of it, since they share what it writes: whoever has
    /// its lease runs it. Another version has a lease of its own, so that a new program can prepare
    /// its tables while the old one still feeds its own.
    Deployment { version: i32 },
    /// One on each node: what it writes is the node's own.
    Node,
}

/// Through which a follower tells what it is doing.
#[derive(Debug, Clone)]
pub struct Tell(Arc<watch::Sender<FollowerStatus>>);

impl Tell {
    fn name(&self) -> &'static str {
        self.0.borrow().name
    }

    /// Whether that is what it told last.
    fn is(&self, state: FollowerState, why: &str) -> bool {
        let status = self.0.borrow();
        status.state == state && status.error.as_deref() == Some(why)
    }

    /// What it is doing, and why.
    pub fn state(&self, state: FollowerState, error: Option<String>) {
        let stopped = f64::from(u8::from(state.needs_a_person()));
        metrics::gauge!("punchtrail_follower_stopped", "follower" => self.name()).set(stopped);
        self.0.send_if_modified(|status| {
            let news = (status.state, &status.error) != (state, &error);
            (status.state, status.error) = (state, error);
            news
        });
    }

    /// How far it had come when it last told.
    fn place(&self) -> Option<Position> {
        self.0.borrow().position
    }

    /// How far it has come, if that is known.
    pub fn position(&self, position: Option<Position>) {
        let Some(position) = position else { return };
        metrics::gauge!("punchtrail_follower_position", "follower" => self.name())
            .set(position.0 as f64);
        self.0.send_if_modified(|status| status.position.replace(position) != Some(position));
    }
}

/// The followers of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Followers(Arc<Running>);

#[derive(Debug)]
struct Running {
    feed: Feed,
    supervisor: Supervisor,
    leases: Leases,
    stop: CancellationToken,
    /// Ends the keeping of leases, when no follower needs one any more.
    kept: CancellationToken,
    tasks: Mutex<Vec<Supervised>>,
    keeper: Mutex<Option<Supervised>>,
    statuses: Mutex<Vec<watch::Receiver<FollowerStatus>>>,
}

impl Followers {
    /// None yet, on this ledger and node. They stop with `stop`, or with [`Followers::stop`]. Must
    /// be called within a runtime.
    pub fn new(ledger: &Ledger, node: Node, stop: &CancellationToken) -> Self {
        let leases = Leases::new(ledger.pool().clone(), node);
        let supervisor = ledger.supervisor().clone();
        let (kept, keeping) = (CancellationToken::new(), leases.clone());
        let until = kept.clone();
        let keeper =
            supervisor.spawn("leases", kept.clone(), move || keeping.clone().keep(until.clone()));
        Self(Arc::new(Running {
            feed: ledger.feed(),
            supervisor,
            leases,
            stop: stop.child_token(),
            kept,
            tasks: Mutex::default(),
            keeper: Mutex::new(Some(keeper)),
            statuses: Mutex::default(),
        }))
    }

    /// Runs another one. `make` is called for each start: what a follower held in memory when it
    /// died is not to be trusted. Its status can be watched.
    pub fn start<F>(
        &self,
        name: &'static str,
        scope: Scope,
        pace: Pace,
        mut make: impl FnMut() -> F + Send + 'static,
    ) -> watch::Receiver<FollowerStatus>
    where
        F: Follower + 'static,
    {
        let state = FollowerState::Standby;
        let (publish, watched) =
            watch::channel(FollowerStatus { name, position: None, state, error: None });
        let tell = Tell(Arc::new(publish));
        tell.state(state, None);
        let lease = match scope {
            Scope::Deployment { version } => Some(self.0.leases.want(format!("{name}.v{version}"))),
            Scope::Node => None,
        };
        let (feed, stop) = (self.0.feed.clone(), self.0.stop.clone());
        let task = self.0.supervisor.spawn(name, stop.clone(), move || {
            let run = run::Run {
                follower: Box::new(make()),
                lease: lease.clone(),
                pace,
                feed: feed.clone(),
                tell: tell.clone(),
                stop: stop.clone(),
                first: None,
            };
            run.follow()
        });
        locked(&self.0.tasks).push(task);
        locked(&self.0.statuses).push(watched.clone());
        watched
    }

    /// Cancelled when they are to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// Where each of them stands, in the order in which they were started.
    pub fn status(&self) -> Vec<FollowerStatus> {
        locked(&self.0.statuses).iter().map(|status| status.borrow().clone()).collect()
    }

    /// Ends them after the steps in hand, and gives up their leases: another node may go on at
    /// once.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        let tasks = std::mem::take(&mut *locked(&self.0.tasks));
        for task in tasks {
            task.settled().await;
        }
        self.0.kept.cancel();
        let keeper = locked(&self.0.keeper).take();
        if let Some(keeper) = keeper {
            keeper.settled().await;
        }
        self.0.leases.give_up().await;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
