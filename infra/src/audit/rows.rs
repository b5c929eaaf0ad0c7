//! The ledger's rows as they stand, unread: whatever a superuser put there must be reported, not
//! refused.

use punchtrail_domain::{Event, Recorded, log::leaf::Leaf};
use punchtrail_protocol::{Digest, EpochId, Position};
use sqlx::{PgConnection, PgExecutor, Row as _, postgres::PgRow};

use crate::postgres::Pool;

/// Positions a page covers. A page of the longest events takes some 130 MB, of usual ones 2 MB.
pub(super) const PAGE_POSITIONS: u64 = 2_000;

/// An event's row.
#[derive(Debug)]
pub(super) struct Row {
    pub position: u64,
    pub recorded_at_us: i64,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub sequence: u64,
    pub event_type: String,
    pub event_version: String,
    pub payload: String,
    pub metadata: String,
    pub leaf_hash: Vec<u8>,
}

impl Row {
    /// The hash that the row should have; none when it is too long for a leaf.
    pub(super) fn hash(&self) -> Option<Digest> {
        Leaf {
            position: self.position,
            recorded_at_us: self.recorded_at_us,
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            sequence: self.sequence,
            event_type: &self.event_type,
            event_version: &self.event_version,
            payload: &self.payload,
            metadata: &self.metadata,
        }
        .hash()
        .ok()
    }

    /// The event; none when this program can't read it.
    pub(super) fn event(&self) -> Option<Event> {
        let recorded = Recorded {
            position: Position(self.position),
            recorded_at: jiff::Timestamp::from_microsecond(self.recorded_at_us).ok()?,
            aggregate_type: self.aggregate_type.parse().ok()?,
            aggregate_id: self.aggregate_id.clone(),
            sequence: self.sequence,
            event_type: self.event_type.clone(),
            event_version: self.event_version.clone(),
            payload: self.payload.clone(),
            metadata: String::new(),
        };
        recorded.event().ok()
    }

    /// The hash that was stored with it.
    pub(super) fn stored_hash(&self) -> Option<Digest> {
        self.leaf_hash.as_slice().try_into().ok().map(Digest)
    }
}

/// Where the ledger ends: as the head says, and as the rows say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub head: u64,
    /// When the head says that its event was recorded.
    pub recorded_at_us: i64,
    /// The epoch that the head is in.
    pub epoch: EpochId,
    pub last: u64,
    pub rows_up_to_head: u64,
}

/// The head.
pub(super) async fn head(executor: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
    let head: i64 =
        sqlx::query_scalar("select position from ledger_head").fetch_one(executor).await?;
    Ok(head.cast_unsigned())
}

/// As one snapshot sees it.
pub(super) async fn extent(snapshot: &mut PgConnection) -> Result<Extent, sqlx::Error> {
    let row = sqlx::query(
        "select position as head, (extract(epoch from recorded_at) * 1000000)::bigint as at, \
         epoch, coalesce((select max(position) from events), 0) as last, \
         (select count(*) from events where events.position <= ledger_head.position) as count \
         from ledger_head",
    )
    .fetch_one(snapshot)
    .await?;
    let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    Ok(Extent {
        head: number("head")?,
        recorded_at_us: row.try_get("at")?,
        epoch: EpochId(row.try_get("epoch")?),
        last: number("last")?,
        rows_up_to_head: number("count")?,
    })
}

/// The events of one page, in order: those after `after`, at most [`PAGE_POSITIONS`] positions and
/// not beyond `head`. By range and not by number, so that rows which share a position are all seen.
pub(super) async fn page(pool: &Pool, after: u64, head: u64) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query(
        "select position, (extract(epoch from recorded_at) * 1000000)::bigint as recorded_us, \
         aggregate_type, aggregate_id, sequence, event_type, event_version, \
         payload::text as payload, metadata::text as metadata, leaf_hash \
         from events where position > $1 and position <= $2 order by position",
    )
    .bind(after.cast_signed())
    .bind(after.saturating_add(PAGE_POSITIONS).min(head).cast_signed())
    .try_map(|row: PgRow| {
        Ok(Row {
            position: row.try_get::<i64, _>("position")?.cast_unsigned(),
            recorded_at_us: row.try_get("recorded_us")?,
            aggregate_type: row.try_get("aggregate_type")?,
            aggregate_id: row.try_get("aggregate_id")?,
            sequence: row.try_get::<i64, _>("sequence")?.cast_unsigned(),
            event_type: row.try_get("event_type")?,
            event_version: row.try_get("event_version")?,
            payload: row.try_get("payload")?,
            metadata: row.try_get("metadata")?,
            leaf_hash: row.try_get("leaf_hash")?,
        })
    })
    .fetch_all(pool)
    .await
}

/// An aggregate's event that doesn't follow the one before it.
#[derive(Debug)]
pub(super) struct BrokenSequence {
    pub position: u64,
    pub sequence: u64,
    pub previous: u64,
    pub previous_position: u64,
}

/// Events whose number isn't one more than that of their aggregate's event before, or that stand in
/// front of it; at most `limit`, lowest position first. Sorted in Postgres, which has disk for it.
pub(super) async fn broken_sequences(
    snapshot: &mut PgConnection,
    head: u64,
    limit: usize,
) -> Result<Vec<BrokenSequence>, sqlx::Error> {
    sqlx::query(
        "select position, sequence, previous, previous_position from (\
         select position, sequence, lag(sequence, 1, 0::bigint) over stream as previous, \
         lag(position, 1, 0::bigint) over stream as previous_position from events \
         where position <= $1 \
         window stream as (partition by aggregate_type, aggregate_id order by sequence)) as event \
         where sequence <> previous + 1 or position <= previous_position \
         order by position limit $2",
    )
    .bind(head.cast_signed())
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .try_map(|row: PgRow| {
        let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        Ok(BrokenSequence {
            position: number("position")?,
            sequence: number("sequence")?,
            previous: number("previous")?,
            previous_position: number("previous_position")?,
        })
    })
    .fetch_all(snapshot)
    .await
}
