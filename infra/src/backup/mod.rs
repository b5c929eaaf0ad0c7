//! Backups of a deployment: made while it serves, checked, and put back.
//!
//! A folder holds backups of one ledger, each in a folder of its own that is whole by itself:
//!
//! ```text
//! DIR/ledger.json              whose ledger the backups are of
//! DIR/lock                     held by who makes one
//! DIR/20261126T031500Z/        a backup, by the time it was begun
//!     manifest.json            what is in it, each file's size and SHA-256; written last
//!     checkpoints/             the key that signs them, and all that was signed
//!     cluster/                 the private Postgres's cluster, or
//!     database.dump            what Postgres's own archive holds of any database
//!     embeddings.key           what else of the data directory is a key, as is webhooks.key
//!     photos.list              the digest and size of every photo
//!     photos/ab/cdef…          the photos, unless they are in a bucket or were left out
//! DIR/20261127T031500Z.new/    one that is being made, or that was interrupted
//! ```
//!
//! Checkpoints are copied before the database and photos after it, so that nothing was signed of
//! events that the copy lacks, and no photo is missing that an event names. A file that the backup
//! before has, too, is linked to, so it lies there once. A backup without its manifest counts for
//! nothing, and the next one removes it; those that are whole are never written to.
//!
//! All of it is as secret as the data directory: folders are 0700, files 0600. Never makes a
//! backup of one ledger beside another's, never puts one back over anything.

mod error;
mod files;
mod folder;
mod manifest;
mod restore;
mod take;
mod verify;

pub use error::BackupError;
pub use folder::{BackupFolder, Found};
pub use manifest::{DatabaseKind, Manifest, PhotosKept};
pub use restore::{Restored, Target, put_back, put_photos_back, said};
pub use take::{Photos, Taken, Taking, take};
pub use verify::{Verified, verify};

use crate::key_file;

/// Hears how far it is: what is done, how much of it, of how much. All of nothing is unknown.
pub type Tell<'a> = &'a (dyn Fn(&'static str, u64, u64) + Send + Sync);

/// The folder of checkpoints, here and there.
const CHECKPOINTS: &str = "checkpoints";
/// The copied cluster.
const CLUSTER: &str = "cluster";
/// The archive of a database.
const DUMP: &str = "database.dump";
/// The copied photos.
const PHOTOS: &str = "photos";
/// The list of photos.
const PHOTOS_LIST: &str = "photos.list";
/// Files of the data directory that can't be made anew without losing something.
const KEYS: [&str; 2] = [key_file::EMBEDDINGS, key_file::WEBHOOKS];
