//! The three cookies: of a session, of a browser from which somebody has signed in, and of a
//! sign-in by a provider that is under way. They are for this host alone and for TLS alone, and no
//! script reads them. `Lax`, so that they come along when a provider sends a browser back.

use axum::http::{HeaderMap, HeaderValue, header};
use punchtrail_infra::access::{
    credentials::Secret,
    provider::begun::BEGUN_LIFE_S,
    sessions::{BROWSER_KNOWN_S, SESSION_LIFE_S},
};

use crate::{door::gate::SESSION_COOKIE, problem::Refusal};

/// The cookie of a known browser.
pub const BROWSER_COOKIE: &str = "__Host-punchtrail-browser";

/// The cookie of a sign-in by a provider that is under way.
pub const PROVIDER_COOKIE: &str = "__Host-punchtrail-provider";

fn set(name: &str, value: &str, life_s: u32) -> Result<HeaderValue, Refusal> {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={life_s}");
    HeaderValue::from_str(&text).map_err(|_| Refusal::internal())
}

/// Gives a browser its session, and its own token if it has a new one.
///
/// # Errors
/// Never, since tokens are plain letters.
pub fn given(session: &Secret, browser: Option<&Secret>) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    let session = set(SESSION_COOKIE, session.reveal(), SESSION_LIFE_S)?;
    headers.append(header::SET_COOKIE, session);
    if let Some(browser) = browser {
        let browser = set(BROWSER_COOKIE, browser.reveal(), BROWSER_KNOWN_S)?;
        headers.append(header::SET_COOKIE, browser);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(headers)
}

/// Gives a browser the token of a sign-in by a provider that it begins.
///
/// # Errors
/// Never, as above.
pub fn begun(token: &Secret) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    headers.append(header::SET_COOKIE, set(PROVIDER_COOKIE, token.reveal(), BEGUN_LIFE_S)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(headers)
}

/// Takes it away again, once it is over.
///
/// # Errors
/// Never, as above.
pub fn take_begun(headers: &mut HeaderMap) -> Result<(), Refusal> {
    headers.append(header::SET_COOKIE, set(PROVIDER_COOKIE, "", 0)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(())
}

/// Takes a browser its session.
///
/// # Errors
/// Never, as above.
pub fn taken() -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    headers.append(header::SET_COOKIE, set(SESSION_COOKIE, "", 0)?);
    Ok(headers)
}
