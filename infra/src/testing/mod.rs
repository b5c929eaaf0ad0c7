//! A database for a test, in milliseconds.
//!
//! All test processes share one real, durable Postgres under `target/test-postgres` (or where
//! `PUNCHTRAIL_TEST_DATA_DIR` says). The schema is migrated once into a template, named after the
//! migrations, and each test gets a copy of its own. The first user starts the server and the last
//! one stops it, unless [`start_cluster`] holds it for a whole run. For tests only: whatever fails
//! here panics with its reason.
//!
//! ```no_run
//! # async fn example() {
//! use punchtrail_infra::testing::TestDatabase;
//!
//! let database = TestDatabase::new().await;
//! let pools = database.pools().await;
//! // … test …
//! database.close().await;
//! # }
//! ```

pub mod line;
pub mod photos;
pub mod saved;
pub mod world;

/// For tests that look at rows, of crates that in earnest know no SQL.
pub use sqlx;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::postgres::{
    FileLock, PoolSizes, Pools, Postgres, PostgresError,
    for_tests::{self, TestServer},
};

/// Always there, never a test's.
const MAINTENANCE: &str = "postgres";
const TEST_PREFIX: &str = "test_";
const TEMPLATE_PREFIX: &str = "template_";
/// Another process may be migrating.
const TEMPLATE_WAIT: Duration = Duration::from_secs(120);
/// A copy fails while something of Postgres itself looks at the template.
const COPY_ATTEMPTS_MAX: u32 = 20;
const COPY_RETRY: Duration = Duration::from_millis(50);
/// Small: many tests share the server.
const SIZES: PoolSizes = PoolSizes { writer: 4, reader: 4, follower: 4, owner: 2 };

/// One test's own database with the whole schema, dropped on [`TestDatabase::close`] or drop.
#[derive(Debug)]
pub struct TestDatabase {
    owner: PgConnectOptions,
    url: String,
    held: Option<Held>,
}

/// What a test's database begins with.
#[derive(Debug, Clone, Copy)]
enum Content {
    Schema,
    Nothing,
}

/// What goes when the database goes.
#[derive(Debug)]
struct Held {
    name: String,
    /// Locked while the database is in use; a database without a locked file is a leftover.
    _lock: FileLock,
    lock_path: PathBuf,
    server: TestServer,
    place: ClusterDir,
}

impl TestDatabase {
    /// A fresh copy of the migrated schema.
    ///
    /// # Panics
    /// When it can't be had; the message says why.
    pub async fn new() -> Self {
        Self::create(Content::Schema).await
    }

    /// One that holds nothing.
    ///
    /// # Panics
    /// When it can't be had; the message says why.
    pub async fn empty() -> Self {
        Self::create(Content::Nothing).await
    }

    async fn create(content: Content) -> Self {
        match Self::try_create(content).await {
            Ok(database) => database,
            Err(error) => panic!("no test database: {error}"),
        }
    }

    async fn try_create(content: Content) -> Result<Self, PostgresError> {
        let (place, server) = open_server().await?;
        let mut maintenance = connect(&server).await?;
        drop_leftovers(&mut maintenance, &place).await?;
        let name = format!("{TEST_PREFIX}{}", uuid::Uuid::now_v7().simple());
        let lock_path = place.lock_of(&name);
        let lock = FileLock::open(&lock_path).map_err(PostgresError::io("open", &lock_path))?;
        let locked = lock.try_exclusive().map_err(PostgresError::io("lock", &lock_path))?;
        assert!(locked, "{name} is a new name, so nobody else has it");
        match content {
            Content::Schema => copy_template(&mut maintenance, &server, &place, &name).await?,
            Content::Nothing => create_empty(&mut maintenance, &name).await?,
        }
        maintenance.close().await.map_err(PostgresError::sql("close a connection"))?;
        Ok(Self {
            owner: server.options(&name),
            url: server.url(&name),
            held: Some(Held { name, _lock: lock, lock_path, server, place }),
        })
    }

    /// What a process would be given as `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How to connect as the user that owns the schema.
    pub fn owner_options(&self) -> &PgConnectOptions {
        &self.owner
    }

    /// It, opened as a database of one's own.
    ///
    /// # Panics
    /// When it can't be opened.
    pub async fn postgres(&self) -> Postgres {
        match Postgres::open(Some(&self.url), Path::new("/nonexistent")).await {
            Ok(postgres) => postgres,
            Err(error) => panic!("{error}"),
        }
    }

    /// New pools, small ones.
    ///
    /// # Panics
    /// When they can't be opened.
    pub async fn pools(&self) -> Pools {
        match self.postgres().await.pools(SIZES).await {
            Ok(pools) => pools,
            Err(error) => panic!("{error}"),
        }
    }

    /// Drops the database, also under open connections.
    ///
    /// # Panics
    /// When that fails.
    pub async fn close(mut self) {
        if let Some(held) = self.held.take()
            && let Err(error) = dispose(held).await
        {
            panic!("the test database could not be dropped: {error}");
        }
    }
}

impl Drop for TestDatabase {
    /// Best effort, for a test that failed; the next run removes what this leaves.
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        // The test's own runtime may be going down, or be this thread.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime
                && let Err(error) = runtime.block_on(dispose(held))
            {
                tracing::warn!(%error, "a test database stays behind");
            }
        });
        drop(dropping.join());
    }
}

async fn dispose(held: Held) -> Result<(), PostgresError> {
    let Held { name, _lock: lock, lock_path, server, place } = held;
    let mut maintenance = connect(&server).await?;
    drop_database(&mut maintenance, &name).await?;
    drop(maintenance.close().await);
    drop(fs::remove_file(&lock_path));
    drop(lock);
    leave(server, &place).await
}

/// Holds the server for the tests of a whole run, so that it isn't started for each: it then
/// runs until [`stop_cluster`], or until a test ends after process `keep_while` has ended.
/// Drops what killed tests left, and migrates the template.
///
/// # Errors
/// When the server or the schema can't be had.
pub async fn start_cluster(keep_while: u32) -> Result<(), PostgresError> {
    let (place, server) = open_server().await?;
    let keep = place.keep();
    fs::write(&keep, keep_while.to_string()).map_err(PostgresError::io("write", &keep))?;
    let mut maintenance = connect(&server).await?;
    drop_leftovers(&mut maintenance, &place).await?;
    let current = template_name();
    for old in databases(&mut maintenance, TEMPLATE_PREFIX).await? {
        if old != current {
            drop_database(&mut maintenance, &old).await?;
        }
    }
    ensure_template(&mut maintenance, &server, &place).await?;
    drop(maintenance.close().await);
    leave(server, &place).await
}

/// Ends the hold of [`start_cluster`], and with it the server unless a test still uses it.
///
/// # Errors
/// When the server doesn't stop.
pub async fn stop_cluster() -> Result<(), PostgresError> {
    let (place, server) = open_server().await?;
    drop(fs::remove_file(place.keep()));
    leave(server, &place).await
}

/// A directory of a test's own, removed when dropped, in which a Postgres that runs as another
/// user than root finds its way, whatever the umask.
///
/// # Panics
/// When it can't be made.
pub fn data_dir() -> tempfile::TempDir {
    let made = tempfile::tempdir().and_then(|dir| {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        Ok(dir)
    });
    match made {
        Ok(dir) => dir,
        Err(error) => panic!("no temporary directory: {error}"),
    }
}

/// The directory all tests share.
#[derive(Debug, Clone)]
struct ClusterDir(PathBuf);

impl ClusterDir {
    /// `PUNCHTRAIL_TEST_DATA_DIR`, else in cargo's target directory.
    fn chosen() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Self(match (set("PUNCHTRAIL_TEST_DATA_DIR"), set("CARGO_TARGET_DIR")) {
            (Some(dir), _) => dir.into(),
            (None, Some(target)) => workspace.join(target).join("test-postgres"),
            (None, None) => workspace.join("target/test-postgres"),
        })
    }

    /// For a checkout that another user than root can't enter, one elsewhere, always the same.
    fn fallback(&self) -> Self {
        let name = Sha256::digest(self.0.as_os_str().as_encoded_bytes());
        Self(Path::new("/tmp").join(format!("punchtrail-test-{}", hex::encode(&name[..8]))))
    }

    fn locks(&self) -> PathBuf {
        self.0.join("databases")
    }

    fn lock_of(&self, database: &str) -> PathBuf {
        self.locks().join(format!("{database}.lock"))
    }

    fn keep(&self) -> PathBuf {
        self.0.join("keep")
    }

    /// Whether a run holds the server: the process it named is still there.
    fn is_kept(&self) -> bool {
        let pid = fs::read_to_string(self.keep()).ok().and_then(|pid| pid.trim().parse().ok());
        pid.and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    }
}

async fn open_server() -> Result<(ClusterDir, TestServer), PostgresError> {
    let place = ClusterDir::chosen();
    let (place, server) = match TestServer::open(&place.0).await {
        Err(PostgresError::NotSearchable { .. }) => {
            let place = place.fallback();
            let server = TestServer::open(&place.0).await?;
            (place, server)
        }
        other => (place, other?),
    };
    let locks = place.locks();
    fs::create_dir_all(&locks).map_err(PostgresError::io("create", &locks))?;
    Ok((place, server))
}

async fn leave(server: TestServer, place: &ClusterDir) -> Result<(), PostgresError> {
    if place.is_kept() { Ok(()) } else { server.close().await }
}

async fn connect(server: &TestServer) -> Result<PgConnection, PostgresError> {
    server
        .options(MAINTENANCE)
        .connect()
        .await
        .map_err(PostgresError::sql("connect to the test server"))
}

async fn execute(
    maintenance: &mut PgConnection,
    doing: &'static str,
    statement: &str,
) -> Result<(), PostgresError> {
    sqlx::raw_sql(statement).execute(maintenance).await.map(drop).map_err(PostgresError::sql(doing))
}

async fn create_empty(maintenance: &mut PgConnection, name: &str) -> Result<(), PostgresError> {
    let statement = format!("create database {name} encoding 'UTF8' template template0");
    execute(maintenance, "create an empty database", &statement).await
}

async fn drop_database(maintenance: &mut PgConnection, name: &str) -> Result<(), PostgresError> {
    let statement = format!("drop database if exists {name} with (force)");
    execute(maintenance, "drop a test database", &statement).await
}

async fn databases(
    maintenance: &mut PgConnection,
    prefix: &str,
) -> Result<Vec<String>, PostgresError> {
    sqlx::query_scalar("select datname::text from pg_database where starts_with(datname::text, $1)")
        .bind(prefix)
        .fetch_all(maintenance)
        .await
        .map_err(PostgresError::sql("list the test databases"))
        // Postgres's own.
        .map(|names: Vec<String>| names.into_iter().filter(|name| name != "template_").collect())
}

/// Drops the databases of tests that were killed: nobody holds their locks.
async fn drop_leftovers(
    maintenance: &mut PgConnection,
    place: &ClusterDir,
) -> Result<(), PostgresError> {
    for name in databases(maintenance, TEST_PREFIX).await? {
        let path = place.lock_of(&name);
        let lock = FileLock::open(&path).map_err(PostgresError::io("open", &path))?;
        if lock.try_exclusive().map_err(PostgresError::io("lock", &path))? {
            drop_database(maintenance, &name).await?;
            drop(fs::remove_file(&path));
        }
    }
    Ok(())
}

fn template_name() -> String {
    let mut hash = Sha256::new();
    for (version, checksum) in for_tests::migrations() {
        hash.update(version.to_be_bytes());
        hash.update(checksum);
    }
    format!("{TEMPLATE_PREFIX}{}", hex::encode(&hash.finalize()[..8]))
}

async fn copy_template(
    maintenance: &mut PgConnection,
    server: &TestServer,
    place: &ClusterDir,
    name: &str,
) -> Result<(), PostgresError> {
    const OBJECT_IN_USE: &str = "55006";
    const INVALID_CATALOG_NAME: &str = "3D000";
    let mut attempt = 1;
    loop {
        let template = ensure_template(maintenance, server, place).await?;
        let statement = format!("create database {name} template {template}");
        let copied = sqlx::raw_sql(&statement).execute(&mut *maintenance).await;
        let Err(error) = copied else { return Ok(()) };
        let passing = error
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| [OBJECT_IN_USE, INVALID_CATALOG_NAME].contains(&code.as_ref()));
        if !passing || attempt == COPY_ATTEMPTS_MAX {
            return Err(PostgresError::sql("copy the template database")(error));
        }
        attempt += 1;
        tokio::time::sleep(COPY_RETRY).await;
    }
}

/// Migrates the template unless it is there. It gets its name last, so a half-made one has none.
async fn ensure_template(
    maintenance: &mut PgConnection,
    server: &TestServer,
    place: &ClusterDir,
) -> Result<String, PostgresError> {
    let template = template_name();
    if databases(maintenance, &template).await?.contains(&template) {
        return Ok(template);
    }
    let path = place.0.join("template.lock");
    let _alone = FileLock::exclusive(&path, TEMPLATE_WAIT)
        .await
        .map_err(PostgresError::io("lock", &path))?
        .unwrap_or_else(|| panic!("another process holds {} for too long", path.display()));
    if databases(maintenance, &template).await?.contains(&template) {
        return Ok(template);
    }
    let building = format!("building_{template}");
    drop_database(maintenance, &building).await?;
    create_empty(maintenance, &building).await?;
    for_tests::migrate(&server.options(&building)).await?;
    // A connection to it would stop every copy.
    let close = format!("alter database {building} allow_connections false");
    execute(maintenance, "close the template database", &close).await?;
    let name = format!("alter database {building} rename to {template}");
    execute(maintenance, "name the template database", &name).await?;
    Ok(template)
}
