//! Operators' keys that were found good a moment ago. A dashboard asks many times a second with one
//! key; looking it up each time would cost more than many an answer.
//!
//! Only what was found good is remembered, by digest, for [`REMEMBERED_MS`]: a revoked key is
//! refused that much later at the latest, a new one works at once.

use std::time::{Duration, Instant};

use punchtrail_infra::{
    access::credentials::{self, OperatorKey},
    ledger::Ledger,
    postgres::DatabaseError,
};
use punchtrail_protocol::Digest;

use crate::door::remembered::Remembered;

/// How long a key is remembered as good, in milliseconds.
pub const REMEMBERED_MS: u64 = 1_000;
/// How many keys are remembered.
const KEYS_MAX: usize = 1_024;

/// Keys found good a moment ago.
#[derive(Debug)]
pub struct Keys(Remembered<OperatorKey>);

impl Default for Keys {
    fn default() -> Self {
        Self(Remembered::new(KEYS_MAX, Duration::from_millis(REMEMBERED_MS)))
    }
}

impl Keys {
    /// The operator that a key belongs to; none when it is nobody's or was revoked.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn operator(
        &self,
        ledger: &Ledger,
        token: &str,
    ) -> Result<Option<OperatorKey>, DatabaseError> {
        let digest = Digest::of(token.as_bytes());
        if let Some(key) = self.0.get(&digest, Instant::now()) {
            return Ok(Some(key));
        }
        let asked = Instant::now();
        let found = credentials::operator_of_key(ledger.pool(), token).await?;
        if let Some(key) = found {
            self.0.put(digest, key, asked);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_a_moment_and_no_longer() {
        let (Keys(keys), digest, now) = (Keys::default(), Digest::of(b"key"), Instant::now());
        let key = OperatorKey { id: uuid::Uuid::nil(), employee: None };
        keys.put(digest, key, now);
        assert_eq!(keys.get(&digest, now), Some(key));
        let later = now + Duration::from_millis(REMEMBERED_MS);
        assert_eq!(keys.get(&digest, later), None);
        assert_eq!(keys.get(&Digest::of(b"other"), now), None);
    }
}
