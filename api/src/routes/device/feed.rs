//! A site's punches for its devices: each at its latest change, in the order of those changes.
//!
//! A cursor is bound to its walk and to the hash of the event at its position, so after a restore
//! an outdated one is found out, and no clock has a part in it.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::site::Site;
use punchtrail_infra::ledger;
use punchtrail_projections::punches::{PunchView, site_feed};
use punchtrail_protocol::{
    DeviceId, Position, SiteId,
    wire::{SitePunch, SitePunches},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    ask::{
        after::After,
        cursor,
        extract::{InPath, Params, page_limit},
        limits::{FEED_PAGE_DEFAULT, PAGE_MAX},
        walk::Walk,
    },
    auth::ReadingDevice,
    problem::Refusal,
    quota::Counted,
    state::App,
};

/// From where a site's feed is read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeedQuery {
    /// Where to go on: `next_cursor` of the last answer; from the look-back on without it.
    pub since: Option<String>,
    /// The most rows, 1 to 1,000; 200 unless given.
    pub limit: Option<u32>,
}

/// The site's punches that changed since a cursor.
#[utoipa::path(
    get, path = "/v1/sites/{site}/punches", tag = "sync",
    operation_id = "listSitePunchChanges",
    params(After, ("site" = SiteId, Path, description = "The device's site"), FeedQuery),
    responses((status = 200, body = SitePunches)), security(("device_token" = [])),
)]
pub async fn since(
    State(app): State<App>,
    device: ReadingDevice,
    _: Counted,
    InPath(site): InPath<SiteId>,
    after: After,
    walk: Walk,
    Params(query): Params<FeedQuery>,
) -> Result<Answer<SitePunches>, Refusal> {
    device.serves(site)?;
    let limit = page_limit(query.limit, FEED_PAGE_DEFAULT, PAGE_MAX)?;
    let from = match &query.since {
        Some(text) => proven(&app, &walk, text).await?,
        None => look_back(&app, site).await?,
    };
    after.reached(&app, &[site_feed::NAME]).await?;
    page(&app, &walk, site, from, limit).await.map(Answer)
}

async fn page(
    app: &App,
    walk: &Walk,
    site: SiteId,
    from: Position,
    limit: u32,
) -> Result<SitePunches, Refusal> {
    let page = site_feed::after(&app.pools.reader, site, from, limit).await?;
    let reached = page.rows.last().map_or(from, |row| row.position);
    let hash = leaf_hash(app, reached).await?.ok_or_else(Refusal::internal)?;
    Ok(SitePunches {
        data: page.rows.into_iter().map(shown).collect(),
        next_cursor: walk.cursor(&app.deployment, &hash, &reached.0.to_be_bytes()),
        has_more: page.more,
    })
}

async fn proven(app: &App, walk: &Walk, text: &str) -> Result<Position, Refusal> {
    let read = cursor::open(text)?;
    let position = Position(read.claimed_number()?);
    if position.0 > i64::MAX.cast_unsigned() {
        return Err(cursor::invalid());
    }
    let hash = leaf_hash(app, position).await?.ok_or_else(cursor::invalid)?;
    walk.prove(&app.deployment, &hash, &read)?;
    Ok(position)
}

async fn look_back(app: &App, site: SiteId) -> Result<Position, Refusal> {
    let site = app.ledger.load::<Site>(&site.to_string()).await?.aggregate;
    let now = app.ledger.now();
    let since = now.plus_millis(-i64::from(site.rules().policy_at(now).lookback_s) * 1_000);
    Ok(site_feed::look_back(&app.pools.reader, since).await?)
}

/// The hash of the event at a position; before the first, nothing is there, and that is a state
/// too.
async fn leaf_hash(app: &App, position: Position) -> Result<Option<Vec<u8>>, Refusal> {
    if position == Position::START {
        return Ok(Some(Vec::new()));
    }
    Ok(ledger::leaf_hash(&app.pools.reader, position).await?)
}

fn shown(row: PunchView) -> SitePunch {
    SitePunch {
        punch: row.punch,
        employee: row.employee,
        kind: row.kind,
        captured_at: row.captured_at,
        effective_at: row.effective_at,
        // All zeros for what a person added: the protocol has no device that is none.
        device: row.device.unwrap_or(DeviceId::NIL),
        standing: row.standing,
        // A ruling's reason, which may stand there, too, is not for devices.
        reasons: row.reasons.iter().filter_map(|code| code.parse().ok()).collect(),
        position: row.position,
    }
}
