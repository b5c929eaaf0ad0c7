//! `punchtrail badge unknown`: badges that nobody is known to have held when they were read, from
//! the read model that a server keeps, and all of one given to a person at once.

use anyhow::bail;
use clap::{Args, Subcommand};
use punchtrail_domain::punch::RulingReason;
use punchtrail_infra::rulings::{
    ASSIGNED_TOGETHER_MAX, Assigned, Assigning, Author, Left, assign_many,
};
use punchtrail_projections::rulings::{
    reviews,
    unknown::{self, OfBadge, UnknownBadge},
};
use punchtrail_protocol::{PunchId, Time, shown::Shown};
use serde_json::{Value, json};

use super::{
    answer::{Answer, table_or},
    look::Names,
    projection,
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
    /// Who made them: a name, another badge, an external id or an id
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
    let site = opened.site_if(site).await?;
    let behind = projection::behind(opened, &[reviews::NAME]).await?;
    let pool = &opened.pools.reader;
    let found = unknown::badges(pool, site, "", LISTED_MAX).await?;
    let names = Names::of(opened).await?;
    let cells = |row: &UnknownBadge| {
        let at: Vec<String> = row.sites.iter().map(|site| names.site(*site)).collect();
        let site = row.sites.first().copied();
        vec![
            Shown::new(&row.badge).to_string(),
            row.punches.to_string(),
            names.at(site, row.first_at),
            names.at(site, row.last_at),
            at.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = found.rows.iter().map(cells).collect();
    let heading = ["badge", "punches", "first", "last", "where"];
    let mut text = table_or(&heading, &rows, "No punch waits with an unknown badge.");
    if found.more {
        text.push_str(&format!("\n\nThese are the first {LISTED_MAX}; more follow."));
    }
    let object = json!({"badges": found.rows, "has_more": found.more});
    Ok(Answer::new(&object, text).noting(behind))
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
