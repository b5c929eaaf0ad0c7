//! Photos in a folder.
//!
//! A photo is written to a file of its own while it comes, never held in memory whole; its file and
//! then its folder are synced before anybody is told that it is kept. What breaks off leaves a file
//! that has no name yet and is removed.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use punchtrail_protocol::{Digest, wire::PHOTO_BYTES_MAX};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncWriteExt},
};
use uuid::Uuid;

use super::{PhotoStore, PhotoUpload, another_came, removed_meanwhile, too_large};

/// An unfinished file older than this belongs to nobody: no upload takes as long.
const UNFINISHED_AGE_MAX: Duration = Duration::from_secs(3_600);

/// Photos in a folder: `ab/cdef…` by the digest's digits.
#[derive(Debug, Clone)]
pub struct PhotoFolder {
    root: PathBuf,
}

impl PhotoFolder {
    /// Opens the folder, makes it when missing, and removes what earlier runs left unfinished.
    ///
    /// # Errors
    /// When it can't be made or read.
    pub async fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = Self { root: root.into() };
        let unfinished = folder.unfinished();
        fs::create_dir_all(&unfinished).await?;
        let mut entries = fs::read_dir(&unfinished).await?;
        while let Some(entry) = entries.next_entry().await? {
            let made = entry.metadata().await.and_then(|about| about.modified());
            let age = made.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > UNFINISHED_AGE_MAX) {
                fs::remove_file(entry.path()).await?;
            }
        }
        // The folder itself must be there after a crash, too.
        sync_folder(folder.root.parent().unwrap_or(Path::new("."))).await?;
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
}

#[async_trait]
impl PhotoStore for PhotoFolder {
    async fn has(&self, photo: &Digest) -> io::Result<bool> {
        fs::try_exists(self.path_of(photo)).await
    }

    async fn read(&self, photo: &Digest) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path_of(photo)).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(PHOTO_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
        match bytes.len() > PHOTO_BYTES_MAX {
            true => Err(too_large()),
            false => Ok(Some(bytes)),
        }
    }

    async fn begin(&self, photo: Digest) -> io::Result<Box<dyn PhotoUpload>> {
        let writing = match self.has(&photo).await? {
            true => None,
            false => {
                let path = self.unfinished().join(Uuid::now_v7().to_string());
                let file = File::create_new(&path).await?;
                Some((file, Unfinished(path)))
            }
        };
        Ok(Box::new(FolderUpload { folder: self.clone(), photo, writing, hasher: Sha256::new() }))
    }

    async fn remove(&self, photo: &Digest) -> io::Result<()> {
        match fs::remove_file(self.path_of(photo)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A file without a name yet; removed unless it got one.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when it was renamed; one that can't be removed goes with a later start.
        drop(std::fs::remove_file(&self.0));
    }
}

struct FolderUpload {
    folder: PhotoFolder,
    photo: Digest,
    /// None when the photo is kept already.
    writing: Option<(File, Unfinished)>,
    hasher: Sha256,
}

#[async_trait]
impl PhotoUpload for FolderUpload {
    async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.hasher.update(chunk);
        match &mut self.writing {
            Some((file, _)) => file.write_all(chunk).await,
            None => Ok(()),
        }
    }

    fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    async fn keep(mut self: Box<Self>) -> io::Result<bool> {
        if self.digest() != self.photo {
            return Err(another_came());
        }
        let path = self.folder.path_of(&self.photo);
        let folder = path.parent().unwrap_or(&self.folder.root).to_owned();
        let mut is_new = false;
        if let Some((mut file, unfinished)) = self.writing.take() {
            file.flush().await?;
            file.sync_all().await?;
            is_new = !fs::try_exists(&path).await?;
            fs::create_dir_all(&folder).await?;
            fs::rename(&unfinished.0, &path).await?;
        }
        if !is_new && !fs::try_exists(&path).await? {
            return Err(removed_meanwhile());
        }
        // Also when it was there: whoever put it there may not have come to sync it.
        sync_folder(&folder).await?;
        sync_folder(&self.folder.root).await?;
        Ok(is_new)
    }
}

async fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).await?.sync_all().await
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
