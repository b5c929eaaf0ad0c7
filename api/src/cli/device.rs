//! `punchtrail device`: pairing, moving and revoking devices.

use anyhow::anyhow;
use clap::Subcommand;
use punchtrail_domain::device::DeviceError;
use punchtrail_infra::{
    devices::{self, enrolment},
    ledger::{ExecuteError, Metadata},
};
use punchtrail_protocol::{DeviceId, Position};
use serde_json::json;

use super::{
    answer::{Answer, table},
    source::{Need, Opened, Source},
};

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
        /// The device
        device: DeviceId,
        /// The site, by name or id
        #[arg(long)]
        site: String,
    },
    /// End a device's access. What it still holds it may deliver, and that goes to a person
    Revoke {
        /// The device
        device: DeviceId,
    },
}

impl Device {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source
            .with(Need::Existing, async |opened| match self {
                Self::Pair { site } => pair(opened, &site).await,
                Self::List => list(opened).await,
                Self::Assign { device, site } => assign(opened, device, &site).await,
                Self::Revoke { device } => revoke(opened, device).await,
            })
            .await
    }
}

async fn pair(opened: &Opened, named: &str) -> anyhow::Result<Answer> {
    let site = opened.site(named).await?;
    let code = enrolment::make_code(&opened.pools.writer, site).await?;
    let object = json!({"code": code.shown(), "expires_at": code.expires_at, "site": site});
    let text = format!("{}  (one device, until {})", code.shown(), code.expires_at);
    Ok(Answer::new(&object, text))
}

async fn list(opened: &Opened) -> anyhow::Result<Answer> {
    let devices = devices::list(&opened.pools.writer).await?;
    let dash = || "-".to_owned();
    let rows: Vec<Vec<String>> = devices
        .iter()
        .map(|device| {
            vec![
                device.device.to_string(),
                device.name.clone().unwrap_or_else(dash),
                device.site.map_or_else(dash, |site| site.to_string()),
                device.reported_at.map_or_else(dash, |at| at.to_string()),
                device.outbox.map_or_else(dash, |waiting| waiting.to_string()),
                device.lacking.to_string(),
                device.revoked_at.map_or_else(dash, |at| at.to_string()),
            ]
        })
        .collect();
    let heading = ["device", "name", "site", "last report", "held then", "lacking", "revoked"];
    Ok(Answer::new(&json!({"devices": devices}), table(&heading, &rows)))
}

async fn assign(opened: &Opened, device: DeviceId, named: &str) -> anyhow::Result<Answer> {
    let site = opened.site(named).await?;
    let position =
        settled(device, devices::assign(&opened.ledger, device, site, &Metadata::default()).await)?;
    let object = json!({"device": device, "site": site, "position": position});
    Ok(Answer::new(&object, format!("Device {device} serves {named} from now on.")))
}

async fn revoke(opened: &Opened, device: DeviceId) -> anyhow::Result<Answer> {
    let at = opened.ledger.now();
    let position =
        settled(device, devices::revoke(&opened.ledger, device, at, &Metadata::default()).await)?;
    let object = json!({"device": device, "position": position});
    let text = format!(
        "Device {device} reads nothing more. What it still holds it may deliver; a person rules \
         on it."
    );
    Ok(Answer::new(&object, text))
}

fn settled(
    device: DeviceId,
    outcome: Result<Position, ExecuteError<DeviceError>>,
) -> anyhow::Result<Position> {
    outcome.map_err(|error| match error {
        ExecuteError::Refused(DeviceError::Unknown) => {
            anyhow!("there is no device {device}; nothing was changed. `device list` shows them")
        }
        other => other.into(),
    })
}
