//! An event on its way to the followers of this node: decoded at most once, shared by all of them;
//! not at all when it is a punch's and was made on this node, for then what it was made from comes
//! with it.
//!
//! The newest stay in memory ([`Recent`]), as they were committed, so that eight followers of one
//! burst don't read and decode it eight times. What is there is always a dense run of positions; a
//! commit of another node between two of ours empties it, and followers read from the database
//! again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use punchtrail_domain::{
    Event, Recorded, aggregate::Undecodable, epoch::Anchor, punch::PunchEvent,
};
use punchtrail_protocol::{Digest, Position, capture::Capture};

/// What the newest events may hold in memory, in bytes: some 12,000 punches, which is what read
/// models gather and apply while a burst goes on.
pub const RECENT_BYTES_MAX: usize = 48 << 20;

/// A recorded event, decoded at most once.
#[derive(Debug)]
pub struct Entry {
    /// The event as the ledger keeps it.
    pub recorded: Recorded,
    /// The hash that stands with it.
    pub(super) leaf_hash: Digest,
    event: OnceLock<Result<Event, Undecodable>>,
}

impl Entry {
    /// An event that was read, with the hash that stands with it.
    pub(super) fn read(recorded: Recorded, leaf_hash: Digest) -> Self {
        Self { recorded, leaf_hash, event: OnceLock::new() }
    }

    /// An event that is being written, with what it was made from, if that is known. Its hash is
    /// set with its time.
    pub(super) fn made_from(recorded: Recorded, event: Option<Event>) -> Self {
        let entry = Self::read(recorded, Digest::ZERO);
        if let Some(event) = event {
            // Nobody else has seen it yet, so nothing stands there.
            let _ = entry.event.set(Ok(event));
        }
        entry
    }

    /// The event.
    ///
    /// # Errors
    /// When this program can't read it; a follower stops there.
    pub fn event(&self) -> Result<&Event, Undecodable> {
        self.event.get_or_init(|| self.recorded.event()).as_ref().map_err(Clone::clone)
    }

    /// The capture, when this is a punch's `Captured`.
    pub fn capture(&self) -> Option<&Capture> {
        match self.event() {
            Ok(Event::Punch(_, PunchEvent::Captured { capture, .. })) => capture.capture().ok(),
            _ => None,
        }
    }

    /// The event's place.
    pub fn position(&self) -> Position {
        self.recorded.position
    }

    /// The event's place, and the hash that stands with it.
    pub fn anchor(&self) -> Anchor {
        Anchor { position: self.position(), leaf_hash: self.leaf_hash }
    }

    fn weight_bytes(&self) -> usize {
        // The decoded forms hold about as much again.
        2 * (self.recorded.payload.len() + self.recorded.metadata.len()) + 512
    }
}

/// The newest events of the ledger, a dense run.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Run>);

#[derive(Debug, Default)]
struct Run {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl Recent {
    /// Adds what was just committed; forgets the oldest beyond the limit.
    pub(super) fn push(&self, committed: Vec<Entry>) {
        let mut run = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in committed {
            let follows =
                run.entries.back().is_none_or(|last| last.position().plus(1) == entry.position());
            if !follows {
                run.entries.clear();
                run.bytes = 0;
            }
            run.bytes += entry.weight_bytes();
            run.entries.push_back(Arc::new(entry));
        }
        while run.bytes > RECENT_BYTES_MAX {
            let Some(oldest) = run.entries.pop_front() else { break };
            run.bytes -= oldest.weight_bytes();
        }
    }

    /// Forgets everything: the database has another history.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Run::default();
    }

    /// At most `limit` events after `after`; none unless the very next one is here.
    pub(super) fn after(&self, after: Position, limit: usize) -> Vec<Arc<Entry>> {
        let run = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = run.entries.front().map(|entry| entry.position()) else {
            return Vec::new();
        };
        let Some(skip) = (after.0 + 1).checked_sub(first.0) else { return Vec::new() };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        run.entries.iter().skip(skip).take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchtrail_domain::AggregateType;

    fn entry(position: u64) -> Entry {
        let recorded = Recorded {
            position: Position(position),
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            aggregate_type: AggregateType::Site,
            aggregate_id: String::new(),
            sequence: 1,
            event_type: String::new(),
            event_version: "1".into(),
            payload: "x".repeat(1 << 20),
            metadata: String::new(),
        };
        Entry::read(recorded, Digest::ZERO)
    }

    fn positions(recent: &Recent, after: u64) -> Vec<u64> {
        recent.after(Position(after), 100).iter().map(|e| e.position().0).collect()
    }

    #[test]
    fn it_gives_a_dense_run_or_nothing() {
        let recent = Recent::default();
        recent.push(vec![entry(5), entry(6)]);
        assert_eq!(positions(&recent, 4), [5, 6]);
        assert_eq!(positions(&recent, 5), [6]);
        assert!(positions(&recent, 6).is_empty());
        assert!(positions(&recent, 3).is_empty(), "position 4 is not here");
        recent.push(vec![entry(9)]);
        assert!(positions(&recent, 5).is_empty());
        assert_eq!(positions(&recent, 8), [9]);
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let recent = Recent::default();
        recent.push((1..=100).map(entry).collect());
        assert!(positions(&recent, 0).is_empty());
        assert_eq!(positions(&recent, 99), [100]);
        assert!(recent.0.lock().unwrap().bytes <= RECENT_BYTES_MAX);
    }
}
