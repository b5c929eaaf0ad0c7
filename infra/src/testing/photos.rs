//! Photos in memory, for tests of what reads them.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use punchtrail_protocol::Digest;

use crate::photos::{ListedPhoto, PhotoStore, PhotoUpload};

type Held = Arc<Mutex<HashMap<Digest, Vec<u8>>>>;

/// A store that is gone with the test.
#[derive(Debug, Clone, Default)]
pub struct HeldPhotos(Held);

fn locked(held: &Held) -> MutexGuard<'_, HashMap<Digest, Vec<u8>>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HeldPhotos {
    /// Keeps a photo, and gives its digest.
    pub fn put(&self, bytes: &[u8]) -> Digest {
        let photo = Digest::of(bytes);
        locked(&self.0).insert(photo, bytes.to_vec());
        photo
    }
}

#[async_trait]
impl PhotoStore for HeldPhotos {
    async fn has(&self, photo: &Digest) -> io::Result<bool> {
        Ok(locked(&self.0).contains_key(photo))
    }

    async fn read(&self, photo: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(locked(&self.0).get(photo).cloned())
    }

    async fn begin(&self, photo: Digest) -> io::Result<Box<dyn PhotoUpload>> {
        Ok(Box::new(Coming { held: self.clone(), photo, bytes: Vec::new() }))
    }

    async fn list(&self, first: u8) -> io::Result<Vec<ListedPhoto>> {
        let held = locked(&self.0);
        let of = |(photo, bytes): (&Digest, &Vec<u8>)| ListedPhoto {
            photo: *photo,
            bytes: bytes.len() as u64,
        };
        let mut listed: Vec<_> =
            held.iter().filter(|(photo, _)| photo.0[0] == first).map(of).collect();
        listed.sort_unstable();
        Ok(listed)
    }

    async fn remove(&self, photo: &Digest) -> io::Result<()> {
        locked(&self.0).remove(photo);
        Ok(())
    }
}

struct Coming {
    held: HeldPhotos,
    photo: Digest,
    bytes: Vec<u8>,
}

#[async_trait]
impl PhotoUpload for Coming {
    async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    async fn keep(self: Box<Self>) -> io::Result<bool> {
        if self.digest() != self.photo {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another photo came"));
        }
        Ok(locked(&self.held.0).insert(self.photo, self.bytes).is_none())
    }
}
