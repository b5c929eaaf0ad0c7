//! The door over real connections: TLS and its certificate, who is told of what, what every answer
//! has.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use common::{House, request};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use punchtrail_api::{door::tls::CertificateFiles, problem::Code};
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::json;
use strum::VariantArray;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(format!("{CERTIFICATES}/{name}.pem")).unwrap()
}

/// A house that serves by TLS, from two files that can be changed.
struct Secure {
    house: House,
    folder: tempfile::TempDir,
}

impl Secure {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "first", "first");
        let files = CertificateFiles {
            cert: folder.path().join("served.pem"),
            key: folder.path().join("served.key"),
        };
        let house = House::with(|options| options.tls = Some(files)).await;
        Self { house, folder }
    }
}

fn put(folder: &Path, cert: &str, key: &str) {
    for (name, kind) in [(cert, "pem"), (key, "key")] {
        let from = format!("{CERTIFICATES}/{name}.{kind}");
        fs::copy(from, folder.join(format!("served.{kind}"))).unwrap();
    }
}

async fn connect(address: SocketAddr, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca")).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Which certificate a new connection is shown.
async fn shown(address: SocketAddr) -> Vec<u8> {
    let stream = connect(address, b"http/1.1").await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn livez(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"alive\n") {
        let mut piece = [0; 1_024];
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&answer));
        answer.extend(&piece[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let Secure { house, folder } = Secure::new().await;
    let address = house.address;
    let mut standing = connect(address, b"http/1.1").await;
    assert!(livez(&mut standing).await.starts_with("HTTP/1.1 200"));
    assert_eq!(shown(address).await, certificate("first").as_ref());
    // The key of another, then half of a file: the first goes on.
    let refused = || {
        let rendered = punchtrail_api::metrics::handle().unwrap().render();
        let line = rendered.lines().find(|line| line.starts_with("punchtrail_tls_refused_total "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let before = refused();
    put(folder.path(), "second", "first");
    eventually("it is refused", PATIENCE, async || Ok((refused() > before).then_some(())))
        .await
        .unwrap();
    assert_eq!(shown(address).await, certificate("first").as_ref());
    fs::remove_file(folder.path().join("served.key")).unwrap();
    eventually("it is missed", PATIENCE, async || Ok((refused() > before + 1).then_some(())))
        .await
        .unwrap();
    assert_eq!(shown(address).await, certificate("first").as_ref());
    put(folder.path(), "second", "second");
    eventually("the second is shown", PATIENCE, async || {
        let is_second = shown(address).await == certificate("second").as_ref();
        Ok(is_second.then_some(()))
    })
    .await
    .unwrap();
    assert!(livez(&mut standing).await.starts_with("HTTP/1.1 200"), "it stood all the time");
    drop(standing);
    house.close().await;
}

#[tokio::test]
async fn http_2_goes_by_tls_and_nothing_in_the_clear() {
    let Secure { house, .. } = Secure::new().await;
    let stream = connect(house.address, b"h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(connection);
    let request =
        Request::builder().uri("https://localhost/livez").body(Full::new(Bytes::new())).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "alive\n");
    drop(sender);
    driving.await.unwrap().unwrap();
    let mut clear = TcpStream::connect(house.address).await.unwrap();
    clear.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    clear.read_to_end(&mut answer).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    house.close().await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "first", "first");
    let files = CertificateFiles {
        cert: folder.path().join("served.pem"),
        key: folder.path().join("served.key"),
    };
    let house = House::with(|options| {
        options.tls = Some(files);
        options.connections_max = 8;
        options.timeouts.head = Duration::from_millis(500);
    })
    .await;
    // More than are served at once say half a word, and then nothing.
    let mut silent = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
        silent.push(stream);
    }
    let mut stream = connect(house.address, b"http/1.1").await;
    assert!(livez(&mut stream).await.starts_with("HTTP/1.1 200"));
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    }
    drop(stream);
    house.close().await;
}

#[tokio::test]
async fn a_certificate_that_is_none_starts_no_server() {
    use punchtrail_api::door::tls::{Tls, TlsError};
    let folder = tempfile::tempdir().unwrap();
    let files = |cert: &str, key: &str| {
        let path = |name: &str| Path::new(CERTIFICATES).join(name);
        CertificateFiles { cert: path(cert), key: path(key) }
    };
    let refused = async |files| Tls::open(files).await.unwrap_err();
    let missing = refused(files("gone.pem", "first.key")).await;
    assert!(matches!(missing, TlsError::Read { .. }), "{missing}");
    let swapped = refused(files("first.key", "first.pem")).await;
    assert!(matches!(swapped, TlsError::Pem { what: "certificate", .. }), "{swapped}");
    let keyless = refused(files("first.pem", "second.pem")).await;
    assert!(matches!(keyless, TlsError::Pem { what: "private key", .. }), "{keyless}");
    let mixed = refused(files("first.pem", "second.key")).await;
    assert!(matches!(mixed, TlsError::Pair { .. }), "{mixed}");
    let huge = folder.path().join("huge.pem");
    fs::File::create(&huge).unwrap().set_len(2 << 20).unwrap();
    let huge = CertificateFiles { cert: huge, key: files("", "first.key").key };
    assert!(matches!(refused(huge).await, TlsError::Read { .. }));
}

#[tokio::test]
async fn every_answer_has_an_id_and_every_problem_a_place_on_the_page() {
    let house = House::new().await;
    let page = house.get("/docs/problems", None).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    for code in Code::VARIANTS {
        assert!(page.text.contains(&format!("id=\"{}\"", code.as_str())), "{}", code.as_str());
    }
    let refused = house.get("/v1/sites", None).await;
    assert_eq!(refused.refusal(), "401 unauthenticated");
    assert_eq!(refused.body["type"], "/docs/problems#unauthenticated");
    for path in ["/livez", "/readyz", "/openapi.json", "/nowhere", "/v1/sites", "/docs/problems"] {
        for method in [Method::GET, Method::PATCH, Method::OPTIONS] {
            let answer = house.ask(request(method, path, Some(&house.key), Body::empty())).await;
            let id = answer.headers["x-request-id"].to_str().unwrap();
            assert!(id.parse::<uuid::Uuid>().is_ok(), "{path}");
        }
    }
    house.close().await;
}

#[tokio::test]
async fn times_are_read_in_every_spelling_and_written_in_one() {
    let house = House::new().await;
    let site = house.site().await;
    for at in ["2026-11-20T17:00:00Z", "2026-11-20T18:00:00.0+01:00", "2026-11-20T17:00:00.000Z"] {
        let employee = house.employee(site, &format!("B{}", at.len()), "Ada").await;
        let path = format!("/v1/employees/{employee}/departure");
        let left = house.write(&path, &json!({ "at": at })).await;
        assert_eq!(left.status, StatusCode::OK, "{}", left.text);
        let events = house.read("/v1/ledger/events?limit=1000").await;
        assert!(events.text.contains("2026-11-20T17:00:00.000Z"), "{}", events.text);
        assert!(!events.text.contains("18:00:00"), "{}", events.text);
    }
    let employee = house.employee(site, "B9", "Ada").await;
    let path = format!("/v1/employees/{employee}/departure");
    for at in ["2026-11-20", "2026-11-20T17:00:00", "2026-11-20 17:00:00Z", "yesterday"] {
        let refused = house.write(&path, &json!({ "at": at })).await;
        assert_eq!(refused.refusal(), "422 invalid: /at invalid_value", "{at}");
    }
    let read = house.read("/v1/punches?from=2026-11-20T17:00:00Z").await;
    assert_eq!(read.status, StatusCode::OK, "{}", read.text);
    house.close().await;
}

#[tokio::test]
async fn every_metric_is_there_from_the_start_with_words() {
    let house = House::new().await;
    let metrics = house.get("/metrics", Some(&house.key)).await;
    let names: std::collections::BTreeSet<&str> = metrics
        .text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .map(|name| {
            ["_bucket", "_sum", "_count"]
                .iter()
                .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name))
        })
        .collect();
    assert!(names.len() >= 36, "{names:?}");
    for name in &names {
        assert!(metrics.text.contains(&format!("# HELP {name} ")), "{name} has no words");
    }
    house.close().await;
}
