//! The database: one's own by `DATABASE_URL`, else a private, real Postgres in the data directory.
//!
//! Both are PostgreSQL, reached by one driver with one schema, so nothing else in the house knows
//! which it is. A database that could lose an acknowledged commit is refused, whichever it is.
//! What is opened here keeps no punch, knows no event, and never deletes anything that holds data.
//!
//! ```no_run
//! # async fn example() -> Result<(), punchtrail_infra::postgres::PostgresError> {
//! use punchtrail_infra::postgres::{PoolSizes, Postgres};
//!
//! let postgres = Postgres::open(None, "data".as_ref()).await?;
//! postgres.migrate().await?;
//! let pools = postgres.pools(PoolSizes::default()).await?;
//! // … work …
//! pools.close().await;
//! postgres.close().await
//! # }
//! ```

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use tokio_util::sync::{CancellationToken, DropGuard};

mod account;
mod binaries;
mod cluster;
pub mod copy;
mod durability;
mod embedded;
mod error;
mod hosts;
mod locks;
mod patience;
mod pools;
mod postmaster;
mod programs;
mod put_back;
pub mod roles;
mod trouble;
mod url;
mod watch;

pub use account::Account;
pub use binaries::Binaries;
pub use error::PostgresError;
pub(crate) use locks::FileLock;
pub use locks::{ServeLock, ServeLockError};
pub use patience::{Lent, Pool, Transaction, within};
pub use pools::{PoolSizes, Pools};
pub use put_back::EmptyCluster;
pub use trouble::{DatabaseError, Trouble};

use crate::supervision::Supervisor;
use embedded::Embedded;
use programs::{Lead, Programs};
use watch::Primary;

/// The schema, in order.
static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// How a database's schema stands to this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// None was ever made.
    Missing,
    /// So many migrations are to come.
    Older {
        behind: usize,
    },
    Same,
    /// It has migrations that this program doesn't know.
    Newer,
}

/// What a database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// PostgreSQL's version, as it writes it.
    pub version: String,
    pub major: u32,
    /// How large the database is.
    pub bytes: u64,
}

/// An opened database.
#[derive(Debug)]
pub struct Postgres {
    primary: Primary,
    embedded: Option<Embedded>,
    supervisor: Supervisor,
    /// Ends the watch over pools when this is dropped.
    watch: DropGuard,
}

impl Postgres {
    /// Opens the database that `url` names, or without one the private cluster in
    /// `data_dir/postgres`, which is created and started when missing. A private one is started
    /// again within a second whenever it is gone, until [`Postgres::close`].
    ///
    /// # Errors
    /// See [`PostgresError`]; among others it refuses a database that isn't durable.
    pub async fn open(url: Option<&str>, data_dir: &Path) -> Result<Self, PostgresError> {
        Self::open_within(url, data_dir, Duration::ZERO).await
    }

    /// The same, where the database that `url` names may take `wait` to be there and to take
    /// writes. Meanwhile the log says what is waited for; what waiting can't help is refused at
    /// once.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open_within(
        url: Option<&str>,
        data_dir: &Path,
        wait: Duration,
    ) -> Result<Self, PostgresError> {
        let supervisor = Supervisor::default();
        match url {
            Some(url) => {
                let primary = Primary::find(url::hosts_of(url)?, wait).await?;
                check(&primary.options()).await?;
                Ok(Self::new(primary, None, supervisor))
            }
            None => {
                let embedded = Embedded::open(data_dir, &[], Some(&supervisor)).await?;
                Self::checked(embedded, supervisor).await
            }
        }
    }

    fn new(primary: Primary, embedded: Option<Embedded>, supervisor: Supervisor) -> Self {
        let watch = CancellationToken::new().drop_guard();
        Self { primary, embedded, supervisor, watch }
    }

    async fn checked(embedded: Embedded, supervisor: Supervisor) -> Result<Self, PostgresError> {
        let owner = embedded.owner_options();
        match check(&owner).await {
            Ok(()) => Ok(Self::new(Primary::only(owner), Some(embedded), supervisor)),
            Err(refusal) => {
                // The refusal is the error to report.
                drop(embedded.close().await);
                Err(refusal)
            }
        }
    }

    /// How to connect as the user that owns the schema: for migrations and other definitions. Of
    /// several hosts it is the one in use now.
    pub fn owner_options(&self) -> PgConnectOptions {
        self.primary.options()
    }

    /// What watches over the tasks of this node: over the private server already, and to be given
    /// to whatever else runs here.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Whether it is the private one.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// For other programs, `psql` say: the URL of the private database. `None` for one's own,
    /// whose URL the caller has.
    pub fn embedded_url(&self) -> Option<String> {
        let embedded = self.embedded.as_ref()?;
        Some(embedded.url(self.owner_options().get_database().unwrap_or_default()))
    }

    /// Copies the private cluster, which goes on serving, into the new folder `to`, with all the
    /// log that it takes to start it. With an earlier copy of it, `before`, only what changed since
    /// is read of the cluster, if Postgres can: whether it could. `before` must be of this
    /// cluster's own past. Nothing is synced.
    ///
    /// # Errors
    /// When it can't be copied; what is in `to` then is of no use.
    pub async fn copy_cluster(
        &self,
        to: &Path,
        before: Option<&Path>,
    ) -> Result<bool, PostgresError> {
        let programs = Programs { dir: self.bin_dir().unwrap_or_default() };
        let lead = self.lead(None)?;
        if let Some(before) = before {
            let changes = to.with_extension("changes");
            let combined = async {
                programs.base_backup(&lead, &changes, Some(before)).await?;
                programs.combine(before, &changes, to).await
            };
            let combined = combined.await;
            remove(&changes)?;
            match combined {
                Ok(()) => return Ok(true),
                // Summaries of the log are gone, say.
                Err(error) => tracing::info!(%error, "the whole cluster is copied"),
            }
            remove(to)?;
        }
        programs.base_backup(&lead, to, None).await.map(|()| false)
    }

    /// Writes what `snapshot` (of `pg_export_snapshot`) sees into the new file `to`, as Postgres's
    /// own archive. `url` is the one that this was opened by. Nothing is synced.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub async fn dump(
        &self,
        url: Option<&str>,
        snapshot: &str,
        to: &Path,
    ) -> Result<(), PostgresError> {
        self.programs()?.dump(&self.lead(url)?, snapshot, to).await
    }

    /// Puts such an archive into the database, which holds nothing: all of it or nothing. In a
    /// private one these roles are made, to which it gives rights.
    ///
    /// # Errors
    /// When it can't be put back whole; nothing was written then.
    pub async fn put_dump_back(
        &self,
        url: Option<&str>,
        from: &Path,
        given: &[String],
    ) -> Result<(), PostgresError> {
        let mut owner = pools::owner_connection(&self.owner_options()).await?;
        roles::ensure(&mut owner).await?;
        if self.is_embedded() {
            roles::make(&mut owner, given).await?;
        }
        self.programs()?.restore(&self.lead(url)?, from).await?;
        // That may have taken longer than an idle connection lasts.
        let mut owner = pools::owner_connection(&self.owner_options()).await?;
        roles::own_read_models(&mut owner).await?;
        owner.close().await.map_err(PostgresError::sql("close a connection"))
    }

    /// Says whether a dump that is complete is there, and what Postgres's programs make of it.
    ///
    /// # Errors
    /// When it isn't, or they aren't.
    pub async fn check_dump(dump: &Path) -> Result<(), PostgresError> {
        Programs::newest()?.list(dump).await
    }

    fn programs(&self) -> Result<Programs, PostgresError> {
        match self.bin_dir() {
            Some(dir) => Ok(Programs { dir }),
            None => Programs::newest(),
        }
    }

    fn lead(&self, url: Option<&str>) -> Result<Lead, PostgresError> {
        match (self.embedded_url(), url) {
            (Some(url), _) => Ok(Lead { url, password: None, private: true }),
            (None, url) => url::for_libpq(url.unwrap_or_default(), &self.owner_options()),
        }
    }

    /// A connection of the user that owns the schema, for the few questions of a command that
    /// must not touch the schema.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn owner_connection(&self) -> Result<PgConnection, PostgresError> {
        pools::owner_connection(&self.owner_options()).await
    }

    /// The folder of the private server's programs (`pgbench`, `pg_dump`). `None` for one's own.
    pub fn bin_dir(&self) -> Option<PathBuf> {
        self.embedded.as_ref()?.bin_dir().ok()
    }

    /// Whether a schema was ever made there.
    ///
    /// # Errors
    /// When the database can't be asked.
    pub async fn is_migrated(&self) -> Result<bool, PostgresError> {
        self.asked("look for the schema", async |connection| {
            let made = "select to_regclass('_sqlx_migrations') is not null";
            sqlx::query_scalar(made).fetch_one(connection).await
        })
        .await
    }

    /// How the schema stands to this program's, which is left as it is.
    ///
    /// # Errors
    /// When the database can't be asked.
    pub async fn schema(&self) -> Result<Schema, PostgresError> {
        if !self.is_migrated().await? {
            return Ok(Schema::Missing);
        }
        let applied: Vec<i64> = self
            .asked("look at the schema", async |connection| {
                let applied = "select version from _sqlx_migrations where success";
                sqlx::query_scalar(applied).fetch_all(connection).await
            })
            .await?;
        let is_known = |version: &i64| MIGRATOR.version_exists(*version);
        let behind = MIGRATOR.iter().filter(|step| !applied.contains(&step.version)).count();
        Ok(match (applied.iter().all(is_known), behind) {
            (false, _) => Schema::Newer,
            (true, 0) => Schema::Same,
            (true, behind) => Schema::Older { behind },
        })
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When the database can't be asked.
    pub async fn facts(&self) -> Result<Facts, PostgresError> {
        let (version, number, bytes): (String, i32, i64) = self
            .asked("ask for the version", async |connection| {
                let facts = "select current_setting('server_version'), \
                     current_setting('server_version_num')::int, \
                     pg_database_size(current_database())";
                sqlx::query_as(facts).fetch_one(connection).await
            })
            .await?;
        let major = u32::try_from(number / 10_000).unwrap_or(0);
        Ok(Facts { version, major, bytes: bytes.cast_unsigned() })
    }

    /// Asks as the owner, on a connection of its own.
    async fn asked<T>(
        &self,
        doing: &'static str,
        ask: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, PostgresError> {
        pools::opened(async {
            let owner = self.owner_options();
            let mut connection = owner.connect().await.map_err(PostgresError::sql(doing))?;
            let answer = ask(&mut connection).await.map_err(PostgresError::sql(doing))?;
            connection.close().await.map_err(PostgresError::sql("close a connection"))?;
            Ok(answer)
        })
        .await
    }

    /// Creates or updates roles and schema; any number of processes may call it at once.
    ///
    /// # Errors
    /// [`PostgresError::Roles`] when the user may not, [`PostgresError::OtherSchema`] when the
    /// schema is another version's, [`PostgresError::Migrate`] when a migration fails.
    pub async fn migrate(&self) -> Result<(), PostgresError> {
        migrate(&self.owner_options()).await
    }

    /// Opens the pools. Needs the roles, so [`Postgres::migrate`] comes first. Until this is
    /// dropped, a task keeps those of a database by URL on the host that takes its writes.
    ///
    /// # Errors
    /// When the database can't be reached, isn't durable, or the roles can't be taken.
    pub async fn pools(&self, sizes: PoolSizes) -> Result<Pools, PostgresError> {
        let pools = pools::open(&self.owner_options(), sizes).await?;
        if self.embedded.is_none() {
            let stop = self.watch.token().child_token();
            let (primary, watched, until) = (self.primary.clone(), pools.clone(), stop.clone());
            self.supervisor.spawn("database_watch", stop, move || {
                primary.clone().follow(watched.clone(), until.clone())
            });
        }
        Ok(pools)
    }

    /// Leaves the database. A private one is stopped when no other process uses it.
    ///
    /// # Errors
    /// When it doesn't stop; it is left running then, its data safe.
    pub async fn close(self) -> Result<(), PostgresError> {
        match self.embedded {
            Some(embedded) => embedded.close().await,
            None => Ok(()),
        }
    }
}

/// Removes a folder, if it is there.
fn remove(dir: &Path) -> Result<(), PostgresError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PostgresError::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

/// The newest version of the schema that this program knows.
pub fn schema_known() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

async fn migrate(owner: &PgConnectOptions) -> Result<(), PostgresError> {
    let mut connection = pools::owner_connection(owner).await?;
    roles::ensure(&mut connection).await?;
    MIGRATOR.run(&mut connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(_)
        | MigrateError::VersionMismatch(_)
        | MigrateError::VersionTooNew(..)
        | MigrateError::VersionTooOld(..) => PostgresError::OtherSchema(error.to_string()),
        other => PostgresError::Migrate(other),
    })?;
    connection.close().await.map_err(PostgresError::sql("close a connection"))
}

async fn check(owner: &PgConnectOptions) -> Result<(), PostgresError> {
    pools::opened(async {
        let mut connection =
            owner.connect().await.map_err(PostgresError::sql("connect to the database"))?;
        durability::check(&mut connection).await?;
        connection.close().await.map_err(PostgresError::sql("close a connection"))
    })
    .await
}

/// Where `options` lead, without user or password.
fn describe(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or("(default)");
    match options.get_socket() {
        Some(socket) => format!("{database} at {}:{}", socket.display(), options.get_port()),
        None => format!("{database} at {}:{}", options.get_host(), options.get_port()),
    }
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod for_tests {
    //! What [`crate::testing`] needs beyond the public parts.

    use std::path::Path;

    use sqlx::postgres::PgConnectOptions;

    use super::{Embedded, PostgresError, cluster::Setting};

    /// Many tests, each with pools of its own, share one server. Little WAL, so that its files are
    /// used again: each copy of the template writes 8 MB of it, and new files cost twice that.
    const SETTINGS: &[Setting] = &[
        ("max_connections", "400"),
        ("shared_buffers", "128MB"),
        ("max_wal_size", "192MB"),
        ("min_wal_size", "192MB"),
    ];

    /// The shared test server, unwatched: the task of one test's runtime must not hold a lock
    /// that another test waits for.
    #[derive(Debug)]
    pub(crate) struct TestServer(Embedded);

    impl TestServer {
        pub(crate) async fn open(data_dir: &Path) -> Result<Self, PostgresError> {
            Embedded::open(data_dir, SETTINGS, None).await.map(Self)
        }
        pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
            self.0.options(database)
        }
        pub(crate) fn url(&self, database: &str) -> String {
            self.0.url(database)
        }
        /// Stops the server if this was the last user.
        pub(crate) async fn close(self) -> Result<(), PostgresError> {
            self.0.close().await
        }
    }

    pub(crate) async fn migrate(owner: &PgConnectOptions) -> Result<(), PostgresError> {
        super::migrate(owner).await
    }

    /// Version and checksum of every migration: names the schema they make.
    pub(crate) fn migrations() -> impl Iterator<Item = (i64, &'static [u8])> {
        super::MIGRATOR.iter().map(|migration| (migration.version, migration.checksum.as_ref()))
    }
}
