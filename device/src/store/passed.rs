//! How much time has surely passed for an identity, so that nothing is forgotten on one clock's
//! word.
//!
//! A server's clock may leap, by mistake or because somebody wants devices to forget; so may the
//! device's, and its uptime stands still while it is off. So each answer that carries the server's
//! time is read together with all clocks of the device, and from one reading to the next as much
//! time has passed as all of them agree on: the least of the differences, none if one went back.
//! After a reboot uptime says nothing, and a wall clock that was just set may be as wrong as the
//! server's that set it: then a day at most counts, however long the device was off. So what is
//! added up is mostly less than the time that passed, and something is kept longer; more it can be
//! only where both clocks leapt together while the device was off, and then by a day each time.

use punchtrail_protocol::{BootId, Time};
use sqlx::Row;

use super::{Db, StoreError, from_stored, identity::IdentityId, to_stored};
use crate::clock::Moment;

/// The most that counts from the last answer of a boot to the first of another, in milliseconds.
pub const OFF_MAX_MS: u64 = 86_400_000;

/// The clocks at one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    server: Time,
    wall: Time,
    boot: BootId,
    uptime_ms: u64,
}

impl Reading {
    /// The time that all clocks agree has passed since `earlier`, in milliseconds.
    fn surely_since(&self, earlier: &Self) -> u64 {
        let forward =
            |later: Time, earlier| u64::try_from(later.millis_since(earlier)).unwrap_or(0);
        let own = match self.boot == earlier.boot {
            true => self.uptime_ms.saturating_sub(earlier.uptime_ms),
            false => OFF_MAX_MS,
        };
        own.min(forward(self.wall, earlier.wall)).min(forward(self.server, earlier.server))
    }
}

/// Reads the clocks at an answer that carried `server`. Gives the time that has surely passed since
/// the identity's first such answer (or the upgrade to a program that counts it), in milliseconds.
///
/// # Errors
/// When the store refuses.
pub async fn read(
    db: Db<'_>,
    identity: IdentityId,
    at: &Moment,
    server: Time,
) -> Result<u64, StoreError> {
    let now = Reading { server, wall: at.time, boot: at.boot, uptime_ms: at.uptime_ms };
    let row = sqlx::query(
        "SELECT passed_ms, read_server_ms, read_wall_ms, read_boot, read_uptime_ms FROM contact
         WHERE identity = ?",
    )
    .bind(identity)
    .fetch_one(&mut *db)
    .await?;
    let number = |column: &str| row.try_get::<Option<i64>, _>(column);
    let boot: Option<String> = row.try_get("read_boot")?;
    let earlier =
        match (number("read_server_ms")?, number("read_wall_ms")?, boot, number("read_uptime_ms")?)
        {
            (Some(server), Some(wall), Some(boot), Some(uptime)) => Some(Reading {
                server: Time::from_millis(server),
                wall: Time::from_millis(wall),
                boot: boot.parse().map_err(StoreError::unreadable)?,
                uptime_ms: from_stored(uptime),
            }),
            _ => None,
        };
    let step_ms = earlier.map_or(0, |earlier| now.surely_since(&earlier));
    let passed_ms = from_stored(row.try_get("passed_ms")?).saturating_add(step_ms);
    sqlx::query(
        "UPDATE contact SET passed_ms = ?, read_server_ms = ?, read_wall_ms = ?, read_boot = ?,
             read_uptime_ms = ?
         WHERE identity = ?",
    )
    .bind(to_stored(passed_ms))
    .bind(now.server.millis())
    .bind(now.wall.millis())
    .bind(now.boot.to_string())
    .bind(to_stored(now.uptime_ms))
    .bind(identity)
    .execute(db)
    .await?;
    Ok(passed_ms)
}

/// Until when something must have been acknowledged to be forgotten now, by every clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// By the server's clock.
    pub server: Time,
    /// By the time that has surely passed, in milliseconds; negative before that much has.
    pub passed_ms: i64,
}

impl Until {
    /// What was acknowledged `window_s` seconds before the server's clock showed `server` and
    /// `passed_ms` had passed.
    pub fn before(server: Time, passed_ms: u64, window_s: u32) -> Self {
        let window_ms = i64::from(window_s) * 1_000;
        Self { server: server.plus_millis(-window_ms), passed_ms: to_stored(passed_ms) - window_ms }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const YEAR_MS: i64 = 365 * DAY_MS;

    /// What is true at a moment, and what the clocks show.
    fn reading(boot: u128, uptime_ms: i64, wall_ms: i64, server_ms: i64) -> Reading {
        Reading {
            server: Time::from_millis(server_ms),
            wall: Time::from_millis(wall_ms),
            boot: BootId(Uuid::from_u128(boot)),
            uptime_ms: uptime_ms as u64,
        }
    }

    fn passed(readings: &[Reading]) -> i64 {
        readings.windows(2).map(|pair| pair[1].surely_since(&pair[0]) as i64).sum()
    }

    #[test]
    fn clocks_that_agree_count_in_full() {
        let at = |days: i64| reading(1, days * DAY_MS, YEAR_MS + days * DAY_MS, days * DAY_MS);
        assert_eq!(passed(&[at(0), at(1), at(31)]), 31 * DAY_MS);
    }

    #[test]
    fn one_clock_that_leaps_counts_for_nothing() {
        let now = 50 * YEAR_MS;
        let before = reading(1, 1_000, now, now);
        for leapt in [
            reading(1, 61_000, now + 60_000, now + YEAR_MS),
            reading(1, 61_000, now + YEAR_MS, now + 60_000),
            reading(1, 61_000, now + YEAR_MS, now + YEAR_MS),
            reading(1, YEAR_MS, now + 60_000, now + YEAR_MS),
        ] {
            assert_eq!(passed(&[before, leapt]), 60_000, "{leapt:?}");
        }
        // And back again: what went back counts for nothing either.
        let leapt = reading(1, 61_000, now + 60_000, now + YEAR_MS);
        let back = reading(1, 121_000, now + 120_000, now + 120_000);
        let on = reading(1, 181_000, now + 180_000, now + 180_000);
        assert_eq!(passed(&[before, leapt, back, on]), 120_000);
    }

    #[test]
    fn a_device_that_was_off_counts_a_day_at_most_and_none_if_a_clock_went_back() {
        let now = 50 * YEAR_MS;
        let before = reading(1, 1_000, now, now);
        let hour = 3_600_000;
        assert_eq!(passed(&[before, reading(2, 0, now + hour, now + hour)]), hour);
        let weeks = 21 * DAY_MS;
        assert_eq!(passed(&[before, reading(2, 0, now + weeks, now + weeks)]), DAY_MS);
        assert_eq!(passed(&[before, reading(2, 0, 0, now + weeks)]), 0, "never set: 1970");
        assert_eq!(passed(&[before, reading(2, 0, now + weeks, now - 1)]), 0);
        // From a clock that starts in 1970 at each boot, uptime alone counts.
        let epoch = [reading(3, 0, 0, now), reading(3, hour, hour, now + hour)];
        assert_eq!(passed(&epoch), hour);
    }

    proptest! {
        /// Whatever the clocks do, never more than what uptime counted and a day a reboot.
        #[test]
        fn never_more_than_what_passed(
            steps in proptest::collection::vec(
                (any::<bool>(), 0..DAY_MS, -YEAR_MS..YEAR_MS, -YEAR_MS..YEAR_MS),
                1..40,
            )
        ) {
            let mut readings = vec![reading(0, 0, 50 * YEAR_MS, 50 * YEAR_MS)];
            let (mut boot, mut uptime, mut bound) = (0, 0, 0);
            for (reboots, on_ms, wall, server) in steps {
                (boot, uptime) = if reboots { (boot + 1, 0) } else { (boot, uptime + on_ms) };
                bound += if reboots { DAY_MS } else { on_ms };
                readings.push(reading(boot, uptime, 50 * YEAR_MS + wall, 50 * YEAR_MS + server));
            }
            prop_assert!(passed(&readings) <= bound);
        }
    }
}
