//! So many a minute, on this node. Exact enough to stop guessing, and no more than that.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);

/// Counts what happens in the running minute.
#[derive(Debug)]
pub struct PerMinute {
    max: u32,
    window: Mutex<(Instant, u32)>,
}

impl PerMinute {
    /// At most `max` a minute.
    pub fn new(max: u32) -> Self {
        Self { max, window: Mutex::new((Instant::now(), 0)) }
    }

    /// For how many seconds more everything is used up; none when something is left.
    pub fn used_up_for_s(&self) -> Option<u64> {
        self.used_up_at(Instant::now())
    }

    /// Counts one.
    pub fn count(&self) {
        self.count_at(Instant::now());
    }

    fn used_up_at(&self, now: Instant) -> Option<u64> {
        let (since, counted) = *self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let left = WINDOW.checked_sub(now.saturating_duration_since(since))?;
        (counted >= self.max).then(|| left.as_secs() + 1)
    }

    fn count_at(&self, now: Instant) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.0) >= WINDOW {
            *window = (now, 0);
        }
        window.1 = window.1.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_minute_is_a_new_count() {
        let quota = PerMinute::new(2);
        let start = Instant::now();
        quota.count_at(start);
        assert_eq!(quota.used_up_at(start), None);
        quota.count_at(start);
        assert!(quota.used_up_at(start).is_some_and(|seconds| seconds <= 61));
        assert_eq!(quota.used_up_at(start + 2 * WINDOW), None);
        quota.count_at(start + 2 * WINDOW);
        assert_eq!(quota.used_up_at(start + 2 * WINDOW), None);
    }
}
