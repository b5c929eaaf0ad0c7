//! What can go wrong with a backup. Each message says what happened, what was kept, what to do.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use punchtrail_protocol::OrgId;

use crate::{audit::checkpoint::FolderError, postgres::PostgresError};

/// How Postgres's programs say that a disk is full.
const FULL: &str = "No space left on device";

/// Why a backup was not made, not taken for whole, or not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder of backups holds something that isn't one.
    #[error(
        "{} holds other things and no backups; nothing was written. Give an empty folder, or one \
         that doesn't exist", dir.display()
    )]
    NotAFolder { dir: PathBuf },
    #[error(
        "the backups in {} are of another ledger ({theirs}, this one is {ours}); nothing was \
         written. Give each deployment a folder of its own", dir.display()
    )]
    OtherLedger { dir: PathBuf, theirs: OrgId, ours: OrgId },
    /// A backup in the data directory is lost with it.
    #[error(
        "{} is in the data directory, and would be lost with it; nothing was written. Give a \
         folder elsewhere, best on another disk", dir.display()
    )]
    Inside { dir: PathBuf },
    #[error("another backup is being made in {}; nothing was written. Let it end", dir.display())]
    Busy { dir: PathBuf },
    #[error("no server ever ran on this data, so there is nothing to back up; nothing was written")]
    NoLedger,
    #[error(
        "the disk of {} is full. What was written of this backup was removed, and the backups \
         before it are whole. Make room there, or remove old ones (`--keep N` does)", dir.display()
    )]
    Full { dir: PathBuf },
    #[error("there is no backup in {}{}", dir.display(), and_unfinished(*.unfinished))]
    NoBackup { dir: PathBuf, unfinished: usize },
    #[error("there is no backup {name} in {}; there are: {there}", dir.display())]
    NoSuch { dir: PathBuf, name: String, there: String },
    /// Its manifest can't be read.
    #[error("the backup {name} is damaged: {what}. Nothing was changed. Take another one")]
    Unreadable { name: String, what: String },
    /// Files of it are missing, or others than were written.
    #[error(
        "the backup {name} is damaged: {first}{}. Nothing was changed. Take another one",
        match *.more { 0 => String::new(), more => format!(", and {more} more") }
    )]
    Damaged { name: String, first: String, more: usize },
    #[error(
        "the backup {name} was made by a newer Punchtrail ({what}); nothing was changed. Use that \
         version, or a newer one"
    )]
    Newer { name: String, what: String },
    #[error(
        "the database's schema is {theirs}, and this Punchtrail knows {ours}; nothing was written. \
         Use the version that serves it"
    )]
    NewerSchema { theirs: i64, ours: i64 },
    /// A cluster goes into a data directory only.
    #[error(
        "the backup {name} is a copy of a private Postgres, and DATABASE_URL is set; nothing was \
         changed. Restore it without DATABASE_URL; into a database of yours goes a backup that \
         was made with --dump"
    )]
    Cluster { name: String },
    #[error(
        "the database holds {tables} table(s); nothing was changed. A backup goes into an empty \
         one: create another, and point DATABASE_URL at it"
    )]
    Tables { tables: i64 },
    #[error(
        "in the database that was backed up these roles have rights, and here they are missing: \
         {roles}. Nothing was changed. Create them (`create role NAME nologin`), and restore again"
    )]
    Roles { roles: String },
    /// What was put back isn't what was said to be backed up.
    #[error(
        "what was put back is not the ledger of the backup {name}: {what}. Don't serve it. Move \
         the data directory aside, and restore another backup"
    )]
    NotIt { name: String, what: String },
    #[error(
        "the checkpoints in {} are of another ledger than the backup; nothing was changed. Move \
         them aside, or choose another data directory", dir.display()
    )]
    OtherCheckpoints { dir: PathBuf },
    #[error("can't {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{0}")]
    Photos(io::Error),
    #[error(transparent)]
    Checkpoints(#[from] FolderError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("the database can't be read now: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the work was interrupted: {0}")]
    Interrupted(String),
}

fn and_unfinished(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(", only {count} that was interrupted before it was whole"),
    }
}

impl BackupError {
    /// For `map_err`: names the path that an I/O error is about.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether it is that a disk is full.
    pub(super) fn is_full(&self) -> bool {
        let full = |error: &io::Error| {
            matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Io { source, .. } | Self::Photos(source) => full(source),
            Self::Postgres(PostgresError::Program { output, .. }) => output.contains(FULL),
            _ => false,
        }
    }
}
