//! Postgres keeps a prepared statement's generic plan. Made while the ledger was all but empty, a
//! plan may read every punch and pick out those that were asked for; kept while they become
//! millions, each batch then reads them all. The look-ups by stream are written so that no such
//! plan is possible.

#![allow(clippy::unwrap_used, reason = "tests")]

use punchtrail_domain::{
    AggregateType,
    punch::{Punch, PunchCommand},
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    ledger::Metadata,
    testing::{
        TestDatabase,
        world::{Kiosk, NOON_MS, World},
    },
};
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually};
use sqlx::{Connection, PgConnection};

/// Ends all sessions of a world's pools: a session's counts are there when it has ended.
async fn ended(world: World, owner: &mut PgConnection) -> TestDatabase {
    let World { database, pools, ledger, .. } = world;
    ledger.close().await;
    pools.close().await;
    // A pool that is closed while a connection comes back may keep it, until nobody has the pool.
    drop((ledger, pools));
    let others = "select count(*) from pg_stat_activity \
                  where datname = current_database() and pid <> pg_backend_pid()";
    eventually("the sessions of closed pools to end", PATIENCE, async || {
        let others: i64 = sqlx::query_scalar(others).fetch_one(&mut *owner).await?;
        Ok((others == 0).then_some(()))
    })
    .await
    .unwrap();
    database
}

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
    drop(feed);
    let database = ended(world, &mut owner).await;
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

/// Records a punch, voids it, records another one just before it that would have cast doubt on it,
/// and two that cast doubt on each other, the earlier captured one last: all that is looked for
/// among the punches judged.
async fn void_and_doubt(world: &World, kiosk: &mut Kiosk, at_ms: &mut i64) {
    let settle = async || {
        let mut adjudicator = Adjudicator::new(world.ledger.clone());
        while adjudicator.step().await.unwrap().is_some() {}
    };
    for voided in [true, false] {
        *at_ms += 1_000_000;
        let later = kiosk.capture(PunchKind::In, *at_ms);
        let earlier = kiosk.capture(PunchKind::In, *at_ms - 1_000);
        world.ledger.deliver(kiosk.delivery(vec![kiosk.item(&later)])).await.unwrap();
        settle().await;
        let id = later.punch.to_string();
        if voided {
            let void = PunchCommand::Void { note: None, reason: None };
            world.ledger.execute::<Punch>(&id, void, &Metadata::default()).await.unwrap();
        }
        world.ledger.deliver(kiosk.delivery(vec![kiosk.item(&earlier)])).await.unwrap();
        settle().await;
        let punch = world.ledger.load::<Punch>(&id).await.unwrap().aggregate;
        assert_eq!(punch.anomalies().is_empty(), voided);
    }
}

/// What was read of the punches judged since: rows by walking the table, and entries of its
/// indexes.
async fn read_of_judged(owner: &mut PgConnection) -> (i64, i64) {
    sqlx::query_as(
        "select coalesce(seq_tup_read, 0), \
         (select coalesce(sum(idx_tup_read), 0)::bigint from pg_stat_user_indexes \
          where relname = 'judged_punches') \
         from pg_stat_user_tables where relname = 'judged_punches'",
    )
    .fetch_one(owner)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_void_and_a_doubt_cost_the_same_however_many_punches_there_are() {
    let world = World::new().await;
    let mut owner = PgConnection::connect(world.database.url()).await.unwrap();
    sqlx::query("analyze judged_punches").execute(&mut owner).await.unwrap();
    let mut kiosk = world.device().await;
    let mut at_ms = NOON_MS - 2_000_000_000;
    // Plans are kept from the sixth time on; these are made while there is next to nothing.
    for _ in 0..6 {
        void_and_doubt(&world, &mut kiosk, &mut at_ms).await;
    }
    for _ in 0..BATCHES {
        let captures = kiosk.captures(BATCH, &mut at_ms, 1_000_000);
        let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
        world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    }
    for _ in 0..6 {
        void_and_doubt(&world, &mut kiosk, &mut at_ms).await;
    }
    let database = ended(world, &mut owner).await;
    let (walked, looked_up) = read_of_judged(&mut owner).await;
    assert_eq!(walked, 0, "rows were read by walking the whole table");
    assert!(looked_up < 12 * 20, "{looked_up} entries of the indexes were read");
    owner.close().await.unwrap();
    database.close().await;
}

/// What is signed is the hashes: they are read from the index, without the events' rows.
#[tokio::test(flavor = "multi_thread")]
async fn hashes_are_read_without_the_events() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let mut at_ms = NOON_MS - 80_000_000;
    for _ in 0..4 {
        let captures = kiosk.captures(500, &mut at_ms, 10);
        let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
        world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    }
    let mut owner = PgConnection::connect(world.database.url()).await.unwrap();
    // What autovacuum does at a time of its own choice.
    sqlx::query("vacuum analyze events").execute(&mut owner).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "explain (analyze, costs off, timing off) select position, leaf_hash from events \
         where position > 1000 and position <= 1500 order by position limit 20000",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Only Scan") && plan.contains("Heap Fetches: 0"), "{plan}");
    owner.close().await.unwrap();
    world.close().await;
}
