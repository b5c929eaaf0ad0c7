//! What a model made of reference photos, kept so that they needn't be looked at again for each
//! check. A template of a face is what laws call biometric data: it is sealed under a key that
//! stands outside of the database, and gone with its photo.

use std::{io, path::Path};

use punchtrail_protocol::{
    Digest,
    sealed_photo::{open, seal},
};

use crate::{
    key_file::{self, FileKey},
    postgres::Pool,
};

/// What its key is named for.
const PURPOSE: &str = "punchtrail.embeddings.v1";

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Embeddings {
    pool: Pool,
    key: FileKey,
}

impl Embeddings {
    /// Opens it with the data directory's key, and makes that when there is none.
    ///
    /// # Errors
    /// When the key can't be read or written.
    pub async fn of(pool: Pool, data_dir: &Path) -> io::Result<Self> {
        let key = FileKey::of(&data_dir.join(key_file::EMBEDDINGS), PURPOSE).await?;
        Ok(Self { pool, key })
    }

    /// What a model made of a photo, if it is kept and can be opened.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn get(&self, photo: Digest, model: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        let sealed: Option<Vec<u8>> = sqlx::query_scalar(
            "select sealed from reference_embeddings \
             where photo = $1 and model = $2 and key_id = $3",
        )
        .bind(photo.0.as_slice())
        .bind(model)
        .bind(self.key.id.as_slice())
        .fetch_optional(&self.pool)
        .await?;
        Ok(sealed.and_then(|sealed| open(&self.key.secret, &sealed).ok()))
    }

    /// Keeps what a model made of a photo.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn put(&self, photo: Digest, model: &str, made: &[u8]) -> Result<(), sqlx::Error> {
        let Ok(sealed) = seal(&self.key.secret.key(), made) else { return Ok(()) };
        sqlx::query(
            "insert into reference_embeddings (photo, model, key_id, sealed) \
             values ($1, $2, $3, $4) on conflict do nothing",
        )
        .bind(photo.0.as_slice())
        .bind(model)
        .bind(self.key.id.as_slice())
        .bind(sealed)
        .execute(&self.pool)
        .await
        .map(drop)
    }
}

/// Forgets whatever models made of a photo.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget(writer: &Pool, photo: Digest) -> Result<(), sqlx::Error> {
    sqlx::query("delete from reference_embeddings where photo = $1")
        .bind(photo.0.as_slice())
        .execute(writer)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn what_is_kept_is_sealed_under_a_key_of_the_node_and_goes_with_its_photo() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cache = Embeddings::of(pools.writer.clone(), here.path()).await.unwrap();
        let (photo, made) = (Digest::of(b"photo"), b"a template of a face".as_slice());
        cache.put(photo, "model 1", made).await.unwrap();
        cache.put(photo, "model 1", b"another").await.unwrap();
        let again = Embeddings::of(pools.writer.clone(), here.path()).await.unwrap();
        assert_eq!(again.get(photo, "model 1").await.unwrap().as_deref(), Some(made));
        assert_eq!(again.get(photo, "model 2").await.unwrap(), None);
        let other = Embeddings::of(pools.writer.clone(), there.path()).await.unwrap();
        assert_eq!(other.get(photo, "model 1").await.unwrap(), None);
        let kept: Vec<u8> = sqlx::query_scalar("select sealed from reference_embeddings")
            .fetch_one(&pools.writer)
            .await
            .unwrap();
        assert!(!kept.windows(made.len()).any(|window| window == made));
        forget(&pools.writer, photo).await.unwrap();
        assert_eq!(again.get(photo, "model 1").await.unwrap(), None);
        pools.close().await;
        database.close().await;
    }
}
