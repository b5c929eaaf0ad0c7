//! `punchtrail audit`: who did what that bears on security.

use clap::Subcommand;
use punchtrail_infra::access::trail::{self, Act, Filter, Line};
use serde_json::{Value, json};

use super::{
    answer::{Answer, table},
    source::{Need, Source},
};

/// The most lines that are listed at once.
const LINES_MAX: u32 = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum Trail {
    /// List the lines of the audit trail, the newest first
    List {
        /// Only what this one did: `user:…`, `key:…`, `command_line`, `nobody`
        #[arg(long)]
        actor: Option<String>,
        /// Only such acts, `signed_in` for one
        #[arg(long)]
        act: Option<Act>,
        /// Only what was done to this: a user's id, `key:…`, `employee:…`, `sha256:…`
        #[arg(long)]
        subject: Option<String>,
        /// Only lines before this one
        #[arg(long, value_name = "LINE")]
        before: Option<u64>,
        /// The most lines
        #[arg(long, default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=i64::from(LINES_MAX)))]
        limit: u32,
    },
}

impl Trail {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        let Self::List { actor, act, subject, before, limit } = self;
        let filter = Filter { actor, act, subject, ..Filter::default() };
        source
            .with(Need::Existing, async |opened| {
                let lines = trail::list(&opened.pools.reader, &filter, before, limit).await?;
                let some = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                let row = |line: &Line| {
                    let (id, at, count) = (line.id, line.at, line.count);
                    vec![
                        id.to_string(),
                        at.to_string(),
                        line.actor.clone(),
                        line.act.clone(),
                        some(&line.subject),
                        some(&line.address),
                        some(&line.detail),
                        count.to_string(),
                    ]
                };
                let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
                let object = |line: &Line| {
                    json!({
                        "line": line.id, "at": line.at, "actor": line.actor, "act": line.act,
                        "subject": line.subject, "address": line.address,
                        "request_id": line.request, "detail": line.detail, "count": line.count,
                    })
                };
                let listed: Vec<Value> = lines.iter().map(object).collect();
                let head = ["line", "at", "who", "did", "to", "from", "more", "times"];
                Ok(Answer::new(&json!({"lines": listed}), table(&head, &rows)))
            })
            .await
    }
}
