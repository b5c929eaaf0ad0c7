//! The site's policy as this device follows it: every number within a range of the device's own, so
//! that nobody who can set a policy, or stands in between, can make a device spin, stand still or
//! forget too soon. docs/device-agent.md names the ranges.

use std::ops::RangeInclusive;

use punchtrail_protocol::wire::{BATCH_ITEMS_MAX, DevicePolicy};

/// One day in seconds.
const DAY_S: u32 = 86_400;

/// Punches in a batch.
pub const BATCH_MAX: RangeInclusive<u32> = 1..=BATCH_ITEMS_MAX as u32;
/// Drain rate.
pub const PUNCHES_PER_MINUTE: RangeInclusive<u32> = 1..=60_000;
/// Spread after a reconnect, in seconds.
pub const RECONNECT_SPREAD_S: RangeInclusive<u32> = 0..=3_600;
/// Seconds from one heartbeat to the next.
pub const HEARTBEAT_S: RangeInclusive<u32> = 5..=DAY_S;
/// How long what was acknowledged is kept, in seconds. A server may ask for less than the floor; a
/// device that gave in could be made to forget what a restore would lack.
pub const RESTORE_WINDOW_S: RangeInclusive<u32> = 7 * DAY_S..=366 * DAY_S;
/// Languages that are kept.
pub const LANGUAGES_MAX: usize = 16;
/// The longest language tag that is kept, in bytes.
pub const LANGUAGE_BYTES_MAX: usize = 35;

/// `told`, within this device's ranges: what is out of one is taken as the nearest that isn't.
pub fn followed(told: DevicePolicy) -> DevicePolicy {
    let within = |value: u32, range: RangeInclusive<u32>| value.clamp(*range.start(), *range.end());
    let kept = |language: &String| language.len() <= LANGUAGE_BYTES_MAX;
    DevicePolicy {
        batch_max: within(told.batch_max, BATCH_MAX),
        punches_per_minute: within(told.punches_per_minute, PUNCHES_PER_MINUTE),
        reconnect_spread_s: within(told.reconnect_spread_s, RECONNECT_SPREAD_S),
        heartbeat_s: within(told.heartbeat_s, HEARTBEAT_S),
        restore_window_s: within(told.restore_window_s, RESTORE_WINDOW_S),
        languages: told.languages.into_iter().filter(kept).take(LANGUAGES_MAX).collect(),
        ..told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_all(value: u32) -> DevicePolicy {
        DevicePolicy {
            batch_max: value,
            punches_per_minute: value,
            reconnect_spread_s: value,
            heartbeat_s: value,
            restore_window_s: value,
            languages: vec!["x".repeat(value.min(1_000) as usize); 40],
            ..DevicePolicy::default()
        }
    }

    fn numbers(policy: &DevicePolicy) -> [u32; 5] {
        [
            policy.batch_max,
            policy.punches_per_minute,
            policy.reconnect_spread_s,
            policy.heartbeat_s,
            policy.restore_window_s,
        ]
    }

    #[test]
    fn a_policy_of_zeros_still_delivers_and_forgets_nothing_early() {
        assert_eq!(numbers(&followed(of_all(0))), [1, 1, 0, 5, 604_800]);
        assert_eq!(followed(of_all(0)).languages.len(), LANGUAGES_MAX);
    }

    #[test]
    fn a_policy_of_ends_overruns_nothing_and_forgets_some_day() {
        let most = followed(of_all(u32::MAX));
        assert_eq!(numbers(&most), [500, 60_000, 3_600, 86_400, 366 * 86_400]);
        assert!(most.languages.is_empty());
    }

    #[test]
    fn the_defaults_are_within_the_ranges() {
        assert_eq!(followed(DevicePolicy::default()), DevicePolicy::default());
    }
}
