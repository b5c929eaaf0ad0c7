//! Connections that fall silent without closing, and commits that nobody answers: every wait ends
//! on our side, nothing stays taken, and the node says what it can't do.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use punchtrail_infra::{
    ledger::{AppendError, Clock, Ledger},
    postgres::{PoolSizes, Pools, Postgres},
    supervision::Supervisor,
    testing::{
        line::{Line, Trap},
        sqlx,
        world::{Kiosk, NOON_MS, World},
    },
};
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually};

const SIZES: PoolSizes = PoolSizes { writer: 2, reader: 2, follower: 2, owner: 2 };

/// A node on the other end of a line.
async fn node(line: &Line) -> (Pools, Ledger) {
    let postgres = Postgres::open(Some(&line.url()), Path::new("/nonexistent")).await.unwrap();
    let pools = postgres.pools(SIZES).await.unwrap();
    let ledger =
        Ledger::open_for(&pools, Supervisor::default(), None, Clock::default()).await.unwrap();
    (pools, ledger)
}

async fn delivered(ledger: &Ledger, kiosk: &mut Kiosk, n: i64) {
    let capture = kiosk.capture(PunchKind::In, NOON_MS + n * 600_000);
    eventually("the delivery to be taken", PATIENCE, async || {
        match ledger.deliver(kiosk.delivery(vec![kiosk.item(&capture)])).await {
            Ok(_) => Ok(Some(())),
            Err(AppendError::Unavailable(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
    .unwrap();
}

async fn captures(world: &World) -> i64 {
    sqlx::query_scalar("select count(*) from events where event_type = 'Captured'")
        .fetch_one(&world.pools.reader)
        .await
        .unwrap()
}

/// The node's delivery falls into the trap; both it and another node go on.
async fn goes_on_after(trap: Trap) {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let line = Line::to(&world.database).await;
    let (pools, ledger) = node(&line).await;
    delivered(&ledger, &mut kiosk, 0).await;
    line.lay(trap);
    let mut other = world.device().await;
    tokio::join!(delivered(&ledger, &mut kiosk, 1), async {
        eventually("the trap to catch", PATIENCE, async || Ok(line.has_caught().then_some(())))
            .await
            .unwrap();
        delivered(&world.ledger, &mut other, 0).await;
    });
    assert_eq!(captures(&world).await, 3, "each once");
    eventually("the node to be ready again", PATIENCE, async || {
        Ok(ledger.commits().able.then_some(()))
    })
    .await
    .unwrap();
    ledger.close().await;
    pools.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_at_the_begin_of_an_append() {
    goes_on_after(Trap { text: "begin", arrives: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_once_the_append_is_begun() {
    goes_on_after(Trap { text: "begin", arrives: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_in_the_middle_of_the_copy_with_the_head_locked() {
    goes_on_after(Trap { text: "copy events", arrives: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_before_the_commit_with_the_head_locked() {
    goes_on_after(Trap { text: "COMMIT", arrives: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_after_the_commit_so_that_it_is_in_doubt() {
    goes_on_after(Trap { text: "COMMIT", arrives: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lent_when_the_line_fell_silent_leaves_no_place_taken() {
    let world = World::new().await;
    let line = Line::to(&world.database).await;
    let (pools, ledger) = node(&line).await;
    ledger.close().await;
    let Pools { writer, committer, reader, follower, owner, .. } = &pools;
    for pool in [writer, committer, reader, follower, owner] {
        let in_a_transaction = pool.begin().await.unwrap();
        let idle = pool.acquire().await.unwrap();
        line.fall_silent();
        // One has a rollback to send, the other is only asked whether it is well.
        drop((in_a_transaction, idle));
        line.speak();
        eventually("both places of the pool", PATIENCE, async || {
            let (one, other) = tokio::join!(pool.acquire(), pool.acquire());
            let (Ok(mut one), Ok(mut other)) = (one, other) else { return Ok(None) };
            sqlx::query("select").execute(&mut *one).await?;
            sqlx::query("select").execute(&mut *other).await?;
            Ok(Some(()))
        })
        .await
        .unwrap();
    }
    pools.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_a_start_and_a_close_on_a_silent_line_end() {
    let world = World::new().await;
    let line = Line::to(&world.database).await;
    let (pools, ledger) = node(&line).await;
    let asked = tokio::spawn({
        let writer = pools.writer.clone();
        async move { sqlx::query("select pg_sleep(60)").fetch_all(&writer).await.map(drop) }
    });
    eventually("the statement to run", PATIENCE, async || {
        let runs: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database() \
             and query = 'select pg_sleep(60)' and state = 'active')",
        )
        .fetch_one(&world.pools.owner)
        .await?;
        Ok(runs.then_some(()))
    })
    .await
    .unwrap();
    line.fall_silent();
    let unanswered = asked.await.unwrap().unwrap_err().to_string();
    assert!(unanswered.contains("did not answer within"), "{unanswered}");
    let opened = Postgres::open(Some(&line.url()), Path::new("/nonexistent")).await;
    assert!(opened.is_err(), "nobody answers there");
    ledger.close().await;
    pools.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_commits_wait_for_a_standby_says_so_and_heals() {
    let dir = punchtrail_infra::testing::data_dir();
    let postgres = Postgres::open(None, dir.path()).await.unwrap();
    postgres.migrate().await.unwrap();
    let pools = postgres.pools(SIZES).await.unwrap();
    let ledger =
        Ledger::open_for(&pools, Supervisor::default(), None, Clock::default()).await.unwrap();
    assert!(ledger.commits().able, "it has proven it");
    // A commit of this statement itself would wait.
    let settle = async |standbys: &str| {
        let mut owner = pools.owner.acquire().await.unwrap();
        for statement in [
            "set synchronous_commit = local",
            &format!("alter system set synchronous_standby_names = '{standbys}'"),
            "select pg_reload_conf()",
            "set synchronous_commit = on",
        ] {
            sqlx::raw_sql(statement).execute(&mut *owner).await.unwrap();
        }
    };
    settle("nobody").await;
    let status = eventually("it to see that it can't commit", PATIENCE, async || {
        let status = ledger.commits();
        Ok((!status.able && status.failing_since.is_some()).then_some(status))
    })
    .await
    .unwrap();
    assert!(status.last.is_some() && status.error.is_some(), "{status:?}");
    let refused = ledger.append(punchtrail_infra::ledger::Append::default()).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    settle("").await;
    eventually("it to commit again", PATIENCE, async || Ok(ledger.commits().able.then_some(())))
        .await
        .unwrap();
    assert_eq!(ledger.commits().error, None);
    ledger.close().await;
    pools.close().await;
    postgres.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_wrote_no_event_shows_as_well_that_the_node_can_commit() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    let mut last = None;
    // The same delivery: all of it is known from the second on.
    for _ in 0..5 {
        let delivery = kiosk.delivery(vec![kiosk.item(&capture)]);
        world.ledger.deliver(delivery).await.unwrap();
        let status = world.ledger.commits();
        assert!(status.able && status.last > last, "{status:?} after {last:?}");
        last = status.last;
    }
    world.close().await;
}
