//! Where the data is, and opening it for the time of a command.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use punchtrail_infra::{
    ledger::Ledger,
    photos::{PhotoPlace, PhotoStore, open_photos},
    postgres::{PoolSizes, Pools, Postgres, PostgresError},
};

use super::{answer::Refusal, look::Look};

/// A command's share of connections; a server may run beside it.
const SIZES: PoolSizes = PoolSizes { writer: 4, reader: 4, follower: 4, owner: 1 };

/// Between two attempts to open a database that isn't ready yet.
const ATTEMPT_EVERY: Duration = Duration::from_millis(200);

/// A failover takes seconds, and a machine that boots has its database a little later.
const DATABASE_WAIT_S: u64 = 30;

/// Where the data is.
#[derive(Debug, Clone, Args)]
pub(super) struct Source {
    /// The data directory: checkpoints, photos and, without --database-url, a Postgres of its own
    #[arg(long, global = true, value_name = "DIR", env = "PUNCHTRAIL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Use this Postgres instead of one in the data directory; with several hosts, separated by
    /// commas, the one that takes writes
    #[arg(long, global = true, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// How long to wait for that Postgres to be there and to take writes
    #[arg(long, global = true, value_name = "SECONDS", env = "PUNCHTRAIL_DATABASE_WAIT_S",
          default_value_t = DATABASE_WAIT_S, hide_env_values = true,
          value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub database_wait: u64,

    /// Where photos are kept: a folder, or `s3://bucket/prefix`; `photos` in the data directory
    /// unless given
    #[arg(
        long,
        global = true,
        value_name = "WHERE",
        env = "PUNCHTRAIL_PHOTOS",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub photos: PhotoPlace,

    /// The AWS region of S3, SQS and Rekognition, where the SDK doesn't find it by itself
    #[arg(
        long,
        global = true,
        value_name = "REGION",
        env = "PUNCHTRAIL_AWS_REGION",
        hide_env_values = true
    )]
    pub aws_region: Option<String>,

    #[command(flatten)]
    pub look: Look,
}

/// What a command needs to be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It may be the first one: what is missing is made.
    Any,
    /// It only looks at what is there: a mistyped directory must not become a new, empty ledger.
    Existing,
}

impl Source {
    /// The database's URL, unless it is the one in the data directory.
    pub(super) fn url(&self) -> Option<&str> {
        self.database_url.as_deref().filter(|url| !url.is_empty())
    }

    /// The data directory.
    ///
    /// # Errors
    /// When none was given.
    pub(super) fn dir(&self) -> anyhow::Result<&Path> {
        match &self.data_dir {
            Some(dir) => Ok(dir),
            None => Err(Refusal::Usage(
                "say where the data is, with --data-dir DIR or PUNCHTRAIL_DATA_DIR".to_owned(),
            )
            .into()),
        }
    }

    /// AWS's region; none to find it where the SDK does.
    pub(super) fn region(&self) -> Option<&str> {
        self.aws_region.as_deref().filter(|region| !region.is_empty())
    }

    /// That it was said where the data is, and that there is some if need be.
    ///
    /// # Errors
    /// When it wasn't, or there isn't.
    pub(super) fn check(&self, need: Need) -> anyhow::Result<()> {
        if self.url().is_some() {
            return Ok(());
        }
        if self.data_dir.is_none() {
            return Err(Refusal::Usage(
                "say where the data is: --data-dir DIR (or PUNCHTRAIL_DATA_DIR) for a database of \
                 Punchtrail's own, DATABASE_URL for yours"
                    .to_owned(),
            )
            .into());
        }
        let dir = self.dir()?;
        if need == Need::Existing && !dir.join("postgres").exists() {
            bail!(
                "there is no Punchtrail data in {}; nothing was made. Check --data-dir, or start \
                 with `punchtrail serve`",
                dir.display()
            );
        }
        Ok(())
    }

    /// Opens the database, its schema and pools. A private Postgres is started when it doesn't run;
    /// with one by URL, what passes is waited for: it may fail over at any step.
    ///
    /// # Errors
    /// When it can't be had.
    pub(super) async fn open(
        &self,
        need: Need,
        sizes: PoolSizes,
    ) -> anyhow::Result<(Postgres, Pools)> {
        self.check(need)?;
        let until = Instant::now() + Duration::from_secs(self.database_wait);
        let mut shown = String::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let error = match self.attempt(need, sizes, left).await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            let passes = error.downcast_ref().is_some_and(PostgresError::passes);
            if self.url().is_none() || !passes || left.is_zero() {
                return Err(error);
            }
            let found = format!("{error:#}");
            if shown != found {
                tracing::warn!(wait_s = left.as_secs(), "waiting for the database: {found}");
                shown = found;
            }
            tokio::time::sleep(ATTEMPT_EVERY).await;
        }
    }

    async fn attempt(
        &self,
        need: Need,
        sizes: PoolSizes,
        wait: Duration,
    ) -> anyhow::Result<(Postgres, Pools)> {
        let dir = self.data_dir.as_deref().unwrap_or(Path::new(""));
        let postgres = Postgres::open_within(self.url(), dir, wait).await?;
        let opened = async {
            self.schema(&postgres, need).await?;
            Ok(postgres.pools(sizes).await?)
        };
        match opened.await {
            Ok(pools) => Ok((postgres, pools)),
            Err(error) => {
                leave(postgres).await;
                Err(error)
            }
        }
    }

    /// A database without a schema is no empty ledger: a `serve` failed there, or it is another.
    async fn schema(&self, postgres: &Postgres, need: Need) -> anyhow::Result<()> {
        if need == Need::Existing && !postgres.is_migrated().await? {
            bail!(
                "there is no ledger in this database, and never was; nothing was made. Check {}, \
                 or start with `punchtrail serve`",
                if self.url().is_some() { "DATABASE_URL" } else { "--data-dir" }
            );
        }
        Ok(postgres.migrate().await?)
    }

    /// Opens the database that is there, and leaves its schema as it is.
    ///
    /// # Errors
    /// When it can't be had within `wait`.
    pub(super) async fn as_it_is(&self, wait: Duration) -> anyhow::Result<Postgres> {
        self.check(Need::Existing)?;
        let dir = self.data_dir.as_deref().unwrap_or(Path::new(""));
        let wait = wait.min(Duration::from_secs(self.database_wait));
        Ok(Postgres::open_within(self.url(), dir, wait).await?)
    }

    /// What is in a database whose schema is this program's.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(super) async fn opened(&self, postgres: &Postgres) -> anyhow::Result<Opened> {
        Opened::new(self, postgres, postgres.pools(SIZES).await?).await
    }

    /// Opens the data, does the work, and leaves: a Postgres that nobody else uses is stopped, also
    /// when the work fails or is interrupted.
    ///
    /// # Errors
    /// When the data can't be opened, or as the work does.
    pub(super) async fn with<T>(
        &self,
        need: Need,
        work: impl AsyncFnOnce(&Opened) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (postgres, pools) = self.open(need, SIZES).await?;
        let outcome = match Opened::new(self, &postgres, pools).await {
            Ok(opened) => {
                let outcome = tokio::select! {
                    outcome = work(&opened) => outcome,
                    _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!(
                        "interrupted. What was being written was written whole or not at all; run \
                         the command again to be sure"
                    )),
                };
                opened.close().await;
                outcome
            }
            Err(error) => Err(error),
        };
        leave(postgres).await;
        outcome
    }
}

pub(super) async fn leave(postgres: Postgres) {
    if let Err(error) = postgres.close().await {
        tracing::warn!(%error, "the database was left running");
    }
}

/// The opened data.
pub(super) struct Opened {
    pub source: Source,
    pub pools: Pools,
    pub ledger: Ledger,
    /// The private database's URL, for other programs; none for one's own.
    pub embedded_url: Option<String>,
}

impl Opened {
    async fn new(source: &Source, postgres: &Postgres, pools: Pools) -> anyhow::Result<Self> {
        let ledger = match Ledger::open(pools.writer.clone()).await {
            Ok(ledger) => ledger,
            Err(error) => {
                pools.close().await;
                return Err(error).context("the ledger can't be opened");
            }
        };
        Ok(Self { source: source.clone(), pools, ledger, embedded_url: postgres.embedded_url() })
    }

    /// Gives the connections back.
    pub(super) async fn close(self) {
        self.ledger.close().await;
        self.pools.close().await;
    }

    /// Where photos are kept.
    ///
    /// # Errors
    /// When that can't be used.
    pub(super) async fn photos(&self) -> anyhow::Result<Arc<dyn PhotoStore>> {
        let source = &self.source;
        let data_dir = match source.photos {
            PhotoPlace::DataDir => source.dir()?,
            _ => Path::new(""),
        };
        Ok(open_photos(&source.photos, data_dir, source.region()).await?)
    }
}
