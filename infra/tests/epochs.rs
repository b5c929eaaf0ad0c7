//! The database goes back under the nodes: it is noticed, and everything follows what is there.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use punchtrail_domain::{
    AggregateType, Event, Recorded,
    epoch::{EpochEvent, NoticedBy},
    punch::Punch,
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    audit::{Claims, FindingCode, audit},
    ledger::{Clock, ItemOutcome, Ledger, Recollection, judged_through},
    supervision::Supervisor,
    testing::{
        saved::{Back, Saved},
        world::{Kiosk, NOON_MS, World},
    },
};
use punchtrail_protocol::{
    Digest, Position,
    capture::{Capture, PunchKind},
    vocabulary::Standing,
    wire::ItemStatus,
};
use punchtrail_testkit::{PATIENCE, eventually};

async fn deliver(ledger: &Ledger, kiosk: &Kiosk, captures: &[Capture]) -> Vec<ItemStatus> {
    let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
    let outcome = ledger.deliver(kiosk.delivery(items)).await.unwrap();
    outcome.items.iter().map(|ItemOutcome { status, .. }| *status).collect()
}

async fn judge(adjudicator: &mut Adjudicator) {
    while adjudicator.step().await.unwrap().is_some() {}
}

async fn opened(world: &World) -> Vec<(Position, EpochEvent)> {
    let head = world.ledger.head().await.unwrap();
    let mut opened = Vec::new();
    let take = |recorded: &Recorded| {
        match recorded.event()? {
            Event::Epoch(_, event) => opened.push((recorded.position, event)),
            other => panic!("{other:?}"),
        }
        Ok(())
    };
    world.ledger.feed().of_type(AggregateType::Epoch, head, take).await.unwrap();
    opened
}

/// Every capture is judged, the ledger is whole, and everything beside it belongs to it.
async fn is_whole(world: &World, captures: &[Capture]) {
    for capture in captures {
        let punch = world.ledger.load::<Punch>(&capture.punch.to_string()).await.unwrap();
        assert_eq!(punch.aggregate.standing(), Standing::Accepted, "{}", capture.seq);
    }
    let report = audit(&world.pools.owner, Claims::none("a test"), &|_| {}).await.unwrap();
    // The world of these tests enrols its devices past their access.
    let past =
        [FindingCode::DeploymentAltered, FindingCode::AccessAltered, FindingCode::SitesAltered];
    let found: Vec<_> = report.findings.iter().filter(|one| !past.contains(&one.code)).collect();
    assert!(found.is_empty(), "{found:?}");
    let place = judged_through(&world.pools.writer).await.unwrap();
    assert!(place.stands);
    assert_eq!(place.anchor.position, world.ledger.head().await.unwrap());
}

struct Gone {
    world: World,
    kiosk: Kiosk,
    captures: Vec<Capture>,
    adjudicator: Adjudicator,
    /// Where the histories part.
    parted: Position,
    saved: Saved,
}

/// Ten punches are delivered and judged, then ten more, of which the database will know nothing.
async fn about_to_go_back() -> Gone {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let mut at_ms = NOON_MS - 80_000_000;
    let captures = kiosk.captures(20, &mut at_ms, 100_000);
    let mut adjudicator = Adjudicator::new(world.ledger.clone());
    deliver(&world.ledger, &kiosk, &captures[..10]).await;
    judge(&mut adjudicator).await;
    let parted = world.ledger.head().await.unwrap();
    let saved = Saved::of(world.database.url()).await;
    deliver(&world.ledger, &kiosk, &captures[10..]).await;
    judge(&mut adjudicator).await;
    Gone { world, kiosk, captures, adjudicator, parted, saved }
}

async fn goes_back_and_is_refilled(back: Back) {
    let Gone { world, kiosk, captures, mut adjudicator, parted, saved } = about_to_go_back().await;
    let seen = world.ledger.seen();
    saved.put_back(back).await;
    // The next delivery notices; what is gone is taken again, and nothing twice.
    let statuses = deliver(&world.ledger, &kiosk, &captures[5..15]).await;
    let expected = [[ItemStatus::Duplicate; 5], [ItemStatus::Applied; 5]].concat();
    assert_eq!(statuses, expected);
    judge(&mut adjudicator).await;
    let statuses = deliver(&world.ledger, &kiosk, &captures[15..]).await;
    assert_eq!(statuses, [ItemStatus::Applied; 5]);
    judge(&mut adjudicator).await;
    let epochs = opened(&world).await;
    let (position, EpochEvent::Opened { after, seen: remembered, noticed_by, lost, .. }) =
        epochs[0];
    assert_eq!((position, after, lost), (parted.plus(1), parted, None));
    assert_eq!((remembered, noticed_by), (seen, NoticedBy::Node));
    assert_eq!(epochs.len(), 1);
    assert_eq!(world.ledger.seen(), world.ledger.head().await.unwrap());
    is_whole(&world, &captures).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_put_back_is_noticed_and_refilled() {
    goes_back_and_is_refilled(Back::Whole).await;
}

/// The tables beside the ledger tell of events that are gone, and are set right.
#[tokio::test(flavor = "multi_thread")]
async fn so_is_one_of_which_only_the_events_went_back() {
    goes_back_and_is_refilled(Back::Events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_nothing_to_write_notices_too_and_once_for_all_nodes() {
    let Gone { world, saved, parted, .. } = about_to_go_back().await;
    let other = Ledger::open(world.pools.writer.clone()).await.unwrap();
    let before = world.ledger.newest();
    assert_eq!(other.newest().epoch, before.epoch);
    saved.put_back(Back::Whole).await;
    for node in [&world.ledger, &other] {
        eventually("a node to notice", PATIENCE, async || {
            let newest = node.newest();
            Ok((newest.epoch != before.epoch && node.seen() == parted.plus(1)).then_some(()))
        })
        .await
        .unwrap();
    }
    assert_eq!(world.ledger.newest(), other.newest());
    assert_eq!(opened(&world).await.len(), 1);
    other.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_were_given_out_again_are_noticed() {
    let Gone { world, mut kiosk, captures, mut adjudicator, parted, saved } =
        about_to_go_back().await;
    // Another node, which knew nothing, writes on before the first looks.
    saved.put_back(Back::Whole).await;
    let other = Ledger::open(world.pools.writer.clone()).await.unwrap();
    let mut at_ms = NOON_MS - 40_000_000;
    let more = kiosk.captures(100, &mut at_ms, 100_000);
    deliver(&other, &kiosk, &more).await;
    let mut elsewhere = Adjudicator::new(other.clone());
    judge(&mut elsewhere).await;
    deliver(&world.ledger, &kiosk, &captures[10..]).await;
    judge(&mut adjudicator).await;
    let epochs = opened(&world).await;
    assert_eq!(epochs.len(), 1, "{epochs:?}");
    let (_, EpochEvent::Opened { after, .. }) = epochs[0];
    assert_eq!(after, parted);
    is_whole(&world, &[captures, more].concat()).await;
    other.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_started_again_remembers() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    world.ledger.close().await;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let (supervisor, place) = (Supervisor::default(), Some(dir.path().join("anchors")));
        Ledger::open_for(&world.pools, supervisor, place, Clock::default())
    };
    let node = open().await.unwrap();
    let mut at_ms = NOON_MS - 80_000_000;
    let captures = kiosk.captures(20, &mut at_ms, 100_000);
    deliver(&node, &kiosk, &captures[..10]).await;
    let parted = node.seen();
    let saved = Saved::of(world.database.url()).await;
    deliver(&node, &kiosk, &captures[10..]).await;
    let newest = format!("{} {}\n", node.seen(), node.newest().anchor.leaf_hash);
    eventually("what it knows to be written down", PATIENCE, async || {
        let text = std::fs::read_to_string(dir.path().join("anchors")).unwrap_or_default();
        Ok(text.ends_with(&newest).then_some(()))
    })
    .await
    .unwrap();
    node.close().await;
    drop(node);
    saved.put_back(Back::Whole).await;
    let node = open().await.unwrap();
    eventually("it to notice", PATIENCE, async || {
        Ok((node.history().epochs().count() == 2).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(node.history().epochs().last().unwrap().1, parted);
    node.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_was_told_is_noticed_when_no_node_remembers() {
    let Gone { world, saved, .. } = about_to_go_back().await;
    let told = world.ledger.newest();
    world.ledger.close().await;
    saved.put_back(Back::Whole).await;
    let fresh = Ledger::open(world.pools.writer.clone()).await.unwrap();
    let stored = fresh.newest().anchor.leaf_hash;
    fresh.compare(fresh.newest(), Some(stored)).await.unwrap();
    assert_eq!(fresh.history().epochs().count(), 1, "that stands");
    for _ in 0..3 {
        fresh.compare(told, None).await.unwrap();
    }
    let other = Recollection { anchor: told.anchor, ..told };
    fresh.compare(other, Some(Digest::ZERO)).await.unwrap();
    let epochs: Vec<_> = fresh.history().epochs().collect();
    assert_eq!(epochs.len(), 2, "once");
    assert_eq!(epochs[1].1, Position::START, "nobody knows from where");
    fresh.close().await;
    world.close().await;
}

/// A second step back takes the beginning of the epoch that the first one opened.
#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_can_be_lost_itself() {
    let Gone { world, kiosk, captures, saved, parted, .. } = about_to_go_back().await;
    saved.put_back(Back::Whole).await;
    deliver(&world.ledger, &kiosk, &captures[10..12]).await;
    let second = world.ledger.newest().epoch;
    saved.put_back(Back::Whole).await;
    deliver(&world.ledger, &kiosk, &captures[10..]).await;
    let epochs = opened(&world).await;
    let (_, EpochEvent::Opened { after, lost, .. }) = epochs[0];
    assert_eq!((epochs.len(), after, lost), (1, parted, Some(second)));
    let history = world.ledger.history();
    assert_eq!(history.stands_through(second), Some(parted));
    let mut adjudicator = Adjudicator::new(world.ledger.clone());
    judge(&mut adjudicator).await;
    is_whole(&world, &captures).await;
    world.close().await;
}

/// Judgements rest on what was read: not on events that are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_judgement_of_what_is_gone_is_refused() {
    let Gone { world, mut kiosk, captures, saved, mut adjudicator, .. } = about_to_go_back().await;
    // Read by the adjudicator's node, not judged yet.
    let late = kiosk.capture(PunchKind::Out, NOON_MS - 40_000_000);
    deliver(&world.ledger, &kiosk, std::slice::from_ref(&late)).await;
    let read = world.ledger.feed().read(Position(20), 1_000).await.unwrap();
    assert!(!read.is_empty());
    saved.put_back(Back::Whole).await;
    // It may find the events in memory still, and must not judge them.
    tokio::time::timeout(Duration::from_secs(60), async {
        while adjudicator.step().await.is_err() {}
    })
    .await
    .unwrap();
    deliver(&world.ledger, &kiosk, &captures[10..]).await;
    deliver(&world.ledger, &kiosk, std::slice::from_ref(&late)).await;
    judge(&mut adjudicator).await;
    is_whole(&world, &[captures, vec![late]].concat()).await;
    assert_ne!(Digest::ZERO, world.ledger.newest().anchor.leaf_hash);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_put_back_on_purpose_begins_an_epoch_once() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let mut at_ms = NOON_MS - 80_000_000;
    let captures = kiosk.captures(3, &mut at_ms, 100_000);
    deliver(&world.ledger, &kiosk, &captures).await;
    let (end, before) = (world.ledger.head().await.unwrap(), world.ledger.newest().epoch);
    world.ledger.put_back(end, end.plus(4)).await.unwrap();
    let newest = world.ledger.newest();
    assert_eq!(newest.anchor.position, end.plus(1));
    assert_ne!(newest.epoch, before);
    // Whoever asks again, or another node did before, changes nothing.
    world.ledger.put_back(end, end.plus(4)).await.unwrap();
    let epochs = opened(&world).await;
    assert_eq!(epochs.len(), 1);
    let EpochEvent::Opened { after, ends, seen, noticed_by, .. } = epochs[0].1;
    assert_eq!((after, ends, noticed_by), (end, before, NoticedBy::Node));
    assert_eq!(seen, end.plus(4), "what was signed up to there is explained by it");
    world.close().await;
}
