//! What surrounds every request: an id, a deadline, a net for panics, and the headers of every
//! answer.
//!
//! The id is made here and never taken from outside: it goes into the log and into the metadata of
//! events, where nobody's text belongs.

use std::{
    fmt,
    net::IpAddr,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    door::{
        Door, address::TrustedProxies, connection_limit::Overflow, leftover::Leftover,
        limits::REQUEST_MAX, refusals::Refusals,
    },
    metrics,
    problem::{CloseConnection, Code, PROBLEM_TYPE, Refusal},
};

/// Stands in the log for the code of a refusal that was given before.
const REPLAYED: &str = "replayed";
/// Says that an answer is the one that was given before.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, in its answer as `x-request-id`.
#[derive(Debug, Clone)]
pub struct RequestId(String);

impl RequestId {
    fn new() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the envelope needs to say who was refused.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    proxies: TrustedProxies,
    refusals: Refusals,
}

impl Envelope {
    /// Of a door.
    pub fn of(door: &Door) -> Self {
        Self { proxies: door.proxies.clone(), refusals: door.refusals.clone() }
    }

    /// A line for a refusal, unless there were many alike.
    fn refused(&self, code: &'static str, status: StatusCode, client: IpAddr) {
        if self.refusals.count(code, client) {
            tracing::info!(code, status = status.as_u16(), %client, "refused");
        }
    }
}

/// Carries out a request and finishes its answer.
pub async fn envelope(
    State(surround): State<Envelope>,
    mut request: Request,
    next: Next,
) -> Response {
    let (id, client) = (RequestId::new(), surround.proxies.sender_of(&request));
    // HTTP/2 has no such header: there one connection carries many requests.
    let may_close = request.version() <= Version::HTTP_11;
    let is_overflow = request.extensions().get::<Overflow>().is_some();
    request.extensions_mut().insert(id.clone());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "(unmatched)".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let span = tracing::info_span!("request", request = %id, %method, route);
    let started = Instant::now();
    let (request, leftover) = Leftover::of(request);
    let response = match clear(&request) {
        Ok(()) => bounded(request, next, REQUEST_MAX).instrument(span.clone()).await,
        Err(refusal) => refusal.into_response(),
    };
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    // From one who has stalled nothing more is to be waited for.
    let unread = refused && status != StatusCode::REQUEST_TIMEOUT && leftover.discard();
    let closes = response.extensions().get::<CloseConnection>().is_some();
    let (mut response, code) = finish(response, &id);
    if may_close && (closes || unread || is_overflow) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    metrics::answered(&method, &route, response.status(), started.elapsed());
    let _entered = span.enter();
    if let Some(code) = code {
        surround.refused(code, status, client);
    }
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(status = response.status().as_u16(), duration_ms, "answered");
    response
}

/// That its head can be read in one way.
fn clear(request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let more_than_one = |name| headers.get_all(name).iter().nth(1).is_some();
    // HTTP/2 says the host in a field of its own.
    let needs_host = request.version() == Version::HTTP_11;
    if more_than_one(header::HOST) || needs_host && !headers.contains_key(header::HOST) {
        return Err(Refusal::unclear("`Host` has to be there once."));
    }
    if more_than_one(header::AUTHORIZATION) {
        return Err(Refusal::unclear("`Authorization` is there more than once."));
    }
    let coded = headers.get_all(header::CONTENT_ENCODING).iter();
    if !coded.map(HeaderValue::as_bytes).all(|coding| coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::new(
            Code::UnsupportedMediaType,
            "No Content-Encoding is taken here. Nothing was taken; send the body as it is.",
        ));
    }
    Ok(())
}

async fn bounded(request: Request, next: Next, deadline: Duration) -> Response {
    let answering = tokio::time::timeout(deadline, next.run(request));
    match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Refusal::busy(
            "The request took too long here. What it asked may still happen; sending it again is \
             safe.",
        )
        .into_response(),
        Err(_) => {
            // The panic's own message has gone to the log through the panic hook.
            tracing::error!("a handler panicked");
            Refusal::internal().into_response()
        }
    }
}

/// The answer with its headers; and the code, if it is a refusal.
fn finish(mut response: Response, id: &RequestId) -> (Response, Option<&'static str>) {
    let status = response.status();
    let refused = response.extensions_mut().remove::<Refusal>();
    // What a handler answers itself is JSON, or a refusal that was kept; the framework's own
    // refusals are plain text or empty.
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_kept = kind == Some(PROBLEM_TYPE.as_bytes());
    let is_json = kind.is_some_and(|kind| kind.starts_with(b"application/json"));
    let failed = status.is_client_error() || status.is_server_error();
    let (mut response, code) = match refused {
        Some(refusal) => {
            let code = refusal.code().as_str();
            let mut rendered = refusal.render(id.as_str());
            // What was added on the way out.
            rendered.headers_mut().extend(response.headers_mut().drain());
            (rendered, Some(code))
        }
        None if failed && is_kept => (response, Some(REPLAYED)),
        None if failed && !is_json => {
            let allow = response.headers_mut().remove(header::ALLOW);
            let refusal = Refusal::of_status(status);
            let code = refusal.code().as_str();
            let mut rendered = refusal.render(id.as_str());
            if let Some(allow) = allow {
                rendered.headers_mut().insert(header::ALLOW, allow);
            }
            (rendered, Some(code))
        }
        None => (response, None),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    (response, code)
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn answered(path: &str) -> (u16, String) {
        let routes = Router::new()
            .route("/panics", get(async || -> &'static str { panic!("a bug") }))
            .route("/hangs", get(std::future::pending::<&'static str>))
            .layer(middleware::from_fn_with_state(Envelope::default(), envelope));
        let request = Request::get(path).header(header::HOST, "here").body(Body::empty()).unwrap();
        let response = routes.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let problem: punchtrail_protocol::wire::Problem = serde_json::from_slice(&bytes).unwrap();
        assert!(!problem.detail.contains("a bug"));
        (status, problem.code)
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_not_shown() {
        assert_eq!(answered("/panics").await, (500, "internal".to_owned()));
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_refused() {
        let status = |version, fields: &[(&'static str, &'static str)]| {
            let mut request = Request::post("/").version(version);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let refused = clear(&request.body(Body::empty()).unwrap()).err();
            refused.map(|refusal| (refusal.code().status().as_u16(), refusal.ends_connection()))
        };
        let host = ("host", "here");
        let [one, two] = [Version::HTTP_11, Version::HTTP_2];
        for version in [one, two] {
            assert_eq!(status(version, &[host, host]), Some((400, true)));
            let twice = [host, ("authorization", "Bearer a"), ("authorization", "Bearer a")];
            assert_eq!(status(version, &twice), Some((400, true)));
            for coding in ["gzip", "identity, gzip", "x", ""] {
                let coded = [host, ("content-encoding", coding)];
                assert_eq!(status(version, &coded), Some((415, false)), "{coding}");
            }
            let coded = [host, ("content-encoding", "identity"), ("content-encoding", "br")];
            assert_eq!(status(version, &coded), Some((415, false)));
            assert_eq!(status(version, &[host, ("content-encoding", "Identity")]), None);
        }
        assert_eq!(status(one, &[]), Some((400, true)));
        assert_eq!(status(Version::HTTP_10, &[]), None);
        assert_eq!(status(two, &[]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_ends_is_ended() {
        assert_eq!(answered("/hangs").await, (503, "busy".to_owned()));
    }
}
