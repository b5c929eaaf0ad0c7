//! Photos: the same cases over a folder and over a bucket, as Moto plays S3; then what only a
//! bucket can meet, some of it played by listeners that answer what S3 would.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use punchtrail_infra::photos::{PhotoBucket, PhotoFolder, PhotoStore, PhotoUpload, Timeouts};
use punchtrail_protocol::{Digest, wire::PHOTO_BYTES_MAX};
use punchtrail_testkit::{Moto, PATIENCE};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

const PREFIX: &str = "mill/photos";
/// For what is expected to answer, on a machine with much to do.
const PATIENT: Timeouts = Timeouts { connect: PATIENCE, attempt: PATIENCE, operation: PATIENCE };
/// For what never does.
const HASTY: Timeouts = Timeouts {
    connect: Duration::from_millis(300),
    attempt: Duration::from_millis(300),
    operation: Duration::from_secs(1),
};

/// Where photos are.
enum Bench {
    Folder(TempDir),
    Bucket { config: Box<SdkConfig>, name: String },
}

impl Bench {
    fn folder() -> Option<Self> {
        Some(Self::Folder(tempfile::tempdir().unwrap()))
    }

    /// A bucket of its own; none where there is no Moto.
    async fn bucket() -> Option<Self> {
        let config = Box::new(config(moto()?).await);
        let name = format!("photos-{}", Uuid::new_v4().simple());
        let (head, _) = ask("PUT", &format!("/{name}"), b"").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Some(Self::Bucket { config, name })
    }

    async fn store(&self) -> Arc<dyn PhotoStore> {
        match self {
            Self::Folder(dir) => Arc::new(PhotoFolder::open(dir.path()).await.unwrap()),
            Self::Bucket { config, name } => {
                Arc::new(PhotoBucket::open(config, name, PREFIX, PATIENT).await.unwrap())
            }
        }
    }

    /// Puts bytes where the photo would be, behind the store's back.
    async fn plant(&self, photo: &Digest, bytes: &[u8]) {
        let digits = photo.to_string();
        let (folder, name) = digits.split_at(2);
        match self {
            Self::Folder(dir) => {
                std::fs::create_dir_all(dir.path().join(folder)).unwrap();
                std::fs::write(dir.path().join(folder).join(name), bytes).unwrap();
            }
            Self::Bucket { name: bucket, .. } => {
                let path = format!("/{bucket}/{PREFIX}/{folder}/{name}");
                let (head, _) = ask("PUT", &path, bytes).await;
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            }
        }
    }
}

/// One for all tests of this file; it ends with their process.
fn moto() -> Option<&'static str> {
    static MOTO: OnceLock<Option<(Moto, String)>> = OnceLock::new();
    let started = MOTO.get_or_init(|| {
        let moto = Moto::start()?;
        let url = moto.url();
        Some((moto, url))
    });
    started.as_ref().map(|(_, url)| url.as_str())
}

async fn config(endpoint: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .load()
        .await
}

/// Asks Moto something without a signature, which it doesn't look at: head and body.
async fn ask(method: &str, path: &str, body: &[u8]) -> (String, Vec<u8>) {
    let address = moto().unwrap().strip_prefix("http://").unwrap();
    let mut line = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=test/20261126/us-east-1/s3/aws4_request\r\n\
         content-length: {length}\r\n\r\n"
    );
    line.write_all(head.as_bytes()).await.unwrap();
    line.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, line.read_to_end(&mut answer)).await.unwrap().unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase().replacen("http", "HTTP", 1);
    (head, answer.split_off(end + 4))
}

async fn coming(store: &dyn PhotoStore, photo: Digest, bytes: &[u8]) -> Box<dyn PhotoUpload> {
    let mut upload = store.begin(photo).await.unwrap();
    for chunk in bytes.chunks(100_000) {
        upload.write(chunk).await.unwrap();
    }
    assert_eq!(upload.digest(), Digest::of(bytes));
    upload
}

async fn keep(store: &dyn PhotoStore, bytes: &[u8]) -> bool {
    coming(store, Digest::of(bytes), bytes).await.keep().await.unwrap()
}

/// Each case over both.
macro_rules! over_both {
    ($($case:ident)*) => {
        mod folder {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let Some(bench) = super::Bench::folder() else { return };
                super::$case(&bench).await;
            })*
        }
        mod bucket {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let Some(bench) = super::Bench::bucket().await else { return };
                super::$case(&bench).await;
            })*
        }
    };
}

over_both! {
    a_photo_is_kept_once_and_read_until_it_is_removed
    another_photo_than_was_said_keeps_nothing
    what_breaks_off_leaves_nothing
    two_bring_one_photo_at_once
    what_is_removed_while_it_comes_again_is_not_said_to_be_kept
    the_largest_photo_is_kept_and_a_larger_one_is_not_read
    another_node_finds_it
}

async fn a_photo_is_kept_once_and_read_until_it_is_removed(bench: &Bench) {
    let store = bench.store().await;
    let photo = Digest::of(b"a photo");
    assert!(!store.has(&photo).await.unwrap());
    assert_eq!(store.read(&photo).await.unwrap(), None);
    assert!(keep(&*store, b"a photo").await);
    assert!(!keep(&*store, b"a photo").await);
    assert!(keep(&*store, b"another").await);
    assert!(store.has(&photo).await.unwrap());
    assert_eq!(store.read(&photo).await.unwrap().unwrap(), b"a photo");
    store.remove(&photo).await.unwrap();
    assert!(!store.has(&photo).await.unwrap());
    assert_eq!(store.read(&photo).await.unwrap(), None);
    store.remove(&photo).await.unwrap();
    assert_eq!(store.read(&Digest::of(b"another")).await.unwrap().unwrap(), b"another");
    assert!(keep(&*store, b"a photo").await);
}

async fn another_photo_than_was_said_keeps_nothing(bench: &Bench) {
    let store = bench.store().await;
    let upload = coming(&*store, Digest::of(b"said"), b"brought").await;
    assert_eq!(upload.keep().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    for bytes in [&b"said"[..], b"brought"] {
        assert!(!store.has(&Digest::of(bytes)).await.unwrap());
    }
    // Nor is it believed where the photo is kept already.
    assert!(keep(&*store, b"said").await);
    let upload = coming(&*store, Digest::of(b"said"), b"brought").await;
    assert_eq!(upload.keep().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(store.read(&Digest::of(b"said")).await.unwrap().unwrap(), b"said");
}

async fn what_breaks_off_leaves_nothing(bench: &Bench) {
    let store = bench.store().await;
    drop(coming(&*store, Digest::of(b"whole"), b"half").await);
    drop(coming(&*store, Digest::of(b"whole"), b"whole").await);
    for bytes in [&b"whole"[..], b"half"] {
        assert!(!store.has(&Digest::of(bytes)).await.unwrap());
    }
    if let Bench::Bucket { name, .. } = bench {
        let (_, listed) = ask("GET", &format!("/{name}?list-type=2"), b"").await;
        let listed = String::from_utf8(listed).unwrap();
        assert!(listed.contains("<KeyCount>0</KeyCount>"), "{listed}");
    }
}

async fn two_bring_one_photo_at_once(bench: &Bench) {
    let store = bench.store().await;
    let bytes = vec![7; 300_000];
    let photo = Digest::of(&bytes);
    let both =
        async || [coming(&*store, photo, &bytes).await, coming(&*store, photo, &bytes).await];
    let [first, second] = both().await;
    assert!(first.keep().await.unwrap());
    assert!(!second.keep().await.unwrap(), "it was there when the second came to its end");
    store.remove(&photo).await.unwrap();
    // And at the same moment, when neither store that plays here decides for one of them.
    let keeping = both().await.map(|upload| tokio::spawn(upload.keep()));
    let new = futures::future::join_all(keeping).await;
    let new: Vec<bool> = new.into_iter().map(|kept| kept.unwrap().unwrap()).collect();
    assert!(new.contains(&true), "somebody brought it");
    assert_eq!(store.read(&photo).await.unwrap().unwrap(), bytes);
}

async fn what_is_removed_while_it_comes_again_is_not_said_to_be_kept(bench: &Bench) {
    let store = bench.store().await;
    keep(&*store, b"a photo").await;
    let again = coming(&*store, Digest::of(b"a photo"), b"a photo").await;
    store.remove(&Digest::of(b"a photo")).await.unwrap();
    assert_eq!(again.keep().await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

async fn the_largest_photo_is_kept_and_a_larger_one_is_not_read(bench: &Bench) {
    let store = bench.store().await;
    let largest = vec![7; PHOTO_BYTES_MAX];
    assert!(keep(&*store, &largest).await);
    assert!(store.read(&Digest::of(&largest)).await.unwrap().unwrap() == largest);
    let larger = vec![7; PHOTO_BYTES_MAX + 1];
    let photo = Digest::of(&larger);
    bench.plant(&photo, &larger).await;
    assert!(store.has(&photo).await.unwrap());
    assert_eq!(store.read(&photo).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

async fn another_node_finds_it(bench: &Bench) {
    assert!(keep(&*bench.store().await, b"a photo").await);
    let other = bench.store().await;
    assert!(!keep(&*other, b"a photo").await);
    assert_eq!(other.read(&Digest::of(b"a photo")).await.unwrap().unwrap(), b"a photo");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_has_photos_where_a_folder_has_them_and_says_what_they_are() {
    let Some(bench) = Bench::bucket().await else { return };
    let Bench::Bucket { name, .. } = &bench else { unreachable!() };
    let store = bench.store().await;
    let cases =
        [(&b"\xff\xd8\xff\xe0 one"[..], "image/jpeg"), (b"\x89PNG\r\n\x1a\n two", "image/png")];
    for (bytes, kind) in cases {
        assert!(keep(&*store, bytes).await);
        let digits = Digest::of(bytes).to_string();
        let path = format!("/{name}/{PREFIX}/{}/{}", &digits[..2], &digits[2..]);
        let (head, body) = ask("GET", &path, b"").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains(&format!("content-type: {kind}")), "{head}");
        assert_eq!(body, bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_photo_than_can_be_is_not_taken() {
    let Some(bench) = Bench::bucket().await else { return };
    let store = bench.store().await;
    let mut upload = store.begin(Digest::of(b"a photo")).await.unwrap();
    upload.write(&vec![7; PHOTO_BYTES_MAX]).await.unwrap();
    assert_eq!(upload.write(b"7").await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_no_store() {
    let Some(url) = moto() else { return };
    let opened = PhotoBucket::open(&config(url).await, "nobody-made-this", "", PATIENT).await;
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_goes_away_is_not_taken_for_photos_that_are_gone() {
    let Some(bench) = Bench::bucket().await else { return };
    let Bench::Bucket { name, .. } = &bench else { unreachable!() };
    let store = bench.store().await;
    let photo = Digest::of(b"a photo");
    let upload = coming(&*store, photo, b"a photo").await;
    let (head, _) = ask("DELETE", &format!("/{name}"), b"").await;
    assert!(head.starts_with("HTTP/1.1 204"), "{head}");
    assert_eq!(store.has(&photo).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(store.read(&photo).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(store.remove(&photo).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(upload.keep().await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn without_a_region_it_is_said_that_one_is_needed() {
    let nowhere = SdkConfig::builder().build();
    let error = PhotoBucket::open(&nowhere, "photos", "", PATIENT).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("AWS_REGION"), "{error}");
}

/// Answers each request, by its method and number, as told; what isn't told closes the connection,
/// and an empty answer keeps it open. Each connection is closed after its answer.
/// Its address, and how many came.
async fn answering(
    answer: impl Fn(&str, usize) -> Option<String> + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (count, answer) = (Arc::<AtomicUsize>::default(), Arc::new(answer));
    let came = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut line, _)) = listener.accept().await {
            let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
            tokio::spawn(async move {
                let mut asked = vec![0; 16 << 10];
                let length = line.read(&mut asked).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&asked[..length]).into_owned();
                let method = text.split(' ').next().unwrap_or_default();
                if let Some(said) = answer(method, count.fetch_add(1, Ordering::Relaxed)) {
                    line.write_all(said.as_bytes()).await.unwrap();
                    if said.is_empty() {
                        tokio::time::sleep(PATIENCE).await;
                    }
                }
            });
        }
    });
    (url, came)
}

fn said(status: &str, code: &str) -> Option<String> {
    let body = format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>");
    let length = body.len();
    Some(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    ))
}

fn missing() -> Option<String> {
    said("404 Not Found", "NoSuchKey")
}

async fn opened(url: &str, timeouts: Timeouts) -> io::Result<PhotoBucket> {
    let config = config(url).await;
    let opening = PhotoBucket::open(&config, "photos", PREFIX, timeouts);
    tokio::time::timeout(PATIENCE, opening).await.expect("it has an end")
}

#[tokio::test]
async fn who_may_not_is_told_what_is_needed() {
    let (url, came) = answering(|_, _| said("403 Forbidden", "AccessDenied")).await;
    let error = opened(&url, PATIENT).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let text = error.to_string();
    assert!(text.contains("AccessDenied: so it is") && text.contains("s3:ListBucket"), "{text}");
    assert_eq!(came.load(Ordering::Relaxed), 1, "asking again doesn't help");
    let (url, _) = answering(|_, _| said("400 Bad Request", "ExpiredToken")).await;
    let error = opened(&url, PATIENT).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let (url, _) = answering(|_, _| said("400 Bad Request", "AuthorizationHeaderMalformed")).await;
    let error = opened(&url, PATIENT).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn what_passes_is_tried_again_but_not_for_ever() {
    let slow = || said("503 Slow Down", "SlowDown");
    let (url, came) = answering(move |_, nth| if nth == 0 { slow() } else { missing() }).await;
    opened(&url, PATIENT).await.unwrap();
    assert_eq!(came.load(Ordering::Relaxed), 2);
    let (url, came) = answering(move |_, _| slow()).await;
    let error = opened(&url, PATIENT).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(came.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_conflict_is_not_taken_for_a_photo_that_is_kept() {
    let conflict = || said("409 Conflict", "ConditionalRequestConflict");
    let taken = || said("412 Precondition Failed", "PreconditionFailed");
    for (answer, kept) in [(conflict(), Err(io::ErrorKind::ResourceBusy)), (taken(), Ok(false))] {
        let put = move |method: &str, _| if method == "PUT" { answer.clone() } else { missing() };
        let (url, _) = answering(put).await;
        let store = opened(&url, PATIENT).await.unwrap();
        let upload = coming(&store, Digest::of(b"a photo"), b"a photo").await;
        assert_eq!(upload.keep().await.map_err(|error| error.kind()), kept);
    }
}

/// Opening it must fail so.
async fn fails(url: &str, timeouts: Timeouts, kinds: &[io::ErrorKind]) {
    let error = opened(url, timeouts).await.unwrap_err();
    assert!(kinds.contains(&error.kind()), "{:?} {error}", error.kind());
}

#[tokio::test]
async fn one_that_never_answers_is_an_error_in_time() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let kept = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((line, _)) = listener.accept().await {
            kept.push(line);
        }
    });
    fails(&url, HASTY, &[io::ErrorKind::TimedOut]).await;
    kept.abort();
}

#[tokio::test]
async fn one_that_falls_silent_is_an_error_in_time_whatever_is_asked() {
    // Answers the first request, when it is opened, and the one with which an upload begins.
    let (url, _) = answering(|_, nth| match nth {
        0 | 1 => missing(),
        // And then nothing more, without hanging up.
        _ => Some(String::new()),
    })
    .await;
    let store = opened(&url, HASTY).await.unwrap();
    let photo = Digest::of(b"a photo");
    let upload = coming(&store, photo, b"a photo").await;
    let all = async {
        store.has(&photo).await.unwrap_err();
        store.read(&photo).await.unwrap_err();
        store.remove(&photo).await.unwrap_err();
        upload.keep().await.unwrap_err();
    };
    tokio::time::timeout(PATIENCE, all).await.expect("each has an end");
}

#[tokio::test]
async fn one_that_hangs_up_or_is_not_there_is_an_error() {
    let (url, came) = answering(|_, _| None).await;
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    fails(&url, PATIENT, &gone).await;
    assert_eq!(came.load(Ordering::Relaxed), 3);
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    fails(&url, PATIENT, &[io::ErrorKind::ConnectionRefused]).await;
}

#[tokio::test]
async fn a_photo_that_breaks_off_is_not_given_in_part() {
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\netag: \"1\"\r\n\
                last-modified: Thu, 26 Nov 2026 05:00:00 GMT\r\nconnection: close\r\n\r\nhalf";
    let (url, _) =
        answering(move |_, nth| if nth == 0 { missing() } else { Some(part.to_owned()) }).await;
    let store = opened(&url, PATIENT).await.unwrap();
    store.read(&Digest::of(b"a photo")).await.unwrap_err();
}

#[tokio::test]
async fn a_photo_that_does_not_end_is_not_read_to_its_end() {
    let endless = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\netag: \"1\"\r\n\
                   last-modified: Thu, 26 Nov 2026 05:00:00 GMT\r\n\r\nbegin";
    let (url, _) =
        answering(move |_, nth| if nth == 0 { missing() } else { Some(endless.to_owned()) }).await;
    let store = opened(&url, PATIENT).await.unwrap();
    let error = store.read(&Digest::of(b"a photo")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
