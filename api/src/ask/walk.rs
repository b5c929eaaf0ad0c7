//! A walk through a list, page by page: which list, by what filter and order, and whose. A cursor
//! belongs to its walk, whatever parameters a list has; only how many rows a page has may change.

use axum::{extract::FromRequestParts, http::request::Parts};
use punchtrail_infra::access::deployment::Deployment;
use punchtrail_protocol::Digest;

use super::cursor::{self, Unproven};
use crate::{door::gate::bearer, problem::Refusal, state::App};

/// The parameters that say where a walk stands and how far a page goes.
const PLACE: [&str; 3] = ["cursor", "since", "limit"];

/// The walk that a request belongs to.
#[derive(Debug)]
pub struct Walk(Digest);

impl FromRequestParts<App> for Walk {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        let caller = bearer(&parts.headers)?;
        Ok(Self::of(caller, parts.uri.path(), parts.uri.query().unwrap_or_default()))
    }
}

impl Walk {
    fn of(caller: &str, path: &str, query: &str) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes());
        let mut filter: Vec<_> =
            pairs.filter(|(name, _)| !PLACE.contains(&name.as_ref())).collect();
        filter.sort();
        let start = ["punchtrail.walk.v1", caller, path].map(str::as_bytes);
        let filter = filter.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        Self(Digest::of_parts(&start.into_iter().chain(filter).collect::<Vec<_>>()))
    }

    /// The cursor for `place`, which also rests on `state`.
    pub fn cursor(&self, deployment: &Deployment, state: &[u8], place: &[u8]) -> String {
        cursor::seal(deployment, &[&self.0.0, state], place)
    }

    /// The place of a cursor, when it was given out on this walk and `state` is as it was.
    ///
    /// # Errors
    /// When it wasn't.
    pub fn prove<'a>(
        &self,
        deployment: &Deployment,
        state: &[u8],
        cursor: &'a Unproven,
    ) -> Result<&'a [u8], Refusal> {
        cursor.prove(deployment, &[&self.0.0, state])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_a_list_a_filter_an_order_and_a_caller() {
        let of = |caller, path, query| Walk::of(caller, path, query).0;
        let walk = of("ptk_a", "/v1/punches", "site=1&order=oldest");
        for same in [
            "order=oldest&site=1",
            "site=1&order=oldest&limit=7&cursor=abc",
            "site=%31&since=x&order=oldest",
        ] {
            assert_eq!(of("ptk_a", "/v1/punches", same), walk, "{same}");
        }
        for (caller, path, query) in [
            ("ptk_b", "/v1/punches", "site=1&order=oldest"),
            ("ptk_a", "/v1/punche", "ssite=1&order=oldest"),
            ("ptk_a", "/v1/punches", "site=1&order=newest"),
            ("ptk_a", "/v1/punches", "site=1"),
            ("ptk_a", "/v1/punches", "site=1&order=oldest&employee=2"),
            ("ptk_a", "/v1/punches", "site=1order&=oldest"),
            ("ptk_a", "/v1/punches", "site=1&order=oldest&order=oldest"),
        ] {
            assert_ne!(of(caller, path, query), walk, "{caller} {path} {query}");
        }
    }
}
