//! `punchtrail photo`: pictures, for people with the right. Each look is written down.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;
use punchtrail_domain::log::recorded::Actor;
use punchtrail_infra::photos::reads;
use punchtrail_protocol::Digest;
use punchtrail_vision::Picture;
use serde_json::json;

use super::{
    answer::{Answer, table_or},
    source::{Need, Opened, Source},
};

#[derive(Debug, Subcommand)]
pub(super) enum Photo {
    /// Write a picture into a file, a JPEG without metadata. That you looked is written down
    Show {
        /// Which, by its SHA-256
        photo: Digest,
        /// The file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// At most 160 pixels on its longer side
        #[arg(long)]
        thumbnail: bool,
    },
    /// Show who looked at a picture
    Reads {
        /// Which, by its SHA-256
        photo: Digest,
    },
}

impl Photo {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source.with(Need::Existing, async |opened| self.done(opened).await).await
    }

    async fn done(&self, opened: &Opened) -> anyhow::Result<Answer> {
        let writer = &opened.pools.writer;
        match self {
            Self::Show { photo, out, thumbnail } => {
                let Some(bytes) = opened.photos().await?.read(photo).await? else {
                    bail!("there is no photo {photo}: it never came, or was erased");
                };
                reads::note(writer, *photo, &Actor::CommandLine, None).await?;
                let picture = Picture::decode(&bytes)?;
                let shown = if *thumbnail { picture.thumbnail() } else { picture.cleaned() };
                let path = out.display();
                tokio::fs::write(out, shown)
                    .await
                    .with_context(|| format!("{path} can't be written"))?;
                let object = json!({"photo": photo, "file": path.to_string()});
                Ok(Answer::new(&object, format!("Written to {path}.")))
            }
            Self::Reads { photo } => {
                let reads = reads::of(writer, *photo).await?;
                let rows: Vec<Vec<String>> = reads
                    .iter()
                    .map(|read| vec![opened.source.look.here(read.at), read.reader.clone()])
                    .collect();
                let objects: Vec<_> = reads
                    .iter()
                    .map(|read| {
                        json!({"at": read.at, "reader": read.reader, "request_id": read.request})
                    })
                    .collect();
                let text = table_or(&["when", "who"], &rows, "Nobody looked at it.");
                Ok(Answer::new(&json!({"reads": objects}), text))
            }
        }
    }
}
