//! The highest rate that holds, and what holding means.

/// The search ends when the lowest rate that broke is within this of the highest that held, times.
const CLOSE_ENOUGH: f64 = 1.1;
/// The most rates that are tried.
const TRIES_MAX: usize = 10;
/// No rate below this is tried, in punches a second.
const RATE_MIN: f64 = 0.1;
/// What waits may grow by so many punches without being taken for growth: chance.
const CHANCE: f64 = 2.0;
/// Or by this part of what came meanwhile.
const GROWTH: f64 = 0.05;

/// Doubles until a rate breaks (or halves until one holds), then tries between.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    first: f64,
    /// The highest that held.
    pub held: Option<f64>,
    /// The lowest that broke.
    pub broke: Option<f64>,
    tries: usize,
}

impl Search {
    /// Begins at this rate.
    pub fn from(first: f64) -> Self {
        Self { first, held: None, broke: None, tries: 0 }
    }

    /// The rate to try next; none when it is over.
    pub fn next(&self) -> Option<f64> {
        if self.tries >= TRIES_MAX {
            return None;
        }
        match (self.held, self.broke) {
            (None, None) => Some(self.first),
            (Some(held), None) => Some(held * 2.0),
            (None, Some(broke)) => Some(broke / 2.0).filter(|rate| *rate >= RATE_MIN),
            (Some(held), Some(broke)) if broke <= held * CLOSE_ENOUGH => None,
            (Some(held), Some(broke)) => Some((held + broke) / 2.0),
        }
    }

    /// How a rate fared. One that held below one that broke is believed, whichever came first.
    pub fn note(&mut self, rate: f64, held: bool) {
        self.tries += 1;
        match held {
            true => self.held = Some(self.held.map_or(rate, |best| best.max(rate))),
            false => self.broke = Some(self.broke.map_or(rate, |least| least.min(rate))),
        }
    }
}

/// Whether what waits grew, by looks at it in even steps from the first punch until the last was
/// due, during which `arrivals` came: the last quarter is held against the second, so that the
/// start has no part in it.
pub fn grows(backlog: &[u64], arrivals: f64) -> bool {
    let quarter = backlog.len() / 4;
    if quarter == 0 {
        return false;
    }
    let mean = |looks: &[u64]| looks.iter().sum::<u64>() as f64 / looks.len() as f64;
    let early = mean(&backlog[quarter..2 * quarter]);
    let late = mean(&backlog[backlog.len() - quarter..]);
    late - early > CHANCE.max(GROWTH * arrivals / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where every rate up to `limit` holds.
    fn found(first: f64, limit: f64) -> Search {
        let mut search = Search::from(first);
        while let Some(rate) = search.next() {
            search.note(rate, rate <= limit);
        }
        search
    }

    #[test]
    fn the_highest_rate_that_holds_is_found_within_a_tenth_from_above_and_below() {
        for (first, limit) in [(20.0, 34.0), (20.0, 20.0), (20.0, 3.3), (1.0, 9.9), (16.0, 200.0)] {
            let search = found(first, limit);
            let (held, broke) = (search.held.unwrap(), search.broke.unwrap());
            assert!(held <= limit && broke > limit, "{search:?}");
            assert!(broke <= held * CLOSE_ENOUGH, "{search:?}");
        }
    }

    #[test]
    fn nothing_holds_and_everything_holds_both_end() {
        let none = found(10.0, 0.0);
        assert_eq!(none.held, None);
        assert!(none.broke.unwrap() < 2.0 * RATE_MIN);
        let all = found(10.0, f64::INFINITY);
        assert_eq!((all.broke, all.tries), (None, TRIES_MAX));
    }

    #[test]
    fn a_backlog_grows_when_less_than_nineteen_of_twenty_are_served() {
        // 20 s at 10 a second, looked at four times a second.
        let served = |per_s: f64| -> Vec<u64> {
            (0..80).map(|look| 3 + (f64::from(look) / 4.0 * (10.0 - per_s)) as u64).collect()
        };
        assert!(!grows(&served(10.0), 200.0));
        assert!(!grows(&served(9.7), 200.0));
        assert!(grows(&served(9.0), 200.0));
        // One slow moment in the middle, and too little to tell.
        let mut bumpy = served(10.0);
        bumpy[30..45].fill(30);
        assert!(!grows(&bumpy, 200.0));
        assert!(!grows(&[1, 1, 3, 3], 5.0));
        assert!(!grows(&[9], 5.0) && !grows(&[], 0.0));
    }
}
