//! The delivery log: what was sent, what came back. Kept for thirty days.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::{Timestamp as Kept, ToSqlx as _};
use punchtrail_protocol::{Position, Time};
use sqlx::{PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

use crate::postgres::Pool;

/// How long deliveries that are finished, and tries, are kept.
pub const KEPT_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);
/// What a statement sweeps at once.
const SWEEP_ROWS_MAX: i64 = 5_000;

/// Where a delivery stands.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    strum::IntoStaticStr,
    strum::EnumString,
    serde::Serialize,
    serde::Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryState {
    /// In line: it is tried when it is due.
    Pending,
    Delivered,
    /// Its last try failed; it is tried no more unless somebody says so.
    Failed,
}

impl DeliveryState {
    /// As it is kept and written.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A delivery, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: i64,
    /// The event's id, which receivers know it by.
    pub event: String,
    /// The event's place in the ledger; none of a test event.
    pub position: Option<Position>,
    pub event_type: Option<String>,
    pub state: DeliveryState,
    pub tries: u32,
    pub due_at: Option<Time>,
    pub made_at: Time,
    pub finished_at: Option<Time>,
    /// What the last try was answered.
    pub status: Option<u16>,
    pub error: Option<String>,
}

/// A try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    pub number: u32,
    pub at: Time,
    pub took_ms: u32,
    pub url: String,
    pub status: Option<u16>,
    pub error: Option<String>,
    pub headers: Option<String>,
    pub answer: Option<String>,
}

const COLUMNS: &str = "delivery.id, event, delivery.position, type, state, tries, due_at, made_at, \
    finished_at, status, error";

fn delivery(row: &PgRow) -> Result<Delivery, sqlx::Error> {
    let state: String = row.try_get("state")?;
    let state: DeliveryState =
        state.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let time = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<Kept>, _>(column)?.map(at));
    Ok(Delivery {
        id: row.try_get("id")?,
        event: row.try_get("event")?,
        position: row.try_get::<Option<i64>, _>("position")?.map(Position::from_db),
        event_type: row.try_get("type")?,
        state,
        tries: row.try_get::<i32, _>("tries")?.cast_unsigned(),
        due_at: time("due_at")?.filter(|_| state == DeliveryState::Pending),
        made_at: at(row.try_get("made_at")?),
        finished_at: time("finished_at")?,
        status: status(row)?,
        error: row.try_get("error")?,
    })
}

fn at(kept: Kept) -> Time {
    kept.to_jiff().into()
}

fn status(row: &PgRow) -> Result<Option<u16>, sqlx::Error> {
    Ok(row.try_get::<Option<i32>, _>("status")?.and_then(|status| status.try_into().ok()))
}

/// The deliveries to an endpoint, the newest first, before that one.
///
/// # Errors
/// When the database is out of reach.
pub async fn deliveries(
    executor: impl PgExecutor<'_>,
    endpoint: Uuid,
    state: Option<DeliveryState>,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Delivery>, sqlx::Error> {
    let statement = format!(
        "select {COLUMNS} from webhook_deliveries delivery \
         left join webhook_events told on told.id = event where endpoint = $1 \
         and ($2::text is null or state = $2) and ($3::bigint is null or delivery.id < $3) \
         order by delivery.id desc limit $4"
    );
    sqlx::query(&statement)
        .bind(endpoint)
        .bind(state.map(DeliveryState::as_str))
        .bind(before)
        .bind(i64::from(limit))
        .try_map(|row| delivery(&row))
        .fetch_all(executor)
        .await
}

/// A delivery with the body that is sent and with its tries, the oldest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(
    pool: &Pool,
    endpoint: Uuid,
    id: i64,
) -> Result<Option<(Delivery, Option<String>, Vec<Try>)>, sqlx::Error> {
    let statement = format!(
        "select {COLUMNS}, body from webhook_deliveries delivery \
         left join webhook_events told on told.id = event where endpoint = $1 and delivery.id = $2"
    );
    let found = sqlx::query(&statement)
        .bind(endpoint)
        .bind(id)
        .try_map(|row: PgRow| Ok((delivery(&row)?, row.try_get("body")?)))
        .fetch_optional(pool)
        .await?;
    let Some((delivery, body)) = found else { return Ok(None) };
    let tries = sqlx::query(
        "select number, at, took_ms, url, status, error, headers, answer from webhook_tries \
         where delivery = $1 order by id",
    )
    .bind(id)
    .try_map(|row: PgRow| {
        Ok(Try {
            number: row.try_get::<i32, _>("number")?.cast_unsigned(),
            at: at(row.try_get("at")?),
            took_ms: row.try_get::<i32, _>("took_ms")?.cast_unsigned(),
            url: row.try_get("url")?,
            status: status(&row)?,
            error: row.try_get("error")?,
            headers: row.try_get("headers")?,
            answer: row.try_get("answer")?,
        })
    })
    .fetch_all(pool)
    .await?;
    Ok(Some((delivery, body, tries)))
}

/// Sweeps what is older than is kept, and what is left of endpoints that were removed.
///
/// # Errors
/// When the database is out of reach.
pub async fn sweep(pool: &Pool, now: Timestamp) -> Result<(), sqlx::Error> {
    let before = (now - KEPT_FOR).to_sqlx();
    for statement in [
        "delete from webhook_tries where id in \
         (select id from webhook_tries where at < $1 limit $2)",
        "delete from webhook_deliveries where id in (select id from webhook_deliveries \
         where state <> 'pending' and finished_at < $1 limit $2)",
        "delete from webhook_deliveries where id in (select one.id from webhook_endpoints gone \
         join webhook_deliveries one on one.endpoint = gone.id \
         where removed_at is not null and $1::timestamptz is not null limit $2)",
        "delete from webhook_events where id in (select id from webhook_events told \
         where position is null and at < $1 and not exists \
         (select from webhook_deliveries where event = told.id) limit $2)",
        "delete from webhook_redeliveries where id in (select id from webhook_redeliveries \
         where finished_at < $1 limit $2)",
    ] {
        loop {
            let swept = sqlx::query(statement)
                .bind(before)
                .bind(SWEEP_ROWS_MAX)
                .execute(pool)
                .await?
                .rows_affected();
            if swept < SWEEP_ROWS_MAX.cast_unsigned() {
                break;
            }
        }
    }
    sqlx::query(
        "delete from webhook_endpoints gone where removed_at is not null and not exists \
         (select from webhook_deliveries where endpoint = gone.id)",
    )
    .execute(pool)
    .await?;
    Ok(())
}
