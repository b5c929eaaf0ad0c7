//! Streams of events, by the key they are kept under.

use jiff_sqlx::Timestamp;
use punchtrail_domain::{AggregateType, Position, Recorded};
use sqlx::{PgPool, Row, postgres::PgRow};

/// The events of many streams of one type, each stream together and in order; looked for one by one,
/// whatever plan Postgres made while the table was small.
pub(super) async fn events(
    pool: &PgPool,
    aggregate_type: AggregateType,
    aggregate_ids: &[String],
) -> Result<Vec<Recorded>, sqlx::Error> {
    sqlx::query(
        "select event.* from (select distinct unnest($2) as id) as wanted cross join lateral ( \
             select aggregate_id, sequence, position, recorded_at, event_type, event_version, \
                 payload::text as payload, metadata::text as metadata \
             from events where aggregate_type = $1 and aggregate_id = wanted.id offset 0 \
         ) as event order by aggregate_id, sequence",
    )
    .bind(aggregate_type.as_str())
    .bind(aggregate_ids)
    .try_map(|row| recorded(aggregate_type, &row))
    .fetch_all(pool)
    .await
}

fn recorded(aggregate_type: AggregateType, row: &PgRow) -> Result<Recorded, sqlx::Error> {
    Ok(Recorded {
        aggregate_type,
        aggregate_id: row.try_get(0)?,
        sequence: row.try_get::<i64, _>(1)?.cast_unsigned(),
        position: Position::from_db(row.try_get(2)?),
        recorded_at: row.try_get::<Timestamp, _>(3)?.to_jiff(),
        event_type: row.try_get(4)?,
        event_version: row.try_get(5)?,
        payload: row.try_get(6)?,
        metadata: row.try_get(7)?,
    })
}
