//! Sites, for operators.

use axum::{Json as Answer, extract::State, http::StatusCode};
use jiff::civil::Date;
use punchtrail_domain::{policy::Policy, site::SiteError};
use punchtrail_infra::{
    devices::enrolment,
    ledger::ExecuteError,
    people::directory,
    sites::{self as own, AddSiteError, Set, Since, set_policy, set_zone, with_zone},
};
use punchtrail_projections::{
    punches::{
        moved::{self, Moved},
        timecards,
    },
    sites::{self, SiteView},
};
use punchtrail_protocol::{Position, SiteId, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::{
        after::After,
        extract::{InPath, Json, Params, Permitted},
        page::{Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    once::Unkept,
    problem::{Code, Refusal},
    state::App,
};

/// Sites in the order of their ids.
#[utoipa::path(
    get, path = "/v1/sites", tag = "sites", params(After, PageQuery),
    operation_id = "listSites",
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
    let (sites, now) = (operator.sites(), app.ledger.now());
    let found = sites::list(&app.pools.reader, sites, place, query.limit()?, now).await?;
    let key = |row: &SiteView| *row.site.0.as_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

/// One site.
#[utoipa::path(
    get, path = "/v1/sites/{site}", tag = "sites",
    operation_id = "getSite",
    params(After, ("site" = SiteId, Path, description = "The site")),
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
    let now = app.ledger.now();
    sites::one(&app.pools.reader, site, now).await?.map(Answer).ok_or_else(Refusal::not_found)
}

/// A pairing code, shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct PairingCodeView {
    pub code: String,
    /// When it can no longer be used.
    pub expires_at: Time,
}

/// A site to be made known.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteBody {
    /// 1 to 64 characters; no two sites share one.
    pub name: String,
    /// Its zone, as the IANA database names it.
    pub tz: String,
}

/// A site that was made known.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteAdded {
    pub site: SiteId,
    pub position: Position,
}

/// Makes a site known.
#[utoipa::path(
    post, path = "/v1/sites", tag = "sites", request_body = SiteBody,
    operation_id = "addSite",
    responses((status = 201, body = SiteAdded)), security(("operator_key" = [])),
)]
pub async fn add(
    State(app): State<App>,
    operator: Operator,
    Json(SiteBody { name, tz }): Json<SiteBody>,
) -> Result<(StatusCode, Answer<SiteAdded>), Refusal> {
    let wrong =
        |what| Refusal::field("/name", "invalid_value", format!("The name is wrong: {what}."));
    let (site, name) = (SiteId(uuid::Uuid::now_v7()), own::name(&name).map_err(wrong)?);
    let added = own::add(&app.ledger, site, &name, tz, &operator.metadata()).await;
    let position = added.map_err(|error| match error {
        AddSiteError::NameTaken => {
            Refusal::new(Code::Conflict, "There is a site of that name already; none was added.")
        }
        AddSiteError::Ledger(error) => rule_refusal(error),
    })?;
    Ok((StatusCode::CREATED, Answer(SiteAdded { site, position })))
}

/// Makes a pairing code for a site: single use, ten minutes.
#[utoipa::path(
    post, path = "/v1/sites/{site}/pairing-codes", tag = "sites",
    operation_id = "createPairingCode",
    params(("site" = SiteId, Path, description = "The site")),
    responses((status = 201, body = PairingCodeView)), security(("operator_key" = [])),
)]
pub async fn make_pairing_code(
    State(app): State<App>,
    operator: Operator,
    InPath(site): InPath<SiteId>,
    _: Permitted,
) -> Result<(StatusCode, Unkept<Answer<PairingCodeView>>), Refusal> {
    operator.reaches_site(site)?;
    if !directory::site_exists(&app.pools.reader, site).await? {
        return Err(Refusal::not_found());
    }
    let code = enrolment::make_code(app.ledger.pool(), site).await?;
    let view = PairingCodeView { code: code.shown(), expires_at: code.expires_at };
    Ok((StatusCode::CREATED, Unkept(Answer(view))))
}

/// From when on it shall hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PolicyQuery {
    /// The first business day that it holds on, `YYYY-MM-DD`, long gone or yet to come. Unless
    /// given: since ever if the site never had a policy of its own, else today.
    #[param(value_type = Option<String>, format = Date)]
    pub from: Option<Date>,
}

/// Answer to what a site's rules were set to.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleSet {
    /// Where it stands in the ledger: give it to a read as `Punchtrail-After`.
    pub position: Position,
    /// The first day that it holds on, `YYYY-MM-DD`; null: since ever.
    #[schema(value_type = Option<String>, format = Date)]
    pub from: Option<Date>,
}

impl From<Set> for RuleSet {
    fn from(set: Set) -> Self {
        Self { position: set.position, from: set.from }
    }
}

/// Sets a site's policy from a day on. What is left out is set to its default; punches of the days
/// before are judged and paired as they were.
#[utoipa::path(
    put, path = "/v1/sites/{site}/policy", tag = "sites",
    operation_id = "putSitePolicy",
    params(("site" = SiteId, Path, description = "The site"), PolicyQuery),
    request_body = Policy, responses((status = 200, body = RuleSet)),
    security(("operator_key" = [])),
)]
pub async fn change_policy(
    State(app): State<App>,
    operator: Operator,
    InPath(site): InPath<SiteId>,
    Params(query): Params<PolicyQuery>,
    Json(policy): Json<Policy>,
) -> Result<Answer<RuleSet>, Refusal> {
    operator.reaches_site(site)?;
    let since = query.from.map_or(Since::Unsaid, Since::Day);
    let as_given = |_: &_, _| Ok::<_, ExecuteError<SiteError>>(policy);
    let set = set_policy(&app.ledger, site, since, &operator.metadata(), as_given).await;
    Ok(Answer(set.map_err(rule_refusal)?.into()))
}

/// A zone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoneBody {
    /// The zone, as the IANA database names it.
    pub tz: String,
    /// The first day that it holds on, `YYYY-MM-DD`; today unless given.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Date)]
    pub from: Option<Date>,
    /// The zone before was wrong from the beginning: this one holds since ever. Not with `from`.
    #[serde(default)]
    pub correct_past: bool,
}

impl ZoneBody {
    fn since(&self) -> Result<Since, Refusal> {
        match (self.from, self.correct_past) {
            (Some(_), true) => {
                let detail = "Give `from`, or `correct_past` for all of the past, not both.";
                Err(Refusal::field("/from", "invalid_value", detail))
            }
            (None, true) => Ok(Since::Ever),
            (Some(day), false) => Ok(Since::Day(day)),
            (None, false) => Ok(Since::Unsaid),
        }
    }
}

/// Sets a site's zone from a day on, or corrects it for all of the past. Look at the preview first.
#[utoipa::path(
    put, path = "/v1/sites/{site}/zone", tag = "sites",
    operation_id = "putSiteZone",
    params(("site" = SiteId, Path, description = "The site")),
    request_body = ZoneBody, responses((status = 200, body = RuleSet)),
    security(("operator_key" = [])),
)]
pub async fn change_zone(
    State(app): State<App>,
    operator: Operator,
    InPath(site): InPath<SiteId>,
    Json(body): Json<ZoneBody>,
) -> Result<Answer<RuleSet>, Refusal> {
    operator.reaches_site(site)?;
    let since = body.since()?;
    let set = set_zone(&app.ledger, site, body.tz, since, &operator.metadata()).await;
    Ok(Answer(set.map_err(rule_refusal)?.into()))
}

/// What another zone would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct ZonePreview {
    /// The first day that it would hold on, `YYYY-MM-DD`; null: since ever.
    #[schema(value_type = Option<String>, format = Date)]
    pub from: Option<Date>,
    pub moved: Moved,
}

/// Whose hours of which days another zone would move; nothing is written.
#[utoipa::path(
    post, path = "/v1/sites/{site}/zone/preview", tag = "sites",
    operation_id = "previewSiteZone",
    params(("site" = SiteId, Path, description = "The site")),
    request_body = ZoneBody, responses((status = 200, body = ZonePreview)),
    security(("operator_key" = [])),
)]
pub async fn preview_zone(
    State(app): State<App>,
    operator: Operator,
    InPath(site): InPath<SiteId>,
    after: After,
    Json(body): Json<ZoneBody>,
) -> Result<Answer<ZonePreview>, Refusal> {
    operator.reaches_site(site)?;
    after.reached(&app, &timecards::RESTS_ON).await?;
    let since = body.since()?;
    let (then, from) = with_zone(&app.ledger, site, body.tz, since).await.map_err(rule_refusal)?;
    let mut moved = moved::by_rules(&app.pools.reader, site, &then).await?;
    if operator.sees_names() {
        let people: Vec<_> = moved.shown.iter().map(|day| day.employee).collect();
        let names = directory::employee_names(&app.pools.reader, &people).await?;
        for day in &mut moved.shown {
            day.employee_name = names.get(&day.employee).cloned();
        }
    }
    Ok(Answer(ZonePreview { from, moved }))
}

fn rule_refusal(error: ExecuteError<SiteError>) -> Refusal {
    match error {
        ExecuteError::Refused(SiteError::Policy(error)) => {
            Refusal::field(error.pointer(), "invalid_value", format!("{error}."))
        }
        ExecuteError::Refused(error @ SiteError::UnknownZone(_)) => {
            Refusal::field("/tz", "invalid_value", format!("{error}."))
        }
        error => error.into(),
    }
}
