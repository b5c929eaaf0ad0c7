//! The real server, `punchtrail serve`, on a port that the system picks.

use std::{
    path::Path,
    process::{Command, ExitStatus},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use punchtrail_infra::postgres::Postgres;
use sqlx::PgPool;

use crate::{
    cli::Cli,
    cluster::DataDir,
    process::Process,
    programs::{SERVER, program},
};

/// Creating a cluster, recovering one and the first migration, on two busy cores.
const START_WAIT: Duration = Duration::from_secs(120);
/// Batches in flight are answered and followers settle first.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// Where a server's data is: a data directory, and a database of one's own unless it is the private
/// one.
#[derive(Debug, Clone)]
pub struct Installation {
    pub data: Arc<DataDir>,
    /// The database, unless it is the private one in the directory.
    pub database_url: Option<String>,
    /// Variables that the programs are started with.
    pub environment: Vec<(String, String)>,
}

impl Installation {
    /// A fresh directory with a private Postgres.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn embedded() -> anyhow::Result<Self> {
        Ok(Self { data: Arc::new(DataDir::fresh()?), database_url: None, environment: Vec::new() })
    }

    /// The same in `parent`, which other users have to be able to search.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn embedded_in(parent: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            data: Arc::new(DataDir::fresh_in(parent)?),
            database_url: None,
            environment: Vec::new(),
        })
    }

    /// A fresh directory, and the database that `url` leads to.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn with_database(url: &str) -> anyhow::Result<Self> {
        let (data, database_url) = (Arc::new(DataDir::fresh()?), Some(url.to_owned()));
        Ok(Self { data, database_url, environment: Vec::new() })
    }

    /// With a variable that the programs are started with.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The server's program, told where its data is.
    ///
    /// # Errors
    /// When it isn't built.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(program(SERVER)?);
        command.arg("--data-dir").arg(self.data.path());
        // What a developer's shell has set must not reach a test.
        command.env_remove("PUNCHTRAIL_DATA_DIR").env_remove("DATABASE_URL");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(url) = &self.database_url {
            command.env("DATABASE_URL", url);
        }
        Ok(command)
    }

    /// The database of a server that runs here, to look into as the owner of its schema. The
    /// connections heal by themselves after it was away.
    ///
    /// # Errors
    /// When it can't be reached.
    pub async fn database(&self) -> anyhow::Result<PgPool> {
        let postgres = Postgres::open(self.database_url.as_deref(), self.data.path()).await?;
        let owner = postgres.owner_options();
        // The server has a share of its own in a private Postgres, and looks after it.
        postgres.close().await?;
        Ok(PgPool::connect_lazy_with(owner))
    }

    /// The operator's commands on this data.
    pub fn cli(&self) -> Cli {
        Cli::new(self.clone())
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    // Dropped first: a server that lives would start a stopped Postgres again.
    process: Process,
    place: Installation,
    arguments: Vec<String>,
    url: String,
}

impl Server {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// When it ends before, with the end of its log.
    pub async fn start(place: &Installation) -> anyhow::Result<Self> {
        Self::start_with(place, &[]).await
    }

    /// The same, with more `arguments` of `serve`, which a restart keeps.
    ///
    /// # Errors
    /// When it ends before, with the end of its log.
    pub async fn start_with(place: &Installation, arguments: &[&str]) -> anyhow::Result<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::start_by(place, &["serve"], arguments).await
    }

    /// The same by putting a backup back, the newest in `backups`, which then is served.
    ///
    /// # Errors
    /// When it is refused, with the end of its log.
    pub async fn restore(place: &Installation, backups: &Path) -> anyhow::Result<Self> {
        let backups = backups.to_str().context("a path in UTF-8")?;
        Self::start_by(place, &["restore", backups], Vec::new()).await
    }

    async fn start_by(
        place: &Installation,
        by: &[&str],
        arguments: Vec<String>,
    ) -> anyhow::Result<Self> {
        let mut command = place.command()?;
        command.args(by).args(["--listen", "127.0.0.1:0"]).args(&arguments);
        let mut process = Process::start("the server", command, &place.data.log("server")?)?;
        let url = process.says("listening ", START_WAIT).await?;
        Ok(Self { process, place: place.clone(), arguments, url })
    }

    /// Where it listens, like `http://127.0.0.1:40123`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same as an address.
    pub fn address(&self) -> anyhow::Result<std::net::SocketAddr> {
        Ok(self.url.trim_start_matches("http://").parse()?)
    }

    /// Where its data is.
    pub fn installation(&self) -> &Installation {
        &self.place
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// kill -9. Its Postgres goes on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.process.kill_9()
    }

    /// SIGTERM, and waits until it has stopped; its Postgres stops with its last user.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.terminate(STOP_WAIT).await
    }

    /// Starts it again on the same data, on another port; kills it first if it runs.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.process.runs()? {
            self.kill_9()?;
        }
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        *self = Self::start_with(&self.place.clone(), &arguments).await?;
        Ok(())
    }
}
