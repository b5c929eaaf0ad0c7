//! A simulated device's clocks.

use punchtrail_device::clock::{Clock, MachineClock, Moment};

/// Added to the machine's uptime, in milliseconds, so that a capture of days ago is of this boot.
const UPTIME_AHEAD_MS: u64 = 31 * 86_400_000;

/// The machine's clocks as a simulated device has them: up for long, and off by some.
#[derive(Debug)]
pub struct SimulatedClock(MachineClock);

impl SimulatedClock {
    /// Off by so many seconds.
    pub fn off_by(offset_s: i64) -> Self {
        Self(MachineClock { offset_s, boot: None })
    }
}

impl Clock for SimulatedClock {
    fn read(&self) -> Moment {
        let mut moment = self.0.read();
        moment.uptime_ms += UPTIME_AHEAD_MS;
        moment
    }
}
