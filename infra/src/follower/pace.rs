//! When a follower goes on after a step: at once, after a rest, or when enough has gathered.

use std::time::Duration;

use punchtrail_protocol::Position;
use tokio::time::Instant;

use crate::ledger::Feed;

/// How a follower goes about it. Durations are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once; while devices deliver it rests after each step, as the feed says ([`Feed::rest`]).
    Prompt,
    /// Lets events gather, so that what belongs together mostly comes in one step.
    Gathering(Gathering),
    /// No more than one step in so many milliseconds.
    Every(u64),
}

/// How events gather. The first event after a pause is taken at once. While the ledger is busy
/// events are gathered for longer, and until a judgement was committed: then the fewest captures
/// are without theirs. A reader that waits ends the gathering, and the rest, at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gathering {
    pub linger_ms: u64,
    /// A step that took so many events shows that the ledger is busy.
    pub busy_events: usize,
    /// How long they gather then.
    pub busy_linger_ms: u64,
    /// And the longest time, until a judgement comes.
    pub judged_linger_ms: u64,
    /// So many are a full step, which waits for no more.
    pub full_events: u64,
}

/// What a step took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub to: Position,
    pub events: usize,
    pub worked: Duration,
}

impl Pace {
    /// Waits as it becomes this pace after a step that took something.
    pub(super) async fn after(&self, feed: &mut Feed, taken: Taken) {
        match self {
            Self::Prompt => feed.rest(taken.worked).await,
            Self::Every(pause_ms) => tokio::time::sleep(Duration::from_millis(*pause_ms)).await,
            Self::Gathering(gathering) => {
                let wanted = feed.clone();
                tokio::select! {
                    () = gathering.gather(feed, taken) => {}
                    () = wanted.wanted_beyond(taken.to) => {}
                }
            }
        }
    }

    /// How long it waits to be woken before it looks by itself.
    pub(super) fn look(&self) -> Duration {
        match self {
            Self::Prompt => Duration::from_secs(1),
            Self::Gathering(_) | Self::Every(_) => Duration::from_secs(5),
        }
    }
}

impl Gathering {
    async fn gather(&self, feed: &mut Feed, taken: Taken) {
        let busy = taken.events >= self.busy_events;
        let linger_ms = if busy { self.busy_linger_ms } else { self.linger_ms };
        let (pressure, until) =
            (feed.clone(), Instant::now() + Duration::from_millis(self.judged_linger_ms));
        let until_judged = async {
            tokio::time::sleep(Duration::from_millis(linger_ms)).await;
            if busy {
                tokio::select! {
                    () = pressure.deliveries_ceased() => {}
                    () = pressure.judged() => {}
                }
            }
        };
        tokio::select! {
            () = until_judged => {}
            _ = feed.wait_beyond(taken.to.plus(self.full_events - 1), until) => {}
        }
        if feed.is_pressed() {
            feed.rest(taken.worked).await;
        }
    }
}
