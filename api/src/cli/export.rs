//! `punchtrail export`: everything that is held of a person, for them to have.

use std::{os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use anyhow::Context;
use clap::Subcommand;
use punchtrail_api::privacy::export::Export as Archive;
use punchtrail_domain::log::recorded::Actor;
use serde_json::json;

use super::{
    answer::Answer,
    erase::caught_up,
    source::{Need, Opened, Source},
};

/// What can be given out.
#[derive(Debug, Subcommand)]
pub(super) enum Export {
    /// Everything that is held of somebody, as one ZIP archive with a page that reads well
    Person {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// The file to write; it must not be there yet, and only you can read it
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

impl Export {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        let Self::Person { employee, to } = self;
        let write = async |opened: &Opened| person(opened, &employee, &to).await;
        source.with(Need::Existing, write).await
    }
}

async fn person(opened: &Opened, employee: &str, to: &std::path::Path) -> anyhow::Result<Answer> {
    let shown = to.display();
    let employee = opened.employee(employee).await?;
    caught_up(opened).await?;
    let export = Archive {
        ledger: &opened.ledger,
        pools: &opened.pools,
        photos: opened.photos().await?,
        reader: Actor::CommandLine,
        request: None,
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file =
        options.open(to).with_context(|| format!("{shown} can't be made; nothing was written"))?;
    let written = match export.of(employee).await {
        Ok(mut archive) => std::io::copy(&mut archive, &mut file)
            .with_context(|| format!("{shown} can't be written")),
        Err(error) => Err(error.into()),
    };
    match written {
        Ok(bytes) => {
            let object = json!({"employee": employee, "file": shown.to_string(), "bytes": bytes});
            Ok(Answer::new(&object, format!("Written to {shown}. Give it to them alone.")))
        }
        Err(error) => {
            // Half an archive is none.
            let _ = std::fs::remove_file(to);
            Err(error)
        }
    }
}
