//! What the fleet says of its own storm: the parts of the simulator's report that are judged here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The simulator's report.
#[derive(Debug, Clone, Deserialize)]
pub struct FleetReport {
    /// Whether everything is acknowledged and agrees.
    pub outcome: Outcome,
    /// How soon devices were drained.
    pub drained: Drained,
    /// Calls that failed.
    pub failures: Failures,
    /// A row a second from the gate on.
    pub seconds: Vec<Second>,
}

/// How it ended.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Outcome {
    /// Everything is acknowledged, and everything agrees.
    pub complete: bool,
    /// Punches that waited when the gate opened.
    pub outstanding: u64,
    /// Of them, acknowledged.
    pub acknowledged: u64,
    /// Devices that delivered everything and said so.
    pub devices_finished: usize,
    /// How many things don't agree.
    pub discrepancies: usize,
    /// What the files say that the server answered.
    pub by_status: BTreeMap<String, u64>,
}

/// How soon devices were drained.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
pub struct Drained {
    /// All.
    pub all: DrainedOf,
    /// Those that behave.
    pub well_behaved: DrainedOf,
}

/// The same of one kind, in seconds after the gate.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
pub struct DrainedOf {
    /// How many devices.
    pub devices: usize,
    /// How many are drained.
    pub drained: usize,
    /// Half of the drained ones.
    pub p50_s: Option<f64>,
    /// The last of the drained ones.
    pub last_s: Option<f64>,
}

/// Calls that failed.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Failures {
    /// Refused with 503.
    pub busy_503: u64,
    /// Refused with 429.
    pub busy_429: u64,
    /// Refused otherwise.
    pub refused: u64,
    /// Without an answer.
    pub unanswered: u64,
    /// Calls after a failed one of the same device.
    pub retries: u64,
}

/// One second after the gate opened.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Second {
    /// Punches acknowledged.
    pub acknowledged: u64,
}

/// How fast the fleet drained, in punches a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Drain {
    /// All punches, from the second of the first acknowledgement to that of the last.
    pub whole_per_s: f64,
    /// The same without the spread window: neither its seconds nor the punches acknowledged in them.
    /// Without a spread, the same as the whole.
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
        acknowledged.iter().map(|&acknowledged| Second { acknowledged }).collect()
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
