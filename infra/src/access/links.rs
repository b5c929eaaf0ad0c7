//! Links by which somebody sets a password: of an invitation, or after it was forgotten. One a
//! user, for thirty minutes, good once; a new one voids the last. Kept as a digest; the admin who
//! made it hands it over.

use std::fmt;

use jiff_sqlx::Timestamp;
use punchtrail_protocol::{Time, signing::to_base64url};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    CHANGE_MAX,
    credentials::Secret,
    ids::UserId,
    second_factor, sessions,
    trail::{self, Act, Doer},
};
use crate::postgres::{Pool, within};

/// How long a link is good, in seconds.
pub const LINK_LIFE_S: u32 = 30 * 60;
/// How a link's token starts.
pub const LINK_PREFIX: &str = "ptl_";

/// A link that was made, to be handed over this once.
#[derive(Clone)]
pub struct Link {
    token: String,
    /// When it can no longer be used.
    pub expires_at: Time,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    /// Its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its path on the server: the token stands behind `#`, which browsers don't send.
    pub fn path(&self) -> String {
        format!("/welcome#{}", self.token)
    }
}

/// Why a link was not used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It is wrong, used, void or expired: all look the same.
    #[error(
        "the link is wrong, was used or replaced, or its thirty minutes are over; ask for another"
    )]
    Invalid,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Makes a link; the last one is void.
pub(super) async fn make(
    connection: &mut PgConnection,
    user: UserId,
    clears_factor: bool,
    doer: &Doer,
) -> Result<Link, sqlx::Error> {
    let bytes: [u8; 32] = rand::random();
    let token = format!("{LINK_PREFIX}{}", to_base64url(&bytes));
    let expires_at: Timestamp = sqlx::query_scalar(
        "insert into user_links (user_id, token_hash, clears_factor, expires_at) \
         values ($1, $2, $3, now() + make_interval(secs => $4)) \
         on conflict (user_id) do update set token_hash = excluded.token_hash, \
             clears_factor = excluded.clears_factor, expires_at = excluded.expires_at \
         returning expires_at",
    )
    .bind(user.0)
    .bind(Secret::digest_of(&token).0.as_slice())
    .bind(clears_factor)
    .bind(f64::from(LINK_LIFE_S))
    .fetch_one(&mut *connection)
    .await?;
    let detail = clears_factor.then_some("clears_second_factor");
    trail::note(connection, doer, Act::LinkMade, Some(user.to_string()), detail).await?;
    Ok(Link { token, expires_at: expires_at.to_jiff().into() })
}

/// Takes a user's link away.
pub(super) async fn void(connection: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query("delete from user_links where user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await
        .map(drop)
}

/// Whose link it is: their id and what they sign in with. It isn't used up by that.
///
/// # Errors
/// See [`LinkError`].
pub async fn whose(writer: &Pool, token: &str) -> Result<(UserId, String), LinkError> {
    let found: Option<(Uuid, String)> = sqlx::query_as(
        "select id, login from user_links join users on users.id = user_id \
         where token_hash = $1 and expires_at > now() and disabled_at is null \
         and login is not null",
    )
    .bind(Secret::digest_of(token).0.as_slice())
    .fetch_optional(writer)
    .await?;
    found.map(|(id, login)| (UserId(id), login)).ok_or(LinkError::Invalid)
}

/// Uses a link up and sets the password, given as its hash. Every session of theirs ends.
///
/// # Errors
/// See [`LinkError`].
pub async fn accept(
    writer: &Pool,
    token: &str,
    password_phc: &str,
    doer: &Doer,
) -> Result<UserId, LinkError> {
    within(CHANGE_MAX, async {
        let mut tx = writer.begin().await?;
        // Of two who use one link at once the second finds it gone.
        let used: Option<(Uuid, bool)> = sqlx::query_as(
            "delete from user_links where token_hash = $1 and expires_at > now() \
             returning user_id, clears_factor",
        )
        .bind(Secret::digest_of(token).0.as_slice())
        .fetch_optional(&mut *tx)
        .await?;
        let (user, clears_factor) = used.ok_or(LinkError::Invalid)?;
        let user = UserId(user);
        let set =
            sqlx::query("update users set password_phc = $2 where id = $1 and disabled_at is null")
                .bind(user.0)
                .bind(password_phc)
                .execute(&mut *tx)
                .await?;
        if set.rows_affected() == 0 {
            return Err(LinkError::Invalid);
        }
        if clears_factor {
            second_factor::clear(&mut tx, user).await?;
        }
        sessions::end_all(&mut tx, user, None).await?;
        sessions::forget_browsers(&mut tx, user).await?;
        let doer = doer.known_as(user);
        trail::note(&mut *tx, &doer, Act::LinkUsed, Some(user.to_string()), None).await?;
        tx.commit().await?;
        Ok(user)
    })
    .await
}
