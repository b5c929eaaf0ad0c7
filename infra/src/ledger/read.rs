//! Reading events: by position and by stream.

use punchtrail_domain::{AggregateType, Recorded, log::recorded::Undecodable};
use punchtrail_protocol::Position;
use sqlx::{PgExecutor, Row, postgres::PgRow};

const COLUMNS: &str = "position, (extract(epoch from recorded_at) * 1000000)::bigint as recorded_us, \
     aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text as payload, \
     metadata::text as metadata";

/// The position of the head.
pub(crate) async fn head(executor: impl PgExecutor<'_>) -> Result<Position, sqlx::Error> {
    let position: i64 =
        sqlx::query_scalar("select position from ledger_head").fetch_one(executor).await?;
    Ok(Position::from_db(position))
}

/// At most `limit` events after `after`, in order.
pub(crate) async fn after(
    executor: impl PgExecutor<'_>,
    after: Position,
    limit: u32,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let statement = format!(
        "select {COLUMNS} from events where position > $1 and position <= $2 order by position"
    );
    sqlx::query(&statement)
        .bind(after.to_db())
        .bind(after.plus(u64::from(limit)).to_db())
        .try_map(|row| recorded(&row))
        .fetch_all(executor)
        .await
}

/// The events of one stream, in order.
pub(crate) async fn stream(
    executor: impl PgExecutor<'_>,
    aggregate_type: AggregateType,
    aggregate_id: &str,
) -> Result<Vec<Recorded>, sqlx::Error> {
    streams(executor, aggregate_type, &[aggregate_id.to_owned()]).await
}

/// The events of many streams of one type, ordered by stream and sequence.
///
/// Each stream is looked for by itself, and `offset 0` keeps it so: with `= any($2)` a plan made while the
/// table was small reads the whole index, and stays while the table grows.
///
/// # Errors
/// When the database is out of reach, or an event's row can't be read.
pub async fn streams(
    executor: impl PgExecutor<'_>,
    aggregate_type: AggregateType,
    aggregate_ids: &[String],
) -> Result<Vec<Recorded>, sqlx::Error> {
    let statement = format!(
        "select event.* from (select distinct unnest($2) as id) as wanted cross join lateral ( \
             select {COLUMNS} from events where aggregate_type = $1 and aggregate_id = wanted.id \
             offset 0 \
         ) as event order by aggregate_id, sequence"
    );
    sqlx::query(&statement)
        .bind(aggregate_type.as_str())
        .bind(aggregate_ids)
        .try_map(|row| recorded(&row))
        .fetch_all(executor)
        .await
}

/// The events of all streams of these types, after one position and up to another, in order.
pub(crate) async fn of_types(
    executor: impl PgExecutor<'_>,
    types: &[AggregateType],
    after: Position,
    to: Position,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let names: Vec<&str> = types.iter().map(|kind| kind.as_str()).collect();
    let statement = format!(
        "select {COLUMNS} from events where aggregate_type = any($1) and position > $2 \
         and position <= $3 order by position"
    );
    sqlx::query(&statement)
        .bind(names)
        .bind(after.to_db())
        .bind(to.to_db())
        .try_map(|row| recorded(&row))
        .fetch_all(executor)
        .await
}

fn recorded(row: &PgRow) -> Result<Recorded, sqlx::Error> {
    let position = Position::from_db(row.try_get("position")?);
    let decode = |error: Undecodable| sqlx::Error::Decode(Box::new(error));
    let aggregate_type: &str = row.try_get("aggregate_type")?;
    let recorded_us: i64 = row.try_get("recorded_us")?;
    Ok(Recorded {
        position,
        recorded_at: jiff::Timestamp::from_microsecond(recorded_us)
            .map_err(|error| decode(Undecodable::new(position, error)))?,
        aggregate_type: aggregate_type.parse().map_err(decode)?,
        aggregate_id: row.try_get("aggregate_id")?,
        sequence: row.try_get::<i64, _>("sequence")?.cast_unsigned(),
        event_type: row.try_get("event_type")?,
        event_version: row.try_get("event_version")?,
        payload: row.try_get("payload")?,
        metadata: row.try_get("metadata")?,
    })
}
