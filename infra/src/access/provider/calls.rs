//! Calls to a provider, each bounded: by TLS, to where it says and nowhere further, in time and in
//! size.

use std::{error::Error, net::IpAddr, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use url::{Host, Url};

/// How long a connection may take to be there.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a call may take in all.
const CALL_MAX: Duration = Duration::from_secs(8);
/// The largest answer, in bytes: a hundred keys fit well.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// The most that the log is told of an error, in characters: it may quote what came.
const WORDS_MAX: usize = 300;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("it says to ask at an address that is not asked (https only)")]
    Address,
    #[error("its answer is larger than {ANSWER_BYTES_MAX} bytes")]
    Large,
    #[error("it sends elsewhere, where nobody follows")]
    Redirect,
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

/// Whether an address may be asked: by TLS, or on this very machine where that is allowed.
pub(super) fn may_be_asked(url: &Url, allows_loopback_http: bool) -> bool {
    let is_plain =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return false,
    };
    is_plain
        && match url.scheme() {
            "https" => true,
            "http" => is_here && allows_loopback_http,
            _ => false,
        }
}

/// Whoever calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    http: reqwest::Client,
    allows_loopback_http: bool,
}

impl Calls {
    /// One that calls by TLS, and in the clear on this very machine where that is allowed.
    pub(super) fn new(allows_loopback_http: bool) -> Result<Self, String> {
        let mut http = reqwest::Client::builder()
            .https_only(!allows_loopback_http)
            .connect_timeout(CONNECT_MAX)
            .timeout(CALL_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("punchtrail/", env!("CARGO_PKG_VERSION")));
        if allows_loopback_http {
            // Nothing stands between this server and its own machine.
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| chain(&error))?;
        Ok(Self { http, allows_loopback_http })
    }

    async fn make(&self, request: HttpRequest) -> Result<HttpResponse, CallError> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| CallError::Address)?;
        if !may_be_asked(&url, self.allows_loopback_http) {
            return Err(CallError::Address);
        }
        let mut answer = self.http.execute(request.try_into()?).await?;
        if answer.status().is_redirection() {
            return Err(CallError::Redirect);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(CallError::Large);
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = HttpResponse::new(body);
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for Calls {
    type Error = CallError;
    type Future = BoxFuture<'c, Result<HttpResponse, CallError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.make(request).boxed()
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let words = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    words.chars().take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_reads_along_is_asked() {
        let asked = |text: &str| {
            let url = Url::parse(text).unwrap();
            (may_be_asked(&url, false), may_be_asked(&url, true))
        };
        assert_eq!(asked("https://id.example/realm"), (true, true));
        for here in ["http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/"] {
            assert_eq!(asked(here), (false, true), "{here}");
        }
        for no in [
            "http://id.example/",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://10.0.0.1/",
            "https://me:secret@id.example/",
            "https://id.example/#here",
            "file:///etc/passwd",
            "ftp://id.example/",
        ] {
            assert_eq!(asked(no), (false, false), "{no}");
        }
    }
}
