//! A sign-in by a provider that is under way. It is bound to the browser that began it by a token
//! in a cookie; state, nonce and PKCE's verifier are made from that token, each by a word of its
//! own. So the database holds a digest and nothing that opens anything, and any node can go on.

use std::fmt;

use punchtrail_protocol::{Digest, signing::to_base64url};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    access::{
        CHANGE_MAX,
        credentials::{PROVIDER_TOKEN_PREFIX, Secret, plausible},
        ids::UserId,
        sign_in::{self, SignInError},
        trail::Doer,
    },
    postgres::{Pool, within},
};

/// How long a sign-in may be under way, in seconds.
pub const BEGUN_LIFE_S: u32 = 10 * 60;

/// A sign-in that was begun in a browser.
#[derive(Clone)]
pub struct Begun(String);

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Begun")
    }
}

impl Begun {
    /// The one that a browser's token is of; none where it can't be one.
    pub fn of_token(token: &str) -> Option<Self> {
        plausible(token, PROVIDER_TOKEN_PREFIX).then(|| Self(token.to_owned()))
    }

    fn part(&self, what: &str) -> String {
        let domain = b"punchtrail.provider_sign_in.v1";
        to_base64url(&Digest::of_parts(&[domain, what.as_bytes(), self.0.as_bytes()]).0)
    }

    /// What the provider sends back with the browser.
    pub fn state(&self) -> String {
        self.part("state")
    }

    /// What the ID token has to hold.
    pub(super) fn nonce(&self) -> String {
        self.part("nonce")
    }

    /// PKCE's (RFC 7636): 43 letters of base64url.
    pub(super) fn verifier(&self) -> String {
        self.part("verifier")
    }

    /// Whether a browser that came back is the one that began. Digests are compared, so that the
    /// time it takes says nothing.
    pub fn is_answered_by(&self, state: &str) -> bool {
        Digest::of(state.as_bytes()) == Digest::of(self.state().as_bytes())
    }

    fn digest(&self) -> Vec<u8> {
        Secret::digest_of(&self.0).0.to_vec()
    }
}

/// Begins a sign-in; or to tie somebody who is signed in already.
///
/// # Errors
/// When too many were begun from there, or the database is out of reach.
pub async fn begin(
    writer: &Pool,
    ties: Option<UserId>,
    doer: &Doer,
) -> Result<(Begun, Secret), SignInError> {
    sign_in::count_begun(writer, doer).await?;
    let token = Secret::provider_token();
    let begun = Begun(token.reveal().to_owned());
    sqlx::query(
        "insert into provider_sign_ins (token_hash, ties, expires_at) \
         values ($1, $2, now() + make_interval(secs => $3))",
    )
    .bind(begun.digest())
    .bind(ties.map(|user| user.0))
    .bind(f64::from(BEGUN_LIFE_S))
    .execute(writer)
    .await?;
    Ok((begun, token))
}

/// What a sign-in is for that a browser came back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// To be let in.
    Entering,
    /// To be tied to the provider, as that user.
    Tying(UserId),
}

/// Takes a sign-in that a browser came back with: once. None when it was never begun, is over, or
/// was taken already.
///
/// # Errors
/// When the database is out of reach.
pub async fn take(writer: &Pool, begun: &Begun) -> Result<Option<For>, sqlx::Error> {
    within(CHANGE_MAX, async {
        let taken: Option<(Option<Uuid>,)> = sqlx::query_as(
            "delete from provider_sign_ins where token_hash = $1 and vouched is null \
             and expires_at > now() returning ties",
        )
        .bind(begun.digest())
        .fetch_optional(writer)
        .await?;
        Ok(taken.map(|(ties,)| ties.map_or(For::Entering, |user| For::Tying(UserId(user)))))
    })
    .await
}

/// Keeps that the provider vouched for a user, of whom a code is still wanted.
pub(super) async fn keep_vouched(
    connection: &mut PgConnection,
    begun: &Begun,
    user: UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into provider_sign_ins (token_hash, vouched, expires_at) \
         values ($1, $2, now() + make_interval(secs => $3))",
    )
    .bind(begun.digest())
    .bind(user.0)
    .bind(f64::from(BEGUN_LIFE_S))
    .execute(connection)
    .await
    .map(drop)
}

/// Whom the provider vouched for in that browser, of whom a code is still wanted.
pub(super) async fn vouched(writer: &Pool, begun: &Begun) -> Result<Option<UserId>, sqlx::Error> {
    let found: Option<Uuid> = sqlx::query_scalar(
        "select vouched from provider_sign_ins where token_hash = $1 and vouched is not null \
         and expires_at > now()",
    )
    .bind(begun.digest())
    .fetch_optional(writer)
    .await?;
    Ok(found.map(UserId))
}

/// Ends one that waited for a code; whether it was there still.
pub(super) async fn end_vouched(
    connection: &mut PgConnection,
    begun: &Begun,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query(
        "delete from provider_sign_ins where token_hash = $1 and vouched is not null \
         and expires_at > now()",
    )
    .bind(begun.digest())
    .execute(connection)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// Ends what is under way of a user.
pub(in crate::access) async fn end_of_user(
    connection: &mut PgConnection,
    user: UserId,
) -> Result<(), sqlx::Error> {
    sqlx::query("delete from provider_sign_ins where vouched = $1")
        .bind(user.0)
        .execute(connection)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_is_told_is_of_one_browser_and_never_its_token() {
        let of = |token: &Secret| Begun::of_token(token.reveal()).unwrap();
        let (token, other) = (Secret::provider_token(), Secret::provider_token());
        let begun = of(&token);
        let parts = [begun.state(), begun.nonce(), begun.verifier()];
        for (n, part) in parts.iter().enumerate() {
            assert_eq!(part.len(), 43);
            assert!(!token.reveal().contains(part.as_str()));
            assert!(parts.iter().skip(n + 1).all(|other| other != part));
        }
        assert!(begun.is_answered_by(&of(&token).state()));
        assert!(!begun.is_answered_by(&of(&other).state()));
        assert!(!begun.is_answered_by(""));
        assert!(Begun::of_token("pto_short").is_none());
        assert!(Begun::of_token(Secret::session_token().reveal()).is_none());
    }
}
