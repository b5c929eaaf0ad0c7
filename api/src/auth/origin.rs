//! That a request which changes something with a session's cookie comes from our own pages: a
//! browser sends the cookie along whoever made it ask.
//!
//! `Sec-Fetch-Site` says so in every browser of today, and no page can forge it; `Origin` stands in
//! for it in older ones. Neither is no browser, or a broken proxy: refused, since a program has a
//! key.

use axum::http::{HeaderMap, HeaderName, Method, Uri, header};

use crate::problem::{Code, Refusal};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a method only reads.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// That a request with a cookie comes from our own pages, if it may change anything.
///
/// # Errors
/// 403 `cross_origin` when it doesn't, or doesn't say.
pub fn of_cookie(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    match is_safe(method) || is_own(uri, headers) == Some(true) {
        true => Ok(()),
        false => Err(foreign()),
    }
}

/// The same of a request that needs no credentials, as to sign in: a program may ask, too, and says
/// nothing; another page may not. What only reads is asked from anywhere: a provider of sign-ins
/// sends a browser back so.
///
/// # Errors
/// 403 `cross_origin` when another page asks.
pub fn of_stranger(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    match is_safe(method) || is_own(uri, headers) != Some(false) {
        true => Ok(()),
        false => Err(foreign()),
    }
}

fn foreign() -> Refusal {
    Refusal::new(
        Code::CrossOrigin,
        "With a session's cookie this is only taken from the server's own pages. Nothing was done; \
         a program uses a key.",
    )
}

/// Whether a request comes from our own pages; none if it doesn't say.
fn is_own(uri: &Uri, headers: &HeaderMap) -> Option<bool> {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        // `none`: somebody typed it.
        return Some(site == "same-origin" || site == "none");
    }
    let origin = headers.get(header::ORIGIN)?;
    // HTTP/2 says the host in a field of its own.
    let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let asked = asked.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let origin = origin.to_str().unwrap_or_default();
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    Some(host.is_some() && host == asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(&'static str, &'static str)]) -> (bool, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        let uri = Uri::from_static("/v1/session");
        let cookie = of_cookie(&Method::POST, &uri, &headers).is_ok();
        (cookie, of_stranger(&Method::POST, &uri, &headers).is_ok())
    }

    #[test]
    fn only_our_own_pages_change_something_with_a_cookie() {
        let host = ("host", "clock.example:8443");
        assert_eq!(judged(&[host, ("sec-fetch-site", "same-origin")]), (true, true));
        assert_eq!(judged(&[host, ("sec-fetch-site", "none")]), (true, true));
        assert_eq!(judged(&[host, ("origin", "https://clock.example:8443")]), (true, true));
        assert_eq!(judged(&[host]), (false, true), "a program");
        for foreign in [
            [host, ("sec-fetch-site", "cross-site")],
            [host, ("sec-fetch-site", "same-site")],
            [host, ("sec-fetch-site", "Same-Origin")],
            [host, ("origin", "https://evil.example")],
            [host, ("origin", "https://clock.example")],
            [host, ("origin", "https://clock.example:8443.evil.example")],
            [host, ("origin", "null")],
            [host, ("origin", "")],
        ] {
            assert_eq!(judged(&foreign), (false, false), "{foreign:?}");
        }
        // What a browser says of itself goes before what can be said in its name.
        let both =
            [host, ("sec-fetch-site", "cross-site"), ("origin", "https://clock.example:8443")];
        assert_eq!(judged(&both), (false, false));
        let uri = Uri::from_static("/v1/punches");
        assert!(of_cookie(&Method::GET, &uri, &HeaderMap::new()).is_ok());
    }
}
