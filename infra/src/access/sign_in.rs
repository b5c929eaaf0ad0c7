//! Signing in with a password and, where one is set, a second factor; and what is the same for
//! whoever comes by a provider's word ([`super::provider`]).
//!
//! A login that nobody has and a wrong password get one answer, and take as long. Guesses are
//! counted before they are looked at, in the database, so on all nodes together: by where they come
//! from and by whose account they are at, whether there is one or not. Who comes with a browser
//! from which that user has signed in before is counted by that browser alone: so somebody who
//! guesses at an account, or shares an address with its owner, never keeps the owner out.

use punchtrail_protocol::Digest;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    CHANGE_MAX,
    credentials::{BROWSER_TOKEN_PREFIX, Secret, plausible},
    ids::{SessionId, UserId},
    passwords, second_factor,
    sessions::{self, BROWSER_KNOWN_S},
    trail::{self, Act, Doer},
    tries, users,
};
use crate::{
    ledger::begin_beside,
    postgres::{Pool, within},
};

/// The time in which failures are counted, in seconds.
pub const TRIES_WINDOW_S: u32 = 15 * 60;
/// Failures that may come from one address in that time.
pub const TRIES_OF_ADDRESS_MAX: u64 = 30;
/// Failures at one account in that time, from browsers that it doesn't know.
pub const TRIES_AT_ACCOUNT_MAX: u64 = 10;
/// Failures from one browser that the account knows.
pub const TRIES_OF_BROWSER_MAX: u64 = 10;
/// Sign-ins by a provider that may begin at one address in that time: an office's whole morning.
pub const BEGUN_OF_ADDRESS_MAX: u64 = 300;

/// Who asks to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    pub login: &'a str,
    /// The token of the browser, if it has one.
    pub browser: Option<&'a str>,
    pub doer: &'a Doer,
}

/// Why somebody wasn't let in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// There is no such login, or the password, or the code, is wrong: all look the same.
    #[error("login, password or code is wrong")]
    Wrong,
    /// The password is right and a code is needed.
    #[error("a code of the second factor is needed")]
    CodeNeeded,
    /// Too many failed.
    #[error("too many failed from there or at this account")]
    Throttled { retry_after_s: u64 },
    /// It wasn't begun in this browser, was used, or took too long.
    #[error("this sign-in is over")]
    Over,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Somebody whose password is to be looked at, which takes a core for a while.
pub struct Candidate {
    user: Option<UserId>,
    phc: Option<String>,
    buckets: Vec<Digest>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Candidate")
    }
}

impl Candidate {
    /// The hash that the password is checked against; none for nobody.
    pub fn phc(&self) -> Option<&str> {
        self.phc.as_deref()
    }

    /// Whether it is their password. Takes as long for nobody.
    pub fn is_by(&self, password: &str) -> bool {
        passwords::verify(password, self.phc())
    }
}

fn bucket(kind: &str, of: &[u8]) -> Digest {
    Digest::of_parts(&[b"punchtrail.tries.v1", kind.as_bytes(), of])
}

/// Counts a try, and finds who it is by.
///
/// # Errors
/// When too many failed before, or the database is out of reach.
pub async fn begin(writer: &Pool, asking: &Asking<'_>) -> Result<Candidate, SignInError> {
    let found: Option<(Uuid, Option<String>)> = sqlx::query_as(
        "select id, password_phc from users where login = $1 and disabled_at is null",
    )
    .bind(users::spelled(asking.login))
    .fetch_optional(writer)
    .await?;
    let (user, phc) = found.unzip();
    let user = user.map(UserId);
    let buckets = count(writer, asking, user).await?;
    Ok(Candidate { user, phc: phc.flatten(), buckets })
}

/// Counts a try at a user's account, or at one that isn't there.
///
/// # Errors
/// When too many failed before, or the database is out of reach.
pub(super) async fn count(
    writer: &Pool,
    asking: &Asking<'_>,
    user: Option<UserId>,
) -> Result<Vec<Digest>, SignInError> {
    let login = users::spelled(asking.login);
    let limits = match known_browser(writer, asking.browser, user).await? {
        Some(browser) => vec![(bucket("browser", &browser.0), TRIES_OF_BROWSER_MAX)],
        None => {
            let address = asking.doer.address.map(|address| address.to_string());
            let address = address.unwrap_or_default();
            vec![
                (bucket("address", address.as_bytes()), TRIES_OF_ADDRESS_MAX),
                (bucket("account", login.as_bytes()), TRIES_AT_ACCOUNT_MAX),
            ]
        }
    };
    let mut buckets = Vec::with_capacity(limits.len());
    for (bucket, max) in limits {
        let counted = tries::count(writer, bucket, TRIES_WINDOW_S).await?;
        if counted.tries > max {
            let subject = user.map(|user| user.to_string());
            trail::note_failure(writer, asking.doer, Act::SignInThrottled, subject).await?;
            return Err(SignInError::Throttled { retry_after_s: counted.over_in_s });
        }
        buckets.push(bucket);
    }
    Ok(buckets)
}

/// Counts a sign-in by a provider that begins.
pub(super) async fn count_begun(writer: &Pool, doer: &Doer) -> Result<(), SignInError> {
    let address = doer.address.map(|address| address.to_string()).unwrap_or_default();
    let bucket = bucket("begun", address.as_bytes());
    let counted = tries::count(writer, bucket, TRIES_WINDOW_S).await?;
    if counted.tries > BEGUN_OF_ADDRESS_MAX {
        trail::note_failure(writer, doer, Act::SignInThrottled, None).await?;
        return Err(SignInError::Throttled { retry_after_s: counted.over_in_s });
    }
    Ok(())
}

/// Of a browser from which that user has signed in, what it is known by.
async fn known_browser(
    writer: &Pool,
    token: Option<&str>,
    user: Option<UserId>,
) -> Result<Option<Digest>, sqlx::Error> {
    let token = token.filter(|token| plausible(token, BROWSER_TOKEN_PREFIX));
    let (Some(token), Some(user)) = (token, user) else { return Ok(None) };
    let digest = Secret::digest_of(token);
    let known: bool = sqlx::query_scalar(
        "select exists (select from known_browsers where token_hash = $1 and user_id = $2 \
         and seen_at > now() - make_interval(secs => $3))",
    )
    .bind(digest.0.as_slice())
    .bind(user.0)
    .bind(f64::from(BROWSER_KNOWN_S))
    .fetch_one(writer)
    .await?;
    Ok(known.then_some(digest))
}

/// What else came with a password.
#[derive(Debug, Clone, Copy, Default)]
pub struct Along<'a> {
    /// A code of the second factor, or a recovery code.
    pub code: Option<&'a str>,
    /// What the browser says of itself.
    pub agent: Option<&'a str>,
    /// The session that the browser had: it ends, whosever it was.
    pub last_session: Option<&'a str>,
}

/// Somebody who was let in.
#[derive(Debug)]
pub struct Entered {
    pub user: UserId,
    pub session: SessionId,
    /// The session's token, for its cookie.
    pub token: Secret,
    /// The browser's, for its own.
    pub browser: Secret,
}

/// Lets somebody in whose password was looked at, or doesn't.
///
/// # Errors
/// See [`SignInError`].
pub async fn finish(
    writer: &Pool,
    asking: &Asking<'_>,
    candidate: Candidate,
    is_right: bool,
    along: Along<'_>,
) -> Result<Entered, SignInError> {
    let entered = match (candidate.user, is_right) {
        (Some(user), true) => enter(writer, asking, user, candidate.phc(), along).await,
        _ => Err(SignInError::Wrong),
    };
    settled(writer, asking.doer, candidate.user, &candidate.buckets, &entered).await?;
    entered
}

/// Writes down what became of a try that was counted.
pub(super) async fn settled(
    writer: &Pool,
    doer: &Doer,
    user: Option<UserId>,
    counted: &[Digest],
    entered: &Result<Entered, SignInError>,
) -> Result<(), sqlx::Error> {
    match entered {
        Err(SignInError::Wrong) => {
            let subject = user.map(|user| user.to_string());
            trail::note_failure(writer, doer, Act::SignInFailed, subject).await
        }
        Ok(_) | Err(SignInError::CodeNeeded) => {
            for bucket in counted {
                tries::take_back(writer, *bucket).await?;
            }
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// Settles a try that was only to show that they know their password.
///
/// # Errors
/// When they don't, or the database is out of reach.
pub async fn prove(
    writer: &Pool,
    asking: &Asking<'_>,
    candidate: Candidate,
    is_right: bool,
) -> Result<(), SignInError> {
    if !is_right {
        let subject = candidate.user.map(|user| user.to_string());
        trail::note_failure(writer, asking.doer, Act::SignInFailed, subject).await?;
        return Err(SignInError::Wrong);
    }
    for bucket in &candidate.buckets {
        tries::take_back(writer, *bucket).await?;
    }
    Ok(())
}

async fn enter(
    writer: &Pool,
    asking: &Asking<'_>,
    user: UserId,
    phc: Option<&str>,
    along: Along<'_>,
) -> Result<Entered, SignInError> {
    let doer = asking.doer.known_as(user);
    within(CHANGE_MAX, async {
        let mut tx = writer.begin().await?;
        // The password may have been changed while it was looked at.
        let factor: Option<bool> = sqlx::query_scalar(
            "select totp_secret is not null from users where id = $1 and disabled_at is null \
             and password_phc = $2 for update",
        )
        .bind(user.0)
        .bind(phc)
        .fetch_optional(&mut *tx)
        .await?;
        match (factor, along.code) {
            (None, _) => return Err(SignInError::Wrong),
            (Some(true), None) => return Err(SignInError::CodeNeeded),
            (Some(true), Some(code)) => {
                if !second_factor::passes(&mut tx, user, code, &doer).await? {
                    return Err(SignInError::Wrong);
                }
            }
            (Some(false), _) => {}
        }
        let entered = let_in(&mut tx, asking, user, along, How::Password).await?;
        tx.commit().await?;
        Ok(entered)
    })
    .await
}

/// By what somebody is let in, for the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum How {
    Password,
    /// A provider's word, and perhaps a second factor beside.
    Provider {
        is_multi_factor: bool,
    },
}

/// Begins the session of somebody of whom everything was found right; the one that the browser had
/// before ends.
pub(super) async fn let_in(
    connection: &mut PgConnection,
    asking: &Asking<'_>,
    user: UserId,
    along: Along<'_>,
    how: How,
) -> Result<Entered, sqlx::Error> {
    let doer = asking.doer.known_as(user);
    if let Some(last) = along.last_session {
        sqlx::query("delete from sessions where token_hash = $1")
            .bind(Secret::digest_of(last).0.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    let (session, token) = sessions::begin(connection, user, along.agent, &doer).await?;
    if how == (How::Provider { is_multi_factor: true }) {
        sessions::saw_factors(connection, session).await?;
    }
    let browser = sessions::know_browser(connection, user, asking.browser).await?;
    let subject = Some(user.to_string());
    trail::note(connection, &doer, Act::SignedIn, subject, Some(how.into())).await?;
    Ok(Entered { user, session, token, browser })
}

/// Changes a password whose old one was found right. Every session of theirs ends; a new one
/// begins.
///
/// # Errors
/// When it was changed meanwhile, or the database is out of reach.
pub async fn change_password(
    writer: &Pool,
    user: UserId,
    (old_phc, new_phc): (Option<&str>, &str),
    agent: Option<&str>,
    doer: &Doer,
) -> Result<Secret, SignInError> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let changed = sqlx::query(
            "update users set password_phc = $3 where id = $1 and password_phc = $2 \
             and disabled_at is null",
        )
        .bind(user.0)
        .bind(old_phc)
        .bind(new_phc)
        .execute(&mut *tx)
        .await?;
        if changed.rows_affected() == 0 {
            return Err(SignInError::Wrong);
        }
        let subject = Some(user.to_string());
        trail::note(&mut *tx, doer, Act::PasswordChanged, subject, None).await?;
        sessions::end_all(&mut tx, user, None).await?;
        let (_, token) = sessions::begin(&mut tx, user, agent, doer).await?;
        tx.commit().await?;
        Ok(token)
    })
    .await
}

/// Ends every session of a user and begins a new one, as whenever they may do more than before.
///
/// # Errors
/// When the database is out of reach.
pub async fn rotate(
    writer: &Pool,
    user: UserId,
    agent: Option<&str>,
    doer: &Doer,
) -> Result<Secret, sqlx::Error> {
    within(CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        sessions::end_all(&mut tx, user, None).await?;
        let (_, token) = sessions::begin(&mut tx, user, agent, doer).await?;
        tx.commit().await?;
        Ok(token)
    })
    .await
}
