//! `punchtrail checkpoint`: what was signed of the ledger, outside the database.

use std::sync::Arc;

use clap::Subcommand;
use punchtrail_infra::{
    access::deployment::Deployment,
    audit::checkpoint::{Checkpoints, Epoch, Folder},
};
use punchtrail_protocol::OrgId;
use serde::Serialize;
use serde_json::json;

use super::{
    answer::Answer,
    source::{Need, Opened, Source},
};

/// The longest reason for a new epoch, in characters.
const REASON_CHARS_MAX: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Checkpoint {
    /// Show the newest checkpoint, the key that verifies it, and the epochs
    Show,
    /// After an older copy of the database was put back on purpose: sign again, under a new origin
    ///
    /// Refused while the ledger agrees with what was signed of it. What was signed before must
    /// still hold up to the fork point, which the new epoch records.
    NewEpoch {
        /// Why, for whoever verifies the ledger later
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

/// One line that says why.
pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = (1..=REASON_CHARS_MAX).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("a reason is one line of 1 to {REASON_CHARS_MAX} characters"))
    }
}

/// The newest checkpoint.
#[derive(Debug, Serialize)]
pub(super) struct Newest {
    pub epoch: u32,
    pub origin: String,
    pub vkey: String,
    pub size: u64,
    pub root: String,
    pub note: String,
}

/// The newest checkpoint of the newest epoch; none when none was made yet. Makes no folder.
///
/// # Errors
/// When the folder can't be read, or the checkpoint is damaged.
pub(super) fn newest(source: &Source, org: OrgId) -> anyhow::Result<Option<Newest>> {
    let Some(dir) = &source.data_dir else { return Ok(None) };
    let Some(folder) = Folder::existing(dir, org)? else { return Ok(None) };
    let Some(kept) = folder.latest()? else { return Ok(None) };
    let epoch = folder.epochs()?.last().map_or(1, |epoch| epoch.number);
    Ok(Some(Newest {
        epoch,
        origin: kept.checkpoint.origin.to_string(),
        vkey: folder.vkey(epoch)?,
        size: kept.checkpoint.size,
        root: kept.checkpoint.root.to_string(),
        note: kept.note,
    }))
}

impl Checkpoint {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source.dir()?;
        source
            .with(Need::Existing, async |opened| match &self {
                Self::Show => show(opened).await,
                Self::NewEpoch { reason } => new_epoch(opened, reason).await,
            })
            .await
    }
}

async fn show(opened: &Opened) -> anyhow::Result<Answer> {
    let org = Deployment::open(&opened.pools.writer).await?.org;
    let Some(newest) = newest(&opened.source, org)? else {
        let text = "No checkpoint was made yet: a running server makes one within seconds.";
        return Ok(Answer::new(&json!({"checkpoint": null}), text));
    };
    let folder = Folder::existing(opened.source.dir()?, org)?;
    let epochs = folder.map(|folder| folder.epochs()).transpose()?.unwrap_or_default();
    let mut text = format!("{}\nverify with  {}\n", newest.note, newest.vkey);
    for epoch in &epochs {
        let why = epoch.fork.as_ref().map_or_else(
            || "the first".to_owned(),
            |fork| format!("{} (parted after position {})", fork.reason, fork.after),
        );
        text.push_str(&format!("epoch {}      {why}\n", epoch.number));
    }
    let epochs: Vec<_> = epochs.iter().map(described).collect();
    Ok(Answer::new(&json!({"checkpoint": newest, "epochs": epochs}), text))
}

fn described(epoch: &Epoch) -> serde_json::Value {
    let fork = epoch.fork.as_ref();
    json!({
        "epoch": epoch.number,
        "origin": epoch.origin,
        "reason": fork.map(|fork| &fork.reason),
        "after": fork.map(|fork| fork.after),
        "signed": fork.map(|fork| fork.signed),
    })
}

async fn new_epoch(opened: &Opened, reason: &str) -> anyhow::Result<Answer> {
    let writer = &opened.pools.writer;
    let org = Deployment::open(writer).await?.org;
    let folder = Arc::new(Folder::open(opened.source.dir()?, org)?);
    let checkpoints = Checkpoints::new(writer.clone(), Arc::clone(&folder));
    let (epoch, covered) = checkpoints.open_epoch(reason).await?;
    let vkey = folder.vkey(epoch.number)?;
    let mut object = described(&epoch);
    object["vkey"] = json!(vkey);
    let after = epoch.fork.as_ref().map_or(0, |fork| fork.after);
    let parted = match covered > after {
        true => format!(
            "What was signed before holds up to position {after}; what was signed after it, up to \
             {covered}, is lost or was changed."
        ),
        false => format!("All that was signed before holds, up to position {after}."),
    };
    let text = format!(
        "Epoch {} is open. {parted}\nA running server signs the whole ledger anew within seconds; \
         what was signed before is kept.\nGive auditors the new key: {vkey}",
        epoch.number
    );
    Ok(Answer::new(&object, text))
}
