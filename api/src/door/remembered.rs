//! What was found of credentials a while ago, by their digest, so that not every request has to ask
//! the database; and how a map that strangers fill stays within its bounds.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use punchtrail_protocol::Digest;

/// What was found, each for so long and so many at most.
#[derive(Debug)]
pub struct Remembered<V> {
    count_max: usize,
    lasts: Duration,
    found: Mutex<HashMap<Digest, (V, Instant)>>,
}

impl<V: Clone> Remembered<V> {
    /// Nothing yet; of `count_max` at most, each remembered for `lasts`.
    pub fn new(count_max: usize, lasts: Duration) -> Self {
        Self { count_max, lasts, found: Mutex::default() }
    }

    /// What was found, unless that is too long ago.
    pub fn get(&self, digest: &Digest, now: Instant) -> Option<V> {
        let found = self.found();
        let (value, since) = found.get(digest)?;
        (now.duration_since(*since) < self.lasts).then(|| value.clone())
    }

    /// Found at that time.
    pub fn put(&self, digest: Digest, value: V, since: Instant) {
        let mut found = self.found();
        make_room(&mut found, &digest, self.count_max, |(_, put)| {
            since.duration_since(*put) < self.lasts
        });
        found.insert(digest, (value, since));
    }

    /// It isn't so any more.
    pub fn forget(&self, digest: &Digest) {
        self.found().remove(digest);
    }

    fn found(&self) -> MutexGuard<'_, HashMap<Digest, (V, Instant)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one more in a map of at most `count_max`: those that aren't needed any more have
/// to go, or all of them where that isn't enough.
pub fn make_room<K: Eq + Hash, V>(
    map: &mut HashMap<K, V>,
    key: &K,
    count_max: usize,
    is_needed: impl Fn(&V) -> bool,
) {
    if map.len() < count_max || map.contains_key(key) {
        return;
    }
    map.retain(|_, value| is_needed(value));
    if map.len() >= count_max {
        map.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_remembered_for_its_time_and_within_bounds() {
        let (now, lasts) = (Instant::now(), Duration::from_secs(1));
        let remembered = Remembered::new(2, lasts);
        let digest = |n: u8| Digest::of(&[n]);
        remembered.put(digest(1), 'a', now);
        assert_eq!(remembered.get(&digest(1), now), Some('a'));
        assert_eq!(remembered.get(&digest(1), now + lasts), None);
        assert_eq!(remembered.get(&digest(2), now), None);
        let later = now + lasts / 2;
        remembered.put(digest(2), 'b', later);
        remembered.put(digest(2), 'c', later);
        assert_eq!(remembered.get(&digest(1), later), Some('a'), "no more than two are there");
        remembered.put(digest(3), 'd', now + lasts);
        assert_eq!(remembered.get(&digest(2), later), Some('c'), "only what was over had to go");
        remembered.put(digest(4), 'e', now + lasts);
        assert_eq!(remembered.get(&digest(2), later), None, "all are needed, so all had to go");
        assert_eq!(remembered.get(&digest(4), later), Some('e'));
        remembered.forget(&digest(4));
        assert_eq!(remembered.get(&digest(4), later), None);
    }
}
