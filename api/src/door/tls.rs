//! TLS, by a certificate and its key in two files, as `certbot` and the like leave them.
//!
//! The files are looked at every few seconds. A new pair serves the next handshake; connections
//! that stand go on as they are. A pair that is none (half of it written, the key of another
//! certificate) is refused loudly, once each time it changes, and the one before goes on serving.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use punchtrail_protocol::Digest;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
    server::TlsStream,
};
use tokio_util::sync::CancellationToken;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest such file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a certificate is, with those that lead from it to an authority, and its key, in PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why a certificate can't be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path} can't be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// A file holds no such thing.
    #[error("{path} holds no {what} in PEM: {reason}")]
    Pem { path: PathBuf, what: &'static str, reason: String },
    /// They don't belong together, or are of a kind that can't be served.
    #[error("{cert} and {key} can't be served together: {reason}", cert = .files.cert.display(),
        key = .files.key.display())]
    Pair { files: CertificateFiles, reason: String },
}

/// Accepts connections by TLS. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    pair: Arc<Pair>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.pair.files).finish_non_exhaustive()
    }
}

/// The pair that is served now.
#[derive(Debug)]
struct Pair {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    served: RwLock<Arc<CertifiedKey>>,
    /// Of the files as they were judged last.
    judged: Mutex<Digest>,
}

/// The two files as they stand.
struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the pair.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn open(files: CertificateFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let texts = Texts::read(&files).await?;
        let served = texts.pair(&files, &provider)?;
        let pair = Arc::new(Pair {
            judged: Mutex::new(texts.digest()),
            served: RwLock::new(Arc::new(served)),
            provider: Arc::clone(&provider),
            files: files.clone(),
        });
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Pair { files, reason: error.to_string() })?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Pair>::clone(&pair);
        let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), pair })
    }

    /// Does the handshake. Whoever calls bounds it.
    ///
    /// # Errors
    /// When the client speaks no TLS, or none that is safe.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Looks at the files now and then, until it is stopped.
    pub async fn watch(self, stop: CancellationToken) {
        let mut seen = None;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            seen = self.pair.look(seen).await;
        }
    }
}

impl Pair {
    /// Takes the files as they stand if they are others than were judged last, and the same as at
    /// the last look: somebody may be writing them. Gives what was seen.
    async fn look(&self, before: Option<Digest>) -> Option<Digest> {
        let texts = match Texts::read(&self.files).await {
            Ok(texts) => texts,
            Err(error) => {
                // As a pair of its own, so that it is said once.
                let missing = Digest::of(error.to_string().as_bytes());
                if before == Some(missing) && self.is_news(missing) {
                    refused(&error);
                }
                return Some(missing);
            }
        };
        let digest = texts.digest();
        if before != Some(digest) || !self.is_news(digest) {
            return Some(digest);
        }
        match texts.pair(&self.files, &self.provider) {
            Ok(pair) => {
                let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
                *served = Arc::new(pair);
                tracing::info!(cert = %self.files.cert.display(), "the certificate is a new one");
            }
            Err(error) => refused(&error),
        }
        Some(digest)
    }

    fn is_news(&self, digest: Digest) -> bool {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *judged, digest) != digest
    }
}

fn refused(error: &TlsError) {
    metrics::counter!("punchtrail_tls_refused_total").increment(1);
    tracing::error!(
        %error,
        "A NEW CERTIFICATE CAN'T BE SERVED; the one before goes on serving until it runs out. Put \
         certificate and key right, and they are taken within seconds"
    );
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Texts {
    async fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        Ok(Self { cert: read(&files.cert).await?, key: read(&files.key).await? })
    }

    fn digest(&self) -> Digest {
        Digest::of_parts(&[&self.cert, &self.key])
    }

    fn pair(
        &self,
        files: &CertificateFiles,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, TlsError> {
        let pem = |path: &Path, what, reason: String| {
            Err(TlsError::Pem { path: path.to_owned(), what, reason })
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = match chain {
            Ok(chain) if chain.is_empty() => {
                return pem(&files.cert, "certificate", "there is none".to_owned());
            }
            Ok(chain) => chain,
            Err(error) => return pem(&files.cert, "certificate", error.to_string()),
        };
        let key = match PrivateKeyDer::from_pem_slice(&self.key) {
            Ok(key) => key,
            Err(error) => return pem(&files.key, "private key", error.to_string()),
        };
        CertifiedKey::from_der(chain, key, provider).map_err(|error: rustls::Error| {
            TlsError::Pair { files: files.clone(), reason: error.to_string() }
        })
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |source| TlsError::Read { path: path.to_owned(), source };
    let length_bytes = tokio::fs::metadata(path).await.map_err(wrong)?.len();
    if length_bytes > FILE_BYTES_MAX {
        return Err(wrong(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has {length_bytes} bytes; at most {FILE_BYTES_MAX} are read"),
        )));
    }
    tokio::fs::read(path).await.map_err(wrong)
}
