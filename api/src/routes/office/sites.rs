//! Sites, for operators.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_domain::{
    policy::Policy,
    site::{Site, SiteCommand, SiteError},
};
use punchtrail_infra::{devices::enrolment, ledger::ExecuteError, people::directory};
use punchtrail_projections::sites::{self, SiteView};
use punchtrail_protocol::{SiteId, Time};
use serde::Serialize;
use utoipa::ToSchema;

use crate::routes::Written;
use crate::{
    ask::{
        after::After,
        extract::{InPath, Json, Params, Permitted},
        page::{Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// Sites in the order of their ids.
#[utoipa::path(
    get, path = "/v1/sites", tag = "sites", params(PageQuery),
    responses((status = 200, body = Page<SiteView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<SiteView>>, Refusal> {
    after.reached(&app, &[sites::NAME]).await?;
    let place = query.place(&app, &walk)?.map(|id| SiteId(uuid::Uuid::from_bytes(id)));
    let found = sites::list(&app.pools.reader, operator.sites(), place, query.limit()?).await?;
    let key = |row: &SiteView| *row.site.0.as_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

/// One site.
#[utoipa::path(
    get, path = "/v1/sites/{site}", tag = "sites",
    params(("site" = SiteId, Path, description = "The site")),
    responses((status = 200, body = SiteView)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(site): InPath<SiteId>,
    after: After,
) -> Result<Answer<SiteView>, Refusal> {
    after.reached(&app, &[sites::NAME]).await?;
    operator.reaches_site(site)?;
    sites::one(&app.pools.reader, site).await?.map(Answer).ok_or_else(Refusal::not_found)
}

/// A pairing code, shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct PairingCodeView {
    pub code: String,
    /// When it can no longer be used.
    pub expires_at: Time,
}

/// Makes a pairing code for a site: single use, ten minutes.
#[utoipa::path(
    post, path = "/v1/sites/{site}/pairing-codes", tag = "sites",
    params(("site" = SiteId, Path, description = "The site")),
    responses((status = 201, body = PairingCodeView)), security(("operator_key" = [])),
)]
pub async fn make_pairing_code(
    State(app): State<App>,
    operator: Operator,
    InPath(site): InPath<SiteId>,
    _: Permitted,
) -> Result<(StatusCode, Answer<PairingCodeView>), Refusal> {
    operator.reaches_site(site)?;
    if !directory::site_exists(&app.pools.reader, site).await? {
        return Err(Refusal::not_found());
    }
    let code = enrolment::make_code(app.ledger.pool(), site).await?;
    let view = PairingCodeView { code: code.shown(), expires_at: code.expires_at };
    Ok((StatusCode::CREATED, Answer(view)))
}

/// Replaces a site's policy. What is left out is set to its default; punches recorded from here on
/// are judged by it.
#[utoipa::path(
    put, path = "/v1/sites/{site}/policy", tag = "sites",
    params(("site" = SiteId, Path, description = "The site")),
    request_body = Policy, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn change_policy(
    State(app): State<App>,
    operator: Operator,
    InPath(site): InPath<SiteId>,
    Json(policy): Json<Policy>,
) -> Result<Answer<Written>, Refusal> {
    operator.reaches_site(site)?;
    let (id, command) = (site.to_string(), SiteCommand::ChangePolicy { policy, from: None });
    let done = app.ledger.execute::<Site>(&id, command, &operator.metadata()).await;
    let position = done.map_err(policy_refusal)?.position;
    Ok(Answer(Written { position }))
}

fn policy_refusal(error: ExecuteError<SiteError>) -> Refusal {
    match error {
        ExecuteError::Refused(SiteError::Policy(error)) => {
            Refusal::field(error.pointer(), "invalid_value", format!("{error}."))
        }
        error => error.into(),
    }
}
