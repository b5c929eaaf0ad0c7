//! What waits for people, in the demo: a manager sees what a ruling would do and makes it; a worker
//! disputes a punch while the network is gone, and reads the answer at the same door.

use std::time::Duration;

use anyhow::Context;
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::{Value, json};

use super::{cast::Script, check::Verdict, screen::Screen, stage::Stage};
use crate::gate::Line;

/// Between two looks at what is to arrive.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// What the worker says.
const SAID: &str = "I came ten minutes before that. The queue at the door was long.";
/// What the manager answers.
const ANSWERED: &str = "You are right, the camera at the gate shows it.";
/// By how much the worker came earlier, in milliseconds.
const EARLIER_MS: i64 = 600_000;

/// Plays it.
///
/// # Errors
/// When something goes otherwise than it must.
pub async fn play(
    screen: &mut Screen,
    stage: &Stage,
    script: &Script,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    screen.chapter(
        "A doubt is ruled on, and a dispute is settled",
        "Until a person rules, a doubtful punch counts provisionally. Whoever was there may \
         object, also without a network.",
    );
    let before = verdict.promises.len();
    rule(screen, stage, verdict).await?;
    dispute(screen, stage, script, verdict).await?;
    super::judged(screen, &verdict.promises[before..]);
    Ok(())
}

async fn rule(screen: &Screen, stage: &Stage, verdict: &mut Verdict) -> anyhow::Result<()> {
    let operator = &stage.operator;
    let counts = operator.get("/v1/reviews/counts").await?;
    let by_reason = counts["by_reason"].as_array().into_iter().flatten();
    let said: Vec<String> =
        by_reason.map(|one| format!("{} for {}", one["open"], word(&one["reason"]))).collect();
    screen.done(&format!("{} punches wait for a manager: {}", counts["open"], said.join(", ")));
    let page = operator.get("/v1/reviews?reason=near_duplicate&limit=1").await?;
    let punch = word(&page["data"][0]["punch"]).to_owned();
    let review = operator.get(&format!("/v1/reviews/{punch}")).await?;
    for (ruling, title) in [("accept", "accepting"), ("reject", "rejecting")] {
        let day = &review["previews"][ruling][0];
        let hours = |of: &Value| {
            format!("{} min accepted, {} provisional", of["accepted_min"], of["provisional_min"])
        };
        screen.done(&format!(
            "{title} it would make of that day {} (it is {})",
            hours(&day["then"]),
            hours(&day["now"])
        ));
    }
    let void = json!({
        "decision": "void", "reason": "duplicate", "note": "One press, read twice.",
        "expected_sequence": review["sequence"],
    });
    let path = format!("/v1/punches/{punch}/decision");
    operator.post(&path, &void).await?;
    let (again, refused) = operator.ask(reqwest::Method::POST, &path, Some(&void)).await?;
    operator.settled(true, PATIENCE).await?;
    let explanation = operator.get(&format!("/v1/punches/{punch}/explanation")).await?;
    screen.quote("Ruled on", &super::tell::texts(&explanation["sentences"]));
    verdict.hold(
        again == 409 && refused["code"] == "already_ruled",
        "Of two managers who rule at once, the second is told who was first.",
        format!("{again} {refused}"),
    );
    Ok(())
}

async fn dispute(
    screen: &Screen,
    stage: &Stage,
    script: &Script,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let operator = &stage.operator;
    let worker = script.workers.iter().find(|one| one.pin.is_some() && one.door == 0);
    let worker = worker.context("somebody with a PIN at the first door")?;
    let pin = worker.pin.context("a PIN")?;
    let people = operator.employees().await?;
    let employee = people.get(&worker.badge).context("the worker's id")?;
    let list = format!("/v1/punches?employee={employee}&standing=accepted&order=oldest&limit=1");
    let page = operator.get(&list).await?;
    let (punch, at) = (word(&page["data"][0]["punch"]), word(&page["data"][0]["effective_at"]));
    let door = &stage.doors[0];
    door.gate.set(Line::Cut);
    let who = ["--json", "--employee", employee, "--pin", pin];
    let about = ["--punch", punch, "--cause", "wrong_time", "--text", SAID];
    let opened = door.agent.ask(&[&["dispute"][..], &who, &about].concat()).await?;
    let dispute = word(&opened["dispute"]).to_owned();
    screen.done(&format!(
        "{} disputes a punch at “{}”, by PIN, with the network gone: it is on the device's disk",
        worker.name,
        door.agent.name()
    ));
    door.gate.set(Line::Open);
    let path = format!("/v1/disputes/{dispute}");
    eventually("the dispute to arrive", PATIENCE, async || {
        let (status, _) = operator.ask(reqwest::Method::GET, &path, None).await?;
        if status.is_success() {
            return Ok(Some(()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(None)
    })
    .await?;
    screen.done("the network is back, and so is the dispute; a manager corrects the punch");
    let earlier: punchtrail_protocol::Time = at.parse()?;
    let amend = json!({
        "how": "amend", "effective_at": earlier.plus_millis(-EARLIER_MS), "note": ANSWERED,
    });
    operator.post(&format!("{path}/resolution"), &amend).await?;
    operator.settled(true, PATIENCE).await?;
    let record = door.agent.ask(&[&["record"][..], &who, &["--days", "31"]].concat()).await?;
    let told = record.to_string();
    verdict.hold(
        told.contains(ANSWERED) && told.contains(&dispute),
        "A dispute opened offline reaches a manager, and its answer the worker at the door.",
        told.clone(),
    );
    screen.done(&format!("at the same door {} reads: “{ANSWERED}”", worker.name));
    let explanation = operator.get(&format!("/v1/punches/{punch}/explanation")).await?;
    screen.quote("The punch now", &super::tell::texts(&explanation["sentences"]));
    Ok(())
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
