//! What this node remembers of the ledger: enough to notice that the database went back under it.
//!
//! A failover to a standby that was behind, or a point-in-time restore behind one address, takes
//! back what was committed, and gives the same positions out again. So a node keeps [`Anchor`]s of
//! what it saw committed, and every commit and every look at the head compares the newest with what
//! the database has there. An anchor that is gone means that the database went back; the committer
//! then begins a new epoch, and this node forgets whatever it remembers beyond.
//!
//! Kept in the data directory, too, so that a node that is started again notices as well.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use punchtrail_domain::epoch::{Anchor, History};
use punchtrail_protocol::{EpochId, Position};

/// How many anchors are remembered. When there are more, the one goes that lies closest to its
/// neighbours for its age, so that those that stay reach back to the first, and where histories
/// part is known the better the shorter ago it was: to some hundredths of what was lost.
const ANCHORS_MAX: usize = 1_024;

/// What a node remembers. Shared by the committer, the poller and whoever seals an anchor.
#[derive(Debug)]
pub(super) struct Witness {
    seen: Mutex<Seen>,
    path: Option<PathBuf>,
}

/// Anchors, oldest first, and the epoch that they were seen in.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub epoch: EpochId,
    pub anchors: VecDeque<Anchor>,
    /// The epochs, as the database told them last.
    pub history: Arc<History>,
}

impl Seen {
    /// The newest anchor.
    pub fn newest(&self) -> Anchor {
        self.anchors.back().copied().unwrap_or_default()
    }
}

impl Witness {
    /// Of a ledger that is at `head` now. What the node remembered from before, in that file, comes
    /// first: whether it still stands is seen at the first look.
    pub(super) fn open(history: History, head: Anchor, path: Option<PathBuf>) -> Self {
        let current = history.current();
        let (epoch, anchors) =
            path.as_deref().and_then(read).unwrap_or_else(|| (current, VecDeque::from([head])));
        let seen = Seen { epoch, anchors, history: Arc::new(history) };
        Self { seen: Mutex::new(seen), path }
    }

    fn seen_mut(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen_mut().clone()
    }

    /// The newest anchor and its epoch.
    pub(super) fn newest(&self) -> (EpochId, Anchor) {
        let seen = self.seen_mut();
        (seen.epoch, seen.newest())
    }

    /// The epochs of the ledger.
    pub(super) fn history(&self) -> Arc<History> {
        Arc::clone(&self.seen_mut().history)
    }

    /// Remembers what was seen committed in `epoch`, unless that has ended meanwhile.
    pub(super) fn take(&self, epoch: EpochId, anchor: Anchor) {
        let mut seen = self.seen_mut();
        if seen.epoch != epoch || anchor.position <= seen.newest().position {
            return;
        }
        seen.anchors.push_back(anchor);
        if seen.anchors.len() > ANCHORS_MAX {
            let at = |index: usize| seen.anchors[index].position.0;
            // In millionths, to stay with integers.
            let room = |index: &usize| {
                let age = anchor.position.0 - at(index - 1);
                (at(index + 1) - at(index - 1)).saturating_mul(1_000_000) / age
            };
            let closest = (1..seen.anchors.len() - 1).min_by_key(room);
            seen.anchors.remove(closest.unwrap_or_default());
        }
    }

    /// Knows the ledger anew: `anchors` are what still stands of what was remembered.
    pub(super) fn learn(&self, history: History, anchors: VecDeque<Anchor>) {
        let mut seen = self.seen_mut();
        *seen = Seen { epoch: history.current(), anchors, history: Arc::new(history) };
    }

    /// Writes down what is remembered, for the next start in this data directory. A help and no
    /// more: without it that start knows nothing of what came before.
    pub(super) fn write_down(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let Seen { epoch, anchors, .. } = self.seen();
        let mut text = format!("{epoch}\n");
        for Anchor { position, leaf_hash } in anchors {
            text.push_str(&format!("{position} {leaf_hash}\n"));
        }
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text)?;
        std::fs::rename(fresh, path)
    }
}

fn read(path: &Path) -> Option<(EpochId, VecDeque<Anchor>)> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(%error, path = %path.display(), "what this node remembered of the \
                    ledger can't be read");
            }
            return None;
        }
    };
    let mut lines = text.lines();
    let epoch = lines.next()?.parse().ok()?;
    let anchor = |line: &str| {
        let (position, leaf_hash) = line.split_once(' ')?;
        Some(Anchor {
            position: Position(position.parse().ok()?),
            leaf_hash: leaf_hash.parse().ok()?,
        })
    };
    let anchors: Option<VecDeque<_>> = lines.map(anchor).collect();
    anchors.filter(|anchors| !anchors.is_empty()).map(|anchors| (epoch, anchors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchtrail_protocol::Digest;
    use uuid::Uuid;

    const EPOCH: EpochId = EpochId(Uuid::from_u128(1));

    fn anchor(position: u64) -> Anchor {
        Anchor { position: Position(position), leaf_hash: Digest::of(&position.to_be_bytes()) }
    }

    fn fresh(path: Option<&Path>) -> Witness {
        Witness::open(History::new(EPOCH, []), anchor(5), path.map(Path::to_owned))
    }

    #[test]
    fn anchors_reach_far_back_and_lie_close_at_the_end() {
        let witness = fresh(None);
        (6..=100_000).for_each(|position| witness.take(EPOCH, anchor(position)));
        let seen = witness.seen();
        assert!(seen.anchors.len() <= ANCHORS_MAX);
        assert_eq!(seen.newest(), anchor(100_000));
        assert!(seen.anchors.iter().is_sorted_by_key(|anchor| anchor.position));
        assert_eq!(seen.anchors[0], anchor(5), "the oldest stays");
        let (older, newer) = (seen.anchors.iter(), seen.anchors.iter().skip(1));
        for (older, newer) in older.zip(newer) {
            let (age, gap) = (100_000 - older.position.0, newer.position.0 - older.position.0);
            assert!(gap <= 1 + age / 25, "{gap} between two of age {age}");
        }
    }

    #[test]
    fn what_belongs_to_another_epoch_or_lies_behind_is_not_taken() {
        let witness = fresh(None);
        witness.take(EpochId(Uuid::from_u128(2)), anchor(9));
        witness.take(EPOCH, anchor(4));
        assert_eq!(witness.newest(), (EPOCH, anchor(5)));
    }

    #[test]
    fn the_next_start_knows_what_this_one_saw() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchors");
        let witness = fresh(Some(&path));
        witness.take(EPOCH, anchor(9));
        witness.write_down().unwrap();
        let other = History::new(EpochId(Uuid::from_u128(2)), []);
        let next = Witness::open(other, anchor(3), Some(path.clone()));
        assert_eq!(next.newest(), (EPOCH, anchor(9)));
        std::fs::write(&path, "cut of").unwrap();
        assert_eq!(fresh(Some(&path)).newest(), (EPOCH, anchor(5)));
    }
}
