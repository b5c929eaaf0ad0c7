//! Operators' keys that were found good a moment ago. A dashboard asks many times a second with one
//! key; looking it up each time would cost more than many an answer.
//!
//! Only what was found good is remembered, by digest, for [`REMEMBERED_MS`]: a revoked key is
//! refused that much later at the latest, a new one works at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use punchtrail_infra::{
    access::keys::{self, OperatorKey},
    ledger::Ledger,
    postgres::DatabaseError,
};
use punchtrail_protocol::{Digest, Time};

use crate::door::remembered::Remembered;

/// How long a key is remembered as good, in milliseconds.
pub const REMEMBERED_MS: u64 = 1_000;
/// How many keys are remembered.
const KEYS_MAX: usize = 1_024;

/// Keys found good a moment ago.
#[derive(Debug)]
pub struct Keys(Remembered<Arc<OperatorKey>>);

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
    ) -> Result<Option<Arc<OperatorKey>>, DatabaseError> {
        let digest = Digest::of(token.as_bytes());
        if let Some(key) = self.0.get(&digest, Instant::now()) {
            // It may have expired since it was looked up.
            return Ok(Some(key).filter(|key| is_in_force(key, ledger.now())));
        }
        let asked = Instant::now();
        let found = keys::operator_of_key(ledger.pool(), token).await?.map(Arc::new);
        if let Some(key) = &found {
            self.0.put(digest, Arc::clone(key), asked);
        }
        Ok(found)
    }
}

fn is_in_force(key: &OperatorKey, now: Time) -> bool {
    key.expires_at.is_none_or(|expires_at| now < expires_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_a_moment_and_no_longer() {
        let (Keys(keys), digest, now) = (Keys::default(), Digest::of(b"key"), Instant::now());
        let at = Time::from_millis;
        let key = Arc::new(OperatorKey {
            id: uuid::Uuid::nil(),
            employee: None,
            scopes: None,
            sites: None,
            expires_at: Some(at(1_000)),
        });
        assert!(is_in_force(&key, at(999)) && !is_in_force(&key, at(1_000)));
        keys.put(digest, Arc::clone(&key), now);
        assert_eq!(keys.get(&digest, now), Some(key));
        let later = now + Duration::from_millis(REMEMBERED_MS);
        assert_eq!(keys.get(&digest, later), None);
        assert_eq!(keys.get(&Digest::of(b"other"), now), None);
    }
}
