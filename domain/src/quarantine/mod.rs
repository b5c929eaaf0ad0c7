//! The quarantined item: what a device sent that can't be taken as a punch. Its raw bytes stand
//! beside the ledger, once; a person sees them, and admits the item as a punch or dismisses it.
//!
//! Its id is the digest of the item as sent, so the same item again is the same aggregate.

mod command;
mod error;
mod event;
mod said;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_protocol::{DeviceId, Digest, PunchId, Time, vocabulary::QuarantineCode};
use serde::{Deserialize, Serialize};

pub use command::QuarantineCommand;
pub use error::QuarantineError;
pub use event::QuarantineEvent;
pub use said::Said;

use crate::aggregate::aggregate;

/// A quarantined item as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quarantine {
    item: Option<(QuarantineCode, DeviceId, Time)>,
    names: Option<PunchId>,
    admitted_as: Option<PunchId>,
    dismissed: bool,
}

/// The id of an item: the digest of who sent it and what, both texts as sent.
pub fn item_digest(device: DeviceId, capture: &[u8], signature: &[u8]) -> Digest {
    Digest::of_parts(&[b"punchtrail.quarantine.v1", device.uuid().as_bytes(), capture, signature])
}

/// The punch that an item becomes when it is admitted: made from the digest of its bytes, so that
/// they are one punch however often they come, by whom and under whatever signature.
pub fn admitted_as(bytes: Digest) -> PunchId {
    let made = Digest::of_parts(&[b"punchtrail.admitted.v1", &bytes.0]);
    let half = std::array::from_fn(|n| made.0[n]);
    PunchId(uuid::Builder::from_custom_bytes(half).into_uuid())
}

/// Whether a punch of that id can only have been admitted: no device may make one of the kind.
pub fn is_admitted(punch: PunchId) -> bool {
    punch.0.get_version() == Some(uuid::Version::Custom)
}

/// The bytes of an item's capture: decoded, or the text as sent if that can't be.
pub fn bytes_of(capture: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(capture).unwrap_or_else(|_| capture.as_bytes().to_vec())
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
    /// The punch that it names, if it could be read.
    pub fn names(&self) -> Option<PunchId> {
        self.names
    }
    /// Whether a person dismissed it.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed
    }

    /// What follows from `command`.
    ///
    /// # Errors
    /// When there is no such item, a person has settled it, or it is a punch already.
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
            QuarantineCommand::AdmitAsPunch { stands: Some((punch, position)), .. } => {
                Err(QuarantineError::Stands { punch, position })
            }
            QuarantineCommand::AdmitAsPunch { punch, stands: None } => {
                Ok(vec![QuarantineEvent::AdmittedAsPunch { punch }])
            }
            QuarantineCommand::Dismiss { note } => Ok(vec![QuarantineEvent::Dismissed { note }]),
        }
    }

    fn evolve(&mut self, event: QuarantineEvent) {
        match event {
            QuarantineEvent::Quarantined { code, device, punch, received_at, .. } => {
                self.item = Some((code, device, received_at));
                self.names = punch;
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
    use punchtrail_protocol::Position;

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
        let admit = QuarantineCommand::AdmitAsPunch { punch: PunchId::NIL, stands: None };
        assert_eq!(item.decide(admit), Err(QuarantineError::Dismissed));
    }

    #[test]
    fn what_is_a_punch_already_can_only_be_dismissed() {
        let (item, _) = quarantined();
        let (punch, position) = (PunchId::NIL, Position(7));
        let admit = QuarantineCommand::AdmitAsPunch { punch, stands: Some((punch, position)) };
        assert_eq!(item.decide(admit), Err(QuarantineError::Stands { punch, position }));
        let dismissed = item.decide(QuarantineCommand::Dismiss { note: None });
        assert_eq!(dismissed, Ok(vec![QuarantineEvent::Dismissed { note: None }]));
    }

    #[test]
    fn an_admitted_punch_is_named_by_the_bytes_alone_and_as_no_device_may() {
        let punch = admitted_as(Digest::of(b"a"));
        assert_eq!(punch, admitted_as(Digest::of(&bytes_of("YQ"))));
        assert_ne!(punch, admitted_as(Digest::of(b"b")));
        assert!(is_admitted(punch) && !punch.is_v7());
    }

    #[test]
    fn the_sender_is_part_of_the_item() {
        let other = DeviceId(uuid::Uuid::from_u128(1));
        assert_ne!(item_digest(DeviceId::NIL, b"a", b"b"), item_digest(other, b"a", b"b"));
        assert_ne!(item_digest(other, b"ab", b""), item_digest(other, b"a", b"b"));
    }
}
