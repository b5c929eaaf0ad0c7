//! How fast somebody may fail, on this node: exact enough to stop guessing, and no more than that.
//!
//! The generic cell rate algorithm (ITU-T I.371), by whoever fails. A try is counted while it
//! lasts, and stays so if it fails. Who has used up its allowance waits for its turn; nobody is
//! locked out for long by failures that came from the same place.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::remembered::make_room;

/// How many are remembered.
const KEYS_MAX: usize = 1 << 16;

/// Counts failures by `K`. Cheap to clone.
#[derive(Debug)]
pub struct Throttle<K> {
    burst: u32,
    every: Duration,
    /// When all that is counted will be forgiven.
    forgiven: Arc<Mutex<HashMap<K, Instant>>>,
}

/// Leave to try. Unless it failed, it isn't counted any more once it is dropped.
#[derive(Debug)]
pub struct Turn<K: Eq + Hash + Clone> {
    throttle: Throttle<K>,
    key: K,
    failed: bool,
}

impl<K: Clone> Clone for Throttle<K> {
    fn clone(&self) -> Self {
        Self { forgiven: Arc::clone(&self.forgiven), ..*self }
    }
}

impl<K: Eq + Hash + Clone> Throttle<K> {
    /// `burst` failures at once, and one more each time `every` has passed.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every, forgiven: Arc::default() }
    }

    /// Waits for a turn for `key`.
    pub async fn turn(&self, key: K) -> Turn<K> {
        loop {
            match self.turn_at(&key, Instant::now()) {
                Ok(turn) => return turn,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// A turn, or how long until there is one.
    fn turn_at(&self, key: &K, now: Instant) -> Result<Turn<K>, Duration> {
        let mut forgiven = self.forgiven();
        let debt = forgiven.get(key).map_or(Duration::ZERO, |at| at.duration_since(now));
        let wait = (debt + self.every).saturating_sub(self.every * self.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.count(&mut forgiven, key, now);
        drop(forgiven);
        Ok(Turn { throttle: self.clone(), key: key.clone(), failed: false })
    }

    fn count(&self, forgiven: &mut HashMap<K, Instant>, key: &K, now: Instant) {
        make_room(forgiven, key, KEYS_MAX, |at| *at > now);
        let at = forgiven.entry(key.clone()).or_insert(now);
        *at = (*at).max(now) + self.every;
    }

    fn forgiven(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.forgiven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Turn<K> {
    /// The try failed.
    pub fn failed(mut self) {
        self.failed = true;
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        if !self.failed
            && let Some(at) = self.throttle.forgiven().get_mut(&self.key)
        {
            *at = at.checked_sub(self.throttle.every).unwrap_or(*at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_failed_too_often_waits_and_others_do_not() {
        let (throttle, now) = (Throttle::new(3, SECOND), Instant::now());
        (0..3).for_each(|_| throttle.turn_at(&"a", now).unwrap().failed());
        assert_eq!(throttle.turn_at(&"a", now).unwrap_err(), SECOND);
        assert!(throttle.turn_at(&"b", now).is_ok());
        throttle.turn_at(&"a", now + SECOND).unwrap().failed();
        assert_eq!(throttle.turn_at(&"a", now + SECOND).unwrap_err(), SECOND);
        assert!(throttle.turn_at(&"a", now + 60 * SECOND).is_ok());
    }

    #[test]
    fn who_succeeds_is_not_counted() {
        let (throttle, now) = (Throttle::new(2, SECOND), Instant::now());
        for _ in 0..100 {
            assert!(throttle.turn_at(&"a", now).is_ok());
        }
        let tried = [throttle.turn_at(&"a", now), throttle.turn_at(&"a", now)];
        assert!(throttle.turn_at(&"a", now).is_err(), "it isn't known yet what they are");
        drop(tried);
        (0..2).for_each(|_| throttle.turn_at(&"a", now).unwrap().failed());
        assert!(throttle.turn_at(&"a", now).is_err());
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (throttle, now) = (Throttle::new(2, SECOND), Instant::now());
        for n in 0..=KEYS_MAX {
            throttle.count(&mut throttle.forgiven(), &n, now);
        }
        assert!(throttle.forgiven().len() <= KEYS_MAX);
    }
}
