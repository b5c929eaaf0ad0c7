//! `punchtrail audit`: who did what that bears on security.

use clap::Subcommand;
use punchtrail_infra::access::trail::{self, Act, Filter, Line};
use serde_json::{Value, json};

use super::{
    answer::{Answer, table_or},
    look::or_none,
    named::Parties,
    source::{Need, Source},
};

/// The most lines that are listed at once.
const LINES_MAX: u32 = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum Trail {
    /// List the lines of the audit trail, the newest first
    List {
        /// Only what this one did: `user:LOGIN`, `key:NAME`, `command_line`, `nobody`; an id does
        /// for a name
        #[arg(long)]
        actor: Option<String>,
        /// Only such acts, `signed_in` for one
        #[arg(long)]
        act: Option<Act>,
        /// Only what was done to this: `user:LOGIN`, `key:NAME`, `employee:WHO`, `device:NAME`,
        /// `sha256:…`; an id does for a name
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
        source
            .with(Need::Existing, async |opened| {
                let filter = Filter {
                    actor: opened.actor_if(actor.as_deref()).await?,
                    act,
                    subject: opened.subject_if(subject.as_deref()).await?,
                    ..Filter::default()
                };
                let lines = trail::list(&opened.pools.reader, &filter, before, limit).await?;
                let of = |line: &Line| [Some(line.actor.clone()), line.subject.clone()];
                let said = lines.iter().flat_map(of).flatten();
                let parties = Parties::of(opened, said.collect()).await?;
                let row = |line: &Line| {
                    vec![
                        line.id.to_string(),
                        opened.source.look.here(line.at),
                        parties.called(&line.actor),
                        line.act.replace('_', " "),
                        or_none(line.subject.as_ref().map(|of| parties.called(of)).as_deref()),
                        or_none(line.address.as_deref()),
                        or_none(line.detail.as_deref()),
                        line.count.to_string(),
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
                let text = table_or(&head, &rows, "No such line.");
                Ok(Answer::new(&json!({"lines": listed}), text))
            })
            .await
    }
}
