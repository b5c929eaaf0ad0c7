//! What callers may ask for within a day, right across nodes (`punchtrail_infra::quotas`).
//!
//! A device's reads are counted one by one: its site's punches, searches for people, workers'
//! records. What it delivers never is, nor what it is told to fetch: manifest, commands, verdicts.
//! An operator's key is counted by blocks, for a dashboard asks many times a second.
//!
//! Every counted answer says what is left; a refused call isn't counted.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderName, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use punchtrail_domain::log::recorded::Actor;
use punchtrail_infra::quotas::{Blocks, Count, Quota};
use punchtrail_protocol::DeviceId;

use crate::{
    auth::Operator,
    problem::{Code, Refusal},
    state::App,
};

/// Calls that a device may make within 24 hours, unless set otherwise.
pub const DEVICE_CALLS_MAX: u32 = 1_000;
/// The same of an operator's key.
pub const KEY_CALLS_MAX: u32 = 1_000_000;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// How much callers may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Of a device, within 24 hours.
    pub device_calls: u32,
    /// Of an operator's key, within 24 hours.
    pub key_calls: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { device_calls: DEVICE_CALLS_MAX, key_calls: KEY_CALLS_MAX }
    }
}

/// What counts them.
#[derive(Debug)]
pub struct Quotas {
    devices: Quota,
    keys: Blocks,
}

impl From<Allowance> for Quotas {
    fn from(Allowance { device_calls, key_calls }: Allowance) -> Self {
        Self {
            devices: Quota::a_day("device", device_calls),
            keys: Blocks::new(Quota::a_day("key", key_calls)),
        }
    }
}

/// What is left to whoever asks, once it is known.
type Told = Arc<OnceLock<Count>>;

/// The call of a device, counted. Stands after the device among a handler's arguments.
#[derive(Debug)]
pub struct Counted;

impl FromRequestParts<App> for Counted {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let device = parts.extensions.get::<DeviceId>().ok_or_else(Refusal::internal)?;
        let count = app.quotas.devices.count(app.ledger.pool(), &device.to_string()).await?;
        if let Some(told) = parts.extensions.get::<Told>() {
            // It is counted once a request.
            let _ = told.set(count);
        }
        let_in(count, "This device").map(|()| Self)
    }
}

fn let_in(count: Count, who: &str) -> Result<(), Refusal> {
    if count.is_granted() {
        return Ok(());
    }
    let detail = format!(
        "{who} has made the {} calls that it may make within 24 hours. Nothing was done, and this \
         one isn't counted; call again after the time in Retry-After.",
        count.most
    );
    Err(Refusal::new(Code::QuotaExceeded, detail).retried_after(count.wait_s().max(1)))
}

/// Counts what an operator's key asks for.
pub async fn of_keys(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let asks = Operator::from_request_parts(&mut parts, &app).await;
    let request = Request::from_parts(parts, body);
    // Whoever may not ask is told so by the handler.
    let Some(Actor::Key(key)) = asks.ok().map(|operator| operator.actor()) else {
        return next.run(request).await;
    };
    match app.quotas.keys.count(app.ledger.pool(), &key.to_string()).await {
        Ok(count) => {
            let response = match let_in(count, "This key") {
                Ok(()) => next.run(request).await,
                Err(refusal) => refusal.into_response(),
            };
            told(response, count)
        }
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// Says on the answer to a device what is left to it, if the call was counted.
pub async fn of_devices(mut request: Request, next: Next) -> Response {
    let count = Told::default();
    request.extensions_mut().insert(Arc::clone(&count));
    let response = next.run(request).await;
    match count.get() {
        Some(count) => told(response, *count),
        None => response,
    }
}

fn told(mut response: Response, count: Count) -> Response {
    let headers = response.headers_mut();
    headers.insert(LIMIT, count.most.into());
    headers.insert(REMAINING, count.left.into());
    headers.insert(RESET, count.fits_s.into());
    response
}
