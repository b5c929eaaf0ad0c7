//! `punchtrail employee`: the roster, whom it has, and what may not be erased of people.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Subcommand;
use punchtrail_api::ask::limits::{NOTE_CHARS_MAX, SEARCH_CHARS_MAX};
use punchtrail_infra::{
    ledger::Metadata,
    people::{
        holds,
        import::{self, ImportError, ROSTER_BYTES_MAX},
    },
    rulings::{Author, notes::Note},
    sites,
};
use punchtrail_projections::people::employees;
use punchtrail_protocol::SiteId;
use serde_json::json;

use super::{
    answer::{Answer, table},
    progress,
    source::{Need, Opened, Source},
};

/// The most that a list shows.
const LISTED_MAX: u32 = 1_000;

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
    /// List people, or find some by name or badge
    List {
        /// Only those of this site: a name or an id
        #[arg(long)]
        site: Option<String>,
        /// Those whom this may mean: a name, a part of one or a badge, one typo allowed
        #[arg(long, value_name = "TEXT", value_parser = searched)]
        search: Option<String>,
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

fn searched(text: &str) -> Result<String, String> {
    if !(1..=SEARCH_CHARS_MAX).contains(&text.chars().count()) {
        return Err(format!("a search has 1 to {SEARCH_CHARS_MAX} characters"));
    }
    Ok(text.to_owned())
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
            Self::List { site, search } => {
                let listed =
                    async |opened: &Opened| list(opened, site.as_deref(), search.as_deref()).await;
                source.with(Need::Existing, listed).await
            }
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

async fn list(opened: &Opened, site: Option<&str>, search: Option<&str>) -> anyhow::Result<Answer> {
    let pool = &opened.pools.reader;
    let site = match site {
        Some(named) => Some(opened.site(named).await?),
        None => None,
    };
    let (people, more) = match search {
        Some(typed) => (employees::search(pool, site, typed).await?, false),
        None => {
            let found = employees::list(pool, (site, None), None, LISTED_MAX).await?;
            (found.rows, found.more)
        }
    };
    let sites = sites::list(&opened.pools.writer).await?;
    let names: HashMap<SiteId, &str> =
        sites.iter().map(|site| (site.site, site.name.as_str())).collect();
    let or_dash = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = people
        .iter()
        .map(|person| {
            let at = |site: &SiteId| names.get(site).map_or("-".to_owned(), ToString::to_string);
            vec![
                person.employee.to_string(),
                or_dash(&person.badge),
                or_dash(&person.name),
                person.sites.iter().map(at).collect::<Vec<_>>().join(", "),
                or_dash(&person.external_id),
                person.departed_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            ]
        })
        .collect();
    let mut text = table(&["employee", "badge", "name", "sites", "external id", "leaves"], &rows);
    if more {
        text.push_str(&format!("\n\nThese are the first {LISTED_MAX}; more follow."));
    }
    Ok(Answer::new(&json!({"employees": people, "has_more": more}), text))
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
