//! A newer program has written an event that this one doesn't know. Whoever reads it refuses it, by
//! its position, and nobody takes it for another.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fmt::Debug, sync::Arc};

use cqrs_es::{Aggregate, EventStore};
use punchtrail_domain::{
    AggregateType, StoredEvent,
    device::{Device, DeviceCommand},
    employee::{Employee, EmployeeCommand},
    punch::{Punch, PunchCommand, PunchEvent},
    quarantine::{Quarantine, QuarantineCommand, item_digest},
    site::{Site, SiteCommand},
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    ledger::{
        self, Append, AppendError, ExecuteError, LedgerStore, Metadata, ReadError, StreamAppend,
    },
    people::{badges, directory, import},
    testing::world::{NOON_MS, World},
};
use punchtrail_protocol::{Position, SiteId, Time, capture::PunchKind, wire::ItemStatus};
use punchtrail_testkit::text;
use uuid::Uuid;

/// Every way to read the aggregate's stream refuses it.
async fn every_reader_refuses<A>(world: &World, id: &str, command: A::Command)
where
    A: Aggregate<Services = (), Event: StoredEvent + Debug> + Debug,
    A::Command: Clone,
{
    let at =
        world.record_of_a_newer_version(A::Event::AGGREGATE, id, "Newer", "{\"Newer\":{}}", None);
    let at = at.await;
    let refused = |error: &ReadError| {
        assert_eq!(error.stops_at(), Some(at), "{error}");
        assert!(error.to_string().contains("version 2 of Newer"), "{error}");
    };
    refused(&world.ledger.load::<A>(id).await.unwrap_err());
    refused(&ledger::load::<A>(world.ledger.pool(), &[id.to_owned()]).await.unwrap_err());
    match world.ledger.execute::<A>(id, command, &Metadata::default()).await.unwrap_err() {
        ExecuteError::Load(error) => refused(&error),
        other => panic!("{other}"),
    }
    let store = LedgerStore::<A>::new(world.ledger.clone());
    let error = store.load_events(id).await.unwrap_err();
    assert!(error.to_string().contains(&at.to_string()), "{error}");
    let entries = world.ledger.feed().read(Position(at.0 - 1), 1).await.unwrap();
    assert_eq!(entries[0].event().unwrap_err().position, at);
    let error = judged_up_to(world).await;
    refused(&error);
}

/// Judges everything before it, and then refuses.
async fn judged_up_to(world: &World) -> ReadError {
    let mut adjudicator = Adjudicator::new(world.ledger.clone());
    loop {
        match adjudicator.step().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was passed over"),
            Err(punchtrail_infra::adjudicator::AdjudicatorError::Read(error)) => return error,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_site() {
    let world = World::new().await;
    let command = SiteCommand::Register { tz: "UTC".into() };
    every_reader_refuses::<Site>(&world, &world.site.to_string(), command).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_device() {
    let world = World::new().await;
    let device = world.device().await.id.to_string();
    let command = DeviceCommand::Revoke { at: Time::from_millis(NOON_MS) };
    every_reader_refuses::<Device>(&world, &device, command).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_employee_and_an_import_of_the_same_person_is_refused() {
    let world = World::new().await;
    let mut connection = world.pools.writer.acquire().await.unwrap();
    directory::put_site(&mut connection, world.site, "Mill").await.unwrap();
    let entry = directory::EmployeeEntry {
        employee: world.employee,
        name: "Ada".into(),
        pin_phc: None,
        external_id: None,
    };
    directory::put_employee(&mut connection, &entry).await.unwrap();
    drop(connection);
    let (from, by) = (Time::default(), Metadata::default());
    badges::issue(&world.ledger, world.employee, "7", from, &by).await.unwrap();
    let command = EmployeeCommand::AssignToSite { site: SiteId(Uuid::new_v4()), from: None };
    every_reader_refuses::<Employee>(&world, &world.employee.to_string(), command).await;
    let head = world.ledger.head().await.unwrap();
    let roster = b"badge,name,pin,site\n7,Ada,,Mill\n";
    let hashed = Arc::new(|_, _| {});
    let refused = {
        let (by, options) = (Metadata::default(), import::Options::default());
        import::import(&world.ledger, roster, &options, &by, hashed).await
    };
    match refused.unwrap_err() {
        import::ImportError::Ledger(error) => assert_eq!(error.stops_at(), Some(head)),
        other => panic!("{other}"),
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_punch_and_only_its_own_delivery_is_refused() {
    let world = World::new().await;
    let (mut one, mut two) = (world.device().await, world.device().await);
    let (known, other) = (one.capture(PunchKind::In, NOON_MS), two.capture(PunchKind::In, NOON_MS));
    world.ledger.deliver(one.delivery(vec![one.item(&known)])).await.unwrap();
    let id = known.punch.to_string();
    let command = PunchCommand::Judge { anomalies: vec![], verify_by: None };
    every_reader_refuses::<Punch>(&world, &id, command).await;
    let payload = "{\"ConflictingCaptureReceived\":{}}";
    let conflict = "ConflictingCaptureReceived";
    let at =
        world.record_of_a_newer_version(AggregateType::Punch, &id, conflict, payload, None).await;
    let again = world.ledger.deliver(one.delivery(vec![one.item(&known)]));
    let fresh = world.ledger.deliver(two.delivery(vec![two.item(&other)]));
    let (again, fresh) = tokio::join!(again, fresh);
    match again.unwrap_err() {
        AppendError::Unreadable(error) => assert_eq!(error.position, at),
        other => panic!("{other}"),
    }
    assert_eq!(fresh.unwrap().items[0].status, ItemStatus::Applied);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_receipt_and_its_capture_waits_with_it_to_be_judged() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    let text = text(&capture);
    let (signature, id) = (kiosk.chain.sign(text.as_bytes()), capture.punch.to_string());
    let captured = PunchEvent::Captured { capture: text.into(), signature };
    let streams = vec![StreamAppend::of(&id, 0, &[captured])];
    let appended = world.ledger.append(Append { streams, ..Append::default() }).await.unwrap();
    let payload = "{\"Synced\":{}}";
    let at =
        world.record_of_a_newer_version(AggregateType::Punch, &id, "Synced", payload, None).await;
    assert_eq!(judged_up_to(&world).await.stops_at(), Some(at));
    let place = ledger::judged_through(world.ledger.pool()).await.unwrap();
    let place = place.anchor.position;
    assert_eq!(place, Position(appended.first.0 - 1), "before the capture, not after it");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_quarantined_item_also_when_the_same_item_comes_again() {
    let world = World::new().await;
    let kiosk = world.device().await;
    let item = item_digest(kiosk.id, b"{}", b"x").to_string();
    let kind = AggregateType::Quarantine;
    let at = world.record_of_a_newer_version(kind, &item, "Quarantined", "{}", Some(1)).await;
    let delivered = world.ledger.deliver(kiosk.delivery(vec![kiosk.garbage("{}")])).await;
    match delivered.unwrap_err() {
        AppendError::Unreadable(error) => assert_eq!(error.position, at),
        other => panic!("{other}"),
    }
    world.close().await;
    let world = World::new().await;
    let kiosk = world.device().await;
    world.ledger.deliver(kiosk.delivery(vec![kiosk.garbage("{}")])).await.unwrap();
    let command = QuarantineCommand::Dismiss { note: None };
    every_reader_refuses::<Quarantine>(
        &world,
        &item_digest(kiosk.id, b"{}", b"x").to_string(),
        command,
    )
    .await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_kind_of_aggregate_that_this_program_has_never_heard_of() {
    let world = World::new().await;
    let before = world.ledger.head().await.unwrap();
    let mut owner: sqlx::PgConnection =
        sqlx::Connection::connect(world.database.url()).await.unwrap();
    sqlx::query(
        "with head as (update ledger_head set position = position + 1 returning position) \
         insert into events select 'webhook', 'w1', 1, 'Opened', '1', '{}'::json, '{}'::json, \
         position, clock_timestamp(), sha256('') from head",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    let feed = world.ledger.feed();
    let read = feed.read(Position::START, 100).await.unwrap();
    assert_eq!(read.last().unwrap().position(), before, "what stands before it is read");
    let error = feed.read(before, 100).await.unwrap_err();
    assert_eq!(error.stops_at(), Some(before.plus(1)));
    assert_eq!(judged_up_to(&world).await.stops_at(), Some(before.plus(1)));
    sqlx::Connection::close(owner).await.unwrap();
    world.close().await;
}
