//! One try: a request that is signed, an answer that is cut. It never follows anywhere, and never
//! takes longer or reads more than is said here.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Response, StatusCode, header::RETRY_AFTER};
use tokio::time::timeout;

use super::{
    address::{BadAddress, Egress},
    queue::Leased,
    schedule,
    secrets::signature,
};

/// How long a connection may take to be there.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a try may take, until its status is there.
pub const TRY_MAX: Duration = Duration::from_secs(15);
/// How long the answer's body is waited for after that: it changes nothing.
const BODY_WAIT_MAX: Duration = Duration::from_secs(2);
/// How much of it is read, in bytes.
const READ_BYTES_MAX: usize = 16 << 10;
/// How much of it is kept, in bytes, and of its headers.
const KEPT_BYTES_MAX: usize = 4 << 10;
/// Connections to a receiver that are kept open.
const IDLE_CONNECTIONS_MAX: usize = 8;
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The most that is said of an error, in characters: it may quote what came.
const WORDS_MAX: usize = 200;

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub at: Timestamp,
    pub took_ms: i32,
    pub url: String,
    pub status: Option<u16>,
    /// Why there is no success, as a code with words.
    pub error: Option<String>,
    pub headers: Option<String>,
    pub body: Option<String>,
    pub retry_after: Option<SignedDuration>,
}

impl Answer {
    /// Whether it was taken: 2xx, and nothing else.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// What is wrong with it, in a line.
    pub fn said(&self) -> String {
        match (self.status, &self.error) {
            (Some(status), _) => format!("it answered {status}"),
            (None, Some(error)) => error.clone(),
            (None, None) => "no answer came".to_owned(),
        }
    }
}

/// Who sends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    http: Client,
    egress: Egress,
}

impl Sender {
    /// One that sends where may be sent to.
    ///
    /// # Errors
    /// When no client for TLS can be made.
    pub fn new(egress: Egress) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .dns_resolver(egress.clone())
            .user_agent(concat!("punchtrail/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, egress })
    }

    /// Where may be sent to.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Sends a delivery once. `now` is what its signature says.
    pub async fn send(&self, delivery: &Leased, now: Timestamp) -> Answer {
        let began = Instant::now();
        let mut answer = Answer {
            at: now,
            took_ms: 0,
            url: delivery.url.clone(),
            status: None,
            error: None,
            headers: None,
            body: None,
            retry_after: None,
        };
        match timeout(TRY_MAX, self.ask(delivery, now)).await {
            Ok(Ok(response)) => answer.take(response, now).await,
            Ok(Err(error)) => answer.error = Some(error),
            Err(_) => answer.error = Some(format!("timeout: no answer in {} s", TRY_MAX.as_secs())),
        }
        answer.took_ms = i32::try_from(began.elapsed().as_millis()).unwrap_or(i32::MAX);
        answer
    }

    async fn ask(&self, delivery: &Leased, now: Timestamp) -> Result<Response, String> {
        if delivery.secrets.is_empty() {
            return Err("unsigned: its secret can't be opened here".to_owned());
        }
        let refused = |bad: BadAddress| format!("{}: {bad}", bad.code());
        // Literal addresses aren't resolved, so they are vetted here.
        let url = self.egress.url(&delivery.url).map_err(refused)?;
        let timestamp = now.as_second();
        let signed = signature(&delivery.secrets, &delivery.event, timestamp, &delivery.body);
        self.http
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &delivery.event)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signed)
            .body(delivery.body.to_string())
            .send()
            .await
            .map_err(|error| words(&error))
    }
}

impl Answer {
    async fn take(&mut self, mut response: Response, now: Timestamp) {
        let status = response.status();
        self.status = Some(status.as_u16());
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        self.retry_after = asked.and_then(|value| schedule::retry_after(value, now));
        self.headers = Some(headers(&response));
        if !status.is_success() {
            self.error = Some(match status {
                StatusCode::GONE => "gone: it is not to be told any more".to_owned(),
                _ if status.is_redirection() => "redirect: nobody follows".to_owned(),
                _ => format!("status: {}", status.as_u16()),
            });
        }
        let mut body = Vec::new();
        let reading = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                let room = READ_BYTES_MAX - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() >= room {
                    break;
                }
            }
        };
        // What was read by then is kept; the connection is dropped with the rest.
        let _ = timeout(BODY_WAIT_MAX, reading).await;
        self.body = Some(kept(&String::from_utf8_lossy(&body)));
    }
}

fn headers(response: &Response) -> String {
    let mut text = String::new();
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        text.push_str(&format!("{name}: {value}\n"));
        if text.len() > KEPT_BYTES_MAX {
            break;
        }
    }
    kept(&text)
}

/// As much of a text as is kept, without what a database can't hold.
fn kept(text: &str) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    let mut end = text.len().min(KEPT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// What an error says, in a few words, after a code.
fn words(error: &reqwest::Error) -> String {
    let first = error as &(dyn Error + 'static);
    let causes: Vec<_> = std::iter::successors(Some(first), |&error| error.source()).collect();
    if let Some(bad) = causes.iter().find_map(|cause| cause.downcast_ref::<BadAddress>()) {
        return format!("{}: {bad}", bad.code());
    }
    let code = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connection"
    } else {
        "answer"
    };
    let last = causes.last().map(ToString::to_string).unwrap_or_default();
    kept(&format!("{code}: {last}").chars().take(WORDS_MAX).collect::<String>())
}
