//! `punchtrail projection`: read models; and what is said of one that another command reads.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use punchtrail_projections::engine;
use serde_json::json;
use tokio::time::Instant;

use super::{
    answer::{Answer, table},
    progress::Progress,
    source::{Need, Opened, Source},
};

/// How long a command waits for a server that is bringing a model along.
const BEHIND_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What isn't in these read models yet, said in a sentence; nothing when all is. One that is being
/// brought along is waited for, for a moment.
///
/// # Errors
/// When no server ever filled them.
pub(super) async fn behind(opened: &Opened, models: &[&str]) -> anyhow::Result<Option<String>> {
    let head = opened.ledger.head().await?;
    let deadline = Instant::now() + BEHIND_MAX;
    loop {
        let there = engine::generations(&opened.pools.reader).await?;
        let live = |name: &&str| there.iter().find(|model| model.live && model.name == **name);
        let Some(least) = models.iter().map(|name| live(name).map(|model| model.position)).min()
        else {
            return Ok(None);
        };
        let Some(least) = least else {
            bail!(
                "no server has run on this data yet, so there is nothing to be listed from; run \
                 `punchtrail serve`, and try again"
            );
        };
        if least >= head {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Ok(Some(format!(
                "The ledger ends at {head}, and this shows it up to {least}: a running server \
                 brings the rest along."
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Projection {
    /// List the read models and where they stand
    List,
    /// Fill one anew from the ledger beside the live one, then swap. Readers see no half of it
    Rebuild {
        /// Its name, as `projection list` shows it
        name: String,
    },
}

impl Projection {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source
            .with(Need::Existing, async |opened| match &self {
                Self::List => list(opened).await,
                Self::Rebuild { name } => refill(opened, name).await,
            })
            .await
    }
}

async fn list(opened: &Opened) -> anyhow::Result<Answer> {
    let generations = engine::generations(&opened.pools.reader).await?;
    let head = opened.ledger.head().await?;
    let rows: Vec<Vec<String>> = generations
        .iter()
        .map(|model| {
            vec![
                model.name.clone(),
                format!("v{}", model.version),
                if model.live { "live".to_owned() } else { model.state.clone() },
                model.position.to_string(),
                model.error.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    let text = format!(
        "head {head}\n\n{}",
        table(&["model", "version", "state", "position", "error"], &rows)
    );
    Ok(Answer::new(&json!({"head": head, "projections": generations}), text))
}

async fn refill(opened: &Opened, name: &str) -> anyhow::Result<Answer> {
    let progress = Progress::of("rebuilding");
    let heard = move |events: u64, of: u64| progress.at(events, of);
    let (feed, models) = (opened.ledger.feed(), punchtrail_projections::all());
    let rebuilt = engine::rebuild(&models, &opened.pools.reader, &feed, name, heard).await;
    let rebuilt = rebuilt.with_context(|| format!("`{name}` was not rebuilt"))?;
    let took_ms = u64::try_from(rebuilt.took.as_millis()).unwrap_or(u64::MAX);
    let object = json!({
        "name": rebuilt.name,
        "generation": rebuilt.generation,
        "position": rebuilt.position,
        "took_ms": took_ms,
    });
    let text = format!(
        "`{}` was rebuilt up to position {} in {:.1} s, and is live.",
        rebuilt.name,
        rebuilt.position,
        rebuilt.took.as_secs_f64()
    );
    Ok(Answer::new(&object, text))
}
