//! What could not be taken as a punch: the list, the bytes as sent, and what people make of them.

use axum::{Json as Answer, extract::State, http::StatusCode};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_infra::{
    people::directory,
    rulings::{self, Admission, quarantine as kept},
};
use punchtrail_projections::{
    engine::page::Order,
    rulings::quarantine::{self, Filter, ItemState, QuarantineItem},
};
use punchtrail_protocol::{
    Digest, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::punches::OrderParam;
use crate::routes::{NoteBody, Written, note_of};
use crate::{
    ask::{
        after::After,
        extract::{InPath, Json, Params},
        page::{Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// Which items.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct QuarantineQuery {
    /// Only those that are `waiting`, `admitted` or `dismissed`.
    pub state: Option<String>,
    /// Only those that came under this punch's id.
    pub punch: Option<PunchId>,
    /// `newest` (unless given) or `oldest` first.
    #[serde(default)]
    #[param(inline)]
    pub order: OrderParam,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// Quarantined items in the order they came.
#[utoipa::path(
    get, path = "/v1/quarantine", tag = "quarantine", params(After, QuarantineQuery),
    operation_id = "listQuarantine",
    responses((status = 200, body = Page<QuarantineItem>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<QuarantineQuery>,
) -> Result<Answer<Page<QuarantineItem>>, Refusal> {
    after.reached(&app, &[quarantine::NAME]).await?;
    let (state, order) = (state(query.state.as_deref())?, Order::from(query.order));
    let pool = &app.pools.reader;
    let page = PageQuery { cursor: query.cursor, limit: query.limit };
    let place = page.place(&app, &walk)?.map(|place| Position(u64::from_be_bytes(place)));
    let filter = Filter { state, punch: query.punch, within: operator.sites() };
    let found = quarantine::list(pool, &filter, order, place, page.limit()?).await?;
    let key = |row: &QuarantineItem| row.position.0.to_be_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

fn state(asked: Option<&str>) -> Result<Option<ItemState>, Refusal> {
    let parsed = asked.map(str::parse).transpose();
    parsed.map_err(|error: quarantine::UnknownState| {
        Refusal::field("state", "invalid_value", format!("{error}."))
    })
}

/// A quarantined item with the bytes as sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantineItemBytes {
    #[serde(flatten)]
    pub item: QuarantineItem,
    /// The capture, the text as sent.
    pub capture: String,
    /// The signature, the text as sent.
    pub signature: String,
    /// The punch that it is in the ledger already; then it can only be dismissed.
    pub stands_as: Option<StandsAs>,
    /// The capture's bytes as text, if the text as sent is base64url of UTF-8.
    pub decoded: Option<String>,
}

/// A punch that an item is already.
#[derive(Debug, Serialize, ToSchema)]
pub struct StandsAs {
    pub punch: PunchId,
    /// Position of its last event.
    pub position: Position,
}

/// One quarantined item with the bytes as sent.
#[utoipa::path(
    get, path = "/v1/quarantine/{item}", tag = "quarantine",
    operation_id = "getQuarantineItem",
    params(After, ("item" = String, Path, description = "The item")),
    responses((status = 200, body = QuarantineItemBytes)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(item): InPath<Digest>,
    after: After,
) -> Result<Answer<QuarantineItemBytes>, Refusal> {
    after.reached(&app, &[quarantine::NAME]).await?;
    operator.may_see_people()?;
    operator.reaches_item(&app, item).await?;
    let found = quarantine::one(&app.pools.reader, item).await?.ok_or_else(Refusal::not_found)?;
    let raw = kept::raw(&app.pools.reader, item).await?.ok_or_else(Refusal::not_found)?;
    let bytes = URL_SAFE_NO_PAD.decode(&raw.capture).ok();
    let decoded = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let stands_as = rulings::stands(&app.ledger, item).await?;
    let stands_as = stands_as.map(|(punch, position)| StandsAs { punch, position });
    let (item, capture, signature) = (found, raw.capture, raw.signature);
    Ok(Answer(QuarantineItemBytes { item, capture, signature, stands_as, decoded }))
}

/// What a person found in an item.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdmitBody {
    pub employee: EmployeeId,
    pub site: SiteId,
    pub kind: PunchKind,
    #[serde(deserialize_with = "crate::ask::time::read")]
    pub captured_at: Time,
    /// A note for whoever reads the explanation; at most 2,000 characters.
    #[serde(default)]
    pub note: Option<String>,
}

/// Answer to an admission.
#[derive(Debug, Serialize, ToSchema)]
pub struct Admitted {
    pub punch: PunchId,
    /// Where its last event stands in the ledger.
    pub position: Position,
}

/// Takes an item in as a punch, which is accepted by that. One that is in the ledger already is 409
/// `conflict`, with the punch that it is.
#[utoipa::path(
    post, path = "/v1/quarantine/{item}/admit", tag = "quarantine",
    operation_id = "admitQuarantineItem",
    params(("item" = String, Path, description = "The item")),
    request_body = AdmitBody, responses((status = 201, body = Admitted)),
    security(("operator_key" = [])),
)]
pub async fn admit(
    State(app): State<App>,
    operator: Operator,
    InPath(item): InPath<Digest>,
    Json(body): Json<AdmitBody>,
) -> Result<(StatusCode, Answer<Admitted>), Refusal> {
    let author = operator.author(note_of(body.note)?);
    operator.reaches_item(&app, item).await?;
    operator.reaches_site(body.site)?;
    known(&app, body.employee, body.site).await?;
    let (employee, site, kind, captured_at) =
        (body.employee, body.site, body.kind, body.captured_at);
    let admission = Admission { employee, site, kind, captured_at };
    let (punch, position) = rulings::admit(&app.ledger, item, admission, &author).await?;
    Ok((StatusCode::CREATED, Answer(Admitted { punch, position })))
}

async fn known(app: &App, employee: EmployeeId, site: SiteId) -> Result<(), Refusal> {
    if !directory::employee_exists(&app.pools.reader, employee).await? {
        return Err(Refusal::field("/employee", "unknown", "There is no such employee."));
    }
    if !directory::site_exists(&app.pools.reader, site).await? {
        return Err(Refusal::field("/site", "unknown", "There is no such site."));
    }
    Ok(())
}

/// Finds that an item is no punch. Its bytes are kept.
#[utoipa::path(
    post, path = "/v1/quarantine/{item}/dismiss", tag = "quarantine",
    operation_id = "dismissQuarantineItem",
    params(("item" = String, Path, description = "The item")),
    request_body = NoteBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn dismiss(
    State(app): State<App>,
    operator: Operator,
    InPath(item): InPath<Digest>,
    Json(body): Json<NoteBody>,
) -> Result<Answer<Written>, Refusal> {
    let author = operator.author(note_of(body.note)?);
    operator.reaches_item(&app, item).await?;
    let position = rulings::dismiss(&app.ledger, item, &author).await?;
    Ok(Answer(Written { position }))
}
