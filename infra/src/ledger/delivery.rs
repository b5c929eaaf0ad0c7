//! What a device delivers, prepared for the committer.

use punchtrail_domain::{
    delivery::{Held, KnownAs},
    punch::{Clock, PunchEvent},
    quarantine::{QuarantineEvent, admitted_as, item_digest},
};
use punchtrail_protocol::{
    DeviceId, Digest, Position, PunchId, Time,
    capture::CaptureText,
    signing::Signature,
    vocabulary::QuarantineCode,
    wire::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, BatchItem, ItemStatus},
};

use super::{CALLER_BYTES_MAX, CALLER_EVENTS_MAX, Metadata, NewEvent};

// The largest batch that a device may send is taken at once: its items as sent, and their texts,
// which are three quarters of that and at most doubled by being quoted.
const _: () = assert!(2 * BATCH_ITEMS_MAX <= CALLER_EVENTS_MAX);
const _: () = assert!(4 * BATCH_BYTES_MAX <= CALLER_BYTES_MAX);

/// A device's batch: each item read, its signature checked, nothing decided yet.
#[derive(Debug)]
pub struct Delivery {
    /// The device that is authenticated.
    pub device: DeviceId,
    /// When the request was received.
    pub received_at: Time,
    pub metadata: Metadata,
    /// The items, in the order of the request.
    pub items: Vec<DeliveryItem>,
    /// How much more of the device may go into quarantine.
    pub room: QuarantineRoom,
}

/// How much may go into quarantine. What can't be taken as a punch is kept for a person, so that
/// nobody can send more of it than people look through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineRoom {
    pub items: u64,
    /// Of their texts as sent.
    pub bytes: u64,
}

impl QuarantineRoom {
    /// What may wait of a device.
    pub const OF_DEVICE: Self = Self { items: 20_000, bytes: 256 << 20 };
    /// And of a revoked one.
    pub const OF_REVOKED: Self = Self { items: 2_000, bytes: 16 << 20 };

    /// What is left where so much waits.
    #[must_use]
    pub fn beside(self, items: u64, bytes: u64) -> Self {
        Self { items: self.items.saturating_sub(items), bytes: self.bytes.saturating_sub(bytes) }
    }

    /// Takes room for an item, if there is some.
    pub(super) fn take(&mut self, item: &BatchItem) -> bool {
        let bytes = (item.capture.len() + item.signature.len()) as u64;
        let fits = self.items > 0 && self.bytes >= bytes;
        if fits {
            *self = self.beside(1, bytes);
        }
        fits
    }
}

/// One item of a delivery.
#[derive(Debug)]
pub struct DeliveryItem {
    pub(super) raw: BatchItem,
    pub(super) kind: ItemKind,
}

#[derive(Debug)]
pub(super) enum ItemKind {
    Capture(Box<PreparedCapture>),
    Quarantine {
        code: QuarantineCode,
        punch: Option<PunchId>,
        link: Option<Link>,
        known_as: KnownAs,
    },
}

#[derive(Debug)]
pub(super) struct PreparedCapture {
    pub punch: PunchId,
    /// The punch that these bytes are if a person admitted them from quarantine.
    pub admitted_as: PunchId,
    pub link: Link,
    pub captured: NewEvent,
    pub synced: NewEvent,
}

/// A place in a device's chain, held under its valid signature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub seq: u64,
    pub digest: Digest,
    pub prev: Digest,
}

impl DeliveryItem {
    /// A capture found good: `text` are the signed bytes, `raw` the item as sent.
    #[expect(clippy::too_many_arguments, reason = "what one capture consists of")]
    pub fn capture(
        raw: BatchItem,
        text: impl Into<CaptureText>,
        signature: Signature,
        punch: PunchId,
        seq: u64,
        prev: Digest,
        device: DeviceId,
        received_at: Time,
        clock: Clock,
    ) -> Self {
        let text = text.into();
        let link = Link { seq, digest: text.digest(), prev };
        let captured = NewEvent::of(&PunchEvent::Captured { capture: text, signature });
        let synced = NewEvent::of(&PunchEvent::Synced { device, received_at, clock });
        let admitted_as = admitted_as(link.digest);
        let prepared = PreparedCapture { punch, admitted_as, link, captured, synced };
        Self { raw, kind: ItemKind::Capture(Box::new(prepared)) }
    }

    /// An item that can't be taken as a punch, unless the ledger has it as the punch that it is
    /// `known_as`. `held` is its number, its bytes' digest and its named predecessor, when it was
    /// signed by the device and they could be read.
    pub fn quarantine(
        raw: BatchItem,
        code: QuarantineCode,
        punch: Option<PunchId>,
        held: Held,
        known_as: KnownAs,
    ) -> Self {
        let link = held.map(|(seq, digest, prev)| Link { seq, digest, prev });
        Self { raw, kind: ItemKind::Quarantine { code, punch, link, known_as } }
    }

    /// The punches that the item may stand in the ledger as.
    pub(super) fn may_be(&self) -> impl Iterator<Item = PunchId> {
        match &self.kind {
            ItemKind::Capture(capture) => [Some(capture.punch), Some(capture.admitted_as)],
            ItemKind::Quarantine { known_as, .. } => [known_as.map(|(punch, _)| punch), None],
        }
        .into_iter()
        .flatten()
    }

    pub(super) fn link(&self) -> Option<Link> {
        match &self.kind {
            ItemKind::Capture(capture) => Some(capture.link),
            ItemKind::Quarantine { link, .. } => *link,
        }
    }

    pub(super) fn item_digest(&self, device: DeviceId) -> Digest {
        item_digest(device, self.raw.capture.as_bytes(), self.raw.signature.as_bytes())
    }
}

pub(super) fn quarantined(
    code: QuarantineCode,
    device: DeviceId,
    punch: Option<PunchId>,
    seq: Option<u64>,
    received_at: Time,
) -> NewEvent {
    NewEvent::of(&QuarantineEvent::Quarantined { code, device, punch, seq, received_at })
}

/// What became of a delivery. Everything in it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryOutcome {
    /// One outcome an item, in order.
    pub items: Vec<ItemOutcome>,
    /// The highest number up to which every number of the device is held.
    pub acked_through: u64,
    /// The head after the commit.
    pub head: Position,
    /// How many items weren't taken, for want of room in quarantine.
    pub left: usize,
}

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemOutcome {
    pub status: ItemStatus,
    /// Position of the punch's first event, or of the quarantine.
    pub position: Position,
    /// Why it was quarantined, as decided when it first came.
    pub code: Option<QuarantineCode>,
}
