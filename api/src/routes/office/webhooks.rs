//! Webhooks: whom it is told, what was delivered, and what is to be delivered again.

use axum::{Json as Answer, extract::State, http::StatusCode};
use jiff::SignedDuration;
use punchtrail_infra::{
    mail,
    people::directory,
    webhooks::{
        endpoints::{
            self, Because, Described, Endpoint, EndpointError, NAME_CHARS_MAX, Start, is_name,
        },
        events::EventType,
        log::{self, Delivery, DeliveryState, Try},
        redelivery::{self, Redelivery},
    },
};
use punchtrail_protocol::{Position, SiteId, Time, capture::INTEGER_LIMIT};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::events::unknown_type;
use crate::{
    ask::{
        extract::{InPath, Json, Params, Permitted},
        page::{self, Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    once::Unkept,
    problem::{Code, Refusal, sentence},
    state::App,
};

/// Sites of an endpoint that has a choice of them.
const SITES_MAX: usize = 1_000;
/// How long an old secret signs on, in hours, unless asked otherwise; and at most.
const OVERLAP_H: u32 = 24;
const OVERLAP_H_MAX: u32 = 24 * 7;
/// Jobs of redelivery that are shown.
const JOBS_SHOWN_MAX: u32 = 100;

/// An endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookBody {
    /// What it is called: 1 to 64 characters.
    pub name: String,
    /// Where to send to, by https.
    pub url: String,
    /// Of what it is told; of everything unless given.
    #[serde(default)]
    pub types: Option<Vec<String>>,
    /// Of which sites; of all, and of what is of none, unless given.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub sites: Option<Vec<SiteId>>,
    /// Whom to write to when it fails, a mail's address.
    #[serde(default)]
    pub contact: Option<String>,
}

/// An endpoint to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// What it is called: 1 to 64 characters.
    pub name: String,
    /// Where to send to, by https.
    pub url: String,
    /// Of what it is told; of everything unless given.
    #[serde(default)]
    pub types: Option<Vec<String>>,
    /// Of which sites; of all, and of what is of none, unless given.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub sites: Option<Vec<SiteId>>,
    /// Whom to write to when it fails, a mail's address.
    #[serde(default)]
    pub contact: Option<String>,
    /// Tell it what stands after this position of the ledger, too; 0 for everything. From now on
    /// unless given.
    #[serde(default)]
    pub after: Option<u64>,
}

/// An endpoint as it stands; never its secrets.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookView {
    #[schema(value_type = String)]
    pub webhook: Uuid,
    pub name: String,
    pub url: String,
    /// Null for everything.
    pub types: Option<Vec<String>>,
    /// Null for all.
    #[schema(value_type = Option<Vec<String>>)]
    pub sites: Option<Vec<SiteId>>,
    pub contact: Option<String>,
    pub created_at: Time,
    /// Since when it is told nothing.
    pub disabled_at: Option<Time>,
    pub disabled_because: Option<Because>,
    /// Since when nothing but failures came.
    pub failing_since: Option<Time>,
    pub last_error: Option<String>,
    pub succeeded_at: Option<Time>,
    /// Deliveries in line; 10,000 stands for more.
    pub pending: u64,
    /// Secrets that sign, the newest first: until when each does, null for the one in force.
    pub secrets: Vec<Option<Time>>,
}

impl From<Endpoint> for WebhookView {
    fn from(endpoint: Endpoint) -> Self {
        let Described { name, url, types, sites, contact } = endpoint.described;
        Self {
            webhook: endpoint.id,
            name,
            url,
            types,
            sites,
            contact,
            created_at: endpoint.made_at,
            disabled_at: endpoint.disabled.map(|(at, _)| at),
            disabled_because: endpoint.disabled.map(|(_, because)| because),
            failing_since: endpoint.failing_since,
            last_error: endpoint.last_error,
            succeeded_at: endpoint.succeeded_at,
            pending: endpoint.pending,
            secrets: endpoint.secrets,
        }
    }
}

/// Every endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Webhooks {
    /// The oldest first.
    pub data: Vec<WebhookView>,
}

/// An endpoint that was made.
#[derive(Serialize, ToSchema)]
pub struct WebhookMade {
    #[schema(value_type = String)]
    pub webhook: Uuid,
    /// By which deliveries are verified, as Standard Webhooks writes it; shown this once.
    pub secret: String,
}

/// Every endpoint.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks",
    operation_id = "listWebhooks", responses((status = 200, body = Webhooks)),
)]
pub async fn list(
    State(app): State<App>,
    _operator: Operator,
) -> Result<Answer<Webhooks>, Refusal> {
    let found = endpoints::all(app.ledger.pool()).await?;
    Ok(Answer(Webhooks { data: found.into_iter().map(WebhookView::from).collect() }))
}

/// One endpoint.
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook}", tag = "webhooks",
    operation_id = "getWebhook",
    params(("webhook" = String, Path, description = "The endpoint")),
    responses((status = 200, body = WebhookView)),
)]
pub async fn one(
    State(app): State<App>,
    _operator: Operator,
    InPath(webhook): InPath<Uuid>,
) -> Result<Answer<WebhookView>, Refusal> {
    let found = endpoints::one(app.ledger.pool(), webhook).await?;
    found.map(|found| Answer(found.into())).ok_or_else(Refusal::not_found)
}

/// Makes an endpoint. Its secret is shown this once.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks",
    operation_id = "createWebhook", request_body = NewWebhook,
    responses((status = 201, body = WebhookMade)),
)]
pub async fn make(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<NewWebhook>,
) -> Result<(StatusCode, Unkept<Answer<WebhookMade>>), Refusal> {
    let NewWebhook { name, url, types, sites, contact, after } = body;
    let described = described(&app, WebhookBody { name, url, types, sites, contact }).await?;
    let start = match after {
        None => Start::Now,
        Some(after) if after < INTEGER_LIMIT => Start::After(Position(after)),
        Some(_) => {
            let detail = "`after` is a position, below 2^53.";
            return Err(Refusal::field("/after", "invalid_value", detail));
        }
    };
    let (pool, keeper) = (app.ledger.pool(), &app.webhooks.keeper);
    let at = (start, app.ledger.now().timestamp());
    let made = endpoints::make(pool, keeper, &described, at, &operator.doer()).await?;
    let made = WebhookMade { webhook: made.0, secret: made.1.reveal() };
    Ok((StatusCode::CREATED, Unkept(Answer(made))))
}

/// Says anew what an endpoint is, all of it. What is in line goes by it, too.
#[utoipa::path(
    put, path = "/v1/webhooks/{webhook}", tag = "webhooks",
    operation_id = "putWebhook",
    params(("webhook" = String, Path, description = "The endpoint")),
    request_body = WebhookBody, responses((status = 204)),
)]
pub async fn describe(
    State(app): State<App>,
    operator: Operator,
    InPath(webhook): InPath<Uuid>,
    Json(body): Json<WebhookBody>,
) -> Result<StatusCode, Refusal> {
    let described = described(&app, body).await?;
    let now = app.ledger.now().timestamp();
    endpoints::describe(app.ledger.pool(), webhook, &described, now, &operator.doer()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an endpoint: nothing is sent any more, and what is kept of it goes.
#[utoipa::path(
    delete, path = "/v1/webhooks/{webhook}", tag = "webhooks",
    operation_id = "deleteWebhook",
    params(("webhook" = String, Path, description = "The endpoint")), responses((status = 204)),
)]
pub async fn remove(
    State(app): State<App>,
    operator: Operator,
    InPath(webhook): InPath<Uuid>,
    _: Permitted,
) -> Result<StatusCode, Refusal> {
    let now = app.ledger.now().timestamp();
    endpoints::remove(app.ledger.pool(), webhook, now, &operator.doer()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn described(app: &App, body: WebhookBody) -> Result<Described, Refusal> {
    let WebhookBody { name, url, types, sites, contact } = body;
    let name = name.trim().to_owned();
    if !is_name(&name) {
        let detail = format!("A name has 1 to {NAME_CHARS_MAX} characters.");
        return Err(Refusal::field("/name", "invalid_value", detail));
    }
    if let Some(types) = &types {
        if let Some(at) = types.iter().position(|one| one.parse::<EventType>().is_err()) {
            return Err(Refusal::field(format!("/types/{at}"), "unknown", unknown_type()));
        }
        if types.is_empty() || types.len() > EventType::names().len() {
            let detail = "It is told of at least one type, and of each once.";
            return Err(Refusal::field("/types", "invalid_value", detail));
        }
    }
    if let Some(sites) = &sites {
        let known = directory::site_names(&app.pools.reader, sites).await?;
        let is_right = (1..=SITES_MAX).contains(&sites.len());
        if !is_right || !sites.iter().all(|site| known.contains_key(site)) {
            let detail = "There is no such site, or none was named.";
            return Err(Refusal::field("/sites", "unknown", detail));
        }
    }
    if contact.as_ref().is_some_and(|contact| !mail::is_address(contact)) {
        let detail = "A contact is a mail's address like payroll@example.com.";
        return Err(Refusal::field("/contact", "invalid_value", detail));
    }
    if let Err(bad) = app.webhooks.sender.egress().reachable(&url).await {
        return Err(Refusal::field("/url", "invalid_value", bad.to_string()));
    }
    Ok(Described { name, url, types, sites, contact })
}

/// How one secret follows another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretBody {
    /// How long the old ones sign on, in hours: 0 to 168; 24 unless given.
    #[serde(default)]
    pub overlap_h: Option<u32>,
}

/// Makes another secret, shown this once. Deliveries carry the signatures of the old and of the new
/// one until the old one's time is over.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook}/secret", tag = "webhooks",
    operation_id = "rotateWebhookSecret",
    params(("webhook" = String, Path, description = "The endpoint")),
    request_body = SecretBody, responses((status = 201, body = WebhookMade)),
)]
pub async fn rotate(
    State(app): State<App>,
    operator: Operator,
    InPath(webhook): InPath<Uuid>,
    Json(body): Json<SecretBody>,
) -> Result<(StatusCode, Unkept<Answer<WebhookMade>>), Refusal> {
    let overlap_h = body.overlap_h.unwrap_or(OVERLAP_H);
    if overlap_h > OVERLAP_H_MAX {
        let detail = format!("Secrets overlap for at most {OVERLAP_H_MAX} hours.");
        return Err(Refusal::field("/overlap_h", "out_of_range", detail));
    }
    let times = (app.ledger.now().timestamp(), SignedDuration::from_hours(overlap_h.into()));
    let (pool, keeper) = (app.ledger.pool(), &app.webhooks.keeper);
    let secret = endpoints::rotate(pool, keeper, webhook, times, &operator.doer()).await?;
    let made = WebhookMade { webhook, secret: secret.reveal() };
    Ok((StatusCode::CREATED, Unkept(Answer(made))))
}

/// Whether an endpoint is told anything.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookDisabledBody {
    pub disabled: bool,
    /// When it is enabled: whether it is told what happened meanwhile; it is unless said otherwise.
    #[serde(default)]
    pub missed: Option<bool>,
}

/// Disables an endpoint, or enables it: then what was in line is tried at once, and what happened
/// meanwhile is told.
#[utoipa::path(
    put, path = "/v1/webhooks/{webhook}/disabled", tag = "webhooks",
    operation_id = "putWebhookDisabled",
    params(("webhook" = String, Path, description = "The endpoint")),
    request_body = WebhookDisabledBody, responses((status = 204)),
)]
pub async fn disable(
    State(app): State<App>,
    operator: Operator,
    InPath(webhook): InPath<Uuid>,
    Json(body): Json<WebhookDisabledBody>,
) -> Result<StatusCode, Refusal> {
    let (pool, now, doer) = (app.ledger.pool(), app.ledger.now().timestamp(), operator.doer());
    if body.disabled {
        endpoints::disable(pool, webhook, now, &doer).await?;
    } else {
        endpoints::enable(pool, webhook, body.missed.unwrap_or(true), now, &doer).await?;
        app.webhooks.news.notify_one();
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A delivery that was put in line.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryMade {
    pub delivery: i64,
}

/// Sends a test event, `webhook.test`, by the same way as all others.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook}/test", tag = "webhooks",
    operation_id = "testWebhook",
    params(("webhook" = String, Path, description = "The endpoint")),
    responses((status = 202, body = DeliveryMade)),
)]
pub async fn test(
    State(app): State<App>,
    _operator: Operator,
    InPath(webhook): InPath<Uuid>,
    _: Permitted,
) -> Result<(StatusCode, Answer<DeliveryMade>), Refusal> {
    let now = app.ledger.now().timestamp();
    let delivery = redelivery::test(app.ledger.pool(), webhook, now).await?;
    app.webhooks.news.notify_one();
    Ok((StatusCode::ACCEPTED, Answer(DeliveryMade { delivery })))
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveryQuery {
    /// Only those that stand so: `pending`, `delivered` or `failed`.
    pub state: Option<DeliveryState>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryView {
    pub delivery: i64,
    /// What `webhook-id` says, whenever it is sent.
    pub id: String,
    /// The event's place in the ledger; null of a test event.
    pub position: Option<Position>,
    pub r#type: Option<String>,
    pub state: DeliveryState,
    /// Tries since it was last put in line.
    pub tries: u32,
    /// Not before then it is tried next.
    pub due_at: Option<Time>,
    pub created_at: Time,
    pub finished_at: Option<Time>,
    /// What the last try was answered.
    pub status: Option<u16>,
    pub error: Option<String>,
}

impl From<Delivery> for DeliveryView {
    fn from(of: Delivery) -> Self {
        Self {
            delivery: of.id,
            id: of.event,
            position: of.position,
            r#type: of.event_type,
            state: of.state,
            tries: of.tries,
            due_at: of.due_at,
            created_at: of.made_at,
            finished_at: of.finished_at,
            status: of.status,
            error: of.error,
        }
    }
}

/// The deliveries to an endpoint, the newest first; those that are finished for thirty days.
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook}/deliveries", tag = "webhooks",
    operation_id = "listWebhookDeliveries",
    params(("webhook" = String, Path, description = "The endpoint"), DeliveryQuery),
    responses((status = 200, body = Page<DeliveryView>)),
)]
pub async fn deliveries(
    State(app): State<App>,
    _operator: Operator,
    InPath(webhook): InPath<Uuid>,
    walk: Walk,
    Params(query): Params<DeliveryQuery>,
) -> Result<Answer<Page<DeliveryView>>, Refusal> {
    let DeliveryQuery { state, cursor, limit } = query;
    let limit = PageQuery { cursor: None, limit }.limit()?;
    let before = page::place::<8>(&app, &walk, cursor.as_deref())?.map(i64::from_be_bytes);
    let pool = app.ledger.pool();
    let mut found = log::deliveries(pool, webhook, state, before, limit + 1).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let data = found.into_iter().map(DeliveryView::from).collect();
    Ok(Answer(Page::of(&app, &walk, data, has_more, |row: &DeliveryView| {
        row.delivery.to_be_bytes()
    })))
}

/// A try.
#[derive(Debug, Serialize, ToSchema)]
pub struct TryView {
    /// Which it was since the delivery was put in line, from 1.
    pub number: u32,
    pub at: Time,
    pub took_ms: u32,
    pub url: String,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// Why there was no success.
    pub error: Option<String>,
    /// The answer's headers, as far as they are kept.
    pub headers: Option<String>,
    /// The answer's body, as far as it is kept: 4 KiB.
    pub answer: Option<String>,
}

impl From<Try> for TryView {
    fn from(of: Try) -> Self {
        let Try { number, at, took_ms, url, status, error, headers, answer } = of;
        Self { number, at, took_ms, url, status, error, headers, answer }
    }
}

/// A delivery with all that was sent and came back.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    pub of: DeliveryView,
    /// The body that is sent.
    pub body: Option<String>,
    /// The oldest first.
    pub attempts: Vec<TryView>,
}

/// One delivery, with the body that is sent and with each try.
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook}/deliveries/{delivery}", tag = "webhooks",
    operation_id = "getWebhookDelivery",
    params(
        ("webhook" = String, Path, description = "The endpoint"),
        ("delivery" = i64, Path, description = "The delivery"),
    ),
    responses((status = 200, body = DeliveryDetail)),
)]
pub async fn delivery(
    State(app): State<App>,
    _operator: Operator,
    InPath((webhook, delivery)): InPath<(Uuid, i64)>,
) -> Result<Answer<DeliveryDetail>, Refusal> {
    let found = log::one(app.ledger.pool(), webhook, delivery).await?;
    let (of, body, tries) = found.ok_or_else(Refusal::not_found)?;
    let attempts = tries.into_iter().map(TryView::from).collect();
    Ok(Answer(DeliveryDetail { of: of.into(), body, attempts }))
}

/// Sends a delivery once more, under the same id and with the same body, with all its tries.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook}/deliveries/{delivery}/redelivery", tag = "webhooks",
    operation_id = "redeliverWebhookDelivery",
    params(
        ("webhook" = String, Path, description = "The endpoint"),
        ("delivery" = i64, Path, description = "The delivery"),
    ),
    responses((status = 202, body = DeliveryMade)),
)]
pub async fn redeliver_one(
    State(app): State<App>,
    _operator: Operator,
    InPath((webhook, delivery)): InPath<(Uuid, i64)>,
    _: Permitted,
) -> Result<(StatusCode, Answer<DeliveryMade>), Refusal> {
    let now = app.ledger.now().timestamp();
    if !redelivery::of_one(app.ledger.pool(), webhook, delivery, now).await? {
        return Err(Refusal::not_found());
    }
    app.webhooks.news.notify_one();
    Ok((StatusCode::ACCEPTED, Answer(DeliveryMade { delivery })))
}

/// What is to be sent once more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedeliveryBody {
    /// What happened from then on …
    pub since: Time,
    /// … and up to then; up to now unless given.
    #[serde(default)]
    pub until: Option<Time>,
    /// What was delivered, too; only what failed or never was in line unless said.
    #[serde(default)]
    pub everything: Option<bool>,
}

/// A job that sends once more.
#[derive(Debug, Serialize, ToSchema)]
pub struct RedeliveryView {
    #[schema(value_type = String)]
    pub redelivery: Uuid,
    /// It is about the events after this position …
    pub after: Position,
    /// … up to this.
    pub up_to: Position,
    pub everything: bool,
    /// How far it has come.
    pub reached: Position,
    /// Deliveries that it put in line.
    pub count: u64,
    pub created_at: Time,
    pub finished_at: Option<Time>,
}

impl From<Redelivery> for RedeliveryView {
    fn from(of: Redelivery) -> Self {
        Self {
            redelivery: of.id,
            after: of.span.after,
            up_to: of.span.up_to,
            everything: of.span.everything,
            reached: of.reached,
            count: of.count,
            created_at: of.made_at,
            finished_at: of.finished_at,
        }
    }
}

/// The jobs of an endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Redeliveries {
    /// The newest first, at most 100.
    pub data: Vec<RedeliveryView>,
}

/// A job that was begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct RedeliveryMade {
    #[schema(value_type = String)]
    pub redelivery: Uuid,
}

/// Sends what happened within a time once more, as a job that outlives any node.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook}/redeliveries", tag = "webhooks",
    operation_id = "redeliverWebhook",
    params(("webhook" = String, Path, description = "The endpoint")),
    request_body = RedeliveryBody, responses((status = 202, body = RedeliveryMade)),
)]
pub async fn redeliver(
    State(app): State<App>,
    _operator: Operator,
    InPath(webhook): InPath<Uuid>,
    Json(body): Json<RedeliveryBody>,
) -> Result<(StatusCode, Answer<RedeliveryMade>), Refusal> {
    let now = app.ledger.now();
    let until = body.until.unwrap_or(now);
    if until < body.since {
        let detail = "It ends before it begins.";
        return Err(Refusal::field("/until", "out_of_range", detail));
    }
    let span = (body.since, until);
    let everything = body.everything.unwrap_or_default();
    let pool = app.ledger.pool();
    let made = redelivery::of_time(pool, webhook, span, everything, now.timestamp()).await?;
    let redelivery = made.ok_or_else(|| {
        Refusal::new(Code::Conflict, "Too many redeliveries of it are under way; wait for one.")
    })?;
    Ok((StatusCode::ACCEPTED, Answer(RedeliveryMade { redelivery })))
}

/// What is sent once more, and what was.
#[utoipa::path(
    get, path = "/v1/webhooks/{webhook}/redeliveries", tag = "webhooks",
    operation_id = "listWebhookRedeliveries",
    params(("webhook" = String, Path, description = "The endpoint")),
    responses((status = 200, body = Redeliveries)),
)]
pub async fn redeliveries(
    State(app): State<App>,
    _operator: Operator,
    InPath(webhook): InPath<Uuid>,
) -> Result<Answer<Redeliveries>, Refusal> {
    let found = redelivery::of_endpoint(app.ledger.pool(), webhook, JOBS_SHOWN_MAX).await?;
    Ok(Answer(Redeliveries { data: found.into_iter().map(RedeliveryView::from).collect() }))
}

impl From<EndpointError> for Refusal {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Unknown => Self::not_found(),
            EndpointError::TooMany => Self::new(Code::Conflict, sentence(&error)),
            EndpointError::BeyondHead(_) => Self::field("/after", "beyond_head", sentence(&error)),
            EndpointError::Database(error) => error.into(),
        }
    }
}
