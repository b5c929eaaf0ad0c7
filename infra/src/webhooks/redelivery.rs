//! What is told again, or from an earlier position on. One delivery is put back in line at once; a
//! stretch of the ledger is a job that any node goes on with, however often they die.

use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::{Timestamp as Kept, ToSqlx as _};
use punchtrail_protocol::{Position, Time};
use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    endpoints::EndpointError,
    events::{IS_TOLD, TEST_TYPE},
};
use crate::{
    ledger::begin_beside,
    postgres::{Pool, within},
};

/// How long a step may take.
const STEP_MAX: Duration = Duration::from_secs(30);
/// Events that a step puts in line.
const STEP_EVENTS_MAX: i64 = 1_000;
/// A job waits while so many of its endpoint's deliveries are in line: they would only grow old.
const IN_LINE_MAX: i64 = 10_000;
/// Jobs of an endpoint that aren't finished.
pub const OPEN_MAX: i64 = 20;

/// A stretch of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub after: Position,
    pub up_to: Position,
    /// What came is sent again, too; else only what failed or never was in line. What waits for its
    /// next try is tried at once.
    pub everything: bool,
}

/// A job, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redelivery {
    pub id: Uuid,
    pub span: Span,
    /// How far it has come.
    pub reached: Position,
    /// How many deliveries it put in line.
    pub count: u64,
    pub made_at: Time,
    pub finished_at: Option<Time>,
}

/// Begins a job.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn begin(
    connection: &mut PgConnection,
    endpoint: Uuid,
    span: Span,
    now: Timestamp,
) -> Result<Uuid, sqlx::Error> {
    let id = Uuid::now_v7();
    sqlx::query(
        "insert into webhook_redeliveries (id, endpoint, everything, after, up_to, reached, \
         made_at) values ($1, $2, $3, $4, $5, $4, $6)",
    )
    .bind(id)
    .bind(endpoint)
    .bind(span.everything)
    .bind(span.after.to_db())
    .bind(span.up_to.to_db())
    .bind(now.to_sqlx())
    .execute(connection)
    .await?;
    Ok(id)
}

/// Begins a job that tells again what happened within a time; none when too many are open.
///
/// # Errors
/// See [`EndpointError`].
pub async fn of_time(
    writer: &Pool,
    endpoint: Uuid,
    (since, until): (Time, Time),
    everything: bool,
    now: Timestamp,
) -> Result<Option<Uuid>, EndpointError> {
    let mut tx = begin_beside(writer).await?;
    let open: Option<i64> = sqlx::query_scalar(
        "select (select count(*) from webhook_redeliveries job where job.endpoint = target.id \
         and finished_at is null) from webhook_endpoints target \
         where id = $1 and removed_at is null for share",
    )
    .bind(endpoint)
    .fetch_optional(&mut *tx)
    .await?;
    if open.ok_or(EndpointError::Unknown)? >= OPEN_MAX {
        return Ok(None);
    }
    // Times never fall back along positions.
    let bounds: (i64, i64) = sqlx::query_as(
        "select coalesce((select position from webhook_events where at < $1 \
             and position is not null order by at desc, position desc limit 1), 0), \
         coalesce((select position from webhook_events where at <= $2 \
             and position is not null order by at desc, position desc limit 1), 0)",
    )
    .bind(since.timestamp().to_sqlx())
    .bind(until.timestamp().to_sqlx())
    .fetch_one(&mut *tx)
    .await?;
    let span =
        Span { after: Position::from_db(bounds.0), up_to: Position::from_db(bounds.1), everything };
    let id = begin(&mut tx, endpoint, span, now).await?;
    tx.commit().await?;
    Ok(Some(id))
}

/// The jobs of an endpoint, the newest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_endpoint(
    executor: impl PgExecutor<'_>,
    endpoint: Uuid,
    limit: u32,
) -> Result<Vec<Redelivery>, sqlx::Error> {
    sqlx::query(
        "select id, everything, after, up_to, reached, count, made_at, finished_at \
         from webhook_redeliveries where endpoint = $1 order by id desc limit $2",
    )
    .bind(endpoint)
    .bind(i64::from(limit))
    .try_map(|row: PgRow| {
        let position = |column: &str| row.try_get::<i64, _>(column).map(Position::from_db);
        Ok(Redelivery {
            id: row.try_get("id")?,
            span: Span {
                after: position("after")?,
                up_to: position("up_to")?,
                everything: row.try_get("everything")?,
            },
            reached: position("reached")?,
            count: row.try_get::<i64, _>("count")?.cast_unsigned(),
            made_at: row.try_get::<Kept, _>("made_at")?.to_jiff().into(),
            finished_at: row
                .try_get::<Option<Kept>, _>("finished_at")?
                .map(|at| at.to_jiff().into()),
        })
    })
    .fetch_all(executor)
    .await
}

/// Puts one delivery back in line, of the same id and body. Whether there is one that can be.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_one(
    writer: &Pool,
    endpoint: Uuid,
    delivery: i64,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut tx = begin_beside(writer).await?;
    let found = sqlx::query(
        "update webhook_deliveries set state = 'pending', due_at = $3, finished_at = null, \
         tries = case when state = 'pending' then tries else 0 end \
         where id = $2 and endpoint = $1 and exists (select from webhook_events told \
         where told.id = event)",
    )
    .bind(endpoint)
    .bind(delivery)
    .bind(now.to_sqlx())
    .execute(&mut *tx)
    .await?
    .rows_affected();
    tx.commit().await?;
    Ok(found == 1)
}

/// Puts a test event in line; its delivery.
///
/// # Errors
/// See [`EndpointError`].
pub async fn test(writer: &Pool, endpoint: Uuid, now: Timestamp) -> Result<i64, EndpointError> {
    let id = format!("evt_test_{}", Uuid::now_v7().simple());
    let at = Time::from(now);
    let body = serde_json::json!({
        "type": TEST_TYPE, "timestamp": at, "data": { "endpoint": endpoint },
    });
    let mut tx = begin_beside(writer).await?;
    let known = sqlx::query("select from webhook_endpoints where id = $1 and removed_at is null")
        .bind(endpoint)
        .fetch_optional(&mut *tx)
        .await?;
    if known.is_none() {
        return Err(EndpointError::Unknown);
    }
    sqlx::query(
        "insert into webhook_events (id, type, sites, body, at) values ($1, $2, '{}', $3, $4)",
    )
    .bind(&id)
    .bind(TEST_TYPE)
    .bind(body.to_string())
    .bind(now.to_sqlx())
    .execute(&mut *tx)
    .await?;
    let delivery = sqlx::query_scalar(
        "insert into webhook_deliveries (endpoint, event, due_at, made_at) \
         values ($1, $2, $3, $3) returning id",
    )
    .bind(endpoint)
    .bind(&id)
    .bind(now.to_sqlx())
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(delivery)
}

/// Goes on with a job that nobody else has in hand; how many deliveries came in line, none when
/// there was nothing to do.
///
/// # Errors
/// When the database is out of reach.
pub async fn step(writer: &Pool, now: Timestamp) -> Result<Option<u64>, sqlx::Error> {
    within(STEP_MAX, async {
        let mut tx = writer.begin().await?;
        let done = go_on(&mut tx, now).await?;
        tx.commit().await?;
        Ok(done)
    })
    .await
}

async fn go_on(tx: &mut PgConnection, now: Timestamp) -> Result<Option<u64>, sqlx::Error> {
    let job: Option<(Uuid, Uuid, bool, i64, i64)> = sqlx::query_as(
        "select job.id, job.endpoint, everything, reached, up_to from webhook_redeliveries job \
         join webhook_endpoints target on target.id = job.endpoint and target.removed_at is null \
         where finished_at is null and target.disabled_at is null \
         and (select count(*) from (select from webhook_deliveries one \
              where one.endpoint = job.endpoint and state = 'pending' limit $1) as few) < $1 \
         order by job.made_at limit 1 for update of job skip locked",
    )
    .bind(IN_LINE_MAX)
    .fetch_optional(&mut *tx)
    .await?;
    let Some((id, endpoint, everything, reached, up_to)) = job else { return Ok(None) };
    let to: Option<i64> = sqlx::query_scalar(
        "select max(position) from (select position from webhook_events where position > $1 \
         and position <= $2 order by position limit $3) as step",
    )
    .bind(reached)
    .bind(up_to)
    .bind(STEP_EVENTS_MAX)
    .fetch_one(&mut *tx)
    .await?;
    let to = to.unwrap_or(up_to);
    let statement = format!(
        "insert into webhook_deliveries (endpoint, event, position, due_at, made_at) \
         select endpoint.id, event.id, event.position, $4, $4 from webhook_endpoints endpoint \
         join webhook_events event on event.position > $2 and event.position <= $3 \
         and {IS_TOLD} where endpoint.id = $1 order by event.position \
         on conflict (endpoint, event) do update set state = 'pending', \
         tries = case when webhook_deliveries.state = 'pending' then webhook_deliveries.tries \
             else 0 end, due_at = excluded.due_at, finished_at = null \
         where webhook_deliveries.state = 'failed' \
         or (webhook_deliveries.state = 'pending' and webhook_deliveries.due_at > $4) \
         or ($5 and webhook_deliveries.state = 'delivered')"
    );
    let count = sqlx::query(&statement)
        .bind(endpoint)
        .bind(reached)
        .bind(to)
        .bind(now.to_sqlx())
        .bind(everything)
        .execute(&mut *tx)
        .await?
        .rows_affected();
    sqlx::query(
        "update webhook_redeliveries set reached = $2, count = count + $3, \
         finished_at = case when $2 >= up_to then $4::timestamptz end where id = $1",
    )
    .bind(id)
    .bind(to)
    .bind(count.cast_signed())
    .bind(now.to_sqlx())
    .execute(&mut *tx)
    .await?;
    Ok(Some(count))
}
