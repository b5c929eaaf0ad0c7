//! Settling a group in memory: each caller against what is known, in the order they came.
//!
//! Everything here is arithmetic on what [`Known`] read; nothing waits, nothing fails half-way. A
//! caller that is turned away leaves no trace in what the next one sees.

use punchtrail_domain::{
    AggregateType, Event, Recorded, log::leaf::LEAF_BYTES_MAX, punch::PunchEvent,
};
use punchtrail_protocol::{
    DeviceId, Position, PunchId, vocabulary::QuarantineCode, wire::ItemStatus,
};

use super::{
    Append, AppendError, Appended, Delivery, DeliveryOutcome, Entry, ItemOutcome, Judging,
    Metadata, NewEvent, StreamAppend,
    delivery::{DeliveryItem, ItemKind, Link, PreparedCapture, QuarantineRoom, quarantined},
    known::{HeldNumbers, Known, KnownPunch},
    part::{self, Part},
    rows::{ChainRow, SideRows},
};

/// What became of one caller.
#[derive(Debug)]
pub(super) enum Verdict {
    Appended(Appended),
    Delivered(DeliveryOutcome),
}

/// A group being settled.
pub(super) struct Settlement<'a> {
    next: Position,
    /// Of the delivery that is being settled: its room in quarantine, and how many had none.
    room: QuarantineRoom,
    left: usize,
    events: Vec<Entry>,
    side: SideRows<'a>,
}

/// A group, settled: what to write.
pub(super) struct Settled<'a> {
    pub events: Vec<Entry>,
    pub side: SideRows<'a>,
}

impl<'a> Settlement<'a> {
    pub(super) fn new(head: Position) -> Self {
        Self {
            next: head.plus(1),
            room: QuarantineRoom::OF_DEVICE,
            left: 0,
            events: Vec::new(),
            side: SideRows::default(),
        }
    }

    /// Where the next event will stand.
    pub(super) fn next(&self) -> Position {
        self.next
    }

    /// Whether a caller's part still fits what is known. A delivery always does.
    pub(super) fn check(&self, part: &Part<'_>, known: &Known) -> Result<(), AppendError> {
        let (streams, metadata) = match part {
            Part::Delivery(_) => return Ok(()),
            Part::Append(append) => (&append.streams, append.metadata.to_text()),
            Part::Judging(Judging { from, to, .. })
                if Some(*from) != known.adjudicator || !known.walked.contains(to) =>
            {
                return Err(AppendError::Stale);
            }
            Part::Judging(judging) => (&judging.streams, policy().to_text()),
        };
        for stream in streams {
            let key = (stream.aggregate_type, stream.aggregate_id.clone());
            if known.last_sequence(&key) != stream.expected {
                return Err(AppendError::Stale);
            }
            for event in &stream.events {
                let length_bytes = part::leaf_of_new(stream, event, &metadata).length_bytes();
                if length_bytes > LEAF_BYTES_MAX {
                    return Err(AppendError::TooLong(length_bytes));
                }
            }
        }
        Ok(())
    }

    /// Takes a caller's part in. It has passed [`Self::check`] against the same knowledge.
    pub(super) fn settle(&mut self, part: &Part<'a>, known: &mut Known) -> Verdict {
        match part {
            Part::Append(append) => self.append(append, known),
            Part::Delivery(delivery) => self.delivery(delivery, known),
            Part::Judging(judging) => self.judging(judging, known),
        }
    }

    pub(super) fn finish(mut self, known: &Known) -> Settled<'a> {
        self.side.take_progress(&known.devices);
        Settled { events: self.events, side: self.side }
    }

    fn append(&mut self, append: &Append, known: &mut Known) -> Verdict {
        let metadata = append.metadata.to_text();
        Verdict::Appended(self.streams(&append.streams, &metadata, known))
    }

    fn judging(&mut self, judging: &'a Judging, known: &mut Known) -> Verdict {
        let appended = self.streams(&judging.streams, &policy().to_text(), known);
        known.adjudicator = Some(judging.to);
        self.side.judgings.push(judging);
        Verdict::Appended(appended)
    }

    fn streams(&mut self, streams: &[StreamAppend], metadata: &str, known: &mut Known) -> Appended {
        let before = self.next;
        for stream in streams {
            if stream.events.is_empty() {
                // Nothing but a condition, which was checked.
                continue;
            }
            let key = (stream.aggregate_type, stream.aggregate_id.clone());
            let punch = match stream.aggregate_type {
                AggregateType::Punch => key.1.parse().ok(),
                _ => None,
            };
            if let Some(punch) = punch {
                let first = self.next;
                let entry = known
                    .punches
                    .entry(punch)
                    .or_insert_with(|| KnownPunch { first, ..KnownPunch::default() });
                entry.last_sequence = stream.expected + stream.events.len() as u64;
            }
            for (event, sequence) in stream.events.iter().zip(stream.expected + 1..) {
                self.push(
                    (stream.aggregate_type, &stream.aggregate_id, punch),
                    sequence,
                    event,
                    metadata,
                );
            }
            known.sequences.insert(key, stream.expected + stream.events.len() as u64);
        }
        let last = Position(self.next.0 - 1);
        let first = if before < self.next { before } else { last };
        Appended { first, last }
    }

    fn delivery(&mut self, delivery: &'a Delivery, known: &mut Known) -> Verdict {
        let metadata = delivery.metadata.to_text();
        (self.room, self.left) = (delivery.room, 0);
        let items =
            delivery.items.iter().map(|item| self.item(delivery, item, &metadata, known)).collect();
        let progress = known.devices.entry(delivery.device).or_default();
        Verdict::Delivered(DeliveryOutcome {
            items,
            acked_through: progress.acked_through,
            head: Position(self.next.0 - 1),
            left: self.left,
        })
    }

    fn item(
        &mut self,
        delivery: &Delivery,
        item: &'a DeliveryItem,
        metadata: &str,
        known: &mut Known,
    ) -> ItemOutcome {
        if let ItemKind::Quarantine { known_as: Some((punch, digest)), .. } = item.kind
            && let Some(punch) = known.punches.get(&punch)
            && punch.digest == Some(digest)
        {
            // Taken once, it is never anything else, whatever is wrong with the item now.
            return ItemOutcome {
                status: ItemStatus::Duplicate,
                position: punch.first,
                code: None,
            };
        }
        if known.looks_in_quarantine(delivery.device, &item.kind) {
            let held = known.quarantined.get(&item.item_digest(delivery.device));
            // What is in conflict is answered as that, by the punch that stands.
            let held = held.filter(|(code, _)| *code != QuarantineCode::Conflict);
            if let Some((code, position)) = held {
                return ItemOutcome {
                    status: ItemStatus::Quarantined,
                    position: *position,
                    code: Some(*code),
                };
            }
        }
        match &item.kind {
            ItemKind::Capture(capture) => self.capture(delivery, item, capture, metadata, known),
            // The answer isn't given.
            ItemKind::Quarantine { code, .. } if !self.has_room(item) => ItemOutcome {
                status: ItemStatus::Quarantined,
                position: Position::START,
                code: Some(*code),
            },
            ItemKind::Quarantine { code, punch, link, .. } => {
                self.quarantine(delivery, item, (*code, *punch, *link), metadata, known)
            }
        }
    }

    fn capture(
        &mut self,
        delivery: &Delivery,
        item: &'a DeliveryItem,
        capture: &PreparedCapture,
        metadata: &str,
        known: &mut Known,
    ) -> ItemOutcome {
        let outcome = |status, position| ItemOutcome { status, position, code: None };
        if let Some(admitted) = known.punches.get(&capture.admitted_as) {
            return outcome(ItemStatus::Duplicate, admitted.first);
        }
        let Some(punch) = known.punches.get_mut(&capture.punch) else {
            let first = self.next;
            let id = capture.punch.to_string();
            let stream = (AggregateType::Punch, id.as_str(), Some(capture.punch));
            self.push(stream, 1, &capture.captured, metadata);
            self.push(stream, 2, &capture.synced, metadata);
            let punch = KnownPunch {
                digest: Some(capture.link.digest),
                first,
                last_sequence: 2,
                conflicted: false,
            };
            known.punches.insert(capture.punch, punch);
            self.hold(delivery.device, capture.link, Some(capture.punch), first, known);
            return outcome(ItemStatus::Applied, first);
        };
        let first = punch.first;
        if punch.digest == Some(capture.link.digest) {
            return outcome(ItemStatus::Duplicate, first);
        }
        let bytes = (delivery.device, capture.link.digest);
        if known.conflicting.contains(&bytes) || !self.has_room(item) {
            return outcome(ItemStatus::Conflict, first);
        }
        known.conflicting.insert(bytes);
        let noted = std::mem::replace(&mut punch.conflicted, true);
        punch.last_sequence += u64::from(!noted);
        let sequence = punch.last_sequence;
        let why = (QuarantineCode::Conflict, Some(capture.punch), Some(capture.link));
        self.quarantine(delivery, item, why, metadata, known);
        if !noted {
            let event = NewEvent::of(&PunchEvent::ConflictingCaptureReceived {
                digest: capture.link.digest,
                device: delivery.device,
                received_at: delivery.received_at,
            });
            let id = capture.punch.to_string();
            let stream = (AggregateType::Punch, id.as_str(), Some(capture.punch));
            self.push(stream, sequence, &event, metadata);
            self.side.conflicts.push((capture.link.digest, capture.punch, &item.raw));
        }
        outcome(ItemStatus::Conflict, first)
    }

    /// Takes room in quarantine for an item, or counts it as one that isn't taken.
    fn has_room(&mut self, item: &DeliveryItem) -> bool {
        let fits = self.room.take(&item.raw);
        self.left += usize::from(!fits);
        fits
    }

    fn quarantine(
        &mut self,
        delivery: &Delivery,
        item: &'a DeliveryItem,
        (code, punch, link): (QuarantineCode, Option<PunchId>, Option<Link>),
        metadata: &str,
        known: &mut Known,
    ) -> ItemOutcome {
        let id = item.item_digest(delivery.device);
        let position = self.next;
        let event = quarantined(
            code,
            delivery.device,
            punch,
            link.map(|link| link.seq),
            delivery.received_at,
        );
        self.push((AggregateType::Quarantine, &id.to_string(), None), 1, &event, metadata);
        self.side.quarantined.push((id, delivery.device, &item.raw));
        known.quarantined.insert(id, (code, position));
        known.devices.entry(delivery.device).or_default().quarantined += 1;
        self.side.touched.insert(delivery.device);
        if let Some(link) = link {
            self.hold(delivery.device, link, None, position, known);
        }
        ItemOutcome { status: ItemStatus::Quarantined, position, code: Some(code) }
    }

    /// Notes that a number of the device is held, and how far they are held without a hole.
    fn hold(
        &mut self,
        device: DeviceId,
        link: Link,
        punch: Option<PunchId>,
        position: Position,
        known: &mut Known,
    ) {
        self.side.chain.push(ChainRow { device, link, punch, position });
        self.side.touched.insert(device);
        known.devices.entry(device).or_default().hold(link.seq);
    }

    /// Adds an event at the next place; its time is set when the group is written.
    fn push(
        &mut self,
        (aggregate_type, aggregate_id, punch): (AggregateType, &str, Option<PunchId>),
        sequence: u64,
        event: &NewEvent,
        metadata: &str,
    ) {
        let recorded = Recorded {
            position: self.next,
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            aggregate_type,
            aggregate_id: aggregate_id.to_owned(),
            sequence,
            event_type: event.event_type.clone().into_owned(),
            event_version: event.event_version.clone().into_owned(),
            payload: event.payload.clone(),
            metadata: metadata.to_owned(),
        };
        let made_from =
            punch.zip(event.of_punch.clone()).map(|(id, event)| Event::Punch(id, event));
        self.events.push(Entry::made_from(recorded, made_from));
        self.next = self.next.plus(1);
    }
}

impl HeldNumbers {
    fn hold(&mut self, seq: u64) {
        self.highest = self.highest.max(seq);
        if seq > self.acked_through {
            self.beyond.insert(seq);
        }
        while self.beyond.remove(&(self.acked_through + 1)) {
            self.acked_through += 1;
        }
    }
}

fn policy() -> Metadata {
    Metadata::new(punchtrail_domain::log::recorded::Actor::Policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_acknowledged_is_held_without_a_hole(
            seqs in proptest::collection::vec(1u64..40, 0..60),
        ) {
            let mut progress = HeldNumbers::default();
            for &seq in &seqs {
                progress.hold(seq);
            }
            let expected = (1..).take_while(|n| seqs.contains(n)).count() as u64;
            prop_assert_eq!(progress.acked_through, expected);
            prop_assert_eq!(progress.highest, seqs.iter().copied().max().unwrap_or(0));
        }
    }
}
