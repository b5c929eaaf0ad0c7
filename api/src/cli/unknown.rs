//! `punchtrail badge unknown`: badges that nobody is known to have held when they were read, from
//! the read model that a server keeps, and all of one given to a person at once.

use anyhow::bail;
use clap::{Args, Subcommand};
use punchtrail_domain::punch::RulingReason;
use punchtrail_infra::{
    people::directory,
    rulings::{ASSIGNED_TOGETHER_MAX, Assigned, Assigning, Author, Left, assign_many},
};
use punchtrail_projections::rulings::unknown::{self, OfBadge, UnknownBadge};
use punchtrail_protocol::{PunchId, Time, shown::Shown};
use serde_json::{Value, json};

use super::{
    answer::{Answer, table},
    ruling::note,
    source::Opened,
};

/// The most badges that a list shows.
const LISTED_MAX: u32 = 1_000;
/// The most punches left as they are that are named.
const LEFT_SHOWN_MAX: usize = 100;

#[derive(Debug, Subcommand)]
pub(super) enum Unknown {
    /// List the badges that punches wait with, in the order of their numbers
    List {
        /// Only those that were read at this site: a name or an id
        #[arg(long)]
        site: Option<String>,
    },
    /// Give the punches that wait with a badge to whoever made them
    Assign(AssignBadge),
}

#[derive(Debug, Args)]
pub(super) struct AssignBadge {
    /// The badge's number, exactly as it was read
    badge: String,
    /// Who made them: an id, an external id or another badge
    who: String,
    /// Only punches from then on
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// Only punches before then
    #[arg(long, value_name = "TIME")]
    until: Option<Time>,
    /// Why: `recognised`, `confirmed`, `other` …
    #[arg(long)]
    reason: Option<RulingReason>,
    /// A note on each
    #[arg(long, value_parser = note)]
    note: Option<String>,
}

impl Unknown {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        match self {
            Self::List { site } => list(opened, site.as_deref()).await,
            Self::Assign(assign) => assign.run(opened).await,
        }
    }
}

async fn list(opened: &Opened, site: Option<&str>) -> anyhow::Result<Answer> {
    let site = match site {
        Some(named) => Some(opened.site(named).await?),
        None => None,
    };
    let pool = &opened.pools.reader;
    let found = unknown::badges(pool, site, "", LISTED_MAX).await?;
    let sites: Vec<_> = found.rows.iter().flat_map(|row| row.sites.clone()).collect();
    let names = directory::site_names(pool, &sites).await?;
    let cells = |row: &UnknownBadge| {
        let at: Vec<String> = row
            .sites
            .iter()
            .map(|site| names.get(site).cloned().unwrap_or_else(|| site.to_string()))
            .collect();
        vec![
            Shown::new(&row.badge).to_string(),
            row.punches.to_string(),
            row.first_at.to_string(),
            row.last_at.to_string(),
            Shown::new(&at.join(", ")).to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = found.rows.iter().map(cells).collect();
    let mut text = match rows.is_empty() {
        true => "No punch waits with an unknown badge.".to_owned(),
        false => table(&["badge", "punches", "first", "last", "sites"], &rows),
    };
    if found.more {
        text.push_str(&format!("\n\nThese are the first {LISTED_MAX}; more follow."));
    }
    Ok(Answer::new(&json!({"badges": found.rows, "has_more": found.more}), text))
}

impl AssignBadge {
    async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let Self { badge, who, from, until, reason, note } = self;
        let employee = opened.employee(&who).await?;
        let of = OfBadge { badge, from, until };
        let note = note.filter(|note| !note.is_empty());
        let assigning = Assigning { employee, reason, note, as_of: None };
        let author = Author::of_command_line(None);
        let (mut done, mut last) = (Assigned::default(), None);
        loop {
            let together = u32::try_from(ASSIGNED_TOGETHER_MAX).unwrap_or(u32::MAX);
            let found = unknown::punches(&opened.pools.reader, &of, last, together).await?;
            let punches: Vec<PunchId> = found.iter().map(|found| found.punch).collect();
            match assign_many(&opened.ledger, &punches, &assigning, &author).await {
                Ok(assigned) => done.add(assigned),
                Err(error) => bail!(
                    "{error}. {} punches are theirs by this already; run it again to go on",
                    done.assigned
                ),
            }
            match found.last() {
                Some(found) if punches.len() == ASSIGNED_TOGETHER_MAX => {
                    last = Some((found.at, found.punch));
                }
                _ => break,
            }
        }
        let left: Vec<Value> = done.left.iter().take(LEFT_SHOWN_MAX).map(shown).collect();
        let mut text = match done.assigned {
            1 => "1 punch is theirs by this.".to_owned(),
            many => format!("{many} punches are theirs by this."),
        };
        if !done.left.is_empty() {
            text.push_str(&format!(
                " {} were left as they are, since somebody ruled on them meanwhile.",
                done.left.len()
            ));
        }
        let object = json!({
            "badge": of.badge, "employee": employee, "assigned": done.assigned,
            "left": done.left.len(), "left_as_they_are": left, "position": done.position,
        });
        Ok(Answer::new(&object, text))
    }
}

fn shown((punch, left): &(PunchId, Left)) -> Value {
    let why = match left {
        Left::Somebodys => "it is somebody else's by now",
        Left::Out => "a person took it out of the count",
        Left::Changed => "something came to be known of it meanwhile",
    };
    json!({"punch": punch, "why": why})
}
