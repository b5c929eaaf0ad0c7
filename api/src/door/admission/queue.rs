//! Who is being served and who waits, for one class: so many at once, the others in order. Those who
//! came when they should go first; every fourth turn is kept for those who didn't, so that nobody waits
//! for ever.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// One turn in so many goes to who came early, if one waits.
const EARLY_TURN: u32 = 4;
/// The weight of the newest in the average time that a turn takes, by which a wait is estimated.
const NEWEST_WEIGHT: f64 = 1.0 / 64.0;
/// The same for the average by which appointments are given: they are far ahead, and what is quick or slow for a
/// second now says little of then.
const NEWEST_WEIGHT_AHEAD: f64 = 1.0 / 512.0;
/// What a turn is taken to need before any has been measured, in seconds.
const TURN_GUESS_S: f64 = 0.1;

/// In which order one waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// With those who came when they should.
    Expected,
    /// Behind them.
    Early,
}

/// The line of a class.
#[derive(Debug)]
pub struct Line {
    at_once: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    working: usize,
    /// Let in, and not yet in line: their bodies are still coming.
    coming: usize,
    /// The same of those who came early.
    coming_early: usize,
    expected: VecDeque<oneshot::Sender<()>>,
    early: VecDeque<oneshot::Sender<()>>,
    turns: u32,
    turn_s: f64,
    turn_ahead_s: f64,
}

/// How a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Being served.
    pub working: usize,
    /// Let in and not yet served.
    pub waiting: usize,
    /// Those of them who came early.
    pub early: usize,
}

impl Line {
    /// A line of which so many are served at once.
    pub fn new(at_once: usize) -> Arc<Self> {
        let state = State {
            working: 0,
            coming: 0,
            coming_early: 0,
            expected: VecDeque::new(),
            early: VecDeque::new(),
            turns: 0,
            turn_s: TURN_GUESS_S,
            turn_ahead_s: TURN_GUESS_S,
        };
        Arc::new(Self { at_once, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let state = self.state();
        let early = state.coming_early + state.early.len();
        let waiting = state.coming + state.expected.len() + early;
        Standing { working: state.working, waiting, early }
    }

    /// Whether one who came now would be served at once.
    pub fn is_free(&self) -> bool {
        let state = self.state();
        state.working + state.coming + state.expected.len() < self.at_once
    }

    /// How long one who came now and was expected would wait.
    pub fn estimated_wait(&self) -> Duration {
        let state = self.state();
        let ahead = state.working + state.coming + state.expected.len();
        let behind = (ahead + 1).saturating_sub(self.at_once);
        Duration::from_secs_f64(behind as f64 * state.turn_s / self.at_once as f64)
    }

    /// How many a second are served while there is a line, over some time.
    pub fn per_second(&self) -> f64 {
        self.at_once as f64 / self.state().turn_ahead_s
    }

    /// Lets one more in.
    pub fn let_in(self: &Arc<Self>, order: Order) -> Coming {
        *self.state().coming_of(order) += 1;
        Coming { line: Arc::clone(self), order }
    }

    /// None when the turn has come already.
    fn stand(&self, order: Order) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        if state.working < self.at_once {
            state.working += 1;
            return None;
        }
        let (call, called) = oneshot::channel();
        match order {
            Order::Expected => state.expected.push_back(call),
            Order::Early => state.early.push_back(call),
        }
        Some(called)
    }
}

/// One that was let in, and doesn't stand in line yet.
#[derive(Debug)]
pub struct Coming {
    line: Arc<Line>,
    order: Order,
}

impl Coming {
    /// Stands in line until the turn has come. Whoever goes away before is passed over.
    pub async fn turn(self) -> Turn {
        let line = Arc::clone(&self.line);
        let called = line.stand(self.order);
        drop(self);
        if let Some(called) = called {
            let mut waiting = Waiting { line: &line, called, served: false };
            // The line never drops a call it hasn't made.
            let _ = (&mut waiting.called).await;
            waiting.served = true;
        }
        Turn { line, began: Instant::now() }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        *self.line.state().coming_of(self.order) -= 1;
    }
}

/// One that stands in line; called and gone meanwhile, its place goes to the next.
struct Waiting<'a> {
    line: &'a Line,
    called: oneshot::Receiver<()>,
    served: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.called.close();
        if !self.served && self.called.try_recv().is_ok() {
            self.line.state().pass_on();
        }
    }
}

/// One that is being served, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    line: Arc<Line>,
    began: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let took_s = self.began.elapsed().as_secs_f64();
        let mut state = self.line.state();
        state.turn_s += (took_s - state.turn_s) * NEWEST_WEIGHT;
        state.turn_ahead_s += (took_s - state.turn_ahead_s) * NEWEST_WEIGHT_AHEAD;
        state.pass_on();
    }
}

impl State {
    fn coming_of(&mut self, order: Order) -> &mut usize {
        match order {
            Order::Expected => &mut self.coming,
            Order::Early => &mut self.coming_early,
        }
    }

    /// Hands the place of one that is done to the next who still waits.
    fn pass_on(&mut self) {
        while let Some(next) = self.next() {
            if next.send(()).is_ok() {
                return;
            }
        }
        self.working -= 1;
    }

    fn next(&mut self) -> Option<oneshot::Sender<()>> {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(EARLY_TURN) {
            self.early.pop_front().or_else(|| self.expected.pop_front())
        } else {
            self.expected.pop_front().or_else(|| self.early.pop_front())
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::BoxFuture};

    use super::*;

    type Waits = BoxFuture<'static, Turn>;

    fn stand(line: &Arc<Line>, order: Order) -> Waits {
        let mut turn = line.let_in(order).turn().boxed();
        assert!((&mut turn).now_or_never().is_none());
        turn
    }

    fn busy(at_once: usize) -> (Arc<Line>, Vec<Turn>) {
        let line = Line::new(at_once);
        let turn = |_| {
            assert!(line.is_free());
            line.let_in(Order::Expected).turn().now_or_never().unwrap()
        };
        let turns = (0..at_once).map(turn).collect();
        assert!(!line.is_free());
        (line, turns)
    }

    fn served(waits: &mut Waits) -> Option<Turn> {
        waits.now_or_never()
    }

    const EMPTY: Standing = Standing { working: 0, waiting: 0, early: 0 };

    #[test]
    fn they_are_served_in_order_and_the_early_ones_last() {
        let (line, turns) = busy(1);
        let mut early = stand(&line, Order::Early);
        let mut first = stand(&line, Order::Expected);
        let mut second = stand(&line, Order::Expected);
        drop(turns);
        assert!(served(&mut second).is_none());
        drop(served(&mut first).unwrap());
        let second = served(&mut second).unwrap();
        assert!(served(&mut early).is_none());
        drop(second);
        drop(served(&mut early).unwrap());
        assert_eq!(line.standing(), EMPTY);
    }

    #[test]
    fn the_early_ones_get_a_turn_now_and_then() {
        let (line, mut turns) = busy(1);
        let mut early = stand(&line, Order::Early);
        let mut expected: Vec<_> = (0..8).map(|_| stand(&line, Order::Expected)).collect();
        for next in expected.iter_mut().take(EARLY_TURN as usize - 1) {
            turns.clear();
            turns.extend(served(next));
            assert_eq!(turns.len(), 1);
        }
        turns.clear();
        assert!(served(&mut early).is_some());
    }

    #[test]
    fn a_place_is_never_lost_to_one_that_went_away() {
        let (line, turns) = busy(1);
        let (gone, called) = (stand(&line, Order::Expected), stand(&line, Order::Expected));
        let mut last = stand(&line, Order::Expected);
        let coming = line.let_in(Order::Expected);
        drop(gone);
        drop(turns);
        drop(called);
        drop(served(&mut last).unwrap());
        assert_eq!(line.standing(), Standing { waiting: 1, ..EMPTY });
        drop(coming);
        assert_eq!(line.standing(), EMPTY);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_estimated_from_what_turns_took() {
        let (line, turns) = busy(2);
        assert_eq!(line.estimated_wait(), Duration::from_secs_f64(TURN_GUESS_S / 2.0));
        drop(turns);
        for _ in 0..4_000 {
            let turn = line.let_in(Order::Expected).turn().await;
            tokio::time::advance(Duration::from_secs(1)).await;
            drop(turn);
        }
        let _coming: Vec<_> = (0..4).map(|_| line.let_in(Order::Expected)).collect();
        let wait_s = line.estimated_wait().as_secs_f64();
        assert!((1.45..=1.5).contains(&wait_s), "{wait_s}");
        assert!((1.9..=2.1).contains(&line.per_second()));
    }
}
