//! What a caller brings to the committer, and the leaf that each of its events becomes.

use punchtrail_domain::{Recorded, log::leaf::Leaf};

use super::{Append, Delivery, DeliveryItem, Judging, NewEvent, StreamAppend, delivery::ItemKind};

/// What one caller brought, kept until it is answered: a lost transaction is settled again from it.
pub(super) enum Part<'a> {
    Append(&'a Append),
    Delivery(&'a Delivery),
    Judging(&'a Judging),
}

/// How much a caller brings, before it is settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Events; of a delivery as many as there can be.
    pub events: usize,
    /// Bytes of their texts, and of what a delivery may have to keep as it was sent.
    pub bytes: usize,
}

impl Size {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { events: self.events + other.events, bytes: self.bytes + other.bytes }
    }

    /// Whether it is no more than that.
    pub(super) fn within(self, most: Self) -> bool {
        self.events <= most.events && self.bytes <= most.bytes
    }

    fn of_streams(streams: &[StreamAppend], metadata_bytes: usize) -> Self {
        let of_stream = |stream: &StreamAppend| {
            let frame = stream.aggregate_id.len() + metadata_bytes;
            let payloads: usize = stream.events.iter().map(|event| event.payload.len()).sum();
            Self { events: stream.events.len(), bytes: payloads + stream.events.len() * frame }
        };
        streams.iter().map(of_stream).fold(Self::default(), Self::plus)
    }

    fn of_delivery(delivery: &Delivery) -> Self {
        let metadata_bytes = delivery.metadata.to_text().len();
        let of_item = |item: &DeliveryItem| {
            let prepared = match &item.kind {
                ItemKind::Capture(it) => it.captured.payload.len() + it.synced.payload.len(),
                ItemKind::Quarantine { .. } => 0,
            };
            let raw = item.raw.capture.len() + item.raw.signature.len();
            Self { events: 2, bytes: prepared + raw + 2 * metadata_bytes }
        };
        delivery.items.iter().map(of_item).fold(Self::default(), Self::plus)
    }
}

impl Part<'_> {
    pub(super) fn size(&self) -> Size {
        match self {
            Self::Append(append) => {
                Size::of_streams(&append.streams, append.metadata.to_text().len())
            }
            Self::Delivery(delivery) => Size::of_delivery(delivery),
            Self::Judging(judging) => Size::of_streams(&judging.streams, 0),
        }
    }
}

/// The leaf of an event that has no place yet: of the length that it will have.
pub(super) fn leaf_of_new<'a>(
    stream: &'a StreamAppend,
    event: &'a NewEvent,
    metadata: &'a str,
) -> Leaf<'a> {
    Leaf {
        position: 0,
        recorded_at_us: 0,
        aggregate_type: stream.aggregate_type.as_str(),
        aggregate_id: &stream.aggregate_id,
        sequence: 0,
        event_type: &event.event_type,
        event_version: &event.event_version,
        payload: &event.payload,
        metadata,
    }
}

/// The leaf of an event that will be recorded at that time, in microseconds since 1970.
pub(super) fn leaf(event: &Recorded, recorded_us: i64) -> Leaf<'_> {
    Leaf {
        position: event.position.0,
        recorded_at_us: recorded_us,
        aggregate_type: event.aggregate_type.as_str(),
        aggregate_id: &event.aggregate_id,
        sequence: event.sequence,
        event_type: &event.event_type,
        event_version: &event.event_version,
        payload: &event.payload,
        metadata: &event.metadata,
    }
}
