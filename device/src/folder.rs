//! The device's folder: who may work in it, and the photo files.
//!
//! ```text
//! DIR/                                  0700
//!   device.db                           0600  identity, chain, outbox, manifest (SQLite, WAL)
//!   device.db-wal, device.db-shm        0600  part of it
//!   agent.lock                          0600  held by the one agent (run, sync, enroll)
//!   device.use                          0600  held by all that have the database open
//!   device.db.salvaged                  0600  a salvage that was cut short, to be ended
//!   damaged-<n>/                        0700  what a salvage found, untouched
//!   photos/<sha256>.<identity>.sealed   0600  photos, for the server's eyes alone
//!   photos/<sha256>                     0600  as taken, where the server gave no key
//! ```
//!
//! A photo is named by the digest of its plain bytes. The lock has its holder's pid inside, for the
//! message.
//!
//! One agent at a time drains a folder: the lock is an advisory `flock` that the kernel drops with
//! the process, so a killed agent never leaves it behind. Captures don't take it, because a worker
//! must be able to punch while the agent runs; they are serialised by SQLite's own write lock (see
//! `store`). Photo files are written and deleted only under that write lock, so that a sweep never
//! meets a photo whose capture is about to be committed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use punchtrail_protocol::Digest;
use rustix::fs::FlockOperation;

/// How often a lock that is held is tried again before it counts as taken: `status` looks at the
/// lock by taking it for an instant, and must not make an agent's start fail.
const LOCK_TRIES_MAX: u32 = 10;
/// Pause between those tries, in milliseconds.
const LOCK_TRY_PAUSE_MS: u64 = 20;
/// How often the database is tried to be had beside others: who looks through its log has it alone
/// for as long as that takes, and a worker who punches waits for it.
const USE_TRIES_MAX: u32 = 500;
const PARTIAL_PREFIX: &str = ".partial-";
const SEALED_SUFFIX: &str = ".sealed";

/// What can be wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another agent works in it.
    #[error(
        "another punchtrail-device{} is already working in {dir}. Nothing was changed. Stop that \
         one first, or use another --dir. (Punching and `status` need no stop.)",
        .pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    Taken {
        dir: String,
        /// The other agent's process, if it said.
        pid: Option<u32>,
    },
    /// Others have the database open, or somebody has it for themselves.
    #[error(
        "other processes work in {0}. Nothing was changed. Stop the agent and whatever punches \
         there, and try again; if it is being salvaged, wait until that is done"
    )]
    InUse(String),
    /// It is another user's, and this one may not work there.
    #[error(
        "{dir} is another user's folder{}, and this runs as user id {me}, who may not work in it. \
         Nothing was changed, and what was recorded there is safe. Run the command as that user; \
         don't enrol again",
        .owner.map_or_else(String::new, |owner| format!(" (user id {owner})"))
    )]
    NotOurs {
        dir: String,
        /// Whose it is, if that can be seen.
        owner: Option<u32>,
        me: u32,
    },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: String, source: io::Error },
}

impl FolderError {
    /// What the file system refused, as an error about `path`.
    pub fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the disk, or this user's share of it, is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }
}

/// Which file holds a photo. Its digest is that of the plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PhotoFile {
    /// As it was taken.
    Plain(Digest),
    /// Sealed to the server of this enrolment of the folder.
    Sealed(Digest, i64),
}

impl From<Digest> for PhotoFile {
    fn from(digest: Digest) -> Self {
        Self::Plain(digest)
    }
}

impl std::fmt::Display for PhotoFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(digest) => write!(f, "{digest}"),
            Self::Sealed(digest, identity) => write!(f, "{digest}.{identity}{SEALED_SUFFIX}"),
        }
    }
}

/// A name that no photo's file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no photo's file")]
pub struct NoPhotoFile;

impl FromStr for PhotoFile {
    type Err = NoPhotoFile;
    fn from_str(name: &str) -> Result<Self, NoPhotoFile> {
        let digest = |text: &str| text.parse().map_err(|_| NoPhotoFile);
        let Some(sealed) = name.strip_suffix(SEALED_SUFFIX) else {
            return digest(name).map(Self::Plain);
        };
        let (of, identity) = sealed.split_once('.').ok_or(NoPhotoFile)?;
        Ok(Self::Sealed(digest(of)?, identity.parse().map_err(|_| NoPhotoFile)?))
    }
}

/// A device's folder.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
}

/// The right to be the agent of a folder; given back when dropped, and by the kernel when the
/// process ends in any way.
#[derive(Debug)]
pub struct AgentLock {
    _file: File,
}

/// The right to have a folder's database open, beside others or alone; given back like
/// [`AgentLock`].
#[derive(Debug)]
pub struct UseLock {
    file: File,
}

impl UseLock {
    /// Lets others have the database open, too.
    ///
    /// # Errors
    /// [`FolderError::InUse`] when somebody has it alone meanwhile.
    pub fn shared(self, folder: &Folder) -> Result<Self, FolderError> {
        folder.share_use(self.file)
    }
}

impl Folder {
    /// The folder at `dir`; nothing is looked at yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// That this user may work in the folder, if it is there: what another user's folder holds
    /// can't be seen, and must not pass for nothing.
    ///
    /// # Errors
    /// [`FolderError::NotOurs`].
    pub fn may_use(&self) -> Result<(), FolderError> {
        let database = self.database();
        let looked = match fs::metadata(&database) {
            Ok(_) => OpenOptions::new().read(true).write(true).open(&database).map(drop),
            Err(error) => Err(error),
        };
        let me = rustix::process::geteuid().as_raw();
        let owner = fs::metadata(&self.dir).ok().map(|found| found.uid());
        let is_denied = looked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        if is_denied && owner != Some(me) {
            let dir = self.dir.display().to_string();
            return Err(FolderError::NotOurs { dir, owner, me });
        }
        Ok(())
    }

    /// Makes the folder, for its owner alone; one that is there is closed to others.
    ///
    /// # Errors
    /// When the file system refuses, or it is another user's.
    pub fn create(&self) -> Result<(), FolderError> {
        self.may_use()?;
        for dir in [self.dir.clone(), self.photos()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(FolderError::at("can't make the folder", &dir))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
                .map_err(FolderError::at("can't close to other users the folder", &dir))?;
        }
        // The folder's own name, too; a parent that this user can't read is left to the system.
        let _ = self.dir.parent().map(sync_dir);
        sync_dir(&self.dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.dir.join("device.db")
    }

    /// The folder of the photos.
    pub fn photos(&self) -> PathBuf {
        self.dir.join("photos")
    }

    /// The whole database that a salvage made and hasn't put in its place yet.
    pub fn salvaged(&self) -> PathBuf {
        self.dir.join("device.db.salvaged")
    }

    /// Opens the database beside others: only a salvage keeps it to itself. A folder that can't
    /// have the lock's file (a full disk, an upgrade) is worked in without.
    ///
    /// # Errors
    /// [`FolderError::InUse`] while it is being salvaged.
    pub fn lock_use(&self) -> Result<Option<UseLock>, FolderError> {
        match self.open_use() {
            Ok(file) => self.share_use(file).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Has the database alone.
    ///
    /// # Errors
    /// [`FolderError::InUse`] while others have it open.
    pub fn lock_use_alone(&self) -> Result<UseLock, FolderError> {
        self.take_use(self.open_use()?, FlockOperation::NonBlockingLockExclusive, 1)
    }

    fn share_use(&self, file: File) -> Result<UseLock, FolderError> {
        self.take_use(file, FlockOperation::NonBlockingLockShared, USE_TRIES_MAX)
    }

    fn open_use(&self) -> Result<File, FolderError> {
        let path = self.dir.join("device.use");
        let mut options = private_options();
        options.read(true).write(true).create(true).truncate(false);
        options.open(&path).map_err(FolderError::at("can't open", &path))
    }

    fn take_use(
        &self,
        file: File,
        how: FlockOperation,
        tries_max: u32,
    ) -> Result<UseLock, FolderError> {
        match take(&file, &self.dir.join("device.use"), how, tries_max)? {
            true => Ok(UseLock { file }),
            false => Err(FolderError::InUse(self.dir.display().to_string())),
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.dir.join("agent.lock")
    }

    /// The file of a photo.
    pub fn photo(&self, file: impl Into<PhotoFile>) -> PathBuf {
        self.photos().join(file.into().to_string())
    }

    /// Becomes the folder's agent.
    ///
    /// # Errors
    /// [`FolderError::Taken`] at once when another process is.
    pub fn lock_agent(&self) -> Result<AgentLock, FolderError> {
        let path = self.lock_file();
        let mut file = private_options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FolderError::at("can't open", &path))?;
        if !take(&file, &path, FlockOperation::NonBlockingLockExclusive, LOCK_TRIES_MAX)? {
            return Err(FolderError::Taken {
                dir: self.dir.display().to_string(),
                pid: pid_in(&mut file),
            });
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()))
            .map_err(FolderError::at("can't write", &path))?;
        Ok(AgentLock { _file: file })
    }

    /// The process that is this folder's agent now; none if nobody is.
    pub fn agent(&self) -> Option<u32> {
        let mut file = File::open(self.lock_file()).ok()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => None,
            Err(_) => pid_in(&mut file),
        }
    }

    /// Keeps a photo: its bytes and its name are on disk when this returns. Call under the store's
    /// write lock, before the capture that names it is committed.
    ///
    /// # Errors
    /// When the file system refuses; no half-written file stays then.
    pub fn keep_photo(&self, file: impl Into<PhotoFile>, bytes: &[u8]) -> Result<(), FolderError> {
        let file = file.into();
        let partial = self.photos().join(format!("{PARTIAL_PREFIX}{file}"));
        let written = write_synced(&partial, bytes)
            .and_then(|()| fs::rename(&partial, self.photo(file)))
            .map_err(FolderError::at("can't keep the photo", &partial))
            .and_then(|()| sync_dir(&self.photos()));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }

    /// Deletes a photo's file; one that is gone already is fine. A plain one is overwritten first:
    /// on a disk that writes in place nothing of it is left. Under the store's write lock.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn forget_photo(&self, file: impl Into<PhotoFile>) -> Result<(), FolderError> {
        let file = file.into();
        let path = self.photo(file);
        if matches!(file, PhotoFile::Plain(_)) {
            // What can't be overwritten is deleted all the same.
            let _ = overwrite(&path);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FolderError::at("can't delete", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Deletes what a crash left in the photo folder: files that no capture names. Under the
    /// store's write lock. Gives how many.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn sweep_photos(&self, named: impl Fn(&PhotoFile) -> bool) -> Result<u64, FolderError> {
        let photos = self.photos();
        let mut swept = 0;
        for entry in fs::read_dir(&photos).map_err(FolderError::at("can't list", &photos))? {
            let entry = entry.map_err(FolderError::at("can't list", &photos))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            match name.parse::<PhotoFile>() {
                Ok(file) if named(&file) => continue,
                Ok(file) => self.forget_photo(file)?,
                Err(_) if name.starts_with(PARTIAL_PREFIX) => {
                    let path = entry.path();
                    let _ = overwrite(&path);
                    fs::remove_file(&path).map_err(FolderError::at("can't delete", &path))?;
                }
                Err(_) => continue,
            }
            swept += 1;
        }
        Ok(swept)
    }
}

/// Makes an empty file that only its owner can read, if there is none. SQLite gives its other files
/// the same mode.
///
/// # Errors
/// When the file system refuses.
pub fn create_private(path: &Path) -> Result<(), FolderError> {
    private_options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map(drop)
        .map_err(FolderError::at("can't make", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn take(
    file: &File,
    path: &Path,
    how: FlockOperation,
    tries_max: u32,
) -> Result<bool, FolderError> {
    for attempt in 1..=tries_max {
        match rustix::fs::flock(file, how) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < tries_max => {
                std::thread::sleep(Duration::from_millis(LOCK_TRY_PAUSE_MS));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(errno) => return Err(FolderError::at("can't lock", path)(errno.into())),
        }
    }
    Ok(false)
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private_options().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let len = file.metadata()?.len();
    io::copy(&mut io::repeat(0).take(len), &mut file)?;
    file.sync_all()
}

/// Has the names in a folder on the disk.
///
/// # Errors
/// When the file system refuses.
pub fn sync_dir(dir: &Path) -> Result<(), FolderError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(FolderError::at("can't sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("device"));
        folder.create().unwrap();
        (dir, folder)
    }

    #[test]
    fn a_second_agent_is_refused_with_the_first_ones_pid() {
        let (_dir, folder) = folder();
        let lock = folder.lock_agent().unwrap();
        assert_eq!(folder.agent(), Some(std::process::id()));
        let refusal = folder.lock_agent().unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(lock);
        assert_eq!(folder.agent(), None);
        folder.lock_agent().unwrap();
    }

    #[test]
    fn the_folder_and_its_photos_are_for_the_owner_alone() {
        let (_dir, folder) = folder();
        let digest = Digest::of(b"frame");
        folder.keep_photo(digest, b"frame").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.photo(digest)), 0o600);
        assert_eq!(fs::read(folder.photo(digest)).unwrap(), b"frame");
    }

    #[test]
    fn a_photos_file_is_told_by_its_name() {
        let digest = Digest::of(b"frame");
        for file in [PhotoFile::Plain(digest), PhotoFile::Sealed(digest, 7)] {
            assert_eq!(file.to_string().parse(), Ok(file));
        }
        for name in ["README", ".sealed", "7.sealed", &format!("{digest}.sealed"), ""] {
            assert_eq!(name.parse::<PhotoFile>(), Err(NoPhotoFile), "{name}");
        }
    }

    #[test]
    fn a_plain_photo_is_overwritten_before_it_is_deleted() {
        let (_dir, folder) = folder();
        let digest = Digest::of(b"frame");
        folder.keep_photo(digest, b"frame").unwrap();
        // Another name of the same file, as a look at the disk's blocks.
        let seen = folder.path().join("seen");
        fs::hard_link(folder.photo(digest), &seen).unwrap();
        folder.forget_photo(digest).unwrap();
        assert!(!folder.photo(digest).exists());
        assert_eq!(fs::read(&seen).unwrap(), [0; 5]);
    }

    #[test]
    fn a_sweep_takes_what_no_capture_names_and_leaves_the_rest() {
        let (_dir, folder) = folder();
        let (kept, orphan) = (Digest::of(b"kept"), Digest::of(b"orphan"));
        folder.keep_photo(kept, b"kept").unwrap();
        folder.keep_photo(orphan, b"orphan").unwrap();
        fs::write(folder.photos().join(format!("{PARTIAL_PREFIX}x")), b"half").unwrap();
        fs::write(folder.photos().join("README"), b"somebody's").unwrap();
        let sealed = [1, 2].map(|identity| PhotoFile::Sealed(kept, identity));
        for file in sealed {
            folder.keep_photo(file, b"sealed").unwrap();
        }
        let named = [PhotoFile::Plain(kept), sealed[1]];
        assert_eq!(folder.sweep_photos(|file| named.contains(file)).unwrap(), 3);
        assert!(folder.photo(kept).exists() && !folder.photo(orphan).exists());
        assert!(folder.photo(sealed[1]).exists() && !folder.photo(sealed[0]).exists());
        assert!(folder.photos().join("README").exists());
    }
}
