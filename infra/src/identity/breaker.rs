//! A checker that doesn't answer isn't asked for a while.
//!
//! Without it each of ten thousand pictures waits for a time-out of its own before the next checker
//! is asked. After some failures in a row the checker is left alone for a pause; then one picture,
//! and only one, tries whether it is back. Each try that fails doubles the pause.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use punchtrail_domain::punch::Missing;
use tokio::time::Instant;

/// After how many failures in a row a checker is left alone.
pub const FAILURES_MAX: u32 = 5;
/// For how long, the first time.
pub const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// For how long at most.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Whether a checker is asked.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures_in_a_row: u32,
    alone: Option<Alone>,
}

/// It is left alone.
#[derive(Debug)]
struct Alone {
    until: Instant,
    pause: Duration,
    /// What it failed by, last.
    missing: Missing,
    /// Somebody is trying it just now.
    is_tried: bool,
}

impl Alone {
    fn after(pause: Duration, missing: Missing) -> Self {
        Self { until: Instant::now() + pause, pause, missing, is_tried: false }
    }
}

/// Leave to ask. Dropped without a word of how it went, it is as if it had never been taken.
#[derive(Debug)]
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    is_try: bool,
}

impl Breaker {
    /// Leave to ask.
    ///
    /// # Errors
    /// What the checker failed by, if it is left alone.
    pub(super) fn leave(&self) -> Result<Leave<'_>, Missing> {
        let mut state = self.state();
        match &mut state.alone {
            None => Ok(Leave { breaker: self, is_try: false }),
            Some(alone) if alone.is_tried || Instant::now() < alone.until => Err(alone.missing),
            Some(alone) => {
                alone.is_tried = true;
                Ok(Leave { breaker: self, is_try: true })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// The checker answered, whatever it found.
    pub(super) fn answered(self) {
        *self.breaker.state() = State::default();
    }

    /// The checker did not.
    pub(super) fn failed(self, missing: Missing) {
        let mut state = self.breaker.state();
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        match &state.alone {
            Some(alone) if self.is_try => {
                state.alone = Some(Alone::after((alone.pause * 2).min(PAUSE_MAX), missing));
            }
            // Asked before it was left alone; that says nothing new.
            Some(_) => {}
            None if state.failures_in_a_row >= FAILURES_MAX => {
                state.alone = Some(Alone::after(PAUSE_FIRST, missing));
            }
            None => {}
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let (true, Some(alone)) = (self.is_try, &mut self.breaker.state().alone) {
            alone.is_tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn fails(breaker: &Breaker) {
        breaker.leave().unwrap().failed(Missing::Unreachable);
    }

    fn left_alone() -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            fails(&breaker);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_have_it_left_alone_and_an_answer_between_them_counts_anew() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            fails(&breaker);
        }
        breaker.leave().unwrap().answered();
        for _ in 1..FAILURES_MAX {
            fails(&breaker);
        }
        fails(&breaker);
        assert_eq!(breaker.leave().unwrap_err(), Missing::Unreachable);
    }

    #[tokio::test(start_paused = true)]
    async fn one_tries_after_the_pause_and_each_try_that_fails_doubles_it() {
        let breaker = left_alone();
        let mut pause = PAUSE_FIRST;
        for _ in 0..8 {
            advance(pause - Duration::from_millis(1)).await;
            assert!(breaker.leave().is_err(), "too early");
            advance(Duration::from_millis(1)).await;
            let try_it = breaker.leave().unwrap();
            assert!(breaker.leave().is_err(), "only one tries");
            try_it.failed(Missing::Throttled);
            assert_eq!(breaker.leave().unwrap_err(), Missing::Throttled);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        advance(PAUSE_MAX).await;
        breaker.leave().unwrap().answered();
        assert!(breaker.leave().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_given_up_leaves_its_place_to_another() {
        let breaker = left_alone();
        advance(PAUSE_FIRST).await;
        drop(breaker.leave().unwrap());
        assert!(breaker.leave().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_before_it_was_left_alone_does_not_lengthen_the_pause() {
        let breaker = Breaker::default();
        let late = breaker.leave().unwrap();
        for _ in 0..FAILURES_MAX {
            fails(&breaker);
        }
        late.failed(Missing::Unreachable);
        advance(PAUSE_FIRST).await;
        assert!(breaker.leave().is_ok());
    }
}
