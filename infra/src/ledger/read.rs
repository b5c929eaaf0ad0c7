//! Reading events: by position, by stream, and streams folded into the aggregates that they make.

use std::collections::BTreeMap;

use cqrs_es::Aggregate;
use punchtrail_domain::{
    AggregateType, Recorded, StoredEvent,
    aggregate::{Undecodable, UnknownAggregateType},
    epoch::Anchor,
};
use punchtrail_protocol::Position;
use sqlx::{PgExecutor, Row, postgres::PgRow};

use super::{
    Entry,
    epochs::{self, Look},
};

const COLUMNS: &str = "position, (extract(epoch from recorded_at) * 1000000)::bigint as \
    recorded_us, \
     aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text as payload, \
     metadata::text as metadata";

/// Why events could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An event can't be read by this program, and never will be.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// An event is missing: positions are dense, and given in the order of commits, so it doesn't
    /// come late.
    #[error("the ledger has a hole: position {missing} is missing before {before}")]
    Hole {
        /// The first position that is missing.
        missing: Position,
        before: Position,
    },
    /// The newest events are missing: the head counts more than there are.
    #[error(
        "the ledger ends before its head: position {missing} is missing, the head is at {head}"
    )]
    CutOff {
        /// The first position that is missing.
        missing: Position,
        head: Position,
    },
    /// The database is out of reach, or refuses.
    #[error("the ledger can't be read now: {0}")]
    Database(#[source] sqlx::Error),
}

impl ReadError {
    /// Where the ledger can't be read on, whoever reads and however often; none when it is worth
    /// another try.
    pub fn stops_at(&self) -> Option<Position> {
        match self {
            Self::Undecodable(error) => Some(error.position),
            Self::Hole { missing, .. } | Self::CutOff { missing, .. } => Some(*missing),
            Self::Database(_) => None,
        }
    }
}

impl From<sqlx::Error> for ReadError {
    /// What a row's reading found wrong comes through the database's client, and is told apart
    /// here.
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Decode(source) => match source.downcast::<Undecodable>() {
                Ok(undecodable) => Self::Undecodable(*undecodable),
                Err(source) => Self::Database(sqlx::Error::Decode(source)),
            },
            other => Self::Database(other),
        }
    }
}

/// An aggregate as its events make it.
#[derive(Debug, Clone, Default)]
pub struct Loaded<A> {
    pub aggregate: A,
    /// The sequence of its last event; 0 when it has none.
    pub sequence: u64,
    /// Position of its last event, if it has one.
    pub position: Option<Position>,
}

impl<A: Aggregate<Event: StoredEvent>> Loaded<A> {
    fn take(&mut self, recorded: &Recorded) -> Result<(), Undecodable> {
        self.aggregate.apply(recorded.read()?);
        self.sequence = recorded.sequence;
        self.position = Some(recorded.position);
        Ok(())
    }
}

/// Many aggregates of one kind, as they stand by now; those without events are left out.
///
/// # Errors
/// See [`ReadError`].
pub async fn load<A: Aggregate<Event: StoredEvent>>(
    executor: impl PgExecutor<'_>,
    aggregate_ids: &[String],
) -> Result<BTreeMap<String, Loaded<A>>, ReadError> {
    let mut loaded = BTreeMap::<String, Loaded<A>>::new();
    for recorded in streams(executor, A::Event::AGGREGATE, aggregate_ids).await? {
        match loaded.get_mut(&recorded.aggregate_id) {
            Some(known) => known.take(&recorded)?,
            None => {
                let mut first = Loaded::default();
                first.take(&recorded)?;
                loaded.insert(recorded.aggregate_id, first);
            }
        }
    }
    Ok(loaded)
}

/// The position of the head.
pub(crate) async fn head(executor: impl PgExecutor<'_>) -> Result<Position, sqlx::Error> {
    let position: i64 =
        sqlx::query_scalar("select position from ledger_head").fetch_one(executor).await?;
    Ok(Position::from_db(position))
}

/// The head as other nodes left it, and what else is looked for with it.
pub(super) struct Seen {
    pub look: Look,
    /// The event at the head.
    pub newest: Anchor,
    /// Up to where readers of any node wait for followers.
    pub wanted: Position,
    /// The database's clock, in microseconds since 1970.
    pub clock_us: i64,
}

/// Looks at the head, and where this node remembers an event.
pub(super) async fn look(executor: impl PgExecutor<'_>, at: Position) -> Result<Seen, sqlx::Error> {
    let row = sqlx::query(
        "select coalesce((select max(wanted) from follower_leases), 0) as wanted, \
         (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock_us, \
         position as head, (extract(epoch from recorded_at) * 1000000)::bigint as recorded_us, \
         epoch, (select leaf_hash from events where position = $1) as stored, \
         (select leaf_hash from events event where event.position = head.position) as newest \
         from ledger_head head",
    )
    .bind(at.to_db())
    .fetch_one(executor)
    .await?;
    let look = Look::of(&row)?;
    let leaf_hash = epochs::digest(&row, "newest")?.unwrap_or_default();
    Ok(Seen {
        look,
        newest: Anchor { position: look.head, leaf_hash },
        wanted: Position::from_db(row.try_get("wanted")?),
        clock_us: row.try_get("clock_us")?,
    })
}

/// The database's clock, in microseconds since 1970.
pub(super) async fn clock_us(executor: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
        .fetch_one(executor)
        .await
}

/// Lets other nodes know that a reader waits for followers to come up to there.
pub(super) async fn want(
    executor: impl PgExecutor<'_>,
    position: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query("update follower_leases set wanted = $1 where wanted < $1")
        .bind(position.to_db())
        .execute(executor)
        .await
        .map(drop)
}

/// At most `limit` events after `after`, in order.
pub(super) async fn after(
    executor: impl PgExecutor<'_>,
    after: Position,
    limit: u32,
) -> Result<Vec<Entry>, ReadError> {
    let statement = format!(
        "select {COLUMNS}, leaf_hash from events where position > $1 and position <= $2 \
         order by position"
    );
    sqlx::query(&statement)
        .bind(after.to_db())
        .bind(after.plus(u64::from(limit)).to_db())
        .try_map(|row: PgRow| {
            let leaf_hash = epochs::digest(&row, "leaf_hash")?.unwrap_or_default();
            Ok(Entry::read(recorded(&row)?, leaf_hash))
        })
        .fetch_all(executor)
        .await
        .map_err(ReadError::from)
}

/// The events of many streams of one type, ordered by stream and sequence.
///
/// Each stream is looked for by itself, and `offset 0` keeps it so: with `= any($2)` a plan made
/// while the table was small reads the whole index, and stays while the table grows.
///
/// # Errors
/// See [`ReadError`].
pub async fn streams(
    executor: impl PgExecutor<'_>,
    aggregate_type: AggregateType,
    aggregate_ids: &[String],
) -> Result<Vec<Recorded>, ReadError> {
    let statement = format!(
        "select event.* from (select distinct unnest($2) as id) as wanted cross join lateral ( \
             select {COLUMNS} from events where aggregate_type = $1 and aggregate_id = wanted.id \
             offset 0 ) as event order by aggregate_id, sequence"
    );
    sqlx::query(&statement)
        .bind(aggregate_type.as_str())
        .bind(aggregate_ids)
        .try_map(|row| recorded(&row))
        .fetch_all(executor)
        .await
        .map_err(ReadError::from)
}

/// The events of all streams of one type, in the ledger's order: for types of which there are few.
pub(super) async fn of_kind(
    executor: impl PgExecutor<'_>,
    kind: AggregateType,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let statement =
        format!("select {COLUMNS} from events where aggregate_type = $1 order by position");
    sqlx::query(&statement)
        .bind(kind.as_str())
        .try_map(|row| recorded(&row))
        .fetch_all(executor)
        .await
}

/// An event that can't be read, as the database's client carries it.
pub(super) fn undecodable(error: Undecodable) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// At most `limit` events of all streams of one type that stand up to `to`, after that event of
/// that stream, ordered by stream and sequence.
pub(crate) async fn of_type(
    executor: impl PgExecutor<'_>,
    aggregate_type: AggregateType,
    (id, sequence): (&str, u64),
    to: Position,
    limit: u32,
) -> Result<Vec<Recorded>, ReadError> {
    let statement = format!(
        "select {COLUMNS} from events where aggregate_type = $1 \
         and (aggregate_id, sequence) > ($2, $3) and position <= $4 \
         order by aggregate_id, sequence limit $5"
    );
    sqlx::query(&statement)
        .bind(aggregate_type.as_str())
        .bind(id)
        .bind(sequence.cast_signed())
        .bind(to.to_db())
        .bind(i64::from(limit))
        .try_map(|row| recorded(&row))
        .fetch_all(executor)
        .await
        .map_err(ReadError::from)
}

fn recorded(row: &PgRow) -> Result<Recorded, sqlx::Error> {
    let position = Position::from_db(row.try_get("position")?);
    let aggregate_type: &str = row.try_get("aggregate_type")?;
    let recorded_us: i64 = row.try_get("recorded_us")?;
    Ok(Recorded {
        position,
        recorded_at: jiff::Timestamp::from_microsecond(recorded_us)
            .map_err(|error| undecodable(Undecodable::new(position, error)))?,
        aggregate_type: aggregate_type.parse().map_err(|error: UnknownAggregateType| {
            undecodable(Undecodable::new(position, error))
        })?,
        aggregate_id: row.try_get("aggregate_id")?,
        sequence: row.try_get::<i64, _>("sequence")?.cast_unsigned(),
        event_type: row.try_get("event_type")?,
        event_version: row.try_get("event_version")?,
        payload: row.try_get("payload")?,
        metadata: row.try_get("metadata")?,
    })
}
