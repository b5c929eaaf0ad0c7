//! Photos in a bucket of Amazon S3, or of what speaks its protocol.
//!
//! A photo gathers in memory while it comes and is then put whole, on the condition that its key is
//! free; so what is kept is never written again, also when two bring it at once. S3 checks what
//! arrives by SHA-256 and keeps the digest. It encrypts as the bucket says.
//!
//! Every call has an end, and a missing bucket is never taken for a missing photo: so nothing is
//! asked for by `HEAD`, whose answers don't tell the two apart.

mod credentials;
mod refusal;

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use futures::TryStreamExt;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, Error, GetOptions, GetResult, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, Checksum},
    path::Path,
};
use punchtrail_protocol::{Digest, wire::PHOTO_BYTES_MAX};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::{
    credentials::SdkCredentials,
    refusal::{is_missing_photo, is_there_already, refused},
};
use super::{ListedPhoto, PhotoStore, PhotoUpload, another_came, removed_meanwhile, too_large};

/// How often a call is tried again that failed for what may pass.
const TRIED_AGAIN_MAX: usize = 2;
/// Between two tries: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// Bytes of photos that are coming, of all uploads together. One that is too many is refused.
const COMING_BYTES_MAX: usize = 256 << 20;

/// What the first bytes of a file say of it.
const KINDS: [(&[u8], &str); 2] =
    [(b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png")];
/// The version of what lies in a bucket that keeps none.
const NO_VERSION: &str = "null";

/// How long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For one try of a call, with all its bytes.
    pub attempt: Duration,
    /// For a call with all its tries, and for credentials if it needs new ones.
    pub operation: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(10),
            operation: Duration::from_secs(20),
        }
    }
}

/// Photos in S3: `prefix/ab/cdef…` by the digest's digits. Cheap to share.
#[derive(Debug, Clone)]
pub struct PhotoBucket {
    s3: AmazonS3,
    prefix: Path,
    operation_max: Duration,
    coming: Arc<Semaphore>,
    /// That it was said that the bucket keeps what is erased.
    told_of_versions: Arc<AtomicBool>,
}

impl PhotoBucket {
    /// Region, credentials and endpoint are those of the SDK (an endpoint by
    /// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or a profile; only such a one may speak plain
    /// HTTP). Finds out whether the bucket is there and can be read.
    ///
    /// # Errors
    /// When it isn't, or can't; [`InvalidInput`](io::ErrorKind::InvalidInput) without a region.
    pub async fn open(
        aws: &SdkConfig,
        bucket: &str,
        prefix: &str,
        timeouts: Timeouts,
    ) -> io::Result<Self> {
        let opened = Self {
            s3: client(aws, bucket, timeouts)?,
            prefix: Path::from(prefix),
            operation_max: timeouts.operation,
            coming: Arc::new(Semaphore::new(COMING_BYTES_MAX)),
            told_of_versions: Arc::default(),
        };
        match opened.has(&Digest(rand::random())).await {
            Ok(_) => Ok(opened),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let needed = "s3:GetObject, s3:PutObject and s3:DeleteObject for the photos, \
                              s3:ListBucket for the bucket";
                Err(io::Error::new(error.kind(), format!("{error}. Needed are {needed}")))
            }
            Err(error) => Err(error),
        }
    }

    fn key(&self, photo: &Digest) -> Path {
        let digits = photo.to_string();
        let (folder, name) = digits.split_at(2);
        self.prefix.clone().join(folder).join(name)
    }

    /// The answer to a call, which S3 may have refused.
    async fn within<T>(
        &self,
        action: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> io::Result<Result<T, Error>> {
        tokio::time::timeout(self.operation_max, call).await.map_err(|_| silent(action))
    }

    /// What is kept of a photo, or its first byte.
    async fn get<T>(
        &self,
        photo: &Digest,
        options: GetOptions,
        take: impl AsyncFnOnce(GetResult) -> Result<T, Error>,
    ) -> io::Result<Option<T>> {
        let action = "GetObject";
        let key = self.key(photo);
        let call = async { take(self.s3.get_opts(&key, options).await?).await };
        match self.within(action, call).await? {
            Ok(got) => Ok(Some(got)),
            Err(error) if is_missing_photo(&error) => Ok(None),
            Err(error) => Err(refused(action, &error)),
        }
    }

    async fn put(&self, photo: &Digest, bytes: Vec<u8>) -> io::Result<bool> {
        let action = "PutObject";
        let mut attributes = Attributes::new();
        if let Some((_, kind)) = KINDS.iter().find(|(start, _)| bytes.starts_with(start)) {
            attributes.insert(Attribute::ContentType, (*kind).into());
        }
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        let key = self.key(photo);
        let call = self.s3.put_opts(&key, PutPayload::from(bytes), options);
        match self.within(action, call).await? {
            Ok(put) => {
                self.mind_versions(put.version.as_deref());
                Ok(true)
            }
            Err(error) if is_there_already(&error) => Ok(false),
            Err(error) => Err(refused(action, &error)),
        }
    }

    /// Says it once if what is erased here stays as an older version.
    fn mind_versions(&self, version: Option<&str>) {
        let keeps = version.is_some_and(|version| version != NO_VERSION);
        if keeps && !self.told_of_versions.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the bucket of photos keeps versions: what is erased stays there until its \
                 lifecycle ends it"
            );
        }
    }
}

#[async_trait]
impl PhotoStore for PhotoBucket {
    async fn has(&self, photo: &Digest) -> io::Result<bool> {
        let first = GetOptions { range: Some((0..1).into()), ..GetOptions::default() };
        Ok(self.get(photo, first, async |_| Ok(())).await?.is_some())
    }

    async fn read(&self, photo: &Digest) -> io::Result<Option<Vec<u8>>> {
        let take = async |got: GetResult| {
            let length = got.meta.size;
            let mut bytes = Vec::new();
            let mut coming = got.into_stream();
            while length <= PHOTO_BYTES_MAX as u64
                && let Some(chunk) = coming.try_next().await?
                && bytes.len() <= PHOTO_BYTES_MAX
            {
                bytes.extend_from_slice(&chunk);
            }
            Ok((length, bytes))
        };
        let Some((length, bytes)) = self.get(photo, GetOptions::default(), take).await? else {
            return Ok(None);
        };
        if length.max(bytes.len() as u64) > PHOTO_BYTES_MAX as u64 {
            return Err(too_large());
        }
        if (bytes.len() as u64) < length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "S3 gave a part of it"));
        }
        Ok(Some(bytes))
    }

    async fn begin(&self, photo: Digest) -> io::Result<Box<dyn PhotoUpload>> {
        let coming = match self.has(&photo).await? {
            true => None,
            false => Some(Coming::default()),
        };
        Ok(Box::new(BucketUpload { bucket: self.clone(), photo, coming, hasher: Sha256::new() }))
    }

    async fn list(&self, first: u8) -> io::Result<Vec<ListedPhoto>> {
        let action = "ListObjectsV2";
        let folder = self.prefix.clone().join(format!("{first:02x}"));
        let call = self.s3.list(Some(&folder)).try_collect::<Vec<_>>();
        let found = self.within(action, call).await?.map_err(|error| refused(action, &error))?;
        let named = |it: &ObjectMeta| ListedPhoto::named(first, it.location.filename()?, it.size);
        let mut listed: Vec<_> = found.iter().filter_map(named).collect();
        listed.sort_unstable();
        Ok(listed)
    }

    async fn remove(&self, photo: &Digest) -> io::Result<()> {
        let action = "DeleteObject";
        let key = self.key(photo);
        match self.within(action, self.s3.delete(&key)).await? {
            Err(error) if !is_missing_photo(&error) => Err(refused(action, &error)),
            _ => Ok(()),
        }
    }
}

/// What has come of a photo, and the right to hold it.
#[derive(Default)]
struct Coming {
    bytes: Vec<u8>,
    held: Option<OwnedSemaphorePermit>,
}

struct BucketUpload {
    bucket: PhotoBucket,
    photo: Digest,
    /// None when the photo is kept already.
    coming: Option<Coming>,
    hasher: Sha256,
}

#[async_trait]
impl PhotoUpload for BucketUpload {
    async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.hasher.update(chunk);
        let Some(coming) = &mut self.coming else { return Ok(()) };
        if coming.bytes.len() + chunk.len() > PHOTO_BYTES_MAX {
            return Err(too_large());
        }
        let more = Arc::clone(&self.bucket.coming).try_acquire_many_owned(chunk.len() as u32);
        let more = more.map_err(|_| {
            io::Error::new(io::ErrorKind::ResourceBusy, "too many photos are coming at once")
        })?;
        match &mut coming.held {
            Some(held) => held.merge(more),
            None => coming.held = Some(more),
        }
        coming.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    async fn keep(self: Box<Self>) -> io::Result<bool> {
        if self.digest() != self.photo {
            return Err(another_came());
        }
        match self.coming {
            Some(Coming { bytes, held }) => {
                let kept = self.bucket.put(&self.photo, bytes).await;
                drop(held);
                kept
            }
            None if self.bucket.has(&self.photo).await? => Ok(false),
            None => Err(removed_meanwhile()),
        }
    }
}

fn client(aws: &SdkConfig, bucket: &str, timeouts: Timeouts) -> io::Result<AmazonS3> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let region = aws.region().ok_or_else(|| {
        wrong("no AWS region is set; give --aws-region or AWS_REGION, that of the bucket".into())
    })?;
    let credentials = aws.credentials_provider().ok_or_else(|| wrong("no credentials".into()))?;
    let [init_backoff, max_backoff] = PAUSES;
    let endpoint = endpoint(aws);
    let http = endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
    let line = ClientOptions::new()
        .with_connect_timeout(timeouts.connect.min(timeouts.attempt))
        .with_timeout(timeouts.attempt)
        .with_allow_http(http);
    let mut s3 = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region.as_ref())
        .with_credentials(Arc::new(SdkCredentials::of(credentials)))
        .with_checksum_algorithm(Checksum::SHA256)
        // One at a time says of each whether it went well; nor does every S3 know the other way.
        .with_disable_bulk_delete(true)
        // A name with a dot fits no certificate as a host's.
        .with_virtual_hosted_style_request(endpoint.is_none() && !bucket.contains('.'))
        .with_client_options(line)
        .with_retry(RetryConfig {
            backoff: BackoffConfig { init_backoff, max_backoff, base: 2.0 },
            max_retries: TRIED_AGAIN_MAX,
            retry_timeout: timeouts.operation,
        });
    if let Some(endpoint) = endpoint {
        s3 = s3.with_endpoint(endpoint);
    }
    s3.build().map_err(|error| wrong(error.to_string()))
}

/// Where S3 is, if not at AWS, found as the SDK's own clients find it.
fn endpoint(aws: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let of_s3 = key.ok().and_then(|key| aws.service_config()?.load_config(key));
    of_s3.or_else(|| aws.endpoint_url().map(str::to_owned))
}

fn silent(action: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("S3 didn't answer {action} in time"))
}
