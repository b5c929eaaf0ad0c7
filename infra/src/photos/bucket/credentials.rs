//! Who we are to S3, by the AWS SDK's own chain: variables, profiles, web identity, container,
//! machine. They are asked for again shortly before they expire.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use object_store::{CredentialProvider, Error, aws::AwsCredential};
use tokio::sync::Mutex;

/// So long before they expire, new ones are asked for: a request takes its time.
const BEFORE_THE_END: Duration = Duration::from_secs(60);
/// How long those are believed that say no end, as the SDK has it: a file may have changed.
const WITHOUT_AN_END: Duration = Duration::from_secs(15 * 60);

struct Known {
    credential: Arc<AwsCredential>,
    until: SystemTime,
}

/// Credentials as S3's client wants them.
pub(super) struct SdkCredentials {
    chain: SharedCredentialsProvider,
    /// Held while new ones are asked for, so that one asks for all.
    known: Mutex<Option<Known>>,
}

impl fmt::Debug for SdkCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SdkCredentials").finish_non_exhaustive()
    }
}

impl SdkCredentials {
    pub(super) fn of(chain: SharedCredentialsProvider) -> Self {
        Self { chain, known: Mutex::default() }
    }
}

#[async_trait]
impl CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut known = self.known.lock().await;
        let now = SystemTime::now();
        if let Some(known) = known.as_ref().filter(|known| now < known.until) {
            return Ok(Arc::clone(&known.credential));
        }
        let new = self
            .chain
            .provide_credentials()
            .await
            .map_err(|error| Error::Generic { store: "S3", source: Box::new(error) })?;
        let credential = Arc::new(written(&new));
        let until = match new.expiry() {
            Some(end) => end.checked_sub(BEFORE_THE_END).unwrap_or(now),
            None => now + WITHOUT_AN_END,
        };
        *known = Some(Known { credential: Arc::clone(&credential), until });
        Ok(credential)
    }
}

fn written(credentials: &Credentials) -> AwsCredential {
    AwsCredential {
        key_id: credentials.access_key_id().to_owned(),
        secret_key: credentials.secret_access_key().to_owned(),
        token: credentials.session_token().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use aws_credential_types::provider::{error::CredentialsError, future};

    use super::*;

    /// Gives other credentials each time, which last so long; none without.
    #[derive(Debug)]
    struct Counting {
        asked: Arc<AtomicU64>,
        last: Option<Duration>,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let id = format!("key-{}", self.asked.fetch_add(1, Ordering::Relaxed));
            let expiry = self.last.map(|last| SystemTime::now() + last);
            let new = Credentials::new(id, "secret", Some("token".to_owned()), expiry, "test");
            future::ProvideCredentials::ready(Ok(new))
        }
    }

    async fn asked(last: Option<Duration>) -> u64 {
        let asked = Arc::<AtomicU64>::default();
        let counting = Counting { asked: Arc::clone(&asked), last };
        let credentials = SdkCredentials::of(SharedCredentialsProvider::new(counting));
        for _ in 0..3 {
            let got = credentials.get_credential().await.unwrap();
            assert!(got.key_id.starts_with("key-"));
            assert_eq!(got.token.as_deref(), Some("token"));
        }
        asked.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn they_are_asked_for_once_and_again_before_they_expire() {
        assert_eq!(asked(None).await, 1);
        assert_eq!(asked(Some(Duration::from_secs(3_600))).await, 1);
        assert_eq!(asked(Some(BEFORE_THE_END)).await, 3);
        assert_eq!(asked(Some(Duration::ZERO)).await, 3);
    }

    /// Knows none.
    #[derive(Debug)]
    struct Nobody;

    impl ProvideCredentials for Nobody {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("nobody knows any")))
        }
    }

    #[tokio::test]
    async fn without_any_nothing_is_done() {
        let credentials = SdkCredentials::of(SharedCredentialsProvider::new(Nobody));
        let error = credentials.get_credential().await.unwrap_err();
        let error = super::super::refused("GetObject", &error);
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("nobody knows any"), "{error}");
    }
}
