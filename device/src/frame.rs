//! A picture on its way to the disk: looked at for what it is, sealed where the server gave a key,
//! and synced before the record that names it is committed.

use std::borrow::Cow;

use punchtrail_protocol::{
    Digest,
    sealed_photo::{PhotoKey, seal},
    wire::PHOTO_BYTES_MAX,
};
use zeroize::Zeroizing;

use crate::{
    device::Device,
    folder::{Folder, PhotoFile},
    store::{
        StoreError, Write, contact,
        identity::IdentityId,
        photos::{self, KeptPhoto},
    },
};

/// Photos that are sealed at once, when a key becomes known: punches go on in between.
const SEALED_AT_ONCE_MAX: u64 = 100;

/// A picture that isn't taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the photo {0}")]
pub struct BadPhoto(pub Cow<'static, str>);

impl BadPhoto {
    /// A photo over [`PHOTO_BYTES_MAX`].
    pub fn too_large() -> Self {
        Self("is larger than 5 MiB".into())
    }
}

/// A picture that may be kept.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Of its bytes.
    pub digest: Digest,
    /// `image/jpeg` or `image/png`.
    pub media: &'static str,
    /// Its bytes, wiped when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl Frame {
    /// Takes a picture's bytes, by what they begin with.
    ///
    /// # Errors
    /// When they are neither JPEG nor PNG, or too many.
    pub fn of(bytes: Zeroizing<Vec<u8>>) -> Result<Self, BadPhoto> {
        let media = match bytes.as_slice() {
            [] => return Err(BadPhoto("is empty".into())),
            photo if photo.len() > PHOTO_BYTES_MAX => return Err(BadPhoto::too_large()),
            [0xff, 0xd8, 0xff, ..] => "image/jpeg",
            photo if photo.starts_with(b"\x89PNG\r\n\x1a\n") => "image/png",
            _ => return Err(BadPhoto("is neither JPEG nor PNG".into())),
        };
        Ok(Self { digest: Digest::of(&bytes), media, bytes })
    }
}

impl Device {
    /// Keeps a frame, waiting: sealed, if the server gave a key. Its file is on disk when this
    /// returns; it is `identity`'s once `write` is committed.
    pub(crate) async fn keep(
        &self,
        write: &mut Write,
        identity: IdentityId,
        Frame { digest, media, bytes }: Frame,
    ) -> Result<(), StoreError> {
        let key = contact::of(write, identity).await?.photo_key;
        let folder = self.folder.clone();
        let keeping = move || match key {
            Some(key) => keep_sealed(&folder, identity, digest, &key, &bytes),
            None => {
                folder.keep_photo(digest, &bytes)?;
                Ok(bytes.len() as u64)
            }
        };
        let size_bytes = aside(keeping).await?;
        let sealed = key.is_some();
        let photo = KeptPhoto { digest, size_bytes, media: media.to_owned(), sealed };
        photos::add(write, identity, &photo).await
    }

    /// Seals photos that were kept before the server's key was known. The sealed file is on disk
    /// before the row says so, and only then is the plain one wiped: wherever this is broken off,
    /// the photo is there. Gives whether more are left.
    ///
    /// # Errors
    /// When store or folder refuse; then what isn't sealed is as it was.
    pub async fn seal_photos(&self, identity: IdentityId) -> Result<bool, StoreError> {
        for _ in 0..SEALED_AT_ONCE_MAX {
            let mut db = self.store.read().await?;
            let Some(key) = contact::of(&mut db, identity).await?.photo_key else {
                return Ok(false);
            };
            if photos::unsealed(&mut db, identity).await?.is_none() {
                return Ok(false);
            }
            drop(db);
            self.seal_one(identity, key).await?;
        }
        Ok(true)
    }

    async fn seal_one(&self, identity: IdentityId, key: PhotoKey) -> Result<(), StoreError> {
        let mut write = self.store.write().await?;
        let Some(KeptPhoto { digest, .. }) = photos::unsealed(&mut write, identity).await? else {
            return Ok(write.rollback().await?);
        };
        let folder = self.folder.clone();
        let path = folder.photo(digest);
        let sealing = move || {
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => Zeroizing::new(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    return Err(StoreError::DiskFailed(format!("{}: {error}", path.display())));
                }
            };
            // What a damaged file holds is no evidence of anything.
            if Digest::of(&bytes) != digest {
                return Ok(None);
            }
            keep_sealed(&folder, identity, digest, &key, &bytes).map(Some)
        };
        match aside(sealing).await? {
            Some(size_bytes) => photos::sealed(&mut write, identity, digest, size_bytes).await?,
            None => {
                photos::lost(&mut write, identity, digest).await?;
                tracing::error!(photo = %digest,
                    "the photo's file is gone or damaged; its punch stands without it");
            }
        }
        write.commit().await?;
        // A crash before this leaves the plain file to the sweep.
        self.forget_files(&[PhotoFile::Plain(digest)]).await
    }

    /// Deletes those of these photo files that no row names: under the write lock, so that nobody
    /// keeps one anew meanwhile.
    pub(crate) async fn forget_files(&self, files: &[PhotoFile]) -> Result<(), StoreError> {
        let mut write = self.store.write().await?;
        for &file in files {
            if !photos::is_named(&mut write, file).await? {
                self.folder.forget_photo(file)?;
            }
        }
        Ok(write.rollback().await?)
    }
}

fn keep_sealed(
    folder: &Folder,
    identity: IdentityId,
    digest: Digest,
    key: &PhotoKey,
    bytes: &[u8],
) -> Result<u64, StoreError> {
    let sealed = seal(key, bytes).map_err(StoreError::unreadable)?;
    folder.keep_photo(PhotoFile::Sealed(digest, identity), &sealed)?;
    Ok(sealed.len() as u64)
}

/// Works on files where no other task waits for it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::unreadable(format_args!("keeping a photo: {error}")))?
}
