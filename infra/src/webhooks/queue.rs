//! The queue: a delivery's row. It is leased to whoever sends it, and its outcome is written with
//! when it is tried next, in one transaction; so a node that dies in between leaves a lease that
//! runs out, and the same id and body go out again.

use std::{collections::HashMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::{Timestamp as Kept, ToSqlx as _};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    endpoints::{Because, stop},
    schedule,
    secrets::{Keeper, SigningSecret},
    sending::Answer,
};
use crate::postgres::{Pool, within};

/// How long a delivery is leased: longer than a try may take, with what waits before it.
pub const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// After so long of nothing but failures an endpoint is disabled …
pub const FAILING_MAX: SignedDuration = SignedDuration::from_hours(5 * 24);
/// … if there were so many: more than one delivery has.
pub const FAILURES_MIN: i32 = 10;
/// How long writing outcomes down may take: less than a lease has left.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// When success was noted, it isn't noted again for so long.
const NOTED_FOR: SignedDuration = SignedDuration::from_secs(30);

/// A delivery in hand.
#[derive(Debug, Clone)]
pub struct Leased {
    pub id: i64,
    pub endpoint: Uuid,
    pub event: String,
    pub body: std::sync::Arc<str>,
    pub url: String,
    pub secrets: Vec<SigningSecret>,
    /// Tries before this one.
    pub tries: u32,
    pub until: Timestamp,
    /// Whether its endpoint failed last.
    pub is_failing: bool,
}

/// What became of a delivery in hand.
#[derive(Debug)]
pub struct Outcome {
    pub delivery: i64,
    pub endpoint: Uuid,
    pub tries: u32,
    /// None when it wasn't tried: it goes back in line as it was.
    pub answer: Option<Answer>,
}

/// Whose deliveries may be taken.
#[derive(Debug, Default)]
pub struct Room {
    /// The most in all.
    pub most: usize,
    /// The most of an endpoint of which nothing else is said.
    pub each: i64,
    /// Of these so many.
    pub of: Vec<(Uuid, i64)>,
}

/// Takes deliveries that are due, the longest due of each endpoint first. Only of endpoints whose
/// secrets this node can open.
///
/// # Errors
/// When the database is out of reach.
pub async fn lease(
    pool: &Pool,
    keeper: &Keeper,
    (node, now): (Uuid, Timestamp),
    room: &Room,
) -> Result<Vec<Leased>, sqlx::Error> {
    let (of, counts): (Vec<Uuid>, Vec<i64>) = room.of.iter().copied().unzip();
    let until = now + LEASE;
    let rows = sqlx::query(
        "with due as (select one.id from webhook_endpoints endpoint \
             left join unnest($1::uuid[], $2::bigint[]) as room (endpoint, count) \
                 on room.endpoint = endpoint.id \
             cross join lateral (select id, due_at from webhook_deliveries delivery \
                 where delivery.endpoint = endpoint.id and state = 'pending' and due_at <= $4 \
                 and (leased_until is null or leased_until <= $4) \
                 order by due_at limit coalesce(room.count, $3) for update skip locked) one \
             where endpoint.disabled_at is null and endpoint.removed_at is null \
             and coalesce(room.count, $3) > 0 and exists (select from webhook_secrets secret \
                 where secret.endpoint = endpoint.id and key_id = $5) \
             order by one.due_at limit $6) \
         update webhook_deliveries delivery set leased_by = $7, leased_until = $8 \
         from due, webhook_endpoints endpoint, webhook_events event \
         where delivery.id = due.id and endpoint.id = delivery.endpoint \
         and event.id = delivery.event \
         returning delivery.id, delivery.endpoint, delivery.event, event.body, endpoint.url, \
             delivery.tries, endpoint.failing_since is not null as is_failing",
    )
    .bind(of)
    .bind(counts)
    .bind(room.each)
    .bind(now.to_sqlx())
    .bind(keeper.id())
    .bind(room.most as i64)
    .bind(node)
    .bind(until.to_sqlx())
    .fetch_all(pool)
    .await?;
    let leased = |row: &PgRow| {
        Ok::<_, sqlx::Error>(Leased {
            id: row.try_get("id")?,
            endpoint: row.try_get("endpoint")?,
            event: row.try_get("event")?,
            body: row.try_get::<String, _>("body")?.into(),
            url: row.try_get("url")?,
            secrets: Vec::new(),
            tries: row.try_get::<i32, _>("tries")?.cast_unsigned(),
            until,
            is_failing: row.try_get("is_failing")?,
        })
    };
    let mut leased: Vec<Leased> = rows.iter().map(leased).collect::<Result<_, _>>()?;
    if leased.is_empty() {
        return Ok(leased);
    }
    leased.sort_by_key(|delivery| delivery.id);
    let secrets = secrets(pool, keeper, now, &leased).await?;
    for delivery in &mut leased {
        delivery.secrets = secrets.get(&delivery.endpoint).cloned().unwrap_or_default();
    }
    Ok(leased)
}

/// What the endpoints of these sign by now, the newest first.
async fn secrets(
    pool: &Pool,
    keeper: &Keeper,
    now: Timestamp,
    of: &[Leased],
) -> Result<HashMap<Uuid, Vec<SigningSecret>>, sqlx::Error> {
    let mut endpoints: Vec<Uuid> = of.iter().map(|delivery| delivery.endpoint).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    let kept: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "select endpoint, sealed from webhook_secrets where endpoint = any($1) and key_id = $2 \
         and (expires_at is null or expires_at > $3) order by id desc",
    )
    .bind(endpoints)
    .bind(keeper.id())
    .bind(now.to_sqlx())
    .fetch_all(pool)
    .await?;
    let mut secrets: HashMap<Uuid, Vec<SigningSecret>> = HashMap::new();
    for (endpoint, sealed) in kept {
        secrets.entry(endpoint).or_default().extend(keeper.open(endpoint, &sealed));
    }
    Ok(secrets)
}

/// Writes what became of deliveries: the outcome, the try, and when the next one comes, all or
/// nothing. What was put back in line meanwhile, or leased by another node, is left to that.
///
/// # Errors
/// When the database is out of reach.
pub async fn settle(
    pool: &Pool,
    (node, now): (Uuid, Timestamp),
    outcomes: &[Outcome],
) -> Result<(), sqlx::Error> {
    within(SETTLE_MAX, async {
        let mut tx = pool.begin().await?;
        write(&mut tx, (node, now), outcomes).await?;
        tx.commit().await
    })
    .await
}

async fn write(
    tx: &mut PgConnection,
    (node, now): (Uuid, Timestamp),
    outcomes: &[Outcome],
) -> Result<(), sqlx::Error> {
    let mut rows = Rows::default();
    for outcome in outcomes {
        rows.take(outcome, now);
    }
    sqlx::query(
        "update webhook_deliveries delivery set state = came.state, tries = came.tries, \
         due_at = coalesce(came.due_at, delivery.due_at), leased_by = null, leased_until = null, \
         finished_at = case when came.state <> 'pending' then $8::timestamptz end, \
         status = case when came.is_tried then came.status else delivery.status end, \
         error = case when came.is_tried then came.error else delivery.error end \
         from unnest($1::bigint[], $2::text[], $3::integer[], $4::timestamptz[], $5::integer[], \
             $6::text[], $7::boolean[]) \
             as came (id, state, tries, due_at, status, error, is_tried) \
         where delivery.id = came.id and delivery.leased_by = $9",
    )
    .bind(&rows.ids)
    .bind(&rows.states)
    .bind(&rows.tries)
    .bind(&rows.due)
    .bind(&rows.statuses)
    .bind(&rows.errors)
    .bind(&rows.tried)
    .bind(now.to_sqlx())
    .bind(node)
    .execute(&mut *tx)
    .await?;
    let tries: Vec<_> =
        outcomes.iter().filter_map(|of| of.answer.as_ref().map(|answer| (of, answer))).collect();
    if !tries.is_empty() {
        let each = |of: fn(&Answer) -> Option<&str>| {
            tries.iter().map(|(_, answer)| of(answer)).collect::<Vec<_>>()
        };
        sqlx::query(
            "insert into webhook_tries (delivery, number, at, took_ms, url, status, error, \
             headers, answer) select * from unnest($1::bigint[], $2::integer[], \
             $3::timestamptz[], $4::integer[], $5::text[], $6::integer[], $7::text[], \
             $8::text[], $9::text[])",
        )
        .bind(tries.iter().map(|(of, _)| of.delivery).collect::<Vec<_>>())
        .bind(tries.iter().map(|(of, _)| of.tries.cast_signed() + 1).collect::<Vec<_>>())
        .bind(tries.iter().map(|(_, answer)| answer.at.to_sqlx()).collect::<Vec<_>>())
        .bind(tries.iter().map(|(_, answer)| answer.took_ms).collect::<Vec<_>>())
        .bind(each(|answer| Some(answer.url.as_str())))
        .bind(tries.iter().map(|(_, answer)| answer.status.map(i32::from)).collect::<Vec<_>>())
        .bind(each(|answer| answer.error.as_deref()))
        .bind(each(|answer| answer.headers.as_deref()))
        .bind(each(|answer| answer.body.as_deref()))
        .execute(&mut *tx)
        .await?;
    }
    // In one order, so that two nodes never wait for each other.
    let mut of: Vec<_> = rows.of.into_iter().collect();
    of.sort_unstable_by_key(|(endpoint, _)| *endpoint);
    for (endpoint, seen) in of {
        seen.note(&mut *tx, endpoint, now).await?;
    }
    Ok(())
}

/// Outcomes as columns, and what they say of their endpoints.
#[derive(Default)]
struct Rows {
    ids: Vec<i64>,
    states: Vec<&'static str>,
    tries: Vec<i32>,
    due: Vec<Option<Kept>>,
    statuses: Vec<Option<i32>>,
    errors: Vec<Option<String>>,
    tried: Vec<bool>,
    of: HashMap<Uuid, Seen>,
}

/// What came of an endpoint.
#[derive(Default)]
struct Seen {
    succeeded: bool,
    failures: i32,
    is_gone: bool,
    error: Option<String>,
}

impl Rows {
    fn take(&mut self, outcome: &Outcome, now: Timestamp) {
        let tries = outcome.tries + u32::from(outcome.answer.is_some());
        let (mut state, mut due, mut status, mut error) = ("pending", None, None, None);
        if let Some(answer) = &outcome.answer {
            let seen = self.of.entry(outcome.endpoint).or_default();
            (status, error) = (answer.status.map(i32::from), answer.error.clone());
            if answer.is_success() {
                (state, seen.succeeded) = ("delivered", true);
            } else {
                seen.failures += 1;
                seen.is_gone |= answer.status == Some(410);
                seen.error = Some(answer.said());
                match schedule::next(tries, now, answer.retry_after, rand::random()) {
                    Some(at) => due = Some(at.to_sqlx()),
                    None => state = "failed",
                }
            }
        }
        self.ids.push(outcome.delivery);
        self.states.push(state);
        self.tries.push(tries.cast_signed());
        self.due.push(due);
        self.statuses.push(status);
        self.errors.push(error);
        self.tried.push(outcome.answer.is_some());
    }
}

impl Seen {
    /// Notes it at the endpoint; disables one that is gone, or failed for days.
    async fn note(
        self,
        connection: &mut PgConnection,
        endpoint: Uuid,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        if self.succeeded {
            sqlx::query(
                "update webhook_endpoints set failing_since = null, failures = 0, \
                 succeeded_at = $2, last_error = coalesce($3, last_error) where id = $1 \
                 and (failing_since is not null or succeeded_at is null or succeeded_at < $4)",
            )
            .bind(endpoint)
            .bind(now.to_sqlx())
            .bind(&self.error)
            .bind((now - NOTED_FOR).to_sqlx())
            .execute(&mut *connection)
            .await?;
        } else {
            let failing: Option<(Kept, i32)> = sqlx::query_as(
                "update webhook_endpoints set failing_since = coalesce(failing_since, $2), \
                 failures = failures + $3, last_error = $4 where id = $1 \
                 returning failing_since, failures",
            )
            .bind(endpoint)
            .bind(now.to_sqlx())
            .bind(self.failures)
            .bind(&self.error)
            .fetch_optional(&mut *connection)
            .await?;
            let is_over = failing.is_some_and(|(since, failures)| {
                now.duration_since(since.to_jiff()) >= FAILING_MAX && failures >= FAILURES_MIN
            });
            if is_over && !self.is_gone {
                let stopped = stop(connection, endpoint, Because::Failing, now).await?;
                tracing::warn!(%endpoint, stopped, "an endpoint failed for days; it is disabled");
            }
        }
        if self.is_gone && stop(connection, endpoint, Because::Gone, now).await? {
            tracing::warn!(%endpoint, "an endpoint said that it is gone; it is disabled");
        }
        Ok(())
    }
}

/// Gives back what a node had in hand that is no more.
///
/// # Errors
/// When the database is out of reach.
pub async fn give_back(pool: &Pool, node: Uuid) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "update webhook_deliveries set leased_by = null, leased_until = null where leased_by = $1",
    )
    .bind(node)
    .execute(pool)
    .await
    .map(|done| done.rows_affected())
}
