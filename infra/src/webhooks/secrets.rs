//! What deliveries are signed by (Standard Webhooks 1.0): made here, shown once, kept sealed under
//! a key that stands outside of the database. While one follows another both sign.

use std::{io, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx as _;
use punchtrail_protocol::sealed_photo::{open, seal};
use sha2::Sha256;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::key_file::FileKey;

/// What its key is named for.
const PURPOSE: &str = "punchtrail.webhooks.v1";
const SECRET_BYTES: usize = 32;
const PREFIX: &str = "whsec_";
/// Secrets of an endpoint that sign at once.
pub const SIGNING_MAX: i64 = 4;

/// Under which secrets are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keeper {
    key: FileKey,
}

/// A secret, to be shown once. It isn't printed by accident.
#[derive(Clone)]
pub struct SigningSecret([u8; SECRET_BYTES]);

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSecret")
    }
}

impl SigningSecret {
    fn new() -> Self {
        Self(rand::random())
    }

    /// The text that receivers are given.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0))
    }

    fn sign(&self, id: &str, timestamp: i64, body: &str) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body.as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// The header `webhook-signature`: one signature of each secret.
pub fn signature(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &str) -> String {
    let signatures = secrets.iter().filter_map(|secret| secret.sign(id, timestamp, body));
    signatures.collect::<Vec<_>>().join(" ")
}

impl Keeper {
    /// Opens the key's file, and makes it when there is none.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub async fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { key: FileKey::of(path, PURPOSE).await? })
    }

    /// What the key is named by, beside what it seals.
    pub fn id(&self) -> &[u8] {
        &self.key.id
    }

    /// Opens what is kept; none when it was sealed under another key, or for another endpoint.
    pub fn open(&self, endpoint: Uuid, sealed: &[u8]) -> Option<SigningSecret> {
        let opened = open(&self.key.secret, sealed).ok()?;
        let secret = opened.strip_prefix(endpoint.as_bytes())?;
        Some(SigningSecret(secret.try_into().ok()?))
    }

    /// Makes another secret of an endpoint. Those that it had sign on until then.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub(super) async fn add(
        &self,
        connection: &mut PgConnection,
        endpoint: Uuid,
        now: Timestamp,
        overlap: SignedDuration,
    ) -> Result<SigningSecret, sqlx::Error> {
        let secret = SigningSecret::new();
        let bound = [endpoint.as_bytes().as_slice(), &secret.0].concat();
        let sealed = seal(&self.key.secret.key(), &bound)
            .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        sqlx::query(
            "update webhook_secrets set expires_at = least(coalesce(expires_at, $2), $2) \
             where endpoint = $1",
        )
        .bind(endpoint)
        .bind((now + overlap).to_sqlx())
        .execute(&mut *connection)
        .await?;
        sqlx::query("delete from webhook_secrets where endpoint = $1 and expires_at <= $2")
            .bind(endpoint)
            .bind(now.to_sqlx())
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "insert into webhook_secrets (id, endpoint, key_id, sealed, made_at) \
             values ($1, $2, $3, $4, $5)",
        )
        .bind(Uuid::now_v7())
        .bind(endpoint)
        .bind(self.id())
        .bind(sealed)
        .bind(now.to_sqlx())
        .execute(&mut *connection)
        .await?;
        // The oldest beyond the most that sign go at once.
        sqlx::query(
            "delete from webhook_secrets where endpoint = $1 and id not in (select id from \
             webhook_secrets where endpoint = $1 order by id desc limit $2)",
        )
        .bind(endpoint)
        .bind(SIGNING_MAX)
        .execute(&mut *connection)
        .await?;
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_signature_is_what_the_standard_says() {
        let known = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&known).unwrap();
        mac.update(br#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#);
        let signed = STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(signed, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let (one, other) = (SigningSecret([1; 32]), SigningSecret([2; 32]));
        let both = signature(&[one.clone(), other], "evt_1", 1, "{}");
        assert!(both.starts_with(&signature(&[one], "evt_1", 1, "{}")));
        assert_eq!(both.split(' ').count(), 2);
    }

    #[tokio::test]
    async fn a_secret_opens_for_its_endpoint_and_under_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::of(&dir.path().join("a.key")).await.unwrap();
        let other = Keeper::of(&dir.path().join("b.key")).await.unwrap();
        let (endpoint, secret) = (Uuid::new_v4(), SigningSecret::new());
        let bound = [endpoint.as_bytes().as_slice(), &secret.0].concat();
        let sealed = seal(&keeper.key.secret.key(), &bound).unwrap();
        assert_eq!(keeper.open(endpoint, &sealed).unwrap().0, secret.0);
        assert!(keeper.open(Uuid::new_v4(), &sealed).is_none());
        assert!(other.open(endpoint, &sealed).is_none());
        assert!(secret.reveal().starts_with("whsec_"));
    }
}
