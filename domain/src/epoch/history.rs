//! Whether what somebody remembers of the ledger is still part of it.

use punchtrail_protocol::{Digest, EpochId, Position};

use super::EpochEvent;

/// An event's place and leaf hash: enough to see whether a ledger still has the history that
/// somebody knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anchor {
    pub position: Position,
    pub leaf_hash: Digest,
}

impl Anchor {
    /// Before the first event, where all histories agree.
    pub const START: Self = Self { position: Position::START, leaf_hash: Digest::ZERO };
}

/// Where something that is remembered stands to the ledger as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is part of the ledger.
    Stands,
    /// It is gone, and an epoch says so: this is up to where its epoch's history still stands.
    Gone { after: Position },
    /// It is gone, and nobody has noticed yet.
    Unnoticed,
}

/// The epochs of a ledger, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    first: EpochId,
    opened: Vec<(EpochId, Opened)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opened {
    after: Position,
    ends: EpochId,
    lost: Option<EpochId>,
}

impl History {
    /// The history of a ledger whose head is in epoch `current`, by its epochs' events in order.
    pub fn new(current: EpochId, events: impl IntoIterator<Item = (EpochId, EpochEvent)>) -> Self {
        let opened: Vec<_> = events
            .into_iter()
            .map(|(id, EpochEvent::Opened { after, ends, lost, .. })| {
                (id, Opened { after, ends, lost })
            })
            .collect();
        let first = opened.first().map_or(current, |(_, opened)| opened.ends);
        Self { first, opened }
    }

    /// The epoch that lasts.
    pub fn current(&self) -> EpochId {
        self.opened.last().map_or(self.first, |(id, _)| *id)
    }

    /// The epochs and up to where the history before each stands, the first one first.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = (EpochId, Position)> + '_ {
        let opened = self.opened.iter().map(|(id, opened)| (*id, opened.after));
        std::iter::once((self.first, Position::START)).chain(opened)
    }

    /// Up to where an epoch's history is part of this ledger; none for one that nobody here has
    /// heard of. All of the current one's is.
    pub fn stands_through(&self, epoch: EpochId) -> Option<Position> {
        if epoch == self.current() {
            return Some(Position(u64::MAX));
        }
        let names = |opened: &Opened| opened.ends == epoch || opened.lost == Some(epoch);
        let ended = self.opened.iter().position(|(_, opened)| names(opened))?;
        self.opened[ended..].iter().map(|(_, opened)| opened.after).min()
    }

    /// Where an anchor of an epoch stands, given the leaf hash that the ledger has at its position.
    pub fn whereabouts(
        &self,
        epoch: EpochId,
        anchor: Anchor,
        stored: Option<Digest>,
    ) -> Whereabouts {
        if anchor.position == Position::START || stored == Some(anchor.leaf_hash) {
            return Whereabouts::Stands;
        }
        match self.stands_through(epoch) {
            Some(after) if anchor.position > after => Whereabouts::Gone { after },
            _ => Whereabouts::Unnoticed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::NoticedBy;
    use uuid::Uuid;

    fn id(n: u128) -> EpochId {
        EpochId(Uuid::from_u128(n))
    }

    fn opened(after: u64, ends: u128, lost: Option<u128>) -> EpochEvent {
        EpochEvent::Opened {
            after: Position(after),
            ends: id(ends),
            lost: lost.map(id),
            seen: Position(0),
            noticed_by: NoticedBy::Node,
        }
    }

    fn anchor(position: u64) -> Anchor {
        Anchor { position: Position(position), leaf_hash: Digest::of(b"known") }
    }

    #[test]
    fn a_ledger_that_never_went_back_has_one_epoch() {
        let history = History::new(id(1), []);
        assert_eq!(history.current(), id(1));
        assert_eq!(history.epochs().collect::<Vec<_>>(), [(id(1), Position(0))]);
        let whereabouts = |stored| history.whereabouts(id(1), anchor(9), stored);
        assert_eq!(whereabouts(Some(anchor(9).leaf_hash)), Whereabouts::Stands);
        assert_eq!(whereabouts(Some(Digest::ZERO)), Whereabouts::Unnoticed);
        assert_eq!(whereabouts(None), Whereabouts::Unnoticed);
        assert_eq!(
            history.whereabouts(id(7), Anchor::START, None),
            Whereabouts::Stands,
            "all histories agree before the first event"
        );
    }

    #[test]
    fn what_several_steps_back_took_is_what_the_deepest_took() {
        let history =
            History::new(id(3), [(id(2), opened(70, 1, None)), (id(3), opened(40, 2, None))]);
        let gone = |epoch, position| history.whereabouts(epoch, anchor(position), None);
        assert_eq!(gone(id(1), 90), Whereabouts::Gone { after: Position(40) });
        assert_eq!(gone(id(2), 75), Whereabouts::Gone { after: Position(40) });
        assert_eq!(gone(id(2), 40), Whereabouts::Unnoticed, "that is said to stand");
        assert_eq!(gone(id(3), 80), Whereabouts::Unnoticed);
    }

    #[test]
    fn an_epoch_whose_beginning_is_gone_is_known_once_it_was_named() {
        let before = History::new(id(1), []);
        assert_eq!(before.whereabouts(id(2), anchor(80), None), Whereabouts::Unnoticed);
        let history = History::new(id(3), [(id(3), opened(60, 1, Some(2)))]);
        for epoch in [1, 2] {
            let gone = history.whereabouts(id(epoch), anchor(80), None);
            assert_eq!(gone, Whereabouts::Gone { after: Position(60) });
        }
    }
}
