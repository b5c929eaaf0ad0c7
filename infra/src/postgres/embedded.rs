//! A private Postgres that several processes of ours share.
//!
//! The server, command-line tools and tests may use one data directory at once. Whoever comes
//! first starts Postgres, whoever leaves last stops it. Two locks settle that: `users`, held
//! shared for as long as one uses it, and `transition`, held alone while it is started or
//! stopped. Only who gets `users` alone may stop it, so nobody's database goes away under them.
//! A process that is killed loses its locks; Postgres then stays, and the next one adopts it.

use std::{path::Path, sync::Arc, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions, postgres::PgSslMode};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::supervision::Supervisor;

use super::{
    cluster::{Cluster, PORT, SUPERUSER, Setting},
    error::PostgresError,
    locks::{FileLock, transition},
    pools,
    postmaster::{self, Answer, RECOVERY_WAIT},
};

/// The database in a new cluster.
const DATABASE: &str = "punchtrail";
/// Always there; used to find out whether the server answers.
const MAINTENANCE_DATABASE: &str = "postgres";
/// How often the server is looked at: a dead one is noticed well within a second.
const WATCH: Duration = Duration::from_millis(250);
/// Between attempts to start it again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Another may be in a long recovery.
const TRANSITION_WAIT: Duration = RECOVERY_WAIT;

/// What is escaped in the query of a URL: all but what is never reserved (RFC 3986, section 2.3),
/// and the `/` of paths.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// This process's share in a private Postgres.
#[derive(Debug)]
pub(super) struct Embedded {
    cluster: Arc<Cluster>,
    users: FileLock,
    /// Ends the watch over it when this is dropped.
    watch: Option<DropGuard>,
}

impl Embedded {
    /// Opens the cluster in `data_dir`, creating and starting what is missing. With somebody to
    /// watch over it, a task starts the server again whenever it is gone.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open(
        data_dir: &Path,
        extra_settings: &'static [Setting],
        supervisor: Option<&Supervisor>,
    ) -> Result<Self, PostgresError> {
        let cluster = Arc::new(Cluster::locate(data_dir, extra_settings)?);
        let users = join_or_start(&cluster).await?;
        let mut embedded = Self { cluster, users, watch: None };
        if let Err(error) = create_database(&embedded.options(MAINTENANCE_DATABASE)).await {
            // The first error is the one that explains.
            drop(embedded.close().await);
            return Err(error);
        }
        embedded.watch = supervisor.map(|supervisor| {
            let (stop, cluster) = (CancellationToken::new(), Arc::clone(&embedded.cluster));
            let until = stop.clone();
            supervisor.spawn("postgres_watch", stop.clone(), move || {
                watch(Arc::clone(&cluster), until.clone())
            });
            stop.drop_guard()
        });
        Ok(embedded)
    }

    /// How to connect to Punchtrail's database as its owner.
    pub fn owner_options(&self) -> PgConnectOptions {
        self.options(DATABASE)
    }

    /// How to connect to `database`.
    pub fn options(&self, database: &str) -> PgConnectOptions {
        options(&self.cluster, database)
    }

    /// The URL that leads to `database`, for other programs.
    pub fn url(&self, database: &str) -> String {
        let socket_dir = self.cluster.socket_dir.as_os_str().as_encoded_bytes();
        let host = percent_encode(socket_dir, ESCAPED);
        format!("postgresql://{SUPERUSER}@localhost:{PORT}/{database}?host={host}&sslmode=disable")
    }

    /// The server programs it runs with.
    ///
    /// # Errors
    /// When they are gone since.
    pub fn bin_dir(&self) -> Result<std::path::PathBuf, PostgresError> {
        Ok(self.cluster.binaries()?.dir)
    }

    /// Leaves; stops the server when nobody else uses it.
    ///
    /// # Errors
    /// When it doesn't stop; it is left running then.
    pub async fn close(mut self) -> Result<(), PostgresError> {
        drop(self.watch.take());
        let _alone = transition(&self.cluster.transition_lock, TRANSITION_WAIT).await?;
        let last = self
            .users
            .try_exclusive()
            .map_err(PostgresError::io("lock", &self.cluster.users_lock))?;
        if last { postmaster::stop(&self.cluster).await } else { Ok(()) }
    }
}

fn options(cluster: &Cluster, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(&cluster.socket_dir)
        .port(PORT)
        .ssl_mode(PgSslMode::Disable)
        .username(SUPERUSER)
        .database(database)
}

/// Takes a share in the running server, or starts one. Returns the share.
async fn join_or_start(cluster: &Cluster) -> Result<FileLock, PostgresError> {
    let ping_options = options(cluster, MAINTENANCE_DATABASE);
    let locked = PostgresError::io("lock", &cluster.users_lock);
    let users = FileLock::open(&cluster.users_lock)
        .map_err(PostgresError::io("open", &cluster.users_lock))?;
    // Who has a share can't have the server stopped under it, so no other lock is needed here.
    if users.try_shared().map_err(locked)? && postmaster::ping(&ping_options).await == Answer::Up {
        return Ok(users);
    }
    let starting = transition(&cluster.transition_lock, TRANSITION_WAIT).await?;
    let locked = PostgresError::io("lock", &cluster.users_lock);
    if !users.try_shared().map_err(locked)? {
        // Impossible while we hold `transition`, unless somebody locks our files by hand.
        return Err(PostgresError::Busy {
            dir: cluster.dir.clone(),
            holder: "another process".to_owned(),
            waited_s: 0,
        });
    }
    let binaries = cluster.binaries()?;
    cluster.ensure_created(&binaries, &starting).await?;
    postmaster::start(cluster, &binaries, &ping_options).await?;
    Ok(users)
}

/// Creates Punchtrail's database unless it is there.
async fn create_database(maintenance: &PgConnectOptions) -> Result<(), PostgresError> {
    let doing = "create the database";
    let connect = async { maintenance.connect().await.map_err(PostgresError::sql(doing)) };
    let mut connection = pools::opened(connect).await?;
    let exists: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(DATABASE)
            .fetch_one(&mut connection)
            .await
            .map_err(PostgresError::sql(doing))?;
    if !exists {
        let created = sqlx::raw_sql(&format!("create database {DATABASE} encoding 'UTF8'"))
            .execute(&mut connection)
            .await;
        match created {
            Ok(_) => {}
            Err(sqlx::Error::Database(error)) if is_duplicate(error.as_ref()) => {}
            Err(error) => return Err(PostgresError::sql(doing)(error)),
        }
    }
    connection.close().await.map_err(PostgresError::sql(doing))
}

/// Whether another process created the same thing first.
pub(super) fn is_duplicate(error: &dyn sqlx::error::DatabaseError) -> bool {
    // duplicate_database, duplicate_object, unique_violation (two at the same instant)
    error.code().is_some_and(|code| ["42P04", "42710", "23505"].contains(&code.as_ref()))
}

/// Starts the server again whenever it is gone, until it is stopped, also amid a start.
async fn watch(cluster: Arc<Cluster>, stop: CancellationToken) {
    stop.run_until_cancelled(keep_up(&cluster)).await;
}

async fn keep_up(cluster: &Cluster) {
    let mut pause = WATCH;
    loop {
        tokio::time::sleep(pause).await;
        if postmaster::running(&cluster.dir).is_some() {
            pause = WATCH;
            continue;
        }
        tracing::warn!(cluster = %cluster.dir.display(), "PostgreSQL is gone: starting it again");
        match start_again(cluster).await {
            Ok(()) => {
                metrics::counter!("punchtrail_postgres_restarts_total").increment(1);
                tracing::info!(cluster = %cluster.dir.display(), "PostgreSQL serves again");
                pause = WATCH;
            }
            Err(error) => {
                pause = (pause * 2).min(RESTART_PAUSE_MAX);
                tracing::error!(%error, retry_ms = pause.as_millis(), "PostgreSQL could not be \
                    started again");
            }
        }
    }
}

async fn start_again(cluster: &Cluster) -> Result<(), PostgresError> {
    let _alone = transition(&cluster.transition_lock, TRANSITION_WAIT).await?;
    let binaries = cluster.binaries()?;
    postmaster::start(cluster, &binaries, &options(cluster, MAINTENANCE_DATABASE)).await
}
