//! `punchtrail employee`: the roster.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Subcommand;
use punchtrail_infra::{
    ledger::Metadata,
    people::import::{self, ImportError, ROSTER_BYTES_MAX},
};

use super::{
    answer::Answer,
    progress,
    source::{Need, Source},
};

#[derive(Debug, Subcommand)]
pub(super) enum Employee {
    /// Import a roster, all of it or nothing
    ///
    /// A CSV file with the header `badge,name,pin,site` and optionally `external_id`, in any order.
    /// `site` is a name or an id. A row means the employee with that external_id, else that badge;
    /// who isn't known yet is new. An empty cell leaves what is there.
    Import {
        /// The file
        file: PathBuf,
    },
}

impl Employee {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        let Self::Import { file } = self;
        let shown = file.display();
        let size = tokio::fs::metadata(&file)
            .await
            .with_context(|| format!("{shown} can't be read; nothing was imported"))?
            .len();
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        if bytes > ROSTER_BYTES_MAX {
            return Err(ImportError::TooLarge { bytes }.into());
        }
        let text = tokio::fs::read(&file)
            .await
            .with_context(|| format!("{shown} can't be read; nothing was imported"))?;
        // What the file alone shows is said before any database is opened.
        import::parse(&text)?;
        source.with(Need::Existing, async |opened| import(opened, &text).await).await
    }
}

async fn import(opened: &super::source::Opened, text: &[u8]) -> anyhow::Result<Answer> {
    let bar = progress::bar("hashing PINs");
    let shown = bar.clone();
    let heard = Arc::new(move |done: usize, of: usize| {
        shown.set_length(of as u64);
        shown.set_position(done as u64);
    });
    let imported = import::import(&opened.ledger, text, &Metadata::default(), heard).await;
    bar.finish_and_clear();
    let imported = imported?;
    let text = format!(
        "{} rows: {} new, {} changed, {} as they were.",
        imported.rows, imported.created, imported.updated, imported.unchanged
    );
    Ok(Answer::new(&imported, text))
}
