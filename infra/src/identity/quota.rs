//! So many calls a second, and no more: callers wait their turn, in the order they came.
//!
//! Amazon limits the calls to each of its actions per account and region, and answers what is above
//! with an error. Ten thousand pictures at once would be mostly such errors; here they are a queue.
//! Calls are spaced evenly, without a burst, so no window of a second holds more than the limit.
//! Where the account's limit turns out lower than what was configured, or is shared with others,
//! each throttled answer halves the rate, which then climbs back evenly.
//!
//! The line is as long as there are checks under way, which whoever starts them bounds. Tries that
//! the SDK repeats by itself stand in no line; each that was throttled slows the rate all the same.
//!
//! `governor` wakes its waiters in no order and can't change its rate; a fair lock can both.

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How long a rate of nothing would take to climb back to the whole.
pub const RECOVERY: Duration = Duration::from_secs(60);
/// Throttled answers within this time of one that slowed the rate belong to it.
pub const ONE_THROTTLING: Duration = Duration::from_secs(1);
/// The slowest: this fraction of the whole rate.
pub const SLOWEST: f64 = 1.0 / 16.0;

/// A limit to the rate of calls.
#[derive(Debug)]
pub struct Quota {
    whole_per_second: f64,
    slowed: Mutex<Option<Slowed>>,
    /// When the next call may start. Whoever holds it is first in line; the lock is fair.
    next: tokio::sync::Mutex<Instant>,
}

/// When a rate was last slowed, and to what.
#[derive(Debug, Clone, Copy)]
struct Slowed {
    at: Instant,
    per_second: f64,
}

impl Quota {
    /// One that nobody waits for yet.
    pub fn new(calls_per_second: NonZeroU32) -> Self {
        Self {
            whole_per_second: f64::from(calls_per_second.get()),
            slowed: Mutex::new(None),
            next: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    /// Waits until it is the caller's turn. Who is dropped while waiting leaves the line and takes
    /// no turn.
    pub async fn turn(&self) {
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + Duration::from_secs_f64(1.0 / self.per_second());
    }

    /// Halves the rate: a call was throttled.
    pub fn throttled(&self) {
        let now = Instant::now();
        let per_second = (self.per_second() / 2.0).max(self.whole_per_second * SLOWEST);
        let mut slowed = self.slowed.lock().unwrap_or_else(PoisonError::into_inner);
        if slowed.is_none_or(|before| now.duration_since(before.at) >= ONE_THROTTLING) {
            *slowed = Some(Slowed { at: now, per_second });
        }
    }

    /// The rate now, in calls a second.
    pub fn per_second(&self) -> f64 {
        let slowed = *self.slowed.lock().unwrap_or_else(PoisonError::into_inner);
        slowed.map_or(self.whole_per_second, |slowed| {
            let climbed = slowed.at.elapsed().as_secs_f64() / RECOVERY.as_secs_f64();
            self.whole_per_second.min(slowed.per_second + self.whole_per_second * climbed)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::*;

    fn of(calls_per_second: u32) -> Arc<Quota> {
        Arc::new(Quota::new(NonZeroU32::new(calls_per_second).unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn callers_take_turns_evenly_and_in_their_order() {
        let (quota, begun) = (of(5), Instant::now());
        let order = Arc::new(Mutex::new(Vec::new()));
        let calls = (0..11).map(|caller| {
            let (quota, order) = (quota.clone(), order.clone());
            async move {
                quota.turn().await;
                order.lock().unwrap().push((caller, begun.elapsed().as_millis()));
            }
        });
        futures::future::join_all(calls).await;
        // The clock of tokio counts whole milliseconds, and rounds up.
        for (place, &(caller, at_ms)) in order.lock().unwrap().iter().enumerate() {
            assert_eq!(caller, place);
            assert!(at_ms >= place as u128 * 200 && at_ms <= place as u128 * 201, "{at_ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_line_takes_no_turn() {
        let (quota, begun) = (of(1), Instant::now());
        quota.turn().await;
        let leaving = tokio::spawn({
            let quota = quota.clone();
            async move { quota.turn().await }
        });
        tokio::task::yield_now().await;
        leaving.abort();
        assert!(leaving.await.unwrap_err().is_cancelled());
        quota.turn().await;
        assert_eq!(begun.elapsed().as_secs(), 1, "the second turn, not the third");
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_answer_halves_the_rate_and_it_climbs_back() {
        let quota = of(16);
        quota.throttled();
        quota.throttled();
        assert_eq!(quota.per_second(), 8.0, "two at once are one");
        advance(ONE_THROTTLING).await;
        for _ in 0..10 {
            quota.throttled();
            advance(ONE_THROTTLING).await;
        }
        let slowest = quota.per_second();
        assert!((1.0..1.5).contains(&slowest), "{slowest}");
        advance(RECOVERY / 2).await;
        assert!(quota.per_second() > 8.0);
        advance(RECOVERY / 2).await;
        assert_eq!(quota.per_second(), 16.0);
    }
}
