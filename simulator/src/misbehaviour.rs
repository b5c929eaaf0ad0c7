//! What devices do wrong when told to: mistakes that clients in the field make, so that one sees
//! what they do to a server and to the devices that behave.

use std::fmt;

use clap::ValueEnum;
use ed25519_dalek::SigningKey;
use punchtrail_protocol::{
    signing::{CAPTURE_TYPE, sign, to_base64url},
    wire::BatchItem,
};
use rand::{RngExt, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// Pause between tries of a device that knows only one, in milliseconds.
pub const FIXED_RETRY_MS: u64 = 1_000;
/// Share of batches that are sent twice.
pub const DUPLICATES_SHARE: f64 = 0.3;
/// Share of garbage, of a batch's items.
pub const GARBAGE_SHARE: f64 = 0.02;
/// How far a wrong clock is off at most, in hours, either way; at least one.
pub const CLOCK_OFF_MAX_H: i64 = 12;
/// Longer than a capture may be, in bytes.
const TOO_LARGE_BYTES: usize = 5_000;

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Misbehaviour {
    /// No spread after a reconnect, no rate, no pause between batches
    NoThrottle,
    /// Every failure is followed by the same pause of a second, without growth or jitter
    FixedRetry,
    /// Waits as if the server had asked for nothing
    IgnoreRetryAfter,
    /// Sends three of ten batches twice
    Duplicates,
    /// Adds two in a hundred items that aren't captures
    Garbage,
    /// Captures and heartbeats by a clock that is hours off
    Clocks,
}

impl fmt::Display for Misbehaviour {
    /// Its name on the command line and in reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// What a device does otherwise than it should.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behaviour {
    /// It is one of those that misbehave.
    pub misbehaves: bool,
    /// No spread, rate or pause.
    pub no_throttle: bool,
    /// Always the same pause after a failure.
    pub fixed_retry: bool,
    pub ignore_retry_after: bool,
    pub duplicates: bool,
    pub garbage: bool,
    pub wrong_clock: bool,
    pub clock_off_s: i64,
    /// Its roster is outdated. That is no misbehaviour.
    pub stale_roster: bool,
}

impl Behaviour {
    /// One that does all of `wrong`.
    pub fn of(wrong: &[Misbehaviour]) -> Self {
        let does = |one| wrong.contains(&one);
        Self {
            misbehaves: !wrong.is_empty(),
            no_throttle: does(Misbehaviour::NoThrottle),
            fixed_retry: does(Misbehaviour::FixedRetry),
            ignore_retry_after: does(Misbehaviour::IgnoreRetryAfter),
            duplicates: does(Misbehaviour::Duplicates),
            garbage: does(Misbehaviour::Garbage),
            wrong_clock: does(Misbehaviour::Clocks),
            clock_off_s: 0,
            stale_roster: false,
        }
    }
}

/// A clock's error in seconds: one to [`CLOCK_OFF_MAX_H`] hours, either way.
pub fn clock_off_s(dice: &mut StdRng) -> i64 {
    let off_s = dice.random_range(3_600..=CLOCK_OFF_MAX_H * 3_600);
    if dice.random() { off_s } else { -off_s }
}

/// Items that can't be taken as punches, for a batch of `items`: no base64, a signature that
/// doesn't fit, signed bytes that are no capture, and too many bytes.
pub fn garbage(items: usize, key: &SigningKey, dice: &mut StdRng) -> Vec<BatchItem> {
    let wanted = (0..items).filter(|_| dice.random_bool(GARBAGE_SHARE)).count();
    (0..wanted)
        .map(|_| {
            let noise: [u8; 24] = dice.random();
            let noise = hex::encode(noise);
            let bytes = match dice.random_range(0..4) {
                0 => {
                    return BatchItem {
                        capture: format!("!{noise}!"),
                        signature: to_base64url(&[0; 64]),
                    };
                }
                1 => {
                    return BatchItem {
                        capture: to_base64url(noise.as_bytes()),
                        signature: to_base64url(&[7; 64]),
                    };
                }
                2 => noise.into_bytes(),
                _ => noise.into_bytes().repeat(TOO_LARGE_BYTES / 48 + 1),
            };
            let signature = sign(key, CAPTURE_TYPE, &bytes);
            BatchItem { capture: to_base64url(&bytes), signature: signature.to_string() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn names_read_back() {
        for one in Misbehaviour::value_variants() {
            assert_eq!(Misbehaviour::from_str(&one.to_string(), false), Ok(*one));
            assert_eq!(serde_json::to_value(one).unwrap(), one.to_string());
        }
        assert!(Misbehaviour::from_str("nothing", false).is_err());
    }

    #[test]
    fn garbage_is_two_in_a_hundred_and_repeatable() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let made = |seed| garbage(10_000, &key, &mut StdRng::seed_from_u64(seed));
        let first = made(1);
        assert!((140..260).contains(&first.len()), "{}", first.len());
        let captures = |items: &[BatchItem]| -> Vec<String> {
            items.iter().map(|item| item.capture.clone()).collect()
        };
        assert_eq!(captures(&first), captures(&made(1)));
        assert_ne!(captures(&first), captures(&made(2)));
    }

    #[test]
    fn a_wrong_clock_is_off_by_an_hour_at_least() {
        let mut dice = StdRng::seed_from_u64(5);
        let off: Vec<i64> = (0..200).map(|_| clock_off_s(&mut dice)).collect();
        assert!(off.iter().all(|s| (3_600..=CLOCK_OFF_MAX_H * 3_600).contains(&s.abs())));
        assert!(off.iter().any(|s| *s > 0) && off.iter().any(|s| *s < 0));
    }
}
