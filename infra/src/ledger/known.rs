//! What a group's parts rest on, read for all callers at once under the head's lock.

use std::collections::{BTreeSet, HashMap, HashSet};

use punchtrail_domain::{
    AggregateType, StoredEvent,
    aggregate::Stored,
    epoch::Anchor,
    punch::PunchEvent,
    quarantine::{QuarantineEvent, is_admitted},
};
use punchtrail_protocol::{DeviceId, Digest, Position, PunchId, vocabulary::QuarantineCode};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    delivery::{Delivery, DeliveryItem, ItemKind},
    inspect,
    part::Part,
};

/// The most numbers beyond a gap that are read to see how far the gap's closing reaches.
pub(crate) const BEYOND_GAP_MAX: u64 = 100_000;

/// A stream's key.
pub(super) type StreamKey = (AggregateType, String);

/// What stands in the ledger, kept up to date in memory while the group is settled.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The database's clock, in microseconds since 1970.
    pub clock_us: i64,
    /// Last sequences of streams that parts append to.
    pub sequences: HashMap<StreamKey, u64>,
    /// Punches that are there already.
    pub punches: HashMap<PunchId, KnownPunch>,
    pub quarantined: HashMap<Digest, (QuarantineCode, Position)>,
    /// Bytes that are kept of a device though others stand under their punch's id.
    pub conflicting: HashSet<(DeviceId, Digest)>,
    /// Whether anything of anybody is in quarantine: without, nothing was ever admitted from there.
    any_quarantined: bool,
    /// How far the devices' numbers are held.
    pub devices: HashMap<DeviceId, HeldNumbers>,
    /// Where the adjudicator stands; none where the event that it stands at is gone.
    pub adjudicator: Option<Anchor>,
    /// Those ends of walks that the ledger has.
    pub walked: Vec<Anchor>,
}

#[derive(Debug, Default)]
pub(super) struct KnownPunch {
    /// Digest of the bytes that stand; none for a punch that was admitted.
    pub digest: Option<Digest>,
    pub first: Position,
    pub last_sequence: u64,
    /// Whether other bytes came under its id.
    pub conflicted: bool,
}

#[derive(Debug, Default, Clone)]
pub(super) struct HeldNumbers {
    pub acked_through: u64,
    pub highest: u64,
    pub quarantined: u64,
    /// Numbers held beyond `acked_through`, as far as they can matter here.
    pub beyond: BTreeSet<u64>,
}

impl Known {
    pub(super) async fn read(
        connection: &mut PgConnection,
        parts: &[Part<'_>],
    ) -> Result<Self, sqlx::Error> {
        let mut known = Self::default();
        let deliveries: Vec<&Delivery> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Delivery(delivery) => Some(*delivery),
                _ => None,
            })
            .collect();
        known.read_devices(connection, &deliveries).await?;
        if !deliveries.is_empty() {
            known.read_punches(connection, &deliveries).await?;
            known.read_conflicts(connection, &deliveries).await?;
            known.read_quarantined(connection, &deliveries).await?;
            known.read_beyond(connection, &deliveries).await?;
        }
        known.read_sequences(connection, parts).await?;
        for part in parts {
            let Part::Judging(judging) = part else { continue };
            let to = judging.to;
            let (place, there) = inspect::judged(&mut *connection, to.position).await?;
            known.adjudicator = place.standing();
            known.walked.extend((there == Some(to.leaf_hash)).then_some(to));
        }
        Ok(known)
    }

    /// The clock comes with the devices' progress: a statement of its own, after the lock was got.
    async fn read_devices(
        &mut self,
        connection: &mut PgConnection,
        deliveries: &[&Delivery],
    ) -> Result<(), sqlx::Error> {
        let devices: Vec<uuid::Uuid> = deliveries.iter().map(|d| d.device.uuid()).collect();
        let rows = sqlx::query(
            "select (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock_us, \
             device, acked_through, highest, quarantined, \
             exists (select from quarantine_items) as any_quarantined \
             from (select 1) as one left join device_progress on device = any($1)",
        )
        .bind(&devices)
        .fetch_all(connection)
        .await?;
        for row in rows {
            self.clock_us = row.try_get("clock_us")?;
            self.any_quarantined = row.try_get("any_quarantined")?;
            let Some(device) = row.try_get::<Option<uuid::Uuid>, _>("device")? else { continue };
            let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
            let progress = HeldNumbers {
                acked_through: number("acked_through")?,
                highest: number("highest")?,
                quarantined: number("quarantined")?,
                beyond: BTreeSet::new(),
            };
            self.devices.insert(device.into(), progress);
        }
        Ok(())
    }

    async fn read_punches(
        &mut self,
        connection: &mut PgConnection,
        deliveries: &[&Delivery],
    ) -> Result<(), sqlx::Error> {
        let ids: Vec<String> = deliveries
            .iter()
            .flat_map(|delivery| &delivery.items)
            .flat_map(DeliveryItem::may_be)
            .filter(|punch| self.any_quarantined || !is_admitted(*punch))
            .map(|punch| punch.to_string())
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        // Each by itself, as in `read::streams`.
        let rows = sqlx::query(
            "select event.* from (select distinct unnest($1) as id) as wanted cross join lateral ( \
                 select aggregate_id, sequence, position, event_type, event_version, \
                     case when event_type in ('Captured', 'ConflictingCaptureReceived') \
                     then payload::text end as payload \
                 from events where aggregate_type = 'punch' and aggregate_id = wanted.id offset 0 \
             ) as event order by aggregate_id, sequence",
        )
        .bind(&ids)
        .fetch_all(connection)
        .await?;
        for row in rows {
            let id: PunchId = row.try_get::<&str, _>("aggregate_id")?.parse().map_err(decode)?;
            let position = Position::from_db(row.try_get("position")?);
            let punch = self
                .punches
                .entry(id)
                .or_insert_with(|| KnownPunch { first: position, ..KnownPunch::default() });
            punch.last_sequence = row.try_get::<i64, _>("sequence")?.cast_unsigned();
            if row.try_get::<Option<&str>, _>("payload")?.is_none() {
                continue;
            }
            match read_stored(&row)? {
                PunchEvent::Captured { capture, .. } => {
                    punch.digest = Some(capture.digest());
                }
                PunchEvent::ConflictingCaptureReceived { .. } => punch.conflicted = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Which of the captures that can't be taken, since others stand under their ids, are kept.
    async fn read_conflicts(
        &mut self,
        connection: &mut PgConnection,
        deliveries: &[&Delivery],
    ) -> Result<(), sqlx::Error> {
        let (mut devices, mut seqs, mut digests) = (Vec::new(), Vec::new(), Vec::new());
        for (device, item) in deliveries.iter().flat_map(|d| d.items.iter().map(|i| (d.device, i)))
        {
            let ItemKind::Capture(capture) = &item.kind else { continue };
            let standing = self.punches.get(&capture.punch);
            if standing.is_some_and(|punch| punch.digest != Some(capture.link.digest)) {
                devices.push(device.uuid());
                seqs.push(capture.link.seq.cast_signed());
                digests.push(capture.link.digest.0.to_vec());
            }
        }
        if devices.is_empty() {
            return Ok(());
        }
        let kept: Vec<(uuid::Uuid, Vec<u8>)> = sqlx::query_as(
            "select device, digest from unnest($1::uuid[], $2::bigint[], $3::bytea[]) \
             as asked (device, seq, digest) join device_chain using (device, seq, digest)",
        )
        .bind(devices)
        .bind(seqs)
        .bind(digests)
        .fetch_all(connection)
        .await?;
        for (device, digest) in kept {
            self.conflicting.extend(digest.try_into().ok().map(|d| (device.into(), Digest(d))));
        }
        Ok(())
    }

    /// Whether an item of this kind must be looked for in quarantine first: what was quarantined
    /// once gets the same answer for ever, even if it could be taken as a punch by now.
    pub(super) fn looks_in_quarantine(&self, device: DeviceId, kind: &ItemKind) -> bool {
        matches!(kind, ItemKind::Quarantine { .. })
            || self.devices.get(&device).is_some_and(|progress| progress.quarantined > 0)
    }

    async fn read_quarantined(
        &mut self,
        connection: &mut PgConnection,
        deliveries: &[&Delivery],
    ) -> Result<(), sqlx::Error> {
        let ids: Vec<String> = deliveries
            .iter()
            .flat_map(|delivery| delivery.items.iter().map(|item| (delivery.device, item)))
            .filter(|(device, item)| self.looks_in_quarantine(*device, &item.kind))
            .map(|(device, item)| item.item_digest(device).to_string())
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(
            "select event.* from (select distinct unnest($1) as id) as wanted cross join lateral ( \
                 select aggregate_id, position, event_type, event_version, \
                 payload::text as payload from events \
                 where aggregate_type = 'quarantine' and aggregate_id = wanted.id and sequence = 1 \
                 offset 0 \
             ) as event",
        )
        .bind(&ids)
        .fetch_all(connection)
        .await?;
        for row in rows {
            let id: Digest = row.try_get::<&str, _>("aggregate_id")?.parse().map_err(decode)?;
            if let QuarantineEvent::Quarantined { code, .. } = read_stored(&row)? {
                let position = Position::from_db(row.try_get("position")?);
                self.quarantined.insert(id, (code, position));
            }
        }
        Ok(())
    }

    /// Numbers beyond a gap matter only when the number that closes it comes.
    async fn read_beyond(
        &mut self,
        connection: &mut PgConnection,
        deliveries: &[&Delivery],
    ) -> Result<(), sqlx::Error> {
        let closing: HashSet<DeviceId> = deliveries
            .iter()
            .filter(|delivery| {
                self.devices.get(&delivery.device).is_some_and(|progress| {
                    let next = progress.acked_through + 1;
                    progress.highest > next
                        && delivery.items.iter().any(|i| i.link().is_some_and(|l| l.seq == next))
                })
            })
            .map(|delivery| delivery.device)
            .collect();
        for device in closing {
            let Some(progress) = self.devices.get_mut(&device) else { continue };
            let held: Vec<i64> = sqlx::query_scalar(
                "select seq from device_chain where device = $1 and seq > $2 order by seq limit $3",
            )
            .bind(device.uuid())
            .bind(progress.acked_through.cast_signed())
            .bind(BEYOND_GAP_MAX.cast_signed())
            .fetch_all(&mut *connection)
            .await?;
            progress.beyond = held.into_iter().map(i64::cast_unsigned).collect();
        }
        Ok(())
    }

    async fn read_sequences(
        &mut self,
        connection: &mut PgConnection,
        parts: &[Part<'_>],
    ) -> Result<(), sqlx::Error> {
        let (mut types, mut ids) = (Vec::new(), Vec::new());
        for part in parts {
            let streams = match part {
                Part::Append(append) => &append.streams,
                Part::Judging(judging) => &judging.streams,
                Part::Delivery(_) => continue,
            };
            for stream in streams {
                types.push(stream.aggregate_type.as_str());
                ids.push(stream.aggregate_id.as_str());
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(
            "select kind, id, (select max(sequence) from events \
             where aggregate_type = kind and aggregate_id = id) as last \
             from unnest($1::text[], $2::text[]) as stream (kind, id)",
        )
        .bind(&types)
        .bind(&ids)
        .fetch_all(connection)
        .await?;
        for row in rows {
            let kind: AggregateType = row.try_get::<&str, _>("kind")?.parse().map_err(decode)?;
            let last = row.try_get::<Option<i64>, _>("last")?.unwrap_or(0).cast_unsigned();
            self.sequences.insert((kind, row.try_get("id")?), last);
        }
        Ok(())
    }

    /// The last sequence of a stream, as of here in the group; a punch may have come in a delivery
    /// of the same group.
    pub(super) fn last_sequence(&self, key: &StreamKey) -> u64 {
        let delivered = match key.0 {
            AggregateType::Punch => key.1.parse().ok().and_then(|punch| self.punches.get(&punch)),
            _ => None,
        };
        let delivered = delivered.map_or(0, |punch| punch.last_sequence);
        self.sequences.get(key).copied().unwrap_or(0).max(delivered)
    }
}

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// The event in a row that has its place, type, version and payload.
fn read_stored<E: StoredEvent>(row: &PgRow) -> Result<E, sqlx::Error> {
    let stored = Stored {
        position: Position::from_db(row.try_get("position")?),
        event_type: row.try_get("event_type")?,
        event_version: row.try_get("event_version")?,
        payload: row.try_get("payload")?,
    };
    stored.read().map_err(decode)
}
