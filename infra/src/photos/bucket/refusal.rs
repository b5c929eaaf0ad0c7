//! What S3 refused, or why it wasn't reached: as an I/O error whose kind tells what passes from
//! what doesn't.
//!
//! The client keeps status and body of a refusal to itself but for its text, so the code that S3
//! gives (`<Code>NoSuchBucket</Code>`) is read from there.

use std::{error::Error as _, io};

use aws_credential_types::provider::error::CredentialsError;
use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};

/// The longest text of somebody else's that is passed on, in characters.
const SAID_CHARS_MAX: usize = 400;

/// Refused for who asks, with a status that doesn't say so.
const NOT_BELIEVED: [&str; 2] = ["ExpiredToken", "InvalidToken"];
/// The region is another than the bucket's.
const ELSEWHERE: [&str; 3] =
    ["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"];

/// Whether it says that this photo isn't kept; not that the bucket is gone.
pub(super) fn is_missing_photo(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && code(&error.to_string()) != Some("NoSuchBucket")
}

/// Whether it says that the key is taken. A conflict with somebody who writes or deletes at this
/// moment (409, not 412) says nothing of the kind, and the client takes one for the other.
pub(super) fn is_there_already(error: &Error) -> bool {
    let Error::AlreadyExists { source, .. } = error else { return false };
    matches!(
        source.downcast_ref::<Error>(),
        Some(Error::Precondition { .. } | Error::NotModified { .. })
    )
}

/// The error for whoever asked for a photo.
pub(super) fn refused(action: &str, error: &Error) -> io::Error {
    let text = error.to_string();
    let code = code(&text);
    let kind = match (error, code) {
        (Error::NotFound { .. }, _) => io::ErrorKind::NotFound,
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _) => {
            io::ErrorKind::PermissionDenied
        }
        (_, Some(code)) if NOT_BELIEVED.contains(&code) => io::ErrorKind::PermissionDenied,
        (_, Some(code)) if ELSEWHERE.contains(&code) => io::ErrorKind::InvalidInput,
        (Error::AlreadyExists { .. }, _) => io::ErrorKind::ResourceBusy,
        _ if text.contains("status code: 5") || text.contains("status code: 429") => {
            io::ErrorKind::ResourceBusy
        }
        _ => of_the_line(error),
    };
    let said = match (code, element(&text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => below(error).unwrap_or(text),
    };
    io::Error::new(kind, format!("{action} of S3 failed: {}", shown(&said)))
}

/// Of a call that wasn't answered.
fn of_the_line(error: &Error) -> io::ErrorKind {
    let mut kind = io::ErrorKind::Other;
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(http) = found.downcast_ref::<HttpError>() {
            kind = match http.kind() {
                HttpErrorKind::Timeout => io::ErrorKind::TimedOut,
                HttpErrorKind::Connect => io::ErrorKind::NotConnected,
                HttpErrorKind::Request | HttpErrorKind::Interrupted => {
                    io::ErrorKind::ConnectionAborted
                }
                _ => kind,
            };
        } else if found.downcast_ref::<CredentialsError>().is_some_and(is_nobody) {
            kind = io::ErrorKind::PermissionDenied;
        } else if let Some(io) = found.downcast_ref::<io::Error>() {
            kind = match io.kind() {
                io::ErrorKind::Other | io::ErrorKind::InvalidData => kind,
                finer => finer,
            };
        }
        cause = found.source();
    }
    kind
}

/// That there are no credentials at all; not that they can't be had now.
fn is_nobody(error: &CredentialsError) -> bool {
    matches!(
        error,
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)
    )
}

/// What lies behind what the client says about its tries: the last cause that says something.
fn below(error: &Error) -> Option<String> {
    let mut said = Vec::new();
    let mut cause = error.source();
    let mut found = false;
    while let Some(one) = cause {
        found = found || one.is::<HttpError>() || one.is::<CredentialsError>();
        if found && !one.is::<HttpError>() {
            said.push(one.to_string());
        }
        cause = one.source();
    }
    (!said.is_empty()).then(|| said.join(": "))
}

fn code(text: &str) -> Option<&str> {
    element(text, "Code")
}

/// The text of an element of S3's answer.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// On one line, and not endless.
fn shown(said: &str) -> String {
    let plain = said.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(SAID_CHARS_MAX).collect()
}
