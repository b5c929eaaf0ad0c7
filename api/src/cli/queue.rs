//! `punchtrail queue`: the queue of checks, and what nobody could check.

use clap::{Args, Subcommand};
use punchtrail_infra::queue::{self, DEAD_SHOWN_MAX, DeadLetter, Letter, PutBack};
use punchtrail_protocol::PunchId;
use serde_json::json;

use super::{
    answer::{Answer, table},
    identity::Line,
    source::{Need, Opened, Source},
};

#[derive(Debug, Args)]
pub(super) struct Queue {
    #[command(flatten)]
    line: Line,
    #[command(subcommand)]
    command: Asked,
}

#[derive(Debug, Subcommand)]
enum Asked {
    /// Show how much waits, is in hand, and is dead
    Show,
    /// Show the dead letters: checks that broke again and again, with the reason
    Dead,
    /// Put dead letters back in line: all, or that of one punch
    PutBack {
        /// Of this punch alone
        #[arg(long, value_name = "ID")]
        punch: Option<PunchId>,
    },
}

impl Queue {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source.with(Need::Existing, async |opened| self.done(opened).await).await
    }

    async fn done(&self, opened: &Opened) -> anyhow::Result<Answer> {
        let queue = queue::open(self.line.place(&opened.source), &opened.pools.writer).await?;
        match self.command {
            Asked::Show => {
                let depth = queue.depth().await?;
                let oldest_s = depth.oldest.map(|age| age.as_secs());
                let object = json!({
                    "waiting": depth.waiting, "in_hand": depth.in_hand, "dead": depth.dead,
                    "oldest_age_s": oldest_s,
                });
                let oldest = oldest_s.map_or_else(String::new, |s| format!(", the oldest {s} s"));
                let text = format!(
                    "{} wait{oldest}; {} in hand; {} dead.",
                    depth.waiting, depth.in_hand, depth.dead
                );
                Ok(Answer::new(&object, text))
            }
            Asked::Dead => {
                let dead = queue.dead(DEAD_SHOWN_MAX).await?;
                let named = |letter: &DeadLetter| match &letter.letter {
                    Letter::Punch(punch) => punch.to_string(),
                    Letter::Foreign(id) => format!("{id} (somebody else's)"),
                };
                let rows: Vec<Vec<String>> = dead
                    .iter()
                    .map(|letter| {
                        let receives = letter.receives.to_string();
                        vec![named(letter), receives, letter.reason.clone()]
                    })
                    .collect();
                let objects: Vec<_> = dead
                    .iter()
                    .map(|letter| {
                        json!({
                            "letter": named(letter), "receives": letter.receives,
                            "reason": letter.reason, "age_s": letter.age.as_secs(),
                        })
                    })
                    .collect();
                let text = table(&["punch", "taken", "why"], &rows);
                Ok(Answer::new(&json!({"dead": objects}), text))
            }
            Asked::PutBack { punch } => {
                let which = punch.map_or(PutBack::All, PutBack::One);
                let count = queue.put_back(which).await?;
                Ok(Answer::new(&json!({"put_back": count}), format!("{count} put back in line.")))
            }
        }
    }
}
