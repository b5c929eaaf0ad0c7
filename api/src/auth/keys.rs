//! Operators' keys that were found good a moment ago. A dashboard asks many times a second with one
//! key; looking it up each time would cost more than many an answer.
//!
//! Only what was found good is remembered, by digest, for [`REMEMBERED_MS`]: a revoked key is
//! refused that much later at the latest, a new one works at once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use punchtrail_infra::{
    access::credentials::{self, OperatorKey},
    ledger::Ledger,
    postgres::DatabaseError,
};
use punchtrail_protocol::Digest;

/// How long a key is remembered as good, in milliseconds.
pub const REMEMBERED_MS: u64 = 1_000;
/// How many keys are remembered.
const KEYS_MAX: usize = 1_024;

/// Keys found good a moment ago.
#[derive(Debug, Default)]
pub struct Keys(Mutex<HashMap<Digest, (OperatorKey, Instant)>>);

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
        if let Some(key) = self.remembered(&digest, Instant::now()) {
            return Ok(Some(key));
        }
        let asked = Instant::now();
        let found = credentials::operator_of_key(ledger.pool(), token).await?;
        if let Some(key) = found {
            self.remember(digest, key, asked);
        }
        Ok(found)
    }

    fn remembered(&self, digest: &Digest, now: Instant) -> Option<OperatorKey> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, asked) = keys.get(digest)?;
        (now.duration_since(*asked) < Duration::from_millis(REMEMBERED_MS)).then_some(*key)
    }

    fn remember(&self, digest: Digest, key: OperatorKey, asked: Instant) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_MAX {
            keys.clear();
        }
        keys.insert(digest, (key, asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_a_moment_and_no_longer() {
        let (keys, digest, now) = (Keys::default(), Digest::of(b"key"), Instant::now());
        let key = OperatorKey { id: uuid::Uuid::nil() };
        keys.remember(digest, key, now);
        assert_eq!(keys.remembered(&digest, now), Some(key));
        let later = now + Duration::from_millis(REMEMBERED_MS);
        assert_eq!(keys.remembered(&digest, later), None);
        assert_eq!(keys.remembered(&Digest::of(b"other"), now), None);
    }
}
