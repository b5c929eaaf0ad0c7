//! Followers on more than one node: each has one owner, another takes over when it is gone, and one
//! that dies is started again.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures::future::BoxFuture;
use punchtrail_infra::{
    follower::{
        Failure, Follower, FollowerState, FollowerStatus, Followers, Node, Pace, Scope, Step, Tell,
    },
    ledger::{Feed, Ledger},
    postgres::Pool,
    testing::world::World,
};
use punchtrail_protocol::Position;
use punchtrail_testkit::{PATIENCE, eventually};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const NAME: &str = "counter";

/// Counts what it takes, on all nodes together. Its place is in memory here, shared by the nodes.
#[derive(Clone)]
struct Counter {
    feed: Feed,
    place: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
    /// What it does at the next step instead.
    panics: Arc<AtomicBool>,
    stops: Arc<AtomicBool>,
}

impl Counter {
    fn of(ledger: &Ledger) -> Self {
        let (place, taken) = (Arc::default(), Arc::default());
        let (panics, stops) = (Arc::default(), Arc::default());
        Self { feed: ledger.feed(), place, taken, panics, stops }
    }

    /// The same, followed through another node's ledger.
    fn on(&self, ledger: &Ledger) -> Self {
        Self { feed: ledger.feed(), stops: Arc::default(), panics: Arc::default(), ..self.clone() }
    }

    fn start(&self, followers: &Followers) {
        let (counter, scope) = (self.clone(), Scope::Deployment { version: 1 });
        followers.start(NAME, scope, Pace::Prompt, move || counter.clone());
    }
}

impl Follower for Counter {
    fn place(&mut self) -> BoxFuture<'_, Result<Option<Position>, Failure>> {
        Box::pin(async { Ok(Some(Position(self.place.load(Ordering::SeqCst)))) })
    }

    fn step<'a>(&'a mut self, _: &'a Tell) -> BoxFuture<'a, Result<Step, Failure>> {
        Box::pin(async {
            assert!(!self.panics.swap(false, Ordering::SeqCst), "made to panic");
            if self.stops.load(Ordering::SeqCst) {
                return Err(Failure::Stopped { at: None, why: "too old".to_owned() });
            }
            let from = Position(self.place.load(Ordering::SeqCst));
            let entries = self.feed.read(from, 10).await?;
            let Some(to) = entries.last().map(|entry| entry.position()) else {
                return Ok(Step::AtHead(from));
            };
            self.taken.fetch_add(entries.len() as u64, Ordering::SeqCst);
            self.place.store(to.0, Ordering::SeqCst);
            Ok(Step::Moved { to, events: entries.len() })
        })
    }
}

async fn until(what: &str, mut seen: impl FnMut() -> bool) {
    eventually(what, PATIENCE, async || Ok(seen().then_some(()))).await.unwrap();
}

fn status(followers: &Followers) -> FollowerStatus {
    followers.status().into_iter().find(|status| status.name == NAME).unwrap()
}

fn is(followers: &Followers, state: FollowerState) -> bool {
    status(followers).state == state
}

/// How many leases weren't given up.
async fn leased(world: &World) -> i64 {
    sqlx::query_scalar("select count(*) from follower_leases where until > '-infinity'")
        .fetch_one(&world.pools.writer)
        .await
        .unwrap()
}

fn node(ledger: &Ledger) -> Followers {
    Followers::new(ledger, Node::anywhere(), &CancellationToken::new())
}

/// A node in a runtime of its own, which is dropped with all tasks, as by a kill: nothing is given
/// up.
async fn following_in(
    runtime: &Runtime,
    world: &World,
    place: Node,
    counter: &Counter,
) -> (Ledger, Followers) {
    let (postgres, counter) = (world.database.url().to_owned(), counter.clone());
    let started = runtime.spawn(async move {
        let pool = sqlx::PgPool::connect(&postgres).await.unwrap();
        let pool = Pool::new(pool, PATIENCE);
        let ledger = Ledger::open(pool).await.unwrap();
        let followers = Followers::new(&ledger, place, &CancellationToken::new());
        counter.on(&ledger).start(&followers);
        (ledger, followers)
    });
    let (ledger, followers) = started.await.unwrap();
    until("it follows", || is(&followers, FollowerState::Following)).await;
    (ledger, followers)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_owner_at_a_time_and_another_at_once_when_it_stops() {
    let world = World::new().await;
    let other = Ledger::open(world.pools.writer.clone()).await.unwrap();
    let (first, second) = (node(&world.ledger), node(&other));
    let counter = Counter::of(&world.ledger);
    counter.start(&first);
    until("the first follows", || is(&first, FollowerState::Following)).await;
    counter.on(&other).start(&second);
    until("the second stands by", || is(&second, FollowerState::Standby)).await;
    for _ in 0..20 {
        world.hire().await;
    }
    let head = world.ledger.head().await.unwrap();
    until("it is at the head", || status(&second).position == Some(head)).await;
    assert_eq!(counter.taken.load(Ordering::SeqCst), head.0, "each event taken once");
    assert!(is(&first, FollowerState::Following) && is(&second, FollowerState::Standby));

    first.stop().await;
    until("the second goes on", || is(&second, FollowerState::Following)).await;
    world.hire().await;
    let head = world.ledger.head().await.unwrap();
    until("it is at the head again", || status(&second).position == Some(head)).await;
    assert_eq!(counter.taken.load(Ordering::SeqCst), head.0, "still once");
    second.stop().await;
    assert_eq!(leased(&world).await, 0, "given up, not left to run out");
    other.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_takes_over_within_seconds_when_the_owner_is_killed() {
    let world = World::new().await;
    let counter = Counter::of(&world.ledger);
    let killed = Runtime::new().unwrap();
    let doomed = following_in(&killed, &world, Node::anywhere(), &counter).await;
    let followers = node(&world.ledger);
    counter.start(&followers);
    until("this one stands by", || is(&followers, FollowerState::Standby)).await;
    killed.shutdown_background();
    until("this one takes over", || is(&followers, FollowerState::Following)).await;
    world.hire().await;
    let head = world.ledger.head().await.unwrap();
    until("it is at the head", || status(&followers).position == Some(head)).await;
    assert_eq!(counter.taken.load(Ordering::SeqCst), head.0, "each event taken once");
    followers.stop().await;
    drop(doomed);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_where_a_killed_node_was_does_not_wait_for_its_leases() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let counter = Counter::of(&world.ledger);
    let never = CancellationToken::new();
    let killed = Runtime::new().unwrap();
    let place = Node::of(dir.path()).unwrap();
    let doomed = following_in(&killed, &world, place, &counter).await;
    killed.shutdown_background();
    assert_eq!(leased(&world).await, 1, "the killed node's lease stands");
    let followers = Followers::new(&world.ledger, Node::of(dir.path()).unwrap(), &never);
    eventually("the next start to give it up in its name", PATIENCE, async || {
        Ok((leased(&world).await == 0).then_some(()))
    })
    .await
    .unwrap();
    counter.start(&followers);
    until("the next one follows", || is(&followers, FollowerState::Following)).await;
    followers.stop().await;
    drop(doomed);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_panics_comes_back_and_was_seen() {
    let world = World::new().await;
    let (followers, counter) = (node(&world.ledger), Counter::of(&world.ledger));
    let task = || {
        let tasks = world.ledger.supervisor().status();
        tasks.into_iter().find(|task| task.name == NAME).unwrap()
    };
    counter.start(&followers);
    until("it follows", || is(&followers, FollowerState::Following)).await;
    counter.panics.store(true, Ordering::SeqCst);
    world.hire().await;
    until("it was started again", || task().restarts == 1 && task().runs).await;
    assert_eq!(task().error.as_deref(), Some("it panicked: made to panic"));
    let head = world.ledger.head().await.unwrap();
    until("it is at the head", || status(&followers).position == Some(head)).await;
    assert_eq!(counter.taken.load(Ordering::SeqCst), head.0);
    followers.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stops_on_one_node_goes_on_on_another_that_can_take_it() {
    let world = World::new().await;
    let other = Ledger::open(world.pools.writer.clone()).await.unwrap();
    let (old, new) = (node(&world.ledger), node(&other));
    let counter = Counter::of(&world.ledger);
    counter.stops.store(true, Ordering::SeqCst);
    counter.start(&old);
    until("the old program stops", || is(&old, FollowerState::Stopped)).await;
    assert_eq!(status(&old).error.as_deref(), Some("too old"));
    counter.on(&other).start(&new);
    until("the new one goes on", || is(&new, FollowerState::Following)).await;
    until("the old one leaves it to the new", || is(&old, FollowerState::Standby)).await;
    old.stop().await;
    new.stop().await;
    other.close().await;
    world.close().await;
}
