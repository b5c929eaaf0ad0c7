//! The queue of a class: so many requests hold a permit at once, the others wait for one in order.
//! Who came early waits behind the others; every fourth permit is kept for them, so that nobody
//! waits for ever.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// One permit in so many goes to who came early, if one waits.
const EARLY_PERMIT: u32 = 4;
/// The weight of the newest in the average time a permit is held, by which a wait is estimated.
const NEWEST_WEIGHT: f64 = 1.0 / 64.0;
/// The same for the average by which slots are given: they are far ahead, and what is quick or slow
/// for a second now says little of then.
const NEWEST_WEIGHT_AHEAD: f64 = 1.0 / 512.0;
/// How long a permit is taken to be held before any has been measured, in seconds.
const HELD_GUESS_S: f64 = 0.1;

/// In which order permits are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Usual,
    /// Behind the others: who came early.
    Early,
}

/// The queue of a class.
#[derive(Debug)]
pub struct Queue {
    at_once: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    working: usize,
    usual: Lane,
    early: Lane,
    /// Permits that were passed on.
    passed: u32,
    held_s: f64,
    held_ahead_s: f64,
}

/// Requests of one priority that wait.
type Lane = VecDeque<oneshot::Sender<()>>;

/// How many requests a queue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub working: usize,
    /// In the queue.
    pub waiting: usize,
    /// Those of them who came early.
    pub early: usize,
}

impl Queue {
    /// A queue that grants so many permits at once.
    pub fn new(at_once: usize) -> Arc<Self> {
        let state = State {
            working: 0,
            usual: Lane::default(),
            early: Lane::default(),
            passed: 0,
            held_s: HELD_GUESS_S,
            held_ahead_s: HELD_GUESS_S,
        };
        Arc::new(Self { at_once, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests it has.
    pub fn load(&self) -> Load {
        let state = self.state();
        let early = state.early.len();
        Load { working: state.working, waiting: state.usual.len() + early, early }
    }

    /// Whether one who came now would get a permit at once.
    pub fn is_free(&self) -> bool {
        self.state().ahead() < self.at_once
    }

    /// How long one who came now and isn't early would wait.
    pub fn estimated_wait(&self) -> Duration {
        let state = self.state();
        let behind = (state.ahead() + 1).saturating_sub(self.at_once);
        Duration::from_secs_f64(behind as f64 * state.held_s / self.at_once as f64)
    }

    /// How many a second are worked on while there is a queue, over some time.
    pub fn per_second(&self) -> f64 {
        self.at_once as f64 / self.state().held_ahead_s
    }

    /// Admits one more request. It isn't in the queue yet.
    pub fn admit(self: &Arc<Self>) -> Permit {
        Permit { queue: Arc::clone(self), stage: Stage::Admitted }
    }
}

/// The permit of a request, from its admission on. Dropped, it goes to the next if it was held.
#[derive(Debug)]
pub struct Permit {
    queue: Arc<Queue>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Admitted,
    Queued(oneshot::Receiver<()>),
    Held(Instant),
}

impl Permit {
    /// Whether the request may be worked on.
    pub fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Held(_))
    }

    /// Gives it to the next, and stands as if just admitted.
    pub fn put_down(&mut self) {
        *self = self.queue.admit();
    }

    /// Waits in the queue until it is held.
    pub async fn acquire(&mut self, priority: Priority) {
        if let Stage::Admitted = self.stage {
            self.stage = self.enter(priority);
        }
        if let Stage::Queued(granted) = &mut self.stage {
            // The queue never drops a grant that it hasn't made.
            let _ = granted.await;
            self.stage = Stage::Held(Instant::now());
        }
    }

    fn enter(&self, priority: Priority) -> Stage {
        let mut state = self.queue.state();
        if state.working < self.queue.at_once {
            state.working += 1;
            return Stage::Held(Instant::now());
        }
        let (grant, granted) = oneshot::channel();
        state.lane(priority).push_back(grant);
        Stage::Queued(granted)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match &mut self.stage {
            Stage::Admitted => {}
            Stage::Queued(granted) => {
                let mut state = self.queue.state();
                granted.close();
                if granted.try_recv().is_ok() {
                    state.pass_on();
                }
            }
            Stage::Held(since) => {
                let (mut state, held_s) = (self.queue.state(), since.elapsed().as_secs_f64());
                state.held_s += (held_s - state.held_s) * NEWEST_WEIGHT;
                state.held_ahead_s += (held_s - state.held_ahead_s) * NEWEST_WEIGHT_AHEAD;
                state.pass_on();
            }
        }
    }
}

impl State {
    fn lane(&mut self, priority: Priority) -> &mut Lane {
        match priority {
            Priority::Usual => &mut self.usual,
            Priority::Early => &mut self.early,
        }
    }

    /// Those who get a permit before one who comes now and isn't early, or hold one.
    fn ahead(&self) -> usize {
        self.working + self.usual.len()
    }

    /// Hands the permit of one that is done to the next who still waits.
    fn pass_on(&mut self) {
        while let Some(next) = self.next() {
            if next.send(()).is_ok() {
                return;
            }
        }
        self.working -= 1;
    }

    fn next(&mut self) -> Option<oneshot::Sender<()>> {
        self.passed = self.passed.wrapping_add(1);
        let (first, second) = match self.passed.is_multiple_of(EARLY_PERMIT) {
            true => (&mut self.early, &mut self.usual),
            false => (&mut self.usual, &mut self.early),
        };
        first.pop_front().or_else(|| second.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::BoxFuture};

    use super::*;

    type Waits = BoxFuture<'static, Permit>;

    fn waits(queue: &Arc<Queue>, priority: Priority) -> Waits {
        let mut permit = queue.admit();
        async move {
            permit.acquire(priority).await;
            permit
        }
        .boxed()
    }

    fn enqueue(queue: &Arc<Queue>, priority: Priority) -> Waits {
        let mut waits = waits(queue, priority);
        assert!((&mut waits).now_or_never().is_none());
        waits
    }

    fn busy(at_once: usize) -> (Arc<Queue>, Vec<Permit>) {
        let queue = Queue::new(at_once);
        let permit = |_| {
            assert!(queue.is_free());
            waits(&queue, Priority::Usual).now_or_never().unwrap()
        };
        let permits = (0..at_once).map(permit).collect();
        assert!(!queue.is_free());
        (queue, permits)
    }

    fn granted(waits: &mut Waits) -> Option<Permit> {
        waits.now_or_never()
    }

    const EMPTY: Load = Load { working: 0, waiting: 0, early: 0 };

    #[test]
    fn permits_are_granted_in_order_and_to_early_callers_last() {
        let (queue, permits) = busy(1);
        let mut early = enqueue(&queue, Priority::Early);
        let mut first = enqueue(&queue, Priority::Usual);
        let mut second = enqueue(&queue, Priority::Usual);
        drop(permits);
        assert!(granted(&mut second).is_none());
        drop(granted(&mut first).unwrap());
        let second = granted(&mut second).unwrap();
        assert!(granted(&mut early).is_none());
        drop(second);
        drop(granted(&mut early).unwrap());
        assert_eq!(queue.load(), EMPTY);
    }

    #[test]
    fn early_callers_get_a_permit_now_and_then() {
        let (queue, mut permits) = busy(1);
        let mut early = enqueue(&queue, Priority::Early);
        let mut usual: Vec<_> = (0..8).map(|_| enqueue(&queue, Priority::Usual)).collect();
        for next in usual.iter_mut().take(EARLY_PERMIT as usize - 1) {
            permits.clear();
            permits.extend(granted(next));
            assert_eq!(permits.len(), 1);
        }
        permits.clear();
        assert!(granted(&mut early).is_some());
    }

    #[test]
    fn a_permit_is_never_lost_to_one_that_went_away() {
        let (queue, permits) = busy(1);
        let (gone, called) = (enqueue(&queue, Priority::Usual), enqueue(&queue, Priority::Usual));
        let mut last = enqueue(&queue, Priority::Usual);
        drop(gone);
        drop(permits);
        drop(called);
        drop(granted(&mut last).unwrap());
        assert_eq!(queue.load(), EMPTY);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_estimated_from_how_long_permits_were_held() {
        let (queue, permits) = busy(2);
        assert_eq!(queue.estimated_wait(), Duration::from_secs_f64(HELD_GUESS_S / 2.0));
        drop(permits);
        for _ in 0..4_000 {
            let permit = waits(&queue, Priority::Usual).await;
            tokio::time::advance(Duration::from_secs(1)).await;
            drop(permit);
        }
        let (queue, _silent) = (Arc::clone(&queue), queue.admit());
        let _held = [waits(&queue, Priority::Usual).await, waits(&queue, Priority::Usual).await];
        let _queued = [Priority::Usual; 2].map(|priority| enqueue(&queue, priority));
        let wait_s = queue.estimated_wait().as_secs_f64();
        assert!((1.45..=1.5).contains(&wait_s), "{wait_s}");
        assert!((1.9..=2.1).contains(&queue.per_second()));
    }
}
