//! The audit trail: who did what that bears on security.

use axum::{Json as Answer, extract::State};
use punchtrail_infra::access::trail::{self, Act, Filter, Line};
use punchtrail_protocol::Time;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::{
        extract::Params,
        page::{Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only what this one did, as events name an actor: `user:…`, `key:…`, `command_line`,
    /// `nobody`.
    pub actor: Option<String>,
    /// Only such acts, `signed_in` for one; docs/roles.md lists them.
    pub act: Option<String>,
    /// Only what was done to this: a user's id, `key:…`, `employee:…`, `sha256:…`.
    pub subject: Option<String>,
    pub from: Option<Time>,
    pub to: Option<Time>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// A line of the trail.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLine {
    /// Its number; later lines have higher ones.
    pub line: u64,
    pub at: Time,
    /// Who, as events name an actor; `nobody` for whoever isn't known.
    pub actor: String,
    pub act: String,
    /// What it was done to.
    pub subject: Option<String>,
    /// From where: an address, of IPv6 the network.
    pub address: Option<String>,
    /// The request, for the operator's log.
    pub request_id: Option<String>,
    /// More of it, in codes.
    pub detail: Option<String>,
    /// How many such there had been from there in that minute: failures are told of by tenfolds.
    pub count: u64,
}

impl From<Line> for AuditLine {
    fn from(line: Line) -> Self {
        Self {
            line: line.id,
            at: line.at,
            actor: line.actor,
            act: line.act,
            subject: line.subject,
            address: line.address,
            request_id: line.request,
            detail: line.detail,
            count: line.count,
        }
    }
}

/// Who did what that bears on security, the newest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "access", params(AuditQuery),
    operation_id = "listSecurityActs",
    responses((status = 200, body = Page<AuditLine>)),
)]
pub async fn list(
    State(app): State<App>,
    _operator: Operator,
    walk: Walk,
    Params(query): Params<AuditQuery>,
) -> Result<Answer<Page<AuditLine>>, Refusal> {
    let AuditQuery { actor, act, subject, from, to, cursor, limit } = query;
    let act = act.map(|act| act.parse::<Act>()).transpose().map_err(|_| {
        Refusal::field("act", "invalid_value", "There is no such act; docs/roles.md lists them.")
    })?;
    let page = PageQuery { cursor, limit };
    let (limit, place) = (page.limit()?, page.place(&app, &walk)?);
    let filter = Filter { actor, act, subject, from, to };
    let before = place.map(u64::from_be_bytes);
    let mut found = trail::list(&app.pools.reader, &filter, before, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let rows = found.into_iter().map(AuditLine::from).collect();
    Ok(Answer(Page::of(&app, &walk, rows, more, |row: &AuditLine| row.line.to_be_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray as _;

    #[test]
    fn the_page_of_roles_lists_every_act() {
        let page = include_str!("../../../../../docs/roles.md");
        for act in Act::VARIANTS {
            assert!(page.contains(&format!("`{}`", act.as_str())), "{act:?}");
        }
    }
}
