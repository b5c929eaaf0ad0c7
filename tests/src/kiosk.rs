//! A device in this process: it enrols with a key, signs captures, and posts whatever it is told
//! to.
//!
//! For load, where a process a device would measure processes, and for what no honest device sends.
//! It keeps nothing on disk and retries nothing.

use std::time::Duration;

use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use punchtrail_protocol::{
    BootId, EmployeeId, Time,
    capture::{Capture, PunchKind},
    signing::{ENROLMENT_TYPE, PublicKey, sign},
    wire::{
        BatchAnswer, BatchItem, BatchRequest, EnrollRequest, Enrolled, Heartbeat, HeartbeatAnswer,
        pairing_code,
    },
};
use punchtrail_testkit::Chain;
use reqwest::{Method, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use uuid::Uuid;

/// Program and version.
const APP: &str = "kiosk/1.0";
/// An answer on two busy cores.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// An enrolled device.
#[derive(Debug, Clone)]
pub struct Kiosk {
    pub chain: Chain,
    token: String,
    /// Where it takes the server to be.
    base: String,
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
        let Enrolled { device, org, site, token, .. } = answer.json().await?;
        let mut chain = Chain::new(org, site, device, key);
        (chain.next.boot, chain.next.offline) = (BootId(Uuid::new_v4()), false);
        (chain.next.utc_offset_s, chain.next.tz) = (0, "Etc/UTC".to_owned());
        Ok(Self { chain, token, base: base.to_owned(), http })
    }

    /// The next capture of its chain, of now, by `employee`.
    pub fn capture(&mut self, employee: EmployeeId, kind: PunchKind) -> Capture {
        self.capture_with(|capture| (capture.employee, capture.kind) = (Some(employee), kind))
    }

    /// The next capture of its chain, of now, after `change`.
    pub fn capture_with(&mut self, change: impl FnOnce(&mut Capture)) -> Capture {
        self.chain.next.captured_at = jiff::Timestamp::now().into();
        self.chain.capture_with(change)
    }

    /// A capture, signed.
    pub fn item(&self, capture: &Capture) -> BatchItem {
        self.chain.item(capture)
    }

    /// Any bytes, signed as a capture.
    pub fn signed(&self, bytes: &[u8]) -> BatchItem {
        self.chain.signed(bytes)
    }

    /// Any bytes under a signature that doesn't hold for them.
    pub fn missigned(&self, bytes: &[u8]) -> BatchItem {
        let signature = self.chain.sign(b"something else").to_string();
        BatchItem { signature, ..self.chain.signed(bytes) }
    }

    /// Where it takes the server to be.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The path of its batches.
    pub fn batch_path(&self) -> String {
        format!("/v1/sites/{}/punches/batch", self.chain.next.site)
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
            seq: self.chain.seq(),
            clock: jiff::Timestamp::now().into(),
            boot: self.chain.next.boot,
            uptime_ms: 2,
            app: APP.to_owned(),
            anchor: None,
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
