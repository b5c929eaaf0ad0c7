//! Keys of programs and integrators.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_infra::{
    access::keys::{self, ListedKey, NewKey},
    people::directory,
};
use punchtrail_protocol::{EmployeeId, SiteId, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    ask::extract::{InPath, Json, Permitted},
    auth::{Operator, table},
    once::Unkept,
    problem::Refusal,
    state::App,
};

/// The longest name of a key, in characters.
pub const KEY_NAME_CHARS_MAX: usize = 64;

/// A key: never the key itself, which isn't kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    /// Its id, which events name.
    pub key: Uuid,
    /// Whose it is, or what for.
    pub name: String,
    /// The worker whose key it is, if one's.
    pub employee: Option<EmployeeId>,
    /// What it may do; null for everything.
    pub scopes: Option<Vec<String>>,
    /// Where; null for everywhere.
    pub sites: Option<Vec<SiteId>>,
    pub created_at: Time,
    /// From when on it opens nothing.
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
}

impl From<ListedKey> for KeyView {
    fn from(key: ListedKey) -> Self {
        Self {
            key: key.id,
            name: key.name,
            employee: key.employee,
            scopes: key.scopes,
            sites: key.sites,
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
        }
    }
}

/// Every key.
#[derive(Debug, Serialize, ToSchema)]
pub struct Keys {
    /// The oldest first.
    pub data: Vec<KeyView>,
}

/// Every key that was made, also those that were revoked.
#[utoipa::path(
    get, path = "/v1/keys", tag = "access",
    operation_id = "listKeys",
    responses((status = 200, body = Keys)),
)]
pub async fn list(State(app): State<App>, _operator: Operator) -> Result<Answer<Keys>, Refusal> {
    let found = keys::operator_keys(app.ledger.pool()).await?;
    Ok(Answer(Keys { data: found.into_iter().map(KeyView::from).collect() }))
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyBody {
    /// What for: 1 to 64 characters.
    pub name: String,
    /// What it may do, `punches:read` for one; docs/roles.md lists them. At least one.
    pub scopes: Vec<String>,
    /// Where; everywhere unless given.
    #[serde(default)]
    pub sites: Option<Vec<SiteId>>,
    /// From when on it opens nothing; never unless given.
    #[serde(default)]
    pub expires_at: Option<Time>,
}

/// A key that was made, shown this once.
#[derive(Serialize, ToSchema)]
pub struct KeyMade {
    /// Its id, which events name.
    pub key: Uuid,
    /// What it is sent as: `Authorization: Bearer`.
    pub token: String,
}

/// Makes a key with scopes. One that may do everything is made at the server's own command line.
#[utoipa::path(
    post, path = "/v1/keys", tag = "access", request_body = KeyBody,
    operation_id = "createKey",
    responses((status = 201, body = KeyMade)),
)]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<KeyBody>,
) -> Result<(StatusCode, Unkept<Answer<KeyMade>>), Refusal> {
    body.check(&app).await?;
    let KeyBody { name, scopes, sites, expires_at } = body;
    let new = NewKey { name: name.trim(), employee: None, scopes: Some(scopes), sites, expires_at };
    let (key, secret) = keys::create(app.ledger.pool(), new, &operator.doer()).await?;
    let made = KeyMade { key: key.id, token: secret.reveal().to_owned() };
    Ok((StatusCode::CREATED, Unkept(Answer(made))))
}

impl KeyBody {
    async fn check(&self, app: &App) -> Result<(), Refusal> {
        let name = self.name.trim();
        let length = name.chars().count();
        if !(1..=KEY_NAME_CHARS_MAX).contains(&length) || name.chars().any(char::is_control) {
            let detail = format!("A name has 1 to {KEY_NAME_CHARS_MAX} characters.");
            return Err(Refusal::field("/name", "invalid_value", detail));
        }
        let known = table::scopes();
        if let Some(at) = self.scopes.iter().position(|scope| !known.contains(&scope.as_str())) {
            let detail = "There is no such scope; docs/roles.md lists them.";
            return Err(Refusal::field(format!("/scopes/{at}"), "unknown", detail));
        }
        if self.scopes.is_empty() || self.scopes.len() > known.len() {
            let detail = "A key has at least one scope, and each once.";
            return Err(Refusal::field("/scopes", "invalid_value", detail));
        }
        if let Some(sites) = &self.sites {
            let found = directory::site_names(&app.pools.reader, sites).await?;
            if sites.is_empty() || !sites.iter().all(|site| found.contains_key(site)) {
                let detail = "There is no such site, or none was named.";
                return Err(Refusal::field("/sites", "unknown", detail));
            }
        }
        if self.expires_at.is_some_and(|at| at <= app.ledger.now()) {
            let detail = "It would open nothing from the first.";
            return Err(Refusal::field("/expires_at", "invalid_value", detail));
        }
        Ok(())
    }
}

/// Ends a key's access: within a second on every node.
#[utoipa::path(
    delete, path = "/v1/keys/{key}", tag = "access",
    operation_id = "revokeKey",
    params(("key" = Uuid, Path, description = "The key's id")), responses((status = 204)),
)]
pub async fn revoke(
    State(app): State<App>,
    operator: Operator,
    InPath(key): InPath<Uuid>,
    _: Permitted,
) -> Result<StatusCode, Refusal> {
    match keys::revoke_operator_key(app.ledger.pool(), key, &operator.doer()).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Refusal::not_found()),
    }
}
