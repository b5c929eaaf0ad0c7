//! The runner and the rebuild on a real ledger: stopping, waiting, swapping, surviving.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{path::Path, sync::Arc, time::Duration};

use common::{
    Node, World, deadline,
    tally::{Tally, counted},
};
use punchtrail_domain::AggregateType;
use punchtrail_infra::{
    follower::{self, FollowerState, FollowerStatus, Followers},
    ledger::Ledger,
    postgres::{PoolSizes, Postgres},
};
use punchtrail_projections::engine::{
    Projection, Projections, RebuildError,
    rebuild::{BATCH_EVENTS_MAX, rebuild_model},
};
use punchtrail_protocol::Position;
use punchtrail_testkit::{PATIENCE, eventually};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const ONE: Tally = Tally { version: 1, slow: false };
const TWO: Tally = Tally { version: 2, slow: false };

async fn run(world: &World, model: Tally) -> Node {
    let models: Vec<Arc<dyn Projection>> = vec![Arc::new(model)];
    Node::of(world, models).await
}

/// The model, as a node knows it.
#[derive(Debug)]
struct Status {
    generation: u32,
    version: i32,
    position: Position,
    state: FollowerState,
    error: Option<String>,
}

impl Status {
    fn of(running: &Projections) -> Self {
        let FollowerStatus { position, state, error, .. } = running.status("tally").unwrap();
        let (generation, version) = running.live("tally").unwrap();
        Self { generation, version, position: position.unwrap_or_default(), state, error }
    }
}

/// Waits until the model's status is as wanted.
async fn until(running: &Projections, wanted: impl Fn(&Status) -> bool) -> Status {
    let mut status = Status::of(running);
    let seen = eventually("the model's status", PATIENCE, async || {
        status = Status::of(running);
        Ok(wanted(&status).then_some(()))
    })
    .await;
    seen.unwrap_or_else(|error| panic!("{error}: {status:?}"));
    status
}

async fn caught_up(world: &World, running: &Projections) -> Position {
    let head = world.ledger.head().await.unwrap();
    running.wait_for(&["tally"], head, deadline()).await.unwrap();
    head
}

/// An event that no program knows: a newer version's, or a mistake.
async fn poison(world: &World) -> Position {
    let site = Uuid::new_v4().to_string();
    world.record_of_a_newer_version(AggregateType::Site, &site, "Registered", "{}", None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_reader_is_answered_when_the_model_is_there_and_not_before() {
    let world = World::new().await;
    let running = run(&world, ONE).await;
    let head = caught_up(&world, &running).await;
    assert_eq!(counted(&world.pools.reader).await, head.0);

    let soon = Instant::now() + Duration::from_millis(30);
    let behind = running.wait_for(&["tally"], head.plus(1), soon).await.unwrap_err();
    assert_eq!((behind.name.as_str(), behind.position), ("tally", head));

    let waiting = running.wait_for(&["tally"], head.plus(1), deadline());
    let (answered, _) = tokio::join!(waiting, world.hire());
    answered.unwrap();
    assert!(counted(&world.pools.reader).await > head.0);
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_can_not_be_taken_stops_the_model_there_and_loudly() {
    let world = World::new().await;
    let running = run(&world, ONE).await;
    for _ in 0..5 {
        world.hire().await;
    }
    let at = poison(&world).await;
    for _ in 0..5 {
        world.hire().await;
    }
    let status = until(&running, |status| status.state == FollowerState::Stopped).await;
    assert_eq!(status.position.plus(1), at, "what came before it is applied");
    assert!(status.error.unwrap().contains("version 2"));
    assert_eq!(counted(&world.pools.reader).await, at.0 - 1);
    assert!(!status.state.is_ready());

    let behind = running.wait_for(&["tally"], at, deadline()).await.unwrap_err();
    assert_eq!(behind.position.plus(1), at, "nobody waits for a model that has stopped");
    let row: (String, i64) = sqlx::query_as("select state, error_position from read.projections")
        .fetch_one(&world.pools.reader)
        .await
        .unwrap();
    assert_eq!(row, ("stopped".to_owned(), at.to_db()));

    // A rebuild meets the same event, gives up, and leaves nothing behind.
    let feed = world.ledger.feed();
    let cancel = CancellationToken::new();
    let refused = rebuild_model(&world.pools.reader, &feed, &ONE, &cancel, 3, &mut |_, _| {}).await;
    assert!(matches!(refused, Err(RebuildError::Projection(_))), "{refused:?}");
    assert_eq!(generations(&world).await, [1]);
    assert_eq!(counted(&world.pools.reader).await, at.0 - 1);
    running.stop().await;

    // The next start tries again, and comes to the same end.
    let again = run(&world, ONE).await;
    let status = until(&again, |status| status.state == FollowerState::Stopped).await;
    assert_eq!(status.position.plus(1), at);
    again.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_the_events_stops_the_model_and_a_rebuild_and_is_named() {
    let world = World::new().await;
    let running = run(&world, ONE).await;
    let head = caught_up(&world, &running).await;
    let cut_off = format!("update ledger_head set position = {}", head.0 + 3);
    sqlx::raw_sql(&cut_off).execute(&world.pools.owner).await.unwrap();
    let status = until(&running, |status| status.state == FollowerState::Stopped).await;
    assert_eq!(status.position, head);
    let missing = format!("position {} is missing", head.0 + 1);
    assert!(status.error.as_ref().unwrap().contains(&missing), "{status:?}");
    let (feed, cancel) = (world.ledger.feed(), CancellationToken::new());
    let refused = rebuild_model(&world.pools.reader, &feed, &ONE, &cancel, 3, &mut |_, _| {}).await;
    assert!(refused.unwrap_err().to_string().contains(&missing));
    running.stop().await;
    world.close().await;
}

async fn generations(world: &World) -> Vec<i32> {
    sqlx::query_scalar("select generation from read.projections order by generation")
        .fetch_all(&world.pools.reader)
        .await
        .unwrap()
}

async fn tables(world: &World) -> Vec<String> {
    sqlx::query_scalar(
        "select tablename::text from pg_tables where schemaname = 'read' \
         and tablename like 'tally%' order by 1",
    )
    .fetch_all(&world.pools.reader)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_swaps_while_the_ledger_grows_and_readers_never_see_a_half() {
    const HIRES_MAX: usize = 500;
    let world = World::new().await;
    for _ in 0..20 {
        world.hire().await;
    }
    let running = run(&world, ONE).await;
    let mut least = caught_up(&world, &running).await.0;
    let done = CancellationToken::new();
    // Bounded: a ledger that for ever grows faster than the slow model is filled would never be
    // caught up with.
    let growing = async {
        for _ in 0..HIRES_MAX {
            if done.is_cancelled() {
                return;
            }
            world.hire().await;
        }
    };
    let reading = async {
        let mut reads = 0;
        while !done.is_cancelled() {
            let now = counted(&world.pools.reader).await;
            assert!(now >= least, "a reader saw {now} events after {least}");
            least = now;
            reads += 1;
        }
        reads
    };
    let rebuilding = async {
        let feed = world.ledger.feed();
        let cancel = CancellationToken::new();
        let pool = &world.pools.reader;
        for expected in 2..5 {
            let mut last = 0;
            let mut told = |now: u64, of: u64| {
                assert!(now >= last && now <= of, "progress went from {last} to {now} of {of}");
                last = now;
            };
            let slow = Tally { version: 1, slow: true };
            let rebuilt = rebuild_model(pool, &feed, &slow, &cancel, 100, &mut told).await.unwrap();
            assert_eq!(rebuilt.generation, expected);
        }
        done.cancel();
    };
    let ((), reads, ()) = tokio::join!(growing, reading, rebuilding);
    assert!(reads > 0);
    let head = caught_up(&world, &running).await;
    assert_eq!(counted(&world.pools.reader).await, head.0, "each event counted once");
    until(&running, |status| status.generation == 4).await;
    assert_eq!(tables(&world).await, ["tally_4"], "old generations are gone");
    assert_eq!(generations(&world).await, [4]);
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_rebuild_left_is_dropped_by_the_next() {
    let world = World::new().await;
    for _ in 0..10 {
        world.hire().await;
    }
    let running = run(&world, ONE).await;
    let head = caught_up(&world, &running).await;
    let feed = world.ledger.feed();
    let pool = &world.pools.reader;
    let never = CancellationToken::new();
    let slow = Tally { version: 1, slow: true };
    // Killed after its first batches: the future is dropped, nothing is cleaned up.
    let mut batches = 0;
    {
        let (killed, kill) = tokio::sync::oneshot::channel();
        let mut killed = Some(killed);
        let mut told = |_, _| {
            batches += 1;
            if batches == 2
                && let Some(killed) = killed.take()
            {
                let _ = killed.send(());
            }
        };
        tokio::select! {
            _ = rebuild_model(pool, &feed, &slow, &never, 2, &mut told) => panic!("not killed"),
            _ = kill => {}
        }
    }
    assert_eq!(tables(&world).await, ["tally_1", "tally_2"]);
    assert_eq!(counted(pool).await, head.0, "readers never saw it");

    // Its claim is waited for, then taken over. Here it is made to run out at once; again, should
    // the killed one's last batch still have been on its way into the database.
    let rebuilt = eventually("the claim to be taken over", PATIENCE, async || {
        sqlx::query("update read.projections set lease_until = now() where state = 'building'")
            .execute(pool)
            .await?;
        let mut ignore = |_, _| {};
        let rebuilt = rebuild_model(pool, &feed, &ONE, &never, BATCH_EVENTS_MAX, &mut ignore);
        match tokio::time::timeout(PATIENCE, rebuilt).await? {
            Err(RebuildError::Running { .. }) => Ok(None),
            rebuilt => Ok(Some(rebuilt?)),
        }
    })
    .await
    .unwrap();
    assert_eq!(counted(pool).await, head.0);
    assert_eq!(generations(&world).await, [rebuilt.generation.cast_signed()]);
    assert_eq!(tables(&world).await.len(), 1);
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rebuilds_at_once_one_is_refused() {
    let world = World::new().await;
    for _ in 0..10 {
        world.hire().await;
    }
    let slow = Tally { version: 1, slow: true };
    let feed = world.ledger.feed();
    let never = CancellationToken::new();
    let both = [(), ()].map(|()| async {
        let mut ignore = |_, _| {};
        rebuild_model(&world.pools.reader, &feed, &slow, &never, 1, &mut ignore).await
    });
    let outcomes = futures::future::join_all(both).await;
    let refused =
        outcomes.iter().filter(|outcome| matches!(outcome, Err(RebuildError::Running { .. })));
    assert_eq!(refused.count(), 1, "{outcomes:?}");
    assert_eq!(tables(&world).await, ["tally_2"]);
    let unknown = punchtrail_projections::engine::rebuild(
        &punchtrail_projections::all(),
        &world.pools.reader,
        &feed,
        "tallly",
        |_, _| {},
    )
    .await;
    assert!(unknown.unwrap_err().to_string().contains("timeline"), "it names those that exist");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_model_is_rebuilt_beside_the_live_one_and_an_older_program_leaves_it_alone() {
    let world = World::new().await;
    let old = run(&world, ONE).await;
    caught_up(&world, &old).await;
    let new = run(&world, TWO).await;
    let status = until(&new, |status| status.version == 2 && status.position.0 > 0).await;
    assert_eq!((status.generation, status.state), (2, FollowerState::Following));
    world.hire().await;
    let head = caught_up(&world, &new).await;
    let flagged: bool = sqlx::query_scalar("select bool_and(v2) from read.tally")
        .fetch_one(&world.pools.reader)
        .await
        .unwrap();
    assert!(flagged, "the view shows the new columns");

    // The older program sees that its version is past, waits for nothing, and changes nothing.
    until(&old, |status| status.state == FollowerState::Newer).await;
    old.wait_for(&["tally"], head, deadline()).await.unwrap();
    let feed = world.ledger.feed();
    let cancel = CancellationToken::new();
    let refused =
        rebuild_model(&world.pools.reader, &feed, &ONE, &cancel, 10, &mut |_, _| {}).await;
    assert!(matches!(refused, Err(RebuildError::Newer { live: 2, own: 1, .. })), "{refused:?}");
    assert_eq!(tables(&world).await, ["tally_2"]);
    old.stop().await;
    new.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_start_at_once_on_an_empty_database() {
    let world = World::new().await;
    let starts = (0..8).map(|_| common::start(&world));
    let running = futures::future::join_all(starts).await;
    for one in &running {
        common::settle(&world, one).await;
    }
    let live: i64 = sqlx::query_scalar("select count(*) from read.projections")
        .fetch_one(&world.pools.reader)
        .await
        .unwrap();
    assert_eq!(live, punchtrail_projections::all().len() as i64);
    for one in running {
        one.stop().await;
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_goes_on_after_its_connections_were_cut() {
    let world = World::new().await;
    let running = run(&world, ONE).await;
    for _ in 0..5 {
        // As a restarted or failing-over Postgres does it.
        let cut = sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid() \
             and application_name = 'punchtrail-reader'",
        );
        cut.execute(&world.pools.owner).await.unwrap();
        world.hire().await;
    }
    let head = caught_up(&world, &running).await;
    assert_eq!(counted_surely(&world).await, head.0);
    running.stop().await;
    world.close().await;
}

async fn counted_surely(world: &World) -> u64 {
    let mut refused = None;
    let counted = eventually("a connection that wasn't cut", PATIENCE, async || {
        let sum: Result<i64, _> = sqlx::query_scalar("select sum(count)::bigint from read.tally")
            .fetch_one(&world.pools.reader)
            .await;
        Ok(sum.map_err(|error| refused = Some(error)).ok().map(i64::cast_unsigned))
    })
    .await;
    counted.unwrap_or_else(|error| panic!("{error}: {refused:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_model_counts_twice_on_two_nodes_of_which_one_is_killed() {
    let world = World::new().await;
    let doomed = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let url = world.database.url().to_owned();
    // Made on its own thread: a kill takes all of it.
    let start = move || {
        let node = async {
            let postgres = Postgres::open(Some(&url), Path::new("/nonexistent")).await.unwrap();
            let pools = postgres.pools(PoolSizes::default()).await.unwrap();
            let ledger = Ledger::open(pools.writer.clone()).await.unwrap();
            let never = CancellationToken::new();
            let followers = Followers::new(&ledger, follower::Node::anywhere(), &never);
            let models: Vec<Arc<dyn Projection>> = vec![Arc::new(Tally { version: 1, slow: true })];
            let models =
                Projections::start(models, pools.reader, ledger.feed(), &followers).await.unwrap();
            until(&models, |status| status.state == FollowerState::Following).await;
            (ledger, followers, models)
        };
        (doomed.block_on(node), doomed)
    };
    let (other, doomed) = tokio::task::spawn_blocking(start).await.unwrap();
    let running = run(&world, ONE).await;
    until(&running, |status| status.state == FollowerState::Standby).await;
    for _ in 0..30 {
        world.hire().await;
    }
    let head = caught_up(&world, &running).await;
    assert_eq!(counted(&world.pools.reader).await, head.0, "through the other node");
    for _ in 0..30 {
        world.hire().await;
    }
    // Amid a batch, maybe.
    doomed.shutdown_background();
    until(&running, |status| status.state == FollowerState::Following).await;
    let head = caught_up(&world, &running).await;
    assert_eq!(counted(&world.pools.reader).await, head.0, "each event counted once");
    running.stop().await;
    drop(other);
    world.close().await;
}

/// A lease that is lost in the middle of a step, again and again, to nodes that have it for
/// milliseconds: whoever had it finishes its step or doesn't, and nothing is counted twice or left.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_lost_in_the_middle_of_a_batch_costs_nothing() {
    let world = World::new().await;
    let slow = || vec![Arc::new(Tally { version: 1, slow: true }) as Arc<dyn Projection>];
    let [one, other] = [Node::of(&world, slow()).await, Node::of(&world, slow()).await];
    for _ in 0..40 {
        world.hire().await;
        sqlx::query(
            "update follower_leases set owner = gen_random_uuid(), \
             until = clock_timestamp() + interval '30 milliseconds'",
        )
        .execute(&world.pools.writer)
        .await
        .unwrap();
    }
    let head = caught_up(&world, &one).await;
    assert_eq!(counted(&world.pools.reader).await, head.0, "each event once");
    one.stop().await;
    let _ = caught_up(&world, &other).await;
    other.stop().await;
    let left: i64 =
        sqlx::query_scalar("select count(*) from follower_leases where until > clock_timestamp()")
            .fetch_one(&world.pools.writer)
            .await
            .unwrap();
    assert_eq!(left, 0, "a lease is left of those who are gone");
    world.close().await;
}
