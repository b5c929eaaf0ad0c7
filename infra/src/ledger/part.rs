//! What a caller brings to the committer, and the leaf that each of its events becomes.

use punchtrail_domain::{Recorded, log::leaf::Leaf};

use super::{Append, Delivery, Judging, NewEvent, StreamAppend};

/// What one caller brought, kept until it is answered: a lost transaction is settled again from it.
pub(super) enum Part<'a> {
    Append(&'a Append),
    Delivery(&'a Delivery),
    Judging(&'a Judging),
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
