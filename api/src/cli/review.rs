//! `punchtrail review`: what waits for a person's ruling, as the read model has it that a server
//! keeps.

use clap::Subcommand;
use punchtrail_domain::explanation::reason_in_words;
use punchtrail_infra::people::directory;
use punchtrail_projections::rulings::reviews::{self, Filter, Review};
use punchtrail_protocol::{Time, vocabulary::Reason};
use serde_json::{Value, json};

use super::{
    answer::{Answer, table, table_or},
    look::{NONE, Names},
    projection,
    source::{Need, Opened, Source},
};

/// The most that a list shows.
const LISTED_MAX: u32 = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum ReviewCommand {
    /// List what waits for a ruling, the oldest first
    List {
        /// Only those of this site: a name or an id
        #[arg(long)]
        site: Option<String>,
        /// Only those of this person: a name, a badge, an external id or an id
        #[arg(long)]
        employee: Option<String>,
        /// Only those referred for this reason, like `clock_suspect`
        #[arg(long)]
        reason: Option<Reason>,
        /// Only those on which nobody ruled in time
        #[arg(long)]
        escalated: bool,
    },
    /// Say how many wait, for each reason
    Count {
        /// Only those of this site: a name or an id
        #[arg(long)]
        site: Option<String>,
    },
}

impl ReviewCommand {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source
            .with(Need::Existing, async |opened| match &self {
                Self::List { site, employee, reason, escalated } => {
                    let filter = Filter {
                        site: opened.site_if(site.as_deref()).await?,
                        employee: opened.employee_if(employee.as_deref()).await?,
                        reason: *reason,
                        escalated: escalated.then_some(true),
                        before: None,
                        within: None,
                    };
                    list(opened, &filter).await
                }
                Self::Count { site } => count(opened, site.as_deref()).await,
            })
            .await
    }
}

async fn list(opened: &Opened, filter: &Filter<'_>) -> anyhow::Result<Answer> {
    let behind = projection::behind(opened, &[reviews::NAME]).await?;
    let pool = &opened.pools.reader;
    let found = reviews::list(pool, filter, None, LISTED_MAX).await?;
    let people: Vec<_> = found.rows.iter().filter_map(|review| review.employee).collect();
    let known = directory::employee_names(pool, &people).await?;
    let name = |review: &Review| review.employee.and_then(|who| known.get(&who).cloned());
    let names = Names::of(opened).await?.with_people(opened, people.iter().copied()).await?;
    let rows: Vec<Vec<String>> = found
        .rows
        .iter()
        .map(|review| {
            let reasons = review.reasons.iter().map(|reason| reason.as_str().replace('_', " "));
            let at = |at: Time| names.at(Some(review.site), at);
            vec![
                review.punch.to_string(),
                review.employee.map_or_else(|| NONE.to_owned(), |who| names.person(who)),
                names.site(review.site),
                reasons.collect::<Vec<_>>().join(", "),
                at(review.referred_at),
                review.escalated_at.map_or_else(|| NONE.to_owned(), at),
                review.sequence.to_string(),
            ]
        })
        .collect();
    let heading = ["punch", "who", "where", "referred for", "since", "escalated", "events"];
    let mut text = table_or(&heading, &rows, "Nothing waits for a ruling.");
    if found.more {
        text.push_str(&format!("\n\nThese are the first {LISTED_MAX}; more follow."));
    }
    let object = |review: &Review| -> Value {
        json!({
            "punch": review.punch, "sequence": review.sequence, "site": review.site,
            "employee": review.employee, "employee_name": name(review),
            "reasons": review.reasons, "referred_at": review.referred_at,
            "escalated_at": review.escalated_at,
        })
    };
    let reviews: Vec<Value> = found.rows.iter().map(object).collect();
    let object = json!({"reviews": reviews, "has_more": found.more});
    Ok(Answer::new(&object, text).noting(behind))
}

async fn count(opened: &Opened, site: Option<&str>) -> anyhow::Result<Answer> {
    let site = opened.site_if(site).await?;
    let behind = projection::behind(opened, &[reviews::NAME]).await?;
    let counts =
        reviews::counts(&opened.pools.reader, site.as_ref().map(std::slice::from_ref)).await?;
    let row = |(reason, open): (&Reason, &u64)| {
        vec![open.to_string(), reason.as_str().to_owned(), reason_in_words(reason.as_str())]
    };
    let rows: Vec<Vec<String>> = counts.by_reason.iter().map(row).collect();
    let mut text = match counts.open {
        1 => "1 punch waits for a ruling.".to_owned(),
        open => format!("{open} punches wait for a ruling."),
    };
    if !rows.is_empty() {
        text.push_str("\n\n");
        text.push_str(&table(&["open", "reason", "in words"], &rows));
    }
    let by_reason: Vec<Value> = counts
        .by_reason
        .iter()
        .map(|(reason, open)| json!({"reason": reason, "open": open}))
        .collect();
    let object = json!({"open": counts.open, "by_reason": by_reason});
    Ok(Answer::new(&object, text).noting(behind))
}
