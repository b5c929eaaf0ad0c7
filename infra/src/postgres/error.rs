//! What can go wrong between Punchtrail and its database. Each message says what happened, what
//! was kept, and what to do; none holds a password.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use super::Trouble;

/// Why a database could not be opened, prepared or closed.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No `initdb` and `postgres` anywhere.
    #[error(
        "no PostgreSQL server programs (initdb, postgres) were found on this machine: install \
         them with `apt-get install postgresql`, or name their folder in PG_BIN_DIR, or set \
         DATABASE_URL to a database of your own"
    )]
    NoBinaries,

    /// `PG_BIN_DIR` is set and wrong.
    #[error(
        "PG_BIN_DIR is {}, but no working `initdb` and `postgres` are there: correct it, or unset \
         it to have them searched for", dir.display()
    )]
    BinDirUnusable { dir: PathBuf },

    /// A cluster of another major version than every server installed.
    #[error(
        "the data in {} was written by PostgreSQL {needed}, and only {found} is installed; nothing \
         was changed. Install the old one (`apt-get install postgresql-{needed}`), or move the \
         data with pg_upgrade", cluster.display()
    )]
    NoMatchingVersion {
        cluster: PathBuf,
        needed: u32,
        /// The major versions found, for people.
        found: String,
    },

    /// A program that should start did not.
    #[error("`{}` could not be run as user {user}: {source}", program.display())]
    NotRunnable {
        program: PathBuf,
        /// The user it should have run as.
        user: String,
        source: std::io::Error,
    },

    /// Postgres refuses to run as root, and the user it runs as can't reach its directory.
    #[error(
        "started as root, PostgreSQL runs as user {user}, which may not pass through {} on the way \
         to {}; nothing was changed. Either `chmod o+x {}`, or choose a data directory elsewhere, \
         for example /var/lib/punchtrail", blocking.display(), wanted.display(), blocking.display()
    )]
    NotSearchable {
        user: String,
        /// The directory that stops it.
        blocking: PathBuf,
        wanted: PathBuf,
    },

    /// Started as root without any unprivileged user to drop to.
    #[error(
        "PostgreSQL refuses to run as root and this machine has neither a user `postgres` nor \
         `nobody`: start Punchtrail as an ordinary user, or create one with \
         `useradd --system postgres`"
    )]
    NoUnprivilegedUser,

    /// The cluster belongs to somebody else and we are not root.
    #[error(
        "{} belongs to user id {owner}, and this process runs as user id {me}; nothing was \
         changed. Run the command as that user, or as root", path.display()
    )]
    OwnedByOther {
        /// What belongs to the other.
        path: PathBuf,
        owner: u32,
        me: u32,
    },

    /// The short directory for the socket exists and isn't ours alone.
    #[error(
        "the path to {} is too long for a Unix socket, and the short replacement {} exists but \
         isn't a private directory of the database's user: remove it, or choose a data directory \
         with a shorter path", wanted.display(), taken.display()
    )]
    SocketDirTaken {
        /// Where the socket would have gone.
        wanted: PathBuf,
        taken: PathBuf,
    },

    /// Another process has been starting or stopping this cluster for too long.
    #[error(
        "{holder} has been starting or stopping PostgreSQL in {} for more than {waited_s} s; \
         nothing was changed. See postgres.log there, and try again", dir.display()
    )]
    Busy {
        dir: PathBuf,
        /// Who holds the lock, for people.
        holder: String,
        /// How long we waited, in seconds.
        waited_s: u64,
    },

    /// A directory without our marker that nevertheless holds databases.
    #[error(
        "{} holds databases, but not the mark Punchtrail leaves in a cluster it finished creating; \
         it was not touched. If it is a restored copy, `touch {}` and start again; otherwise move \
         it away", cluster.display(), marker.display()
    )]
    UnmarkedCluster { cluster: PathBuf, marker: PathBuf },

    #[error("initdb could not create a cluster in {}: {output}", cluster.display())]
    Initdb { cluster: PathBuf, output: String },

    /// The server exits, or doesn't answer.
    #[error(
        "PostgreSQL did not start in {}; its data was left as it is. The end of {} says: {tail}",
        cluster.display(), log.display()
    )]
    DidNotStart {
        cluster: PathBuf,
        log: PathBuf,
        /// The log's last lines of this attempt.
        tail: String,
    },

    /// The server was asked to stop and is still there.
    #[error(
        "PostgreSQL (pid {pid}) was asked to stop and is still running after {waited_s} s; it was \
         left running and its data is safe. See {}", log.display()
    )]
    DidNotStop {
        pid: i32,
        /// How long we waited, in seconds.
        waited_s: u64,
        log: PathBuf,
    },

    /// A setting under which an acknowledged punch could be lost.
    #[error(
        "the database runs with {setting} = {value}, so {fault} could lose a punch that was \
         already acknowledged; Punchtrail refuses to use it and wrote nothing. Remedy: {remedy}"
    )]
    NotDurable {
        /// What could lose it: `a power cut`.
        fault: &'static str,
        setting: &'static str,
        /// Its value, or `(unknown)`.
        value: String,
        remedy: &'static str,
    },

    /// The database's encoding can't hold every name.
    #[error(
        "the database's encoding is {encoding}, and Punchtrail needs UTF8; nothing was written. \
         Create one with `create database punchtrail encoding 'UTF8' template template0`"
    )]
    NotUtf8 { encoding: String },

    #[error(
        "the database is a read-only standby; nothing was written. Promote it, or point \
         DATABASE_URL at its primary"
    )]
    Standby,

    /// `DATABASE_URL` can't be parsed.
    #[error(
        "DATABASE_URL can't be understood ({0}); it looks like \
         postgres://user:password@host:5432/database, or with several hosts, host1:5432,host2:5432"
    )]
    Url(String),

    /// None of the hosts of `DATABASE_URL` can be used, also after waiting.
    #[error(
        "no database that takes writes was found in {waited_s} s, and nothing was written. By \
         DATABASE_URL: {found}. {remedy}"
    )]
    NoWriter {
        /// Each host, port and database, with what was found there; never a password.
        found: String,
        /// What to do about it.
        remedy: &'static str,
        /// How long we waited, in seconds.
        waited_s: u64,
    },

    /// The roles are missing and the connecting user may not create or join them.
    #[error(
        "the database user {user} may not set up the roles Punchtrail works under ({reason}); \
         nothing was changed. Have an administrator of the database run:\n{sql}"
    )]
    Roles { user: String, reason: String, sql: String },

    /// The schema was made by a newer Punchtrail, or its migrations were edited.
    #[error(
        "the database's schema was made by another version of Punchtrail ({0}); nothing was \
         changed. Use that version, or a newer one"
    )]
    OtherSchema(String),

    /// A migration failed; it was rolled back.
    #[error("a schema migration failed and was rolled back: {0}")]
    Migrate(MigrateError),

    /// A program of Postgres that isn't installed.
    #[error(
        "`{program}` of PostgreSQL was not found on this machine: install it with `apt-get install \
         postgresql-client`, of the server's version or a newer one, or name its folder in \
         PG_BIN_DIR"
    )]
    NoProgram { program: &'static str },

    /// A program of Postgres failed.
    #[error("`{program}` failed: {output}")]
    Program {
        program: &'static str,
        /// What it said last.
        output: String,
    },

    /// A cluster is there, where another one should come.
    #[error(
        "{} holds a database; nothing was changed. Move the data directory aside (don't delete \
         it), or choose another", cluster.display()
    )]
    NotEmpty { cluster: PathBuf },

    #[error("{doing}: {source}")]
    Sql { doing: &'static str, source: sqlx::Error },

    /// A file or directory could not be used.
    #[error("can't {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
}

impl PostgresError {
    /// Whether opening the database once more may help: it is being failed over, say.
    pub fn passes(&self) -> bool {
        match self {
            Self::Standby => true,
            Self::Sql { source, .. }
            | Self::Migrate(
                MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _),
            ) => Trouble::of(source) == Trouble::Passing,
            _ => false,
        }
    }

    /// For `map_err`: names the path an I/O error is about.
    pub(crate) fn io(
        doing: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// For `map_err`: says what a failed statement was for.
    pub(crate) fn sql(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql { doing, source }
    }
}
