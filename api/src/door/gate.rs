//! Who may join a line at all: those whose credentials are known to be good.
//!
//! A line that anybody may stand in belongs to whoever sends most. So credentials are looked up
//! before a request is admitted, a few strangers' at a time, and one of each origin
//! ([`Waiters`]). Those that were good lately go straight on. That gives no rights: a handler looks
//! its caller up itself.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, header};
use futures::future::BoxFuture;
use punchtrail_protocol::Digest;
use tokio::sync::Semaphore;

use super::{
    remembered::Remembered,
    waiters::{Place, Waiters},
};
use crate::problem::Refusal;

/// The cookie of a session. Its prefix makes browsers hold it to this host, and to TLS.
pub const SESSION_COOKIE: &str = "__Host-punchtrail";
/// Strangers whose credentials are looked up at once.
const LOOKED_UP_AT_ONCE: usize = 2;
/// Requests of one origin that wait for that.
const WAITING_EACH_MAX: usize = 256;
/// How many credentials are remembered as good.
const KNOWN_MAX: usize = 1 << 18;
/// And for how long.
const KNOWN_FOR: Duration = Duration::from_secs(86_400);

/// What is known of whoever sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Standing {
    /// Its credentials are good.
    #[default]
    Known,
    /// They are a revoked device's, which may only deliver.
    Revoked,
    /// It has none, and needs none: it asks to be enrolled.
    Stranger,
}

/// Finds what credentials are worth; none for nobody's.
pub type LookUp =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<Option<Standing>, Refusal>> + Send + Sync>;

/// The gate. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Option<Arc<Inner>>);

struct Inner {
    look_up: LookUp,
    known: Remembered<Standing>,
    waiters: Waiters,
    turns: Semaphore,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// The token of a request: as it stands in `Authorization: Bearer`, or else the session's in its
/// cookie.
///
/// # Errors
/// When there is none.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return cookie(headers, SESSION_COOKIE).ok_or_else(Refusal::unauthenticated);
    };
    match value.to_str().ok().and_then(|text| text.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Refusal::unauthenticated()),
    }
}

/// The value of a cookie; none if it isn't there, or there are two and nobody knows which one is
/// meant.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(header::COOKIE).into_iter();
    let pairs = pairs.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let mut values = pairs.filter_map(|pair| pair.trim().split_once('='));
    let mut values = values.by_ref().filter(|(of, _)| *of == name).map(|(_, value)| value);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

impl Gate {
    /// One that looks credentials up by `look_up`.
    pub fn new(look_up: LookUp) -> Self {
        Self(Some(Arc::new(Inner {
            look_up,
            known: Remembered::new(KNOWN_MAX, KNOWN_FOR),
            waiters: Waiters::new(WAITING_EACH_MAX),
            turns: Semaphore::new(LOOKED_UP_AT_ONCE),
        })))
    }

    /// One that lets everybody through.
    pub fn open() -> Self {
        Self(None)
    }

    /// What the sender of a request is worth that came from there over that connection; none when
    /// too many wait to be looked up.
    ///
    /// # Errors
    /// When its credentials are nobody's, or can't be looked up now.
    pub async fn standing(
        &self,
        headers: &HeaderMap,
        place: Place,
    ) -> Result<Option<Standing>, Refusal> {
        let Some(inner) = &self.0 else { return Ok(Some(Standing::Known)) };
        let token = bearer(headers)?;
        let digest = Digest::of(token.as_bytes());
        if let Some(standing) = inner.known.get(&digest, Instant::now()) {
            return Ok(Some(standing));
        }
        let Some(mut waiter) = inner.waiters.join(place) else { return Ok(None) };
        if !waiter.is_in_front().await {
            return Ok(None);
        }
        // Nobody closes it.
        let _turn = inner.turns.acquire().await.map_err(|_| Refusal::internal())?;
        let standing = (inner.look_up)(token.to_owned()).await?;
        let standing = standing.ok_or_else(Refusal::unauthenticated)?;
        inner.known.put(digest, standing, Instant::now());
        Ok(Some(standing))
    }

    /// Whether the credentials of a request were good lately.
    pub fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(inner) = &self.0 else { return true };
        let known = |token: &str| inner.known.get(&Digest::of(token.as_bytes()), Instant::now());
        bearer(headers).is_ok_and(|token| known(token).is_some())
    }

    /// What a handler found of a token itself; none when it is nobody's.
    pub fn found(&self, token: &str, standing: Option<Standing>) {
        let Some(inner) = &self.0 else { return };
        let digest = Digest::of(token.as_bytes());
        match standing {
            Some(standing) if inner.known.get(&digest, Instant::now()) == Some(standing) => {}
            Some(standing) => inner.known.put(digest, standing, Instant::now()),
            None => inner.known.forget(&digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::Mutex,
    };

    use futures::{FutureExt, future::join_all};
    use tokio::sync::Notify;

    use super::*;

    fn headers(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("bearer {token}").parse().unwrap());
        headers
    }

    fn from(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
    }

    #[tokio::test]
    async fn a_flood_of_strangers_keeps_only_their_own_origin_waiting() {
        let (slow, looked_up) = (Arc::new(Notify::new()), Arc::new(Mutex::new(0)));
        let (held, count) = (Arc::clone(&slow), Arc::clone(&looked_up));
        let gate = Gate::new(Arc::new(move |token: String| {
            let (held, count) = (Arc::clone(&held), Arc::clone(&count));
            async move {
                *count.lock().unwrap() += 1;
                held.notified().await;
                Ok(token.starts_with("good").then_some(Standing::Known))
            }
            .boxed()
        }));
        let flood: Vec<_> = (0..WAITING_EACH_MAX + 50)
            .map(|n| {
                let gate = gate.clone();
                let place = (from(1), n as u64 % 3);
                tokio::spawn(async move { gate.standing(&headers(&n.to_string()), place).await })
            })
            .collect();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*looked_up.lock().unwrap(), 1, "one of an origin at a time");
        // Who comes from elsewhere waits for its turn, and so does who comes from the same place.
        let others = [(from(2), 8), (from(1), 9)].map(|place| {
            let gate = gate.clone();
            let token = format!("good {}", place.1);
            async move { gate.standing(&headers(&token), place).await }
        });
        let mut others = Box::pin(join_all(others));
        assert!((&mut others).now_or_never().is_none());
        let letting = tokio::spawn(async move {
            loop {
                slow.notify_one();
                tokio::task::yield_now().await;
            }
        });
        for other in others.await {
            assert_eq!(other.unwrap(), Some(Standing::Known));
        }
        let answers = join_all(flood).await;
        let turned_away = answers.iter().filter(|answer| matches!(answer, Ok(Ok(None)))).count();
        assert_eq!(turned_away, 50, "one of them gave way to the other");
        letting.abort();
        // It isn't looked up again, until it turns out to be nobody's any more.
        let before = *looked_up.lock().unwrap();
        assert_eq!(
            gate.standing(&headers("good 8"), (from(2), 8)).await.unwrap(),
            Some(Standing::Known)
        );
        assert_eq!(*looked_up.lock().unwrap(), before);
        gate.found("good 8", Some(Standing::Revoked));
        let standing = gate.standing(&headers("good 8"), (from(2), 8)).await.unwrap();
        assert_eq!(standing, Some(Standing::Revoked));
        gate.found("good 8", None);
        let _ = gate.standing(&headers("good 8"), (from(2), 8)).now_or_never();
        assert_eq!(*looked_up.lock().unwrap(), before + 1);
        assert!(gate.standing(&HeaderMap::new(), (from(2), 8)).await.is_err());
    }
}
