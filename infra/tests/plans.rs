//! Postgres keeps a prepared statement's generic plan. Made while the ledger was all but empty, a
//! plan may read every punch and pick out those that were asked for; kept while they become
//! millions, each batch then reads them all. The look-ups by stream are written so that no such
//! plan is possible.

#![allow(clippy::unwrap_used, reason = "tests")]

use punchtrail_domain::AggregateType;
use punchtrail_infra::testing::world::{NOON_MS, World};
use punchtrail_testkit::{PATIENCE, eventually};
use sqlx::{Connection, PgConnection};

const BATCHES: i64 = 20;
const BATCH: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn plans_made_while_the_ledger_was_small_do_not_walk_it() {
    let world = World::new().await;
    let mut owner = PgConnection::connect(world.database.url()).await.unwrap();
    // What autovacuum does at a time of its own choice.
    sqlx::query("analyze events").execute(&mut owner).await.unwrap();
    let mut kiosk = world.device().await;
    let feed = world.ledger.feed();
    let mut at_ms = NOON_MS - 80_000_000;
    for _ in 0..BATCHES {
        let captures = kiosk.captures(BATCH, &mut at_ms, 1_000);
        let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
        world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
        let one = [captures[0].punch.to_string()];
        assert!(!feed.streams(AggregateType::Punch, &one).await.unwrap().is_empty());
    }
    let World { database, pools, ledger, .. } = world;
    ledger.close().await;
    pools.close().await;
    // A pool that is closed while a connection comes back may keep it, until nobody has the pool.
    drop((feed, ledger, pools));
    // A session's counts are there when it has ended.
    let others = "select count(*) from pg_stat_activity \
                  where datname = current_database() and pid <> pg_backend_pid()";
    eventually("the sessions of closed pools to end", PATIENCE, async || {
        let others: i64 = sqlx::query_scalar(others).fetch_one(&mut owner).await?;
        Ok((others == 0).then_some(()))
    })
    .await
    .unwrap();
    let read: i64 = sqlx::query_scalar(
        "select idx_tup_read from pg_stat_user_indexes where indexrelname = 'events_pkey'",
    )
    .fetch_one(&mut owner)
    .await
    .unwrap();
    // One event of each stream that was looked for, and a few of the device and the site. A walk
    // reads half of all punches, on the average, at each look.
    assert!(read < 4 * BATCHES, "{read} entries of the index were read");
    owner.close().await.unwrap();
    database.close().await;
}
