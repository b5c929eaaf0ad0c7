//! File locks by which processes that share a data directory agree.
//!
//! `flock(2)` locks belong to an open file and vanish with its last holder, also on kill -9, so
//! none can be left behind. A lock's file is never removed: removing it would let two processes
//! hold "the same" lock on two files. What is written in it is for people, never for decisions.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::error::PostgresError;

/// How often a lock held by another is tried again, in milliseconds.
const RETRY_MS: u64 = 20;
/// Enough for a process id.
const HOLDER_BYTES_MAX: u64 = 32;
/// Others may pass through, not list: Postgres runs as another user than root.
const SEARCHABLE_MODE: u32 = 0o711;

/// A lock file, open, locked or not.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Opens or creates the file, without locking it. Dropping it gives the lock back.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Whether the lock could be had for this process alone, at once. Replaces a shared hold.
    pub(crate) fn try_exclusive(&self) -> std::io::Result<bool> {
        self.attempt(FlockOperation::NonBlockingLockExclusive)
    }

    /// Whether the lock could be had together with others, at once.
    pub(crate) fn try_shared(&self) -> std::io::Result<bool> {
        self.attempt(FlockOperation::NonBlockingLockShared)
    }

    fn attempt(&self, operation: FlockOperation) -> std::io::Result<bool> {
        loop {
            match flock(&self.file, operation) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }

    /// Waits for the lock, at most `wait`. `Ok(None)` when the time is up.
    pub(crate) async fn exclusive(path: &Path, wait: Duration) -> std::io::Result<Option<Self>> {
        let lock = Self::open(path)?;
        let deadline = Instant::now() + wait;
        while !lock.try_exclusive()? {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
        }
        lock.sign()?;
        Ok(Some(lock))
    }

    /// Leaves this process's id for whoever finds the lock taken.
    fn sign(&self) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{}", std::process::id())
    }

    /// Who signed last, for people.
    fn holder(&self) -> String {
        let mut text = String::new();
        let mut file = &self.file;
        let read = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.take(HOLDER_BYTES_MAX).read_to_string(&mut text));
        match (read, text.trim().parse::<u32>()) {
            (Ok(_), Ok(pid)) => format!("process {pid}"),
            _ => "another process".to_owned(),
        }
    }

    /// A second handle on the same lock, for a child: should we be killed, it stays held until the
    /// child ends.
    pub(crate) fn share(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for FileLock {
    /// Closing alone could be too late: a child that was forked this instant still has the file.
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(lock = %self.path.display(), %error, "a lock could not be given back");
        }
    }
}

/// The short lock under which Postgres is started or stopped.
///
/// # Errors
/// [`PostgresError::Busy`] when another holds it for longer than `wait`.
pub(super) async fn transition(path: &Path, wait: Duration) -> Result<FileLock, PostgresError> {
    let lock = FileLock::exclusive(path, wait).await.map_err(PostgresError::io("lock", path))?;
    lock.ok_or_else(|| PostgresError::Busy {
        dir: path.parent().unwrap_or(path).to_owned(),
        holder: FileLock::open(path)
            .map_or_else(|_| "another process".to_owned(), |lock| lock.holder()),
        waited_s: wait.as_secs(),
    })
}

/// Creates `dir` and what is missing above it so that another user can pass through.
pub(super) fn create_searchable(dir: &Path) -> Result<(), PostgresError> {
    let mut missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    missing.retain(|dir| !dir.as_os_str().is_empty());
    while let Some(dir) = missing.pop() {
        match fs::DirBuilder::new().mode(SEARCHABLE_MODE).create(dir) {
            // The umask may have taken the bits away.
            Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(SEARCHABLE_MODE))
                .map_err(PostgresError::io("set the mode of", dir))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(PostgresError::io("create", dir)(error)),
        }
    }
    Ok(())
}

/// The hold of one `punchtrail serve` on its data directory, until dropped or killed.
///
/// Tools work beside a server; a second server must not, and is told so at once.
#[derive(Debug)]
pub struct ServeLock {
    _held: FileLock,
}

/// Why a server may not use a data directory.
#[derive(Debug, thiserror::Error)]
pub enum ServeLockError {
    #[error(
        "another `punchtrail serve` ({holder}) already uses {}; nothing was changed. Stop that \
         one, or give this one a directory of its own with --data-dir", dir.display()
    )]
    Held {
        dir: PathBuf,
        /// The other's process id, for people.
        holder: String,
    },
    /// The directory can't be used.
    #[error(transparent)]
    Unusable(#[from] PostgresError),
}

impl ServeLock {
    /// Takes the directory (created when missing) or says at once who has it.
    ///
    /// # Errors
    /// [`ServeLockError::Held`] when another server runs there.
    pub fn acquire(data_dir: &Path) -> Result<Self, ServeLockError> {
        create_searchable(data_dir)?;
        let path = data_dir.join("serve.lock");
        let lock = FileLock::open(&path).map_err(PostgresError::io("open", &path))?;
        if !lock.try_exclusive().map_err(PostgresError::io("lock", &path))? {
            return Err(ServeLockError::Held { dir: data_dir.to_owned(), holder: lock.holder() });
        }
        lock.sign().map_err(PostgresError::io("write", &lock.path))?;
        Ok(Self { _held: lock })
    }
}
