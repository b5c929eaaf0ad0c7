//! What a device keeps, in SQLite.
//!
//! WAL with `synchronous=FULL`: a commit has returned only after its frames were synced, so what a
//! screen confirmed survives a power cut. One connection a process. Every write runs in a
//! transaction that takes SQLite's write lock when it begins (`BEGIN IMMEDIATE`), so the agent and
//! any number of `punch` processes work side by side on one folder, and a sequence number is read
//! and taken under one lock: two captures can't get the same. A number is taken only by a commit.
//!
//! SQL lives in one module a table: `identity`, `contact`, `failures`, `outbox`, `attachments`,
//! `disputes`, `photos`, `commands`, `roster`, `guesses`; `passed` counts time in `contact`, and
//! `damage` reads what can be read of a file that is damaged.

pub mod attachments;
pub mod commands;
pub mod contact;
pub mod damage;
pub mod disputes;
pub mod failures;
pub mod guesses;
pub mod identity;
mod log;
pub mod outbox;
pub mod passed;
pub mod photos;
pub mod roster;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};

use crate::folder::{self, Folder, FolderError, UseLock};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a write waits for another process's, in milliseconds.
pub const WRITE_WAIT_MS: u64 = 10_000;

const SQLITE_BUSY: i32 = 5;
const SQLITE_IOERR: i32 = 10;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_NOTADB: i32 = 26;
/// The index of the log couldn't be made as large as it has to be: no room, said in other words.
const SQLITE_IOERR_SHMSIZE: i32 = 4_874;

/// A transaction that holds the folder's write lock.
pub type Write = Transaction<'static, Sqlite>;

/// Why the store refused. In every case the transaction left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "this device's disk is full. What was recorded before is safe; free space, then try again"
    )]
    Full,
    /// Another process wrote for longer than [`WRITE_WAIT_MS`].
    #[error("another process has been writing to this device's folder for over ten seconds")]
    Busy,
    /// The disk failed to read or write.
    #[error("the disk failed: {0}")]
    DiskFailed(String),
    #[error(
        "the device's database is damaged ({0}): some of the punches that were confirmed here may \
         not be readable any more. Nothing in the folder was changed, and nothing may be deleted \
         from it. Punch elsewhere. Whoever looks after this device stops the agent and runs \
         `punchtrail-device salvage`, which saves what can be read, says what can't, and keeps \
         the damaged file"
    )]
    Damaged(String),
    /// A salvage was cut short.
    #[error(
        "a salvage of this folder was cut short. Nothing is lost; run `punchtrail-device salvage` \
         again, which ends it"
    )]
    SalvageBegun,
    /// The folder was never enrolled.
    #[error("{0} is not a device's folder yet. Run `punchtrail-device --dir {0} enroll …` first")]
    Empty(String),
    /// A later program wrote this folder.
    #[error("this folder was written by a later version of punchtrail-device; use that version")]
    Newer,
    /// This program's schema is newer, and an agent of the earlier one still runs.
    #[error("this folder needs an upgrade while an agent runs. Restart the agent, then try again")]
    UpgradeWaits,
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What this program wrote can't be read back.
    #[error("the device's database holds something that can't be read: {0}")]
    Unreadable(String),
    /// Anything else SQLite says.
    #[error("the device's database: {0}")]
    Sqlite(sqlx::Error),
}

impl StoreError {
    /// Whether there is no room left.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Folder(error) => error.is_full(),
            _ => false,
        }
    }

    /// A stable word for it, where there is one.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Damaged(_) => Some("damaged"),
            Self::SalvageBegun => Some("salvage_begun"),
            _ => None,
        }
    }

    /// A stored text that this program can't read.
    pub fn unreadable(what: impl std::fmt::Display) -> Self {
        Self::Unreadable(what.to_string())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(database) => database.code().and_then(|c| c.parse::<i32>().ok()),
            _ => None,
        };
        if code == Some(SQLITE_IOERR_SHMSIZE) {
            return Self::Full;
        }
        // The low byte is the primary code; the rest says more about it.
        match code.map(|code| code & 0xff) {
            Some(SQLITE_FULL) => Self::Full,
            Some(SQLITE_BUSY) => Self::Busy,
            Some(SQLITE_IOERR) => Self::DiskFailed(error.to_string()),
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

/// A device's database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    /// While it is open, nobody salvages it.
    used: Arc<Mutex<Option<UseLock>>>,
}

impl Store {
    /// Opens the folder's database; `create` makes one where there is none. `pages_max` bounds its
    /// size in pages of 4 KiB; `synced` makes every commit wait for the disk; without it a killed
    /// process loses nothing, a power cut may, and nobody else can use the file meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Empty`] where there is none and none may be made.
    pub async fn open(
        folder: &Folder,
        create: bool,
        pages_max: Option<u32>,
        synced: bool,
    ) -> Result<Self, StoreError> {
        let path = folder.database();
        // Before the lock's file is made in a folder that is none of ours.
        folder.may_use()?;
        if !create && !path.exists() && !folder.salvaged().exists() {
            return Err(StoreError::Empty(folder.path().display().to_string()));
        }
        let used = if synced { Self::used(folder)? } else { None };
        if folder.salvaged().exists() {
            return Err(StoreError::SalvageBegun);
        }
        if create {
            folder::create_private(&path)?;
        } else if path.metadata().is_ok_and(|file| file.len() == 0) {
            // SQLite would take it for a new one.
            return Err(StoreError::Damaged(format!("{} is empty", path.display())));
        }
        let mut options = SqliteConnectOptions::new()
            .filename(&path)
            .foreign_keys(true)
            .busy_timeout(Duration::from_millis(WRITE_WAIT_MS))
            .disable_statement_logging();
        options = match synced {
            true => {
                options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full)
            }
            // A file that is opened for a moment, ten thousand of them in turn: a log and its index
            // would be made and deleted each time.
            false => options
                .locking_mode(SqliteLockingMode::Exclusive)
                .journal_mode(SqliteJournalMode::Persist)
                .synchronous(SqliteSynchronous::Off),
        };
        if let Some(pages) = pages_max {
            options = options.pragma("max_page_count", pages.to_string());
        }
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        let store = Self { pool, used: Arc::new(Mutex::new(used)) };
        store.migrate(folder).await?;
        Ok(store)
    }

    /// Opens the folder beside others; who finds nobody there sees to it that a crash left nothing
    /// that SQLite would pass over.
    fn used(folder: &Folder) -> Result<Option<UseLock>, StoreError> {
        match folder.lock_use_alone() {
            Ok(alone) => {
                damage::check_log(&folder.database())?;
                Ok(Some(alone.shared(folder)?))
            }
            Err(_) => Ok(folder.lock_use()?),
        }
    }

    /// Brings the schema up to this program's, as the folder's agent, since nobody else may look at
    /// it halfway; does nothing when it is there already.
    async fn migrate(&self, folder: &Folder) -> Result<(), StoreError> {
        let newest = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
        let found = self.schema_version().await?;
        match found {
            found if found == newest => return Ok(()),
            found if found > newest => return Err(StoreError::Newer),
            _ => {}
        }
        let _lock = match folder.lock_agent() {
            Ok(lock) => lock,
            Err(FolderError::Taken { .. }) => return Err(StoreError::UpgradeWaits),
            Err(error) => return Err(error.into()),
        };
        MIGRATIONS.run(&self.pool).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error)
            | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => error.into(),
            other => StoreError::unreadable(other),
        })
    }

    async fn schema_version(&self) -> Result<i64, StoreError> {
        let there: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'",
        )
        .fetch_one(&self.pool)
        .await?;
        if there == 0 {
            return Ok(0);
        }
        Ok(sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
            .fetch_one(&self.pool)
            .await?)
    }

    /// Looks through the whole file.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the first thing that is wrong.
    pub async fn check(&self) -> Result<(), StoreError> {
        let found: String =
            sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&self.pool).await?;
        if found == "ok" { Ok(()) } else { Err(StoreError::Damaged(found)) }
    }

    /// Begins a transaction that holds the folder's write lock.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another process keeps it too long.
    pub async fn write(&self) -> Result<Write, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// The connection, for reading.
    ///
    /// # Errors
    /// When it can't be had.
    pub async fn read(&self) -> Result<sqlx::pool::PoolConnection<Sqlite>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Ends the connection, so that SQLite folds its log into the database.
    pub async fn close(&self) {
        self.pool.close().await;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A new database of this program's schema at `path`, of one file; in memory where there is none.
///
/// # Errors
/// When it can't be made.
pub(crate) async fn make(path: Option<&Path>) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging();
    let options = match path {
        Some(path) => {
            folder::create_private(path)?;
            options.filename(path)
        }
        None => options.in_memory(true),
    };
    let mut made = options.connect().await?;
    MIGRATIONS.run(&mut made).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error)
        | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::unreadable(other),
    })?;
    Ok(made)
}

/// A database that [`make`] made.
///
/// # Errors
/// When it can't be opened.
pub(crate) async fn open_made(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).foreign_keys(true);
    Ok(options.disable_statement_logging().connect().await?)
}

/// A number that SQLite keeps signed.
pub(crate) fn to_stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that was never negative.
pub(crate) fn from_stored(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The one connection that SQL modules work on.
pub(crate) type Db<'a> = &'a mut SqliteConnection;
