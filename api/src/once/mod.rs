//! Writes that are done once, however often they are sent: with an `Idempotency-Key`.
//!
//! Stands around every handler of the office; a handler knows nothing of it. What it appends is
//! held back until its answer is there, and written with that in one transaction
//! (`punchtrail_infra::ledger::Once`). So a handler may be run more than once for a request, and
//! whatever it does beside appending has to bear that. What it writes beside the ledger goes by
//! `punchtrail_infra::ledger::beside`, or it isn't bound to the key.
//!
//! Kept is every answer but 5xx, 401, 403 and 429. One that holds a secret ([`Unkept`]) is kept
//! without it: a replay is refused, and says that the work was done.

pub mod key;

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use punchtrail_infra::{
    idempotency::{ANSWER_BYTES_MAX, Claim, KeptAnswer, Standing},
    ledger::{AppendError, Once, Unsettled},
};
use punchtrail_protocol::{Digest, wire::BODY_BYTES_MAX};

use crate::{
    ask::{
        extract::{Line, content_length, media_type, next_chunk, too_large, too_slow},
        limits::ROSTER_BODY_BYTES_MAX,
    },
    auth::{Operator, table},
    door::envelope::{IDEMPOTENT_REPLAYED, RequestId},
    problem::{Code, Refusal},
    state::{App, HeldBody},
};

/// The largest body that isn't JSON: a roster; photos are smaller.
const FILE_BYTES_MAX: usize = ROSTER_BODY_BYTES_MAX;
/// How often the work is done anew when others keep coming first.
const TRIES_MAX: u32 = 8;
/// When a request with a key that is at work may be sent again, in seconds.
const IN_FLIGHT_RETRY_S: u64 = 1;

/// An answer with a secret or people's names in it: it is given once, and never kept.
#[derive(Debug)]
pub struct Unkept<T>(pub T);

#[derive(Debug, Clone, Copy)]
struct HoldsSecret;

impl<T: IntoResponse> IntoResponse for Unkept<T> {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.extensions_mut().insert(HoldsSecret);
        response
    }
}

/// Does a write once that has a key; lets everything else through.
pub async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    let writes =
        matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let has_key = request.headers().contains_key(key::IDEMPOTENCY_KEY);
    if !writes || !has_key || !has_route(&request) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    // Whoever may not ask is told so by the handler.
    let Ok(operator) = Operator::from_request_parts(&mut parts, &app).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let answer = match Asked::read(&app, &operator, parts, body).await {
        Ok(asked) => asked.answered(&app, next).await,
        Err(refusal) => Err(refusal),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// Whether a route takes it: what none takes isn't done, not even once.
fn has_route(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>();
    path.is_some_and(|path| table::rule(request.method(), path.as_str()).is_some())
}

/// A request that is to be done once, with its whole body.
struct Asked {
    claim: Claim,
    parts: Parts,
    body: Bytes,
    _held: HeldBody,
}

impl Asked {
    async fn read(
        app: &App,
        operator: &Operator,
        parts: Parts,
        body: Body,
    ) -> Result<Self, Refusal> {
        let key = key::of(&parts.headers)?.unwrap_or_default();
        let mut held = whole(app, &parts, body).await?;
        let body = Bytes::copy_from_slice(held.bytes());
        held.read();
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let request = parts.extensions.get::<RequestId>().ok_or_else(Refusal::internal)?;
        let claim = Claim {
            caller: operator.actor().to_string(),
            key: Digest::of(key.as_bytes()),
            fingerprint: Digest::of_parts(&[
                parts.method.as_str().as_bytes(),
                path.as_bytes(),
                &body,
            ]),
            request: request.to_string(),
        };
        Ok(Self { claim, parts, body, _held: held })
    }

    fn request(&self) -> Request {
        Request::from_parts(self.parts.clone(), Body::from(self.body.clone()))
    }

    async fn answered(self, app: &App, next: Next) -> Result<Response, Refusal> {
        match self.claim.begin(app.ledger.pool()).await? {
            Standing::Free => {}
            other => return replayed(other),
        }
        let at_work = AtWork::of(app, &self.claim);
        let answer = self.work(app, next).await;
        at_work.end().await;
        answer
    }

    /// Does the work, until it is written or refused.
    async fn work(&self, app: &App, next: Next) -> Result<Response, Refusal> {
        let mut fails = None;
        for _ in 0..TRIES_MAX {
            let once = Once::failing(fails.take());
            let response = once.scope(next.clone().run(self.request())).await;
            if !is_kept(response.status()) {
                return Ok(response);
            }
            let places = once.places();
            let (answer, body, parts) = self.to_keep(response).await?;
            match app.ledger.settle(&once, self.claim.keeping(answer, places)).await {
                Ok(at) => return Ok(Response::from_parts(parts, places.put(&body, at).into())),
                Err(Unsettled::Taken) => {
                    return replayed(self.claim.standing(app.ledger.pool()).await?);
                }
                Err(Unsettled::Stale) => {}
                Err(Unsettled::Failed(at, error)) => fails = Some((at, error)),
                Err(Unsettled::Refused(error)) => return Err(error.into()),
            }
        }
        Err(AppendError::Stale.into())
    }

    /// The answer as it is kept, and as it is given.
    async fn to_keep(
        &self,
        response: Response,
    ) -> Result<(KeptAnswer, Bytes, axum::http::response::Parts), Refusal> {
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.map_err(|_| Refusal::internal())?;
        let status = parts.status.as_u16();
        if let Some(refusal) = parts.extensions.get::<Refusal>() {
            let rendered = refusal.clone().render(&self.claim.request);
            let content_type = content_type(rendered.headers());
            let text = to_bytes(rendered.into_body(), usize::MAX).await;
            let text = text.map_err(|_| Refusal::internal())?;
            let answer = KeptAnswer { status, content_type, body: Some(text.to_vec()) };
            return Ok((answer, body, parts));
        }
        let secret = parts.extensions.get::<HoldsSecret>().is_some();
        let kept = (!secret && body.len() <= ANSWER_BYTES_MAX).then(|| body.to_vec());
        let content_type = content_type(&parts.headers);
        Ok((KeptAnswer { status, content_type, body: kept }, body, parts))
    }
}

fn content_type(headers: &axum::http::HeaderMap) -> Option<String> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok().map(str::to_owned)
}

/// Whether the same request would be answered so for good.
fn is_kept(status: StatusCode) -> bool {
    let passing = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
    !status.is_server_error() && !passing.contains(&status)
}

/// The body, as patiently as any other, and no larger than any route takes one.
async fn whole(app: &App, parts: &Parts, mut body: Body) -> Result<HeldBody, Refusal> {
    let is_file = media_type(&parts.headers).is_some_and(|kind| !kind.contains("json"));
    let (bytes_max, time_max) = match is_file {
        true => (FILE_BYTES_MAX, app.door.timeouts.photo),
        false => (BODY_BYTES_MAX, app.door.timeouts.body),
    };
    if content_length(&parts.headers).is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let mut held = app.body(Line::of(parts).standing());
    let reading = async {
        while let Some(chunk) = next_chunk(&mut body, app.door.timeouts.silence).await? {
            if held.bytes().len() + chunk.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            held.push(&chunk)?;
        }
        Ok(())
    };
    tokio::time::timeout(time_max, reading).await.map_err(|_| too_slow())??;
    Ok(held)
}

fn replayed(standing: Standing) -> Result<Response, Refusal> {
    match standing {
        Standing::Answered(KeptAnswer { status, content_type, body: Some(body) }) => {
            let status = StatusCode::from_u16(status).map_err(|_| Refusal::internal())?;
            let mut response = (status, Body::from(body)).into_response();
            let kind = content_type.and_then(|kind| HeaderValue::try_from(kind).ok());
            response.headers_mut().remove(header::CONTENT_TYPE);
            response.headers_mut().extend(kind.map(|kind| (header::CONTENT_TYPE, kind)));
            Ok(marked(response))
        }
        Standing::Answered(KeptAnswer { status, body: None, .. }) => {
            let detail = format!(
                "This was done before, and answered with status {status}. The answer held a secret \
                 or names, or was too large to be kept, so it isn't given again. Nothing was done \
                 now; look at what there is, or make another with a new key."
            );
            Ok(marked(Refusal::new(Code::AnswerNotKept, detail).into_response()))
        }
        Standing::Reused => Err(Refusal::new(
            Code::IdempotencyKeyReused,
            "This Idempotency-Key stands for another request: another method, path or body. \
             Nothing was done; send it with a key of its own.",
        )),
        Standing::InFlight | Standing::Free => Err(Refusal::new(
            Code::IdempotencyInFlight,
            "A request with this Idempotency-Key is at work. Nothing was done by this one; send it \
             again for the answer.",
        )
        .retried_after(IN_FLIGHT_RETRY_S)),
    }
}

fn marked(mut response: Response) -> Response {
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Others are told that a request is at work, until this is ended or dropped.
struct AtWork(Option<(App, Claim)>);

impl AtWork {
    fn of(app: &App, claim: &Claim) -> Self {
        Self(Some((app.clone(), claim.clone())))
    }

    async fn end(mut self) {
        if let Some((app, claim)) = self.0.take() {
            ended(&app, &claim).await;
        }
    }
}

impl Drop for AtWork {
    /// Whoever asked went away in the middle, or the work broke off.
    fn drop(&mut self) {
        if let Some((app, claim)) = self.0.take() {
            tokio::spawn(async move { ended(&app, &claim).await });
        }
    }
}

/// It ends by itself where the database doesn't hear of it.
async fn ended(app: &App, claim: &Claim) {
    if let Err(error) = claim.end(app.ledger.pool()).await {
        tracing::warn!(%error, "a key that is at work no longer is free again within seconds");
    }
}
