//! A device's chain as it is walked in the ledger's order: what is missing, what was used twice,
//! which link doesn't hold. Facts about the device; none of them refers a punch but a number used
//! twice.

use punchtrail_protocol::Digest;

use super::{Cut, DeviceEvent, Gap};

/// Gaps that are told apart. Beyond them a new one becomes part of the last, and is noted nowhere:
/// what a device can make in any number must stay small.
pub const GAPS_MAX: usize = 1_000;

/// How far a device's chain was walked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// The highest number seen; 0 before the first.
    pub highest: u64,
    /// Digest of the capture that holds it.
    pub digest: Digest,
    /// The numbers below it that never came, in order; with [`GAPS_MAX`] gaps the last may cover
    /// numbers that came.
    pub gaps: Vec<Gap>,
}

/// What one more capture showed of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It followed the last one, or jumped ahead; what is to be noted of it, mostly nothing.
    Ahead(Vec<DeviceEvent>),
    /// It filled a gap, as far as gaps are told apart: that nobody holds its number remains to be
    /// seen, and its links to both sides to be compared with what is held there.
    Filled(DeviceEvent),
    /// Its number was used before.
    Fork,
}

impl Chain {
    /// Walks over the capture of that number, digest and named predecessor.
    pub fn walk(&mut self, seq: u64, digest: Digest, prev: Digest) -> Seen {
        let is_full = self.gaps.len() >= GAPS_MAX;
        if seq <= self.highest {
            let gap = Gap { from: seq, to: seq };
            let at = self.gaps.partition_point(|open| open.to < seq);
            let Some(open) = self.gaps.get(at).filter(|open| open.from <= seq) else {
                return Seen::Fork;
            };
            let Cut { before, after, .. } = open.cut(gap);
            if !(is_full && before.is_some() && after.is_some()) {
                self.gaps.splice(at..=at, before.into_iter().chain(after));
            }
            return Seen::Filled(DeviceEvent::SequenceGapClosed { gap });
        }
        let mut noted = Vec::new();
        let next = self.highest.saturating_add(1);
        if seq > next {
            let gap = Gap { from: next, to: seq - 1 };
            match self.gaps.last_mut().filter(|_| is_full) {
                Some(last) => last.to = gap.to,
                None => {
                    self.gaps.push(gap);
                    noted.push(DeviceEvent::SequenceGapOpened { gap });
                }
            }
        } else if prev != self.digest {
            noted.push(DeviceEvent::LinkBroken { seq, named: prev, held: self.digest });
        }
        self.highest = seq;
        self.digest = digest;
        Seen::Ahead(noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(seq: u64) -> Digest {
        if seq == 0 { Digest::ZERO } else { Digest::of(&seq.to_be_bytes()) }
    }

    #[test]
    fn in_order_there_is_nothing_to_note() {
        let mut chain = Chain::default();
        for seq in 1..=5 {
            assert_eq!(chain.walk(seq, digest(seq), digest(seq - 1)), Seen::Ahead(vec![]));
        }
    }

    #[test]
    fn a_wrong_predecessor_is_a_broken_link() {
        let mut chain = Chain::default();
        chain.walk(1, digest(1), Digest::ZERO);
        let broken = DeviceEvent::LinkBroken { seq: 2, named: digest(9), held: digest(1) };
        assert_eq!(chain.walk(2, digest(2), digest(9)), Seen::Ahead(vec![broken]));
    }

    #[test]
    fn no_more_gaps_are_told_apart_than_fit() {
        let mut chain = Chain::default();
        let opened = (1..=3 * GAPS_MAX as u64)
            .filter(|n| chain.walk(2 * n, digest(2 * n), Digest::ZERO) != Seen::Ahead(vec![]))
            .count();
        assert_eq!((opened, chain.gaps.len()), (GAPS_MAX, GAPS_MAX));
        // What is missing is still taken for missing, and what came early on for a fork.
        let late = 6 * GAPS_MAX as u64 - 1;
        assert!(matches!(chain.walk(late, digest(late), Digest::ZERO), Seen::Filled(_)));
        assert_eq!(chain.walk(4, digest(4), Digest::ZERO), Seen::Fork);
        for n in GAPS_MAX as u64 + 10..2 * GAPS_MAX as u64 {
            chain.walk(2 * n + 1, digest(n), Digest::ZERO);
        }
        assert_eq!(chain.gaps.len(), GAPS_MAX);
    }

    proptest! {
        #[test]
        fn gaps_are_exactly_what_never_came(seqs in proptest::collection::vec(1u64..60, 1..80)) {
            let mut chain = Chain::default();
            let mut came = std::collections::BTreeSet::new();
            for &seq in &seqs {
                let fork = chain.walk(seq, digest(seq), digest(seq - 1)) == Seen::Fork;
                prop_assert_eq!(fork, !came.insert(seq));
            }
            let missing: Vec<u64> = chain.gaps.iter().flat_map(|g| g.from..=g.to).collect();
            let expected: Vec<u64> =
                (1..=*seqs.iter().max().unwrap()).filter(|n| !came.contains(n)).collect();
            prop_assert_eq!(missing, expected);
        }
    }
}
