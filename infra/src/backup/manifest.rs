//! What a backup says of itself: whose it is, up to where, and each of its files.

use std::{fs, path::Path};

use jiff::Timestamp;
use punchtrail_protocol::{Digest, OrgId, Position};
use serde::{Deserialize, Serialize};

use super::{BackupError, files};

/// The file's name. It is written last: what lacks it is no backup.
pub(super) const FILE: &str = "manifest.json";
/// The format that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// More than a backup of a million files has.
const BYTES_MAX: u64 = 1 << 30;

/// What is in a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The version of the program that made it.
    pub program: String,
    /// Whose ledger it is.
    pub org: OrgId,
    pub made_at: Timestamp,
    pub database: DatabaseKind,
    /// The major version of its Postgres.
    pub postgres: u32,
    /// The version of its schema.
    pub schema: i64,
    /// A position that the copy has. A dump ends there; a cluster also has what came while it was
    /// copied.
    pub head: Position,
    /// The leaf hash of the event there; none where there is none.
    pub head_hash: Option<Digest>,
    /// The ledger's epoch.
    pub epoch: Option<uuid::Uuid>,
    /// Roles beside ours that have rights there, and must be there to put a dump back.
    pub roles: Vec<String>,
    pub photos: PhotosKept,
    pub files: Vec<BackedUpFile>,
}

/// How the database was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DatabaseKind {
    /// The files of a private Postgres.
    Cluster,
    /// Postgres's archive, which any later version takes.
    Dump,
}

/// What a backup has of photos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PhotosKept {
    /// Whether they are in the backup. If not, it has their list.
    pub copied: bool,
    pub count: u64,
    pub bytes: u64,
}

/// A file of a backup. Photos have a list of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpFile {
    pub path: String,
    pub bytes: u64,
    pub sha256: Digest,
}

/// What is read first, whatever the rest is.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    /// Of the format that this program writes.
    pub(super) const FORMAT: u32 = FORMAT;

    /// All bytes of the backup.
    pub fn bytes(&self) -> u64 {
        let photos = if self.photos.copied { self.photos.bytes } else { 0 };
        self.files.iter().map(|file| file.bytes).sum::<u64>() + photos
    }

    /// Reads that of the backup in a folder.
    pub(super) fn read(name: &str, folder: &Path) -> Result<Self, BackupError> {
        let path = folder.join(FILE);
        let unreadable = |what: String| BackupError::Unreadable { name: name.to_owned(), what };
        let length = fs::metadata(&path).map_err(BackupError::io("read", &path))?.len();
        if length > BYTES_MAX {
            return Err(unreadable(format!("{FILE} has {length} bytes")));
        }
        let text = fs::read(&path).map_err(BackupError::io("read", &path))?;
        let wrong = |error: serde_json::Error| unreadable(format!("{FILE} can't be read: {error}"));
        let Format { format } = serde_json::from_slice(&text).map_err(wrong)?;
        if format > FORMAT {
            let what = format!("its format is {format}, and {FORMAT} is known here");
            return Err(BackupError::Newer { name: name.to_owned(), what });
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(wrong)?;
        let inside = |path: &str| {
            let plain = |part: &str| !["", ".", ".."].contains(&part);
            path.split('/').all(plain)
        };
        match manifest.files.iter().find(|file| !inside(&file.path)) {
            None => Ok(manifest),
            Some(file) => Err(unreadable(format!("{FILE} names {:?}", file.path))),
        }
    }

    /// Writes it into the folder, which is whole with it.
    pub(super) fn write(&self, folder: &Path) -> Result<(), BackupError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| BackupError::Interrupted(error.to_string()))?;
        files::write_surely(&folder.join(FILE), &text)
    }
}
