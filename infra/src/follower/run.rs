//! One follower's task: step after step, and what to do when there is nothing to take or it fails.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures::FutureExt;
use punchtrail_protocol::Position;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Follower, FollowerState, Pace, Step, Tell,
    lease::{Lease, RENEW_MS},
    pace::Taken,
};
use crate::ledger::Feed;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often one that stands still looks whether a person, a program or another node has moved it.
const STILL_POLL: Duration = Duration::from_secs(1);
/// For how long one that stopped here is left to other nodes, which may run another program: longer
/// than they take to notice.
const LEFT: Duration = Duration::from_millis(4 * RENEW_MS);
/// How often in a row the feed may announce events that aren't there: one can be committed between
/// a look and the next, more than that means that the database was put back to an earlier copy
/// under this node, which has yet to be noticed.
const FRUITLESS_MAX: u32 = 2;
const FRUITLESS_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Run {
    pub follower: Box<dyn Follower>,
    pub lease: Option<Lease>,
    pub pace: Pace,
    pub feed: Feed,
    pub tell: Tell,
    pub stop: CancellationToken,
    /// What went wrong first since a step was made: what follows is often only its consequence.
    pub first: Option<String>,
}

impl Run {
    /// Follows until it is asked to stop. One step more is made then by a follower that isn't
    /// leased: what it writes is this node's own, and nobody else takes it up.
    pub(super) async fn follow(mut self) {
        let (mut backoff, mut fruitless) = (BACKOFF_FIRST, 0);
        while !self.stop.is_cancelled() {
            if self.lease.as_ref().is_some_and(|lease| !lease.is_held()) {
                self.stand_by().await;
                continue;
            }
            let begun = Instant::now();
            match self.step().await {
                Ok(step) => {
                    self.first = None;
                    (backoff, fruitless) = (BACKOFF_FIRST, self.fruitless(step, fruitless));
                    self.after(step, begun.elapsed(), fruitless).await;
                }
                Err(Failure::Passing(why)) => {
                    self.retries(why);
                    self.pause(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Err(Failure::Refused(why)) => {
                    self.stands_still(FollowerState::Refused, None, why);
                    self.pause(self.pace.look()).await;
                }
                Err(Failure::Stopped { at, why }) => {
                    self.stands_still(FollowerState::Stopped, at, why);
                    match &self.lease {
                        Some(lease) => lease.leave(LEFT).await,
                        None => self.pause(self.pace.look()).await,
                    }
                }
            }
        }
        if self.lease.is_none() {
            // What it can't do now it does after the next start.
            let _ = self.follower.step(&self.tell).await;
        }
    }

    /// One step. A panic goes on to whoever starts the follower again, which doesn't know where it
    /// stood.
    async fn step(&mut self) -> Result<Step, Failure> {
        let step = AssertUnwindSafe(self.follower.step(&self.tell)).catch_unwind().await;
        step.unwrap_or_else(|panic| {
            let after = self.tell.place().map(|place| place.0);
            tracing::error!(follower = self.tell.name(), after, "a step panicked");
            let after = after.unwrap_or_default();
            let why = format!("it panicked at what comes after position {after}");
            self.tell.state(FollowerState::Retrying, Some(why));
            resume_unwind(panic)
        })
    }

    /// Another node has it, or it stopped here and is left to others.
    async fn stand_by(&mut self) {
        if let Ok(place) = self.follower.place().await {
            self.tell.position(place);
        }
        let Some(lease) = &mut self.lease else { return };
        if lease.is_elsewhere() {
            self.tell.state(FollowerState::Standby, None);
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = lease.held() => {}
            () = tokio::time::sleep(STILL_POLL) => {}
        }
    }

    /// How often in a row, this step included, the feed announced events that weren't there.
    fn fruitless(&self, step: Step, before: u32) -> u32 {
        match step {
            Step::AtHead(at) if self.feed.seen() > at => before + 1,
            _ => 0,
        }
    }

    async fn after(&mut self, step: Step, worked: Duration, fruitless: u32) {
        match step {
            Step::Moved { to, events } => {
                self.moved(to, events, worked);
                let (pace, taken) = (self.pace, Taken { to, events, worked });
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = pace.after(&mut self.feed, taken) => {}
                }
            }
            Step::AtHead(at) => {
                self.tell.position(Some(at));
                self.tell.state(FollowerState::Following, None);
                if fruitless > FRUITLESS_MAX {
                    return self.pause(FRUITLESS_PAUSE).await;
                }
                let deadline = Instant::now() + self.pace.look();
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    _ = self.feed.wait_beyond(at, deadline) => {}
                }
            }
            Step::Waits(pause) => self.pause(pause).await,
            Step::Again => {}
        }
    }

    fn moved(&self, to: Position, events: usize, worked: Duration) {
        let name = self.tell.name();
        self.tell.position(Some(to));
        self.tell.state(FollowerState::Following, None);
        let lag = self.feed.seen().0.saturating_sub(to.0);
        metrics::gauge!("punchtrail_follower_lag_events", "follower" => name).set(lag as f64);
        metrics::counter!("punchtrail_follower_events_total", "follower" => name)
            .increment(events as u64);
        metrics::histogram!("punchtrail_follower_step_seconds", "follower" => name)
            .record(worked.as_secs_f64());
        let duration_ms = u64::try_from(worked.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(follower = name, position = to.0, events, duration_ms, "followed");
    }

    /// What went wrong, and what did first.
    fn with_the_first(&mut self, why: String) -> String {
        match &self.first {
            None => {
                self.first = Some(why.clone());
                why
            }
            Some(first) if *first == why => why,
            Some(first) => format!("{why} (at first: {first})"),
        }
    }

    fn retries(&mut self, why: String) {
        let why = self.with_the_first(why);
        tracing::warn!(follower = self.tell.name(), error = why, "a step failed; trying again");
        self.tell.state(FollowerState::Retrying, Some(why));
    }

    /// Said once, not each time that it is looked at again.
    fn stands_still(&mut self, state: FollowerState, at: Option<Position>, why: String) {
        let why = self.with_the_first(why);
        if !self.tell.is(state, &why) {
            let (follower, position) = (self.tell.name(), at.map(|at| at.0));
            let does = state.as_str();
            tracing::error!(
                follower,
                position,
                does,
                error = why,
                "a follower stands still; the ledger and the others go on"
            );
        }
        self.tell.state(state, Some(why));
    }

    async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}
