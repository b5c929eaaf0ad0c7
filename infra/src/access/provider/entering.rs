//! Who a provider's word lets in. By what the provider calls them, once they are tied; the first
//! time by a verified address that is the login of somebody who was invited and has no password
//! yet. Whoever has a password ties themselves, signed in: a provider's word about an address is
//! not enough to come to what a password guards.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Identity, begun, begun::Begun};
use crate::{
    access::{
        CHANGE_MAX,
        ids::UserId,
        second_factor, sessions,
        sign_in::{self, Along, Asking, Entered, How, SignInError},
        trail::{self, Act, Doer},
        users::{self, UserError},
    },
    ledger::begin_beside,
    postgres::{Pool, within},
};

/// Somebody whom the provider vouched for.
#[derive(Debug)]
pub enum Vouched {
    /// They are in.
    Entered(Entered),
    /// A code of their own second factor is wanted, from the same browser.
    CodeWanted,
}

/// A user who is tied to a provider's word, or is to be.
struct Found {
    user: UserId,
    has_factor: bool,
}

/// Lets somebody in whom the provider vouches for, or doesn't.
///
/// # Errors
/// See [`SignInError`]; nobody, somebody kept out and somebody erased look the same.
pub async fn enter(
    writer: &Pool,
    begun: &Begun,
    identity: &Identity,
    asking: &Asking<'_>,
    along: Along<'_>,
) -> Result<Vouched, SignInError> {
    let entered = within(CHANGE_MAX, async {
        let mut tx = writer.begin().await?;
        let found = find(&mut tx, identity, asking.doer).await?.ok_or(SignInError::Wrong)?;
        if found.has_factor && !identity.is_multi_factor {
            begun::keep_vouched(&mut tx, begun, found.user).await?;
            tx.commit().await?;
            return Ok(Vouched::CodeWanted);
        }
        let how = How::Provider { is_multi_factor: identity.is_multi_factor };
        let entered = sign_in::let_in(&mut tx, asking, found.user, along, how).await?;
        tx.commit().await?;
        Ok(Vouched::Entered(entered))
    })
    .await;
    if let Err(SignInError::Wrong) = entered {
        failed(writer, asking.doer).await?;
    }
    entered
}

/// Writes down that a provider's word let nobody in.
///
/// # Errors
/// When the database is out of reach.
pub async fn failed(writer: &Pool, doer: &Doer) -> Result<(), sqlx::Error> {
    trail::note_failure(writer, doer, Act::SignInFailed, None).await
}

async fn find(
    connection: &mut PgConnection,
    identity: &Identity,
    doer: &Doer,
) -> Result<Option<Found>, sqlx::Error> {
    let tied: Option<(Uuid, bool, bool)> = sqlx::query_as(
        "select u.id, u.totp_secret is not null, u.disabled_at is null from user_identities i \
         join users u on u.id = i.user_id where i.issuer = $1 and i.subject = $2 for update of u",
    )
    .bind(&identity.issuer)
    .bind(&identity.subject)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some((user, has_factor, is_let_in)) = tied {
        return Ok(is_let_in.then_some(Found { user: UserId(user), has_factor }));
    }
    let Some(email) = &identity.verified_email else { return Ok(None) };
    let invited: Option<(Uuid, bool)> = sqlx::query_as(
        "select id, totp_secret is not null from users u where login = $1 and disabled_at is null \
         and password_phc is null and not exists (select from user_identities i \
         where i.user_id = u.id) for update",
    )
    .bind(users::spelled(email))
    .fetch_optional(&mut *connection)
    .await?;
    let Some((user, has_factor)) = invited else { return Ok(None) };
    let user = UserId(user);
    match insert(connection, user, identity, &doer.known_as(user)).await? {
        // Of two who come at once as the same, the second finds it done.
        false => Ok(None),
        true => Ok(Some(Found { user, has_factor })),
    }
}

async fn insert(
    connection: &mut PgConnection,
    user: UserId,
    identity: &Identity,
    doer: &Doer,
) -> Result<bool, sqlx::Error> {
    let tied = sqlx::query(
        "insert into user_identities (user_id, issuer, subject) values ($1, $2, $3) \
         on conflict do nothing",
    )
    .bind(user.0)
    .bind(&identity.issuer)
    .bind(&identity.subject)
    .execute(&mut *connection)
    .await?;
    if tied.rows_affected() == 0 {
        return Ok(false);
    }
    trail::note(connection, doer, Act::ProviderTied, Some(user.to_string()), None).await?;
    Ok(true)
}

/// Lets somebody in whom the provider vouched for, by a code of their second factor.
///
/// # Errors
/// See [`SignInError`].
pub async fn by_code(
    writer: &Pool,
    begun: &Begun,
    (code, browser): (&str, Option<&str>),
    doer: &Doer,
    along: Along<'_>,
) -> Result<Entered, SignInError> {
    let user = begun::vouched(writer, begun).await?.ok_or(SignInError::Over)?;
    let login = users::one(writer, user).await?.and_then(|user| user.login).unwrap_or_default();
    let asking = Asking { login: &login, browser, doer };
    let counted = sign_in::count(writer, &asking, Some(user)).await?;
    let entered = within(CHANGE_MAX, async {
        let mut tx = writer.begin().await?;
        let is_let_in = lock(&mut tx, user).await?;
        let known = doer.known_as(user);
        if !is_let_in || !second_factor::passes(&mut tx, user, code, &known).await? {
            return Err(SignInError::Wrong);
        }
        if !begun::end_vouched(&mut tx, begun).await? {
            return Err(SignInError::Over);
        }
        let how = How::Provider { is_multi_factor: true };
        let entered = sign_in::let_in(&mut tx, &asking, user, along, how).await?;
        tx.commit().await?;
        Ok(entered)
    })
    .await;
    sign_in::settled(writer, doer, Some(user), &counted, &entered).await?;
    entered
}

/// Locks a user's row; whether there is one who isn't kept out.
async fn lock(connection: &mut PgConnection, user: UserId) -> Result<bool, sqlx::Error> {
    let is_let_in: Option<bool> =
        sqlx::query_scalar("select disabled_at is null from users where id = $1 for update")
            .bind(user.0)
            .fetch_optional(connection)
            .await?;
    Ok(is_let_in == Some(true))
}

/// Ties somebody who is signed in to the provider's word. Their other sessions stay.
///
/// # Errors
/// When they are tied already, or somebody else is so called there.
pub async fn tie(
    writer: &Pool,
    user: UserId,
    identity: &Identity,
    doer: &Doer,
) -> Result<(), UserError> {
    within(CHANGE_MAX, async {
        let mut tx = writer.begin().await?;
        if !lock(&mut tx, user).await? {
            return Err(UserError::Unknown);
        }
        if !insert(&mut tx, user, identity, doer).await? {
            return Err(UserError::IdentityTaken);
        }
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Unties a user from the provider's word. Their sessions end. One who has no password is then as
/// when they were invited: by a verified address, or a link, they come in again.
///
/// # Errors
/// See [`UserError`]; unknown, too, when they aren't tied.
pub async fn untie(writer: &Pool, user: UserId, doer: &Doer) -> Result<(), UserError> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        users::lock_admins(&mut tx, doer).await?;
        if !forget(&mut tx, user).await? {
            return Err(UserError::Unknown);
        }
        sessions::end_all(&mut tx, user, None).await?;
        trail::note(&mut *tx, doer, Act::ProviderUntied, Some(user.to_string()), None).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Forgets what a user is called at the provider, and what is under way of them; whether they were
/// tied.
pub(in crate::access) async fn forget(
    connection: &mut PgConnection,
    user: UserId,
) -> Result<bool, sqlx::Error> {
    begun::end_of_user(connection, user).await?;
    let untied = sqlx::query("delete from user_identities where user_id = $1")
        .bind(user.0)
        .execute(connection)
        .await?;
    Ok(untied.rows_affected() > 0)
}
