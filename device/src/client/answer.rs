//! Reading answers: bounded, and refusals told apart by what a device can do about them.

use std::time::Duration;

use punchtrail_protocol::{
    EpochId,
    wire::{EPOCH_HEADER, LEDGER_HEADER, Problem},
};
use reqwest::{
    Response, StatusCode,
    header::{DATE, HeaderMap, RETRY_AFTER},
};
use serde::de::DeserializeOwned;

use super::CallError;

/// The largest answer that is read, in bytes: a manifest page of 1,000 rows has a fifth of it.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How much of a server's sentence is kept, in characters.
const DETAIL_CHARS_MAX: usize = 400;

pub(super) async fn answer<A: DeserializeOwned>(response: Response) -> Result<A, CallError> {
    let status = response.status();
    if !status.is_success() {
        return Err(refusal(response).await);
    }
    let body = bounded(response).await?;
    serde_json::from_slice(&body).map_err(|error| CallError::Senseless {
        status: status.as_u16(),
        detail: error.to_string(),
    })
}

pub(super) async fn refusal(response: Response) -> CallError {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let problem = match bounded(response).await {
        Ok(body) => serde_json::from_slice::<Problem>(&body).ok(),
        Err(error) => return error,
    };
    let Some(problem) = problem else {
        // 503 and 429 mean the same from a gateway; any other page of a stranger's means nothing.
        let detail = format!("no problem document came with it ({status})");
        return match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                CallError::Busy { code: "busy".to_owned(), detail, retry_after }
            }
            StatusCode::PAYLOAD_TOO_LARGE => CallError::Refused {
                status: status.as_u16(),
                code: "payload_too_large".to_owned(),
                detail,
            },
            _ => CallError::Senseless { status: status.as_u16(), detail },
        };
    };
    let detail: String = problem.detail.chars().take(DETAIL_CHARS_MAX).collect();
    let code: String = problem.code.chars().take(64).collect();
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            CallError::Busy { code, detail, retry_after }
        }
        status if status.is_client_error() => {
            CallError::Refused { status: status.as_u16(), code, detail }
        }
        status => CallError::Senseless { status: status.as_u16(), detail },
    }
}

async fn bounded(mut response: Response) -> Result<Vec<u8>, CallError> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => {
                let detail = format!("it has more than {ANSWER_BYTES_MAX} bytes");
                return Err(CallError::Senseless { status, detail });
            }
            Ok(None) => return Ok(body),
            Err(error) => return Err(unanswered(error)),
        }
    }
}

/// A call without a whole answer.
pub(super) fn unanswered(error: reqwest::Error) -> CallError {
    let connected = !error.is_connect();
    let text = chain(&error.without_url());
    if connected { CallError::Silent(text) } else { CallError::Unreachable(text) }
}

/// What an answer's head says of the ledger: its epoch, and where its head stands. What is absent
/// or can't be read says nothing.
pub(super) fn heads(headers: &HeaderMap) -> (Option<EpochId>, Option<u64>) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let epoch = text(EPOCH_HEADER).and_then(|text| text.parse().ok());
    (epoch, text(LEDGER_HEADER).and_then(|text| text.parse().ok()))
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which is taken against the answer's own
/// `Date` because this device's clock may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = asked.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let until = date(asked)?.duration_since(date(text(DATE)?)?);
    Duration::try_from(until).ok()
}

/// An error with its causes; reqwest's own text stops at the first.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text.chars().take(DETAIL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("17"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(17)));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Sat, 21 Nov 2026 09:00:30 GMT"));
        assert_eq!(retry_after(&headers), None);
        headers.insert(DATE, HeaderValue::from_static("Sat, 21 Nov 2026 09:00:00 GMT"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(30)));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("soon"));
        assert_eq!(retry_after(&headers), None);
    }
}
