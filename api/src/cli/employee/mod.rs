//! `punchtrail employee`: people, their badges and their sites; the roster; and what may not be
//! erased of people.

mod badge;
mod list;
mod roster;
mod staff;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use punchtrail_api::ask::limits::{NOTE_CHARS_MAX, SEARCH_CHARS_MAX};
use punchtrail_infra::{
    people::{Changed, holds, moment::Moment},
    rulings::{Author, notes::Note},
};
use serde_json::json;

use super::{
    answer::Answer,
    source::{Need, Opened, Source},
};

#[derive(Debug, Subcommand)]
pub(super) enum Employee {
    /// List people, or find some by name or badge
    List {
        /// Only those of this site: a name or an id
        #[arg(long)]
        site: Option<String>,
        /// Those whom this may mean: a name, a part of one or a badge, one typo allowed
        #[arg(long, value_name = "TEXT", value_parser = searched)]
        search: Option<String>,
    },
    /// Take somebody on
    Add(Add),
    /// Give a person another name
    Rename {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// The new name
        name: String,
    },
    /// Set a person's PIN, which is read from the standard input, or take it back
    Pin {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// Take it back: they have none then
        #[arg(long)]
        clear: bool,
    },
    /// Note that a person leaves, correct when, or that they didn't leave
    Depart {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// When: a day, which is their last one, or a time (2026-11-26T18:00:00+01:00); now unless
        /// given
        #[arg(long, value_name = "WHEN")]
        at: Option<Moment>,
        /// They didn't leave after all: their badges are theirs again, as far as nobody else got
        /// them since
        #[arg(long, conflicts_with = "at")]
        cancel: bool,
    },
    /// Note that a person who had left comes back
    Return {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// Since when: a day, from its beginning, or a time; now unless given
        #[arg(long, value_name = "WHEN")]
        at: Option<Moment>,
    },
    /// Let a person work at a site, beside others
    Assign {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// Where, by name or id
        site: String,
        /// Since when: a day, from its beginning, or a time; since ever unless given
        #[arg(long, value_name = "WHEN")]
        from: Option<Moment>,
    },
    /// Note that a person no longer works at a site
    Unassign {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// Where, by name or id
        site: String,
        /// Until when: a day, which is the last one, or a time; now unless given
        #[arg(long, value_name = "WHEN")]
        until: Option<Moment>,
    },
    /// Issue a badge, take it back, note that it is lost, list a person's
    #[command(subcommand)]
    Badge(badge::Badge),
    /// Import a roster, all of it or nothing
    ///
    /// A CSV file with the header `badge,name,pin,site` and optionally `external_id` and
    /// `returned`, in any order, parted by commas, semicolons or tabs. `site` is a name or an id.
    /// A row means the employee with that external_id; without one, who holds that badge and bears
    /// that name. Who isn't found is new, and nobody is renamed but by an external_id. An empty
    /// cell leaves what is there.
    Import(Import),
    /// Place a legal hold: nothing of them is erased on request while one stands
    Hold {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// What it is about
        #[arg(long, value_name = "TEXT", value_parser = note)]
        note: String,
    },
    /// Lift one of somebody's legal holds
    ReleaseHold {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// Why it is over
        #[arg(long, value_name = "TEXT", value_parser = note)]
        note: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The name
    #[arg(long)]
    name: String,
    /// Where they work, by name or id
    #[arg(long)]
    site: String,
    /// Since when: a day, from its beginning, or a time; since ever unless given
    #[arg(long, value_name = "WHEN")]
    from: Option<Moment>,
    /// A badge, from then on, or since it is free
    #[arg(long)]
    badge: Option<String>,
    /// The id in another system
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file
    file: PathBuf,
    /// Write nothing; say all that is wrong, and what would change, by name
    #[arg(long)]
    dry_run: bool,
    /// From when on the people work at their sites: a day, from its beginning, or a time; since
    /// ever, or as it stands, unless given
    #[arg(long, value_name = "DAY")]
    from: Option<Moment>,
    /// Badges that somebody else holds changed hands then; refused unless given
    #[arg(long, value_name = "DAY")]
    reissue: Option<Moment>,
    /// People who had left are back since then; refused unless given here or in `returned`
    #[arg(long = "return", value_name = "DAY")]
    returned: Option<Moment>,
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
            Self::Import(import) => roster::import(import, source).await,
            command => {
                source.with(Need::Existing, async |opened| command.carried_out(opened).await).await
            }
        }
    }

    async fn carried_out(self, opened: &Opened) -> anyhow::Result<Answer> {
        match self {
            Self::List { site, search } => {
                list::list(opened, site.as_deref(), search.as_deref()).await
            }
            Self::Add(add) => staff::add(opened, add).await,
            Self::Rename { employee, name } => staff::rename(opened, &employee, &name).await,
            Self::Pin { employee, clear } => staff::pin(opened, &employee, clear).await,
            Self::Depart { employee, cancel: true, .. } => staff::stay(opened, &employee).await,
            Self::Depart { employee, at, .. } => staff::depart(opened, &employee, at).await,
            Self::Return { employee, at } => staff::come_back(opened, &employee, at).await,
            Self::Assign { employee, site, from } => {
                staff::assign(opened, &employee, &site, from).await
            }
            Self::Unassign { employee, site, until } => {
                staff::unassign(opened, &employee, &site, until).await
            }
            Self::Badge(badge) => badge.run(opened).await,
            Self::Hold { employee, note } => hold(opened, &employee, note).await,
            Self::ReleaseHold { employee, note } => release(opened, &employee, note).await,
            // Opens the data once the file is known to be one.
            Self::Import(_) => Ok(Answer::silent()),
        }
    }
}

/// What a change says for programs, and for people.
fn answered(changed: &Changed, text: &str) -> Answer {
    let Changed { employee, position, is_new, .. } = changed;
    let object = json!({"employee": employee, "changed": is_new, "position": position});
    Answer::new(&object, if *is_new { text } else { "As it was already." })
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
