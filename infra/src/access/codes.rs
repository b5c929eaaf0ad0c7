//! Codes that a person reads off one screen and types at another: eight letters, single use, ten
//! minutes; kept as digests only.

use jiff_sqlx::Timestamp;
use punchtrail_protocol::{
    Digest, Time,
    wire::{PAIRING_ALPHABET, PAIRING_CODE_CHARS, PAIRING_CODE_LIFE_S},
};
use uuid::Uuid;

use crate::{
    ledger::{self, SideWrite},
    postgres::Pool,
};

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
    /// As it is shown, `BCDF-GHJK`.
    pub fn shown(&self) -> String {
        let (left, right) = self.code.letters().split_at(PAIRING_CODE_CHARS / 2);
        format!("{left}-{right}")
    }
}

/// Makes a code that is kept by `insert`: its digest, what it is about, and until when it is good,
/// by the database's clock.
///
/// # Errors
/// When the database is out of reach.
pub async fn make(
    writer: &Pool,
    purpose: &'static [u8],
    insert: &'static str,
    about: Uuid,
) -> Result<Issued, sqlx::Error> {
    let code = Code::random();
    let expires_at: Timestamp = sqlx::query_scalar("select now() + make_interval(secs => $1)")
        .bind(f64::from(PAIRING_CODE_LIFE_S))
        .fetch_one(writer)
        .await?;
    let kept = digest(purpose, code.letters());
    let write = SideWrite::new(move |connection| {
        Box::pin(async move {
            sqlx::query(insert)
                .bind(kept.0.as_slice())
                .bind(about)
                .bind(expires_at)
                .execute(connection)
                .await
                .map(drop)
        })
    });
    ledger::beside(writer, write).await?;
    Ok(Issued { code, expires_at: expires_at.to_jiff().into() })
}

/// What is kept of a code: good for one purpose only.
pub fn digest(purpose: &'static [u8], letters: &str) -> Digest {
    Digest::of_parts(&[purpose, letters.as_bytes()])
}
