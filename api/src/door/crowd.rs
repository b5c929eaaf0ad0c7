//! Those who have come and of whom nothing is there yet: connections without a request, requests
//! without their bodies. They cost little, so a newcomer is never refused for them. Where there are
//! too many, the one that has kept silent longest has to go.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// For so long a member has only just come: what is missing may be under way.
const JUST_COME: Duration = Duration::from_millis(500);
/// With those who have only just come there may be so many times as many.
const JUST_COME_FACTOR: usize = 8;

/// A crowd, counted by who they come from. Cheap to clone.
#[derive(Debug)]
pub struct Crowd<K>(Arc<Shared<K>>);

#[derive(Debug)]
struct Shared<K> {
    all_max: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    next: u64,
    count: usize,
    /// By whom they come from.
    members: HashMap<K, Same>,
}

/// Those who come from the same, oldest first.
type Same = BTreeMap<u64, (Instant, CancellationToken)>;

/// One of a crowd, until it is dropped.
#[derive(Debug)]
pub struct Member<K: Eq + Hash> {
    crowd: Arc<Shared<K>>,
    key: K,
    number: u64,
}

impl<K> Clone for Crowd<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash + Clone> Crowd<K> {
    /// An empty one of at most `all_max`.
    pub fn new(all_max: usize) -> Self {
        let state = Mutex::new(State { next: 0, count: 0, members: HashMap::new() });
        Self(Arc::new(Shared { all_max, state }))
    }

    /// One more, of whom `each_max` may be there from the same, beside those that have only just
    /// come. `out` is cancelled when it has to go.
    pub fn join(&self, key: K, each_max: usize, out: CancellationToken) -> Member<K> {
        let mut state = self.0.state();
        while state.members.get(&key).is_some_and(|same| {
            let is_silent = is_there(same, JUST_COME);
            same.len() >= each_max * JUST_COME_FACTOR || is_silent && same.len() >= each_max
        }) {
            state.turn_out_of(&key);
        }
        if state.count >= self.0.all_max {
            state.turn_out_one(Duration::ZERO);
        }
        let number = state.next;
        state.next += 1;
        state.count += 1;
        state.members.entry(key.clone()).or_default().insert(number, (Instant::now(), out));
        drop(state);
        Member { crowd: Arc::clone(&self.0), key, number }
    }

    /// The oldest of those of whom most are there has to go, if it has been there for so long.
    /// Whether one had to.
    pub fn turn_out_one(&self, there_min: Duration) -> bool {
        self.0.state().turn_out_one(there_min)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.state().count
    }
}

impl<K> Shared<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the oldest of them has been there for so long.
fn is_there(same: &Same, there_min: Duration) -> bool {
    same.first_key_value().is_some_and(|(_, (since, _))| since.elapsed() >= there_min)
}

impl<K: Eq + Hash + Clone> State<K> {
    fn turn_out_one(&mut self, there_min: Duration) -> bool {
        let rank =
            |same: &Same| (same.len(), same.first_key_value().map(|(number, _)| Reverse(*number)));
        let most = self.members.iter().max_by_key(|(_, same)| rank(same));
        let Some((key, same)) = most else { return false };
        let goes = is_there(same, there_min);
        if goes {
            self.turn_out_of(&key.clone());
        }
        goes
    }

    fn turn_out_of(&mut self, key: &K) {
        let Some(same) = self.members.get_mut(key) else { return };
        if let Some((_, (_, out))) = same.pop_first() {
            out.cancel();
            self.count -= 1;
        }
        if same.is_empty() {
            self.members.remove(key);
        }
    }
}

impl<K: Eq + Hash> Drop for Member<K> {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        let Some(same) = state.members.get_mut(&self.key) else { return };
        let was_there = same.remove(&self.number).is_some();
        if same.is_empty() {
            state.members.remove(&self.key);
        }
        state.count -= usize::from(was_there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(crowd: &Crowd<u8>, key: u8) -> (Member<u8>, CancellationToken) {
        let out = CancellationToken::new();
        (crowd.join(key, 2, out.clone()), out)
    }

    #[test]
    fn the_oldest_of_the_same_has_to_go_and_nobody_else() {
        let crowd = Crowd::new(100);
        let other = join(&crowd, 2);
        let [first, second, third] = [1, 1, 1].map(|key| join(&crowd, key));
        assert!(!first.1.is_cancelled(), "it has only just come");
        std::thread::sleep(JUST_COME);
        let fourth = join(&crowd, 1);
        assert!([&first, &second].iter().all(|member| member.1.is_cancelled()));
        assert!([&other, &third, &fourth].iter().all(|member| !member.1.is_cancelled()));
        assert_eq!(crowd.count(), 3);
        drop((first, second));
        assert_eq!(crowd.count(), 3);
        let more: Vec<_> = (0..2 * JUST_COME_FACTOR).map(|_| join(&crowd, 1)).collect();
        assert_eq!(crowd.count(), 2 * JUST_COME_FACTOR + 1);
        drop((third, fourth, other, more));
        assert_eq!(crowd.count(), 0);
    }

    #[test]
    fn a_full_crowd_is_relieved_of_those_of_whom_most_are_there() {
        let crowd = Crowd::new(4);
        let quiet = join(&crowd, 1);
        let [two, also_two] = [2, 2].map(|key| join(&crowd, key));
        let three = join(&crowd, 3);
        let four = join(&crowd, 4);
        assert!(two.1.is_cancelled());
        assert!([quiet.1, also_two.1, three.1, four.1].iter().all(|out| !out.is_cancelled()));
        assert_eq!(crowd.count(), 4);
    }
}
