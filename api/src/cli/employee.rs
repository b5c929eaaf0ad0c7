//! `punchtrail employee`: the roster, and what may not be erased of people.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Subcommand;
use punchtrail_api::ask::limits::NOTE_CHARS_MAX;
use punchtrail_infra::{
    ledger::Metadata,
    people::{
        holds,
        import::{self, ImportError, ROSTER_BYTES_MAX},
    },
    rulings::{Author, notes::Note},
};
use serde_json::json;

use super::{
    answer::Answer,
    progress,
    source::{Need, Opened, Source},
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
    /// Place a legal hold: nothing of them is erased on request while one stands
    Hold {
        /// Who: an id, an external id or a badge
        employee: String,
        /// What it is about
        #[arg(long, value_name = "TEXT", value_parser = note)]
        note: String,
    },
    /// Lift one of somebody's legal holds
    ReleaseHold {
        /// Who: an id, an external id or a badge
        employee: String,
        /// Why it is over
        #[arg(long, value_name = "TEXT", value_parser = note)]
        note: Option<String>,
    },
}

fn note(text: &str) -> Result<String, String> {
    if !(1..=NOTE_CHARS_MAX).contains(&text.chars().count()) {
        return Err(format!("a note has 1 to {NOTE_CHARS_MAX} characters"));
    }
    Ok(text.to_owned())
}

impl Employee {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        match self {
            Self::Import { file } => Self::import(file, source).await,
            Self::Hold { employee, note } => {
                let placed = async |opened: &Opened| hold(opened, &employee, note).await;
                source.with(Need::Existing, placed).await
            }
            Self::ReleaseHold { employee, note } => {
                let lifted = async |opened: &Opened| release(opened, &employee, note).await;
                source.with(Need::Existing, lifted).await
            }
        }
    }

    async fn import(file: PathBuf, source: Source) -> anyhow::Result<Answer> {
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

fn author(note: Option<String>) -> Author {
    Author::of_command_line(note.map(Note::new))
}

async fn hold(opened: &Opened, employee: &str, note: String) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let done = holds::place(&opened.ledger, employee, &author(Some(note))).await?;
    let stand = done.aggregate.holds();
    let text = format!("Nothing of them is erased on request; legal holds that stand: {stand}.");
    let object = json!({"employee": employee, "holds": stand, "position": done.position});
    Ok(Answer::new(&object, text))
}

async fn release(opened: &Opened, employee: &str, note: Option<String>) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let done = holds::lift(&opened.ledger, employee, &author(note)).await?;
    let stand = done.aggregate.holds();
    let object = json!({"employee": employee, "holds": stand, "position": done.position});
    Ok(Answer::new(&object, format!("Lifted. Legal holds that still stand: {stand}.")))
}

async fn import(opened: &Opened, text: &[u8]) -> anyhow::Result<Answer> {
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
