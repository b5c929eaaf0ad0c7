//! The demo: a punch's whole journey, with real processes, in under three minutes.
//!
//! A server on its own Postgres, two sites, two dozen people, four devices behind lines that can be
//! cut. The network goes, people work on, a device and the server are killed in the middle of
//! delivering, and everything is read back over HTTP and held against what the devices' own files
//! hold. What comes out is a [`check::Verdict`]; the demo fails when a promise was broken, and says
//! which.
//!
//! It must never excuse anything: what it can't bring about (a kill in the middle, say) is a
//! failure, not a step left out.

pub mod acts;
pub mod cast;
pub mod check;
pub mod faces;
pub mod payroll;
pub mod people;
pub mod ruling;
pub mod screen;
pub mod stage;
pub mod tell;

use std::time::{Duration, Instant};

use anyhow::bail;
use punchtrail_testkit::PATIENCE;
use tokio::signal::unix::{SignalKind, signal};

use acts::Memory;
use cast::Script;
use check::Verdict;
use screen::Screen;
use stage::Stage;

/// How the demo is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// End after the last word, instead of going on serving.
    pub exit: bool,
    /// Decides who punches when.
    pub seed: u64,
    /// How many days of shifts are made without a network.
    pub days: u32,
}

/// How often a server that goes on is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
const WHAT: &str = "Punchtrail records when people start and stop work, on devices whose network \
    comes \
    and goes, and can always say of any punch what became of it, and why. What follows runs the \
    server, \
    its database and the devices as you would; cuts them off, kills them, and then asks.";

/// Runs it.
///
/// # Errors
/// When a promise was broken, or the demo could not be carried through.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    // However it ends, everything that was started is stopped with the stage.
    let (mut screen, mut stage) = tokio::select! {
        played = play(options) => played?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; everything it had started is stopped"),
        _ = terminate.recv() => bail!("terminated; everything it had started is stopped"),
    };
    if !options.exit {
        tokio::select! {
            ended = go_on(&mut screen, &mut stage) => return ended,
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        screen.done("stopping the devices, the server and its PostgreSQL, and removing their data");
    }
    stage.server.terminate().await.map(drop)
}

async fn play(options: Options) -> anyhow::Result<(Screen, Stage)> {
    let began = Instant::now();
    let mut screen = Screen::new();
    screen.title("Punchtrail: a punch's whole journey", WHAT);
    let script = Script::write(options.seed, options.days, &jiff::Timestamp::now())?;
    screen.chapter("A server, two sites, four doors", "");
    let mut stage = Stage::set(&screen, &script, options.seed).await?;
    let memory = perform(&mut screen, &mut stage, &script).await?;
    let checked = faces::play(&mut screen, &stage).await?;
    let mut verdict = Verdict::default();
    faces::read_back(&screen, &stage, &checked, &mut verdict).await?;
    stage.operator.settled(true, PATIENCE).await?;
    read_back(&mut screen, &stage, &memory, &mut verdict).await?;
    screen.chapter("Captured? Synced? Accepted? By whom, and why?", "");
    tell::explanations(&screen, &stage, &memory).await?;
    screen.chapter("What it comes to", "");
    tell::timecard(&screen, &stage, &script).await?;
    ruling::play(&mut screen, &stage, &script, &mut verdict).await?;
    people::play(&mut screen, &stage, &script, &memory, &mut verdict).await?;
    payroll::play(&mut screen, &stage, &mut verdict).await?;
    conclude(&screen, &verdict, began)?;
    Ok((screen, stage))
}

async fn read_back(
    screen: &mut Screen,
    stage: &Stage,
    memory: &Memory,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    screen.chapter(
        "What the devices hold, and what the ledger has",
        "Read back over HTTP, and compared with the devices' own SQLite files by SHA-256 of the \
         bytes that each device signed.",
    );
    let table = check::compare(stage, verdict).await?;
    let rows: Vec<Vec<String>> = table.iter().map(compared).collect();
    screen.table(&["device", "on its disk", "in the ledger", "sent again", "unknown to it"], &rows);
    let busy = screen.busy("reading every explanation twice, and verifying the ledger");
    check::explained(stage, verdict).await?;
    check::incidents(stage, memory, verdict).await?;
    check::verified(stage, verdict).await?;
    drop(busy);
    judged(screen, &verdict.promises);
    Ok(())
}

/// Says of promises whether they held.
fn judged(screen: &Screen, promises: &[check::Promise]) {
    for promise in promises {
        match &promise.broken {
            None => screen.done(&promise.what),
            Some(found) => screen.failed(&format!("BROKEN: {} Found: {found}", promise.what)),
        }
    }
}

async fn perform(
    screen: &mut Screen,
    stage: &mut Stage,
    script: &Script,
) -> anyhow::Result<Memory> {
    let mut memory = Memory::default();
    screen.chapter(
        "The network goes, and people work on",
        "A punch needs no server: it is signed, chained to the one before and synced to the \
         device's disk.",
    );
    acts::work_offline(screen, stage, script, &mut memory).await?;
    screen.chapter("A thin line comes back, and a device is killed", "");
    acts::kill_a_device(screen, stage, &mut memory).await?;
    acts::ask_for_a_missing_day(stage, script, &mut memory).await?;
    screen.done(
        "just now a manager asks where the last day's punches are (the answer is further down)",
    );
    screen.chapter("Everything comes back, and the server is killed", "");
    acts::kill_the_server(screen, stage, &mut memory).await?;
    acts::drain(screen, stage).await?;
    screen.chapter("A broken device sends garbage", "");
    acts::send_garbage(screen, stage, script, &mut memory).await?;
    stage.operator.settled(true, PATIENCE).await?;
    Ok(memory)
}

fn compared(row: &check::Comparison) -> Vec<String> {
    vec![
        row.device.clone(),
        row.on_device.to_string(),
        row.in_ledger.to_string(),
        row.sent_again.to_string(),
        row.unknown_to_device.to_string(),
    ]
}

fn conclude(screen: &Screen, verdict: &Verdict, began: Instant) -> anyhow::Result<()> {
    let broken = verdict.broken();
    if !broken.is_empty() {
        for promise in &broken {
            screen.failed(&promise.what);
        }
        bail!("{} of {} promises were broken", broken.len(), verdict.promises.len());
    }
    screen.done(&format!(
        "All {} promises held, in {} s.",
        verdict.promises.len(),
        began.elapsed().as_secs()
    ));
    Ok(())
}

async fn go_on(screen: &mut Screen, stage: &mut Stage) -> anyhow::Result<()> {
    screen.chapter("Look around", "The server and the four devices go on until Ctrl-C.");
    let data = stage.server.installation().data.path().display().to_string();
    let device = stage.doors[0].agent.dir().display().to_string();
    screen.verbatim(&[
        format!("URL={}; KEY={}", stage.operator.base(), stage.operator.key()),
        r#"curl -s -H "Authorization: Bearer $KEY" "$URL/v1/punches?standing=referred""#.to_owned(),
        r#"curl -s -H "Authorization: Bearer $KEY" $URL/v1/punches/<id>/explanation"#.to_owned(),
        r#"curl -s -H "Authorization: Bearer $KEY" $URL/v1/devices"#.to_owned(),
        String::new(),
        format!("cd {}", programs_folder()),
        format!("./punchtrail --data-dir {data} punch explain <id>"),
        format!("./punchtrail --data-dir {data} ledger verify"),
        format!("./punchtrail-device --dir {device} punch --badge 101 --kind out"),
        format!("./punchtrail-device --dir {device} status"),
    ]);
    println!();
    while stage.server.process().runs()? {
        tokio::time::sleep(WATCH_EVERY).await;
    }
    bail!("the server ended by itself: {}", stage.server.process().log_tail())
}

fn programs_folder() -> String {
    let folder = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    folder.unwrap_or_default().display().to_string()
}
