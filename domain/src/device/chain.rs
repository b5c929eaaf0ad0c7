//! A device's chain as it is walked in the ledger's order: what is missing, what was used twice,
//! which link doesn't hold. Facts about the device; none of them refers a punch but a number used
//! twice.

use punchtrail_protocol::Digest;

use super::{DeviceEvent, Gap, without};

/// How far a device's chain was walked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// The highest number seen; 0 before the first.
    pub highest: u64,
    /// Digest of the capture that holds it.
    pub digest: Digest,
    /// The numbers below it that never came, in order.
    pub gaps: Vec<Gap>,
}

/// What one more capture showed of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It followed the last one, or jumped ahead; what is to be noted of it, mostly nothing.
    Ahead(Vec<DeviceEvent>),
    /// It filled a gap. Its links to both sides remain to be compared with what is held there.
    Filled(DeviceEvent),
    /// Its number was used before.
    Fork,
}

impl Chain {
    /// Walks over the capture of that number, digest and named predecessor.
    pub fn walk(&mut self, seq: u64, digest: Digest, prev: Digest) -> Seen {
        if seq <= self.highest {
            let gap = Gap { from: seq, to: seq };
            let left = without(&self.gaps, gap);
            if left == self.gaps {
                return Seen::Fork;
            }
            self.gaps = left;
            return Seen::Filled(DeviceEvent::SequenceGapClosed { gap });
        }
        let mut noted = Vec::new();
        let next = self.highest.saturating_add(1);
        if seq > next {
            let gap = Gap { from: next, to: seq - 1 };
            self.gaps.push(gap);
            noted.push(DeviceEvent::SequenceGapOpened { gap });
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
