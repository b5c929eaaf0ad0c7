//! Reading a request into types that can't be wrong: its path, its query, its JSON body.
//!
//! What can't be read is refused with the field at fault. JSON is taken strictly (see
//! `punchtrail_protocol::strict_json`), unknown fields and parameters are refused, and no body is
//! read further than it may be large.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use punchtrail_protocol::{strict_json, wire::BODY_BYTES_MAX};
use serde::de::DeserializeOwned;

use crate::{
    ask::limits::SEARCH_CHARS_MAX,
    door::{admission::Admitted, gate::Standing},
    problem::{Code, Refusal},
    state::{App, HeldBody},
};

/// What stands in the path. A part that can't be read names nothing: 404.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for InPath<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &App) -> Result<Self, Refusal> {
        let read = Path::<T>::from_request_parts(parts, state).await;
        read.map(|Path(value)| Self(value)).map_err(|_| Refusal::not_found())
    }
}

/// The query.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Params<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        read_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Refusal> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    if let Some((name, _)) = pairs.clone().find(|(_, value)| value.contains('\0')) {
        return Err(Refusal::field(name, "invalid_value", "A parameter holds a NUL character."));
    }
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(
        serde_urlencoded::Deserializer::new(pairs),
        &mut track,
    );
    T::deserialize(deserializer).map_err(|error| {
        let (code, name) = fault(&error.to_string(), &track.path());
        let pointer = name.trim_start_matches('/').to_owned();
        Refusal::field(pointer, code, format!("The query can't be taken: {error}."))
    })
}

/// A strict JSON body of at most 64 KiB.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let Coming { body, admitted } = read_json_body(app, request, BODY_BYTES_MAX).await?;
        admitted.wait_for_permit().await?;
        read_json(body.bytes()).map(Self)
    }
}

/// A JSON body as it came, of a request that has no permit yet to be worked on.
#[derive(Debug)]
pub struct Coming {
    pub body: HeldBody,
    pub admitted: Line,
}

/// The line that a request stands in; none where everything is admitted at once.
#[derive(Debug, Clone)]
pub struct Line(Option<Arc<Admitted>>);

impl Line {
    /// Of a request.
    pub fn of(parts: &Parts) -> Self {
        Self(parts.extensions.get::<Arc<Admitted>>().cloned())
    }

    /// What the sender's credentials are worth.
    pub fn standing(&self) -> Standing {
        self.0.as_ref().map_or(Standing::Known, |admitted| admitted.standing())
    }

    /// The body is there.
    pub fn has_come(&self) {
        if let Some(admitted) = &self.0 {
            admitted.has_come();
        }
    }

    /// Puts the permit down while the request waits for something else than work.
    pub async fn put_down(&self) {
        if let Some(admitted) = &self.0 {
            admitted.put_down().await;
        }
    }

    /// Waits for the permit to be worked on.
    ///
    /// # Errors
    /// Busy when it isn't granted in a reasonable time.
    pub async fn wait_for_permit(&self) -> Result<(), Refusal> {
        match &self.0 {
            Some(admitted) => admitted.wait_for_permit().await,
            None => Ok(()),
        }
    }
}

impl FromRequestParts<App> for Line {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts))
    }
}

/// The permit of a request whose body isn't read.
#[derive(Debug)]
pub struct Permitted;

impl FromRequestParts<App> for Permitted {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        Line::of(parts).wait_for_permit().await.map(|()| Self)
    }
}

/// Reads a JSON body.
///
/// # Errors
/// When it is of another type, too large, too slow, or the server has too much to do already.
pub async fn read_json_body(
    app: &App,
    request: Request,
    bytes_max: usize,
) -> Result<Coming, Refusal> {
    let (parts, mut body) = request.into_parts();
    if !is_json(&parts.headers) {
        return Err(Refusal::new(
            Code::UnsupportedMediaType,
            "The body has to be JSON, Content-Type application/json.",
        ));
    }
    if content_length(&parts.headers).is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let admitted = Line::of(&parts);
    let mut held = app.body(admitted.standing());
    let reading = async {
        while let Some(chunk) = next_chunk(&mut body, app.door.timeouts.silence).await? {
            if held.bytes().len() + chunk.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            held.push(&chunk)?;
        }
        Ok(())
    };
    tokio::time::timeout(app.door.timeouts.body, reading).await.map_err(|_| too_slow())??;
    admitted.has_come();
    Ok(Coming { body: held, admitted })
}

/// What comes next of a body; none at its end.
///
/// # Errors
/// When nothing comes for so long, or it breaks off.
pub async fn next_chunk(body: &mut Body, silence: Duration) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = tokio::time::timeout(silence, body.frame()).await.map_err(|_| too_slow())?;
        let Some(frame) = frame.transpose().map_err(|_| broken_off())? else { return Ok(None) };
        // Trailers say nothing here.
        if let Ok(chunk) = frame.into_data() {
            return Ok(Some(chunk));
        }
    }
}

/// The refusal of a body that took too long.
pub fn too_slow() -> Refusal {
    Refusal::new(
        Code::RequestTimeout,
        "The body took too long to come. Nothing was taken; send it again.",
    )
}

/// The refusal of a body that broke off.
pub fn broken_off() -> Refusal {
    Refusal::new(Code::BadRequest, "The body broke off. Nothing was taken; send it again.")
}

/// The refusal of a body that is too large.
pub fn too_large(bytes_max: usize) -> Refusal {
    Refusal::new(
        Code::PayloadTooLarge,
        format!("At most {bytes_max} bytes are taken here. Nothing was taken; send less at once."),
    )
}

/// What a request says its body's length is.
pub fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The media type without its parameters, in lower case; none when the request names none.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_none_or(|kind| kind == "application/json" || kind.ends_with("+json"))
}

/// Reads strict JSON into a `T`.
///
/// # Errors
/// When it is malformed, or no `T`; then with a pointer to the field at fault.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    strict_json::parse(bytes).map_err(|error| match error {
        Ok(malformed) => {
            Refusal::new(Code::MalformedJson, format!("The body can't be taken: {malformed}."))
        }
        Err(_) => at_fault::<T>(bytes),
    })
}

/// Reads once more, slowly, for the place of the fault.
fn at_fault<T: DeserializeOwned>(bytes: &[u8]) -> Refusal {
    let mut track = serde_path_to_error::Track::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let json = strict_json::Exact(&mut json);
    let read = T::deserialize(serde_path_to_error::Deserializer::new(json, &mut track));
    let message = read.err().map_or_else(String::new, |error| error.to_string());
    let (code, pointer) = fault(&message, &track.path());
    Refusal::field(pointer, code, format!("The body can't be taken: {message}."))
}

/// What serde's message says is wrong, and the JSON pointer (RFC 6901) to it.
fn fault(message: &str, path: &serde_path_to_error::Path) -> (&'static str, String) {
    use serde_path_to_error::Segment;
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escape(key))),
            Segment::Enum { variant } => pointer.push_str(&format!("/{}", escape(variant))),
            Segment::Unknown => {}
        }
    }
    if message.starts_with("unknown field") {
        return ("unknown_field", pointer);
    }
    let named = |what: &str| message.strip_prefix(what).and_then(|rest| rest.split('`').next());
    if let Some(field) = named("missing field `") {
        return ("missing_field", format!("{pointer}/{}", escape(field)));
    }
    match named("duplicate field `") {
        Some(field) => ("invalid_value", format!("{pointer}/{}", escape(field))),
        None => ("invalid_value", pointer),
    }
}

/// A limit as asked for.
///
/// # Errors
/// When it isn't from 1 to `max`.
pub fn page_limit(asked: Option<u32>, default: u32, max: u32) -> Result<u32, Refusal> {
    match asked.unwrap_or(default) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Refusal::field("limit", "invalid_value", format!("`limit` is from 1 to {max}."))),
    }
}

/// That a text is one to find people by.
///
/// # Errors
/// When it is empty or too long.
pub fn searchable(typed: &str) -> Result<(), Refusal> {
    if (1..=SEARCH_CHARS_MAX).contains(&typed.chars().count()) {
        return Ok(());
    }
    let why = format!("`q` has 1 to {SEARCH_CHARS_MAX} characters.");
    Err(Refusal::field("q", "invalid_value", why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use punchtrail_protocol::wire::{BatchRequest, Heartbeat};
    use serde::Deserialize;

    fn at(refusal: Refusal) -> String {
        let body = refusal.render("r").into_body();
        let bytes = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        let problem: punchtrail_protocol::wire::Problem = serde_json::from_slice(&bytes).unwrap();
        match problem.errors.first() {
            Some(error) => format!("{} {} {}", problem.code, error.code, error.pointer),
            None => problem.code,
        }
    }

    #[test]
    fn the_field_at_fault_is_pointed_to() {
        let batch = |text: &str| at(read_json::<BatchRequest>(text.as_bytes()).unwrap_err());
        assert_eq!(
            batch(r#"{"punches":[{"capture":"","signature":"","a/b":1}]}"#),
            "invalid unknown_field /punches/0/a~1b"
        );
        assert_eq!(
            batch(r#"{"punches":[{"capture":""}]}"#),
            "invalid missing_field /punches/0/signature"
        );
        assert_eq!(batch(r#"{"punches":{}}"#), "invalid invalid_value /punches");
        assert_eq!(batch("{}"), "invalid missing_field /punches");
        assert_eq!(batch("[[]]"), "invalid invalid_value ");
        assert_eq!(batch(r#"{"punches":[["",""]]}"#), "invalid invalid_value /punches/0");
        assert_eq!(batch(r#"{"punches":[],"punches":[]}"#), "malformed_json");
        let heartbeat = read_json::<Heartbeat>(br#"{"outbox":1.5}"#).unwrap_err();
        assert_eq!(at(heartbeat), "invalid invalid_value /outbox");
    }

    #[test]
    fn the_parameter_at_fault_is_named() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Query {
            #[expect(dead_code, reason = "only read into")]
            limit: Option<u32>,
        }
        let query = |text: &str| at(read_query::<Query>(text).unwrap_err());
        assert_eq!(query("limit=x"), "invalid invalid_value limit");
        assert_eq!(query("limits=1"), "invalid unknown_field limits");
        assert_eq!(query("limit=%00"), "invalid invalid_value limit");
        assert_eq!(query("limit=1&limit=2"), "invalid invalid_value limit");
    }
}
