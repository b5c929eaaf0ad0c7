//! The quarantined item: what a device sent that can't be taken as a punch. Its raw bytes stand
//! beside the ledger, once; a person sees them, and admits the item as a punch or dismisses it.
//!
//! Its id is the digest of the item as sent, so the same item again is the same aggregate.

mod command;
mod error;
mod event;

use punchtrail_protocol::{DeviceId, Digest, PunchId, Time, vocabulary::QuarantineCode};
use serde::{Deserialize, Serialize};

pub use command::QuarantineCommand;
pub use error::QuarantineError;
pub use event::QuarantineEvent;

use crate::aggregate::aggregate;

/// A quarantined item as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quarantine {
    item: Option<(QuarantineCode, DeviceId, Time)>,
    admitted_as: Option<PunchId>,
    dismissed: bool,
}

/// The id of an item: the digest of who sent it and what, both texts as sent.
pub fn item_digest(device: DeviceId, capture: &[u8], signature: &[u8]) -> Digest {
    Digest::of_parts(&[b"punchtrail.quarantine.v1", device.uuid().as_bytes(), capture, signature])
}

impl Quarantine {
    /// Why the item is here, who sent it and when; none before its first event.
    pub fn item(&self) -> Option<(QuarantineCode, DeviceId, Time)> {
        self.item
    }
    /// The punch it was admitted as.
    pub fn admitted_as(&self) -> Option<PunchId> {
        self.admitted_as
    }
    /// Whether a person dismissed it.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed
    }

    /// What follows from `command`.
    ///
    /// # Errors
    /// When there is no such item, or a person has settled it.
    pub fn decide(
        &self,
        command: QuarantineCommand,
    ) -> Result<Vec<QuarantineEvent>, QuarantineError> {
        match command {
            QuarantineCommand::Quarantine { .. } if self.item.is_some() => Ok(Vec::new()),
            QuarantineCommand::Quarantine { code, device, punch, seq, received_at } => {
                Ok(vec![QuarantineEvent::Quarantined { code, device, punch, seq, received_at }])
            }
            _ if self.item.is_none() => Err(QuarantineError::Unknown),
            _ if self.admitted_as.is_some() => Err(QuarantineError::Admitted),
            _ if self.dismissed => Err(QuarantineError::Dismissed),
            QuarantineCommand::AdmitAsPunch { punch } => {
                Ok(vec![QuarantineEvent::AdmittedAsPunch { punch }])
            }
            QuarantineCommand::Dismiss { note } => Ok(vec![QuarantineEvent::Dismissed { note }]),
        }
    }

    fn evolve(&mut self, event: QuarantineEvent) {
        match event {
            QuarantineEvent::Quarantined { code, device, received_at, .. } => {
                self.item = Some((code, device, received_at));
            }
            QuarantineEvent::AdmittedAsPunch { punch } => self.admitted_as = Some(punch),
            QuarantineEvent::Dismissed { .. } => self.dismissed = true,
        }
    }
}

aggregate!(Quarantine, QuarantineCommand, QuarantineEvent, QuarantineError, {
    Quarantined, AdmittedAsPunch, Dismissed,
});

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantined() -> (Quarantine, QuarantineCommand) {
        let command = QuarantineCommand::Quarantine {
            code: QuarantineCode::BadSignature,
            device: DeviceId::NIL,
            punch: None,
            seq: None,
            received_at: Time::from_millis(0),
        };
        let mut item = Quarantine::default();
        for event in item.decide(command.clone()).unwrap() {
            item.evolve(event);
        }
        (item, command)
    }

    #[test]
    fn the_same_item_again_changes_nothing() {
        let (item, again) = quarantined();
        assert_eq!(item.decide(again), Ok(vec![]));
    }

    #[test]
    fn an_item_is_settled_once() {
        let (mut item, _) = quarantined();
        item.evolve(QuarantineEvent::Dismissed { note: None });
        let admit = QuarantineCommand::AdmitAsPunch { punch: PunchId::NIL };
        assert_eq!(item.decide(admit), Err(QuarantineError::Dismissed));
    }

    #[test]
    fn the_sender_is_part_of_the_item() {
        let other = DeviceId(uuid::Uuid::from_u128(1));
        assert_ne!(item_digest(DeviceId::NIL, b"a", b"b"), item_digest(other, b"a", b"b"));
        assert_ne!(item_digest(other, b"ab", b""), item_digest(other, b"a", b"b"));
    }
}
