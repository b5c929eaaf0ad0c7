//! How fast a fleet drained, from the rows of its own report.

use punchtrail_simulator::report::Second;
use serde::Serialize;

/// How fast the fleet drained, in punches a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Drain {
    /// All punches, from the second of the first acknowledgement to that of the last.
    pub whole_per_s: f64,
    /// The same without the spread window: neither its seconds nor the punches acknowledged in
    /// them. Without a spread, the same as the whole.
    pub after_spread_per_s: f64,
    /// Which share of all punches that was: if little was left, the devices' own rate set the pace.
    pub after_spread_share: f64,
    /// When the last punch was acknowledged, in seconds after the gate.
    pub last_s: usize,
}

impl Drain {
    /// From the rows, for devices that spread their start over `spread_s` seconds.
    pub fn of(seconds: &[Second], spread_s: usize) -> Self {
        let busy = |second: &Second| second.acknowledged > 0;
        let Some((first, last)) = seconds.iter().position(busy).zip(seconds.iter().rposition(busy))
        else {
            return Self::default();
        };
        let sum = |rows: &[Second]| rows.iter().map(|row| row.acknowledged).sum::<u64>() as f64;
        let rate =
            |rows: &[Second]| if rows.is_empty() { 0.0 } else { sum(rows) / rows.len() as f64 };
        let (whole, after) =
            (&seconds[first..=last], &seconds[first.max(spread_s).min(last + 1)..=last]);
        Self {
            whole_per_s: rate(whole),
            after_spread_per_s: rate(after),
            after_spread_share: sum(after) / sum(whole),
            last_s: last + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(acknowledged: &[u64]) -> Vec<Second> {
        acknowledged
            .iter()
            .map(|&acknowledged| Second { acknowledged, ..Second::default() })
            .collect()
    }

    #[test]
    fn the_spread_window_counts_neither_with_its_time_nor_with_its_punches() {
        let rows = rows(&[0, 10, 30, 50, 70, 0, 40, 0]);
        let drain = Drain::of(&rows, 3);
        assert_eq!(drain.whole_per_s, 200.0 / 6.0);
        assert_eq!((drain.after_spread_per_s, drain.after_spread_share), (40.0, 0.8));
        assert_eq!(drain.last_s, 7);
        assert_eq!(Drain::of(&rows, 0).after_spread_per_s, drain.whole_per_s);
    }

    #[test]
    fn nothing_after_the_window_and_nothing_at_all_are_no_rates() {
        assert_eq!(Drain::of(&rows(&[5, 5]), 60).after_spread_per_s, 0.0);
        assert_eq!(Drain::of(&rows(&[0, 0]), 0), Drain::default());
    }
}
