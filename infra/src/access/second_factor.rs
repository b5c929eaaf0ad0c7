//! The second factor: codes by time (RFC 6238: SHA-1, six digits, 30 seconds, one step either way),
//! each good once; and recovery codes for when the device is lost, each good once.

use punchtrail_protocol::Digest;
use sqlx::PgConnection;
use totp_rs::{Builder, Totp};

use super::{
    codes,
    ids::UserId,
    trail::{self, Act, Doer},
};
use crate::{
    ledger::begin_beside,
    postgres::{Pool, within},
};

/// How many recovery codes there are.
pub const RECOVERY_CODES: usize = 10;
const SECRET_BYTES: usize = 20;
const RECOVERY: &[u8] = b"punchtrail.recovery.v1";
/// The longest code that is looked at.
const CODE_CHARS_MAX: usize = 64;

/// A secret that was made and waits to be confirmed by a code.
pub struct Pending {
    /// In base 32, to be typed.
    pub secret: String,
    /// The same as `otpauth:` address, to be scanned.
    pub uri: String,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

/// Why a second factor was not set or removed.
#[derive(Debug, thiserror::Error)]
pub enum FactorError {
    /// The code is wrong, was used, or none was asked for.
    #[error("the code is wrong, or was used already; take the next one that is shown")]
    Code,
    /// Their role needs one.
    #[error("your role needs a second factor; set another one in its place")]
    Required,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

fn totp(secret: &[u8], login: &str) -> Option<Totp> {
    let account = login.replace(':', " ");
    let builder = Builder::new().with_secret(secret).with_issuer(Some("Punchtrail"));
    builder.with_account_name(account).build().ok()
}

/// Makes a secret, which does nothing until it is confirmed.
///
/// # Errors
/// When the database is out of reach.
pub async fn begin(writer: &Pool, user: UserId, login: &str) -> Result<Pending, sqlx::Error> {
    let secret: [u8; SECRET_BYTES] = rand::random();
    let shown = totp(&secret, login).and_then(|totp| {
        Some(Pending { secret: totp.secret().to_base32(), uri: totp.to_url().ok()? })
    });
    let shown = shown.ok_or_else(|| sqlx::Error::Encode("no code can be made".into()))?;
    sqlx::query("update users set totp_pending = $2 where id = $1 and disabled_at is null")
        .bind(user.0)
        .bind(secret.as_slice())
        .execute(writer)
        .await?;
    Ok(shown)
}

/// Sets the secret that waits, by a code of it: the recovery codes, shown this once. Every session
/// but that one ends.
///
/// # Errors
/// See [`FactorError`].
pub async fn confirm(
    writer: &Pool,
    user: UserId,
    code: &str,
    doer: &Doer,
) -> Result<Vec<String>, FactorError> {
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| recovery_code()).collect();
    within(super::CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let pending: Option<Option<Vec<u8>>> = sqlx::query_scalar(
            "select totp_pending from users where id = $1 and disabled_at is null for update",
        )
        .bind(user.0)
        .fetch_optional(&mut *tx)
        .await?;
        let pending = pending.flatten().ok_or(FactorError::Code)?;
        let step = step_of(&pending, code).ok_or(FactorError::Code)?;
        sqlx::query(
            "update users set totp_secret = totp_pending, totp_pending = null, totp_step = $2 \
             where id = $1",
        )
        .bind(user.0)
        .bind(step)
        .execute(&mut *tx)
        .await?;
        replace_codes(&mut tx, user, &codes).await?;
        let subject = Some(user.to_string());
        trail::note(&mut *tx, doer, Act::SecondFactorSet, subject, None).await?;
        tx.commit().await?;
        Ok(codes)
    })
    .await
}

async fn replace_codes(
    connection: &mut PgConnection,
    user: UserId,
    codes: &[String],
) -> Result<(), sqlx::Error> {
    sqlx::query("delete from recovery_codes where user_id = $1")
        .bind(user.0)
        .execute(&mut *connection)
        .await?;
    let hashes: Vec<Vec<u8>> = codes.iter().map(|code| recovery_hash(code).0.to_vec()).collect();
    sqlx::query("insert into recovery_codes (user_id, code_hash) select $1, unnest($2::bytea[])")
        .bind(user.0)
        .bind(hashes)
        .execute(connection)
        .await
        .map(drop)
}

/// Takes the second factor away.
///
/// # Errors
/// See [`FactorError`].
pub async fn remove(
    writer: &Pool,
    user: UserId,
    code: &str,
    doer: &Doer,
) -> Result<(), FactorError> {
    within(super::CHANGE_MAX, async {
        let mut tx = begin_beside(writer).await?;
        let required: bool = sqlx::query_scalar(
            "select totp_required from users join role_rules using (role) where id = $1 for update",
        )
        .bind(user.0)
        .fetch_one(&mut *tx)
        .await?;
        if required {
            return Err(FactorError::Required);
        }
        if !passes(&mut tx, user, code, doer).await? {
            return Err(FactorError::Code);
        }
        clear(&mut tx, user).await?;
        let subject = Some(user.to_string());
        trail::note(&mut *tx, doer, Act::SecondFactorRemoved, subject, None).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Forgets a user's second factor and recovery codes.
pub(super) async fn clear(connection: &mut PgConnection, user: UserId) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update users set totp_secret = null, totp_pending = null, totp_step = null where id = $1",
    )
    .bind(user.0)
    .execute(&mut *connection)
    .await?;
    replace_codes(connection, user, &[]).await
}

/// Whether a code, or a recovery code, is good; it is used up by that. The user's row is locked, so
/// that of two who try one code at once one passes.
pub(super) async fn passes(
    connection: &mut PgConnection,
    user: UserId,
    code: &str,
    doer: &Doer,
) -> Result<bool, sqlx::Error> {
    let (secret, last): (Option<Vec<u8>>, Option<i64>) =
        sqlx::query_as("select totp_secret, totp_step from users where id = $1 for update")
            .bind(user.0)
            .fetch_one(&mut *connection)
            .await?;
    let Some(secret) = secret else { return Ok(false) };
    if let Some(step) = step_of(&secret, code) {
        if last.is_some_and(|last| last >= step) {
            return Ok(false);
        }
        sqlx::query("update users set totp_step = $2 where id = $1")
            .bind(user.0)
            .bind(step)
            .execute(connection)
            .await?;
        return Ok(true);
    }
    let used = sqlx::query("delete from recovery_codes where user_id = $1 and code_hash = $2")
        .bind(user.0)
        .bind(recovery_hash(code).0.as_slice())
        .execute(&mut *connection)
        .await?;
    if used.rows_affected() == 0 {
        return Ok(false);
    }
    let subject = Some(user.to_string());
    trail::note(connection, doer, Act::RecoveryCodeUsed, subject, None).await?;
    Ok(true)
}

/// The step of time that a code is of, now or one step either way.
fn step_of(secret: &[u8], code: &str) -> Option<i64> {
    let code: String = code.chars().take(CODE_CHARS_MAX).filter(char::is_ascii_digit).collect();
    let now = u64::try_from(jiff::Timestamp::now().as_second()).ok()?;
    totp(secret, "")?.check(&code, now).map(u64::cast_signed)
}

/// Sixteen letters, of which nobody guesses one.
fn recovery_code() -> String {
    let half = || codes::Code::random().letters().to_owned();
    format!("{}-{}", half(), half())
}

fn recovery_hash(code: &str) -> Digest {
    let letters = code.chars().take(CODE_CHARS_MAX).filter(char::is_ascii_alphabetic);
    let letters: String = letters.map(|letter| letter.to_ascii_uppercase()).collect();
    Digest::of_parts(&[RECOVERY, letters.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, the last six of its eight digits.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let totp = totp(b"12345678901234567890", "").unwrap();
        for (at, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(totp.generate(at).to_string(), code);
            assert_eq!(totp.check(code, at + 30), Some(at / 30), "one step late");
            assert_eq!(totp.check(code, at + 90), None);
        }
    }

    #[test]
    fn a_recovery_code_is_read_however_it_is_typed() {
        let code = recovery_code();
        assert_eq!(recovery_hash(&code), recovery_hash(&code.to_lowercase().replace('-', " ")));
        assert_ne!(recovery_hash(&code), recovery_hash(&recovery_code()));
    }
}
