//! A real server on a real database, and a small client that enrols devices and signs captures as
//! the protocol page says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]
#![allow(dead_code, reason = "each test file uses its part")]

mod described;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::body::Body;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use http_body_util::BodyExt;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use punchtrail_api::{
    server::{ServeOptions, Server},
    state::App,
};
use punchtrail_domain::site::{Site, SiteCommand};
use punchtrail_infra::{
    access::credentials,
    devices::enrolment,
    ledger::{Ledger, Metadata, SideWrite},
    people::{
        directory,
        staff::{self, NewEmployee},
    },
    postgres::Pools,
    testing::TestDatabase,
};
use punchtrail_projections::engine::compare;
use punchtrail_protocol::{
    BootId, DeviceId, EmployeeId, OrgId, SiteId, Time,
    capture::{Capture, PunchKind},
    signing::{ENROLMENT_TYPE, PublicKey, sign},
};
use punchtrail_testkit::{Chain, PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Any free port of this machine's.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where the tests' sites are.
pub const ZONE: &str = "Europe/Berlin";

/// The day that it is then at the tests' sites, which needn't be the one in UTC.
pub fn day_of(at: Time) -> String {
    let zone = jiff::tz::TimeZone::get(ZONE).unwrap();
    at.timestamp().to_zoned(zone).date().to_string()
}

/// A running server with its database and folder.
pub struct House {
    pub database: TestDatabase,
    pub app: App,
    pub pools: Pools,
    pub ledger: Ledger,
    pub address: SocketAddr,
    pub metrics_address: Option<SocketAddr>,
    pub key: String,
    pub org: OrgId,
    data_dir: tempfile::TempDir,
    cancel: CancellationToken,
    running: JoinHandle<()>,
}

impl House {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other options.
    pub async fn with(change: impl FnOnce(&mut ServeOptions)) -> Self {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let data_dir = tempfile::tempdir().unwrap();
        let mut options = ServeOptions::new(LISTEN, pools.clone(), data_dir.path());
        change(&mut options);
        let server = Server::start(options).await.unwrap();
        let metrics_address = server.metrics_address();
        let (address, app) = (server.address(), server.app().clone());
        let (_, key) = credentials::create_operator_key(&pools.writer, "test", None).await.unwrap();
        let cancel = CancellationToken::new();
        let running = tokio::spawn(server.run(cancel.clone()));
        Self {
            database,
            app: app.clone(),
            ledger: app.ledger.clone(),
            org: app.deployment.org,
            pools,
            address,
            metrics_address,
            key: key.reveal().to_owned(),
            data_dir,
            cancel,
            running,
        }
    }

    /// Another server on the same database and folder: its address, and what stops it.
    pub async fn second(&self) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let pools = self.database.pools().await;
        let options = ServeOptions::new(LISTEN, pools, self.data_dir.path());
        let server = Server::start(options).await.unwrap();
        let (address, cancel) = (server.address(), CancellationToken::new());
        (address, cancel.clone(), tokio::spawn(server.run(cancel)))
    }

    /// Where its photos are.
    pub fn photos(&self) -> std::path::PathBuf {
        self.data_dir.path().join("photos")
    }

    /// Asks the server to stop, without waiting for it.
    pub fn begin_stop(&self) {
        self.cancel.cancel();
    }

    pub async fn close(self) {
        self.cancel.cancel();
        self.running.await.unwrap();
        self.pools.close().await;
        self.database.close().await;
    }

    pub async fn site(&self) -> SiteId {
        self.site_in(ZONE).await
    }

    pub async fn site_in(&self, tz: &str) -> SiteId {
        let site = SiteId(Uuid::now_v7());
        let command = SiteCommand::Register { tz: tz.to_owned() };
        self.ledger
            .execute_with::<Site>(&site.to_string(), command, &Metadata::default(), || {
                Some(SideWrite::new(move |connection| {
                    Box::pin(async move {
                        directory::put_site(connection, site, &format!("Site {site}")).await
                    })
                }))
            })
            .await
            .unwrap();
        site
    }

    pub async fn employee(&self, site: SiteId, badge: &str, name: &str) -> EmployeeId {
        let new = NewEmployee {
            name: name.to_owned(),
            site,
            from: None,
            badge: Some(badge.to_owned()),
            external_id: None,
            pin: None,
        };
        staff::hire(&self.ledger, new, &Metadata::default()).await.unwrap().employee
    }

    /// That every read model is what the ledger's events make of it anew.
    pub async fn models_are_as_rebuilt(&self) {
        self.settled().await;
        let (models, feed) = (punchtrail_projections::all(), self.ledger.feed());
        let compared = compare::compare(&models, &self.pools.reader, &feed, &mut |_, _| {}).await;
        let compared = compared.unwrap();
        assert!(compared.findings.is_empty(), "{:?}", compared.findings);
        assert_eq!(compared.models.len(), models.len(), "{:?}", compared.left_out);
    }

    pub async fn code(&self, site: SiteId) -> String {
        enrolment::make_code(&self.pools.writer, site).await.unwrap().shown()
    }

    /// Enrols a device at a site, over HTTP.
    pub async fn device(&self, site: SiteId) -> Device {
        let code = self.code(site).await;
        let key = SigningKey::from_bytes(&rand::random());
        let answer = self.post("/v1/devices/enroll", None, &enrolment_body(&key, &code)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        let named = |field: &str| answer.body[field].as_str().unwrap().parse::<Uuid>().unwrap();
        let id = DeviceId(named("device"));
        let mut chain = Chain::new(OrgId(named("org")), site, id, key);
        (chain.next.boot, chain.next.offline) = (BootId(Uuid::new_v4()), false);
        Device { id, token: answer.body["token"].as_str().unwrap().to_owned(), chain }
    }

    pub async fn ask(&self, request: Request<Body>) -> Answer {
        ask(self.address, request).await
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.ask(request(Method::GET, path, token, Body::empty())).await
    }

    /// Reads as an operator everything that is written now.
    pub async fn read(&self, path: &str) -> Answer {
        let head = self.ledger.head().await.unwrap();
        self.read_after(path, head.0).await
    }

    /// Reads as an operator what has been written up to a position.
    pub async fn read_after(&self, path: &str, position: u64) -> Answer {
        let mut request = request(Method::GET, path, Some(&self.key), Body::empty());
        request.headers_mut().insert("punchtrail-after", position.into());
        self.ask(request).await
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        self.send(Method::POST, path, token, body.to_string()).await
    }

    /// Writes as an operator.
    pub async fn write(&self, path: &str, body: &Value) -> Answer {
        self.post(path, Some(&self.key), body).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = request(method, path, token, body.into());
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        self.ask(request).await
    }

    pub async fn deliver(&self, device: &Device, items: &[Value]) -> Answer {
        let path = format!("/v1/sites/{}/punches/batch", device.site());
        self.post(&path, Some(&device.token), &json!({ "punches": items })).await
    }

    /// A device's report of itself.
    pub async fn beat(&self, device: &Device) -> Answer {
        self.post("/v1/devices/self/heartbeat", Some(&device.token), &device.heartbeat()).await
    }

    /// Waits until the adjudicator has judged everything, and gives the head then.
    pub async fn settled(&self) -> u64 {
        let mut state = Value::Null;
        let settled = eventually("the adjudicator at the head", PATIENCE, async || {
            state = self.read("/v1/ledger").await.body;
            let head = &state["position"];
            let followers = state["followers"].as_array().into_iter().flatten();
            let mut adjudicator = followers.filter(|one| one["name"] == "adjudicator");
            let judged = adjudicator.any(|one| one["position"] == *head);
            // The answer's head may be older than its followers: than what they have written
            // meanwhile.
            let now = self.ledger.head().await?;
            Ok(head.as_u64().filter(|head| judged && *head == now.0))
        })
        .await;
        settled.unwrap_or_else(|error| panic!("{error}: {state}"))
    }
}

pub fn enrolment_body(key: &SigningKey, code: &str) -> Value {
    let letters = code.replace('-', "").to_uppercase();
    let proof = sign(key, ENROLMENT_TYPE, letters.as_bytes());
    json!({
        "code": code,
        "name": "Front door",
        "public_key": PublicKey::from(key).to_string(),
        "proof": proof.to_string(),
        "app": "test/1",
    })
}

/// An answer, its body as JSON if it is one.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub body: Value,
    pub text: String,
    pub bytes: Bytes,
}

impl Answer {
    /// Status and code of a refusal, after a check of its form.
    pub fn refusal(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text);
        assert_eq!(self.body["status"], self.status.as_u16());
        assert_eq!(self.body["request_id"], self.headers["x-request-id"].to_str().unwrap());
        for field in ["type", "title", "detail"] {
            assert!(self.body[field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
        }
        let code = self.body["code"].as_str().unwrap();
        match self.body["errors"].as_array().and_then(|errors| errors.first()) {
            Some(error) => format!(
                "{} {code}: {} {}",
                self.status.as_u16(),
                error["pointer"].as_str().unwrap(),
                error["code"].as_str().unwrap()
            ),
            None => format!("{} {code}", self.status.as_u16()),
        }
    }

    /// What became of each item: status, and code if there is one.
    pub fn outcomes(&self) -> Vec<String> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        let outcome = |result: &Value| {
            let status = result["status"].as_str().unwrap();
            match result["code"].as_str() {
                Some(code) => format!("{status} {code}"),
                None => status.to_owned(),
            }
        };
        self.body["results"].as_array().unwrap().iter().map(outcome).collect()
    }
}

pub fn request(method: Method, path: &str, token: Option<&str>, body: Body) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path).header(header::HOST, "test");
    if let Some(token) = token {
        builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    builder.body(body).unwrap()
}

pub async fn ask(address: SocketAddr, request: Request<Body>) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes: Bytes = body.collect().await.unwrap().to_bytes();
    drop(sender);
    driving.await.unwrap().ok();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let answer = Answer { status: parts.status, headers: parts.headers, body, text, bytes };
    described::hold(&method, &path, &answer);
    answer
}

/// A device as the protocol page describes it.
pub struct Device {
    pub id: DeviceId,
    pub token: String,
    pub chain: Chain,
}

impl Device {
    /// Where it stands.
    pub fn site(&self) -> SiteId {
        self.chain.next.site
    }

    /// The next capture, in order.
    pub fn capture(&mut self, employee: EmployeeId, kind: PunchKind) -> Capture {
        self.chain.capture_with(|capture| {
            (capture.employee, capture.kind) = (Some(employee), kind);
            capture.captured_at = Time::from(jiff::Timestamp::now());
            capture.uptime_ms = 60_000 + capture.seq;
        })
    }

    /// A capture as an item of a batch.
    pub fn item(&self, capture: &Capture) -> Value {
        json!(self.chain.item(capture))
    }

    /// Any bytes, signed, as an item of a batch.
    pub fn signed(&self, bytes: &[u8]) -> Value {
        json!(self.chain.signed(bytes))
    }

    pub fn next(&mut self, employee: EmployeeId, kind: PunchKind) -> Value {
        let capture = self.capture(employee, kind);
        self.item(&capture)
    }

    pub fn heartbeat(&self) -> Value {
        json!({
            "outbox": 0, "photos": 0, "oldest": null, "seq": self.chain.seq(),
            "clock": Time::from(jiff::Timestamp::now()), "boot": self.chain.next.boot,
            "uptime_ms": 120_000, "app": "test/1",
        })
    }
}
