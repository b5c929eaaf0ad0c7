//! A folder of backups: whose they are, which there are, and room for one more.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use punchtrail_protocol::OrgId;
use serde::{Deserialize, Serialize};

use super::{BackupError, Manifest, files, manifest};
use crate::postgres::FileLock;

/// Says whose ledger the backups are of.
const OWNER: &str = "ledger.json";
const LOCK: &str = "lock";
/// What ends the name of one that isn't whole yet.
const UNFINISHED: &str = ".new";
/// A backup's name, as jiff writes times.
const NAME: &str = "%Y%m%dT%H%M%SZ";

#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    org: OrgId,
}

/// A folder of backups.
#[derive(Debug, Clone)]
pub struct BackupFolder {
    root: PathBuf,
}

/// A backup that is whole, as far as its manifest says.
#[derive(Debug, Clone)]
pub struct Found {
    pub name: String,
    pub path: PathBuf,
    pub manifest: Manifest,
}

impl BackupFolder {
    /// The folder, whatever is there.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Makes it this ledger's, if it is nobody's yet.
    pub(super) fn of(
        root: &Path,
        org: OrgId,
        data_dir: Option<&Path>,
    ) -> Result<Self, BackupError> {
        let folder = Self::at(root);
        let full = std::path::absolute(root).map_err(BackupError::io("find", root))?;
        let parent = full.ancestors().find(|above| above.exists()).unwrap_or(&full);
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if data_dir.is_some_and(|data| real(parent).starts_with(real(data))) {
            return Err(BackupError::Inside { dir: root.to_owned() });
        }
        match folder.owner()? {
            Some(theirs) if theirs == org => return Ok(folder),
            Some(theirs) => {
                return Err(BackupError::OtherLedger { dir: root.to_owned(), theirs, ours: org });
            }
            None => {}
        }
        files::make_folder(root)?;
        // A disk of its own comes with one.
        let others = fs::read_dir(root).map_err(BackupError::io("read", root))?;
        let known = [LOCK, "ledger.new", "lost+found"];
        let is_other = |name: std::ffi::OsString| !known.iter().any(|known| name == *known);
        if others.flatten().any(|entry| is_other(entry.file_name())) {
            return Err(BackupError::NotAFolder { dir: root.to_owned() });
        }
        let text = serde_json::json!({ "org": org }).to_string();
        files::write_surely(&root.join(OWNER), text.as_bytes())?;
        Ok(folder)
    }

    fn owner(&self) -> Result<Option<OrgId>, BackupError> {
        let path = self.root.join(OWNER);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(BackupError::io("read", &path))?,
        };
        let owner: Result<Owner, _> = serde_json::from_slice(&text);
        let what = |error: serde_json::Error| format!("{OWNER} can't be read: {error}");
        owner.map(|owner| Some(owner.org)).map_err(|error| BackupError::Unreadable {
            name: self.root.display().to_string(),
            what: what(error),
        })
    }

    /// Keeps others from making one at the same time, until it is dropped.
    pub(super) fn alone(&self) -> Result<FileLock, BackupError> {
        let path = self.root.join(LOCK);
        let lock = FileLock::open(&path).map_err(BackupError::io("open", &path))?;
        match lock.try_exclusive().map_err(BackupError::io("lock", &path))? {
            true => Ok(lock),
            false => Err(BackupError::Busy { dir: self.root.clone() }),
        }
    }

    /// A name that is free, for a backup that begins now.
    pub(super) fn new_name(&self) -> String {
        let mut at = Timestamp::now();
        loop {
            let name = at.to_zoned(TimeZone::UTC).strftime(NAME).to_string();
            if !self.root.join(&name).exists() {
                return name;
            }
            at = at.saturating_add(jiff::SignedDuration::from_secs(1)).unwrap_or(at);
        }
    }

    /// Where one is made until it is whole.
    pub(super) fn making(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}{UNFINISHED}"))
    }

    fn entries(&self) -> Result<Vec<String>, BackupError> {
        let entries = fs::read_dir(&self.root).map_err(BackupError::io("read", &self.root))?;
        let folder = |entry: fs::DirEntry| {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            is_folder.then(|| entry.file_name().into_string().ok()).flatten()
        };
        let mut names: Vec<String> = entries.flatten().filter_map(folder).collect();
        names.sort();
        Ok(names)
    }

    /// The names of those that are whole, the oldest first.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn names(&self) -> Result<Vec<String>, BackupError> {
        let mut names = self.entries()?;
        names.retain(|name| {
            !name.ends_with(UNFINISHED) && self.root.join(name).join(manifest::FILE).exists()
        });
        Ok(names)
    }

    /// The names of those that were interrupted.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn unfinished(&self) -> Result<Vec<String>, BackupError> {
        let mut names = self.entries()?;
        names.retain(|name| {
            let time = name.strip_suffix(UNFINISHED);
            time.is_some_and(|time| jiff::civil::DateTime::strptime(NAME, time).is_ok())
        });
        Ok(names)
    }

    /// The backup of that name, or the newest.
    ///
    /// # Errors
    /// When there is none, or its manifest can't be read.
    pub fn find(&self, name: Option<&str>) -> Result<Found, BackupError> {
        let names = self.names()?;
        let dir = || self.root.clone();
        let name = match name {
            Some(name) if names.iter().any(|there| there == name) => name.to_owned(),
            Some(name) if !names.is_empty() => {
                let there = names.join(", ");
                return Err(BackupError::NoSuch { dir: dir(), name: name.to_owned(), there });
            }
            _ => {
                let unfinished = self.unfinished()?.len();
                let none = || BackupError::NoBackup { dir: dir(), unfinished };
                names.last().cloned().ok_or_else(none)?
            }
        };
        let path = self.root.join(&name);
        let manifest = Manifest::read(&name, &path)?;
        Ok(Found { name, path, manifest })
    }
}
