//! Photos by their content: the name of a photo is the SHA-256 digest of its bytes.
//!
//! Two stores are behind the port, [`PhotoFolder`] and [`PhotoBucket`], chosen by [`PhotoPlace`];
//! both name a photo `ab/cdef…` by its digest's digits, so one can be copied to the other. Never
//! changes what is kept: the same digest is the same photo.

mod bucket;
mod folder;
pub mod loose;
mod place;
pub mod reads;

use std::io;

use async_trait::async_trait;
use punchtrail_protocol::Digest;

pub use bucket::{PhotoBucket, Timeouts};
pub use folder::PhotoFolder;
pub use place::{NotAPlace, PhotoPlace, PhotosError, open_photos};

/// Where photos are kept.
#[async_trait]
pub trait PhotoStore: Send + Sync + 'static {
    /// Whether the photo is kept already.
    ///
    /// # Errors
    /// When the store is out of reach.
    async fn has(&self, photo: &Digest) -> io::Result<bool>;

    /// A photo's bytes, if it is kept: at most
    /// [`PHOTO_BYTES_MAX`](punchtrail_protocol::wire::PHOTO_BYTES_MAX).
    ///
    /// # Errors
    /// When the store is out of reach; [`InvalidData`](io::ErrorKind::InvalidData) when there are
    /// more bytes.
    async fn read(&self, photo: &Digest) -> io::Result<Option<Vec<u8>>>;

    /// Starts taking what is said to be this photo. Nothing is kept until [`PhotoUpload::keep`];
    /// what is kept already is not written again.
    ///
    /// # Errors
    /// When the store is out of reach, or full.
    async fn begin(&self, photo: Digest) -> io::Result<Box<dyn PhotoUpload>>;

    /// Keeps a photo that is here whole. Whether it is new.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) and of [`PhotoUpload`].
    async fn put(&self, photo: Digest, bytes: &[u8]) -> io::Result<bool> {
        let mut upload = self.begin(photo).await?;
        upload.write(bytes).await?;
        upload.keep().await
    }

    /// The photos whose digest begins with that byte, in their order: a 256th of all.
    ///
    /// # Errors
    /// When the store is out of reach.
    async fn list(&self, first: u8) -> io::Result<Vec<ListedPhoto>>;

    /// Removes a photo, if it is kept.
    ///
    /// # Errors
    /// When the store is out of reach.
    async fn remove(&self, photo: &Digest) -> io::Result<()>;
}

/// A photo as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedPhoto {
    pub photo: Digest,
    pub bytes: u64,
}

impl ListedPhoto {
    /// In the folder of this first byte, under that name; none of what is no photo's name.
    fn named(first: u8, name: &str, bytes: u64) -> Option<Self> {
        let photo = format!("{first:02x}{name}").parse().ok()?;
        Some(Self { photo, bytes })
    }
}

/// A photo that is coming. Dropped, it leaves nothing.
#[async_trait]
pub trait PhotoUpload: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the store is out of reach, or full.
    async fn write(&mut self, chunk: &[u8]) -> io::Result<()>;

    /// The digest of what came so far.
    fn digest(&self) -> Digest;

    /// Keeps what came as the photo it was said to be; safe when this returns. Whether it is new.
    ///
    /// # Errors
    /// When it is another photo, or the store is out of reach or full.
    async fn keep(self: Box<Self>) -> io::Result<bool>;
}

fn another_came() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "another photo came")
}

fn removed_meanwhile() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "it was removed meanwhile")
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is larger than a photo can be")
}
