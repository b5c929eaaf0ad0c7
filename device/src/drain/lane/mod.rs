//! When to do what for one identity: a decision from the outbox's state, the policy and a few
//! instants, so that it can be tested without a network or a wait.
//!
//! It looks at what waits, never at what just happened, so a punch that slipped in between two
//! looks is seen at the next and nothing waits for another punch to come.

use std::time::Duration;

use punchtrail_protocol::{DeviceId, spread::reconnect_ms, wire::DevicePolicy};
use tokio::time::Instant;

use crate::{
    backoff::{Backoff, TRY_FLOOR_MS, TokenBucket},
    client::CallError,
};

/// How many slices a minute's punches are delivered in while a backlog drains: one every fifteen
/// seconds, rather than a call for each punch as its token comes.
const SLICES_PER_MINUTE: u32 = 4;
/// The least time between two heartbeats, in milliseconds, whatever else changes.
const HEARTBEAT_FLOOR_MS: u64 = 1_000;
/// A batch answered within this, in milliseconds, lets the next one be twice as large.
pub const BATCH_QUICK_MS: u64 = 500;
/// A batch that took longer than this, in milliseconds, makes the next one half as large: a slow
/// line must not run into the limit of a call, nor a slow server hold much at once.
pub const BATCH_SLOW_MS: u64 = 3_000;
/// The longest wait between batches that a server can ask for, in milliseconds.
const NEXT_BATCH_MAX_MS: u64 = 3_600_000;

/// What an identity has to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    pub waiting: u64,
    pub photos: u64,
}

impl Need {
    /// Whether anything waits.
    pub(super) fn any(self) -> bool {
        self.waiting > 0 || self.photos > 0
    }
}

/// Something to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    Heartbeat,
    Walk,
    /// Deliver up to so many punches.
    Batch(usize),
    Photo,
}

/// What a heartbeat brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Whether it said that something waits.
    pub reported: bool,
    /// Whether the manifest that is held is another version.
    pub roster_differs: bool,
    /// The pause before the next batch that the server asks for, in milliseconds.
    pub next_batch_after_ms: u64,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Do(Errand),
    Wait(Instant),
}

/// Who drains: the loop, which paces itself, or a person who asked and watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At the policy's rate, spread after a reconnect.
    Steady,
    /// At once. Pauses that the server asked for, and those after failures, still hold.
    Asked,
}

/// Where one identity stands with its server.
#[derive(Debug, Clone)]
pub struct Lane {
    device: DeviceId,
    /// Whether the last try was answered by a Punchtrail server.
    in_contact: bool,
    ready_at: Instant,
    /// No walk and no delivery at a steady pace before this: the spread after a reconnect.
    spread_until: Instant,
    /// No batch before this: the server asked.
    batch_at: Instant,
    heartbeat_at: Instant,
    heartbeat_floor: Instant,
    walk_due: bool,
    walk_at: Instant,
    photo_at: Instant,
    batch_limit: usize,
    calls: Backoff,
    photo_tries: Backoff,
    bucket: TokenBucket,
    /// Whether the last heartbeat said that something waits.
    reported: bool,
}

impl Lane {
    /// A lane that has made no call yet and makes none before `ready_at`.
    pub fn new(
        device: DeviceId,
        policy: &DevicePolicy,
        cap_ms: u64,
        ready_at: Instant,
        now: Instant,
    ) -> Self {
        Self {
            device,
            in_contact: false,
            ready_at,
            spread_until: now,
            batch_at: now,
            heartbeat_at: now,
            heartbeat_floor: now,
            walk_due: false,
            walk_at: now,
            photo_at: now,
            batch_limit: policy.batch_max as usize,
            calls: Backoff::new(cap_ms, now),
            photo_tries: Backoff::new(cap_ms, now),
            bucket: TokenBucket::full(saved_up_max(policy), policy.punches_per_minute, now),
            reported: false,
        }
    }

    /// What to do at `now`.
    pub fn next(&mut self, need: Need, policy: &DevicePolicy, pace: Pace, now: Instant) -> Next {
        if now < self.ready_at {
            return Next::Wait(self.ready_at);
        }
        if !self.in_contact || now >= self.heartbeat_at {
            return Next::Do(Errand::Heartbeat);
        }
        let walk_at = match pace {
            Pace::Steady => self.walk_at.max(self.spread_until),
            Pace::Asked => self.walk_at,
        };
        if self.walk_due && now >= walk_at {
            return Next::Do(Errand::Walk);
        }
        let mut look_at = self.heartbeat_at;
        if self.walk_due {
            look_at = look_at.min(walk_at);
        }
        if self.reported && !need.any() {
            // Tells the server that it has everything now, rather than at the next interval.
            if pace == Pace::Asked || now >= self.heartbeat_floor {
                return Next::Do(Errand::Heartbeat);
            }
            look_at = look_at.min(self.heartbeat_floor);
        }
        match self.delivery(need, policy, pace, now) {
            Some(Next::Wait(at)) => Next::Wait(at.min(look_at)),
            Some(errand) => errand,
            None => Next::Wait(look_at),
        }
    }

    /// Punches, then photos; none when nothing waits.
    fn delivery(
        &mut self,
        need: Need,
        policy: &DevicePolicy,
        pace: Pace,
        now: Instant,
    ) -> Option<Next> {
        if !need.any() {
            return None;
        }
        let steady = pace == Pace::Steady;
        if steady && now < self.spread_until {
            return Some(Next::Wait(self.spread_until));
        }
        let (errand_at, wanted) = if need.waiting > 0 {
            let slice = policy.punches_per_minute.div_ceil(SLICES_PER_MINUTE);
            let waiting = u32::try_from(need.waiting).unwrap_or(u32::MAX);
            (self.batch_at, slice.min(waiting).min(policy.batch_max))
        } else {
            (self.photo_at, 1)
        };
        if now < errand_at {
            return Some(Next::Wait(errand_at));
        }
        let mut items = self.batch_limit.min(policy.batch_max as usize);
        if steady {
            self.bucket.retune(saved_up_max(policy), policy.punches_per_minute, now);
            let tokens_at = self.bucket.ready_at(wanted, now);
            if tokens_at > now {
                return Some(Next::Wait(tokens_at));
            }
            items = items.min(self.bucket.available(now) as usize);
        }
        Some(Next::Do(match need.waiting {
            0 => Errand::Photo,
            _ => Errand::Batch(items.max(1)),
        }))
    }

    /// A heartbeat was answered. `roll` from 0 to 1 keeps devices that started together from
    /// staying together.
    pub fn heartbeat_answered(
        &mut self,
        heard: Heard,
        policy: &DevicePolicy,
        roll: f64,
        now: Instant,
    ) {
        self.answered();
        if !self.in_contact {
            self.in_contact = true;
            let spread_ms = reconnect_ms(self.device, policy.reconnect_spread_s);
            self.spread_until = now + Duration::from_millis(spread_ms);
        }
        self.reported = heard.reported;
        self.walk_due = heard.roster_differs;
        self.batch_at = self.batch_at.max(asked_pause(heard.next_batch_after_ms, now));
        let interval_ms = u64::from(policy.heartbeat_s) * 1_000;
        let early_ms = (roll * (interval_ms / 10) as f64) as u64;
        self.heartbeat_at =
            now + Duration::from_millis((interval_ms - early_ms).max(HEARTBEAT_FLOOR_MS));
        self.heartbeat_floor = now + Duration::from_millis(HEARTBEAT_FLOOR_MS);
    }

    /// A batch of `items` was answered after `took_ms`; the server wants no other within
    /// `next_after_ms`. How long it took decides how large the next one may be.
    pub fn batch_answered(
        &mut self,
        items: usize,
        took_ms: u64,
        next_after_ms: u64,
        policy: &DevicePolicy,
        now: Instant,
    ) {
        self.answered();
        self.bucket.take(items as u32, now);
        self.batch_at = asked_pause(next_after_ms, now);
        let limit = match took_ms {
            quick if quick <= BATCH_QUICK_MS => self.batch_limit.saturating_mul(2),
            slow if slow > BATCH_SLOW_MS => items.min(self.batch_limit) / 2,
            _ => self.batch_limit,
        };
        self.batch_limit = limit.min(policy.batch_max as usize).max(1);
    }

    /// A batch of `items` got no answer within `took_ms`. On a line too slow for it the same again
    /// would fail for ever, so after a long wait the next one is half as large.
    pub fn batch_unanswered(&mut self, items: usize, took_ms: u64) {
        if took_ms > BATCH_SLOW_MS {
            self.batch_limit = (items.min(self.batch_limit) / 2).max(1);
        }
    }

    /// A photo arrived.
    pub fn photo_answered(&mut self, now: Instant) {
        self.answered();
        self.photo_tries.succeeded();
        self.bucket.take(1, now);
    }

    /// The manifest was walked; its policy may want things sooner than the one before.
    pub fn walked(&mut self, policy: &DevicePolicy, now: Instant) {
        self.answered();
        self.walk_due = false;
        let spread_ms = reconnect_ms(self.device, policy.reconnect_spread_s);
        self.spread_until = self.spread_until.min(now + Duration::from_millis(spread_ms));
        let interval = Duration::from_secs(u64::from(policy.heartbeat_s));
        self.heartbeat_at = self.heartbeat_at.min(now + interval);
    }

    fn answered(&mut self) {
        self.calls.succeeded();
    }

    /// A call failed in a way that concerns every call: when the next may start.
    pub fn failed(&mut self, error: &CallError, roll: f64, now: Instant) -> Instant {
        self.in_contact &= error.reached();
        self.ready_at = self.calls.failed(error.retry_after(), roll, now);
        self.ready_at
    }

    /// A batch of `items` was refused for what it is: halves are tried next. False when it was one
    /// item alone and can't be halved.
    pub fn split(&mut self, items: usize, now: Instant) -> bool {
        if items <= 1 {
            return false;
        }
        self.batch_limit = items / 2;
        self.ready_at = now + Duration::from_millis(TRY_FLOOR_MS);
        true
    }

    /// The server refused this one photo; another may go later.
    pub fn photo_refused(&mut self, roll: f64, now: Instant) -> Instant {
        self.photo_at = self.photo_tries.failed(None, roll, now);
        self.photo_at
    }

    /// The manifest isn't to be had now, though the server answers: again at `later`.
    pub fn walk_refused(&mut self, later: Instant) {
        self.walk_due = true;
        self.walk_at = later;
    }

    /// Whether the server was last told that something waits.
    pub fn reports_backlog(&self) -> bool {
        self.reported
    }

    /// The next look has to begin with a heartbeat.
    pub fn heartbeat_now(&mut self, now: Instant) {
        self.heartbeat_at = now;
    }

    /// No call before `at`, whatever failures and server said: how a simulated device misbehaves.
    pub fn retry_at(&mut self, at: Instant) {
        self.ready_at = at;
    }

    /// No pause before the next batch, whatever the server said: the same.
    pub fn hurry(&mut self, now: Instant) {
        self.batch_at = now;
    }

    /// Whether the last try was answered.
    pub fn in_contact(&self) -> bool {
        self.in_contact
    }
}

/// When a pause of `asked_ms`, asked for by the server, is over.
fn asked_pause(asked_ms: u64, now: Instant) -> Instant {
    now + Duration::from_millis(asked_ms.min(NEXT_BATCH_MAX_MS))
}

/// How many punches a device may deliver at once after a pause: a minute's, or one full batch if
/// that is more. A backlog that one batch can hold needs one call.
fn saved_up_max(policy: &DevicePolicy) -> u32 {
    policy.punches_per_minute.max(policy.batch_max)
}

#[cfg(test)]
mod tests;
