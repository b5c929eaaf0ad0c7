//! What is settled for a whole role.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_infra::access::{roles, users};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::users::RoleName;
use crate::{
    ask::extract::{InPath, Json},
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// What is settled for a role.
#[derive(Debug, Serialize, ToSchema)]
pub struct RoleView {
    pub role: RoleName,
    /// Whether its people need a second factor. Who has none yet may set one, and nothing else.
    pub second_factor_required: bool,
}

/// What is settled for each role.
#[derive(Debug, Serialize, ToSchema)]
pub struct Roles {
    pub data: Vec<RoleView>,
}

/// What is settled for each role.
#[utoipa::path(
    get, path = "/v1/roles", tag = "access",
    operation_id = "listRoles",
    responses((status = 200, body = Roles)),
)]
pub async fn list(State(app): State<App>, _operator: Operator) -> Result<Answer<Roles>, Refusal> {
    let rules = roles::rules(app.ledger.pool()).await?;
    let view = |rule: roles::RoleRule| RoleView {
        role: rule.role.into(),
        second_factor_required: rule.second_factor_required,
    };
    Ok(Answer(Roles { data: rules.into_iter().map(view).collect() }))
}

/// What shall hold for a role.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRuleBody {
    pub second_factor_required: bool,
}

/// Settles whether a role's people need a second factor, from their next request on.
#[utoipa::path(
    put, path = "/v1/roles/{role}", tag = "access",
    operation_id = "putRole",
    params(("role" = RoleName, Path, description = "The role")),
    request_body = RoleRuleBody, responses((status = 204)),
)]
pub async fn settle(
    State(app): State<App>,
    operator: Operator,
    InPath(role): InPath<RoleName>,
    Json(body): Json<RoleRuleBody>,
) -> Result<StatusCode, Refusal> {
    let (pool, required) = (app.ledger.pool(), body.second_factor_required);
    users::require_factor(pool, role.into(), required, &operator.doer()).await?;
    Ok(StatusCode::NO_CONTENT)
}
