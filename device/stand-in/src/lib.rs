//! A server on loopback that speaks the device protocol over real HTTP with the real wire types,
//! keeps what it gets in memory, and misbehaves when told to. It stands in for the server so that
//! device and simulator are tested alone; the whole system is tested in `tests/`.

#![allow(
    clippy::unwrap_used,
    reason = "for tests: a failure here is theirs, and names say what the protocol's page says"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_protocol::{
    DeviceId, Digest, DisputeId, EmployeeId, EpochId, OrgId, PunchId, SiteId, Time,
    attachment::Attachment,
    capture::Capture,
    command::COMMANDS_GIVEN_MAX,
    sealed_photo::{PhotoSecret, SEALED_PHOTO_TYPE, open},
    signing::{
        ATTACHMENT_TYPE, CAPTURE_TYPE, ENROLMENT_TYPE, PublicKey, Signature, from_base64url,
    },
    vocabulary::Standing,
    wire::{
        AttachmentRequest, BatchItem, BatchRequest, CommandResult, DevicePolicy, DisputeRequest,
        EnrollRequest, Heartbeat, ManifestPage, ManifestRow, PinHash, ReferencesRequest, Verdict,
        pairing_code,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

pub const CODE: &str = "BCDF-GHJK";
/// What a person with the right made for a worker's reference pictures.
pub const REFERENCES_CODE: &str = "KJHG-FDCB";
pub const OPERATOR_KEY: &str = "pto_stand_in";

/// What the server does with the next batch instead of taking it.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// 503 with this Retry-After, in seconds.
    Busy(u64),
    /// 429 one_at_a_time.
    OneAtATime,
    /// Takes it, then breaks the connection off before the answer is through.
    CutAfterCommit,
    /// Breaks off at once.
    Cut,
    /// A problem document with this status and code.
    Refuse(u16, &'static str),
    /// A problem document with this status and detail.
    Problem(u16, String),
    /// A gateway's page.
    Html(u16),
    /// 307 to elsewhere.
    Redirect(String),
    /// No answer at all.
    Silent,
    /// 200, and a body that begins and never goes on.
    SilentBody,
    /// 200, and a body of one byte now and then.
    Dripping,
    /// 200, and a body without an end.
    Endless,
    /// 200, and this body.
    Body(String),
    /// Takes a batch and gives so many results only.
    Results(usize),
    /// Takes a batch and gives results about other punches.
    OtherPunches,
    /// Takes a batch and gives results about no punch.
    NoPunches,
}

#[derive(Debug, Clone)]
pub struct Held {
    pub bytes: Vec<u8>,
    pub position: u64,
    pub seq: u64,
}

#[derive(Debug, Clone)]
pub struct HeldAttachment {
    pub bytes: Vec<u8>,
    pub position: u64,
}

#[derive(Debug, Clone)]
pub struct HeldDispute {
    pub request: DisputeRequest,
    pub site: SiteId,
    pub position: u64,
}

#[derive(Debug)]
pub struct Enrolment {
    pub device: DeviceId,
    pub key: PublicKey,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Heartbeat {
        outbox: u64,
        photos: u64,
    },
    Manifest,
    Commands,
    /// Of a command.
    Result,
    Batch(Vec<u64>),
    /// Of this attempt.
    Attachment(u32),
    Photo,
    Verdict,
    Dispute,
    Record,
}

#[derive(Debug)]
pub struct Ledger {
    /// What goes wrong each time, by a part of the path: `heartbeat`, `manifest`, `commands`,
    /// `batch`, `attachments`, `photos`, `verdict`, `references`, `disputes`, `record`.
    pub always: HashMap<&'static str, Fault>,
    /// How often that was.
    pub faulted: u64,
    /// The ledger's epochs and up to where each has the history before it. Told in headers where
    /// there are any, and in bodies.
    pub epochs: Vec<(EpochId, u64)>,
    /// Said in the header instead.
    pub epoch_header: Option<String>,
    /// Puts a copy back, to this position, when such a call comes next.
    pub parts_on: Option<(&'static str, u64)>,
    /// Breaks off whenever a batch has this punch.
    pub breaks_on: Option<PunchId>,
    /// Every batch begins an epoch that has nothing of those before it.
    pub forgets: bool,
    pub org: OrgId,
    /// The devices' present site: where they enrol, and what heartbeats name.
    pub site: SiteId,
    /// Whether this is a server whose heartbeats name no site.
    pub without_site: bool,
    /// Sites that the devices served before, and deliver for.
    pub served: BTreeSet<SiteId>,
    pub tokens: HashMap<String, Enrolment>,
    pub punches: BTreeMap<(DeviceId, PunchId), Held>,
    pub photos: BTreeSet<Digest>,
    /// The keys that photos are sealed to, the present one last; none: a server without.
    pub photo_secrets: Vec<PhotoSecret>,
    /// How many photos came sealed.
    pub sealed: u64,
    pub attachments: BTreeMap<(PunchId, u32), HeldAttachment>,
    pub disputes: BTreeMap<DisputeId, HeldDispute>,
    /// How many disputes may wait; one more isn't taken.
    pub disputes_max: usize,
    /// What is answered to whoever asks for a verdict, one after the other; while none is there,
    /// the wait that was asked for is waited out.
    pub verdicts: VecDeque<Verdict>,
    pub references: Vec<(EmployeeId, ReferencesRequest)>,
    /// Whether [`REFERENCES_CODE`] was used.
    pub references_code_used: bool,
    /// Commands that wait, as they are given.
    pub commands: Vec<Value>,
    /// Whether this is a server that knows no commands.
    pub without_commands: bool,
    /// What was told of commands, in the order it came.
    pub results: Vec<(String, CommandResult)>,
    pub head: u64,
    pub clock: Time,
    pub rows: Vec<ManifestRow>,
    pub roster: String,
    pub policy: DevicePolicy,
    pub page: usize,
    pub batch_faults: VecDeque<Fault>,
    pub any_faults: VecDeque<Fault>,
    pub batch_items_max: usize,
    pub refuse_punch: Option<PunchId>,
    pub refuse_photos: bool,
    pub quarantine_all: bool,
    pub roster_changes_on_page: Option<usize>,
    pub calls: Vec<Call>,
    pub last_heartbeat: Option<Heartbeat>,
    /// What can't be taken is quarantined, as the protocol says; else it fails the test.
    pub takes_garbage: bool,
    pub quarantined: u64,
    /// Each device's first so many batches are refused as busy, with this Retry-After in seconds.
    pub storm: Option<(u32, u64)>,
    pub refusals: HashMap<DeviceId, (u32, Instant)>,
    /// Calls that came before the Retry-After was over.
    pub early: u64,
}

impl Ledger {
    pub fn acked_through(&self, device: DeviceId) -> u64 {
        let seqs: BTreeSet<u64> = self
            .punches
            .iter()
            .filter(|((of, _), _)| *of == device)
            .map(|(_, held)| held.seq)
            .collect();
        (1..).take_while(|seq| seqs.contains(seq)).last().unwrap_or(0)
    }

    /// An earlier backup is put back: everything above `position` is gone.
    pub fn restore_to(&mut self, position: u64) {
        self.punches.retain(|_, held| held.position <= position);
        self.attachments.retain(|_, held| held.position <= position);
        self.disputes.retain(|_, held| held.position <= position);
        self.head = position;
    }

    /// The devices are moved to `site`, where these people work. The version of its roster reads as
    /// that of the one before: versions of two sites say nothing of each other.
    pub fn move_to(&mut self, site: SiteId, rows: Vec<ManifestRow>) {
        self.served.insert(self.site);
        (self.site, self.rows) = (site, rows);
    }

    /// Whether the devices deliver for it.
    fn delivers_for(&self, site: SiteId) -> bool {
        self.site == site || self.served.contains(&site)
    }

    /// Begins a new key that photos are sealed to; the earlier ones open still.
    pub fn new_photo_key(&mut self) {
        self.photo_secrets.push(PhotoSecret::generate());
    }

    fn photo_key(&self) -> Option<String> {
        self.photo_secrets.last().map(|secret| secret.key().to_string())
    }

    /// The plain bytes that came as a body of this type; none if they can't be had.
    fn opened(&mut self, headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
        if headers.get("content-type").is_none_or(|media| media != SEALED_PHOTO_TYPE) {
            return Some(body.to_vec());
        }
        let opened = self.photo_secrets.iter().find_map(|secret| open(secret, body).ok());
        self.sealed += u64::from(opened.is_some());
        opened
    }

    pub fn captures(&self, device: DeviceId) -> Vec<Capture> {
        let mut captures: Vec<Capture> = self
            .punches
            .iter()
            .filter(|((of, _), _)| *of == device)
            .map(|(_, held)| Capture::parse(&held.bytes).unwrap())
            .collect();
        captures.sort_by_key(|capture| capture.seq);
        captures
    }

    /// The refusal of a storm, if this device's share of it isn't over.
    fn stormy(&mut self, device: DeviceId) -> Option<Fault> {
        let (times, retry_after_s) = self.storm?;
        let now = Instant::now();
        let (refused, until) = self.refusals.entry(device).or_insert((0, now));
        self.early += u64::from(now < *until);
        if *refused == times {
            return None;
        }
        *refused += 1;
        *until = now + Duration::from_secs(retry_after_s);
        Some(Fault::Busy(retry_after_s))
    }

    fn history(&self) -> Value {
        let told = |(epoch, after): &(EpochId, u64)| json!({"epoch": epoch, "after": after});
        let epochs: Vec<Value> = self.epochs.iter().map(told).collect();
        if epochs.is_empty() { Value::Null } else { json!({"epochs": epochs, "anchor": "sealed"}) }
    }

    /// Puts a copy back as [`Ledger::restore_to`], and begins an epoch.
    pub fn part_at(&mut self, position: u64) -> EpochId {
        self.restore_to(position);
        let epoch = EpochId(Uuid::new_v4());
        self.epochs.push((epoch, position));
        epoch
    }

    pub fn batches(&self) -> Vec<Vec<u64>> {
        self.calls
            .iter()
            .filter_map(|call| match call {
                Call::Batch(seqs) => Some(seqs.clone()),
                _ => None,
            })
            .collect()
    }
}

#[derive(Clone)]
pub struct StandIn {
    pub url: String,
    ledger: Arc<Mutex<Ledger>>,
}

impl StandIn {
    pub async fn start() -> Self {
        let policy = DevicePolicy {
            reconnect_spread_s: 0,
            heartbeat_s: 300,
            punches_per_minute: 60_000,
            ..DevicePolicy::default()
        };
        let ledger = Arc::new(Mutex::new(Ledger {
            always: HashMap::new(),
            faulted: 0,
            epochs: Vec::new(),
            epoch_header: None,
            parts_on: None,
            breaks_on: None,
            forgets: false,
            org: OrgId(Uuid::new_v4()),
            site: SiteId(Uuid::new_v4()),
            without_site: false,
            served: BTreeSet::new(),
            tokens: HashMap::new(),
            punches: BTreeMap::new(),
            photos: BTreeSet::new(),
            photo_secrets: Vec::new(),
            sealed: 0,
            attachments: BTreeMap::new(),
            disputes: BTreeMap::new(),
            disputes_max: usize::MAX,
            verdicts: VecDeque::new(),
            references: Vec::new(),
            references_code_used: false,
            commands: Vec::new(),
            without_commands: false,
            results: Vec::new(),
            head: 100,
            clock: "2026-11-21T09:10:00.412Z".parse().unwrap(),
            rows: vec![person("1001", "Ada", Some("4711")), person("1002", "Ben", None)],
            roster: "r1".to_owned(),
            policy,
            page: 500,
            batch_faults: VecDeque::new(),
            any_faults: VecDeque::new(),
            batch_items_max: 500,
            refuse_punch: None,
            refuse_photos: false,
            quarantine_all: false,
            roster_changes_on_page: None,
            calls: Vec::new(),
            last_heartbeat: None,
            takes_garbage: false,
            quarantined: 0,
            storm: None,
            refusals: HashMap::new(),
            early: 0,
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stand_in = Self { url, ledger };
        let router = Router::new()
            .route("/v1/devices/enroll", post(enroll))
            .route("/v1/devices/self/heartbeat", post(heartbeat))
            .route("/v1/devices/self/commands", get(commands))
            .route("/v1/devices/self/commands/{command}/result", put(finish))
            .route("/v1/sites/{site}/pairing-codes", post(pairing_code_made))
            .route("/v1/sites/{site}/manifest", get(manifest))
            .route("/v1/sites/{site}/punches/batch", post(batch))
            .route("/v1/photos/{digest}", put(photo))
            .route("/v1/punches/{punch}/attachments", post(attach))
            .route("/v1/punches/{punch}/verdict", get(verdict))
            .route("/v1/sites/{site}/employees/{employee}/references", post(references))
            .route("/v1/sites/{site}/employees/{employee}/record", get(record))
            .route("/v1/sites/{site}/disputes", post(dispute))
            // Sealed photos have 48 bytes more than the largest photo.
            .layer(DefaultBodyLimit::max(6 << 20))
            .layer(middleware::from_fn_with_state(stand_in.clone(), misbehave))
            .with_state(stand_in.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        stand_in
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// The server's clock moves on.
    pub fn pass_ms(&self, ms: i64) {
        let mut ledger = self.ledger();
        ledger.clock = ledger.clock.plus_millis(ms);
    }
}

pub fn person(badge: &str, name: &str, pin: Option<&str>) -> ManifestRow {
    ManifestRow {
        employee: EmployeeId(Uuid::new_v4()),
        badge: Some(badge.to_owned()),
        badges: vec![badge.to_owned()],
        name: name.to_owned(),
        pin: pin.map(|pin| PinHash { phc: hashed(pin) }),
        face: false,
        last_kind: None,
    }
}

fn hashed(pin: &str) -> String {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
    let cheap = Params::new(8, 1, 1, None).unwrap();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap)
        .hash_password(pin.as_bytes())
        .unwrap()
        .to_string()
}

fn problem(status: u16, code: &str) -> Response {
    refusal(status, code, &format!("told to: {code}"))
}

fn refusal(status: u16, code: &str, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank", "title": code, "status": status, "detail": detail,
        "code": code, "request_id": "r",
    });
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/problem+json")], body.to_string()).into_response()
}

/// Does what is always done for a path, and puts the ledger's headers on every answer.
async fn misbehave(State(server): State<StandIn>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let parts = [
        "heartbeat",
        "manifest",
        "commands",
        "batch",
        "attachments",
        "photos",
        "verdict",
        "references",
        "disputes",
        "record",
    ];
    let of = parts.into_iter().find(|of| path.contains(of));
    let fault = {
        let mut ledger = server.ledger();
        if let Some((_, position)) = ledger.parts_on.take_if(|(on, _)| of == Some(*on)) {
            ledger.part_at(position);
        }
        let fault = of.and_then(|of| ledger.always.get(of).cloned());
        ledger.faulted += u64::from(fault.is_some());
        fault
    };
    let mut response = match fault {
        None | Some(Fault::Results(_) | Fault::OtherPunches | Fault::NoPunches) => {
            next.run(request).await
        }
        Some(Fault::Silent) => std::future::pending().await,
        Some(fault) => {
            // Read to its end, so that the answer isn't taken for a connection that broke.
            let _ = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            fault.response()
        }
    };
    let ledger = server.ledger();
    let epoch = ledger.epochs.last().map(|(epoch, _)| epoch.to_string());
    if let Some(epoch) = ledger.epoch_header.clone().or(epoch) {
        let headers = response.headers_mut();
        headers.insert("punchtrail-epoch", HeaderValue::from_str(&epoch).unwrap());
        headers.insert("punchtrail-ledger", ledger.head.into());
    }
    response
}

fn streamed(
    next: impl Fn(u64) -> Option<(Bytes, u64)> + Send + 'static,
    pause_ms: u64,
) -> Response {
    let stream = futures::stream::unfold(0u64, move |n| {
        let item = next(n);
        async move {
            match item {
                Some((bytes, wait_ms)) => {
                    tokio::time::sleep(Duration::from_millis(wait_ms.max(pause_ms))).await;
                    Some((Ok::<_, std::io::Error>(bytes), n + 1))
                }
                None => std::future::pending().await,
            }
        }
    });
    Response::new(Body::from_stream(stream))
}

/// Headers go out, the body never ends well: the client sees a broken-off answer.
fn cut() -> Response {
    let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    Response::new(Body::from_stream(broken))
}

impl Fault {
    fn response(&self) -> Response {
        match self {
            Self::Busy(seconds) => {
                let mut response = problem(503, "busy");
                response.headers_mut().insert("retry-after", (*seconds).into());
                response
            }
            Self::OneAtATime => problem(429, "one_at_a_time"),
            Self::Cut | Self::CutAfterCommit => cut(),
            Self::Refuse(status, code) => problem(*status, code),
            Self::Problem(status, detail) => refusal(*status, "invalid", detail),
            Self::Html(status) => {
                (StatusCode::from_u16(*status).unwrap(), "<html>gateway</html>").into_response()
            }
            Self::Redirect(to) => {
                (StatusCode::TEMPORARY_REDIRECT, [("location", to.clone())]).into_response()
            }
            Self::SilentBody => streamed(|n| (n == 0).then(|| (Bytes::from_static(b"{"), 0)), 0),
            Self::Dripping => streamed(|_| Some((Bytes::from_static(b" "), 0)), 20),
            Self::Endless => streamed(|_| Some((Bytes::from(vec![b' '; 1 << 16]), 0)), 0),
            Self::Body(body) => body.clone().into_response(),
            Self::Silent | Self::Results(_) | Self::OtherPunches | Self::NoPunches => {
                StatusCode::IM_A_TEAPOT.into_response()
            }
        }
    }
}

fn caller(ledger: &Ledger, headers: &HeaderMap) -> Option<DeviceId> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    ledger.tokens.get(token).map(|enrolment| enrolment.device)
}

async fn enroll(State(server): State<StandIn>, Json(request): Json<EnrollRequest>) -> Response {
    let mut ledger = server.ledger();
    let Some(letters) = pairing_code(&request.code).filter(|c| *c == CODE.replace('-', "")) else {
        return problem(403, "pairing_code_invalid");
    };
    let key = PublicKey::from_bytes(&from_base64url(&request.public_key).unwrap()).unwrap();
    let proof = Signature(from_base64url(&request.proof).unwrap());
    key.verify(ENROLMENT_TYPE, letters.as_bytes(), &proof).unwrap();
    let device = DeviceId(Uuid::new_v4());
    let token = format!("ptd_{}", Uuid::new_v4().simple());
    ledger.tokens.insert(token.clone(), Enrolment { device, key, name: request.name });
    let answer = json!({
        "device": device, "org": ledger.org, "site": ledger.site, "token": token,
        "server_time": ledger.clock, "added_by_a_later_version": true,
        "history": ledger.history(), "photo_key": ledger.photo_key(),
    });
    (StatusCode::CREATED, Json(answer)).into_response()
}

async fn pairing_code_made(State(_): State<StandIn>, headers: HeaderMap) -> Response {
    if headers.get(AUTHORIZATION).is_none_or(|value| value != &format!("Bearer {OPERATOR_KEY}")) {
        return problem(401, "unauthenticated");
    }
    (StatusCode::CREATED, Json(json!({"code": CODE}))).into_response()
}

fn sound(item: &BatchItem, key: &PublicKey) -> bool {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(&item.capture) else { return false };
    let Some(signature) = from_base64url(&item.signature) else { return false };
    key.verify(CAPTURE_TYPE, &bytes, &Signature(signature)).is_ok()
        && Capture::parse(&bytes).is_ok()
}

async fn heartbeat(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Json(heartbeat): Json<Heartbeat>,
) -> Response {
    let mut ledger = server.ledger();
    if let Some(fault) = ledger.any_faults.pop_front() {
        return fault.response();
    }
    let Some(device) = caller(&ledger, &headers) else { return problem(401, "unauthenticated") };
    ledger.calls.push(Call::Heartbeat { outbox: heartbeat.outbox, photos: heartbeat.photos });
    ledger.last_heartbeat = Some(heartbeat);
    let mut answer = json!({
        "server_time": ledger.clock, "acked_through": ledger.acked_through(device),
        "roster": ledger.roster, "commands": !ledger.commands.is_empty(),
        "history": ledger.history(),
    });
    if !ledger.without_site {
        answer["site"] = json!(ledger.site);
    }
    Json(answer).into_response()
}

async fn commands(State(server): State<StandIn>, headers: HeaderMap) -> Response {
    let mut ledger = server.ledger();
    if caller(&ledger, &headers).is_none() {
        return problem(401, "unauthenticated");
    }
    ledger.calls.push(Call::Commands);
    if ledger.without_commands {
        return problem(404, "not_found");
    }
    let given: Vec<&Value> = ledger.commands.iter().take(COMMANDS_GIVEN_MAX).collect();
    Json(json!({ "data": given })).into_response()
}

async fn finish(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path(command): Path<String>,
    Json(result): Json<CommandResult>,
) -> Response {
    let mut ledger = server.ledger();
    if caller(&ledger, &headers).is_none() {
        return problem(401, "unauthenticated");
    }
    ledger.calls.push(Call::Result);
    let before = ledger.commands.len();
    ledger.commands.retain(|given| given["command"] != command.as_str());
    if ledger.commands.len() == before {
        return problem(404, "not_found");
    }
    ledger.results.push((command, result));
    ledger.head += 1;
    Json(json!({ "status": "applied", "position": ledger.head })).into_response()
}

async fn manifest(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path(site): Path<SiteId>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut ledger = server.ledger();
    if caller(&ledger, &headers).is_none() {
        return problem(401, "unauthenticated");
    }
    if site != ledger.site {
        return problem(404, "not_found");
    }
    let from: usize = query.get("cursor").map_or(0, |cursor| cursor[2..].parse().unwrap());
    ledger.calls.push(Call::Manifest);
    if from > 0 && ledger.roster_changes_on_page.take().is_some() {
        ledger.roster = "r2".to_owned();
        return problem(409, "roster_changed");
    }
    let until = (from + ledger.page).min(ledger.rows.len());
    let has_more = until < ledger.rows.len();
    Json(ManifestPage {
        photo_key: ledger.photo_key(),
        data: ledger.rows[from..until].to_vec(),
        policy: ledger.policy.clone(),
        roster: ledger.roster.clone(),
        // A character that must be percent-encoded.
        next_cursor: has_more.then(|| format!("c+{until}")),
        has_more,
    })
    .into_response()
}

async fn batch(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path(site): Path<SiteId>,
    Json(request): Json<BatchRequest>,
) -> Response {
    let mut ledger = server.ledger();
    let Some(device) = caller(&ledger, &headers) else { return problem(401, "unauthenticated") };
    if !ledger.delivers_for(site) {
        return problem(404, "not_found");
    }
    if let Some(refusal) = ledger.stormy(device) {
        return refusal.response();
    }
    let sent = request.punches.len();
    let mut request = request;
    let key = ledger.tokens.values().find(|e| e.device == device).unwrap().key;
    if ledger.takes_garbage {
        // The simulator's garbage comes after the punches.
        request.punches.retain(|item| sound(item, &key));
        ledger.quarantined += (sent - request.punches.len()) as u64;
    }
    let garbage = sent - request.punches.len();
    let bytes: Vec<Vec<u8>> =
        request.punches.iter().map(|i| URL_SAFE_NO_PAD.decode(&i.capture).unwrap()).collect();
    let captures: Vec<Capture> = bytes.iter().map(|b| Capture::parse(b).unwrap()).collect();
    ledger.calls.push(Call::Batch(captures.iter().map(|capture| capture.seq).collect()));
    let fault = ledger.batch_faults.pop_front();
    if let Some(fault) = fault.clone().filter(|fault| *fault != Fault::CutAfterCommit) {
        return fault.response();
    }
    if captures.len() > ledger.batch_items_max {
        return problem(413, "payload_too_large");
    }
    if captures.iter().any(|capture| Some(capture.punch) == ledger.breaks_on) {
        return cut();
    }
    if captures.iter().any(|capture| Some(capture.punch) == ledger.refuse_punch) {
        return problem(422, "invalid");
    }
    let mut results: Vec<Value> = Vec::new();
    for ((capture, bytes), item) in captures.iter().zip(bytes).zip(&request.punches) {
        let signature = Signature(from_base64url(&item.signature).unwrap());
        key.verify(CAPTURE_TYPE, &bytes, &signature).unwrap();
        assert_eq!((capture.device, capture.site, capture.org), (device, site, ledger.org));
        let known = ledger.punches.get(&(device, capture.punch)).map(|held| held.position);
        let position = known.unwrap_or(ledger.head + 1);
        if known.is_none() {
            ledger.head += 1;
            let held = Held { bytes, position, seq: capture.seq };
            ledger.punches.insert((device, capture.punch), held);
        }
        results.push(if ledger.quarantine_all {
            json!({"punch": null, "seq": null, "status": "quarantined", "position": position,
                   "code": "a_code_of_a_later_version", "detail": "told to"})
        } else {
            let status = if known.is_some() { "duplicate" } else { "applied" };
            json!({"punch": capture.punch, "seq": capture.seq, "status": status,
                   "position": position, "code": null, "detail": null})
        });
    }
    results.extend((0..garbage).map(|_| {
        json!({"punch": null, "seq": null, "status": "quarantined", "position": ledger.head,
               "code": "bad_capture", "detail": "no capture"})
    }));
    if ledger.forgets {
        ledger.epochs.push((EpochId(Uuid::new_v4()), 0));
    }
    if fault == Some(Fault::CutAfterCommit) {
        return cut();
    }
    match ledger.always.get("batch") {
        Some(Fault::Results(count)) => results.truncate(*count),
        Some(Fault::OtherPunches) => {
            results.iter_mut().for_each(|result| result["punch"] = json!(Uuid::now_v7()));
        }
        Some(Fault::NoPunches) => {
            results.iter_mut().for_each(|result| result["punch"] = Value::Null);
        }
        _ => {}
    }
    Json(json!({
        "results": results, "acked_through": ledger.acked_through(device), "ledger": ledger.head,
        "server_time": ledger.clock, "next_batch_after_ms": 0, "history": ledger.history(),
    }))
    .into_response()
}

async fn photo(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path(digest): Path<String>,
    body: Bytes,
) -> Response {
    let mut ledger = server.ledger();
    if caller(&ledger, &headers).is_none() {
        return problem(401, "unauthenticated");
    }
    ledger.calls.push(Call::Photo);
    if ledger.refuse_photos {
        return problem(415, "unsupported_media_type");
    }
    assert_eq!(
        headers["content-length"],
        body.len().to_string().as_str(),
        "streamed with a length"
    );
    let digest: Digest = digest.parse().unwrap();
    // A server without a key knows no sealed photos.
    let Some(plain) = ledger.opened(&headers, &body) else {
        return problem(415, "unsupported_media_type");
    };
    if Digest::of(&plain) != digest {
        return problem(422, "digest_mismatch");
    }
    let status = if ledger.photos.insert(digest) { StatusCode::CREATED } else { StatusCode::OK };
    status.into_response()
}

async fn attach(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path(punch): Path<PunchId>,
    Json(request): Json<AttachmentRequest>,
) -> Response {
    let mut ledger = server.ledger();
    let Some(device) = caller(&ledger, &headers) else { return problem(401, "unauthenticated") };
    let bytes = URL_SAFE_NO_PAD.decode(&request.record).unwrap();
    let record = Attachment::parse(&bytes).unwrap();
    assert_eq!((record.punch, record.device), (punch, device));
    ledger.calls.push(Call::Attachment(record.attempt));
    let key = ledger.tokens.values().find(|e| e.device == device).unwrap().key;
    let signature = Signature(from_base64url(&request.signature).unwrap());
    key.verify(ATTACHMENT_TYPE, &bytes, &signature).unwrap();
    if !ledger.punches.contains_key(&(device, punch)) {
        return problem(404, "not_found");
    }
    let (status, position) = match ledger.attachments.get(&(punch, record.attempt)) {
        Some(held) if held.bytes == bytes => ("duplicate", held.position),
        Some(_) => return problem(409, "conflict"),
        None => {
            ledger.head += 1;
            let position = ledger.head;
            let held = HeldAttachment { bytes, position };
            ledger.attachments.insert((punch, record.attempt), held);
            ("applied", position)
        }
    };
    Json(json!({"status": status, "position": position})).into_response()
}

async fn verdict(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path(punch): Path<PunchId>,
    Query(query): Query<HashMap<String, u64>>,
) -> Response {
    let until = Instant::now() + Duration::from_secs(query.get("wait_s").copied().unwrap_or(0));
    let position = {
        let mut ledger = server.ledger();
        let Some(device) = caller(&ledger, &headers) else {
            return problem(401, "unauthenticated");
        };
        ledger.calls.push(Call::Verdict);
        let Some(held) = ledger.punches.get(&(device, punch)) else {
            return problem(404, "not_found");
        };
        held.position
    };
    loop {
        if let Some(verdict) = server.ledger().verdicts.pop_front() {
            return Json(verdict).into_response();
        }
        if Instant::now() >= until {
            let standing = Standing::Recorded;
            let position = punchtrail_protocol::Position(position);
            let guidance = Vec::new();
            let none = Verdict { standing, attempt: None, guidance, retake: false, position };
            return Json(none).into_response();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn references(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path((_site, employee)): Path<(SiteId, EmployeeId)>,
    Json(request): Json<ReferencesRequest>,
) -> Response {
    let mut ledger = server.ledger();
    if caller(&ledger, &headers).is_none() {
        return problem(401, "unauthenticated");
    }
    let good = pairing_code(&request.code).is_some_and(|c| c == REFERENCES_CODE.replace('-', ""));
    if !good || std::mem::replace(&mut ledger.references_code_used, true) {
        return problem(403, "pairing_code_invalid");
    }
    if !request.photos.iter().all(|photo| ledger.photos.contains(photo)) {
        return problem(422, "invalid");
    }
    let count = request.photos.len();
    ledger.references.push((employee, request));
    Json(json!({"employee": employee, "references": count})).into_response()
}

async fn dispute(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path(site): Path<SiteId>,
    Json(request): Json<DisputeRequest>,
) -> Response {
    let mut ledger = server.ledger();
    if caller(&ledger, &headers).is_none() {
        return problem(401, "unauthenticated");
    }
    if !ledger.delivers_for(site) {
        return problem(404, "not_found");
    }
    assert!(request.dispute.is_v7());
    assert_ne!(request.punch.is_some(), request.day.is_some());
    ledger.calls.push(Call::Dispute);
    let (status, position) = match ledger.disputes.get(&request.dispute) {
        Some(held) if held.request == request => ("duplicate", held.position),
        Some(_) => return problem(409, "conflict"),
        None if site == ledger.site
            && !ledger.rows.iter().any(|row| row.employee == request.employee) =>
        {
            return problem(404, "not_found");
        }
        None if ledger.disputes.len() >= ledger.disputes_max => {
            return problem(422, "disputes_full");
        }
        None => {
            ledger.head += 1;
            let position = ledger.head;
            ledger.disputes.insert(request.dispute, HeldDispute { request, site, position });
            ("applied", position)
        }
    };
    Json(json!({"status": status, "position": position})).into_response()
}

async fn record(
    State(server): State<StandIn>,
    headers: HeaderMap,
    Path((_site, employee)): Path<(SiteId, EmployeeId)>,
    Query(query): Query<HashMap<String, u32>>,
) -> Response {
    let mut ledger = server.ledger();
    if caller(&ledger, &headers).is_none() {
        return problem(401, "unauthenticated");
    }
    assert!((1..=31).contains(&query["days"]));
    ledger.calls.push(Call::Record);
    let own = ledger.disputes.values().filter(|held| held.request.employee == employee);
    let told = |held: &HeldDispute| {
        json!({
            "dispute": held.request.dispute, "punch": held.request.punch, "day": held.request.day,
            "cause": held.request.cause, "state": "answered", "opened_at": ledger.clock,
            "text": held.request.text, "answers": [{"at": ledger.clock, "text": "Looked at it"}],
            "resolution": null,
        })
    };
    let disputes: Vec<Value> = own.map(told).collect();
    Json(json!({"employee": employee, "days": [], "disputes": disputes, "added_later": 1}))
        .into_response()
}
