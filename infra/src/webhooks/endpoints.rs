//! Whom it is told: endpoints, made and changed by people, disabled by people or by what they
//! answer.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::{Timestamp as Kept, ToSqlx as _};
use punchtrail_protocol::{Position, SiteId, Time};
use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    events,
    redelivery::{self, Span},
    secrets::{Keeper, SigningSecret},
};
use crate::{
    access::trail::{self, Act, Doer},
    ledger::begin_beside,
    postgres::Pool,
};

/// The most endpoints that there are.
pub const ENDPOINTS_MAX: i64 = 2_000;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("there is no such endpoint")]
    Unknown,
    #[error("there are {ENDPOINTS_MAX} endpoints, and no more are taken; remove one first")]
    TooMany,
    #[error("the ledger ends at position {0}")]
    BeyondHead(Position),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// From where on an endpoint is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// What happens from now on.
    Now,
    /// What stands after that position, too.
    After(Position),
}

/// What an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What it is called.
    pub name: String,
    pub url: String,
    /// Of what it is told; none for everything.
    pub types: Option<Vec<String>>,
    /// Of which sites; none for all.
    pub sites: Option<Vec<SiteId>>,
    /// Whom to write to when it fails.
    pub contact: Option<String>,
}

/// Why an endpoint is told nothing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, serde::Serialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Because {
    /// Somebody said so.
    Person,
    /// It answered 410.
    Gone,
    /// Nothing but failures came for days.
    Failing,
}

impl Because {
    /// As it is kept and written.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An endpoint, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: Uuid,
    pub described: Described,
    pub made_at: Time,
    pub disabled: Option<(Time, Because)>,
    /// Since when nothing but failures came.
    pub failing_since: Option<Time>,
    pub last_error: Option<String>,
    pub succeeded_at: Option<Time>,
    /// Deliveries in line, [`PENDING_COUNTED_MAX`] at most.
    pub pending: u64,
    /// When each of the secrets stops to sign that are followed by another.
    pub secrets: Vec<Option<Time>>,
}

/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// Whether an endpoint may be called so.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// The most deliveries in line that are counted; as many stand for more.
pub const PENDING_COUNTED_MAX: u64 = 10_000;

fn columns() -> String {
    format!(
        "endpoint.id, name, url, types, sites, contact, endpoint.made_at, \
         disabled_at, disabled_because, failing_since, last_error, succeeded_at, \
         (select count(*) from (select from webhook_deliveries one \
          where one.endpoint = endpoint.id and state = 'pending' \
          limit {PENDING_COUNTED_MAX}) as counted) as pending, \
         array(select secret.expires_at from webhook_secrets secret \
          where secret.endpoint = endpoint.id order by secret.id desc) as secrets"
    )
}

fn time(row: &PgRow, column: &str) -> Result<Option<Time>, sqlx::Error> {
    Ok(row.try_get::<Option<Kept>, _>(column)?.map(|at| at.to_jiff().into()))
}

fn endpoint(row: &PgRow) -> Result<Endpoint, sqlx::Error> {
    let because: Option<String> = row.try_get("disabled_because")?;
    let because = because.and_then(|text| text.parse().ok());
    let sites: Option<Vec<Uuid>> = row.try_get("sites")?;
    let secrets: Vec<Option<Kept>> = row.try_get("secrets")?;
    Ok(Endpoint {
        id: row.try_get("id")?,
        described: Described {
            name: row.try_get("name")?,
            url: row.try_get("url")?,
            types: row.try_get("types")?,
            sites: sites.map(|sites| sites.into_iter().map(SiteId).collect()),
            contact: row.try_get("contact")?,
        },
        made_at: row.try_get::<Kept, _>("made_at")?.to_jiff().into(),
        disabled: time(row, "disabled_at")?.zip(because),
        failing_since: time(row, "failing_since")?,
        last_error: row.try_get("last_error")?,
        succeeded_at: time(row, "succeeded_at")?,
        pending: row.try_get::<i64, _>("pending")?.cast_unsigned(),
        secrets: secrets.into_iter().map(|at| at.map(|at| at.to_jiff().into())).collect(),
    })
}

/// Every endpoint, the oldest first.
///
/// # Errors
/// When the database is out of reach.
pub async fn all(executor: impl PgExecutor<'_>) -> Result<Vec<Endpoint>, sqlx::Error> {
    let columns = columns();
    let statement = format!(
        "select {columns} from webhook_endpoints endpoint where removed_at is null order by id"
    );
    sqlx::query(&statement).try_map(|row| endpoint(&row)).fetch_all(executor).await
}

/// One endpoint.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Endpoint>, sqlx::Error> {
    let columns = columns();
    let statement = format!(
        "select {columns} from webhook_endpoints endpoint where id = $1 and removed_at is null"
    );
    sqlx::query(&statement).bind(id).try_map(|row| endpoint(&row)).fetch_optional(executor).await
}

/// Holds the follower's place until the transaction ends: what it has told by then is settled.
async fn told_up_to(connection: &mut PgConnection) -> Result<Position, sqlx::Error> {
    let position: i64 =
        sqlx::query_scalar("select position from followers where name = $1 for share")
            .bind(events::NAME)
            .fetch_one(connection)
            .await?;
    Ok(Position::from_db(position))
}

/// Makes an endpoint, and the secret that it is shown once.
///
/// # Errors
/// See [`EndpointError`].
pub async fn make(
    writer: &Pool,
    keeper: &Keeper,
    described: &Described,
    (start, now): (Start, Timestamp),
    doer: &Doer,
) -> Result<(Uuid, SigningSecret), EndpointError> {
    let id = Uuid::now_v7();
    let mut tx = begin_beside(writer).await?;
    let place = told_up_to(&mut tx).await?;
    let head: i64 =
        sqlx::query_scalar("select position from ledger_head").fetch_one(&mut *tx).await?;
    let head = Position::from_db(head).max(place);
    let count: i64 =
        sqlx::query_scalar("select count(*) from webhook_endpoints where removed_at is null")
            .fetch_one(&mut *tx)
            .await?;
    if count >= ENDPOINTS_MAX {
        return Err(EndpointError::TooMany);
    }
    let after = match start {
        Start::Now => head,
        Start::After(position) if position > head => return Err(EndpointError::BeyondHead(head)),
        Start::After(position) => position,
    };
    let Described { name, url, types, sites, contact } = described;
    sqlx::query(
        "insert into webhook_endpoints (id, name, url, types, sites, contact, starts_after, \
         made_at, changed_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    )
    .bind(id)
    .bind(name)
    .bind(url)
    .bind(types)
    .bind(ids(sites.as_ref()))
    .bind(contact)
    .bind(after.max(place).to_db())
    .bind(now.to_sqlx())
    .execute(&mut *tx)
    .await?;
    if after < place {
        let span = Span { after, up_to: place, everything: false };
        redelivery::begin(&mut tx, id, span, now).await?;
    }
    let secret = keeper.add(&mut tx, id, now, SignedDuration::ZERO).await?;
    note(&mut tx, doer, Act::WebhookMade, id, Some(host(url))).await?;
    tx.commit().await?;
    Ok((id, secret))
}

fn ids(sites: Option<&Vec<SiteId>>) -> Option<Vec<Uuid>> {
    sites.map(|sites| sites.iter().map(|site| site.uuid()).collect())
}

/// What of a URL the trail holds: what stands after it may hold a secret.
fn host(url: &str) -> &str {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    host.split(['/', '?']).next().unwrap_or_default()
}

async fn note(
    connection: &mut PgConnection,
    doer: &Doer,
    act: Act,
    id: Uuid,
    detail: Option<&str>,
) -> Result<(), sqlx::Error> {
    trail::note(connection, doer, act, Some(format!("webhook:{id}")), detail).await
}

/// Changes what an endpoint is; what is in line goes by it, too.
///
/// # Errors
/// See [`EndpointError`].
pub async fn describe(
    writer: &Pool,
    id: Uuid,
    described: &Described,
    now: Timestamp,
    doer: &Doer,
) -> Result<(), EndpointError> {
    let Described { name, url, types, sites, contact } = described;
    let mut tx = begin_beside(writer).await?;
    let changed = sqlx::query(
        "update webhook_endpoints set name = $2, url = $3, types = $4, sites = $5, contact = $6, \
         changed_at = $7 where id = $1 and removed_at is null",
    )
    .bind(id)
    .bind(name)
    .bind(url)
    .bind(types)
    .bind(ids(sites.as_ref()))
    .bind(contact)
    .bind(now.to_sqlx())
    .execute(&mut *tx)
    .await?;
    if changed.rows_affected() == 0 {
        return Err(EndpointError::Unknown);
    }
    note(&mut tx, doer, Act::WebhookChanged, id, Some(host(url))).await?;
    tx.commit().await?;
    Ok(())
}

/// Makes another secret; those that it has sign on for as long as `overlap`.
///
/// # Errors
/// See [`EndpointError`].
pub async fn rotate(
    writer: &Pool,
    keeper: &Keeper,
    id: Uuid,
    (now, overlap): (Timestamp, SignedDuration),
    doer: &Doer,
) -> Result<SigningSecret, EndpointError> {
    let mut tx = begin_beside(writer).await?;
    locked(&mut tx, id).await?;
    let secret = keeper.add(&mut tx, id, now, overlap).await?;
    note(&mut tx, doer, Act::WebhookSecretMade, id, None).await?;
    tx.commit().await?;
    Ok(secret)
}

async fn locked(connection: &mut PgConnection, id: Uuid) -> Result<(), EndpointError> {
    let found: Option<Uuid> = sqlx::query_scalar(
        "select id from webhook_endpoints where id = $1 and removed_at is null for update",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    found.map(drop).ok_or(EndpointError::Unknown)
}

/// Tells an endpoint nothing any more, until it is enabled; what is in line stays there.
///
/// # Errors
/// See [`EndpointError`].
pub async fn disable(
    writer: &Pool,
    id: Uuid,
    now: Timestamp,
    doer: &Doer,
) -> Result<(), EndpointError> {
    let mut tx = begin_beside(writer).await?;
    locked(&mut tx, id).await?;
    if stop(&mut tx, id, Because::Person, now).await? {
        note(&mut tx, doer, Act::WebhookDisabled, id, None).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Disables it unless it is; whether it wasn't.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn stop(
    connection: &mut PgConnection,
    id: Uuid,
    because: Because,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    sqlx::query(
        "update webhook_endpoints set disabled_at = $2, disabled_because = $3, \
         disabled_after = greatest(starts_after, (select position from followers where name = $4)) \
         where id = $1 and disabled_at is null",
    )
    .bind(id)
    .bind(now.to_sqlx())
    .bind(because.as_str())
    .bind(events::NAME)
    .execute(connection)
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Tells an endpoint again: what happens from now on, and with `missed` what happened while it was
/// disabled. What was in line is tried at once.
///
/// # Errors
/// See [`EndpointError`].
pub async fn enable(
    writer: &Pool,
    id: Uuid,
    missed: bool,
    now: Timestamp,
    doer: &Doer,
) -> Result<(), EndpointError> {
    let mut tx = begin_beside(writer).await?;
    let place = told_up_to(&mut tx).await?;
    locked(&mut tx, id).await?;
    let since: Option<i64> = sqlx::query_scalar(
        "update webhook_endpoints set disabled_at = null, disabled_because = null, \
         disabled_after = null, failing_since = null, failures = 0, mailed_at = null, \
         starts_after = greatest(starts_after, $2) from \
         (select id as endpoint, disabled_after as since from webhook_endpoints where id = $1) \
         was where id = was.endpoint and disabled_at is not null returning since",
    )
    .bind(id)
    .bind(place.to_db())
    .fetch_optional(&mut *tx)
    .await?
    .flatten();
    if let Some(since) = since {
        let after = Position::from_db(since);
        if missed && after < place {
            let span = Span { after, up_to: place, everything: false };
            redelivery::begin(&mut tx, id, span, now).await?;
        }
        sqlx::query(
            "update webhook_deliveries set due_at = $2 where endpoint = $1 and state = 'pending' \
             and due_at > $2",
        )
        .bind(id)
        .bind(now.to_sqlx())
        .execute(&mut *tx)
        .await?;
        note(&mut tx, doer, Act::WebhookEnabled, id, None).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Removes an endpoint: nothing is sent any more, its secrets go at once, its log is swept.
///
/// # Errors
/// See [`EndpointError`].
pub async fn remove(
    writer: &Pool,
    id: Uuid,
    now: Timestamp,
    doer: &Doer,
) -> Result<(), EndpointError> {
    let mut tx = begin_beside(writer).await?;
    locked(&mut tx, id).await?;
    sqlx::query("delete from webhook_secrets where endpoint = $1")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "update webhook_endpoints set removed_at = $2, url = '', contact = null where id = $1",
    )
    .bind(id)
    .bind(now.to_sqlx())
    .execute(&mut *tx)
    .await?;
    note(&mut tx, doer, Act::WebhookRemoved, id, None).await?;
    tx.commit().await?;
    Ok(())
}
