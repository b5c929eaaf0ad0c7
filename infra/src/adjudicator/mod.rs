//! The adjudicator: the only one to judge.
//!
//! It walks the ledger in order, applies each site's policy to each punch (`policy::judge`, a pure
//! function), and appends `Accepted`, or the anomalies and `ReferredForReview`; and to devices what
//! their chains show. What it must remember (neighbours, chains, its own place) moves in the same
//! transaction as what it appends, so a punch is judged exactly once, and on nothing but what stood
//! before it: the outcome doesn't depend on how arrivals were batched, nor on where a walk stopped.
//! What comes late is judged as if it had come in time: whatever an event changes the ground of
//! (who held a badge, who had left, which punches are out of the count) is looked at again before
//! the walk goes on.
//!
//! It never rejects, and it never skips: an event it can't read stops it, loudly.

mod again;
mod badges;
mod changes;
mod found;
mod memory;
mod register;
mod walk;

use std::sync::Arc;

use futures::future::BoxFuture;

use punchtrail_domain::{aggregate::Undecodable, epoch::Anchor};
use punchtrail_protocol::Position;

use crate::{
    follower::{Failure, Follower, Followers, Pace, Scope, Step, Tell},
    ledger::{
        AppendError, CALLER_EVENTS_MAX, Entry, JudgedThrough, Ledger, READ_EVENTS_MAX, ReadError,
        judged_through,
    },
};
use changes::Bearing;
use found::Walked;
pub(crate) use memory::gaps;
use register::Register;

/// The most events walked in one transaction.
pub const WALK_EVENTS_MAX: u32 = 8_000;
/// A walk that has found more events than this ends where it is, for what one append may bring is
/// limited ([`CALLER_EVENTS_MAX`]); a single punch can make some 300, by casting two doubts on each
/// of the hundred captured after it.
pub const JUDGED_EVENTS_MAX: usize = 12_000;
const _: () = assert!(JUDGED_EVENTS_MAX + 1_000 < CALLER_EVENTS_MAX);
/// The follower's name.
pub const NAME: &str = "adjudicator";
/// How often a walk is decided anew when its streams keep growing meanwhile.
const DECIDE_TRIES_MAX: u32 = 8;

/// Why the adjudicator could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AdjudicatorError {
    /// The ledger can't be read. An event that this program doesn't know stops it: nothing after it
    /// is judged until the program is replaced by one that does; punches count provisionally
    /// meanwhile.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The append was not made. It tries again by itself.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<sqlx::Error> for AdjudicatorError {
    fn from(error: sqlx::Error) -> Self {
        Self::Read(error.into())
    }
}

impl From<Undecodable> for AdjudicatorError {
    fn from(error: Undecodable) -> Self {
        Self::Read(error.into())
    }
}

impl From<AdjudicatorError> for Failure {
    fn from(error: AdjudicatorError) -> Self {
        match error {
            AdjudicatorError::Read(error) => error.into(),
            AdjudicatorError::Append(AppendError::Unreadable(error)) => {
                ReadError::from(error).into()
            }
            AdjudicatorError::Append(error) => Self::passing(error),
        }
    }
}

/// The adjudicator of this node. Should two nodes run one each for a moment, the second finds its
/// place moved.
pub struct Adjudicator {
    ledger: Ledger,
    register: Register,
    walk_events_max: u32,
    judged_events_max: usize,
}

impl Adjudicator {
    /// An adjudicator that knows nothing yet.
    pub fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            register: Register::default(),
            walk_events_max: WALK_EVENTS_MAX,
            judged_events_max: JUDGED_EVENTS_MAX,
        }
    }

    /// Walks at most so many events in one transaction; at least 2, for a capture and its receipt
    /// belong together.
    #[must_use]
    pub fn with_walk_events_max(mut self, events: u32) -> Self {
        self.walk_events_max = events.max(2);
        self
    }

    /// Ends a walk once it has found more than so many events.
    #[must_use]
    pub fn with_judged_events_max(mut self, events: usize) -> Self {
        self.judged_events_max = events;
        self
    }

    /// Judges what comes next. Up to where, if there was anything.
    ///
    /// # Errors
    /// See [`AdjudicatorError`]; it may be called again.
    pub async fn step(&mut self) -> Result<Option<Position>, AdjudicatorError> {
        Ok(match self.judge_next().await? {
            Judged::AtHead(_) => None,
            Judged::Moved { to, .. } => Some(to),
        })
    }

    async fn judge_next(&mut self) -> Result<Judged, AdjudicatorError> {
        let from = self.place().await?;
        self.register.catch_up(&self.ledger.feed(), from).await?;
        if let Some(looked) = again::look(self.ledger.pool(), &self.register, from).await? {
            let (to, events) = (from.position, looked.looked.len());
            self.keep(looked).await?;
            return Ok(Judged::Moved { to, events });
        }
        let mut entries = self.ledger.feed().read(from.position, self.walk_events_max).await?;
        let read = entries.len();
        walk::keep_what_can_be_read(&mut entries).await?;
        let about = changes::cut(&mut entries);
        let (is_cut, full) =
            (entries.len() < read, self.walk_events_max.min(READ_EVENTS_MAX) as usize);
        if about == Bearing::Changes && !is_cut && read >= full {
            self.read_on(&mut entries).await?;
        }
        let left = walk::keep_receipts_with_captures(&mut entries);
        if let (true, Some(captured)) = (entries.is_empty(), left) {
            // What keeps its receipt from being read stops the walk before the capture.
            for receipt in self.ledger.feed().read(captured.position(), 1).await? {
                receipt.event()?;
            }
        }
        if entries.is_empty() {
            return Ok(Judged::AtHead(from.position));
        }
        let (pool, register) = (self.ledger.pool(), &mut self.register);
        let walked = if about == Bearing::Changes {
            changes::walk(pool, register, &entries, from).await
        } else {
            walk::walk(pool, register, &entries, from, self.judged_events_max).await
        };
        let walked = match walked {
            Ok(walked) => walked,
            Err(error) => {
                self.register = Register::default();
                return Err(error);
            }
        };
        let to = walked.to.position;
        self.keep(walked).await?;
        Ok(Judged::Moved { to, events: (to.0 - from.position.0) as usize })
    }

    /// Reads what people ruled in the same commit as the last of the entries.
    async fn read_on(&self, entries: &mut Vec<Arc<Entry>>) -> Result<(), AdjudicatorError> {
        while let Some(last) = entries.last().cloned() {
            let read = self.ledger.feed().read(last.position(), self.walk_events_max).await;
            let mut more = match read {
                // It is refused when it is the next.
                Err(error) if error.stops_at().is_some() => break,
                read => read?,
            };
            let all = more.len();
            more.truncate(more.iter().take_while(|next| changes::goes_on(&last, next)).count());
            let ends = more.len() < all || all == 0;
            entries.append(&mut more);
            if ends {
                break;
            }
        }
        Ok(())
    }

    async fn keep(&mut self, walked: Walked) -> Result<(), AdjudicatorError> {
        let kept = self.append(walked).await;
        if kept.is_err() {
            // What was walked in memory was not kept; know nothing rather than too much.
            self.register = Register::default();
        }
        kept
    }

    /// Where it stands. If the database went back in part, and not its place with the events, it
    /// begins anew.
    async fn place(&mut self) -> Result<Anchor, AdjudicatorError> {
        let JudgedThrough { anchor, stands } = judged_through(self.ledger.pool()).await?;
        if stands {
            return Ok(anchor);
        }
        tracing::error!(
            position = %anchor.position,
            "the adjudicator stood at an event that is gone; it walks the ledger anew"
        );
        self.register = Register::default();
        self.ledger.forget_judged().await?;
        Ok(judged_through(self.ledger.pool()).await?.anchor)
    }

    async fn append(&self, walked: Walked) -> Result<(), AdjudicatorError> {
        if let Some(judging) = walked.judging_of_fresh() {
            match self.ledger.judge(judging).await {
                Ok(_) => return Ok(()),
                Err(AppendError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for _ in 0..DECIDE_TRIES_MAX {
            if judged_through(self.ledger.pool()).await?.standing() != Some(walked.from) {
                return Err(AppendError::Stale.into());
            }
            match self.ledger.judge(walked.judging_of_loaded(self.ledger.pool()).await?).await {
                Ok(_) => return Ok(()),
                Err(AppendError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AppendError::Stale.into())
    }
}

impl Follower for Adjudicator {
    fn place(&mut self) -> BoxFuture<'_, Result<Option<Position>, Failure>> {
        Box::pin(async { Ok(Some(judged_through(self.ledger.pool()).await?.anchor.position)) })
    }

    fn step<'a>(&'a mut self, _: &'a Tell) -> BoxFuture<'a, Result<Step, Failure>> {
        Box::pin(async {
            Ok(match self.judge_next().await? {
                Judged::AtHead(at) => Step::AtHead(at),
                Judged::Moved { to, events } => Step::Moved { to, events },
            })
        })
    }
}

/// Starts the adjudicator among the followers of this node.
pub fn start(followers: &Followers, ledger: &Ledger) {
    let ledger = ledger.clone();
    let scope = Scope::Deployment { version: 1 };
    followers.start(NAME, scope, Pace::Prompt, move || Adjudicator::new(ledger.clone()));
}

/// How far one look came.
enum Judged {
    /// There was nothing to judge.
    AtHead(Position),
    /// So much was walked or looked at again, up to there.
    Moved { to: Position, events: usize },
}

/// Entries of one walk, shared with the other followers.
type Entries = [Arc<Entry>];
