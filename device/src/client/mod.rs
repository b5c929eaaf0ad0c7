//! The server as this device calls it: device protocol version 1 over HTTP.
//!
//! Every call has a time limit for connecting and for the whole, and reads a bounded answer.
//! Redirects aren't followed, since a punch goes where the device was enrolled and nowhere else.
//! Outside loopback only TLS is spoken. Nothing is retried here; that is `drain`'s to decide.
//! Whatever the answer, what its head says of the ledger is kept for whoever called.

mod answer;
mod record;

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use punchtrail_protocol::{
    CommandId, Digest, EmployeeId, EpochId, PunchId, SiteId, Time,
    wire::{
        AttachmentAnswer, AttachmentRequest, BatchRequest, CommandResult, DisputeAnswer,
        DisputeRequest, EnrollRequest, Enrolled, Heartbeat, HeartbeatAnswer, ItemStatus,
        LedgerHistory, ManifestPage, ReferencesAnswer, ReferencesRequest, ReturnRequest, Returned,
    },
};
use reqwest::{
    Method, RequestBuilder, Response, Url,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::answer::{answer, chain, heads, refusal, unanswered};
pub use self::record::{
    AnswerOutcome, DayOutcome, DisputeOutcome, PunchOutcome, ReasonOutcome, RecordOutcome,
    ResolutionOutcome,
};

/// Limit on making a connection, in milliseconds.
const CONNECT_MS: u64 = 10_000;
/// Limit on a call from its start to the end of its answer, in milliseconds.
pub const CALL_MS: u64 = 30_000;
/// The same for a photo, which may be 5 MiB over a slow line.
const PHOTO_CALL_MS: u64 = 6 * CALL_MS;
/// How long a connection is kept for another call, in milliseconds: from one errand to the next,
/// and no longer. Ten thousand devices that sit out their spread must not hold a server's
/// connections.
const IDLE_MS: u64 = 10_000;
/// Rows asked for on a page of the manifest.
const MANIFEST_LIMIT: u32 = 500;

/// An address that isn't used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("`{0}` is not a server's address; it looks like https://punchtrail.example")]
    Malformed(String),
    /// Clear text to another machine.
    #[error(
        "`{0}` would send punches and the device's token in clear text to another machine. Use \
         https://; plain http:// is for a server on this machine only"
    )]
    ClearText(String),
    /// TLS can't be set up here.
    #[error(
        "TLS can't be set up on this machine ({0}). It needs the system's root certificates (on \
         Debian: apt-get install ca-certificates), or SSL_CERT_FILE naming a file with them"
    )]
    Tls(String),
}

/// A call that didn't give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No way to the server.
    #[error("the server can't be reached: {0}")]
    Unreachable(String),
    /// A connection, but no whole answer in time. What was sent may have arrived.
    #[error("the server gave no whole answer: {0}")]
    Silent(String),
    /// An answer that doesn't come from a Punchtrail server, or not from a sound one.
    #[error("no sense in the answer (HTTP {status}): {detail}")]
    Senseless { status: u16, detail: String },
    /// 503 or 429: the server takes nothing right now.
    #[error("the server is busy: {detail}")]
    Busy {
        code: String,
        detail: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    #[error("the server refused ({status} {code}): {detail}")]
    Refused { status: u16, code: String, detail: String },
}

impl CallError {
    /// Whether a Punchtrail server answered, with whatever.
    pub fn reached(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Refused { .. })
    }

    /// A stable word for what went wrong.
    pub fn code(&self) -> &str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Silent(_) => "no_answer",
            Self::Senseless { .. } => "senseless_answer",
            Self::Busy { code, .. } | Self::Refused { code, .. } => code,
        }
    }

    /// How long the server asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The HTTP status of a refusal.
    pub fn refused_with(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether a refusal is about what was sent, not about who sent it: then something smaller, or
    /// another, may be taken.
    pub fn concerns_the_content(&self) -> bool {
        matches!(self.refused_with(), Some(400 | 413 | 415 | 422))
    }

    /// Whether the server failed at what was sent: as likely as not because of something in it.
    pub fn may_concern_the_content(&self) -> bool {
        self.concerns_the_content() || matches!(self, Self::Senseless { status: 500, .. })
    }
}

/// What the heads of answers said of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heads {
    /// The last epoch that wasn't the one the caller knows.
    pub other_epoch: Option<EpochId>,
    /// The ledger's head, as told last.
    pub ledger: Option<u64>,
}

/// Answer to a batch, read with tolerance: a code that this version doesn't know must not keep it
/// from understanding that its punches arrived.
#[derive(Debug, Clone, Deserialize)]
pub struct BatchOutcome {
    /// One result an item, in the order of the items.
    pub results: Vec<ItemOutcome>,
    /// The highest number up to which every number is held.
    pub acked_through: u64,
    /// The ledger's head after the commit.
    pub ledger: u64,
    pub server_time: Time,
    /// How long to wait before the next batch, in milliseconds.
    pub next_batch_after_ms: u64,
    #[serde(default)]
    pub history: Option<LedgerHistory>,
}

/// What became of one item.
#[derive(Debug, Clone, Deserialize)]
pub struct ItemOutcome {
    /// The punch, if its id could be read.
    pub punch: Option<PunchId>,
    pub status: ItemStatus,
    pub code: Option<String>,
}

/// Where a punch stands, read with tolerance: a word that this version doesn't know is no reason to
/// say nothing.
#[derive(Debug, Clone, Deserialize)]
pub struct VerdictOutcome {
    pub standing: String,
    /// The attempt that the guidance is about: 0 for the capture's own frame; none before a
    /// verdict.
    pub attempt: Option<u32>,
    /// Codes.
    pub guidance: Vec<String>,
    /// Whether another picture may help.
    pub retake: bool,
    /// Position of the punch's newest event.
    pub position: u64,
}

/// A command, read with tolerance: one whose type this version doesn't know is refused, not
/// misread.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CommandGiven {
    pub command: CommandId,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub args: serde_json::Value,
    /// Not to be acted on any more from then.
    pub expires_at: Time,
}

/// A server at an address, called as one device.
#[derive(Clone)]
pub struct Server {
    http: reqwest::Client,
    base: String,
    authorization: Option<HeaderValue>,
    patience: Duration,
    photo_patience: Duration,
    heard: Arc<Mutex<Heard>>,
}

/// What was said of the ledger since somebody began to listen.
#[derive(Debug, Default)]
struct Heard {
    known: Option<EpochId>,
    heads: Heads,
}

impl std::fmt::Debug for Server {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.base).finish()
    }
}

impl Server {
    /// The server at `address`.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn at(address: &str) -> Result<Self, AddressError> {
        Self::with_patience(address, CALL_MS)
    }

    /// The server at `address`, waited for no longer than `call_ms` milliseconds a call, and six
    /// times that for a photo.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn with_patience(address: &str, call_ms: u64) -> Result<Self, AddressError> {
        let call_ms = call_ms.min(CALL_MS);
        let (base, local) = checked(address)?;
        let mut http = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(CONNECT_MS))
            .timeout(Duration::from_millis(call_ms))
            .pool_idle_timeout(Duration::from_millis(IDLE_MS))
            .pool_max_idle_per_host(1)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(crate::APP);
        if local {
            // Nothing between a device and its own machine: no proxy, and no roots to be found.
            http = http.no_proxy();
            if base.starts_with("http:") {
                http = http.tls_certs_only([]);
            }
        }
        let http = http.build().map_err(|error| AddressError::Tls(chain(&error)))?;
        let photo_patience = Duration::from_millis(call_ms * PHOTO_CALL_MS / CALL_MS);
        let patience = Duration::from_millis(call_ms);
        let heard = Arc::default();
        Ok(Self { http, base, authorization: None, patience, photo_patience, heard })
    }

    /// The same server, called with this device's token.
    ///
    /// # Errors
    /// When the token can't stand in a header.
    pub fn with_token(mut self, token: &str) -> Result<Self, AddressError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| AddressError::Malformed("the device's token".to_owned()))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// Listens anew to what answers say of the ledger, whose epoch is known as `epoch`.
    pub fn listen(&self, epoch: Option<EpochId>) {
        *self.heard() = Heard { known: epoch, heads: Heads::default() };
    }

    /// What answers said of the ledger since [`Server::listen`].
    pub fn heads(&self) -> Heads {
        self.heard().heads
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, and notes what the head of its answer says.
    async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        let response = request.send().await.map_err(unanswered)?;
        let (epoch, ledger) = heads(response.headers());
        let mut heard = self.heard();
        heard.heads.ledger = ledger.or(heard.heads.ledger);
        if let (Some(epoch), Some(known)) = (epoch, heard.known)
            && epoch != known
        {
            heard.heads.other_epoch = Some(epoch);
        }
        drop(heard);
        Ok(response)
    }

    async fn ask<A: DeserializeOwned>(&self, request: RequestBuilder) -> Result<A, CallError> {
        answer(self.send(request).await?).await
    }

    /// The address, without a slash at the end.
    pub fn address(&self) -> &str {
        &self.base
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    async fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, CallError> {
        self.ask(self.call(Method::POST, path).json(body)).await
    }

    /// Makes a pairing code for `site`, where this is called with an operator's key.
    ///
    /// # Errors
    /// As the call went.
    pub async fn pairing_code(&self, site: SiteId) -> Result<String, CallError> {
        #[derive(Deserialize)]
        struct Made {
            code: String,
        }
        let path = format!("/v1/sites/{site}/pairing-codes");
        let made: Made = self.ask(self.call(Method::POST, &path)).await?;
        Ok(made.code)
    }

    /// Becomes a device.
    ///
    /// # Errors
    /// As the call went.
    pub async fn enroll(&self, request: &EnrollRequest) -> Result<Enrolled, CallError> {
        self.post("/v1/devices/enroll", request).await
    }

    /// Becomes known again to a server that went back to before the enrolment.
    ///
    /// # Errors
    /// As the call went.
    pub async fn come_back(&self, request: &ReturnRequest) -> Result<Returned, CallError> {
        self.post("/v1/devices/return", request).await
    }

    /// Tells what waits here, and learns what the server holds.
    ///
    /// # Errors
    /// As the call went.
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, CallError> {
        self.post("/v1/devices/self/heartbeat", heartbeat).await
    }

    /// What the server wants done.
    ///
    /// # Errors
    /// As the call went.
    pub async fn commands(&self) -> Result<Vec<CommandGiven>, CallError> {
        #[derive(Deserialize)]
        struct Given {
            data: Vec<CommandGiven>,
        }
        let given: Given = self.ask(self.call(Method::GET, "/v1/devices/self/commands")).await?;
        Ok(given.data)
    }

    /// Tells what became of a command.
    ///
    /// # Errors
    /// As the call went; whatever it is, telling again is safe.
    pub async fn finish(
        &self,
        command: CommandId,
        result: &CommandResult,
    ) -> Result<(), CallError> {
        let path = format!("/v1/devices/self/commands/{command}/result");
        self.put(self.call(Method::PUT, &path).json(result)).await
    }

    /// Delivers captures. Only the body that goes out is held while the answer is waited for.
    ///
    /// # Errors
    /// As the call went; whatever it is, sending again is safe.
    pub async fn deliver(
        &self,
        site: SiteId,
        batch: BatchRequest,
    ) -> Result<BatchOutcome, CallError> {
        let items = batch.punches.len();
        let path = format!("/v1/sites/{site}/punches/batch");
        let request = self.call(Method::POST, &path).json(&batch);
        drop(batch);
        let outcome: BatchOutcome = self.ask(request).await?;
        if outcome.results.len() == items {
            return Ok(outcome);
        }
        Err(CallError::Senseless {
            status: 200,
            detail: format!("{} results for {items} items", outcome.results.len()),
        })
    }

    /// A page of who works at `site`; the first without `cursor`.
    ///
    /// # Errors
    /// As the call went; 409 `roster_changed` when the walk has to start over.
    pub async fn manifest(
        &self,
        site: SiteId,
        cursor: Option<&str>,
    ) -> Result<ManifestPage, CallError> {
        let mut path = format!("/v1/sites/{site}/manifest?limit={MANIFEST_LIMIT}");
        if let Some(cursor) = cursor {
            path.push_str("&cursor=");
            path.push_str(&percent_encoded(cursor));
        }
        self.ask(self.call(Method::GET, &path)).await
    }

    /// Delivers a photo, streamed from its file.
    ///
    /// # Errors
    /// As the call went; [`std::io::Error`] when the file can't be opened.
    pub async fn deliver_photo(
        &self,
        digest: Digest,
        media: &str,
        file: &Path,
    ) -> Result<Result<(), CallError>, std::io::Error> {
        let file = tokio::fs::File::open(file).await?;
        let size_bytes = file.metadata().await?.len();
        let request = self
            .call(Method::PUT, &format!("/v1/photos/{digest}"))
            .timeout(self.photo_patience)
            .header(CONTENT_TYPE, media)
            .header(CONTENT_LENGTH, size_bytes)
            .body(file);
        Ok(self.put(request).await)
    }

    /// Delivers a photo that is on no disk.
    ///
    /// # Errors
    /// As the call went.
    pub async fn put_photo(
        &self,
        digest: Digest,
        media: &str,
        body: Vec<u8>,
    ) -> Result<(), CallError> {
        let request = self
            .call(Method::PUT, &format!("/v1/photos/{digest}"))
            .timeout(self.photo_patience)
            .header(CONTENT_TYPE, media)
            .body(body);
        self.put(request).await
    }

    async fn put(&self, request: RequestBuilder) -> Result<(), CallError> {
        let response = self.send(request).await?;
        match response.status().as_u16() {
            200 | 201 => Ok(()),
            // Another success, like 202 or 204, says nothing of what was put.
            _ => Err(refusal(response).await),
        }
    }

    /// Attaches another picture to a punch.
    ///
    /// # Errors
    /// As the call went; whatever it is, sending again is safe.
    pub async fn attach(
        &self,
        punch: PunchId,
        request: &AttachmentRequest,
    ) -> Result<AttachmentAnswer, CallError> {
        let answer: AttachmentAnswer =
            self.post(&format!("/v1/punches/{punch}/attachments"), request).await?;
        match answer.status {
            ItemStatus::Applied | ItemStatus::Duplicate => Ok(answer),
            other => Err(CallError::Senseless {
                status: 200,
                detail: format!("an attachment is never {}", <&str>::from(other)),
            }),
        }
    }

    /// What became of a punch's pictures, as soon as that is known of the newest, or after `wait_s`
    /// seconds.
    ///
    /// # Errors
    /// As the call went.
    pub async fn verdict(&self, punch: PunchId, wait_s: u32) -> Result<VerdictOutcome, CallError> {
        let path = format!("/v1/punches/{punch}/verdict?wait_s={wait_s}");
        let patience = self.patience + Duration::from_secs(wait_s.into());
        self.ask(self.call(Method::GET, &path).timeout(patience)).await
    }

    /// Delivers what a worker disputes.
    ///
    /// # Errors
    /// As the call went; whatever it is, sending again is safe.
    pub async fn dispute(
        &self,
        site: SiteId,
        request: &DisputeRequest,
    ) -> Result<DisputeAnswer, CallError> {
        let answer: DisputeAnswer =
            self.post(&format!("/v1/sites/{site}/disputes"), request).await?;
        match answer.status {
            ItemStatus::Applied | ItemStatus::Duplicate => Ok(answer),
            other => Err(CallError::Senseless {
                status: 200,
                detail: format!("a dispute is never {}", <&str>::from(other)),
            }),
        }
    }

    /// A worker's record of the last `days` business days.
    ///
    /// # Errors
    /// As the call went.
    pub async fn record(
        &self,
        site: SiteId,
        employee: EmployeeId,
        days: u32,
    ) -> Result<RecordOutcome, CallError> {
        let path = format!("/v1/sites/{site}/employees/{employee}/record?days={days}");
        self.ask(self.call(Method::GET, &path)).await
    }

    /// Enrols reference pictures of a worker, under a code made for them.
    ///
    /// # Errors
    /// As the call went.
    pub async fn references(
        &self,
        site: SiteId,
        employee: EmployeeId,
        request: &ReferencesRequest,
    ) -> Result<ReferencesAnswer, CallError> {
        let path = format!("/v1/sites/{site}/employees/{employee}/references");
        self.post(&path, request).await
    }
}

/// Whether `address` is of this machine alone.
///
/// # Errors
/// When it can't be used at all.
pub fn is_loopback(address: &str) -> Result<bool, AddressError> {
    checked(address).map(|(_, local)| local)
}

/// The address without its last slash, and whether it is this machine.
fn checked(address: &str) -> Result<(String, bool), AddressError> {
    let malformed = || AddressError::Malformed(address.to_owned());
    let url = Url::parse(address).map_err(|_| malformed())?;
    let host = url.host_str().ok_or_else(malformed)?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain || !matches!(url.scheme(), "http" | "https") {
        return Err(malformed());
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if url.scheme() == "http" && !local {
        return Err(AddressError::ClearText(address.to_owned()));
    }
    Ok((url.as_str().trim_end_matches('/').to_owned(), local))
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_goes_to_this_machine_only() {
        for local in
            ["http://127.0.0.1:8080/", "http://localhost:1", "http://[::1]:80", "http://127.9.9.9"]
        {
            assert!(Server::at(local).is_ok(), "{local}");
        }
        for far in
            ["http://192.168.1.10:8080", "http://punchtrail.example", "http://localhost.example"]
        {
            let refusal = Server::at(far).unwrap_err();
            assert_eq!(refusal, AddressError::ClearText(far.to_owned()));
        }
        for odd in
            ["punchtrail.example", "ftp://localhost", "https://u:p@h.example", "https://h/?a=b", ""]
        {
            assert!(matches!(Server::at(odd), Err(AddressError::Malformed(_))), "{odd}");
        }
    }

    #[test]
    fn an_address_keeps_its_path_and_loses_its_last_slash() {
        assert_eq!(checked("http://localhost:9/time/").unwrap().0, "http://localhost:9/time");
        assert_eq!(checked("http://localhost:9").unwrap().0, "http://localhost:9");
    }

    #[test]
    fn cursors_are_encoded() {
        assert_eq!(percent_encoded("a+b/c=="), "a%2Bb%2Fc%3D%3D");
    }
}
