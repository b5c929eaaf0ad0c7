//! Keys that stand outside of the database, each in a file of its own: whoever reads the database,
//! or a copy of it, can't open what is sealed in there.

use std::{io, path::Path};

use punchtrail_protocol::{Digest, sealed_photo::PhotoSecret};
use tokio::fs;

/// The file in the data directory with the key of what a model made of photos. Each node may have
/// one of its own: what another one made isn't found, and made again.
pub const EMBEDDINGS: &str = "embeddings.key";
/// The file there with the key of webhooks' secrets, unless another is named. Nodes share it.
pub const WEBHOOKS: &str = "webhooks.key";

/// How much of a key's digest names it.
pub const KEY_ID_BYTES: usize = 8;

/// A key, and what it is named by beside what it seals.
#[derive(Debug, Clone)]
pub struct FileKey {
    pub secret: PhotoSecret,
    pub id: [u8; KEY_ID_BYTES],
}

impl FileKey {
    /// Reads the key of a file, and makes it when there is none. `purpose` goes into its name.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub async fn of(path: &Path, purpose: &str) -> io::Result<Self> {
        let secret = match read(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path).await?,
            read => read?,
        };
        let named = Digest::of_parts(&[purpose.as_bytes(), &secret.key().to_bytes()]);
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&named.0[..KEY_ID_BYTES]);
        Ok(Self { secret, id })
    }
}

async fn read(path: &Path) -> io::Result<PhotoSecret> {
    let length = |_| io::Error::new(io::ErrorKind::InvalidData, "a key has 32 bytes");
    Ok(PhotoSecret::from_bytes(fs::read(path).await?.try_into().map_err(length)?))
}

/// Nobody else may read it, and it is there whole or not at all. Of two who make it at once, both
/// go on with the first's.
async fn make(path: &Path) -> io::Result<PhotoSecret> {
    let secret = PhotoSecret::generate();
    let unfinished = path.with_extension(format!("new-{}", uuid::Uuid::new_v4().simple()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&unfinished).await?;
    tokio::io::AsyncWriteExt::write_all(&mut file, &secret.to_bytes()).await?;
    file.sync_all().await?;
    let linked = fs::hard_link(&unfinished, path).await;
    fs::remove_file(&unfinished).await?;
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return read(path).await,
        Err(error) => return Err(error),
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::File::open(folder).await?.sync_all().await?;
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_key_is_made_once_for_nobody_else_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.key");
        let (one, other) = tokio::join!(FileKey::of(&path, "a"), FileKey::of(&path, "a"));
        assert_eq!(one.unwrap().id, other.unwrap().id);
        assert_ne!(FileKey::of(&path, "b").await.unwrap().id, [0; KEY_ID_BYTES]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(&path, b"short").unwrap();
        assert!(FileKey::of(&path, "a").await.is_err());
    }
}
