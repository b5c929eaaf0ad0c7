//! What time it is: by the database's clock, which all nodes share.
//!
//! Devices learn their own clock's error from the server's time, and punches are judged by when
//! they were received. A node whose clock is an hour off would refer honest punches, and tell its
//! devices another time than its neighbour does. So each node measures how far its clock is from
//! the database's whenever it looks at the head, and reckons with that.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use jiff::{SignedDuration, Timestamp};
use punchtrail_protocol::Time;

/// A measurement that took longer than this says too little, in microseconds.
const ROUND_TRIP_US_MAX: i64 = 500_000;
/// Smaller changes are what measuring is uncertain by, in microseconds: time doesn't jump for them.
const CHANGE_US_MIN: i64 = 50_000;
/// From here on an operator should know, in microseconds.
const WORTH_SAYING_US: i64 = 2_000_000;

/// The time as all nodes have it. Cheap to clone; all clones know the same.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// The database's clock less the node's, in microseconds.
    offset_us: Arc<AtomicI64>,
    said: Arc<AtomicBool>,
    /// How far the node's clock is ahead of the machine's: for drills.
    ahead: SignedDuration,
}

impl Clock {
    /// As if the node's own clock were ahead of the machine's by so much.
    pub fn ahead_by(ahead: SignedDuration) -> Self {
        Self { ahead, ..Self::default() }
    }

    /// The node's own clock.
    pub(super) fn own(&self) -> Timestamp {
        Timestamp::now() + self.ahead
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        let offset = SignedDuration::from_micros(self.offset_us.load(Ordering::Relaxed));
        (self.own() + offset).into()
    }

    /// The database said what time it was, between these two of the node's own.
    pub(super) fn measured(&self, database_us: i64, asked: Timestamp, answered: Timestamp) {
        let (asked_us, answered_us) = (asked.as_microsecond(), answered.as_microsecond());
        let took_us = answered_us - asked_us;
        if !(0..=ROUND_TRIP_US_MAX).contains(&took_us) {
            return;
        }
        let offset_us = database_us - (asked_us + took_us / 2);
        let known_us = self.offset_us.load(Ordering::Relaxed);
        if (offset_us - known_us).abs() >= CHANGE_US_MIN {
            self.offset_us.store(offset_us, Ordering::Relaxed);
        }
        let seconds = -(offset_us as f64) / 1_000_000.0;
        metrics::gauge!("punchtrail_clock_offset_seconds").set(seconds);
        let is_off = offset_us.abs() >= WORTH_SAYING_US;
        if self.said.swap(is_off, Ordering::Relaxed) != is_off {
            if is_off {
                tracing::warn!(
                    ahead_s = seconds,
                    "this node's clock is not the database's, by which it reckons; set one of them \
                     right"
                );
            } else {
                tracing::info!("this node's clock agrees with the database's again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn off_by_ms(clock: &Clock, from: Timestamp) -> i64 {
        clock.now().millis_since(from.into()).abs()
    }

    #[test]
    fn a_node_whose_clock_is_an_hour_off_tells_the_database_s_time() {
        for ahead in [HOUR, -HOUR] {
            let clock = Clock::ahead_by(ahead);
            let (asked, database) = (clock.own(), Timestamp::now());
            assert!(off_by_ms(&clock, database) > 3_500_000, "nothing is known yet");
            clock.measured(database.as_microsecond(), asked, clock.own());
            assert!(off_by_ms(&clock, Timestamp::now()) < 60_000);
        }
    }

    #[test]
    fn what_says_too_little_is_not_believed() {
        let clock = Clock::default();
        let now = Timestamp::now();
        let later = now + SignedDuration::from_secs(3);
        clock.measured((now + HOUR).as_microsecond(), now, later);
        assert_eq!(clock.offset_us.load(Ordering::Relaxed), 0, "a slow answer");
        clock.measured(now.as_microsecond() + CHANGE_US_MIN / 2, now, now);
        assert_eq!(clock.offset_us.load(Ordering::Relaxed), 0, "a small change");
    }
}
