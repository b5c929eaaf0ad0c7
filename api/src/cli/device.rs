//! `punchtrail device`: pairing, moving and revoking devices, and telling them what to do.

use anyhow::anyhow;
use clap::Subcommand;
use punchtrail_domain::device::DeviceError;
use punchtrail_infra::{
    devices::{self, enrolment},
    ledger::{ExecuteError, Metadata},
    people::pins::ask_for_others,
    rulings::{Author, notes::Note},
};
use punchtrail_projections::{
    devices::commands,
    engine,
    people::pins::{self, KnownPin},
};
use punchtrail_protocol::{
    CommandId, DeviceId, EmployeeId, Time,
    command::{CommandArgs, CommandType},
    shown::Shown,
};
use serde_json::json;

use super::{
    answer::{Answer, Refusal, table_or},
    look::{NONE, Names},
    source::{Need, Opened, Source},
};

/// How many people are named whose PINs a revoked device knows.
const NAMED_MAX: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Device {
    /// Make a pairing code, with which one device enrols at a site within ten minutes
    Pair {
        /// The site, by name or id
        #[arg(long)]
        site: String,
    },
    /// List the devices
    List,
    /// Move a device to another site. What it captured for the old one it still delivers
    Assign {
        /// The device, by name or id
        device: String,
        /// The site, by name or id
        #[arg(long)]
        site: String,
    },
    /// Tell a device to do something. It hears of it with its next heartbeat
    Command {
        /// The device, by name or id
        device: String,
        /// sync_employees, upload_pending, show_message, forget_photos or restart_agent
        #[arg(value_name = "TYPE")]
        kind: CommandType,
        /// Of show_message: what is shown, at most 500 characters
        #[arg(long)]
        text: Option<String>,
        /// Of forget_photos: whose: a name, a badge, an external id or an id
        #[arg(long)]
        employee: Option<String>,
        /// Of forget_photos: only those of punches captured until then; now unless given
        #[arg(long, value_name = "TIME")]
        taken_until: Option<Time>,
    },
    /// List what a device was told to do and what became of it, newest first
    Commands {
        /// The device, by name or id
        device: String,
    },
    /// Take back a command that isn't finished
    Cancel {
        /// The device, by name or id
        device: String,
        /// The command
        command: CommandId,
    },
    /// End a device's access. What it still holds it may deliver, and that goes to a person
    Revoke {
        /// The device, by name or id
        device: String,
        /// Ask everybody for another PIN whose PIN it knows
        #[arg(long)]
        renew_pins: bool,
    },
}

impl Device {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source
            .with(Need::Existing, async |opened| match self {
                Self::Pair { site } => pair(opened, &site).await,
                Self::List => list(opened).await,
                Self::Assign { device, site } => {
                    assign(opened, opened.device(&device).await?, &site).await
                }
                Self::Command { device, kind, text, employee, taken_until } => {
                    let employee = opened.employee_if(employee.as_deref()).await?;
                    let device = opened.device(&device).await?;
                    command(opened, device, kind, CommandArgs { text, employee, taken_until }).await
                }
                Self::Commands { device } => commands(opened, opened.device(&device).await?).await,
                Self::Cancel { device, command } => {
                    cancel(opened, opened.device(&device).await?, command).await
                }
                Self::Revoke { device, renew_pins } => {
                    revoke(opened, opened.device(&device).await?, renew_pins).await
                }
            })
            .await
    }
}

async fn pair(opened: &Opened, named: &str) -> anyhow::Result<Answer> {
    let site = opened.site(named).await?;
    let code = enrolment::make_code(&opened.pools.writer, site).await?;
    let object = json!({"code": code.shown(), "expires_at": code.expires_at, "site": site});
    let until = opened.source.look.here(code.expires_at);
    let text = format!("{}  (one device, until {until})", code.shown());
    Ok(Answer::new(&object, text))
}

async fn list(opened: &Opened) -> anyhow::Result<Answer> {
    let devices = devices::list(&opened.pools.writer).await?;
    let (names, with_ids) = (Names::of(opened).await?, opened.source.look.ids);
    let dash = || NONE.to_owned();
    let mut rows: Vec<Vec<String>> = devices
        .iter()
        .map(|device| {
            let at = |at: Option<Time>| at.map_or_else(dash, |at| names.at(device.site, at));
            let id = with_ids.then(|| device.device.to_string());
            let cells = [
                device.name.clone().unwrap_or_else(dash),
                device.site.map_or_else(dash, |site| names.site(site)),
                at(device.reported_at),
                device.outbox.map_or_else(dash, |waiting| waiting.to_string()),
                device.lacking.to_string(),
                at(device.revoked_at),
            ];
            id.into_iter().chain(cells).collect()
        })
        .collect();
    let heading = ["id", "name", "site", "last report", "held then", "lacking", "revoked"];
    let heading = &heading[usize::from(!with_ids)..];
    by_site_and_name(&mut rows, with_ids);
    let none = "No device is enrolled yet: `device pair --site SITE` makes a code for one.";
    Ok(Answer::new(&json!({"devices": devices}), table_or(heading, &rows, none)))
}

/// What a device is called.
async fn called(opened: &Opened, device: DeviceId) -> anyhow::Result<String> {
    Ok(Names::of(opened).await?.with_devices(opened, [device]).await?.device(device))
}

/// As people look for a device.
fn by_site_and_name(rows: &mut [Vec<String>], with_ids: bool) {
    let (name, site) = (usize::from(with_ids), usize::from(with_ids) + 1);
    rows.sort_by(|a, b| (a.get(site), a.get(name)).cmp(&(b.get(site), b.get(name))));
}

async fn assign(opened: &Opened, device: DeviceId, named: &str) -> anyhow::Result<Answer> {
    let site = opened.site(named).await?;
    let position =
        settled(device, devices::assign(&opened.ledger, device, site, &Metadata::default()).await)?;
    let object = json!({"device": device, "site": site, "position": position});
    let device = called(opened, device).await?;
    Ok(Answer::new(&object, format!("{device} serves {named} from now on.")))
}

async fn revoke(opened: &Opened, device: DeviceId, renew_pins: bool) -> anyhow::Result<Answer> {
    let at = opened.ledger.now();
    let position =
        settled(device, devices::revoke(&opened.ledger, device, at, &Metadata::default()).await)?;
    // Without read models nobody knows; what is revoked stays revoked.
    let were_filled = !engine::generations(&opened.pools.reader).await?.is_empty();
    let known = match were_filled {
        true => pins::everybody(&opened.pools.reader, device, None).await?,
        false => Vec::new(),
    };
    let people: Vec<EmployeeId> = known.iter().map(|pin| pin.employee).collect();
    if renew_pins {
        ask_for_others(&opened.pools.writer, &people).await?;
    }
    let object = json!({
        "device": device, "position": position, "pins": people, "renewal_asked": renew_pins,
    });
    let device = called(opened, device).await?;
    let mut text = format!(
        "{device} reads nothing more. What it still holds it may deliver; a person rules \
         on it."
    );
    if !known.is_empty() {
        let named =
            |pin: &KnownPin| pin.employee_name.clone().unwrap_or_else(|| pin.employee.to_string());
        let people: Vec<String> = known.iter().take(NAMED_MAX).map(named).collect();
        let more = known.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let asked = match renew_pins {
            true => "They are asked for other ones.",
            false => "Ask them for other ones: --renew-pins.",
        };
        let people = people.join(", ");
        text.push_str(&format!("\nIt knows the PINs of {people}{more}. {asked}"));
    }
    Ok(Answer::new(&object, text))
}

async fn command(
    opened: &Opened,
    device: DeviceId,
    kind: CommandType,
    args: CommandArgs,
) -> anyhow::Result<Answer> {
    args.check(kind).map_err(|wrong| {
        Refusal::Usage(format!("{} can't be told like that: {wrong}", kind.as_str()))
    })?;
    let author = author(args.text.clone());
    let issued = devices::commands::issue(&opened.ledger, device, (kind, &args), &author).await;
    let devices::commands::Issued { command, expires_at, position, .. } = settled(device, issued)?;
    let object = json!({
        "device": device, "command": command, "type": kind, "expires_at": expires_at,
        "position": position,
    });
    let text = format!(
        "{command}  ({} for device {device}, until {}. It hears of it with its next heartbeat; \
         `device commands {device}` shows what becomes of it)",
        kind.as_str(),
        opened.source.look.here(expires_at)
    );
    Ok(Answer::new(&object, text))
}

async fn commands(opened: &Opened, device: DeviceId) -> anyhow::Result<Answer> {
    let told = commands::from_ledger(opened.ledger.pool(), device).await?;
    let dash = || NONE.to_owned();
    let look = opened.source.look;
    let rows: Vec<Vec<String>> = told
        .iter()
        .map(|one| {
            vec![
                one.command.to_string(),
                one.kind.as_str().to_owned(),
                one.state.as_str().to_owned(),
                look.here(one.issued_at),
                look.here(one.expires_at),
                look.here_or_none(one.settled_at),
                one.detail.as_deref().map_or_else(dash, |detail| Shown::new(detail).to_string()),
            ]
        })
        .collect();
    let heading = ["command", "type", "state", "issued", "expires", "settled", "detail"];
    let none = "This device was never told to do anything.";
    let object = json!({"device": device, "commands": told});
    Ok(Answer::new(&object, table_or(&heading, &rows, none)))
}

async fn cancel(opened: &Opened, device: DeviceId, command: CommandId) -> anyhow::Result<Answer> {
    let done = devices::commands::cancel(&opened.ledger, device, command, &author(None)).await;
    let position = settled(device, done)?;
    let object = json!({"device": device, "command": command, "position": position});
    let text = format!(
        "Command {command} is cancelled. If the device heard of it before, it may act on it all \
         the same; then `device commands {device}` says so."
    );
    Ok(Answer::new(&object, text))
}

fn author(text: Option<String>) -> Author {
    Author::of_command_line(text.map(Note::new))
}

fn settled<T>(
    device: DeviceId,
    outcome: Result<T, ExecuteError<DeviceError>>,
) -> anyhow::Result<T> {
    outcome.map_err(|error| match error {
        ExecuteError::Refused(DeviceError::Unknown) => {
            anyhow!("there is no device {device}; nothing was changed. `device list` shows them")
        }
        other => other.into(),
    })
}
