//! `punchtrail restore`: a backup put back where nothing is, the step back said in the ledger, and
//! served until the devices have brought what it lacks.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{IsTerminal, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use punchtrail_infra::{
    audit::checkpoint::{Checkpoints, Folder},
    backup::{BackupFolder, Found, Target, put_back, put_photos_back, said as said_all},
    devices::{self, ReturningDevice},
    ledger::{Clock, Ledger},
    postgres::{Postgres, ServeLock},
    supervision::Supervisor,
};
use punchtrail_protocol::{DeviceId, Position, Time, shown::Shown};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answer, print, print_json},
    checkpoint::reason,
    progress::Progress,
    serve::Serve,
    source::{Need, Opened, Source, leave},
};

/// How often it is looked at what came back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many devices are named that were not heard of.
const NAMED_MAX: usize = 5;

/// Put a backup back where nothing is, and serve it until the devices brought what it lacks
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The folder of backups
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// This backup; the newest unless given
    #[arg(long, value_name = "NAME")]
    backup: Option<String>,

    /// Why, for whoever verifies the ledger later
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,

    /// Don't serve it yet
    #[arg(long)]
    no_serve: bool,

    #[command(flatten)]
    serve: Serve,
}

/// What was put back.
struct Back {
    answer: Value,
    text: String,
    /// By the database's clock: who reported since is heard of.
    since: Time,
}

impl Restore {
    pub(super) async fn run(self, source: Source, json: bool) -> anyhow::Result<Answer> {
        let data_dir = source.dir()?;
        let found = BackupFolder::at(&self.dir).find(self.backup.as_deref())?;
        let lock = ServeLock::acquire(data_dir)?;
        let bar = Progress::of_steps();
        let back = self.put_back(&source, &found, &bar).await;
        bar.clear();
        drop(lock);
        let Back { answer, text, since } = back?;
        if self.no_serve {
            return Ok(Answer::new(&answer, text));
        }
        let printed = if json { print_json(&answer.to_string()) } else { print(&text) };
        printed.context("nobody can be told what was restored")?;
        let stop = CancellationToken::new();
        let served = async {
            let served = self.serve.run(source.clone(), json).await;
            stop.cancel();
            served
        };
        let (served, watched) = tokio::join!(served, watch(&source, since, stop.clone()));
        if let Err(error) = watched {
            tracing::warn!("what comes back can't be shown: {error:#}");
        }
        served
    }

    async fn put_back(
        &self,
        source: &Source,
        found: &Found,
        bar: &Progress,
    ) -> anyhow::Result<Back> {
        let data_dir = source.dir()?;
        let tell = |doing, done, all| bar.step(doing, done, all);
        let target = Target { data_dir, url: source.url() };
        let restored = tokio::select! {
            restored = put_back(found, target, &tell) => restored?,
            _ = tokio::signal::ctrl_c() => anyhow::bail!(
                "interrupted. The backup is as it was; run the same command again to go on"
            ),
        };
        tell("saying it in the ledger", 0, 0);
        let wait = Duration::from_secs(source.database_wait);
        let postgres = Postgres::open_within(source.url(), data_dir, wait).await?;
        let end = found.is_in(&postgres).await;
        leave(postgres).await;
        let end = end?;
        let reason = self.reason.clone().unwrap_or_else(|| {
            format!("restored the backup {} of {}", found.name, self.dir.display())
        });
        let said = source.with(Need::Existing, async |opened| {
            let since = opened.ledger.now();
            let epoch = step_back(opened, found, end).await?;
            let parted = part(opened, found, &reason).await?;
            let store = opened.photos().await?;
            let photos = put_photos_back(found, store.as_ref(), &tell).await?;
            Ok((since, epoch, parted, photos))
        });
        let (since, epoch, parted, (photos, lacking)) = said.await.context(
            "the database is back, but not everything is done: run the same command again to go on",
        )?;
        said_all(data_dir)?;
        let answer = json!({
            "backup": found.name,
            "made_at": found.manifest.made_at,
            "position": end,
            "epoch": epoch,
            "kept_checkpoints": restored.kept_checkpoints,
            "checkpoints": parted.as_ref().map(|parted| json!({
                "epoch": parted.epoch,
                "after": parted.after,
                "ahead_through": (parted.covered > parted.after).then_some(parted.covered),
            })),
            "photos": photos,
            "photos_lacking": lacking,
        });
        let text = self.told(found, end, parted.as_ref(), (photos, lacking));
        Ok(Back { answer, text, since })
    }

    fn told(
        &self,
        found: &Found,
        end: Position,
        parted: Option<&Parted>,
        (photos, lacking): (u64, u64),
    ) -> String {
        let mut text = format!(
            "The backup {} of {} is back, with the ledger up to position {end}. The ledger says \
             that it went back: devices send again what came after.\n",
            found.name, found.manifest.made_at,
        );
        if let Some(Parted { epoch, after, covered }) = parted {
            text.push_str(&format!("Checkpoints are signed in epoch {epoch} from now on.\n"));
            if covered > after {
                text.push_str(&format!(
                    "Those that are ahead, signed after position {after} and up to {covered}, are \
                     kept in checkpoints/{:04}: they are of events that are gone.\n",
                    epoch - 1
                ));
            }
        }
        text.push_str(&format!("{photos} photo(s) were put back.\n"));
        if lacking > 0 {
            text.push_str(&format!(
                "{lacking} photo(s) aren't there, and the backup only lists them.\n"
            ));
        }
        text.push_str(
            "Rulings and changes of the roster since the backup are gone: do them again. Whoever \
             was erased since is in it again: erase them again.\n",
        );
        text
    }
}

/// The ledger's new epoch. What this directory remembers of it, if it is the old one, tells from
/// where.
async fn step_back(opened: &Opened, found: &Found, end: Position) -> anyhow::Result<Value> {
    let (dir, org) = (opened.source.dir()?, found.manifest.org);
    let signed = Folder::existing(dir, org)?.map(|folder| folder.latest()).transpose()?.flatten();
    let seen = signed.map_or(end, |kept| Position(kept.checkpoint.size));
    let memory = dir.join(format!("anchors-{org}"));
    let (supervisor, clock) = (Supervisor::default(), Clock::default());
    let ledger = Ledger::open_for(&opened.pools, supervisor, Some(memory), clock).await?;
    let put_back = ledger.put_back(end, seen).await;
    let epoch = ledger.history().current();
    ledger.close().await;
    put_back?;
    Ok(json!(epoch))
}

/// Where what is signed from now on parts from what was signed.
struct Parted {
    epoch: u32,
    after: u64,
    /// Up to where was signed before.
    covered: u64,
}

async fn part(opened: &Opened, found: &Found, reason: &str) -> anyhow::Result<Option<Parted>> {
    let folder = Folder::existing(opened.source.dir()?, found.manifest.org)?;
    let Some(folder) = folder.map(Arc::new) else { return Ok(None) };
    if folder.latest()?.is_none() {
        return Ok(None);
    }
    let checkpoints = Checkpoints::new(opened.pools.writer.clone(), folder);
    let (epoch, covered) = checkpoints.open_epoch_of_copy(reason).await?;
    let after = epoch.fork.as_ref().map_or(0, |fork| fork.after);
    Ok(Some(Parted { epoch: epoch.number, after, covered }))
}

/// What is known of who brings what back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Returning {
    /// How many devices have access, and how many of them were heard of since.
    devices: usize,
    heard: usize,
    /// Punches that came since, and that are still to come, as far as devices said.
    came: u64,
    missing: u64,
    /// Devices that weren't heard of, the first of them, and when they were last.
    silent: Vec<String>,
}

impl Returning {
    fn of(devices: &[ReturningDevice], before: &Before, since: Time) -> Self {
        let mut all = Self { devices: 0, heard: 0, came: 0, missing: 0, silent: Vec::new() };
        for device in devices {
            let (held, holes) = before.0.get(&device.device).copied().unwrap_or_default();
            all.devices += 1;
            all.came += device.held.saturating_sub(held);
            match device.reported_at {
                Some(at) if at >= since => {
                    all.heard += 1;
                    // What never came before the backup doesn't come now.
                    all.missing += device.lacking.saturating_sub(holes);
                }
                at => {
                    let name = device.name.clone().unwrap_or_else(|| device.device.to_string());
                    let at = at.map_or("never".to_owned(), |at| at.to_string());
                    all.silent.push(format!("{} (last {at})", Shown::new(&name)));
                }
            }
        }
        all
    }

    fn is_complete(&self) -> bool {
        self.heard == self.devices && self.missing == 0
    }

    fn line(&self) -> String {
        let Self { devices, heard, came, missing, silent } = self;
        if self.is_complete() {
            return format!(
                "nothing is missing: {heard} of {devices} device(s) reported, {came} punch(es) \
                 came since the restore"
            );
        }
        let mut line = format!(
            "{heard} of {devices} device(s) reported, {came} punch(es) came, {missing} are missing"
        );
        if !silent.is_empty() {
            let named: Vec<&str> = silent.iter().take(NAMED_MAX).map(String::as_str).collect();
            line.push_str(&format!("; not heard of: {}", named.join(", ")));
            if silent.len() > NAMED_MAX {
                line.push_str(&format!(" and {} more", silent.len() - NAMED_MAX));
            }
        }
        line
    }
}

/// Of each device when the copy was back: how many of its numbers were held, and how many below
/// the highest of them weren't.
struct Before(HashMap<DeviceId, (u64, u64)>);

impl Before {
    fn of(devices: &[ReturningDevice]) -> Self {
        let of = |it: &ReturningDevice| (it.device, (it.held, it.highest.saturating_sub(it.held)));
        Self(devices.iter().map(of).collect())
    }
}

/// Shows what devices bring back, until nothing is missing or the server stops.
async fn watch(source: &Source, since: Time, stop: CancellationToken) -> anyhow::Result<()> {
    source
        .with(Need::Existing, async |opened| {
            let writer = &opened.pools.writer;
            let before = Before::of(&devices::returning(writer).await?);
            let shown = Screen::new();
            let looking = async {
                loop {
                    // What can't be read now can in a moment.
                    if let Ok(devices) = devices::returning(writer).await {
                        let returning = Returning::of(&devices, &before, since);
                        shown.show(&returning);
                        if returning.is_complete() {
                            return;
                        }
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            let _ = stop.run_until_cancelled(looking).await;
            shown.end();
            Ok(())
        })
        .await
}

/// A bar on a terminal; elsewhere a line when something changed.
struct Screen {
    bar: Option<Progress>,
    last: RefCell<String>,
}

impl Screen {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(Progress::in_words);
        Self { bar, last: RefCell::default() }
    }

    fn show(&self, returning: &Returning) {
        let line = returning.line();
        let Some(bar) = &self.bar else { return self.say(line) };
        // Of nothing, nothing is done: nobody was heard of yet.
        let Returning { devices, heard, came, missing, .. } = returning;
        let words = format!("{heard} of {devices} devices, {came} came, {missing} missing");
        bar.says(words, *came, (came + missing).max(1));
        if returning.is_complete() {
            bar.clear();
            self.say(line);
        }
    }

    fn say(&self, line: String) {
        if *self.last.borrow() != line {
            // Nobody listening is no reason to stop serving.
            let _ = writeln!(std::io::stderr(), "restored: {line}");
            *self.last.borrow_mut() = line;
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u128, reported_ms: Option<i64>, held: u64, lacking: u64) -> ReturningDevice {
        ReturningDevice {
            device: DeviceId(uuid::Uuid::from_u128(n)),
            name: Some(format!("Door {n}")),
            reported_at: reported_ms.map(Time::from_millis),
            held,
            highest: held,
            lacking,
        }
    }

    #[test]
    fn it_is_complete_when_all_reported_and_nothing_is_lacking() {
        let since = Time::from_millis(1_000);
        // One hole from before the backup.
        let holed = ReturningDevice { highest: 5, ..device(1, Some(900), 4, 1) };
        let copied = [holed.clone(), device(2, Some(950), 3, 0)];
        let before = Before::of(&copied);
        let at_first = Returning::of(&copied, &before, since);
        assert_eq!((at_first.heard, at_first.came, at_first.missing), (0, 0, 0));
        assert!(!at_first.is_complete(), "nobody was heard of");
        assert!(at_first.line().contains("not heard of: Door 1 (last "), "{}", at_first.line());
        let back = ReturningDevice { highest: 12, ..device(1, Some(1_500), 9, 3) };
        let now = Returning::of(&[back, device(2, Some(950), 3, 0)], &before, since);
        assert_eq!((now.heard, now.came, now.missing), (1, 5, 2));
        let back = ReturningDevice { highest: 12, ..device(1, Some(1_500), 11, 1) };
        let all = [back, device(2, Some(1_600), 3, 0)];
        let now = Returning::of(&all, &before, since);
        assert!(now.is_complete(), "{now:?}");
        assert!(now.line().contains("7 punch(es) came"), "{}", now.line());
    }
}
