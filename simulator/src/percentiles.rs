//! Percentiles of durations in bounded memory: buckets that grow with the value, exact to one part in
//! 64, and to the microsecond below 128 µs.

use serde::Serialize;

/// Buckets for each doubling.
const SUB_BUCKETS: u64 = 64;
/// Values below this have a bucket of their own, in microseconds.
const EXACT_BELOW_US: u64 = 2 * SUB_BUCKETS;
/// log2 of [`EXACT_BELOW_US`].
const EXACT_BITS: u32 = 7;
/// log2 of the largest value told apart, in microseconds: twelve days.
const TOP_BITS: u32 = 40;
const BUCKETS: usize = (EXACT_BELOW_US + (TOP_BITS - EXACT_BITS) as u64 * SUB_BUCKETS) as usize;

/// Counts of durations.
#[derive(Debug, Clone)]
pub struct Durations {
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

/// Percentiles in milliseconds, by nearest rank: at least that share of the calls took no longer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Percentiles {
    /// How many calls.
    pub count: u64,
    /// Half of them.
    pub p50_ms: f64,
    /// Nine of ten.
    pub p90_ms: f64,
    /// 99 of a hundred.
    pub p99_ms: f64,
    /// 999 of a thousand.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, max_us: 0 }
    }
}

impl Durations {
    /// Counts one.
    pub fn add_us(&mut self, us: u64) {
        let us = us.min((1 << TOP_BITS) - 1);
        if let Some(count) = self.counts.get_mut(bucket(us)) {
            *count += 1;
        }
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The value that at least `share` (0 to 1) of all are no larger than, in microseconds; 0 if there
    /// are none.
    pub fn at_us(&self, share: f64) -> u64 {
        let rank = ((share.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return top_us(index as u64).min(self.max_us);
            }
        }
        0
    }

    /// The usual ones.
    pub fn percentiles(&self) -> Percentiles {
        let ms = |us: u64| us as f64 / 1_000.0;
        Percentiles {
            count: self.count,
            p50_ms: ms(self.at_us(0.5)),
            p90_ms: ms(self.at_us(0.9)),
            p99_ms: ms(self.at_us(0.99)),
            p999_ms: ms(self.at_us(0.999)),
            max_ms: ms(self.max_us),
        }
    }
}

fn bucket(us: u64) -> usize {
    if us < EXACT_BELOW_US {
        return us as usize;
    }
    let bits = 63 - us.leading_zeros();
    let sub = (us >> (bits - (EXACT_BITS - 1))) & (SUB_BUCKETS - 1);
    (EXACT_BELOW_US + u64::from(bits - EXACT_BITS) * SUB_BUCKETS + sub) as usize
}

/// The largest value of a bucket.
fn top_us(index: u64) -> u64 {
    if index < EXACT_BELOW_US {
        return index;
    }
    let above = index - EXACT_BELOW_US;
    let shift = above / SUB_BUCKETS + 1;
    ((SUB_BUCKETS + above % SUB_BUCKETS + 1) << shift) - 1
}

/// The nearest-rank percentile of sorted `values`; none of none.
pub fn of_sorted(values: &[u64], share: f64) -> Option<u64> {
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
        assert_eq!(of_sorted(&[], 0.5), None);
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
        fn every_value_is_in_its_bucket_and_within_a_64th(us in 0u64..(1 << TOP_BITS)) {
            let top = top_us(bucket(us) as u64);
            prop_assert!(us <= top && top - us <= us / 64, "{us} in a bucket up to {top}");
            prop_assert!(bucket(us) < BUCKETS);
        }

        #[test]
        fn percentiles_agree_with_sorting(mut values in proptest::collection::vec(0u64..10_000_000, 1..300),
                                          share in 0.0f64..=1.0) {
            let mut durations = Durations::default();
            values.iter().for_each(|us| durations.add_us(*us));
            values.sort_unstable();
            let exact = of_sorted(&values, share).unwrap();
            let told = durations.at_us(share);
            prop_assert!(exact <= told && told - exact <= exact / 64, "{exact} told as {told}");
        }
    }
}
