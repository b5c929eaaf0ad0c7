//! What one caller can do to the ledger is bounded: each limit, and one who goes over it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures::future::join_all;
use punchtrail_domain::site::SiteEvent;
use punchtrail_infra::{
    ledger::{
        Append, AppendError, CALLER_BYTES_MAX, CALLER_EVENTS_MAX, GROUP_BYTES_MAX,
        GROUP_EVENTS_MAX, Ledger, StreamAppend, WAITING_BYTES_MAX,
    },
    testing::world::World,
};
use punchtrail_testkit::{PATIENCE, eventually};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Near the longest that an event may be.
const EVENT_BYTES: usize = 60_000;

/// An append of so many events to a site of its own, each with a text of that length.
fn append(events: usize, bytes: usize) -> Append {
    let tz = "x".repeat(bytes);
    let events = vec![SiteEvent::Registered { tz }; events];
    let streams = vec![StreamAppend::of(Uuid::new_v4(), 0, &events)];
    Append { streams, ..Append::default() }
}

/// Runs `work` while nobody can append: another session holds the head.
async fn while_the_head_is_held<T>(world: &World, work: impl AsyncFnOnce() -> T) -> T {
    let mut other = PgConnection::connect(world.database.url()).await.unwrap();
    let mut held = other.begin().await.unwrap();
    sqlx::query("select from ledger_head for update").execute(&mut *held).await.unwrap();
    let done = work().await;
    held.rollback().await.unwrap();
    other.close().await.unwrap();
    done
}

/// Starts an append, and waits until the committer has it and waits for the head.
async fn in_hand(
    world: &World,
    append: Append,
) -> tokio::task::JoinHandle<Result<punchtrail_infra::ledger::Appended, AppendError>> {
    let ledger = world.ledger.clone();
    let task = tokio::spawn(async move { ledger.append(append).await });
    let mut looking = PgConnection::connect(world.database.url()).await.unwrap();
    eventually("the committer to wait for the head", PATIENCE, async || {
        let waits: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity where wait_event_type = 'Lock' \
             and datname = current_database())",
        )
        .fetch_one(&mut looking)
        .await?;
        Ok(waits.then_some(()))
    })
    .await
    .unwrap();
    looking.close().await.unwrap();
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_brings_no_more_events_or_bytes_than_are_taken_at_once() {
    let world = World::new().await;
    let before = world.ledger.head().await.unwrap();
    let many = append(CALLER_EVENTS_MAX + 1, 1);
    let large = append(CALLER_BYTES_MAX / EVENT_BYTES + 1, EVENT_BYTES);
    for append in [many, large] {
        let refused = world.ledger.append(append).await.unwrap_err();
        assert!(matches!(refused, AppendError::TooMuch { .. }));
        let said = refused.to_string();
        assert!(said.contains("20000 events of 16777216 bytes"), "{said}");
    }
    assert_eq!(world.ledger.head().await.unwrap(), before);
    // As much as is taken, in one transaction.
    let appended = world.ledger.append(append(CALLER_EVENTS_MAX, 1)).await.unwrap();
    assert_eq!(appended.last.0 - appended.first.0 + 1, CALLER_EVENTS_MAX as u64);
    world.close().await;
}

/// How many groups these callers were committed in, who came while another one was committed.
async fn groups(world: &World, callers: Vec<Append>) -> i64 {
    let before = world.ledger.head().await.unwrap();
    let waiting = while_the_head_is_held(world, async || {
        let first = in_hand(world, append(1, 1)).await;
        let ledger = &world.ledger;
        let mut all = Box::pin(join_all(callers.into_iter().map(|append| ledger.append(append))));
        // Each is handed over when it is asked for the first time.
        assert!(futures::poll!(&mut all).is_pending());
        (first, all)
    })
    .await;
    let (first, all) = waiting;
    first.await.unwrap().unwrap();
    for appended in all.await {
        appended.unwrap();
    }
    // All events of a group are recorded at one time.
    let groups: i64 =
        sqlx::query_scalar("select count(distinct recorded_at) from events where position > $1")
            .bind(before.to_db())
            .fetch_one(&world.pools.writer)
            .await
            .unwrap();
    groups - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_no_more_events_or_bytes_than_its_limit() {
    let world = World::new().await;
    assert_eq!(groups(&world, vec![append(2, 10), append(2, 10), append(2, 10)]).await, 1);
    let half = || append(GROUP_EVENTS_MAX / 2, 10);
    assert_eq!(groups(&world, vec![half(), half(), append(1, 10)]).await, 2);
    let half = || append(GROUP_BYTES_MAX / EVENT_BYTES / 2, EVENT_BYTES);
    assert_eq!(groups(&world, vec![half(), half(), half()]).await, 2);
    // One that is larger is alone.
    let larger = append(GROUP_EVENTS_MAX + 1, 10);
    assert_eq!(groups(&world, vec![append(1, 10), larger, append(1, 10)]).await, 3);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_holds_no_more_bytes_than_are_set_aside() {
    let world = World::new().await;
    let large = || append((CALLER_BYTES_MAX - (1 << 20)) / EVENT_BYTES, EVENT_BYTES);
    let fit = WAITING_BYTES_MAX / (CALLER_BYTES_MAX - (1 << 20));
    let waiting = while_the_head_is_held(&world, async || {
        let mut waiting = Vec::new();
        for _ in 0..fit {
            // Stale, so that nothing of it is written in the end.
            let mut append = large();
            append.streams[0].expected = 7;
            waiting.push(in_hand(&world, append).await);
        }
        eventually("one more to be turned away", PATIENCE, async || {
            let ledger: &Ledger = &world.ledger;
            let one_more = tokio::time::timeout(Duration::from_secs(1), ledger.append(large()));
            Ok(matches!(one_more.await, Ok(Err(AppendError::Busy))).then_some(()))
        })
        .await
        .unwrap();
        waiting
    })
    .await;
    for waited in waiting {
        assert!(matches!(waited.await.unwrap(), Err(AppendError::Stale)));
    }
    world.ledger.append(append(1, 1)).await.unwrap();
    world.close().await;
}
