//! The adjudicator on a real ledger: every rule, exactly once, whatever the batching.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestRunner};
use punchtrail_domain::{
    Event,
    device::{Device, DeviceCommand, DeviceEvent, GAPS_MAX, Gap},
    employee::{Employee, EmployeeCommand},
    policy::Policy,
    punch::{Anomaly, Punch, PunchCommand},
    site::{Site, SiteCommand},
};
use punchtrail_infra::testing::world::{Kiosk, NOON_MS, World};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    ledger::{Ledger, Metadata},
};
use punchtrail_protocol::{
    EmployeeId, Position, PunchId, SiteId, Time,
    capture::{Capture, PunchKind},
    vocabulary::{Reason, Standing},
};
use uuid::Uuid;

async fn settle(ledger: &Ledger) {
    settle_by(ledger, 4_000).await;
}

async fn settle_by(ledger: &Ledger, events: u32) {
    let mut adjudicator = Adjudicator::new(ledger.clone()).with_walk_events_max(events);
    while adjudicator.step().await.unwrap().is_some() {}
}

async fn deliver(world: &World, kiosk: &Kiosk, captures: &[&Capture]) {
    let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
    world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
}

async fn punch(world: &World, capture: &Capture) -> Punch {
    world.ledger.load::<Punch>(&capture.punch.to_string()).await.unwrap().aggregate
}

fn reasons(punch: &Punch) -> Vec<Reason> {
    punch.anomalies().iter().map(Anomaly::reason).collect()
}

async fn device_events(world: &World, kiosk: &Kiosk) -> Vec<DeviceEvent> {
    let feed = world.ledger.feed();
    let ids = [kiosk.id.to_string()];
    let recorded = feed.streams(punchtrail_domain::AggregateType::Device, &ids).await.unwrap();
    recorded
        .iter()
        .map(|recorded| match recorded.event().unwrap() {
            Event::Device(_, event) => event,
            other => panic!("{other:?}"),
        })
        .skip(3)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_doubt_a_punch_is_accepted_once() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    deliver(&world, &kiosk, &[&capture]).await;
    settle(&world.ledger).await;
    assert_eq!(punch(&world, &capture).await.standing(), Standing::Accepted);
    let head = world.ledger.head().await.unwrap();
    settle(&world.ledger).await;
    assert_eq!(world.ledger.head().await.unwrap(), head, "nothing is judged twice");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_tap_refers_the_later_one_whichever_came_first() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let first = kiosk.capture(PunchKind::In, NOON_MS);
    let second = kiosk.capture(PunchKind::In, NOON_MS + 5_000);
    deliver(&world, &kiosk, &[&second]).await;
    settle(&world.ledger).await;
    assert_eq!(punch(&world, &second).await.standing(), Standing::Accepted);
    deliver(&world, &kiosk, &[&first]).await;
    settle(&world.ledger).await;
    assert_eq!(punch(&world, &first).await.standing(), Standing::Accepted);
    let late = punch(&world, &second).await;
    assert_eq!(
        (late.standing(), reasons(&late)),
        (Standing::Referred, vec![Reason::NearDuplicate])
    );
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_doubt_about_device_and_person_refers() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let gone = world.hire().await;
    let leave = EmployeeCommand::Depart { at: Time::from_millis(NOON_MS - 1) };
    world.ledger.execute::<Employee>(&gone.to_string(), leave, &Metadata::default()).await.unwrap();
    let mut tap = 0;
    let mut make = |kiosk: &mut Kiosk, change: &dyn Fn(&mut Capture)| {
        tap += 100_000;
        kiosk.capture_with(|capture| {
            capture.captured_at = Time::from_millis(NOON_MS - 10_000_000 + tap);
            change(capture);
        })
    };
    let badge = make(&mut kiosk, &|c| {
        c.employee = None;
        c.badge = Some("4711".into());
    });
    let stranger = make(&mut kiosk, &|c| c.employee = Some(EmployeeId(Uuid::new_v4())));
    let departed = make(&mut kiosk, &|c| {
        c.employee = Some(gone);
        c.captured_at = Time::from_millis(NOON_MS);
    });
    let future = make(&mut kiosk, &|c| c.captured_at = Time::from_millis(NOON_MS + 10_800_000));
    let old = make(&mut kiosk, &|c| c.captured_at = Time::from_millis(NOON_MS - 2_600_000_000));
    deliver(&world, &kiosk, &[&badge, &stranger, &departed, &future, &old]).await;
    settle(&world.ledger).await;
    for (capture, reason) in [
        (&badge, Reason::UnknownBadge),
        (&stranger, Reason::UnknownEmployee),
        (&departed, Reason::DepartedWorker),
        (&future, Reason::InFuture),
        (&old, Reason::BeyondLookback),
    ] {
        let judged = punch(&world, capture).await;
        assert_eq!((judged.standing(), reasons(&judged)), (Standing::Referred, vec![reason]));
    }
    let revoke = DeviceCommand::Revoke { at: Time::from_millis(NOON_MS) };
    let id = kiosk.id.to_string();
    world.ledger.execute::<Device>(&id, revoke, &Metadata::default()).await.unwrap();
    let after = make(&mut kiosk, &|_| ());
    deliver(&world, &kiosk, &[&after]).await;
    settle(&world.ledger).await;
    assert_eq!(reasons(&punch(&world, &after).await), [Reason::RevokedDevice]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_that_stands_before_a_punch_judges_it() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let pair = |kiosk: &mut Kiosk, at: i64| {
        (kiosk.capture(PunchKind::In, at), kiosk.capture(PunchKind::In, at + 30_000))
    };
    let before = pair(&mut kiosk, NOON_MS - 9_000_000);
    deliver(&world, &kiosk, &[&before.0, &before.1]).await;
    let policy = Policy { near_duplicate_s: 10, ..Policy::default() };
    let id = world.site.to_string();
    let change = SiteCommand::ChangePolicy { policy, from: None };
    world.ledger.execute::<Site>(&id, change, &Metadata::default()).await.unwrap();
    let after = pair(&mut kiosk, NOON_MS - 5_000_000);
    deliver(&world, &kiosk, &[&after.0, &after.1]).await;
    settle(&world.ledger).await;
    assert_eq!(punch(&world, &before.1).await.standing(), Standing::Referred);
    assert_eq!(punch(&world, &after.1).await.standing(), Standing::Accepted);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_broken_links_are_the_device_s_and_refer_nothing() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let captures: Vec<Capture> =
        (0..4).map(|n| kiosk.capture(PunchKind::In, NOON_MS - 900_000 + n * 100_000)).collect();
    let astray = kiosk.capture_with(|c| {
        c.captured_at = Time::from_millis(NOON_MS);
        c.prev = punchtrail_protocol::Digest::of(b"another past");
    });
    deliver(&world, &kiosk, &[&captures[0], &captures[3], &astray]).await;
    settle(&world.ledger).await;
    let gap = Gap { from: 2, to: 3 };
    let broken = |event: &DeviceEvent| matches!(event, DeviceEvent::LinkBroken { seq: 5, .. });
    let events = device_events(&world, &kiosk).await;
    assert_eq!(events[0], DeviceEvent::SequenceGapOpened { gap });
    assert!(broken(&events[1]) && events.len() == 2, "{events:?}");
    deliver(&world, &kiosk, &[&captures[2], &captures[1]]).await;
    settle(&world.ledger).await;
    let device = world.ledger.load::<Device>(&kiosk.id.to_string()).await.unwrap().aggregate;
    assert_eq!(device.gaps(), []);
    for capture in captures.iter().chain([&astray]) {
        assert_eq!(punch(&world, capture).await.standing(), Standing::Accepted);
    }
    world.close().await;
}

/// A device may leave out every other number: what is kept of its gaps stays small, and a number
/// that is used twice among them is found all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_devices_gaps_do_not_grow_with_what_it_leaves_out() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let mut at_ms = NOON_MS - 80_000_000;
    let captures = kiosk.captures(3 * GAPS_MAX, &mut at_ms, 1);
    let odd: Vec<_> = captures.iter().step_by(2).collect();
    for batch in odd.chunks(500) {
        deliver(&world, &kiosk, batch).await;
    }
    settle(&world.ledger).await;
    let kept = "select cardinality(gaps) from judged_devices";
    let kept: i32 = sqlx::query_scalar(kept).fetch_one(&world.pools.writer).await.unwrap();
    assert_eq!(usize::try_from(kept).unwrap(), 2 * GAPS_MAX);
    let mut again = captures[2 * GAPS_MAX + 500].clone();
    again.punch = PunchId(Uuid::now_v7());
    deliver(&world, &kiosk, &[&again, &captures[2 * GAPS_MAX + 501]]).await;
    settle(&world.ledger).await;
    assert!(punch(&world, &again).await.anomalies().iter().any(|found| {
        matches!(found, Anomaly::Fork { other: Some(other), .. }
            if *other == captures[2 * GAPS_MAX + 500].punch)
    }));
    let late = punch(&world, &captures[2 * GAPS_MAX + 501]).await;
    assert!(!reasons(&late).contains(&Reason::Fork));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_used_twice_marks_the_device_and_refers_the_second() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let mut copy = kiosk.clone();
    let first = kiosk.capture(PunchKind::In, NOON_MS - 900_000);
    let second = copy.capture(PunchKind::Out, NOON_MS);
    deliver(&world, &kiosk, &[&first]).await;
    deliver(&world, &copy, &[&second]).await;
    settle(&world.ledger).await;
    let fork = Anomaly::Fork { seq: 1, other: Some(first.punch) };
    assert_eq!(punch(&world, &second).await.anomalies(), [fork]);
    assert_eq!(punch(&world, &first).await.standing(), Standing::Accepted);
    let event =
        DeviceEvent::ForkDetected { seq: 1, first: Some(first.punch), second: Some(second.punch) };
    assert_eq!(device_events(&world, &kiosk).await, [event]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ruling_that_comes_before_the_judgement_stands() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    deliver(&world, &kiosk, &[&capture]).await;
    let id = capture.punch.to_string();
    let void = PunchCommand::Void { note: None, reason: None };
    world.ledger.execute::<Punch>(&id, void, &Metadata::default()).await.unwrap();
    settle(&world.ledger).await;
    assert_eq!(punch(&world, &capture).await.standing(), Standing::Voided);
    let next = kiosk.capture(PunchKind::In, NOON_MS + 5_000);
    deliver(&world, &kiosk, &[&next]).await;
    settle(&world.ledger).await;
    assert_eq!(punch(&world, &next).await.standing(), Standing::Accepted, "a voided one is none");
    world.close().await;
}

/// Two adjudicators on one ledger: one wins each stretch, nothing is judged twice.
#[tokio::test(flavor = "multi_thread")]
async fn two_adjudicators_judge_each_punch_once() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let captures: Vec<Capture> =
        (0..60).map(|n| kiosk.capture(PunchKind::In, NOON_MS - 9_000_000 + n * 100_000)).collect();
    deliver(&world, &kiosk, &captures.iter().collect::<Vec<_>>()).await;
    let walk = |ledger: Ledger| async move {
        let mut adjudicator = Adjudicator::new(ledger).with_walk_events_max(10);
        for _ in 0..200 {
            let _ = adjudicator.step().await;
        }
    };
    tokio::join!(walk(world.ledger.clone()), walk(world.ledger.clone()));
    let accepted: (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct aggregate_id) from events where event_type = 'Accepted'",
    )
    .fetch_one(&world.pools.writer)
    .await
    .unwrap();
    assert_eq!(accepted, (60, 60));
    world.close().await;
}

type Outcome = BTreeMap<PunchId, (Standing, Vec<Anomaly>)>;

/// Judges the same arrivals, cut into batches in some way and walked in stretches of some length.
async fn outcome(taps: &[(u8, u8, i64)], cuts: &[usize], walk_events: u32) -> Outcome {
    let mut world = World::new().await;
    world.site = SiteId(Uuid::from_u128(7));
    let people = [world.employee, world.hire().await];
    let mut kiosks = [world.device().await, world.device().await];
    kiosks[1].chain.next.site = SiteId(Uuid::from_u128(9));
    let mut arrivals = Vec::new();
    for (n, &(kiosk, person, at_s)) in taps.iter().enumerate() {
        let capture = kiosks[usize::from(kiosk)].capture_with(|c| {
            c.punch =
                PunchId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n as u128));
            c.employee = Some(people[usize::from(person)]);
            c.captured_at = Time::from_millis(NOON_MS - 3_600_000 + at_s * 1_000);
        });
        arrivals.push((usize::from(kiosk), capture));
    }
    let mut cuts = cuts.iter().cycle();
    let mut rest = arrivals.as_slice();
    while let Some((kiosk, _)) = rest.first() {
        // A batch is one device's; arrivals keep their order.
        let run = rest.iter().take_while(|(other, _)| other == kiosk).count();
        let size = run.min(1 + cuts.next().copied().unwrap_or(0));
        let batch: Vec<&Capture> = rest[..size].iter().map(|(_, capture)| capture).collect();
        deliver(&world, &kiosks[*kiosk], &batch).await;
        if size % 2 == 0 {
            settle_by(&world.ledger, walk_events).await;
        }
        rest = &rest[size..];
    }
    settle_by(&world.ledger, walk_events).await;
    let mut found = Outcome::new();
    for (_, capture) in &arrivals {
        let punch = punch(&world, capture).await;
        let mut anomalies = punch.anomalies().to_vec();
        anomalies.sort_by_key(|anomaly| format!("{anomaly:?}"));
        found.insert(capture.punch, (punch.standing(), anomalies));
    }
    assert!(world.ledger.head().await.unwrap() > Position::START);
    world.close().await;
    found
}

#[test]
fn the_outcome_does_not_depend_on_how_arrivals_were_batched() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 8, ..ProptestConfig::default() });
    let taps = proptest::collection::vec((0u8..2, 0u8..2, 0i64..900), 1..25);
    let cuts = proptest::collection::vec(0usize..6, 1..5);
    runner
        .run(&(taps, cuts, 2u32..9), |(taps, cuts, walk_events)| {
            let (whole, cut) = runtime.block_on(async {
                (outcome(&taps, &[1_000], 4_000).await, outcome(&taps, &cuts, walk_events).await)
            });
            prop_assert_eq!(whole, cut);
            Ok(())
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_persons_thousands_of_punches_make_a_doubt_each_and_not_one_a_pair() {
    const PUNCHES: usize = 10_000;
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let mut at_ms = NOON_MS - 80_000_000;
    let captures = kiosk.captures(PUNCHES, &mut at_ms, 4);
    // Both ways: what came later was captured earlier, too.
    let (late, early) = captures.split_at(PUNCHES / 2);
    for part in [early, late] {
        for batch in part.chunks(500) {
            let items = batch.iter().map(|capture| kiosk.item(capture)).collect();
            world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
        }
    }
    settle(&world.ledger).await;
    let counted = "select count(*) filter (where event_type = 'AnomalyFlagged'), \
                   count(*) filter (where event_type = 'Accepted'), count(*) from events";
    let (flagged, accepted, all): (i64, i64, i64) =
        sqlx::query_as(counted).fetch_one(&world.pools.writer).await.unwrap();
    assert!(flagged < 2 * PUNCHES as i64, "{flagged} doubts about {PUNCHES} punches");
    assert!(accepted >= 1, "the first captured is nobody's double");
    assert!(all < 6 * PUNCHES as i64, "{all} events");
    let doubted: i64 = sqlx::query_scalar(
        "select count(distinct aggregate_id) from events where event_type = 'ReferredForReview'",
    )
    .fetch_one(&world.pools.writer)
    .await
    .unwrap();
    assert_eq!(doubted, PUNCHES as i64 - 1, "each but the first captured waits for a person");
    world.close().await;
}

/// One punch can cast doubt on many that were judged before: what a walk brings at once is limited
/// all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_walk_ends_when_it_has_found_enough() {
    const PUNCHES: usize = 60;
    const EARLIER: usize = 40;
    const FOUND_MAX: usize = 10;
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let site = world.site.to_string();
    let change = async |near_duplicate_s| {
        let policy = Policy { near_duplicate_s, ..Policy::default() };
        let change = SiteCommand::ChangePolicy { policy, from: None };
        world.ledger.execute::<Site>(&site, change, &Metadata::default()).await.unwrap();
    };
    change(0).await;
    let mut at_ms = NOON_MS - 900_000;
    let captures = kiosk.captures(PUNCHES, &mut at_ms, 1_000);
    deliver(&world, &kiosk, &captures.iter().collect::<Vec<_>>()).await;
    change(600).await;
    settle(&world.ledger).await;
    let mut at_ms = NOON_MS - 1_000_000;
    let earlier = kiosk.captures(EARLIER, &mut at_ms, 1_000);
    deliver(&world, &kiosk, &earlier.iter().collect::<Vec<_>>()).await;
    let mut adjudicator = Adjudicator::new(world.ledger.clone()).with_judged_events_max(FOUND_MAX);
    let (mut before, mut walks) = (world.ledger.head().await.unwrap(), 0);
    while adjudicator.step().await.unwrap().is_some() {
        let head = world.ledger.head().await.unwrap();
        // What the last punch of a walk leads to comes on top.
        assert!(head.0 - before.0 <= (FOUND_MAX + 2 * PUNCHES + 2) as u64, "{before} to {head}");
        (before, walks) = (head, walks + 1);
    }
    assert!(walks > EARLIER / FOUND_MAX, "{walks} walks");
    for capture in &captures {
        assert_eq!(reasons(&punch(&world, capture).await), [Reason::NearDuplicate]);
    }
    world.close().await;
}
