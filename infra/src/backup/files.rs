//! Files copied, digested and synced. All of it blocks.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use punchtrail_protocol::Digest;
use sha2::{Digest as _, Sha256};

use super::BackupError;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const CHUNK_BYTES: usize = 1 << 20;

/// Makes a folder that nobody else can look into; one that is there stays.
pub(super) fn make_folder(dir: &Path) -> Result<(), BackupError> {
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir);
    made.map_err(BackupError::io("make", dir))
}

/// A file's size and digest.
pub(super) fn digest(path: &Path) -> Result<(u64, Digest), BackupError> {
    let read = || -> io::Result<(u64, Digest)> {
        let mut file = File::open(path)?;
        let (mut bytes, mut hasher) = (0, Sha256::new());
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = match file.read(&mut chunk) {
                Ok(0) => return Ok((bytes, Digest(hasher.finalize().into()))),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes += count as u64;
            hasher.update(&chunk[..count]);
        }
    };
    read().map_err(BackupError::io("read", path))
}

/// Makes a file readable for its owner alone.
pub(super) fn make_private(path: &Path) -> Result<(), BackupError> {
    let private = fs::Permissions::from_mode(FILE_MODE);
    fs::set_permissions(path, private).map_err(BackupError::io("set the mode of", path))
}

/// Every file below a folder, as paths from there, in order.
pub(super) fn below(root: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(BackupError::io("read", &folder))? {
            let entry = entry.map_err(BackupError::io("read", &folder))?;
            let kind = entry.file_type().map_err(BackupError::io("look at", &entry.path()))?;
            match kind.is_dir() {
                true => folders.push(entry.path()),
                false => found.extend(entry.path().strip_prefix(root).map(Path::to_owned)),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a folder with all that is in it, empty folders, too, but for what ends in `.` and
/// `without`. Files that are there already stay as they are; those that go meanwhile are left out.
pub(super) fn copy_folder(
    from: &Path,
    to: &Path,
    without: Option<&str>,
) -> Result<(), BackupError> {
    make_folder(to)?;
    for entry in fs::read_dir(from).map_err(BackupError::io("read", from))? {
        let entry = entry.map_err(BackupError::io("read", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if without.is_some_and(|without| path.extension().is_some_and(|it| it == without)) {
            continue;
        }
        if entry.file_type().map_err(BackupError::io("look at", &path))?.is_dir() {
            copy_folder(&path, &target, without)?;
            continue;
        }
        match copy(&path, &target) {
            Err(BackupError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
}

/// Copies a file, unless one is there.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut read = File::open(from).map_err(BackupError::io("read", from))?;
    let new = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(to);
    let mut write = match new {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        new => new.map_err(BackupError::io("write", to))?,
    };
    io::copy(&mut read, &mut write).map(drop).map_err(BackupError::io("write", to))
}

/// Writes a new file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(path)?;
        file.write_all(bytes)
    };
    write().map_err(BackupError::io("write", path))
}

/// The same, on disk under its name when this returns, or not there.
pub(super) fn write_surely(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(BackupError::io("remove", &beside)(error));
        }
        _ => {}
    }
    write(&beside, bytes)?;
    File::open(&beside).and_then(|file| file.sync_all()).map_err(BackupError::io("sync", path))?;
    rename(&beside, path)
}

/// Gives a file or folder its name, on disk when this returns.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::rename(from, to).map_err(BackupError::io("name", to))?;
    let folder = to.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(BackupError::io("sync", folder))
}

/// Lets a file be the same one as another, where the disk can. What is there stays otherwise.
pub(super) fn link_instead(same: &Path, path: &Path) -> bool {
    let beside = path.with_extension("link");
    fs::hard_link(same, &beside).and_then(|()| fs::rename(&beside, path)).is_ok()
}

/// Removes a folder with all that is in it, if it is there.
pub(super) fn remove_folder(dir: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(BackupError::io("remove", dir)),
    }
}

/// Everything on the disk that a path lies on is on it when this returns.
pub(super) fn sync_disk(path: &Path) -> Result<(), BackupError> {
    let disk = File::open(path).map_err(BackupError::io("open", path))?;
    rustix::fs::syncfs(disk).map_err(|error| BackupError::io("sync", path)(error.into()))
}

/// Runs blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(BackupError::Interrupted(error.to_string())),
    }
}
