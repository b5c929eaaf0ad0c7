//! Payroll listens, in the demo: a receiver of webhooks goes down while people go on, comes back,
//! and has everything afterwards.

use std::collections::BTreeMap;

use anyhow::Context;
use punchtrail_testkit::{PATIENCE, Received, Receiver, Reply, eventually};
use serde_json::Value;

use super::{cast::SITES, check::Verdict, screen::Screen, stage::Stage};

/// Who is hired while nobody listens.
const HIRED: [&str; 3] = ["Nora Falk", "Idris Bell", "Lena Moor"];

/// Plays it.
///
/// # Errors
/// When something goes otherwise than it must.
pub async fn play(screen: &mut Screen, stage: &Stage, verdict: &mut Verdict) -> anyhow::Result<()> {
    screen.chapter(
        "Payroll listens, and is away for a while",
        "Webhooks, signed by Standard Webhooks 1.0: what happens is told as it happens, again \
         until it is taken, under one id and with one body.",
    );
    let before = verdict.promises.len();
    let first = Receiver::taking().await?;
    let added = stage.cli.json(&["webhook", "add", &first.url(), "--after", "0"]).await?;
    let webhook = added["webhook"].as_str().context("an endpoint's id")?;
    let told_first = told(stage).await?;
    delivered(&first, &told_first).await?;
    screen.done(&format!(
        "payroll's receiver was told all {} events of the ledger's history that concern it",
        told_first.len()
    ));

    let (address, mut received) = (first.address(), first.received());
    drop(first);
    for name in HIRED {
        stage.cli.json(&["employee", "add", "--name", name, "--site", SITES[0].0]).await?;
    }
    let all = told(stage).await?;
    let page = eventually("payroll's receiver to be missed", PATIENCE, async || {
        let page = stage.operator.get(&format!("/v1/webhooks/{webhook}")).await?;
        Ok(page["failing_since"].is_string().then_some(page))
    })
    .await?;
    screen.done(&format!(
        "it goes down, {} people are hired, {} deliveries wait: {}",
        HIRED.len(),
        page["pending"],
        page["last_error"].as_str().unwrap_or_default()
    ));

    let again = Receiver::at(address, true, |_, _| Reply::status(200)).await?;
    let since = "1970-01-01T00:00:00Z";
    stage.cli.json(&["webhook", "redeliver", webhook, "--since", since]).await?;
    let missing: BTreeMap<String, Value> =
        all.iter().filter(|(id, _)| !told_first.contains_key(*id)).map(owned).collect();
    delivered(&again, &missing).await?;
    received.extend(again.received());
    let same = |one: &Received| {
        let body: Option<Value> = serde_json::from_str(&one.body).ok();
        body.as_ref() == all.get(&one.id) && one.signature.starts_with("v1,")
    };
    let wrong = received.iter().filter(|one| !same(one)).count();
    let has = |id: &String| received.iter().any(|one| one.id == *id);
    let lost = all.keys().filter(|id| !has(id)).count();
    verdict.hold(
        wrong == 0 && lost == 0 && missing.len() >= HIRED.len(),
        format!(
            "A receiver that was down gets everything afterwards: all {} events, each as \
             GET /v1/events has it.",
            all.len()
        ),
        format!("{lost} are lost, {wrong} differ, {} were missing", missing.len()),
    );
    super::judged(screen, &verdict.promises[before..]);
    Ok(())
}

fn owned((id, body): (&String, &Value)) -> (String, Value) {
    (id.clone(), body.clone())
}

/// What is told by now, by its ids.
async fn told(stage: &Stage) -> anyhow::Result<BTreeMap<String, Value>> {
    stage.operator.settled(false, PATIENCE).await?;
    let (mut all, mut after) = (BTreeMap::new(), 0);
    loop {
        let page = stage.operator.get(&format!("/v1/events?after={after}&limit=1000")).await?;
        for one in page["data"].as_array().context("a page has `data`")? {
            let id = one["id"].as_str().context("an event's id")?;
            all.insert(id.to_owned(), one["body"].clone());
        }
        after = page["next_after"].as_u64().context("where to go on")?;
        if page["has_more"] == false {
            return Ok(all);
        }
    }
}

/// Waits until a receiver has all of it.
async fn delivered(receiver: &Receiver, wanted: &BTreeMap<String, Value>) -> anyhow::Result<()> {
    eventually("payroll's receiver to have everything", PATIENCE, async || {
        if receiver.count() < wanted.len() {
            return Ok(None);
        }
        let received = receiver.received();
        let ids: std::collections::BTreeSet<&String> = received.iter().map(|one| &one.id).collect();
        Ok(wanted.keys().all(|id| ids.contains(id)).then_some(()))
    })
    .await
}
