//! What happens in the demo: a week without a network, a broken device, two kills, a thin line
//! back.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use punchtrail_protocol::{
    BootId, EmployeeId,
    capture::PunchKind,
    wire::{BatchAnswer, ItemStatus},
};
use punchtrail_testkit::{PATIENCE, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    cast::{FAST_BY_S, FAST_DOOR, Planned, Script, Tag},
    screen::{Bars, Screen},
    stage::{Door, Stage},
};
use crate::{
    agent::Punch,
    gate::{Chance, Line, LostAnswers},
};

/// The line that comes back is thin, in bytes a second.
const THIN_BYTES_PER_S: u64 = 24_000;
/// How many answers to batches get lost on each line.
const ANSWERS_LOST: u32 = 2;
/// A body beyond what a batch may have, in bytes.
const TOO_MUCH_BYTES: usize = (3 << 20) + 1;

/// What is remembered of what happened, to be asked for later.
#[derive(Debug, Default)]
pub struct Memory {
    /// Punches, by what they are remembered for.
    pub punches: BTreeMap<Tag, String>,
    /// The punch that came again with other bytes.
    pub conflict: Option<String>,
    /// What the server answered to the broken kiosk.
    pub garbage: Vec<BatchAnswer>,
    /// What was said of a missing day while devices still held punches.
    pub absence: Option<Value>,
    /// Punches that waited on the device that was killed, after it was.
    pub waiting_when_device_killed: u64,
    /// Punches that waited anywhere after the server was killed.
    pub waiting_when_server_killed: u64,
}

/// The network goes, and people work on.
///
/// # Errors
/// When a punch isn't recorded.
pub async fn work_offline(
    screen: &Screen,
    stage: &mut Stage,
    script: &Script,
    memory: &mut Memory,
) -> anyhow::Result<()> {
    for door in &stage.doors {
        door.gate.set(Line::Cut);
    }
    // Devices notice by themselves; their captures say that the server was out of reach.
    let devices = stage.doors.iter();
    try_join_all(devices.map(|door| async {
        eventually("the device to notice", PATIENCE, async || {
            Ok((door.agent.status().await?["offline"] == true).then_some(()))
        })
        .await
    }))
    .await?;
    screen.done("the line of every device is cut");
    stage.doors[FAST_DOOR].agent.stop().await?;
    stage.doors[FAST_DOOR].agent.set_clock_ahead_s(FAST_BY_S);
    stage.doors[FAST_DOOR].agent.start().await?;

    let began = Instant::now();
    let labels: Vec<_> = stage.doors.iter().map(|door| (door.agent.name(), door.punches)).collect();
    let bars = screen.bars(&labels);
    let works = stage.doors.iter().zip(&script.doors).enumerate();
    let made =
        try_join_all(works.map(|(index, (door, planned))| work(index, door, planned, &bars)));
    for remembered in made.await? {
        memory.punches.extend(remembered);
    }
    drop(bars);
    let (first, last) = script.days;
    screen.done(&format!(
        "{} punches in {} s, a process each, every one synced to the device's disk before its \
         screen confirmed it: shifts of {} to {}, and this morning's arrivals",
        script.punches(),
        began.elapsed().as_secs(),
        first.strftime("%-d %B"),
        last.strftime("%-d %B")
    ));
    screen.done(
        "among them a double tap, a badge that nobody has, and arrivals by a clock three hours \
         fast",
    );
    Ok(())
}

async fn work(
    index: usize,
    door: &Door,
    planned: &[Planned],
    bars: &Bars,
) -> anyhow::Result<Vec<(Tag, String)>> {
    // An earlier boot: the server can't know how far the clock was off then, and says so.
    let earlier_boot = BootId(Uuid::new_v4());
    let mut remembered = Vec::new();
    for (count, planned) in planned.iter().enumerate() {
        let then = planned.at.as_ref().map(|at| {
            let ahead_s = at.timestamp().as_second() - jiff::Timestamp::now().as_second();
            (ahead_s, earlier_boot)
        });
        let punch = Punch { badge: &planned.badge, kind: planned.kind, pin: planned.pin, then };
        let confirmed = door.agent.punch(&punch).await?;
        if let Some(tag) = planned.tag {
            let punch = confirmed["punch"].as_str().context("a confirmation names its punch")?;
            remembered.push((tag, punch.to_owned()));
        }
        bars.set(index, count as u64 + 1);
    }
    Ok(remembered)
}

/// The line is back, thin and losing answers; a device is killed in the middle, and the line goes
/// again.
///
/// # Errors
/// When the device can't be caught in the middle.
pub async fn kill_a_device(
    screen: &Screen,
    stage: &mut Stage,
    memory: &mut Memory,
) -> anyhow::Result<()> {
    for door in &stage.doors {
        door.gate.slow_to(Some(THIN_BYTES_PER_S));
        let to = "/punches/batch".to_owned();
        let chance = Chance::Next(ANSWERS_LOST);
        door.gate.lose_answers(Some(LostAnswers { to, chance }));
        door.gate.set(Line::Open);
    }
    let bars = drain_bars(screen, stage);
    let punches = stage.doors[0].punches;
    eventually("a device to be in the middle of its backlog", PATIENCE, async || {
        let waiting = show_waiting(stage, &bars).await?;
        ensure!(waiting[0] > 0, "the first device has delivered everything before it was killed");
        Ok((waiting[0] < punches - punches / 8).then_some(()))
    })
    .await?;
    stage.doors[0].agent.kill_9()?;
    for door in &stage.doors {
        door.gate.set(Line::Cut);
    }
    let waiting = stage.waiting().await?;
    drop(bars);
    memory.waiting_when_device_killed = waiting[0];
    screen.done(&format!(
        "the line is back, at {} KB/s, and the answers to {ANSWERS_LOST} batches of each device \
         get lost",
        THIN_BYTES_PER_S / 1_000
    ));
    screen.done(&format!(
        "kill -9 of “{}” in the middle: {} of its {punches} punches still wait on its disk; the \
         line goes down again",
        stage.doors[0].agent.name(),
        waiting[0]
    ));
    Ok(())
}

/// A manager asks for a day of which the punches are still under way.
///
/// # Errors
/// When there is no answer.
pub async fn ask_for_a_missing_day(
    stage: &Stage,
    script: &Script,
    memory: &mut Memory,
) -> anyhow::Result<()> {
    let people = stage.operator.employees().await?;
    let badge = &script.protagonist().badge;
    let employee = people.get(badge).with_context(|| format!("nobody has badge {badge}"))?;
    stage.operator.settled(false, PATIENCE).await?;
    let path = format!("/v1/employees/{employee}/days/{}/explanation", script.days.1);
    memory.absence = Some(stage.operator.get(&path).await?);
    Ok(())
}

/// Everything is started again, and the server is killed in the middle.
///
/// # Errors
/// When the server can't be caught in the middle, or doesn't come back.
pub async fn kill_the_server(
    screen: &Screen,
    stage: &mut Stage,
    memory: &mut Memory,
) -> anyhow::Result<()> {
    stage.doors[0].agent.start().await?;
    for door in &stage.doors {
        door.gate.set(Line::Open);
    }
    screen.done("the device is started again, and all four lines are up");
    let bars = drain_bars(screen, stage);
    let before: u64 = stage.waiting().await?.iter().sum();
    eventually("the devices to be in the middle of it", PATIENCE, async || {
        let waiting: u64 = show_waiting(stage, &bars).await?.iter().sum();
        ensure!(waiting > 0, "everything was delivered before the server was killed");
        Ok((waiting < before - before / 4).then_some(()))
    })
    .await?;
    stage.server.kill_9()?;
    let waiting: u64 = stage.waiting().await?.iter().sum();
    drop(bars);
    memory.waiting_when_server_killed = waiting;
    screen.done(&format!(
        "kill -9 of the server in the middle: {waiting} punches wait on the devices"
    ));
    let busy = screen.busy("starting the server again");
    let began = Instant::now();
    stage.server.restart().await?;
    drop(busy);
    screen.done(&format!(
        "the server is back after {:.1} s, at {}, on the PostgreSQL that went on without it",
        began.elapsed().as_secs_f64(),
        stage.server.url()
    ));
    for door in &stage.doors {
        door.gate.slow_to(None);
    }
    stage.follow_server()
}

/// All is delivered and settled.
///
/// # Errors
/// When it isn't in time.
pub async fn drain(screen: &Screen, stage: &Stage) -> anyhow::Result<u64> {
    let bars = drain_bars(screen, stage);
    eventually("all devices to have delivered everything", PATIENCE * 2, async || {
        let waiting = show_waiting(stage, &bars).await?;
        Ok(waiting.iter().all(|count| *count == 0).then_some(()))
    })
    .await?;
    drop(bars);
    let busy = screen.busy("judging, read models, checkpoint");
    let head = stage.operator.settled(true, PATIENCE).await?;
    drop(busy);
    screen.done(&format!(
        "every device is empty; judging, read models and the signed checkpoint stand at position \
         {head}"
    ));
    Ok(head)
}

fn drain_bars(screen: &Screen, stage: &Stage) -> Bars {
    let labels: Vec<_> = stage.doors.iter().map(|door| (door.agent.name(), door.punches)).collect();
    screen.bars(&labels)
}

async fn show_waiting(stage: &Stage, bars: &Bars) -> anyhow::Result<Vec<u64>> {
    let waiting = stage.waiting().await?;
    for (index, (door, waiting)) in stage.doors.iter().zip(&waiting).enumerate() {
        bars.set(index, door.punches.saturating_sub(*waiting));
    }
    Ok(waiting)
}

/// The broken kiosk sends what no device should; a person looks at it.
///
/// # Errors
/// When the server answers other than the protocol says.
pub async fn send_garbage(
    screen: &Screen,
    stage: &mut Stage,
    script: &Script,
    memory: &mut Memory,
) -> anyhow::Result<()> {
    let people = stage.operator.employees().await?;
    let worker = script.at_the_broken_kiosk();
    let employee: EmployeeId = people.get(&worker.badge).context("a worker's badge")?.parse()?;
    let kiosk = &mut stage.broken;

    let fine = kiosk.capture(employee, PunchKind::In);
    let sent = kiosk.deliver(&[kiosk.item(&fine)]).await?;
    let mut other = fine.clone();
    other.kind = PunchKind::BreakStart;
    let mut unsigned = fine.clone();
    unsigned.kind = PunchKind::BreakEnd;
    let unreadable = kiosk.capture(employee, PunchKind::Out).to_bytes();
    let unreadable = String::from_utf8(unreadable)?.replace(r#""kind":"out""#, r#""kind":"lunch""#);
    let huge = vec![b' '; punchtrail_protocol::capture::CAPTURE_BYTES_MAX + 1];
    let mut scrambled = kiosk.item(&fine);
    scrambled.capture.replace_range(..2, "%%");
    let answer = kiosk
        .deliver(&[
            kiosk.item(&other),
            kiosk.signed(unreadable.as_bytes()),
            kiosk.missigned(&unsigned.to_bytes()),
            kiosk.signed(&huge),
            scrambled,
        ])
        .await?;
    memory.conflict = Some(fine.punch.to_string());
    let statuses: Vec<_> = answer.results.iter().map(|result| result.status).collect();
    let quarantined = ItemStatus::Quarantined;
    ensure!(
        statuses == [ItemStatus::Conflict, quarantined, quarantined, quarantined, quarantined],
        "garbage was answered {answer:?}"
    );
    memory.garbage = vec![sent, answer];
    screen.done(
        "another punch under the same id, a nonsense field, a wrong signature, an oversized \
         capture and scrambled bytes go to quarantine. All are acknowledged, none is lost",
    );

    let path = kiosk.batch_path();
    let (status, _) = kiosk.post(&path, vec![b' '; TOO_MUCH_BYTES]).await?;
    ensure!(status == StatusCode::PAYLOAD_TOO_LARGE, "a body of over 3 MiB is answered {status}");
    let (status, _) = kiosk.post(&path, br#"{"punches":"#.to_vec()).await?;
    ensure!(status == StatusCode::BAD_REQUEST, "half a body is answered {status}");
    screen.done("a body of over 3 MiB is refused (413), half a body too (400); nothing is written");
    admit(screen, stage, employee, memory).await
}

/// A manager reads the nonsense, finds a punch in it and admits it.
async fn admit(
    screen: &Screen,
    stage: &Stage,
    employee: EmployeeId,
    memory: &mut Memory,
) -> anyhow::Result<()> {
    stage.operator.settled(false, PATIENCE).await?;
    let items = stage.operator.rows("/v1/quarantine").await?;
    let item = items.iter().find(|item| item["code"] == "bad_capture").context("the nonsense")?;
    let id = item["item"].as_str().context("an item has an id")?;
    let body = json!({
        "employee": employee,
        "site": stage.sites[0],
        "kind": "out",
        "captured_at": item["received_at"],
        "note": "The kiosk was broken; he left then, I was there.",
    });
    let admitted = stage.operator.post(&format!("/v1/quarantine/{id}/admit"), &body).await?;
    let punch = admitted["punch"].as_str().context("an admitted item is a punch")?;
    memory.punches.insert(Tag::Admitted, punch.to_owned());
    screen.done("a manager reads one of the quarantined items, and admits it as the punch it was");
    Ok(())
}
