//! How fast somebody may fail, on this node: exact enough to stop guessing, and no more than that.
//!
//! The generic cell rate algorithm (ITU-T I.371), by whoever fails. A try is counted while it
//! lasts, and stays so if it fails. Who has used up its allowance waits for the next of its turns,
//! and is refused when that is far: so nobody is locked out for long by failures that came from the
//! same place.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The longest wait for a turn.
const WAIT_MAX: Duration = Duration::from_secs(5);
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
    /// How long to wait first.
    pub wait: Duration,
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

    /// A turn for `key`, maybe after a wait, in which it is taken from others already.
    ///
    /// # Errors
    /// How long until there is one that may be waited for.
    pub fn turn(&self, key: K) -> Result<Turn<K>, Duration> {
        self.turn_at(key, Instant::now())
    }

    fn turn_at(&self, key: K, now: Instant) -> Result<Turn<K>, Duration> {
        let mut forgiven = self.forgiven();
        let debt = forgiven.get(&key).map_or(Duration::ZERO, |at| at.duration_since(now));
        let wait = (debt + self.every).saturating_sub(self.every * self.burst);
        if wait > WAIT_MAX {
            return Err(wait - WAIT_MAX);
        }
        self.count(&mut forgiven, &key, now);
        drop(forgiven);
        Ok(Turn { throttle: self.clone(), key, failed: false, wait })
    }

    fn count(&self, forgiven: &mut HashMap<K, Instant>, key: &K, now: Instant) {
        if forgiven.len() >= KEYS_MAX && !forgiven.contains_key(key) {
            forgiven.retain(|_, at| *at > now);
            if forgiven.len() >= KEYS_MAX {
                forgiven.clear();
            }
        }
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
    fn who_failed_too_often_waits_and_then_is_refused_and_others_are_not() {
        let (throttle, now) = (Throttle::new(3, SECOND), Instant::now());
        let turn = |key, now| throttle.turn_at(key, now).inspect(|turn| assert_eq!(turn.key, key));
        for _ in 0..3 {
            let turn = turn("a", now).unwrap();
            assert_eq!(turn.wait, Duration::ZERO);
            turn.failed();
        }
        let mut turns: Vec<_> = (0..5).map(|_| turn("a", now).unwrap()).collect();
        let waits: Vec<_> = turns.iter().map(|turn| turn.wait.as_secs()).collect();
        assert_eq!(waits, [1, 2, 3, 4, 5]);
        assert_eq!(turn("a", now).unwrap_err(), SECOND);
        assert_eq!(turn("b", now).unwrap().wait, Duration::ZERO);
        turns.pop();
        assert_eq!(turn("a", now).unwrap().wait, 5 * SECOND);
        turns.drain(..).for_each(Turn::failed);
        assert_eq!(turn("a", now + 4 * SECOND).unwrap().wait, SECOND);
        assert_eq!(turn("a", now + 60 * SECOND).unwrap().wait, Duration::ZERO);
    }

    #[test]
    fn who_succeeds_is_not_counted() {
        let throttle = Throttle::new(2, SECOND);
        for _ in 0..100 {
            assert_eq!(throttle.turn("a").unwrap().wait, Duration::ZERO);
        }
        let tried = [throttle.turn("a").unwrap(), throttle.turn("a").unwrap()];
        assert!(!throttle.turn("a").unwrap().wait.is_zero(), "it isn't known yet what they are");
        drop(tried);
        (0..2).for_each(|_| throttle.turn("a").unwrap().failed());
        assert!(!throttle.turn("a").unwrap().wait.is_zero());
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
