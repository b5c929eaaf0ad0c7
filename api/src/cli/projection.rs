//! `punchtrail projection`: read models.

use anyhow::Context;
use clap::Subcommand;
use punchtrail_projections::engine;
use serde_json::json;

use super::{
    answer::{Answer, table},
    progress,
    source::{Need, Opened, Source},
};

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
    let bar = progress::bar("rebuilding");
    let shown = bar.clone();
    let heard = move |events: u64, of: u64| {
        shown.set_length(of);
        shown.set_position(events);
    };
    let (feed, models) = (opened.ledger.feed(), punchtrail_projections::all());
    let rebuilt = engine::rebuild(&models, &opened.pools.reader, &feed, name, heard).await;
    bar.finish_and_clear();
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
