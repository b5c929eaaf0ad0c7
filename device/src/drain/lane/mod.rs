//! When to do what for one identity: a decision from the outbox's state, the policy and a few
//! instants, so that it can be tested without a network or a wait.
//!
//! Heartbeats, walks, batches, disputes, attachments and photos fail each for themselves: what one
//! of them waits after a failure grows until that one goes well, and the others go on. Only a
//! server that can't be reached, or that asked for a pause, is left alone altogether.
//!
//! It looks at what waits, never at what just happened, so a punch that slipped in between two
//! looks is seen at the next and nothing waits for another punch to come.

use std::time::Duration;

use punchtrail_protocol::{DeviceId, spread::reconnect_ms, wire::DevicePolicy};
use tokio::time::Instant;

use crate::{
    backoff::{Backoff, TRY_FLOOR_MS, TokenBucket},
    client::CallError,
    obey::Obeyed,
    store::failures::Purpose,
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

/// Heartbeats in a row that came to nothing, though the server was there, before one punch is tried
/// without: what is broken may be the heartbeat.
const HEARTBEATS_FAILED_MAX: u32 = 3;
/// Batches in a row that failed before pictures go in the pauses between them.
const BATCHES_FAILED_MAX: u32 = 2;

/// What an identity has to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    pub waiting: u64,
    /// Attachments whose punch was delivered.
    pub attachments: u64,
    pub disputes: u64,
    pub photos: u64,
    /// Commands to act on or to tell the result of. They are nothing that a report counts.
    pub commands: u64,
}

impl Need {
    /// Whether anything waits.
    pub(super) fn any(self) -> bool {
        self.waiting > 0 || self.besides()
    }

    /// Whether anything but punches waits.
    fn besides(self) -> bool {
        self.disputes > 0 || self.pictures()
    }

    fn pictures(self) -> bool {
        self.attachments > 0 || self.photos > 0
    }
}

/// Something to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    Heartbeat,
    Walk,
    /// Ask for commands, act on them, tell what became of one.
    Commands,
    /// Deliver up to so many punches.
    Batch(usize),
    Attachment,
    Dispute,
    Photo,
}

impl Errand {
    /// What it is for.
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Heartbeat => Purpose::Heartbeat,
            Self::Walk => Purpose::Manifest,
            Self::Commands => Purpose::Commands,
            Self::Batch(_) => Purpose::Punches,
            Self::Attachment => Purpose::Attachments,
            Self::Dispute => Purpose::Disputes,
            Self::Photo => Purpose::Photos,
        }
    }
}

/// What a heartbeat brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Whether it said that something waits.
    pub reported: bool,
    /// Whether the manifest that is held is another version.
    pub roster_differs: bool,
    /// Whether the server said that commands wait.
    pub commands: bool,
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
    /// No batch before this: the last one failed.
    batch_again_at: Instant,
    heartbeat_at: Instant,
    heartbeat_floor: Instant,
    walk_due: bool,
    walk_at: Instant,
    /// Whether the server is to be asked for commands.
    commands_due: bool,
    command_at: Instant,
    attachment_at: Instant,
    dispute_at: Instant,
    photo_at: Instant,
    batch_limit: usize,
    /// Heartbeats, and whatever found no server.
    calls: Backoff,
    walk_tries: Backoff,
    command_tries: Backoff,
    batch_tries: Backoff,
    attachment_tries: Backoff,
    dispute_tries: Backoff,
    photo_tries: Backoff,
    /// Heartbeats in a row that came to nothing, though the server was there.
    heartbeats_failed: u32,
    /// Whether a batch failed since anything else went.
    picture_turn: bool,
    /// Whether a dispute failed since the last picture went.
    after_dispute: bool,
    /// Whether an attachment failed since the last photo went.
    photo_turn: bool,
    /// Whether the last call was a punch without a heartbeat before it.
    probed: bool,
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
            batch_again_at: now,
            heartbeat_at: now,
            heartbeat_floor: now,
            walk_due: false,
            walk_at: now,
            commands_due: false,
            command_at: now,
            attachment_at: now,
            dispute_at: now,
            photo_at: now,
            batch_limit: policy.batch_max as usize,
            calls: Backoff::new(cap_ms, now),
            walk_tries: Backoff::new(cap_ms, now),
            command_tries: Backoff::new(cap_ms, now),
            batch_tries: Backoff::new(cap_ms, now),
            attachment_tries: Backoff::new(cap_ms, now),
            dispute_tries: Backoff::new(cap_ms, now),
            photo_tries: Backoff::new(cap_ms, now),
            heartbeats_failed: 0,
            picture_turn: false,
            after_dispute: false,
            photo_turn: false,
            probed: false,
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
            let broken = self.heartbeats_failed >= HEARTBEATS_FAILED_MAX && need.waiting > 0;
            let batch_at = self.batch_at.max(self.batch_again_at);
            if broken && !self.probed && now >= batch_at {
                return Next::Do(Errand::Batch(1));
            }
            return Next::Do(Errand::Heartbeat);
        }
        let commands_wait = self.commands_due || need.commands > 0;
        let commands = commands_wait && now >= self.command_at;
        // Before anything is delivered: it may be about what waits. One that failed comes after
        // that: it may fail for ever.
        if commands && self.command_tries.failures() == 0 {
            return Next::Do(Errand::Commands);
        }
        let walk_at = match pace {
            Pace::Steady => self.walk_at.max(self.spread_until),
            Pace::Asked => self.walk_at,
        };
        let walk = self.walk_due && now >= walk_at;
        // The same.
        if walk && self.walk_tries.failures() == 0 {
            return Next::Do(Errand::Walk);
        }
        let mut look_at = self.heartbeat_at;
        if self.walk_due {
            look_at = look_at.min(walk_at);
        }
        if commands_wait {
            look_at = look_at.min(self.command_at);
        }
        if self.reported && !need.any() {
            // Tells the server that it has everything now, rather than at the next interval.
            if pace == Pace::Asked || now >= self.heartbeat_floor {
                return Next::Do(Errand::Heartbeat);
            }
            look_at = look_at.min(self.heartbeat_floor);
        }
        match self.delivery(need, policy, pace, now) {
            Some(Next::Wait(_)) | None if commands => Next::Do(Errand::Commands),
            Some(Next::Wait(_)) | None if walk => Next::Do(Errand::Walk),
            Some(Next::Wait(at)) => Next::Wait(at.min(look_at)),
            Some(errand) => errand,
            None => Next::Wait(look_at),
        }
    }

    /// The next picture and when it may go: attachments, then photos. After an attachment that
    /// failed a photo has its turn, and the pause belongs to photos.
    fn picture(&self, need: Need, now: Instant) -> (Errand, Instant) {
        let (attachment, photo) = (self.attachment_at, self.photo_at);
        let photo_first = now < attachment && photo < attachment || self.photo_turn && now >= photo;
        match need.attachments > 0 && !(photo_first && need.photos > 0) {
            true => (Errand::Attachment, attachment),
            false => (Errand::Photo, photo),
        }
    }

    /// What goes next of all but punches, and when: disputes, then pictures. After a dispute that
    /// failed a picture has its turn, and the pause belongs to pictures.
    fn beside(&self, need: Need, now: Instant) -> (Errand, Instant) {
        let (picture, picture_at) = self.picture(need, now);
        let dispute = (Errand::Dispute, self.dispute_at);
        if !need.pictures() && need.disputes > 0 {
            return dispute;
        }
        let sooner = now < self.dispute_at && picture_at < self.dispute_at;
        let picture_first = sooner || self.after_dispute && now >= picture_at;
        if need.disputes > 0 && !picture_first { dispute } else { (picture, picture_at) }
    }

    /// Punches, then disputes, attachments, photos; none when nothing waits.
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
        let batch_at = self.batch_at.max(self.batch_again_at);
        let (picture, picture_at) = self.beside(need, now);
        let stuck = self.batch_tries.failures() >= BATCHES_FAILED_MAX && need.besides();
        let picture_first = stuck
            && now >= picture_at.max(self.batch_at)
            && (self.picture_turn || now < self.batch_again_at);
        let punches = need.waiting > 0 && !picture_first;
        let (errand_at, wanted) = if punches {
            let slice = policy.punches_per_minute.div_ceil(SLICES_PER_MINUTE);
            let waiting = u32::try_from(need.waiting).unwrap_or(u32::MAX);
            (batch_at, slice.min(waiting).min(policy.batch_max))
        } else {
            (picture_at, 1)
        };
        if now < errand_at {
            let picture_at = picture_at.max(self.batch_at);
            return Some(Next::Wait(if stuck { errand_at.min(picture_at) } else { errand_at }));
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
        Some(Next::Do(match punches {
            true => Errand::Batch(items.max(1)),
            false => picture,
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
        self.calls.succeeded();
        (self.heartbeats_failed, self.probed) = (0, false);
        self.reconnected(policy, now);
        self.reported = heard.reported;
        self.walk_due = heard.roster_differs;
        self.commands_due = heard.commands;
        self.batch_at = self.batch_at.max(asked_pause(heard.next_batch_after_ms, now));
        let interval_ms = u64::from(policy.heartbeat_s) * 1_000;
        let early_ms = (roll * (interval_ms / 10) as f64) as u64;
        self.heartbeat_at =
            now + Duration::from_millis((interval_ms - early_ms).max(HEARTBEAT_FLOOR_MS));
        self.heartbeat_floor = now + Duration::from_millis(HEARTBEAT_FLOOR_MS);
    }

    fn reconnected(&mut self, policy: &DevicePolicy, now: Instant) {
        if !self.in_contact {
            self.in_contact = true;
            let spread_ms = reconnect_ms(self.device, policy.reconnect_spread_s);
            self.spread_until = now + Duration::from_millis(spread_ms);
        }
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
        self.batch_tries.succeeded();
        let probe = !self.in_contact || now >= self.heartbeat_at;
        if probe && self.heartbeats_failed >= HEARTBEATS_FAILED_MAX {
            // The server takes punches and has no answer to heartbeats: those are tried at their
            // interval still, and hold up nothing.
            self.probed = true;
            self.reconnected(policy, now);
            self.heartbeat_at = now + Duration::from_secs(u64::from(policy.heartbeat_s));
        }
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
    /// would fail for ever, so after a long wait the next one is half as large; so it is when the
    /// one before came to nothing, too, since something in it may be what breaks the line. Whether
    /// it was one item alone, after another that failed: then others may go first.
    pub fn batch_unanswered(&mut self, items: usize, took_ms: u64) -> bool {
        let again = self.batch_tries.failures() > 0;
        if took_ms > BATCH_SLOW_MS || again {
            self.batch_limit = (items.min(self.batch_limit) / 2).max(1);
        }
        items == 1 && again
    }

    /// An attachment arrived.
    pub fn attachment_answered(&mut self, now: Instant) {
        self.attachment_tries.succeeded();
        (self.picture_turn, self.after_dispute) = (false, false);
        self.bucket.take(1, now);
    }

    /// A dispute arrived.
    pub fn dispute_answered(&mut self, now: Instant) {
        self.dispute_tries.succeeded();
        self.picture_turn = false;
        self.bucket.take(1, now);
    }

    /// A photo arrived.
    pub fn photo_answered(&mut self, now: Instant) {
        self.photo_tries.succeeded();
        (self.picture_turn, self.photo_turn) = (false, false);
        self.after_dispute = false;
        self.bucket.take(1, now);
    }

    /// The manifest was walked; its policy may want things sooner than the one before.
    pub fn walked(&mut self, policy: &DevicePolicy, now: Instant) {
        self.walk_tries.succeeded();
        self.walk_due = false;
        let spread_ms = reconnect_ms(self.device, policy.reconnect_spread_s);
        self.spread_until = self.spread_until.min(now + Duration::from_millis(spread_ms));
        let interval = Duration::from_secs(u64::from(policy.heartbeat_s));
        self.heartbeat_at = self.heartbeat_at.min(now + interval);
    }

    /// Whether the server is to be asked for commands.
    pub fn commands_due(&self) -> bool {
        self.commands_due
    }

    /// Commands were asked for, acted on or told of.
    pub fn commands_answered(&mut self, obeyed: Obeyed, now: Instant) {
        self.command_tries.succeeded();
        if obeyed.asked {
            self.commands_due = obeyed.more;
        }
        if obeyed.walk {
            (self.walk_due, self.walk_at) = (true, now);
        }
        if obeyed.upload {
            // What the server asked for still holds.
            self.spread_until = self.spread_until.min(now);
            self.batch_again_at = self.batch_again_at.min(now);
            self.attachment_at = self.attachment_at.min(now);
            self.photo_at = self.photo_at.min(now);
        }
    }

    /// An errand failed: when the next of its kind may start. A server that isn't there concerns
    /// every call, and so does the pause that one asks for.
    pub fn failed(
        &mut self,
        errand: Errand,
        error: &CallError,
        roll: f64,
        now: Instant,
    ) -> Instant {
        let (tries, again_at) = match errand {
            Errand::Heartbeat => (&mut self.calls, &mut self.ready_at),
            Errand::Walk => (&mut self.walk_tries, &mut self.walk_at),
            Errand::Commands => (&mut self.command_tries, &mut self.command_at),
            Errand::Batch(_) => (&mut self.batch_tries, &mut self.batch_again_at),
            Errand::Attachment => (&mut self.attachment_tries, &mut self.attachment_at),
            Errand::Dispute => (&mut self.dispute_tries, &mut self.dispute_at),
            Errand::Photo => (&mut self.photo_tries, &mut self.photo_at),
        };
        let at = tries.failed(error.retry_after(), roll, now);
        *again_at = at;
        // The call after one of these is a heartbeat, if none was answered.
        self.probed = errand != Errand::Heartbeat;
        self.picture_turn = matches!(errand, Errand::Batch(_))
            || self.picture_turn
                && !matches!(errand, Errand::Attachment | Errand::Dispute | Errand::Photo);
        let picture = matches!(errand, Errand::Attachment | Errand::Photo);
        self.after_dispute = errand == Errand::Dispute || self.after_dispute && !picture;
        self.photo_turn =
            errand == Errand::Attachment || self.photo_turn && errand != Errand::Photo;
        if errand == Errand::Heartbeat {
            let there = !matches!(error, CallError::Unreachable(_) | CallError::Busy { .. });
            self.heartbeats_failed = if there { self.heartbeats_failed + 1 } else { 0 };
        } else {
            let floor = now + Duration::from_millis(TRY_FLOOR_MS);
            self.ready_at = match error {
                CallError::Busy { retry_after: Some(_), .. } => at,
                error if error.reached() => floor,
                _ => self.calls.failed(None, roll, now),
            };
        }
        self.in_contact &= error.reached();
        at
    }

    /// The folder refused what an answer brought: nothing is called for a while.
    pub fn store_failed(&mut self, roll: f64, now: Instant) {
        self.ready_at = self.calls.failed(None, roll, now);
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

    /// The server refused this one attachment; another may go later.
    pub fn attachment_refused(&mut self, roll: f64, now: Instant) -> Instant {
        (self.picture_turn, self.photo_turn, self.after_dispute) = (false, true, false);
        self.attachment_at = self.attachment_tries.failed(None, roll, now);
        self.attachment_at
    }

    /// The server refused this one dispute; another may go later.
    pub fn dispute_refused(&mut self, roll: f64, now: Instant) -> Instant {
        (self.picture_turn, self.after_dispute) = (false, true);
        self.dispute_at = self.dispute_tries.failed(None, roll, now);
        self.dispute_at
    }

    /// The server refused this one photo; another may go later.
    pub fn photo_refused(&mut self, roll: f64, now: Instant) -> Instant {
        (self.picture_turn, self.photo_turn, self.after_dispute) = (false, false, false);
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

    /// No call before `at`, and any from then, whatever failures and server said: how a simulated
    /// device misbehaves.
    pub fn retry_at(&mut self, at: Instant) {
        (self.ready_at, self.batch_again_at, self.walk_at) = (at, at, at);
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
