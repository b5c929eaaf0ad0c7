//! One Postgres for a whole run, a fresh migrated database for each row.
//!
//! A server that has run for a while has files for its log ready. The run's makes them first, or
//! whichever row is first would pay for all. A row's database is dropped after it, or Postgres
//! would tidy it up during the next.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, ensure};
use punchtrail_infra::postgres::{Pools, Postgres};
use sqlx::{Connection, PgConnection};

/// What is written to the log before the first row, in MB: as much as Postgres keeps ready.
const LOG_MADE_MB: u32 = 1_024;

/// The Postgres of a run; on a real disk, with everything durable on.
pub struct Cluster {
    postgres: Postgres,
    data_dir: tempfile::TempDir,
    made: AtomicU32,
}

/// A fresh database of the run.
pub struct Database {
    url: String,
    /// Opened as this program opens one's own database.
    pub postgres: Postgres,
    pub pools: Pools,
}

impl Cluster {
    /// Starts it under `target/bench`, on the disk that the checkout is on.
    ///
    /// # Errors
    /// When Postgres can't be started there.
    pub async fn start() -> anyhow::Result<Self> {
        let data_dir = punchtrail_infra::testing::data_dir();
        let postgres = Postgres::open(None, data_dir.path()).await?;
        postgres.migrate().await?;
        let cluster = Self { postgres, data_dir, made: AtomicU32::new(0) };
        cluster
            .maintain(&format!(
                "select count(pg_logical_emit_message(false, 'bench', repeat('x', 1048576))) \
                 from generate_series(1, {LOG_MADE_MB})"
            ))
            .await?;
        cluster.maintain("checkpoint").await?;
        Ok(cluster)
    }

    /// Makes an empty database, without tables.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn empty(&self) -> anyhow::Result<String> {
        self.create("").await
    }

    /// Does a row's work in an empty database, and drops that afterwards.
    ///
    /// # Errors
    /// When Postgres refuses, and those of the work.
    pub async fn in_empty<T>(
        &self,
        work: impl AsyncFnOnce(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let url = self.empty().await?;
        let done = work(&url).await?;
        self.drop_database(&url).await?;
        Ok(done)
    }

    /// Makes a database that begins as that of `url` is now. Nobody may be connected to that one.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn copy_of(&self, url: &str) -> anyhow::Result<String> {
        self.create(&format!("template {}", name_in(url)?)).await
    }

    async fn create(&self, how: &str) -> anyhow::Result<String> {
        let name = format!("bench_{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.maintain(&format!("create database {name} {how}")).await?;
        self.maintain("checkpoint").await?;
        let url = self.postgres.embedded_url().context("the run's Postgres is embedded")?;
        Ok(url.replacen("/punchtrail?", &format!("/{name}?"), 1))
    }

    /// Closes a row's database and drops it, so that the next row starts even.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn discard(&self, database: Database) -> anyhow::Result<()> {
        database.pools.close().await;
        database.postgres.close().await?;
        self.drop_database(&database.url).await
    }

    /// Drops the database of `url`, also under open connections.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn drop_database(&self, url: &str) -> anyhow::Result<()> {
        self.maintain(&format!("drop database {} with (force)", name_in(url)?)).await
    }

    async fn maintain(&self, statement: &str) -> anyhow::Result<()> {
        let mut owner = PgConnection::connect_with(&self.postgres.owner_options()).await?;
        sqlx::query(statement).execute(&mut owner).await?;
        Ok(owner.close().await?)
    }

    /// Writes out what is only in Postgres's memory, so that it isn't written during a measurement.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        self.maintain("checkpoint").await
    }

    /// Refuses to go on unless so many bytes are free where the data is.
    ///
    /// # Errors
    /// When they aren't, with how many are; and when that can't be told.
    pub fn ensure_free(&self, bytes: u64) -> anyhow::Result<()> {
        let place = self.data_dir.path();
        let told = Command::new("df").args(["--output=avail", "-B1"]).arg(place).output()?;
        let told = String::from_utf8_lossy(&told.stdout);
        let free: u64 = told.lines().nth(1).context("df says a number")?.trim().parse()?;
        let [free_gb, needed_gb] = [free, bytes].map(|bytes| bytes / 1_000_000_000);
        ensure!(
            free >= bytes,
            "{} has {free_gb} GB free, and this needs {needed_gb}; ask for less, or set TMPDIR to \
             a folder on a larger disk",
            place.display()
        );
        Ok(())
    }

    /// The process that all others of Postgres descend from, by its own account.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn postmaster(&self) -> anyhow::Result<u32> {
        let path = self.data_dir.path().join("postgres/cluster/postmaster.pid");
        let text = std::fs::read_to_string(path).context("Postgres runs")?;
        Ok(text.lines().next().unwrap_or_default().trim().parse()?)
    }

    /// Makes a migrated database.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn database(&self) -> anyhow::Result<Database> {
        let url = self.empty().await?;
        self.open(&url).await
    }

    /// One of Postgres's own programs.
    ///
    /// # Errors
    /// When they were not found.
    pub fn program(&self, name: &str) -> anyhow::Result<std::path::PathBuf> {
        Ok(self.postgres.bin_dir().context("the run's Postgres is embedded")?.join(name))
    }

    /// Opens a database of the run, migrating it if it is empty.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn open(&self, url: &str) -> anyhow::Result<Database> {
        let postgres = Postgres::open(Some(url), self.data_dir.path()).await?;
        postgres.migrate().await?;
        let pools = postgres.pools(Default::default()).await?;
        Ok(Database { url: url.to_owned(), postgres, pools })
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it can't be stopped.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.postgres.close().await?)
    }
}

/// The database's name in its URL.
fn name_in(url: &str) -> anyhow::Result<&str> {
    let (address, _) = url.split_once('?').context("a URL of the run's Postgres")?;
    Ok(address.rsplit_once('/').context("a URL that names its database")?.1)
}
