//! The ledger on a real Postgres: dense, once, append-only, readable by stock postgres-es.

#![allow(clippy::unwrap_used, reason = "tests")]

use cqrs_es::{CqrsFramework, EventStore};
use punchtrail_domain::{
    AggregateType,
    log::leaf::Leaf,
    punch::{Punch, PunchCommand, PunchEvent, RejectionReason},
    site::{Site, SiteCommand, SiteEvent},
};
use punchtrail_infra::adjudicator::Adjudicator;
use punchtrail_infra::ledger::{
    Append, AppendError, Delivery, DeliveryItem, ItemOutcome, Ledger, LedgerStore, Metadata,
    NewEvent, QuarantineRoom, SideWrite, StreamAppend,
};
use punchtrail_infra::testing::world::{NOON_MS, World};
use punchtrail_protocol::{
    Position,
    capture::{Capture, PunchKind},
    vocabulary::QuarantineCode,
    wire::{BatchItem, ItemStatus},
};
use sqlx::Row;
use uuid::Uuid;

fn statuses(items: &[ItemOutcome]) -> Vec<ItemStatus> {
    items.iter().map(|item| item.status).collect()
}

async fn positions(world: &World) -> Vec<i64> {
    sqlx::query_scalar("select position from events order by position")
        .fetch_all(&world.pools.writer)
        .await
        .unwrap()
}

fn dense(positions: &[i64]) -> bool {
    positions.iter().copied().eq(1..=positions.len() as i64)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_punch_counts_once_however_it_is_sent() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let a = kiosk.capture(PunchKind::In, NOON_MS);
    let mut other = a.clone();
    other.kind = PunchKind::Out;
    let b = kiosk.capture(PunchKind::Out, NOON_MS + 1);
    let items = || vec![kiosk.item(&a), kiosk.item(&a), kiosk.item(&other), kiosk.item(&b)];
    let first = world.ledger.deliver(kiosk.delivery(items())).await.unwrap();
    use ItemStatus::{Applied, Conflict, Duplicate};
    assert_eq!(statuses(&first.items), [Applied, Duplicate, Conflict, Applied]);
    assert_eq!(first.acked_through, 2);
    assert_eq!(first.head, world.ledger.head().await.unwrap());

    let again = world.ledger.deliver(kiosk.delivery(items())).await.unwrap();
    assert_eq!(statuses(&again.items), [Duplicate, Duplicate, Conflict, Duplicate]);
    assert_eq!(again.head, first.head, "nothing was written");
    for (now, then) in again.items.iter().zip(&first.items) {
        assert_eq!(now.position, then.position);
    }
    let evidence: i64 = sqlx::query_scalar("select count(*) from conflicting_captures")
        .fetch_one(&world.pools.writer)
        .await
        .unwrap();
    assert_eq!(evidence, 1);
    assert!(dense(&positions(&world).await));
    world.close().await;
}

/// Followers of the node that commits take events from memory, unread; others read them anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_followers_are_handed_is_what_they_would_read() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let a = kiosk.capture(PunchKind::In, NOON_MS);
    let mut other = a.clone();
    other.kind = PunchKind::Out;
    let b = kiosk.capture(PunchKind::Out, NOON_MS + 1);
    let before = world.ledger.head().await.unwrap();
    let items = [&a, &other, &b].map(|capture| kiosk.item(capture));
    world.ledger.deliver(kiosk.delivery(items.into())).await.unwrap();
    let mut adjudicator = Adjudicator::new(world.ledger.clone());
    while adjudicator.step().await.unwrap().is_some() {}

    let elsewhere = Ledger::open(world.pools.writer.clone()).await.unwrap();
    let handed = world.ledger.feed().read(before, 100).await.unwrap();
    let read = elsewhere.feed().read(before, 100).await.unwrap();
    assert!(handed.len() >= 7, "two captures, a conflict and what was judged");
    assert_eq!(handed.len(), read.len());
    for (handed, read) in handed.iter().zip(&read) {
        assert_eq!(handed.recorded, read.recorded);
        assert_eq!(handed.event(), read.event());
        assert_eq!(handed.capture(), read.capture());
    }
    elsewhere.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_kept_once_and_answered_alike() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let a = kiosk.capture(PunchKind::In, NOON_MS);
    let items =
        || vec![kiosk.garbage("!!"), kiosk.item(&a), kiosk.garbage("!!"), kiosk.garbage("?")];
    let first = world.ledger.deliver(kiosk.delivery(items())).await.unwrap();
    use ItemStatus::{Applied, Quarantined};
    assert_eq!(statuses(&first.items), [Quarantined, Applied, Quarantined, Quarantined]);
    assert_eq!(first.items[0], first.items[2]);
    let again = world.ledger.deliver(kiosk.delivery(items())).await.unwrap();
    assert_eq!(again.head, first.head);
    assert_eq!(again.items[3], first.items[3]);
    let kept: Vec<String> =
        sqlx::query_scalar("select capture from quarantine_items order by capture")
            .fetch_all(&world.pools.writer)
            .await
            .unwrap();
    assert_eq!(kept, ["!!", "?"]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_numbers_is_reported_and_closes() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let captures: Vec<_> =
        (0..6).map(|n| kiosk.capture(PunchKind::In, NOON_MS + n * 100_000)).collect();
    let deliver = async |which: &[usize]| {
        let items = which.iter().map(|&n| kiosk.item(&captures[n])).collect();
        world.ledger.deliver(kiosk.delivery(items)).await.unwrap().acked_through
    };
    assert_eq!(deliver(&[0]).await, 1);
    assert_eq!(deliver(&[4, 3]).await, 1);
    assert_eq!(deliver(&[1]).await, 2);
    assert_eq!(deliver(&[2]).await, 5);
    assert_eq!(deliver(&[5]).await, 6);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_at_once_share_commits_and_leave_no_hole() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let a = kiosk.capture(PunchKind::In, NOON_MS);
    let sends = (0..100).map(|_| {
        let (ledger, delivery) = (world.ledger.clone(), kiosk.delivery(vec![kiosk.item(&a)]));
        tokio::spawn(async move { ledger.deliver(delivery).await.unwrap().items[0] })
    });
    let outcomes = futures::future::join_all(sends.collect::<Vec<_>>()).await;
    let outcomes: Vec<ItemOutcome> = outcomes.into_iter().map(Result::unwrap).collect();
    let applied = outcomes.iter().filter(|o| o.status == ItemStatus::Applied).count();
    assert_eq!(applied, 1);
    assert!(outcomes.iter().all(|o| o.position == outcomes[0].position));
    assert!(dense(&positions(&world).await));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_append_at_once_dense_and_nothing_twice() {
    let world = World::new().await;
    let other = Ledger::open(world.pools.writer.clone()).await.unwrap();
    let mut tasks = Vec::new();
    for node in [world.ledger.clone(), other.clone()] {
        let mut kiosk = world.device().await;
        tasks.push(tokio::spawn(async move {
            for n in 0..30 {
                let captures: Vec<_> =
                    (0..5).map(|m| kiosk.capture(PunchKind::In, NOON_MS + n * 5 + m)).collect();
                let items = captures.iter().map(|c| kiosk.item(c)).collect();
                let outcome = node.deliver(kiosk.delivery(items)).await.unwrap();
                assert!(outcome.items.iter().all(|i| i.status == ItemStatus::Applied));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let positions = positions(&world).await;
    assert!(dense(&positions));
    assert_eq!(other.head().await.unwrap().0, positions.len() as u64);
    let mut feed = world.ledger.feed();
    let mut after = Position::START;
    let mut seen = Vec::new();
    while seen.len() < positions.len() {
        let batch = feed.read(after, 7).await.unwrap();
        seen.extend(batch.iter().map(|entry| entry.position().to_db()));
        after = batch.last().unwrap().position();
    }
    assert_eq!(seen, positions);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(1);
    assert!(!feed.wait_beyond(after, deadline).await);
    other.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_leaf_is_the_hash_of_the_row_as_postgres_gives_it_back() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let odd = kiosk.capture_with(|c| {
        c.employee = None;
        c.badge = Some("\"\\ \u{7f} ü 💡 \u{2028}".into());
    });
    world.ledger.deliver(kiosk.delivery(vec![kiosk.item(&odd)])).await.unwrap();
    let rows = sqlx::query(
        "select *, payload::text as payload_text, metadata::text as metadata_text, \
         (extract(epoch from recorded_at) * 1000000)::bigint as us from events order by position",
    )
    .fetch_all(&world.pools.writer)
    .await
    .unwrap();
    assert!(rows.len() > 5);
    for row in rows {
        let leaf = Leaf {
            position: row.get::<i64, _>("position").cast_unsigned(),
            recorded_at_us: row.get("us"),
            aggregate_type: row.get("aggregate_type"),
            aggregate_id: row.get("aggregate_id"),
            sequence: row.get::<i64, _>("sequence").cast_unsigned(),
            event_type: row.get("event_type"),
            event_version: row.get("event_version"),
            payload: row.get("payload_text"),
            metadata: row.get("metadata_text"),
        };
        assert_eq!(leaf.hash().unwrap().0.as_slice(), row.get::<&[u8], _>("leaf_hash"));
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_caller_alone_is_turned_away() {
    let world = World::new().await;
    let id = world.site.to_string();
    let stale = Append {
        streams: vec![StreamAppend {
            aggregate_type: AggregateType::Site,
            aggregate_id: id.clone(),
            expected: 0,
            events: vec![NewEvent::of(&SiteEvent::Registered { tz: "UTC".into() })],
        }],
        metadata: Metadata::default(),
        side: Some(SideWrite::new(|connection| {
            Box::pin(async move {
                sqlx::query("insert into site_directory (site, name) values ($1, 'stale')")
                    .bind(Uuid::nil())
                    .execute(connection)
                    .await
                    .map(|_| ())
            })
        })),
    };
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    let (turned_away, delivered) = tokio::join!(
        world.ledger.append(stale),
        world.ledger.deliver(kiosk.delivery(vec![kiosk.item(&capture)])),
    );
    assert!(matches!(turned_away, Err(AppendError::Stale)));
    assert_eq!(statuses(&delivered.unwrap().items), [ItemStatus::Applied]);
    let rows: i64 = sqlx::query_scalar("select count(*) from site_directory")
        .fetch_one(&world.pools.writer)
        .await
        .unwrap();
    assert_eq!(rows, 0, "a side row stands or falls with its events");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_side_row_takes_its_events_with_it_and_nobody_else_s() {
    let world = World::new().await;
    let named = |site: Uuid| {
        SideWrite::new(move |connection| {
            Box::pin(async move {
                sqlx::query("insert into site_directory (site, name) values ($1, 'Depot')")
                    .bind(site)
                    .execute(connection)
                    .await
                    .map(|_| ())
            })
        })
    };
    let register = async |site: Uuid| {
        let command = SiteCommand::Register { tz: "UTC".into() };
        world
            .ledger
            .execute_with::<Site>(&site.to_string(), command, &Metadata::default(), || {
                Some(named(site))
            })
            .await
    };
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    register(a).await.unwrap();
    let before = world.ledger.head().await.unwrap();
    assert!(register(b).await.is_err(), "the name is taken");
    assert_eq!(world.ledger.head().await.unwrap(), before);
    assert_eq!(world.ledger.load::<Site>(&b.to_string()).await.unwrap().sequence, 0);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_race_on_one_punch_are_decided_one_after_the_other() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    world.ledger.deliver(kiosk.delivery(vec![kiosk.item(&capture)])).await.unwrap();
    let rulings = (0..20).map(|n| {
        let (ledger, id) = (world.ledger.clone(), capture.punch.to_string());
        tokio::spawn(async move {
            let command = if n % 2 == 0 {
                PunchCommand::Reject { reason: RejectionReason::Other, note: None }
            } else {
                PunchCommand::Accept { note: None, reason: None }
            };
            ledger.execute::<Punch>(&id, command, &Metadata::default()).await.is_ok()
        })
    });
    let done = futures::future::join_all(rulings.collect::<Vec<_>>()).await;
    assert!(done.iter().any(|done| *done.as_ref().unwrap()));
    let sequences: Vec<i64> =
        sqlx::query_scalar("select sequence from events where aggregate_id = $1 order by sequence")
            .bind(capture.punch.to_string())
            .fetch_all(&world.pools.writer)
            .await
            .unwrap();
    assert!(dense(&sequences));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writing_role_can_not_change_what_is_written_and_nor_can_the_owner_by_accident() {
    let world = World::new().await;
    let statements = [
        "update events set payload = '{}'",
        "delete from events",
        "truncate events",
        "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, \
         payload, metadata) values ('site', 'x', 1, 'x', '1', '{}', '{}')",
    ];
    for statement in statements {
        assert!(sqlx::query(statement).execute(&world.pools.writer).await.is_err(), "{statement}");
        assert!(sqlx::query(statement).execute(&world.pools.owner).await.is_err(), "{statement}");
    }
    let as_reader =
        sqlx::query("insert into ledger_head (position, recorded_at) values (1, now())")
            .execute(&world.pools.reader)
            .await;
    assert!(as_reader.is_err());
    let replica = "set session_replication_role = replica";
    let mut owner = world.pools.owner.acquire().await.unwrap();
    sqlx::query(replica).execute(&mut *owner).await.unwrap();
    assert!(sqlx::query("delete from events").execute(&mut *owner).await.is_err());
    drop(owner);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_postgres_es_reads_any_aggregate_and_the_framework_runs_on_the_ledger() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    world.ledger.deliver(kiosk.delivery(vec![kiosk.item(&capture)])).await.unwrap();
    let id = capture.punch.to_string();

    let framework =
        CqrsFramework::<Punch, _>::new(LedgerStore::new(world.ledger.clone()), vec![], ());
    framework
        .execute(&id, PunchCommand::Judge { anomalies: vec![], verify_by: None })
        .await
        .unwrap();
    let refused = framework.execute(&id, PunchCommand::Accept { note: None, reason: None }).await;
    assert!(refused.is_err(), "it stands accepted");

    let pool = sqlx::postgres::PgPoolOptions::new()
        .connect_with(world.database.owner_options().clone())
        .await
        .unwrap();
    let repository = postgres_es::PostgresEventRepository::new(pool.clone());
    let stock = cqrs_es::persist::PersistedEventStore::<_, Punch>::new_event_store(repository);
    let envelopes = stock.load_events(&id).await.unwrap();
    let ours = LedgerStore::<Punch>::new(world.ledger.clone()).load_events(&id).await.unwrap();
    assert_eq!(envelopes.len(), 3);
    for (stock, ours) in envelopes.iter().zip(&ours) {
        assert_eq!((&stock.payload, stock.sequence), (&ours.payload, ours.sequence));
        assert_eq!(stock.metadata, ours.metadata);
    }
    assert!(matches!(envelopes[2].payload, PunchEvent::Accepted { .. }));
    pool.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_transaction() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let captures: Vec<_> = (0..100).map(|n| kiosk.capture(PunchKind::In, NOON_MS + n)).collect();
    let items = captures.iter().map(|c| kiosk.item(c)).collect();
    let outcome = world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    let transactions: i64 = sqlx::query_scalar(
        "select count(distinct xmin::text) from events where aggregate_type = 'punch'",
    )
    .fetch_one(&world.pools.writer)
    .await
    .unwrap();
    assert_eq!((outcome.items.len(), transactions), (100, 1));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_longer_than_a_leaf_is_refused_before_it_is_written() {
    let world = World::new().await;
    let id = Uuid::new_v4().to_string();
    let event = SiteEvent::Registered { tz: "x".repeat(70_000) };
    let append = Append { streams: vec![StreamAppend::of(id, 0, &[event])], ..Append::default() };
    assert!(matches!(world.ledger.append(append).await, Err(AppendError::TooLong(_))));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_ledger_answers_what_is_in_flight_and_takes_no_more() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    let delivery = kiosk.delivery(vec![kiosk.item(&capture)]);
    let ledger = world.ledger.clone();
    let in_flight = tokio::spawn(async move { ledger.deliver(delivery).await });
    tokio::task::yield_now().await;
    world.ledger.close().await;
    match in_flight.await.unwrap() {
        Ok(outcome) => assert_eq!(statuses(&outcome.items), [ItemStatus::Applied]),
        Err(error) => assert!(matches!(error, AppendError::Stopping)),
    }
    let late = world.ledger.append(Append::default()).await;
    assert!(matches!(late, Err(AppendError::Stopping)));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committer_that_panics_is_started_again_and_nothing_of_it_is_written() {
    let world = World::new().await;
    let (site, event) = (Uuid::new_v4(), SiteEvent::Registered { tz: "UTC".into() });
    let append = Append {
        streams: vec![StreamAppend::of(site, 0, &[event])],
        side: Some(SideWrite::new(|_| Box::pin(async { panic!("made to panic") }))),
        ..Append::default()
    };
    let lost = world.ledger.append(append).await;
    assert!(matches!(lost, Err(AppendError::Unavailable(_))), "whether it was isn't known");
    // Whoever comes meanwhile waits, and is served by the next one.
    world.hire().await;
    assert!(dense(&positions(&world).await));
    assert_eq!(world.ledger.load::<Site>(&site.to_string()).await.unwrap().sequence, 0);
    let tasks = world.ledger.supervisor().status();
    let committer = tasks.into_iter().find(|task| task.name == "committer").unwrap();
    assert_eq!((committer.runs, committer.restarts), (true, 1));
    assert_eq!(committer.error.as_deref(), Some("it panicked: made to panic"));
    world.close().await;
}

/// What can't be taken as a punch has its room, which is a person's patience; what can has all.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_in_quarantine_the_rest_is_taken_and_the_caller_told() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let good = [kiosk.capture(PunchKind::In, NOON_MS), kiosk.capture(PunchKind::Out, NOON_MS + 1)];
    let conflict = Capture { kind: PunchKind::BreakEnd, ..good[0].clone() };
    let garbage = |text: &str| {
        let raw = BatchItem { capture: text.to_owned(), signature: "AA".to_owned() };
        DeliveryItem::quarantine(raw, QuarantineCode::BadSignature, None, None, None)
    };
    let deliver = async |room: QuarantineRoom| {
        let mut items: Vec<_> = ["a", "b", "c"].map(garbage).into();
        items.extend([&good[0], &conflict, &good[1]].map(|capture| kiosk.item(capture)));
        let delivery = Delivery { room, ..kiosk.delivery(items) };
        world.ledger.deliver(delivery).await.unwrap()
    };
    let of = |items, bytes| QuarantineRoom { items, bytes };
    assert_eq!(deliver(of(2, 1_000)).await.left, 2);
    let counted = async || -> (i64, i64) {
        let counts = "select count(*) filter (where event_type = 'Captured'), \
                      count(*) filter (where event_type = 'Quarantined') from events";
        sqlx::query_as(counts).fetch_one(&world.pools.writer).await.unwrap()
    };
    assert_eq!(counted().await, (2, 2), "both punches, and as much else as there is room for");
    let head = world.ledger.head().await.unwrap();
    assert_eq!(deliver(of(0, 1_000)).await.left, 2, "what is kept needs no room");
    assert_eq!(deliver(of(10, 2)).await.left, 2, "by their bytes there is none");
    assert_eq!(world.ledger.head().await.unwrap(), head, "nothing was written");
    let all = deliver(QuarantineRoom::OF_DEVICE).await;
    assert_eq!(all.left, 0);
    use ItemStatus::{Conflict, Duplicate, Quarantined};
    let statuses = statuses(&all.items);
    assert_eq!(statuses, [Quarantined, Quarantined, Quarantined, Duplicate, Conflict, Duplicate]);
    assert_eq!(counted().await, (2, 4));
    world.close().await;
}
