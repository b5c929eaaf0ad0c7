//! Codes that a person reads off one screen and types at another: eight letters, single use, ten
//! minutes; kept as digests only.

use jiff_sqlx::Timestamp;
use punchtrail_protocol::{
    Digest, Time,
    wire::{PAIRING_ALPHABET, PAIRING_CODE_CHARS, PAIRING_CODE_LIFE_S},
};
use sqlx::PgExecutor;

/// A code's letters, to be shown once.
#[derive(Clone)]
pub struct Code(String);

impl Code {
    /// One that nobody can guess in ten minutes.
    pub fn random() -> Self {
        let letter =
            |_| char::from(PAIRING_ALPHABET[rand::random_range(0..PAIRING_ALPHABET.len())]);
        Self((0..PAIRING_CODE_CHARS).map(letter).collect())
    }

    /// Its letters.
    pub fn letters(&self) -> &str {
        &self.0
    }
}

/// A code that was given out.
#[derive(Clone)]
pub struct Issued {
    code: Code,
    /// When it can no longer be used.
    pub expires_at: Time,
}

impl Issued {
    /// A code, until then.
    pub const fn new(code: Code, expires_at: Time) -> Self {
        Self { code, expires_at }
    }

    /// As it is shown, `BCDF-GHJK`.
    pub fn shown(&self) -> String {
        let (left, right) = self.code.letters().split_at(PAIRING_CODE_CHARS / 2);
        format!("{left}-{right}")
    }
}

/// When a code that is made now can no longer be used, by the database's clock.
///
/// # Errors
/// When the database is out of reach.
pub async fn end_from_now(executor: impl PgExecutor<'_>) -> Result<jiff::Timestamp, sqlx::Error> {
    let end: Timestamp = sqlx::query_scalar("select now() + make_interval(secs => $1)")
        .bind(f64::from(PAIRING_CODE_LIFE_S))
        .fetch_one(executor)
        .await?;
    Ok(end.to_jiff())
}

/// What is kept of a code: good for one purpose only.
pub fn digest(purpose: &'static [u8], letters: &str) -> Digest {
    Digest::of_parts(&[purpose, letters.as_bytes()])
}
