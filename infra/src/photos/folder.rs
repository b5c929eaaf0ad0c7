//! Photos in a folder.
//!
//! A photo is written to a file of its own while it comes, never held in memory whole; its file and
//! then its folder are synced before anybody is told that it is kept. What breaks off leaves a file
//! that has no name yet and is removed.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use punchtrail_protocol::{Digest, wire::PHOTO_BYTES_MAX};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{ListedPhoto, PhotoStore, PhotoUpload, another_came, removed_meanwhile, too_large};
use crate::threads::Threads;

/// An unfinished file older than this belongs to nobody: no upload takes as long.
const UNFINISHED_AGE_MAX: Duration = Duration::from_secs(3_600);
/// Files in hand at a time: enough for a disk to sync several at once, few enough that what each
/// thread keeps is little.
const FILES_AT_ONCE: usize = 4;

/// Photos in a folder: `ab/cdef…` by the digest's digits.
#[derive(Debug, Clone)]
pub struct PhotoFolder {
    root: PathBuf,
    files: Arc<Threads>,
}

impl PhotoFolder {
    /// Opens the folder, makes it when missing, and removes what earlier runs left unfinished.
    ///
    /// # Errors
    /// When it can't be made or read.
    pub async fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let files = Threads::start("punchtrail-photos", FILES_AT_ONCE).map_err(io::Error::other)?;
        let folder = Self { root: root.into(), files: Arc::new(files) };
        let (root, unfinished) = (folder.root.clone(), folder.unfinished());
        folder.with_files(move || prepare(&root, &unfinished)).await?;
        Ok(folder)
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }

    fn path_of(&self, photo: &Digest) -> PathBuf {
        let digits = photo.to_string();
        let (folder, name) = digits.split_at(2);
        self.root.join(folder).join(name)
    }

    async fn with_files<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.files.run(work).await?
    }
}

#[async_trait]
impl PhotoStore for PhotoFolder {
    async fn has(&self, photo: &Digest) -> io::Result<bool> {
        let path = self.path_of(photo);
        self.with_files(move || path.try_exists()).await
    }

    async fn read(&self, photo: &Digest) -> io::Result<Option<Vec<u8>>> {
        let path = self.path_of(photo);
        self.with_files(move || read(&path)).await
    }

    async fn begin(&self, photo: Digest) -> io::Result<Box<dyn PhotoUpload>> {
        let kept = self.path_of(&photo);
        let new = self.unfinished().join(Uuid::now_v7().to_string());
        let writing = self.with_files(move || begin(&kept, new)).await?;
        Ok(Box::new(FolderUpload { folder: self.clone(), photo, writing, hasher: Sha256::new() }))
    }

    async fn list(&self, first: u8) -> io::Result<Vec<ListedPhoto>> {
        let folder = self.root.join(format!("{first:02x}"));
        self.with_files(move || list(&folder, first)).await
    }

    async fn remove(&self, photo: &Digest) -> io::Result<()> {
        let path = self.path_of(photo);
        self.with_files(move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

fn prepare(root: &Path, unfinished: &Path) -> io::Result<()> {
    fs::create_dir_all(unfinished)?;
    for entry in fs::read_dir(unfinished)? {
        let entry = entry?;
        let made = entry.metadata().and_then(|about| about.modified());
        let age = made.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > UNFINISHED_AGE_MAX) {
            fs::remove_file(entry.path())?;
        }
    }
    // The folder itself must be there after a crash, too.
    sync_folder(root.parent().unwrap_or(Path::new(".")))
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size > PHOTO_BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(size);
    file.take(PHOTO_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > PHOTO_BYTES_MAX {
        true => Err(too_large()),
        false => Ok(Some(bytes)),
    }
}

fn list(folder: &Path, first: u8) -> io::Result<Vec<ListedPhoto>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut listed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let bytes = match entry.metadata() {
            Ok(about) => about.len(),
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let name = entry.file_name();
        listed.extend(name.to_str().and_then(|name| ListedPhoto::named(first, name, bytes)));
    }
    listed.sort_unstable();
    Ok(listed)
}

fn begin(kept: &Path, new: PathBuf) -> io::Result<Option<(File, Unfinished)>> {
    match kept.try_exists()? {
        true => Ok(None),
        false => File::create_new(&new).map(|file| Some((file, Unfinished(new)))),
    }
}

/// A file without a name yet; removed unless it got one.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when it was renamed; one that can't be removed goes with a later start.
        drop(fs::remove_file(&self.0));
    }
}

struct FolderUpload {
    folder: PhotoFolder,
    photo: Digest,
    /// None when the photo is kept already, and once a write broke off.
    writing: Option<(File, Unfinished)>,
    hasher: Sha256,
}

#[async_trait]
impl PhotoUpload for FolderUpload {
    async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.hasher.update(chunk);
        let Some((mut file, unfinished)) = self.writing.take() else { return Ok(()) };
        let chunk = chunk.to_vec();
        let write = move || file.write_all(&chunk).map(|()| (file, unfinished));
        self.writing = Some(self.folder.with_files(write).await?);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    async fn keep(mut self: Box<Self>) -> io::Result<bool> {
        if self.digest() != self.photo {
            return Err(another_came());
        }
        let (root, path) = (self.folder.root.clone(), self.folder.path_of(&self.photo));
        let writing = self.writing.take();
        self.folder.with_files(move || keep(&root, &path, writing)).await
    }
}

fn keep(root: &Path, path: &Path, writing: Option<(File, Unfinished)>) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(root);
    let mut is_new = false;
    if let Some((file, unfinished)) = writing {
        file.sync_all()?;
        is_new = !path.try_exists()?;
        fs::create_dir_all(folder)?;
        fs::rename(&unfinished.0, path)?;
    }
    if !is_new && !path.try_exists()? {
        return Err(removed_meanwhile());
    }
    // Also when it was there: whoever put it there may not have come to sync it.
    sync_folder(folder)?;
    sync_folder(root)?;
    Ok(is_new)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(folder: &PhotoFolder, bytes: &[u8]) -> bool {
        let mut upload = folder.begin(Digest::of(bytes)).await.unwrap();
        for chunk in bytes.chunks(3) {
            upload.write(chunk).await.unwrap();
        }
        assert_eq!(upload.digest(), Digest::of(bytes));
        upload.keep().await.unwrap()
    }

    #[tokio::test]
    async fn a_photo_is_kept_once_under_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PhotoFolder::open(dir.path().join("photos")).await.unwrap();
        let digest = Digest::of(b"a photo");
        assert!(!folder.has(&digest).await.unwrap());
        assert!(put(&folder, b"a photo").await);
        assert!(!put(&folder, b"a photo").await);
        assert!(folder.has(&digest).await.unwrap());
        let other = folder.path_of(&Digest::of(b"another"));
        folder.remove(&Digest::of(b"another")).await.unwrap();
        assert!(!other.exists());
        assert_eq!(std::fs::read(folder.path_of(&digest)).unwrap(), b"a photo");
        let first = digest.0[0];
        let listed = folder.list(first).await.unwrap();
        assert_eq!(listed, [ListedPhoto { photo: digest, bytes: 7 }]);
        assert_eq!(folder.list(first.wrapping_add(1)).await.unwrap(), []);
        assert_eq!(std::fs::read_dir(folder.unfinished()).unwrap().count(), 0);
        folder.remove(&digest).await.unwrap();
        assert!(!folder.has(&digest).await.unwrap());
    }

    #[tokio::test]
    async fn what_breaks_off_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PhotoFolder::open(dir.path()).await.unwrap();
        let mut upload = folder.begin(Digest::of(b"whole")).await.unwrap();
        upload.write(b"half").await.unwrap();
        drop(upload);
        let mut other = folder.begin(Digest::of(b"whole")).await.unwrap();
        other.write(b"other").await.unwrap();
        assert!(other.keep().await.is_err());
        assert!(!folder.has(&Digest::of(b"other")).await.unwrap());
        assert_eq!(std::fs::read_dir(folder.unfinished()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_run_left_goes_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PhotoFolder::open(dir.path()).await.unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.unfinished().join(name));
        let file = std::fs::File::create(&old).unwrap();
        file.set_modified(SystemTime::now() - 2 * UNFINISHED_AGE_MAX).unwrap();
        std::fs::File::create(&new).unwrap();
        PhotoFolder::open(dir.path()).await.unwrap();
        assert!(!old.exists() && new.exists());
    }
}
