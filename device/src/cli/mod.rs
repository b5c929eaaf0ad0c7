//! The command line.

mod glance;
mod own;
mod photo;
mod text;

use std::{
    io::{self, BufRead},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use punchtrail_protocol::{
    BootId, PunchId, Time,
    capture::PunchKind,
    dispute::{About, Day, DisputeCause},
    shown::{self, Shown},
    wire::{RECORD_DAYS_MAX, VERDICT_WAIT_S_MAX},
};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use punchtrail_device::{
    Confirmation, Device, Dispute, DisputeError, Drain, Options, Pin, Press, PunchError,
    RecordError, Reference, ReferenceError, RetakeError, SalvageError, VerdictError, Which,
    backoff::BACKOFF_CAP_MS,
    client::CALL_MS,
    clock::MachineClock,
    device::NAME_CHARS_MAX,
    folder::Folder,
    program::{say, stop_on_signal, whole},
    salvage,
    store::StoreError,
};

use self::glance::LocalGlance;
use self::own::{disputed, own};
use self::text::{confirmed, described, judged, retaken, synced};

/// The exit status of an agent that the server asked to end, so that it is started again.
const RESTART: u8 = 3;

/// Records punches at the door and delivers them to a Punchtrail server.
#[derive(Debug, Parser)]
#[command(name = "punchtrail-device", version)]
pub struct Arguments {
    /// The device's folder: identity, key and everything not yet safely delivered.
    #[arg(long, global = true, env = "PUNCHTRAIL_DEVICE_DIR", default_value = "punchtrail-device")]
    dir: PathBuf,
    /// The folder with the models that look at a picture here, `detector.onnx` and `embedder.onnx`;
    /// without it only the server looks.
    #[arg(long, global = true, env = "PUNCHTRAIL_FACE_MODELS", value_name = "DIR")]
    face_models: Option<PathBuf>,
    #[command(flatten)]
    rehearsal: Rehearsal,
    #[command(subcommand)]
    command: Command,
}

/// For tests and demonstrations.
#[derive(Debug, Args)]
struct Rehearsal {
    /// Seconds by which this device's wall clock is ahead.
    #[arg(
        long,
        global = true,
        hide = true,
        allow_hyphen_values = true,
        default_value_t = 0,
        env = "PUNCHTRAIL_DEVICE_CLOCK_OFFSET_S"
    )]
    clock_offset_s: i64,
    /// Another boot than the machine's.
    #[arg(long, global = true, hide = true, env = "PUNCHTRAIL_DEVICE_BOOT")]
    boot: Option<BootId>,
    /// Bound on the database, in pages of 4 KiB.
    #[arg(long, global = true, hide = true, env = "PUNCHTRAIL_DEVICE_PAGES_MAX")]
    pages_max: Option<u32>,
    /// Bound on the waits between tries, in milliseconds.
    #[arg(long, global = true, hide = true, default_value_t = BACKOFF_CAP_MS,
          env = "PUNCHTRAIL_DEVICE_RETRY_CAP_MS")]
    retry_cap_ms: u64,
    /// Bound on the spread after a reconnect, in seconds.
    #[arg(long, global = true, hide = true, env = "PUNCHTRAIL_DEVICE_SPREAD_CAP_S")]
    spread_cap_s: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Become a device of a site, by a pairing code.
    Enroll {
        /// The server's address, like https://punchtrail.example.
        #[arg(long)]
        server: String,
        /// The pairing code, like BCDF-GHJK.
        #[arg(long)]
        code: String,
        /// The device's name, for people; the machine's if none is given.
        #[arg(long)]
        name: Option<String>,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Record a punch. It is on disk when this says so.
    Punch {
        /// The badge as read.
        #[arg(long)]
        badge: String,
        /// in, out, break_start or break_end.
        #[arg(long)]
        kind: PunchKind,
        /// The PIN that confirms the badge's holder; `-` reads it from stdin, where other users of
        /// this machine can't see it.
        #[arg(long)]
        pin: Option<Pin>,
        /// The first frame, a JPEG or PNG file.
        #[arg(long)]
        photo: Option<PathBuf>,
        /// Once it is recorded, wait up to so many seconds for what the server makes of the photo.
        /// Whatever comes of that, the punch stands, and this succeeds.
        #[arg(long, value_name = "S", value_parser = wait_range())]
        wait_verdict: Option<u32>,
        /// One JSON object on stdout; with --wait-verdict another after it.
        #[arg(long)]
        json: bool,
    },
    /// Add another picture to a punch made here. The punch stands whatever becomes of it.
    Retake {
        /// The punch's id, or `last`.
        #[arg(long)]
        punch: Which,
        /// A JPEG or PNG file.
        #[arg(long)]
        photo: PathBuf,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Ask what the server made of a punch's pictures.
    Verdict {
        /// The punch's id, or `last`.
        #[arg(long)]
        punch: Which,
        /// Wait up to so many seconds for a verdict on the newest picture.
        #[arg(long, value_name = "S", default_value_t = 0, value_parser = wait_range())]
        wait_s: u32,
        /// The language of the advice, like de; the site's first if none is given.
        #[arg(long)]
        language: Option<String>,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Send pictures that a worker's face is compared with from now on, while somebody with the
    /// right stands by.
    Reference {
        /// The worker: a name, a badge or an id.
        #[arg(long)]
        employee: String,
        /// The code that who stands by made for this worker, like BCDF-GHJK.
        #[arg(long)]
        code: String,
        /// A JPEG or PNG file; up to eight.
        #[arg(long, required = true)]
        photo: Vec<PathBuf>,
        /// The version of the notice that the worker was shown and agreed to.
        #[arg(long)]
        notice: String,
        /// The language it was shown in, like de.
        #[arg(long)]
        language: String,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Show a worker their own record: punches, hours, disputes and what became of them. Without
    /// the server it shows what this device itself holds, and says so.
    Record {
        /// The worker: a name, a badge or an id.
        #[arg(long)]
        employee: String,
        /// The worker's PIN; `-` reads it from stdin, where other users of this machine can't see
        /// it.
        #[arg(long)]
        pin: Pin,
        /// The last so many business days, today among them.
        #[arg(long, value_name = "N", default_value_t = 7, value_parser = days_range())]
        days: u32,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Dispute a punch, or say that one is missing on a day. It is on disk when this says so, and
    /// is sent when the server is in reach.
    Dispute {
        /// The worker: a name, a badge or an id.
        #[arg(long)]
        employee: String,
        /// The worker's PIN; `-` reads it from stdin, where other users of this machine can't see
        /// it.
        #[arg(long)]
        pin: Pin,
        /// The punch that it is about.
        #[arg(long, required_unless_present = "day", conflicts_with = "day")]
        punch: Option<PunchId>,
        /// The day that it is about, like 2026-11-21.
        #[arg(long)]
        day: Option<Day>,
        /// missing_punch, wrong_time, wrong_kind, wrong_person, not_mine, rejected or other.
        #[arg(long)]
        cause: DisputeCause,
        /// In the worker's own words.
        #[arg(long, default_value = "")]
        text: String,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Erase the photos of a person's punches from this device.
    ForgetPhotos {
        /// The person: a name, a badge or an id.
        #[arg(long)]
        employee: String,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Deliver everything now. Fails if something still waits.
    Sync {
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Say what is here and what waits.
    Status {
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Save what can be read of a damaged database. The damaged files are kept as they are.
    Salvage {
        /// Only say what could be saved; nothing is changed.
        #[arg(long)]
        look: bool,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Deliver until stopped: heartbeats, manifest, punches, disputes, retakes, photos.
    Run,
}

impl Arguments {
    /// What is logged unless RUST_LOG says otherwise.
    pub fn default_filter(&self) -> &'static str {
        match self.command {
            Command::Run => "warn,punchtrail_device=info",
            _ => "error,punchtrail_device=warn",
        }
    }

    fn json(&self) -> bool {
        match self.command {
            Command::Enroll { json, .. }
            | Command::Punch { json, .. }
            | Command::Retake { json, .. }
            | Command::Verdict { json, .. }
            | Command::Reference { json, .. }
            | Command::Record { json, .. }
            | Command::Dispute { json, .. }
            | Command::ForgetPhotos { json, .. }
            | Command::Sync { json }
            | Command::Status { json }
            | Command::Salvage { json, .. } => json,
            Command::Run => false,
        }
    }
}

/// Says what is wrong with the arguments, without repeating what a terminal would act on; or gives
/// the help that was asked for.
pub fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    for line in error.render().to_string().lines() {
        eprintln!("{}", Shown::new(line));
    }
    ExitCode::from(2)
}

/// Runs the command; what went wrong is said on stderr, and with `--json` on stdout too.
pub async fn run(arguments: Arguments) -> ExitCode {
    let json = arguments.json();
    let looks_after = match arguments.command {
        Command::Status { .. } | Command::Sync { .. } | Command::Run => Some(arguments.dir.clone()),
        _ => None,
    };
    match carry_out(arguments).await {
        Ok(code) => code,
        Err(error) => {
            let mut detail = whole(error.as_ref());
            if let Some(dir) = looks_after.filter(|_| code_of(&error) == "damaged")
                && let Ok(found) = salvage::look(&Folder::at(dir), now()).await
            {
                detail = format!("{detail}. {}", found.told());
            }
            if json {
                let error = json!({"error": {"code": code_of(&error), "detail": detail}});
                say(&shown::json(&error.to_string()));
            }
            eprintln!("punchtrail-device: {}", Shown::new(&detail));
            ExitCode::FAILURE
        }
    }
}

/// A stable word for what went wrong.
fn code_of(error: &anyhow::Error) -> &str {
    let words = [
        error.downcast_ref().map(PunchError::code),
        error.downcast_ref().map(RetakeError::code),
        error.downcast_ref().map(VerdictError::code),
        error.downcast_ref().map(ReferenceError::code),
        error.downcast_ref().map(RecordError::code),
        error.downcast_ref().map(DisputeError::code),
        error.downcast_ref().map(SalvageError::code),
        error.downcast_ref().and_then(StoreError::code),
    ];
    words.into_iter().flatten().next().unwrap_or("failed")
}

fn wait_range() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=i64::from(VERDICT_WAIT_S_MAX))
}

fn days_range() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(RECORD_DAYS_MAX))
}

async fn carry_out(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Rehearsal { clock_offset_s, boot, pages_max, retry_cap_ms, spread_cap_s } =
        arguments.rehearsal;
    let options = Options {
        clock: Arc::new(MachineClock { offset_s: clock_offset_s, boot }),
        seed: None,
        pages_max,
        retry_cap_ms,
        call_ms: CALL_MS,
        spread_cap_s,
        synced: true,
        glance: arguments.face_models.map(|folder| Arc::new(LocalGlance(folder)) as _),
    };
    let dir = arguments.dir;
    match arguments.command {
        Command::Enroll { server, code, name, json } => {
            let device = Device::create(dir, options).await?;
            let name = name.unwrap_or_else(machine_name);
            enroll(&device, &server, &code, &name, json).await
        }
        Command::Punch { badge, kind, pin, photo, wait_verdict, json } => {
            let photo = photo.as_deref().map(photo::read).transpose().map_err(PunchError::from)?;
            let pin = pin.map(given_pin).transpose()?;
            let device = Device::open(dir, options).await.map_err(PunchError::from)?;
            let confirmation = device.punch(Press { badge, kind, pin, photo }).await?;
            let language = device.language().await.unwrap_or_default();
            show(json, &confirmation, &confirmed(&confirmation, language))?;
            if let Some(wait_s) = wait_verdict {
                tell_verdict(&device, &confirmation, wait_s, json).await?;
            }
            device.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Retake { punch, photo, json } => {
            let photo = photo::read(&photo).map_err(RetakeError::from)?;
            let device = Device::open(dir, options).await.map_err(RetakeError::from)?;
            let kept = device.retake(punch, photo).await?;
            let language = device.language().await.unwrap_or_default();
            show(json, &kept, &retaken(&kept, language))?;
            device.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verdict { punch, wait_s, language, json } => {
            let device = Device::open(dir, options).await.map_err(VerdictError::from)?;
            let verdict = device.verdict(punch, wait_s, language.as_deref()).await?;
            show(json, &verdict, &judged(&verdict))?;
            device.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Reference { employee, code, photo, notice, language, json } => {
            let photos = photo.iter().map(|path| photo::read(path));
            let photos = photos.collect::<Result<_, _>>().map_err(ReferenceError::from)?;
            let device = Device::open(dir, options).await.map_err(ReferenceError::from)?;
            let employee = device.called(&employee).await?;
            let reference = Reference { employee, code, photos, notice, language };
            let answer = device.reference(reference).await?;
            let text = format!(
                "Enrolled: {} reference pictures of employee {}.",
                answer.references, answer.employee
            );
            show(json, &answer, &text)?;
            device.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Record { employee, pin, days, json } => {
            let pin = given_pin(pin)?;
            let device = Device::open(dir, options).await.map_err(RecordError::from)?;
            let employee = device.called(&employee).await?;
            let record = device.record(employee, pin, days).await?;
            show(json, &record, &own(&record))?;
            device.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Dispute { employee, pin, punch, day, cause, text, json } => {
            let pin = given_pin(pin)?;
            let about = punch.map(About::Punch).or(day.map(About::Day));
            let about = about.context("give --punch or --day. Nothing was kept")?;
            let device = Device::open(dir, options).await.map_err(DisputeError::from)?;
            let employee = device.called(&employee).await?;
            let kept = device.dispute(Dispute { employee, pin, about, cause, text }).await?;
            show(json, &kept, &disputed(&kept))?;
            device.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::ForgetPhotos { employee, json } => {
            let device = Device::open(dir, options).await?;
            let employee = device.called(&employee).await?;
            let erased = device.forget_photos(employee).await?;
            let text =
                format!("Erased: {erased} photos of employee {employee}. The punches stand.");
            show(json, &json!({"employee": employee, "erased": erased}), &text)?;
            device.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Sync { json } => {
            let device = Device::open(dir, options).await?;
            sync(&device, json).await
        }
        Command::Status { json } => {
            let device = Device::open(dir, options).await?;
            let status = device.status().await?;
            show(json, &status, &described(&status))?;
            device.close().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::Salvage { look, json } => salvaged(&Folder::at(dir), look, json).await,
        Command::Run => work(&Device::open(dir, options).await?).await,
    }
}

/// Waits for the verdict on a punch that stands, and says it; nothing of that can fail the press.
async fn tell_verdict(
    device: &Device,
    punch: &Confirmation,
    wait_s: u32,
    json: bool,
) -> anyhow::Result<()> {
    // Of whom no face is compared, and without a network, nothing is to be waited for.
    if !punch.face || punch.photo.is_none() || punch.offline {
        let none = json!({"punch": punch.punch, "verdict": null});
        return if json { show(json, &none, "") } else { Ok(()) };
    }
    match device.verdict(Which::Punch(punch.punch), wait_s, None).await {
        Ok(verdict) => {
            show(json, &json!({"punch": punch.punch, "verdict": &verdict}), &judged(&verdict))
        }
        Err(error) => {
            let (code, detail) = (error.code().to_owned(), whole(&error));
            let none = json!({"punch": punch.punch, "verdict": null,
                "error": {"code": code, "detail": detail}});
            show(json, &none, &Shown::new(&detail).to_string())
        }
    }
}

async fn enroll(
    device: &Device,
    server: &str,
    code: &str,
    name: &str,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let agent = device.lock_agent()?;
    let identity = device.enroll(&agent, server, code, name).await?;
    // A device should know people and rules before its line fails for the first time; if it can't
    // be now, the agent does it later.
    let report = Drain::new(device, &agent).sync().await?;
    let people = device.status().await?.employees;
    let enrolled = json!({
        "device": identity.device, "org": identity.org, "site": identity.site,
        "server": identity.server, "name": identity.name, "employees": people,
    });
    let manifest = match &report.error {
        None => format!("{people} people can punch here."),
        Some(error) => {
            format!("The manifest isn't here yet: {}.", Shown::new(&error.detail))
        }
    };
    let text =
        format!("Enrolled as device {} of site {}. {manifest}", identity.device, identity.site);
    show(json, &enrolled, &text)?;
    device.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn sync(device: &Device, json: bool) -> anyhow::Result<ExitCode> {
    let agent = device.lock_agent()?;
    enrolled(device).await?;
    device.sweep_photos(&agent).await?;
    let report = Drain::new(device, &agent).sync().await?;
    device.close().await;
    show(json, &report, &synced(&report))?;
    if report.complete {
        return Ok(ExitCode::SUCCESS);
    }
    if json {
        eprintln!("punchtrail-device: {}", synced(&report));
    }
    Ok(ExitCode::FAILURE)
}

async fn work(device: &Device) -> anyhow::Result<ExitCode> {
    let agent = device.lock_agent()?;
    let identity = enrolled(device).await?;
    if let Err(error) = device.store().check().await {
        // What can be read is delivered all the same.
        tracing::error!(%error, "this device needs looking after");
    }
    device.sweep_photos(&agent).await?;
    let (stop, listener) = stop_on_signal()?;
    let server = Shown::new(&identity.server);
    say(&format!("running as device {} for {server}", identity.device));
    Drain::new(device, &agent).run(&stop).await;
    listener.abort();
    device.close().await;
    if device.restart_asked() {
        say("ends as the server asked, to be started again; what waits is on disk");
        return Ok(ExitCode::from(RESTART));
    }
    say("stopped; what waits is on disk");
    Ok(ExitCode::SUCCESS)
}

async fn salvaged(folder: &Folder, look: bool, json: bool) -> anyhow::Result<ExitCode> {
    let done = match look {
        true => salvage::look(folder, now()).await?,
        false => salvage::salvage(folder, now()).await?,
    };
    let what = match (&done.kept_in, done.goes_on) {
        (None, _) => "Nothing was changed".to_owned(),
        (Some(kept), goes_on) => format!(
            "The damaged files are kept in {}. {}",
            kept.display(),
            match goes_on {
                true => "Start the agent: people punch here as before",
                false =>
                    "Start the agent, which delivers the others, and enrol this folder anew with a \
                     pairing code: until then nobody can punch here",
            }
        ),
    };
    show(json, &done, &format!("{}. {what}.", done.told()))?;
    Ok(ExitCode::SUCCESS)
}

fn now() -> Time {
    jiff::Timestamp::now().into()
}

async fn enrolled(device: &Device) -> anyhow::Result<punchtrail_device::store::identity::Identity> {
    device.identity().await?.with_context(|| {
        format!(
            "this folder ({}) is not enrolled. Run `punchtrail-device enroll` with a pairing code \
             first",
            device.folder().path().display()
        )
    })
}

fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(NAME_CHARS_MAX).collect();
    if name.is_empty() { "device".to_owned() } else { name }
}

/// The PIN as given, or from stdin.
fn given_pin(pin: Pin) -> anyhow::Result<Pin> {
    if pin.is("-") { typed_pin() } else { Ok(pin) }
}

fn typed_pin() -> anyhow::Result<Pin> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line).context("can't read the PIN. Nothing was recorded")?;
    Ok(Pin::typed(line.trim_end_matches(['\r', '\n'])))
}

fn show(json: bool, object: &impl Serialize, text: &str) -> anyhow::Result<()> {
    if json {
        say(&shown::json(&serde_json::to_string(object)?));
    } else {
        say(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_page_of_flags_is_what_is_parsed() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        punchtrail_testkit::page_holds(page, &Arguments::command());
    }
}
