//! The check before each handler of the office: who asks, whether their role or their key's scopes
//! let them call this route, and whether a browser asks of its own accord. What bears on security
//! is in the trail before its answer is given, or it isn't given.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use punchtrail_infra::access::{
    credentials,
    sessions::{self, SignedIn},
    trail::{self, Act, Doer},
};

use super::{
    Caller, Operator, Who as OperatorOf, nobody, origin,
    table::{self, Reach, Rule, UNLISTED, Who},
    wrong_kind,
};
use crate::{
    door::{
        envelope::{IDEMPOTENT_REPLAYED, RequestId},
        gate::bearer,
    },
    problem::{Code, Refusal},
    state::App,
};

/// Lets a request pass that its caller may make.
pub async fn authorise(State(app): State<App>, request: Request, next: Next) -> Response {
    let address = app.door.place_of(&request).0;
    let (mut parts, body) = request.into_parts();
    let noted = match judged(&app, &mut parts, address).await {
        Ok(noted) => noted,
        Err(refusal) => return refusal.into_response(),
    };
    let response = next.run(Request::from_parts(parts, body)).await;
    let is_done =
        response.status().is_success() && !response.headers().contains_key(IDEMPOTENT_REPLAYED);
    let Some((doer, act, subject)) = noted.filter(|_| is_done) else {
        return response;
    };
    match trail::note(app.ledger.pool(), &doer, act, subject, None).await {
        Ok(()) => response,
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// What goes into the trail once it was done.
type Noted = Option<(Doer, Act, Option<String>)>;

async fn judged(app: &App, parts: &mut Parts, address: IpAddr) -> Result<Noted, Refusal> {
    let path = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let path = path.unwrap_or_default();
    let rule = match table::rule(&parts.method, &path) {
        Some(rule) => rule,
        // No route: whoever may ask there anyhow is told which methods there are.
        None if table::is_open(&path) => return Ok(None),
        None => &UNLISTED,
    };
    let id = parts.extensions.get::<RequestId>().ok_or_else(Refusal::internal)?.clone();
    if rule.who == Who::Anybody {
        origin::of_stranger(&parts.method, &parts.uri, &parts.headers)?;
        let doer =
            Doer { actor: None, address: Some(address), request: Some(id.as_str().to_owned()) };
        parts.extensions.insert(Stranger(Arc::new(doer)));
        return Ok(None);
    }
    let operator = asking(app, parts, (id, address)).await?;
    may(&operator, rule)?;
    let subject = subject(&path, parts.uri.path());
    let noted = rule.noted.map(|act| (operator.doer(), act, subject));
    parts.extensions.insert(operator);
    Ok(noted)
}

/// Who asks, with no credentials yet.
#[derive(Debug, Clone)]
pub struct Stranger(pub Arc<Doer>);

impl FromRequestParts<App> for Stranger {
    type Rejection = Refusal;
    /// As the check before the handler found it.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Refusal::internal)
    }
}

async fn asking(
    app: &App,
    parts: &Parts,
    (id, address): (RequestId, IpAddr),
) -> Result<Operator, Refusal> {
    let token = bearer(&parts.headers)?;
    let by_cookie = !parts.headers.contains_key(header::AUTHORIZATION);
    let of = match by_cookie {
        true => session(app, parts, token).await?.map(OperatorOf::User),
        false => app.keys.operator(&app.ledger, token).await?.map(OperatorOf::Key),
    };
    if let Some(of) = of {
        return Ok(Operator(Arc::new(Caller { of, request: id, address })));
    }
    match credentials::device_of_token(app.ledger.pool(), token).await? {
        Some(_) if !by_cookie => Err(wrong_kind()),
        _ => Err(nobody(app, token)),
    }
}

async fn session(app: &App, parts: &Parts, token: &str) -> Result<Option<SignedIn>, Refusal> {
    let found = sessions::signed_in(app.ledger.pool(), token).await?;
    if found.is_some() {
        origin::of_cookie(&parts.method, &parts.uri, &parts.headers)?;
    }
    Ok(found)
}

/// That a caller may call a route.
fn may(operator: &Operator, rule: &Rule) -> Result<(), Refusal> {
    let allowed = match &operator.0.of {
        OperatorOf::Key(key) => rule.allows_key(key.scopes.as_deref()),
        OperatorOf::User(user) if user.lacks_factor && rule.who != Who::User => {
            return Err(Refusal::new(
                Code::SecondFactorRequired,
                "Your role needs a second factor. Set one (POST /v1/session/second-factor), then \
                 this is yours to call.",
            ));
        }
        OperatorOf::User(user) => rule.allows(user.role),
    };
    match allowed && (rule.reach != Reach::All || operator.sites().is_none()) {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::Forbidden,
            "Your role, or your key's scopes, don't let you call this. docs/roles.md says who may.",
        )),
    }
}

/// What a request is about: the first of what its path names, `employee:…`.
fn subject(pattern: &str, path: &str) -> Option<String> {
    let mut parts = pattern.split('/').zip(path.split('/'));
    parts.find_map(|(name, value)| {
        let name = name.strip_prefix('{')?.strip_suffix('}')?;
        Some(format!("{name}:{value}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_the_first_that_a_path_names() {
        let named = subject("/v1/employees/{employee}/face/{sha256}", "/v1/employees/7/face/ab");
        assert_eq!(named.as_deref(), Some("employee:7"));
        assert_eq!(subject("/v1/audit", "/v1/audit"), None);
    }
}
