//! What a device knows of time: a wall clock that may be wrong, and a monotonic one that isn't.
//!
//! The wall clock's reading goes into captures as it is and is never corrected here; the server
//! works out the true time from the monotonic clock of the same boot. Everything that reads time
//! goes through [`Clock`], so that a test, the simulator or the demo can run a device whose clock
//! is hours off.

use std::{sync::OnceLock, time::Instant};

use jiff::tz::TimeZone;
use punchtrail_protocol::{BootId, Time};
use uuid::Uuid;

/// Where Linux says which boot this is: a UUID, new at each boot, the same for every process.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";
/// jiff's and CLDR's name for a zone that is not known.
const UNKNOWN_ZONE: &str = "Etc/Unknown";

/// One reading of all clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    pub time: Time,
    /// The wall clock's offset from UTC, in seconds.
    pub utc_offset_s: i32,
    /// The wall clock's IANA time zone, `Etc/Unknown` if the machine doesn't say.
    pub tz: String,
    pub boot: BootId,
    /// Milliseconds since the boot, time asleep included.
    pub uptime_ms: u64,
}

/// Reads the time.
pub trait Clock: Send + Sync + 'static {
    /// All clocks at one moment.
    fn read(&self) -> Moment;
}

/// The machine's clocks, the wall clock off by a chosen amount.
#[derive(Debug, Clone, Default)]
pub struct MachineClock {
    /// Added to the wall clock, in seconds: for rehearsing a device whose clock is wrong.
    pub offset_s: i64,
    /// Given out instead of the machine's boot: for rehearsing a reboot.
    pub boot: Option<BootId>,
}

impl Clock for MachineClock {
    fn read(&self) -> Moment {
        let time =
            Time::from(jiff::Timestamp::now()).plus_millis(self.offset_s.saturating_mul(1_000));
        let zone = TimeZone::system();
        let (machine_boot, uptime_ms) = boot_and_uptime();
        Moment {
            time,
            utc_offset_s: zone.to_offset(time.timestamp()).seconds(),
            tz: zone.iana_name().unwrap_or(UNKNOWN_ZONE).to_owned(),
            boot: self.boot.unwrap_or(machine_boot),
            uptime_ms,
        }
    }
}

#[cfg(target_os = "linux")]
fn boot_and_uptime() -> (BootId, u64) {
    static BOOT: OnceLock<Option<BootId>> = OnceLock::new();
    let boot = BOOT.get_or_init(|| {
        let text = std::fs::read_to_string(BOOT_ID_PATH).ok()?;
        Uuid::try_parse(text.trim()).ok().map(BootId)
    });
    match *boot {
        Some(boot) => {
            let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let whole_ms = u64::try_from(since.tv_sec).unwrap_or(0) * 1_000;
            (boot, whole_ms + u64::try_from(since.tv_nsec).unwrap_or(0) / 1_000_000)
        }
        None => process_boot(),
    }
}

#[cfg(not(target_os = "linux"))]
fn boot_and_uptime() -> (BootId, u64) {
    process_boot()
}

/// Where the machine doesn't name its boot, the process is the boot: its captures can't be dated by
/// another process's heartbeat then, and the server says that the offset is unknown.
fn process_boot() -> (BootId, u64) {
    static START: OnceLock<(BootId, Instant)> = OnceLock::new();
    let (boot, start) = START.get_or_init(|| (BootId(Uuid::new_v4()), Instant::now()));
    (*boot, u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_moves_the_wall_clock_and_nothing_else() {
        let right = MachineClock::default();
        let fast = MachineClock { offset_s: 3 * 3_600, boot: None };
        let (before, shown, after) = (right.read(), fast.read(), right.read());
        let three_hours_ms = 3 * 3_600 * 1_000;
        assert!(shown.time >= before.time.plus_millis(three_hours_ms));
        assert!(shown.time <= after.time.plus_millis(three_hours_ms));
        assert_eq!(shown.boot, before.boot);
        assert!((before.uptime_ms..=after.uptime_ms).contains(&shown.uptime_ms));
    }

    #[test]
    fn the_machines_boot_is_the_same_in_every_reading_until_one_is_given() {
        let boot = BootId(Uuid::new_v4());
        assert_eq!(MachineClock::default().read().boot, MachineClock::default().read().boot);
        assert_eq!(MachineClock { offset_s: 0, boot: Some(boot) }.read().boot, boot);
    }
}
