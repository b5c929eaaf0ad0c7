//! How fast a device may try, so that ten thousand of them that find the server again at one moment
//! slow it down and never break it.
//!
//! Everything here is arithmetic on instants and dice that the caller brings; nothing waits, reads
//! a clock or rolls by itself.

use std::time::Duration;

use tokio::time::Instant;

/// The least time between two tries after a failure, in milliseconds, whatever dice or server say.
pub const TRY_FLOOR_MS: u64 = 1_000;
/// Ceiling of the first wait after a failure, in milliseconds; it doubles with each further
/// failure.
pub const BACKOFF_BASE_MS: u64 = 1_000;
/// Ceiling of any wait that the device chooses itself, in milliseconds.
pub const BACKOFF_CAP_MS: u64 = 60_000;
/// Tries that a device may make beyond the steady rate after failures. Full jitter can roll several
/// short waits in a row; the budget bounds what that adds up to.
pub const RETRY_BUDGET_MAX: u32 = 10;
/// How many tries of that budget come back in a minute.
pub const RETRY_BUDGET_PER_MINUTE: u32 = 4;
/// The longest wait a server can ask for, in seconds: a mistaken header must not silence a device.
pub const RETRY_AFTER_MAX_S: u64 = 3_600;
/// What a device adds to a wait that the server asked for, by dice: up to one part in so many of
/// it,
const RETRY_AFTER_JITTER_SHARE: u64 = 8;
/// a second at least, and at most so many milliseconds.
const RETRY_AFTER_JITTER_MAX_MS: u64 = 10_000;

/// A bucket of tokens that fills at a steady rate up to a limit.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    capacity: f64,
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket of `capacity` tokens that refills `per_minute` in a minute. Zeros count as
    /// one.
    pub fn full(capacity: u32, per_minute: u32, now: Instant) -> Self {
        let capacity = f64::from(capacity.max(1));
        Self {
            capacity,
            per_second: f64::from(per_minute.max(1)) / 60.0,
            tokens: capacity,
            at: now,
        }
    }

    /// Another rate and limit from now on; what is in it stays, up to the limit.
    pub fn retune(&mut self, capacity: u32, per_minute: u32, now: Instant) {
        self.fill(now);
        self.capacity = f64::from(capacity.max(1));
        self.per_second = f64::from(per_minute.max(1)) / 60.0;
        self.tokens = self.tokens.min(self.capacity);
    }

    fn fill(&mut self, now: Instant) {
        let passed_s = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed_s * self.per_second).min(self.capacity);
        self.at = self.at.max(now);
    }

    /// Whole tokens in it now.
    pub fn available(&mut self, now: Instant) -> u32 {
        self.fill(now);
        self.tokens as u32
    }

    /// When `wanted` tokens (at most the capacity) will be in it; now if they are.
    pub fn ready_at(&mut self, wanted: u32, now: Instant) -> Instant {
        self.fill(now);
        let missing = f64::from(wanted).min(self.capacity) - self.tokens;
        if missing <= 0.0 {
            return now;
        }
        // A millisecond on top, so that rounding never makes the caller look again too early.
        now + Duration::from_secs_f64(missing / self.per_second) + Duration::from_millis(1)
    }

    /// Takes `taken` tokens, never below none.
    pub fn take(&mut self, taken: u32, now: Instant) {
        self.fill(now);
        self.tokens = (self.tokens - f64::from(taken)).max(0.0);
    }
}

/// Waits after failures: exponential with full jitter, under a budget, never below the floor.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    cap_ms: u64,
    budget: TokenBucket,
}

impl Backoff {
    /// No failure yet. `cap_ms` bounds every wait the device chooses itself.
    pub fn new(cap_ms: u64, now: Instant) -> Self {
        Self {
            failures: 0,
            cap_ms: cap_ms.max(TRY_FLOOR_MS),
            budget: TokenBucket::full(RETRY_BUDGET_MAX, RETRY_BUDGET_PER_MINUTE, now),
        }
    }

    /// How many tries failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A try went well: the next failure starts from the shortest wait again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A try failed: when the next one may start. `dice` is a roll from 0 to 1; `retry_after` what
    /// the server asked for, which is always waited out, with up to an eighth on top so that those
    /// who were told the same don't all come back at once. Ours tells each another time: much later
    /// than that, and the server would have nothing to do meanwhile.
    pub fn failed(&mut self, retry_after: Option<Duration>, dice: f64, now: Instant) -> Instant {
        self.failures = self.failures.saturating_add(1);
        let dice = dice.clamp(0.0, 1.0);
        let own = now + Duration::from_millis(self.jittered_ms(dice));
        let budgeted = self.budget.ready_at(1, now);
        // Spent when it is there to be spent: an empty budget is a debt, not a fresh start.
        self.budget.take(1, budgeted);
        let asked = retry_after.map_or(now, |asked| {
            let asked = asked.min(Duration::from_secs(RETRY_AFTER_MAX_S));
            let share_ms = asked.as_millis() as u64 / RETRY_AFTER_JITTER_SHARE;
            let jitter_ms = share_ms.clamp(TRY_FLOOR_MS, RETRY_AFTER_JITTER_MAX_MS);
            now + asked + Duration::from_millis((dice * jitter_ms as f64) as u64)
        });
        own.max(asked).max(budgeted.min(now + Duration::from_millis(self.cap_ms)))
    }

    fn jittered_ms(&self, dice: f64) -> u64 {
        let doublings = (self.failures.saturating_sub(1)).min(20);
        let ceiling_ms = (BACKOFF_BASE_MS << doublings).min(self.cap_ms);
        ((dice * ceiling_ms as f64) as u64).max(TRY_FLOOR_MS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(120, 120, start);
        assert_eq!(bucket.available(start), 120);
        bucket.take(120, start);
        assert_eq!(bucket.available(start), 0);
        assert_eq!(bucket.ready_at(10, start), after(start, 5_001));
        assert_eq!(bucket.available(after(start, 5_000)), 10);
        assert_eq!(bucket.available(after(start, 3_600_000)), 120);
    }

    #[test]
    fn more_than_a_bucket_holds_is_waited_for_no_longer_than_a_full_one() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(2, 60, start);
        bucket.take(2, start);
        assert_eq!(bucket.ready_at(1_000, start), after(start, 2_001));
    }

    #[test]
    fn waits_grow_up_to_the_cap_and_start_over_after_a_success() {
        let start = Instant::now();
        let mut backoff = Backoff::new(BACKOFF_CAP_MS, start);
        let waits: Vec<u64> =
            (0..9).map(|_| (backoff.failed(None, 1.0, start) - start).as_millis() as u64).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(None, 1.0, start), after(start, 1_000));
    }

    #[test]
    fn short_rolls_in_a_row_run_into_the_budget() {
        let start = Instant::now();
        let mut backoff = Backoff::new(BACKOFF_CAP_MS, start);
        let mut now = start;
        let mut tries = 0;
        while now < after(start, 600_000) {
            now = backoff.failed(None, 0.0, now);
            tries += 1;
        }
        let most = RETRY_BUDGET_MAX + 10 * RETRY_BUDGET_PER_MINUTE + 1;
        assert!(tries <= most, "{tries} tries in ten minutes, budget {most}");
    }

    #[test]
    fn what_the_server_asks_is_waited_out_but_not_for_ever() {
        let start = Instant::now();
        let mut backoff = Backoff::new(BACKOFF_CAP_MS, start);
        let asked = Duration::from_secs(90);
        assert!(backoff.failed(Some(asked), 0.0, start) >= start + asked);
        assert!(backoff.failed(Some(asked), 1.0, start) > start + asked);
        let absurd = backoff.failed(Some(Duration::from_secs(10_000_000)), 1.0, start);
        assert!(absurd <= start + Duration::from_secs(RETRY_AFTER_MAX_S + 30));
    }

    proptest! {
        #[test]
        fn never_two_tight_tries(dice in proptest::collection::vec(0.0f64..=1.0, 1..40),
                                 asked in proptest::option::of(0u64..100)) {
            let start = Instant::now();
            let mut backoff = Backoff::new(0, start);
            let mut now = start;
            for roll in dice {
                let next = backoff.failed(asked.map(Duration::from_millis), roll, now);
                prop_assert!(next >= now + Duration::from_millis(TRY_FLOOR_MS));
                now = next;
            }
        }
    }
}
