//! The queue between the ledger and the identity check: which punches wait for a check, who has
//! which in hand, and which nobody could check.
//!
//! A message names a punch, nothing more, and may come twice, out of order and days late: the
//! check reads the ledger, and does nothing when its verdict stands there. So both places in which
//! the queue may live promise the same and no more: what was sent is handed out until it is
//! [`Queue::done`], to one at a time as long as leases are kept.
//!
//! Each message is in one of four places:
//!
//! ```text
//!          send              receive                  done
//!   ──────────────▶ waiting ─────────▶ in hand ──────────────▶ gone
//!                    ▲ ▲ ▲                │ │ │
//!                    │ │ └─ later ────────┘ │ │   the check can't be made now: not counted
//!                    │ └─── failed, lease ──┘ │   it broke, or its holder did: counted
//!                    │         put_back       ▼
//!                    └────────────────────── dead, with its reason, for people
//! ```
//!
//! What can't be done **now**, for a provider that is away say, is put off by [`Queue::later`],
//! which never counts: an outage of days makes no dead letter. What **breaks** is
//! [`Queue::failed`], or its lease runs out because its holder died; after [`RECEIVES_MAX`] of
//! these it is a dead letter, so that one punch that kills its holder doesn't do so for ever.
//!
//! It must never: lose a message that was accepted, let somebody else's message stop ours, or hold
//! anything that isn't in the ledger.

mod message;
mod postgres;
mod sqs;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use punchtrail_protocol::PunchId;
use tokio_util::sync::CancellationToken;

pub use postgres::PostgresQueue;
pub use sqs::{Sqs, SqsQueue, aws};

use crate::postgres::{DatabaseError, Pool, Trouble};

/// The most that are taken at once, and that SQS has in one call.
pub const BATCH_MAX: usize = 10;
/// The longest that [`Queue::receive`] waits for a first message, as SQS does.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
/// How long what was taken is hidden from others, unless its hold is extended.
pub const VISIBLE_FOR: Duration = Duration::from_secs(60);
/// The longest that a message is put off at once, as SQS can.
pub const LATER_MAX: Duration = Duration::from_secs(15 * 60);
/// Taken so often without being done, a message is a dead letter.
pub const RECEIVES_MAX: u32 = 5;
/// The longest reason that is kept, in bytes; the rest is cut.
pub const REASON_BYTES_MAX: usize = 500;
/// The most dead letters that are shown at once.
pub const DEAD_SHOWN_MAX: usize = 1_000;
/// The most dead letters that one call puts back. Call again for more.
pub const PUT_BACK_MAX: usize = 10_000;
/// How often the queue's depth is measured.
pub const MEASURE_EVERY: Duration = Duration::from_secs(15);

/// Why a message that nobody finished is a dead letter.
const NEVER_DONE: &str =
    "it was taken again and again and never done: whoever had it died, or lost hold of it";

/// Why something could not be done with the queue. What was sent before is kept.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The database that holds it can't do it.
    #[error("the queue's database could not do it; what is in the queue is kept: {0}")]
    Database(#[from] DatabaseError),

    /// SQS refused, or didn't answer.
    #[error("SQS could not {action}; what is in the queue is kept: {reason}")]
    Sqs {
        /// What it was asked, in SQS's own word.
        action: &'static str,
        reason: String,
        /// Whether asking again may help.
        passes: bool,
    },

    /// SQS did it to some of many, also after being asked again.
    #[error(
        "SQS did {action} to all but {failed}; what it left is kept, and may come twice: {reason}"
    )]
    Partly {
        action: &'static str,
        /// How many it left.
        failed: usize,
        /// Of one of them.
        reason: String,
        /// Whether asking again may help.
        passes: bool,
    },

    /// Nothing catches what can't be handled.
    #[error(
        "the SQS queue {url} has no dead-letter queue; nothing was sent. Give it a RedrivePolicy \
         with maxReceiveCount {RECEIVES_MAX} that names one (docs/operations.md, \"The queue of \
         checks\")"
    )]
    NoDeadLetters { url: String },

    /// SQS would give up too soon, or too late.
    #[error(
        "the SQS queue {url} gives a message up after {found} receives (maxReceiveCount in its \
         RedrivePolicy); nothing was sent. Set it to {RECEIVES_MAX}, or to what you like from \
         {least} to {most}"
    )]
    OddReceives { url: String, found: String, least: u32, most: u32 },

    /// A FIFO queue can't put a single message off.
    #[error(
        "the SQS queue {url} is a FIFO queue, which can't put off a single message; nothing was \
         sent. Make a standard queue"
    )]
    Fifo { url: String },
}

impl QueueError {
    /// Whether asking again may help.
    pub fn passes(&self) -> bool {
        match self {
            Self::Database(error) => Trouble::of(error) == Trouble::Passing,
            Self::Sqs { passes, .. } | Self::Partly { passes, .. } => *passes,
            Self::NoDeadLetters { .. } | Self::OddReceives { .. } | Self::Fifo { .. } => false,
        }
    }
}

/// What shows that one has a message in hand. Of use until its lease runs out, and to the queue
/// that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    punch: PunchId,
    /// In the words of where the queue lives.
    handle: String,
    /// This time counted.
    receives: u32,
    /// Since 1970. This and the next for a queue that can't keep them elsewhere.
    sent_at_ms: i64,
    /// What was last said of why it failed.
    last: Option<String>,
}

impl Receipt {
    /// Which punch it is of.
    pub fn punch(&self) -> PunchId {
        self.punch
    }
}

/// A message in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which punch is to be checked.
    pub punch: PunchId,
    /// How often it was taken without being done, this time counted, being put off not.
    pub receives: u32,
    /// How long ago it was sent.
    pub waited: Duration,
    /// Shows that it is in hand.
    pub receipt: Receipt,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// In the line, those put off among them.
    pub waiting: u64,
    /// With somebody who checks them.
    pub in_hand: u64,
    /// Given up, for people to look at.
    pub dead: u64,
    /// How long ago the oldest that isn't done was sent. SQS doesn't say: there it is the oldest
    /// that this process took since it last asked, and none when it took none.
    pub oldest: Option<Duration>,
}

/// What a dead letter is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// A check of this punch.
    Punch(PunchId),
    /// Somebody else's message, by its id in SQS. It isn't put back.
    Foreign(String),
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// What it is about.
    pub letter: Letter,
    /// Why, for people.
    pub reason: String,
    /// How often it was taken.
    pub receives: u32,
    /// How long ago it was sent.
    pub age: Duration,
}

/// Which dead letters to put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBack {
    /// All that are of punches.
    All,
    /// Of this punch.
    One(PunchId),
}

/// The line of punches to be checked. All of it may be called from everywhere at once.
///
/// # Errors
/// All answer with a [`QueueError`] when where the queue lives is out of reach or refuses, within
/// seconds and never later. What was asked may then be done, not done, or done to some: asking
/// again is harmless.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Puts punches in line. Twice is harmless: in Postgres one that waits already stays where it
    /// is, and one in hand is handled once more after; SQS hands it out as often as it was sent.
    async fn send(&self, punches: &[PunchId]) -> Result<(), QueueError>;

    /// Takes up to `max` of what is due ([`BATCH_MAX`] at most), and waits up to `wait` for the
    /// first ([`WAIT_MAX`] at most). Each is hidden from others from then on, for as long as the
    /// queue was opened with. May come back early with none. Dropped while it waits, it may have
    /// taken some, which come again when their lease has run out.
    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Taken>, QueueError>;

    /// Goes on holding these for as long again, from now. Says which aren't held any more:
    /// somebody else may have them, so leave them.
    async fn extend(&self, taken: &[Receipt]) -> Result<Vec<PunchId>, QueueError>;

    /// They are done: the verdict is in the ledger. One that isn't held any more is left to whoever
    /// has it now.
    async fn done(&self, taken: &[Receipt]) -> Result<(), QueueError>;

    /// They can't be checked now: back in line, not before `after` ([`LATER_MAX`] at most). Having
    /// been taken isn't counted.
    async fn later(&self, taken: &[Receipt], after: Duration) -> Result<(), QueueError>;

    /// Their check broke, and why: back in line, not before `after`, or among the dead letters with
    /// that reason, if this was the last of [`RECEIVES_MAX`] times.
    async fn failed(
        &self,
        taken: &[Receipt],
        after: Duration,
        reason: &str,
    ) -> Result<(), QueueError>;

    /// They can never be checked, and why: to the dead letters at once.
    async fn give_up(&self, taken: &[Receipt], reason: &str) -> Result<(), QueueError>;

    /// How much there is. SQS's numbers are approximate, and late by seconds.
    async fn depth(&self) -> Result<Depth, QueueError>;

    /// The dead letters, up to `limit` ([`DEAD_SHOWN_MAX`] at most).
    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError>;

    /// Puts dead letters back in line, as if they were just sent, [`PUT_BACK_MAX`] at most. How
    /// many.
    async fn put_back(&self, which: PutBack) -> Result<usize, QueueError>;
}

/// Where the queue lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Beside the ledger.
    Postgres,
    /// In that queue; its region, where the URL doesn't say it.
    Sqs { url: String, region: Option<String> },
}

/// Opens the queue, with its usual times. One a process: its parts wake each other.
///
/// # Errors
/// When SQS is out of reach, or the queue there isn't made as it should be.
pub async fn open(place: Place, writer: &Pool) -> Result<Arc<dyn Queue>, QueueError> {
    Ok(match place {
        Place::Postgres => Arc::new(PostgresQueue::new(writer)),
        Place::Sqs { url, region } => {
            Arc::new(SqsQueue::open(&aws(region, &url).await, Sqs::at(url)).await?)
        }
    })
}

/// Measures the queue, for `/metrics`.
///
/// # Errors
/// As [`Queue::depth`].
pub async fn measure(queue: &dyn Queue) -> Result<Depth, QueueError> {
    let depth = queue.depth().await;
    metrics::gauge!("punchtrail_queue_able").set(f64::from(u8::from(depth.is_ok())));
    let Depth { waiting, in_hand, dead, oldest } = depth?;
    metrics::gauge!("punchtrail_queue_waiting").set(waiting as f64);
    metrics::gauge!("punchtrail_queue_in_hand").set(in_hand as f64);
    metrics::gauge!("punchtrail_queue_dead").set(dead as f64);
    let age_s = oldest.unwrap_or_default().as_secs_f64();
    metrics::gauge!("punchtrail_queue_oldest_age_seconds").set(age_s);
    Ok(Depth { waiting, in_hand, dead, oldest })
}

/// Measures it every [`MEASURE_EVERY`] until it is stopped: a task for the supervisor.
pub async fn keep_measured(queue: Arc<dyn Queue>, stop: CancellationToken) {
    let mut able = true;
    let measuring = async {
        loop {
            let measured = measure(&*queue).await;
            match &measured {
                Err(error) if able => tracing::warn!(%error, "the queue of checks can't be had"),
                Ok(_) if !able => tracing::info!("the queue of checks can be had again"),
                _ => {}
            }
            able = measured.is_ok();
            tokio::time::sleep(MEASURE_EVERY).await;
        }
    };
    stop.run_until_cancelled(measuring).await;
}

/// A reason as it is kept: one line, not too long, of what every place can hold.
fn kept(reason: &str) -> String {
    let line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    let end = (0..=REASON_BYTES_MAX.min(line.len())).rev().find(|at| line.is_char_boundary(*at));
    match &line[..end.unwrap_or_default()] {
        "" => "no reason was given".to_owned(),
        line => line.to_owned(),
    }
}

/// Why one is dead that nobody finished, with what was last said of it.
fn never_done(last: Option<&str>) -> String {
    last.map_or_else(
        || NEVER_DONE.to_owned(),
        |last| kept(&format!("{NEVER_DONE}; before: {last}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_and_not_too_long() {
        assert_eq!(kept("it broke\nhere\0"), "it broke here");
        assert_eq!(kept(" \n"), "no reason was given");
        let long = kept(&"ö".repeat(REASON_BYTES_MAX));
        assert_eq!(long, "ö".repeat(REASON_BYTES_MAX / 2));
        assert_eq!(kept(&format!("x{}", "ö".repeat(REASON_BYTES_MAX))).len(), REASON_BYTES_MAX - 1);
        assert!(never_done(Some(&long)).len() <= REASON_BYTES_MAX);
    }
}
