//! `punchtrail badge`: numbers that devices read.

use clap::Subcommand;

use super::{
    answer::Answer,
    source::{Need, Source},
    unknown::Unknown,
};

#[derive(Debug, Subcommand)]
pub(super) enum Badge {
    /// Badges that nobody is known to have held when they were read
    #[command(subcommand)]
    Unknown(Unknown),
}

impl Badge {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source
            .with(Need::Existing, async |opened| match self {
                Self::Unknown(unknown) => unknown.run(opened).await,
            })
            .await
    }
}
