//! When a delivery is tried: at once, and after each failure a while later, seven times in all,
//! within 87 hours. Nothing is ever tried earlier than that.

use jiff::{SignedDuration, Timestamp};

/// How long after a failed try the next one comes, in seconds.
pub const WAITS_S: [i64; 6] = [60, 300, 1_800, 7_200, 43_200, 259_200];
/// How often a delivery is tried.
pub const TRIES_MAX: u32 = WAITS_S.len() as u32 + 1;
/// At most so much of a wait is added to it by chance, so that what failed together doesn't come
/// back together …
const JITTER_SHARE: f64 = 0.1;
/// … and never more than this, in seconds.
const JITTER_S_MAX: f64 = 900.0;

/// When the next try comes after that many, the last of which failed `now`; none after the last.
/// `asked` is the receiver's `Retry-After`, which puts it off and never brings it forward, and no
/// further than to where the try after it would come. `chance` is from 0 up to 1.
pub fn next(
    tries: u32,
    now: Timestamp,
    asked: Option<SignedDuration>,
    chance: f64,
) -> Option<Timestamp> {
    let at = usize::try_from(tries.checked_sub(1)?).ok()?;
    let wait_s = *WAITS_S.get(at)?;
    let most_s = WAITS_S.get(at + 1).copied().unwrap_or(wait_s);
    let asked_s = asked.map_or(0, |asked| asked.as_secs());
    let wait_s = wait_s.max(asked_s.min(most_s));
    let mut jitter_s = (wait_s as f64 * JITTER_SHARE).min(JITTER_S_MAX) * chance.clamp(0.0, 1.0);
    if asked_s >= wait_s {
        jitter_s = jitter_s.min((most_s - wait_s) as f64);
    }
    let jitter = SignedDuration::from_millis((jitter_s * 1e3) as i64);
    now.checked_add(SignedDuration::from_secs(wait_s) + jitter).ok()
}

/// What a `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3).
pub fn retry_after(value: &str, now: Timestamp) -> Option<SignedDuration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than a number holds is as long as can be.
        return Some(SignedDuration::from_secs(value.parse().unwrap_or(i64::from(u32::MAX))));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(at.duration_since(now).max(SignedDuration::ZERO))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn wait_s(tries: u32, asked: Option<i64>, chance: f64) -> Option<i64> {
        let asked = asked.map(SignedDuration::from_secs);
        next(tries, NOW, asked, chance).map(|at| at.as_second())
    }

    #[test]
    fn seven_tries_within_eighty_seven_hours() {
        let all: Vec<_> = (1..).map_while(|tries| wait_s(tries, None, 0.0)).collect();
        assert_eq!(all, WAITS_S);
        assert_eq!(all.iter().sum::<i64>(), 86 * 3_600 + 36 * 60);
        assert_eq!(wait_s(TRIES_MAX, None, 0.0), None);
        assert_eq!(wait_s(0, None, 0.0), None);
    }

    #[test]
    fn a_receiver_puts_a_try_off_no_further_than_to_the_next() {
        assert_eq!(wait_s(1, Some(10), 0.0), Some(60));
        assert_eq!(wait_s(1, Some(120), 0.0), Some(120));
        assert_eq!(wait_s(1, Some(86_400), 0.0), Some(300));
        assert_eq!(wait_s(6, Some(1_000_000), 0.0), Some(259_200));
        let now: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        let after = |text| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(after("99999999999999999999"), Some(i64::from(u32::MAX)));
        for garbage in ["", "-1", "soon", "1.5", "Sun, 99 Nov 1994 08:51:37 GMT"] {
            assert_eq!(after(garbage), None, "{garbage}");
        }
    }

    proptest! {
        #[test]
        fn chance_only_ever_adds(
            tries in 1u32..=6,
            asked in proptest::option::of(0i64..1_000_000),
            chance in 0.0..1.0f64,
        ) {
            let least = wait_s(tries, asked, 0.0).unwrap();
            let wait = wait_s(tries, asked, chance).unwrap();
            prop_assert!(least >= WAITS_S[tries as usize - 1]);
            prop_assert!(wait >= least && wait <= least + 900);
        }
    }
}
