//! Times off more than one clock.
//!
//! Punches are put in order by true time: what their clocks showed, less what these are known to
//! have been ahead by. Time between two punches of one clock is what it showed, exactly; between
//! two clocks that are known to differ it is the true one.
//!
//! Of some clocks nothing is known: no heartbeat came since the device started. They are taken as
//! right. Where one of them and a clock known to be wrong made punches so near one another that
//! they would change places if both clocks were equally wrong, the order is doubtful, and with
//! it what is paired by it.

use punchtrail_protocol::Time;

use super::{MILLIS_PER_S, TimecardPunch};
use crate::punch::CLOCK_NOISE_MS;

/// How far apart two punches may be whose order is doubted for their clocks, in milliseconds. A
/// clock that is off by more than an hour isn't off for a reason that another would share.
pub(super) const SWAP_REACH_MS: i64 = 3_600_000;

/// When it truly was, when a clock that led by `lead_ms` showed `shown`. What is known of a lead is
/// known to within a heartbeat's way there and back, so that a small one is none and a fraction of
/// a second says nothing.
#[must_use]
pub fn true_time(shown: Time, lead_ms: Option<i64>) -> Time {
    match lead_ms.unwrap_or_default() {
        lead if lead.saturating_abs() <= CLOCK_NOISE_MS => shown,
        lead => {
            let half = lead.signum() * MILLIS_PER_S / 2;
            let whole_s = lead.saturating_add(half) / MILLIS_PER_S;
            shown.plus_millis(whole_s.saturating_mul(-MILLIS_PER_S)).max(Time::FIRST)
        }
    }
}

/// Both ends are rounded down to the second, so that adjacent stretches lose nothing between them.
pub(super) fn elapsed_s(from: &TimecardPunch, to: &TimecardPunch) -> u64 {
    let lead = |punch: &TimecardPunch| punch.lead_ms.unwrap_or_default();
    let apart_ms = lead(from).saturating_sub(lead(to)).saturating_abs();
    let (from, to) = if apart_ms <= CLOCK_NOISE_MS {
        (from.effective_at, to.effective_at)
    } else {
        (from.true_at(), to.true_at())
    };
    let second = |time: Time| time.millis().div_euclid(MILLIS_PER_S);
    second(to).saturating_sub(second(from)).try_into().unwrap_or(0)
}

/// The punches off clocks that are known to have been wrong, and those of which nothing is known.
pub(super) struct Clocks<'a> {
    wrong: Vec<&'a TimecardPunch>,
    unknown: Vec<Time>,
}

impl<'a> Clocks<'a> {
    /// Of punches in order of true time.
    pub(super) fn of(ordered: &[&'a TimecardPunch]) -> Self {
        let wrong = |punch: &&&TimecardPunch| punch.true_at() != punch.effective_at;
        let unknown = |punch: &&&TimecardPunch| punch.lead_ms.is_none();
        Self {
            wrong: ordered.iter().filter(wrong).copied().collect(),
            unknown: ordered.iter().filter(unknown).map(|punch| punch.effective_at).collect(),
        }
    }

    /// Whether it hangs on a clock before or after which other punch this one was made.
    pub(super) fn leave_open(&self, punch: &TimecardPunch) -> bool {
        if self.wrong.is_empty() || self.unknown.is_empty() {
            return false;
        }
        if punch.lead_ms.is_none() {
            let (at, reach) = (punch.effective_at, SWAP_REACH_MS);
            let from = self.wrong.partition_point(|one| one.true_at() < at.plus_millis(-reach));
            let near = self.wrong[from..].iter();
            return near
                .take_while(|one| one.true_at() <= at.plus_millis(reach))
                .any(|one| Self::between(one, at));
        }
        let (is, shown) = (punch.true_at(), punch.effective_at);
        if is == shown {
            return false;
        }
        let from = self
            .unknown
            .partition_point(|at| *at < is.min(shown).max(is.plus_millis(-SWAP_REACH_MS)));
        self.unknown.get(from).is_some_and(|at| Self::between(punch, *at))
    }

    /// Whether `at` is after the one time of a punch and not after the other.
    fn between(punch: &TimecardPunch, at: Time) -> bool {
        let (is, shown) = (punch.true_at(), punch.effective_at);
        let apart_ms = at.millis_since(is).saturating_abs();
        is.min(shown) <= at && at <= is.max(shown) && apart_ms <= SWAP_REACH_MS
    }
}
