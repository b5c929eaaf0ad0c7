//! A newer program has written an event that this one doesn't know: each read model stops at it,
//! and an explanation that rests on it names it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{NOON_MS, World, deadline, judge, settle, start};
use punchtrail_domain::AggregateType;
use punchtrail_infra::{follower::FollowerState, ledger::ReadError};
use punchtrail_projections::explanations::{AbsenceError, ExplainError, explain, explain_absence};
use punchtrail_protocol::{Position, PunchId, capture::PunchKind};
use uuid::Uuid;

async fn newer(world: &World, kind: AggregateType, id: &str, sequence: Option<i64>) -> Position {
    world.record_of_a_newer_version(kind, id, "Newer", "{\"Newer\":{}}", sequence).await
}

async fn punched(world: &World) -> PunchId {
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    world.ledger.deliver(kiosk.delivery(vec![kiosk.item(&capture)])).await.unwrap();
    capture.punch
}

/// Why the punch isn't explained.
async fn unexplained(world: &World, punch: PunchId) -> Option<Position> {
    match explain(&world.pools.reader, punch).await.unwrap_err() {
        ExplainError::Read(error) => error.stops_at(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_that_reads_such_events_stops_there() {
    for kind in [
        AggregateType::Punch,
        AggregateType::Device,
        AggregateType::Site,
        AggregateType::Employee,
        AggregateType::Quarantine,
        AggregateType::Dispute,
    ] {
        let world = World::new().await;
        punched(&world).await;
        judge(&world).await;
        let running = start(&world).await;
        settle(&world, &running).await;
        let at = newer(&world, kind, &Uuid::now_v7().to_string(), None).await;
        let models = punchtrail_projections::all();
        let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
        let behind = running.wait_for(&names, at, deadline()).await.unwrap_err();
        assert_eq!(behind.position, Position(at.0 - 1), "{kind:?}");
        let stopped: Vec<_> = running
            .followers
            .status()
            .into_iter()
            .filter(|status| status.state == FollowerState::Stopped)
            .collect();
        assert!(!stopped.is_empty(), "{kind:?}");
        for status in stopped {
            let why = status.error.unwrap();
            assert!(why.contains(&format!("position {at} ")), "{}: {why}", status.name);
        }
        running.stop().await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_names_what_it_can_not_read() {
    let world = World::new().await;
    let running = start(&world).await;
    settle(&world, &running).await;
    running.stop().await;
    let punch = punched(&world).await;
    let at = newer(&world, AggregateType::Punch, &punch.to_string(), None).await;
    assert_eq!(unexplained(&world, punch).await, Some(at), "of the punch itself");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_names_what_it_can_not_read() {
    for kind in [AggregateType::Employee, AggregateType::Site] {
        let world = World::new().await;
        let running = start(&world).await;
        settle(&world, &running).await;
        running.stop().await;
        let id = match kind {
            AggregateType::Employee => world.employee.to_string(),
            _ => world.site.to_string(),
        };
        let at = newer(&world, kind, &id, None).await;
        let day = jiff::civil::date(2026, 9, 21);
        let refused =
            explain_absence(&world.pools.reader, (world.employee, true), day).await.unwrap_err();
        let AbsenceError::Read(ReadError::Undecodable(error)) = refused else {
            panic!("{refused}")
        };
        assert_eq!(error.position, at, "{kind:?}");
        world.close().await;
    }
}
