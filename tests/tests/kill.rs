//! Kills and cuts at the worst moments: what was acknowledged stands, what wasn't is sent again,
//! and nothing is there twice.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::collections::BTreeMap;

use anyhow::bail;
use futures::future::try_join_all;
use punchtrail_protocol::{
    capture::PunchKind,
    wire::{BatchAnswer, BatchItem, BatchRequest, ItemStatus},
};
use punchtrail_testkit::{PATIENCE, eventually};
use punchtrail_tests::{
    Agent, Gate, Kiosk, Shop,
    agent::Punch,
    captured::{captures, hole, twice},
    cluster::lives,
    gate::{Chance, LostAnswers},
    shop::BADGES,
};
use reqwest::StatusCode;
use tokio::sync::Mutex;

/// Kiosks that deliver at once.
const KIOSKS: usize = 4;
/// Batches that each delivers after the kill, at least.
const BATCHES_AFTER: usize = 5;
const ITEMS: usize = 20;
/// Between two punches of a kiosk, in milliseconds.
const APART_MS: i64 = 120_000;

/// What was acknowledged, punch by punch, and whether anything was refused as busy meanwhile.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: BTreeMap<String, u64>,
    busy: u32,
    batches: usize,
    stop: bool,
}

impl Tally {
    fn note(&mut self, answer: BatchAnswer) {
        self.batches += 1;
        for result in answer.results {
            assert!(matches!(result.status, ItemStatus::Applied | ItemStatus::Duplicate));
            let punch = result.punch.unwrap().to_string();
            let first = *self.acknowledged.entry(punch).or_insert(result.position.0);
            assert_eq!(first, result.position.0, "a position, once told, stands");
        }
    }
}

/// Delivers batch after batch until told to stop, each as often as it takes.
async fn deliver(shop: &Shop, mut kiosk: Kiosk, tally: &Mutex<Tally>) -> anyhow::Result<()> {
    while !tally.lock().await.stop {
        let items: Vec<BatchItem> = (0..ITEMS)
            .map(|_| {
                // Apart, so that judging doesn't hold each against all the others.
                let ago_ms = kiosk.chain.next.seq as i64 * -APART_MS;
                let capture = kiosk.capture_with(|capture| {
                    capture.employee = Some(shop.employee);
                    capture.captured_at = capture.captured_at.plus_millis(ago_ms);
                });
                kiosk.item(&capture)
            })
            .collect();
        let body = serde_json::to_vec(&BatchRequest { punches: items })?;
        eventually("a batch to be taken", PATIENCE, async || {
            match kiosk.post(&kiosk.batch_path(), body.clone()).await? {
                (StatusCode::OK, answer) => {
                    tally.lock().await.note(serde_json::from_value(answer)?);
                    Ok(Some(()))
                }
                (StatusCode::SERVICE_UNAVAILABLE, problem) if problem["code"] == "busy" => {
                    tally.lock().await.busy += 1;
                    Ok(None)
                }
                // The request that was cut short by the kill may still be under way.
                (StatusCode::TOO_MANY_REQUESTS, problem) if problem["code"] == "one_at_a_time" => {
                    Ok(None)
                }
                (status, problem) => bail!("a batch answers {status}: {problem}"),
            }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn postgres_killed_mid_append_is_busy_for_a_while_and_loses_nothing() {
    let shop = Shop::open().await.unwrap();
    let mut kiosks = Vec::new();
    for _ in 0..KIOSKS {
        kiosks.push(shop.kiosk(shop.server.url()).await.unwrap());
    }
    let tally = Mutex::new(Tally::default());
    let batches = async || tally.lock().await.batches;
    let killing = async {
        eventually("batches under way", PATIENCE, async || {
            Ok((batches().await > KIOSKS).then_some(()))
        })
        .await?;
        let killed = shop.server.installation().data.kill_9_postgres()?;
        eventually("a busy answer", PATIENCE, async || {
            Ok((tally.lock().await.busy > 0 && !lives(killed)).then_some(()))
        })
        .await?;
        let before = batches().await;
        eventually("the server to recover by itself", PATIENCE, async || {
            Ok((batches().await > before + KIOSKS * BATCHES_AFTER).then_some(()))
        })
        .await?;
        tally.lock().await.stop = true;
        anyhow::Ok(())
    };
    let delivering = try_join_all(kiosks.into_iter().map(|kiosk| deliver(&shop, kiosk, &tally)));
    let (killed, delivered) = tokio::join!(killing, delivering);
    killed.and(delivered).unwrap();

    shop.operator.settled(true, PATIENCE).await.unwrap();
    let events = shop.operator.events().await.unwrap();
    let there = captures(&events).unwrap();
    assert_eq!((hole(&events), twice(&there)), (None, vec![]));
    let there: BTreeMap<String, u64> =
        there.into_iter().map(|capture| (capture.punch, capture.position)).collect();
    let tally = tally.into_inner();
    assert_eq!(
        there, tally.acknowledged,
        "what is there is what was acknowledged, where it was said"
    );
    let verified = shop.cli.run(&["ledger", "verify"]).await.unwrap();
    assert_eq!(verified.code, 0, "{}", verified.json);
}

#[tokio::test]
async fn an_answer_lost_after_the_commit_is_answered_again_the_same() {
    let shop = Shop::open().await.unwrap();
    let gate = Gate::open(shop.server.address().unwrap(), 1).await.unwrap();
    let mut kiosk = shop.kiosk(&gate.url()).await.unwrap();
    let capture = kiosk.capture(shop.employee, PunchKind::In);
    let items = [kiosk.item(&capture)];
    let chance = Chance::Next(1);
    gate.lose_answers(Some(LostAnswers { to: "/punches/batch".to_owned(), chance }));
    kiosk.deliver(&items).await.unwrap_err();
    assert_eq!(gate.traffic().answers_lost, 1);
    let there = captures(&shop.operator.events().await.unwrap()).unwrap();
    assert_eq!(there.len(), 1, "it was committed before its answer was lost");

    let again = kiosk.deliver(&items).await.unwrap();
    assert_eq!(again.results[0].status, ItemStatus::Duplicate);
    assert_eq!(again.results[0].position.0, there[0].position);
    assert_eq!(again.acked_through, 1);
    assert_eq!(captures(&shop.operator.events().await.unwrap()).unwrap(), there);
}

/// Punches that a device makes while it is cut off, in batches of five.
const BACKLOG: usize = 40;
/// Slow enough to be caught in the middle, in bytes a second.
const THIN_BYTES_PER_S: u64 = 15_000;

/// A device with a backlog behind a thin line, its agent running.
async fn draining(shop: &Shop) -> (Gate, Agent) {
    let gate = Gate::open(shop.server.address().unwrap(), 1).await.unwrap();
    let mut agent = shop.agent(&gate.url()).await.unwrap();
    gate.slow_to(Some(THIN_BYTES_PER_S));
    for n in 0..BACKLOG {
        let badge = BADGES[n % BADGES.len()];
        agent.punch(&Punch { badge, kind: PunchKind::In, pin: None, then: None }).await.unwrap();
    }
    agent.start().await.unwrap();
    (gate, agent)
}

async fn in_the_middle(agent: &Agent) {
    eventually("the device to be in the middle", PATIENCE, async || {
        let waiting = usize::try_from(agent.waiting().await?)?;
        Ok((waiting < BACKLOG).then_some(()))
    })
    .await
    .unwrap();
}

async fn all_there(shop: &Shop, agent: &Agent) {
    eventually("the device to deliver everything", PATIENCE, async || {
        Ok((agent.waiting().await? == 0).then_some(()))
    })
    .await
    .unwrap();
    let comparison = shop.compare(&[agent.dir().to_owned()]).await.unwrap();
    comparison.is_complete().unwrap();
    assert_eq!(comparison.captures, BACKLOG as u64);
}

#[tokio::test]
async fn a_device_killed_mid_drain_delivers_the_rest_when_it_is_started_again() {
    let shop = Shop::open().await.unwrap();
    let (gate, mut agent) = draining(&shop).await;
    in_the_middle(&agent).await;
    agent.kill_9().unwrap();
    assert!(agent.waiting().await.unwrap() > 0, "it was in the middle");
    gate.slow_to(None);
    agent.start().await.unwrap();
    all_there(&shop, &agent).await;
}

#[tokio::test]
async fn a_server_killed_mid_drain_gets_the_rest_when_it_is_started_again() {
    let mut shop = Shop::open().await.unwrap();
    let (gate, agent) = draining(&shop).await;
    in_the_middle(&agent).await;
    shop.server.kill_9().unwrap();
    assert!(agent.waiting().await.unwrap() > 0, "it was in the middle");
    shop.restart().await.unwrap();
    gate.lead_to(shop.server.address().unwrap());
    gate.slow_to(None);
    all_there(&shop, &agent).await;
    shop.operator.settled(true, PATIENCE).await.unwrap();
    let verified = shop.cli.run(&["ledger", "verify"]).await.unwrap();
    assert_eq!(verified.code, 0, "{}", verified.json);
}
