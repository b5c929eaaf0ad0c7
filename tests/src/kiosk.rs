//! A device in this process: it enrols with a key, signs captures, and posts whatever it is told to.
//!
//! For load, where a process a device would measure processes, and for what no honest device sends. It
//! keeps nothing on disk and retries nothing.

use std::time::Duration;

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use punchtrail_protocol::{
    BootId, DeviceId, Digest, EmployeeId, OrgId, PunchId, SiteId, Time,
    capture::{Capture, IdentifiedBy, PunchKind},
    signing::{CAPTURE_TYPE, ENROLMENT_TYPE, PublicKey, sign, to_base64url},
    wire::{
        BatchAnswer, BatchItem, BatchRequest, EnrollRequest, Enrolled, Heartbeat, HeartbeatAnswer,
        pairing_code,
    },
};
use reqwest::{Method, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use uuid::Uuid;

/// Program and version, as captures carry them.
const APP: &str = "kiosk/1.0";
/// An answer on two busy cores.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// An enrolled device.
#[derive(Debug, Clone)]
pub struct Kiosk {
    /// The device.
    pub device: DeviceId,
    /// The organisation.
    pub org: OrgId,
    /// Its site.
    pub site: SiteId,
    /// Its token.
    pub token: String,
    /// Its key.
    pub key: SigningKey,
    /// Where it takes the server to be.
    pub base: String,
    /// The last number it made.
    pub seq: u64,
    /// The digest of the last capture it made.
    pub prev: Digest,
    /// Its boot.
    pub boot: BootId,
    http: reqwest::Client,
}

impl Kiosk {
    /// Enrols at the server at `base` by a pairing code.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn enroll(base: &str, code: &str, name: &str) -> anyhow::Result<Self> {
        let key = SigningKey::from_bytes(&rand::random());
        let letters = pairing_code(code).context("a pairing code")?;
        let request = EnrollRequest {
            proof: sign(&key, ENROLMENT_TYPE, letters.as_bytes()).to_string(),
            code: letters,
            name: name.to_owned(),
            public_key: PublicKey::from(&key).to_string(),
            app: APP.to_owned(),
        };
        let http = reqwest::Client::builder().timeout(ANSWER_WAIT).build()?;
        let url = format!("{base}/v1/devices/enroll");
        let answer = http.post(url).json(&request).send().await?;
        let status = answer.status();
        if status != StatusCode::CREATED {
            bail!("enrolling answers {status}: {}", answer.text().await?);
        }
        let enrolled: Enrolled = answer.json().await?;
        Ok(Self {
            device: enrolled.device,
            org: enrolled.org,
            site: enrolled.site,
            token: enrolled.token,
            key,
            base: base.to_owned(),
            seq: 0,
            prev: Digest::ZERO,
            boot: BootId(Uuid::new_v4()),
            http,
        })
    }

    /// The next capture of its chain, of now, by badge `null` for `employee`.
    pub fn capture(&mut self, employee: EmployeeId, kind: PunchKind) -> Capture {
        self.capture_with(|capture| (capture.employee, capture.kind) = (Some(employee), kind))
    }

    /// The next capture of its chain, of now, after `change`.
    pub fn capture_with(&mut self, change: impl FnOnce(&mut Capture)) -> Capture {
        let mut capture = Capture {
            v: 1,
            punch: PunchId(Uuid::now_v7()),
            org: self.org,
            site: self.site,
            device: self.device,
            employee: None,
            badge: None,
            kind: PunchKind::In,
            captured_at: jiff::Timestamp::now().into(),
            utc_offset_s: 0,
            tz: "Etc/UTC".to_owned(),
            seq: self.seq + 1,
            prev: self.prev,
            boot: self.boot,
            uptime_ms: 1,
            identified_by: IdentifiedBy::Badge,
            photo: None,
            offline: false,
            app: APP.to_owned(),
        };
        change(&mut capture);
        self.seq = capture.seq;
        self.prev = Digest::of(&capture.to_bytes());
        capture
    }

    /// A capture, signed.
    pub fn item(&self, capture: &Capture) -> BatchItem {
        self.signed(&capture.to_bytes())
    }

    /// Any bytes, signed as a capture.
    pub fn signed(&self, bytes: &[u8]) -> BatchItem {
        BatchItem {
            capture: to_base64url(bytes),
            signature: sign(&self.key, CAPTURE_TYPE, bytes).to_string(),
        }
    }

    /// Any bytes under a signature that doesn't hold for them.
    pub fn missigned(&self, bytes: &[u8]) -> BatchItem {
        let other = sign(&self.key, CAPTURE_TYPE, b"something else");
        BatchItem { capture: URL_SAFE_NO_PAD.encode(bytes), signature: other.to_string() }
    }

    /// The path of its batches.
    pub fn batch_path(&self) -> String {
        format!("/v1/sites/{}/punches/batch", self.site)
    }

    /// Sends items that have to be taken.
    ///
    /// # Errors
    /// When the batch is refused.
    pub async fn deliver(&self, items: &[BatchItem]) -> anyhow::Result<BatchAnswer> {
        let body = serde_json::to_vec(&BatchRequest { punches: items.to_vec() })?;
        match self.post(&self.batch_path(), body).await? {
            (StatusCode::OK, answer) => Ok(serde_json::from_value(answer)?),
            (status, answer) => bail!("a batch answers {status}: {answer}"),
        }
    }

    /// Reports, with `outbox` punches waiting, the oldest since `oldest`.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn heartbeat(
        &self,
        outbox: u64,
        oldest: Option<Time>,
    ) -> anyhow::Result<HeartbeatAnswer> {
        let heartbeat = Heartbeat {
            outbox,
            photos: 0,
            oldest,
            seq: self.seq,
            clock: jiff::Timestamp::now().into(),
            boot: self.boot,
            uptime_ms: 2,
            app: APP.to_owned(),
        };
        match self.post("/v1/devices/self/heartbeat", serde_json::to_vec(&heartbeat)?).await? {
            (StatusCode::OK, answer) => Ok(serde_json::from_value(answer)?),
            (status, answer) => bail!("a heartbeat answers {status}: {answer}"),
        }
    }

    /// Posts any bytes as JSON, and gives the answer whatever it is.
    ///
    /// # Errors
    /// When there is none.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<(StatusCode, Value)> {
        self.ask(Method::POST, path, Some(("application/json", body))).await
    }

    /// Asks with the device's token, and gives the answer whatever it is.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some((media, body)) = body {
            request = request.header(CONTENT_TYPE, media).body(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}
