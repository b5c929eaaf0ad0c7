//! Percentiles of durations, in bounded memory, by HdrHistogram.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// To how many decimal digits durations are told apart.
const DIGITS: u8 = 3;
/// What is longer counts as this, in microseconds: twelve days.
const TOP_US: u64 = (1 << 40) - 1;

/// Counts of durations.
#[derive(Debug, Clone)]
pub struct Durations {
    counts: Histogram<u64>,
    /// Exact, as the histogram's own isn't.
    max_us: u64,
}

/// Percentiles in milliseconds, by nearest rank: at least that share of the calls took no longer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Default for Durations {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and tests make one")]
    fn default() -> Self {
        let counts = Histogram::new_with_max(TOP_US, DIGITS).expect("bounds that are taken");
        Self { counts, max_us: 0 }
    }
}

impl Durations {
    /// Counts one.
    pub fn add_us(&mut self, us: u64) {
        let us = us.min(TOP_US);
        self.counts.saturating_record(us);
        self.max_us = self.max_us.max(us);
    }

    /// The value that at least `share` (0 to 1) of all are no larger than, in microseconds; 0 if
    /// there are none.
    pub fn at_us(&self, share: f64) -> u64 {
        // Of nothing at all the histogram tells the lower end of the first bucket.
        self.counts.value_at_quantile(share.max(f64::MIN_POSITIVE)).min(self.max_us)
    }

    /// The usual ones.
    pub fn percentiles(&self) -> Percentiles {
        let ms = |us: u64| us as f64 / 1_000.0;
        Percentiles {
            count: self.counts.len(),
            p50_ms: ms(self.at_us(0.5)),
            p90_ms: ms(self.at_us(0.9)),
            p99_ms: ms(self.at_us(0.99)),
            p999_ms: ms(self.at_us(0.999)),
            max_ms: ms(self.max_us),
        }
    }
}

/// The nearest-rank percentile of sorted `values`; none of none.
pub fn of_sorted<T: Copy>(values: &[T], share: f64) -> Option<T> {
    let rank = ((share.clamp(0.0, 1.0) * values.len() as f64).ceil() as usize).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn none_gives_zeros() {
        assert_eq!(Durations::default().percentiles(), Percentiles::default());
        assert_eq!(of_sorted::<u64>(&[], 0.5), None);
    }

    #[test]
    fn small_values_are_exact() {
        let mut durations = Durations::default();
        (1..=100).for_each(|us| durations.add_us(us));
        assert_eq!(durations.at_us(0.0), 1);
        assert_eq!(durations.at_us(0.5), 50);
        assert_eq!(durations.at_us(0.99), 99);
        assert_eq!(durations.at_us(1.0), 100);
    }

    #[test]
    fn nearest_rank_is_a_value_that_was_there() {
        let values = [10, 20, 30, 40];
        assert_eq!(of_sorted(&values, 0.5), Some(20));
        assert_eq!(of_sorted(&values, 0.51), Some(30));
        assert_eq!(of_sorted(&values, 0.99), Some(40));
        assert_eq!(of_sorted(&values, 0.0), Some(10));
    }

    proptest! {
        #[test]
        fn every_value_is_told_within_a_64th(us in 0u64..(1 << 40)) {
            let mut durations = Durations::default();
            [us, TOP_US].into_iter().for_each(|us| durations.add_us(us));
            let told = durations.at_us(0.5);
            prop_assert!(us <= told && told - us <= us / 64, "{us} told as {told}");
        }

        #[test]
        fn percentiles_agree_with_sorting(
            mut values in proptest::collection::vec(0u64..10_000_000, 1..300),
            share in 0.0f64..=1.0,
        ) {
            let mut durations = Durations::default();
            values.iter().for_each(|us| durations.add_us(*us));
            values.sort_unstable();
            let exact = of_sorted(&values, share).unwrap();
            let told = durations.at_us(share);
            prop_assert!(exact <= told && told - exact <= exact / 64, "{exact} told as {told}");
        }
    }
}
