//! `punchtrail ledger`: its state, its events, whether it was tampered with.

use clap::Subcommand;
use punchtrail_infra::{access::deployment::Deployment, ledger};
use punchtrail_projections::engine;
use punchtrail_protocol::{Position, Time};
use serde_json::json;

use super::{
    answer::{Answer, table},
    audit::Audit,
    checkpoint,
    replay::Replay,
    source::{Need, Opened, Source},
};

#[derive(Debug, Subcommand)]
pub(super) enum Ledger {
    /// Where the ledger and all that follows it stand
    Status,
    Replay(Replay),
    Verify(Audit),
}

impl Ledger {
    pub(super) async fn run(self, source: Source, json: bool) -> anyhow::Result<Answer> {
        match self {
            Self::Status => source.with(Need::Existing, status).await,
            Self::Replay(replay) => replay.run(source, json).await,
            Self::Verify(audit) => audit.run(source).await,
        }
    }
}

async fn status(opened: &Opened) -> anyhow::Result<Answer> {
    let writer = &opened.pools.writer;
    let (head, recorded_at) = ledger::dated_head(writer).await?;
    // The follower of checkpoints keeps its place in its own folder.
    let adjudicator = ledger::judged_through(writer).await?.anchor.position;
    let models = engine::generations(&opened.pools.reader).await?;
    let org = Deployment::open(writer).await?.org;
    let checkpoint = checkpoint::newest(&opened.source, org)?;
    let behind = |position: Position| (head.0.saturating_sub(position.0)).to_string();
    let mut rows =
        vec![vec!["adjudicator".to_owned(), adjudicator.to_string(), behind(adjudicator)]];
    rows.extend(
        models.iter().filter(|model| model.live).map(|model| {
            vec![model.name.clone(), model.position.to_string(), behind(model.position)]
        }),
    );
    if let Some(checkpoint) = &checkpoint {
        let covered = Position(checkpoint.size);
        rows.push(vec!["checkpoint".to_owned(), covered.to_string(), behind(covered)]);
    }
    let database = match &opened.embedded_url {
        Some(url) => format!("database {url} (its own)"),
        None => "database: yours".to_owned(),
    };
    let text = format!(
        "head {head}{}\n{database}\n\n{}",
        recorded_at.map_or_else(String::new, |at| {
            format!(", recorded {}", opened.source.look.here(Time::from(at)))
        }),
        table(&["follower", "position", "behind"], &rows)
    );
    let object = json!({
        "head": head,
        "recorded_at": recorded_at,
        "org": org,
        "embedded": opened.embedded_url.is_some(),
        "embedded_url": opened.embedded_url,
        "adjudicator": adjudicator,
        "projections": models,
        "checkpoint": checkpoint,
    });
    Ok(Answer::new(&object, text))
}
