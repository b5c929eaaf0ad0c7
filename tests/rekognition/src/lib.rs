//! Amazon Rekognition on loopback, over its real wire form: the real SDK speaks to it as it speaks
//! to Amazon. It sees nothing on a picture; what it says of one was told to it by the test, by the
//! picture's bytes, and else it sees one good face.
//!
//! It holds callers to what Amazon holds them to (signature, region, target, sizes, formats), and
//! to one thing more: an attribute that a punch clock has no business with is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "for tests: a failure here is theirs")]

mod signature;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::Semaphore, task::AbortHandle};

/// The key that it takes.
pub const ACCESS_KEY: &str = "AKIASTANDIN0000000000";
/// The key's secret.
pub const SECRET_KEY: &str = "stand-in/secret/of/nobody";
/// Its region; a signature for another is refused.
pub const REGION: &str = "eu-central-1";
/// What two pictures of the same person come to, in percent.
pub const SAME: f32 = 99.9;
/// What two pictures of two people come to, in percent.
pub const OTHER: f32 = 12.0;
/// The largest image, in bytes.
pub const IMAGE_BYTES_MAX: usize = 5 << 20;
/// What may be asked of a face.
const ATTRIBUTES: [&str; 4] = ["DEFAULT", "EYES_OPEN", "FACE_OCCLUDED", "SUNGLASSES"];
/// The window that the largest rate is counted over.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    DetectFaces,
    CompareFaces,
}

/// A face as `DetectFaces` tells it, in Amazon's units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// In percent.
    pub confidence: f32,
    /// The box's width and height, as parts of the picture's.
    pub size: (f32, f32),
    pub brightness: f32,
    pub sharpness: f32,
    pub yaw_deg: f32,
    pub pitch_deg: f32,
    pub eyes_open: bool,
    pub sunglasses: bool,
    pub occluded: bool,
}

impl Default for Face {
    /// One that can be compared.
    fn default() -> Self {
        Self {
            confidence: 99.9,
            size: (0.3, 0.5),
            brightness: 70.0,
            sharpness: 80.0,
            yaw_deg: 1.5,
            pitch_deg: -2.5,
            eyes_open: true,
            sunglasses: false,
            occluded: false,
        }
    }
}

/// What it does instead of answering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An error of the API: status, `__type` and message.
    Error(u16, &'static str),
    /// A status, and a page of a gateway instead of an error.
    Page(u16),
    /// 200, and a body that is no JSON.
    Malformed,
    /// 200, and JSON without what has to be in it.
    Hollow,
    /// The answer begins, and the connection breaks.
    CutMidBody,
    /// No answer, ever.
    Silent,
    /// The right answer, once [`StandIn::release`] lets it go.
    Held,
}

#[derive(Debug, Default)]
struct Told {
    faces: HashMap<[u8; 32], Vec<Face>>,
    similarities: HashMap<([u8; 32], [u8; 32]), f32>,
    people: HashMap<[u8; 32], String>,
    faults: HashMap<Action, VecDeque<Fault>>,
    always: HashMap<Action, Fault>,
    calls: HashMap<Action, Vec<Instant>>,
}

#[derive(Debug)]
struct Inner {
    told: Mutex<Told>,
    released: Semaphore,
}

/// It, while this is held.
#[derive(Debug)]
pub struct StandIn {
    inner: Arc<Inner>,
    endpoint: String,
    serving: AbortHandle,
}

impl StandIn {
    /// Begins to serve, on a port that the system picks.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner { told: Mutex::default(), released: Semaphore::new(0) });
        let app = Router::new()
            .fallback(serve)
            .layer(DefaultBodyLimit::disable())
            .with_state(inner.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { inner, endpoint, serving: serving.abort_handle() }
    }

    /// Where it is reached, as AWS_ENDPOINT_URL_REKOGNITION has it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What a process needs to find it and to be let in.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL_REKOGNITION", self.endpoint.clone()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// These faces are on this picture.
    pub fn faces(&self, picture: &[u8], faces: impl Into<Vec<Face>>) -> &Self {
        self.told().faces.insert(hash(picture), faces.into());
        self
    }

    /// These pictures are of one person; each two of them come to [`SAME`].
    pub fn person(&self, name: &str, pictures: &[&[u8]]) -> &Self {
        let mut told = self.told();
        for picture in pictures {
            told.people.insert(hash(picture), name.to_owned());
        }
        drop(told);
        self
    }

    /// A reference photo and a picture come to this, in percent.
    pub fn similarity(&self, reference: &[u8], picture: &[u8], percent: f32) -> &Self {
        self.told().similarities.insert((hash(reference), hash(picture)), percent);
        self
    }

    /// The next calls of an action go wrong so, before any that always do.
    pub fn next(&self, action: Action, faults: impl IntoIterator<Item = Fault>) -> &Self {
        self.told().faults.entry(action).or_default().extend(faults);
        self
    }

    /// All calls of an action go wrong so.
    pub fn always(&self, action: Action, fault: Fault) -> &Self {
        self.told().always.insert(action, fault);
        self
    }

    /// Nothing goes wrong any more, and all that is held is let go.
    pub fn mend(&self) -> &Self {
        let mut told = self.told();
        told.faults.clear();
        told.always.clear();
        drop(told);
        self.release(Semaphore::MAX_PERMITS / 2 - self.inner.released.available_permits());
        self
    }

    /// So many answers that are [`Fault::Held`] are let go.
    pub fn release(&self, answers: usize) {
        self.inner.released.add_permits(answers);
    }

    /// How often an action was called, with those calls that were refused or went wrong.
    pub fn calls(&self, action: Action) -> usize {
        self.told().calls.get(&action).map_or(0, Vec::len)
    }

    /// The most calls of an action that came within a second.
    pub fn most_in_a_second(&self, action: Action) -> usize {
        let told = self.told();
        let calls = told.calls.get(&action).map_or(&[][..], Vec::as_slice);
        let window = |from: usize| {
            calls[from..].iter().take_while(|at| **at - calls[from] < RATE_WINDOW).count()
        };
        (0..calls.len()).map(window).max().unwrap_or(0)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.inner.told.lock().unwrap()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Detect {
    image: Image,
    #[serde(default)]
    attributes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Compare {
    source_image: Image,
    target_image: Image,
    similarity_threshold: Option<f32>,
    #[serde(rename = "QualityFilter")]
    _quality_filter: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Image {
    bytes: String,
}

/// A refusal in the API's words.
struct Refused(u16, &'static str, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, kind, message) = self;
        let status = StatusCode::from_u16(status).unwrap();
        let body = json!({ "__type": kind, "Message": message }).to_string();
        (status, [("content-type", "application/x-amz-json-1.1")], body).into_response()
    }
}

async fn serve(State(inner): State<Arc<Inner>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 4 * IMAGE_BYTES_MAX).await else {
        return Refused(413, "RequestEntityTooLargeException", String::new()).into_response();
    };
    let action = match called(&parts.method, parts.uri.path(), &parts.headers) {
        Ok(action) => action,
        Err(refused) => return refused.into_response(),
    };
    let fault = {
        let mut told = inner.told.lock().unwrap();
        told.calls.entry(action).or_default().push(Instant::now());
        let next = told.faults.get_mut(&action).and_then(VecDeque::pop_front);
        next.or_else(|| told.always.get(&action).cloned())
    };
    let authentic = signature::check(&parts.method, &parts.uri, &parts.headers, &body);
    let answer = authentic
        .map_err(|(kind, message)| Refused(400, kind, message))
        .and_then(|()| answer(&inner.told.lock().unwrap(), action, &body));
    match answer {
        Ok(answer) => with_fault(fault, &inner, answer).await,
        Err(refused) => refused.into_response(),
    }
}

fn called(method: &axum::http::Method, path: &str, headers: &HeaderMap) -> Result<Action, Refused> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let target = header("x-amz-target").and_then(|it| it.strip_prefix("RekognitionService."));
    let json = header("content-type") == Some("application/x-amz-json-1.1");
    match target {
        Some("DetectFaces") if json && method == "POST" && path == "/" => Ok(Action::DetectFaces),
        Some("CompareFaces") if json && method == "POST" && path == "/" => Ok(Action::CompareFaces),
        _ => Err(Refused(400, "UnknownOperationException", String::new())),
    }
}

async fn with_fault(fault: Option<Fault>, inner: &Inner, answer: Value) -> Response {
    let good = (
        [("content-type", "application/x-amz-json-1.1"), ("x-amzn-requestid", "stand-in")],
        answer.to_string(),
    );
    match fault {
        None => good.into_response(),
        Some(Fault::Error(status, kind)) => {
            Refused(status, kind, "as the test wants it".to_owned()).into_response()
        }
        Some(Fault::Page(status)) => {
            (StatusCode::from_u16(status).unwrap(), "<html>gateway</html>").into_response()
        }
        Some(Fault::Malformed) => "{\"FaceDetails\": [{\"Smile\": {\"Value\": tr".into_response(),
        Some(Fault::Hollow) => json!({ "FaceDetails": [{}], "FaceMatches": [{ "Face": {} }] })
            .to_string()
            .into_response(),
        Some(Fault::CutMidBody) => {
            let begun = futures::stream::iter([Ok(Bytes::from_static(b"{\"FaceDetails\": ["))]);
            let cut = futures::stream::once(async {
                // What has begun goes out first.
                tokio::task::yield_now().await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            });
            Body::from_stream(begun.chain(cut)).into_response()
        }
        Some(Fault::Silent) => match std::future::pending::<Infallible>().await {},
        Some(Fault::Held) => {
            inner.released.acquire().await.unwrap().forget();
            good.into_response()
        }
    }
}

fn answer(told: &Told, action: Action, body: &[u8]) -> Result<Value, Refused> {
    let parsed =
        |error: serde_json::Error| Refused(400, "SerializationException", error.to_string());
    match action {
        Action::DetectFaces => told.detect(serde_json::from_slice(body).map_err(parsed)?),
        Action::CompareFaces => told.compare(serde_json::from_slice(body).map_err(parsed)?),
    }
}

impl Told {
    fn on(&self, picture: &[u8]) -> Vec<Face> {
        self.faces.get(&hash(picture)).cloned().unwrap_or_else(|| vec![Face::default()])
    }

    fn detect(&self, asked: Detect) -> Result<Value, Refused> {
        let attributes = &asked.attributes;
        if let Some(other) = attributes.iter().find(|it| !ATTRIBUTES.contains(&it.as_str())) {
            let why = format!("{other} is no business of a punch clock");
            return Err(Refused(400, "AccessDeniedException", why));
        }
        let image = asked.image.read()?;
        let details = self.on(&image).iter().map(|face| detail(face, attributes)).collect();
        Ok(json!({ "FaceDetails": Value::Array(details) }))
    }

    fn compare(&self, asked: Compare) -> Result<Value, Refused> {
        let (source, target) = (asked.source_image.read()?, asked.target_image.read()?);
        let (from, to) = (self.on(&source), self.on(&target));
        if from.is_empty() || to.is_empty() {
            let why = "Request has invalid parameters".to_owned();
            return Err(Refused(400, "InvalidParameterException", why));
        }
        let threshold = asked.similarity_threshold.unwrap_or(80.0);
        let similarity = self.alike(&source, &target);
        // The largest is the person; whoever else is on it is somebody else.
        let largest = to.iter().map(|face| face.size.0).fold(0.0, f32::max);
        let of = |face: &Face| if face.size.0 == largest { similarity } else { OTHER };
        let mut sorted = to.clone();
        sorted.sort_by(|a, b| of(b).total_cmp(&of(a)));
        let (matched, other): (Vec<_>, Vec<_>) =
            sorted.iter().partition(|face| of(face) >= threshold);
        let matched: Vec<_> = matched
            .iter()
            .map(|face| json!({ "Similarity": of(face), "Face": compared(face) }))
            .collect();
        Ok(json!({
            "SourceImageFace": { "BoundingBox": bounds(&from[0]), "Confidence": 99.9 },
            "FaceMatches": matched,
            "UnmatchedFaces": other.iter().map(compared).collect::<Vec<_>>(),
        }))
    }

    fn alike(&self, reference: &[u8], picture: &[u8]) -> f32 {
        let pair = (hash(reference), hash(picture));
        let person = |of| self.people.get(of);
        let same =
            pair.0 == pair.1 || person(&pair.0).is_some_and(|name| person(&pair.1) == Some(name));
        let told = self.similarities.get(&pair).copied();
        told.unwrap_or(if same { SAME } else { OTHER })
    }
}

impl Image {
    fn read(&self) -> Result<Vec<u8>, Refused> {
        let serialization =
            |error: base64::DecodeError| Refused(400, "SerializationException", error.to_string());
        let bytes = STANDARD.decode(&self.bytes).map_err(serialization)?;
        if bytes.is_empty() {
            return Err(Refused(400, "InvalidParameterException", String::new()));
        }
        if bytes.len() > IMAGE_BYTES_MAX {
            return Err(Refused(400, "ImageTooLargeException", String::new()));
        }
        if !bytes.starts_with(b"\x89PNG") && !bytes.starts_with(b"\xff\xd8\xff") {
            let why = "Request has invalid image format".to_owned();
            return Err(Refused(400, "InvalidImageFormatException", why));
        }
        Ok(bytes)
    }
}

fn bounds(face: &Face) -> Value {
    let (width, height) = face.size;
    json!({ "Width": width, "Height": height, "Left": 0.1, "Top": 0.1 })
}

fn compared(face: &Face) -> Value {
    json!({
        "BoundingBox": bounds(face),
        "Confidence": face.confidence,
        "Pose": { "Roll": 0.5, "Yaw": face.yaw_deg, "Pitch": face.pitch_deg },
        "Quality": { "Brightness": face.brightness, "Sharpness": face.sharpness },
        "Landmarks": [{ "Type": "nose", "X": 0.25, "Y": 0.35 }],
    })
}

fn detail(face: &Face, attributes: &[String]) -> Value {
    let mut detail = compared(face);
    let more = [
        ("EYES_OPEN", "EyesOpen", face.eyes_open),
        ("SUNGLASSES", "Sunglasses", face.sunglasses),
        ("FACE_OCCLUDED", "FaceOccluded", face.occluded),
    ];
    for (attribute, field, value) in more {
        if attributes.iter().any(|asked| asked == attribute) {
            detail[field] = json!({ "Value": value, "Confidence": 99.0 });
        }
    }
    detail
}

fn hash(picture: &[u8]) -> [u8; 32] {
    Sha256::digest(picture).into()
}
