//! Devices, for operators.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::device::Gap;
use punchtrail_infra::people::directory;
use punchtrail_projections::devices::{self, DeviceRow, Report};
use punchtrail_protocol::{DeviceId, Position, SiteId, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::routes::Written;
use crate::{
    ask::{
        after::After,
        extract::{InPath, Json, Params},
        page::{Page, PageQuery},
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

const LIST: &str = "devices";

/// A device: what the ledger proves about it, and apart from that its last report.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceView {
    /// The device.
    pub device: DeviceId,
    /// Its name; null once it was taken out of the directory.
    pub name: Option<String>,
    /// Where it serves now.
    pub site: Option<SiteId>,
    /// Every site it was ever assigned to.
    pub sites: Vec<SiteId>,
    /// Program and version that enrolled.
    pub app: Option<String>,
    /// When its key was recorded.
    pub enrolled_at: Option<Time>,
    /// When its access ended, if it did.
    pub revoked_at: Option<Time>,
    /// How many of its punches are in the ledger.
    pub punches: u64,
    /// How many items it sent that can't be taken as punches.
    pub quarantined: u64,
    /// How many numbers it used twice.
    pub forks: u64,
    /// How many of its captures name another predecessor than the one that is held.
    pub broken_links: u64,
    /// The highest number in the ledger; 0 when there is none.
    pub last_seq: u64,
    /// When it last delivered.
    pub last_synced_at: Option<Time>,
    /// Up to which every number is held.
    pub acked_through: u64,
    /// Numbers that never came, the first 100 runs.
    pub gaps: Vec<Gap>,
    /// How many numbers never came, in all.
    pub missing: u64,
    /// Position of its latest event.
    pub position: Position,
    /// What it last said of itself: its own word, as of then.
    pub report: Option<LastReport>,
}

/// What a device last said of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastReport {
    /// When, by the server's clock.
    pub reported_at: Time,
    /// How many punches waited.
    pub outbox: u64,
    /// How many photos waited.
    pub photos: u64,
    /// When the oldest of the waiting punches was captured, by the device's clock.
    pub oldest: Option<Time>,
    /// The last number it had made.
    pub seq: u64,
    /// Its clock then.
    pub clock: Time,
    /// Program and version.
    pub app: String,
}

impl From<Report> for LastReport {
    fn from(report: Report) -> Self {
        let Report { reported_at, outbox, photos, oldest, seq, clock, app } = report;
        Self { reported_at, outbox, photos, oldest, seq, clock, app }
    }
}

impl From<DeviceRow> for DeviceView {
    fn from(row: DeviceRow) -> Self {
        Self {
            device: row.device,
            name: row.name,
            site: row.site,
            sites: row.sites,
            app: row.app,
            enrolled_at: row.enrolled_at,
            revoked_at: row.revoked_at,
            punches: row.punches,
            quarantined: row.quarantined,
            forks: row.forks,
            broken_links: row.broken_links,
            last_seq: row.last_seq,
            last_synced_at: row.last_synced_at,
            acked_through: row.acked_through,
            gaps: row.gaps,
            missing: row.missing,
            position: row.position,
            report: row.report.map(LastReport::from),
        }
    }
}

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeviceQuery {
    /// That ever served this site.
    pub site: Option<SiteId>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// Devices in the order of their ids.
#[utoipa::path(
    get, path = "/v1/devices", tag = "devices", params(DeviceQuery),
    responses((status = 200, body = Page<DeviceView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    _operator: Operator,
    after: After,
    Params(query): Params<DeviceQuery>,
) -> Result<Answer<Page<DeviceView>>, Refusal> {
    after.reached(&app, &[devices::NAME]).await?;
    let page = PageQuery { cursor: query.cursor, limit: query.limit };
    let place = page.place(&app, LIST)?.map(|id| DeviceId(uuid::Uuid::from_bytes(id)));
    let found = devices::list(&app.pools.reader, query.site, place, page.limit()?).await?;
    let page = Page::of(&app, LIST, found.rows, found.more, |row| *row.device.0.as_bytes());
    Ok(Answer(page.map(DeviceView::from)))
}

/// One device.
#[utoipa::path(
    get, path = "/v1/devices/{device}", tag = "devices",
    params(("device" = DeviceId, Path, description = "The device")),
    responses((status = 200, body = DeviceView)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    _operator: Operator,
    InPath(device): InPath<DeviceId>,
    after: After,
) -> Result<Answer<DeviceView>, Refusal> {
    after.reached(&app, &[devices::NAME]).await?;
    let row = devices::one(&app.pools.reader, device).await?;
    row.map(|row| Answer(row.into())).ok_or_else(Refusal::not_found)
}

/// Ends a device's access. What it holds it may still deliver; those punches are referred.
#[utoipa::path(
    post, path = "/v1/devices/{device}/revoke", tag = "devices",
    params(("device" = DeviceId, Path, description = "The device")),
    responses((status = 200, body = Written)), security(("operator_key" = [])),
)]
pub async fn revoke(
    State(app): State<App>,
    operator: Operator,
    InPath(device): InPath<DeviceId>,
) -> Result<Answer<Written>, Refusal> {
    let now = jiff::Timestamp::now().into();
    let position =
        punchtrail_infra::devices::revoke(&app.ledger, device, now, &operator.metadata()).await?;
    Ok(Answer(Written { position }))
}

/// Where a device shall serve.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignBody {
    /// The site.
    pub site: SiteId,
}

/// Lets a device serve another site. It still delivers for its earlier ones.
#[utoipa::path(
    post, path = "/v1/devices/{device}/site", tag = "devices",
    params(("device" = DeviceId, Path, description = "The device")),
    request_body = AssignBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn assign(
    State(app): State<App>,
    operator: Operator,
    InPath(device): InPath<DeviceId>,
    Json(AssignBody { site }): Json<AssignBody>,
) -> Result<Answer<Written>, Refusal> {
    if !directory::site_exists(&app.pools.reader, site).await? {
        return Err(Refusal::field("/site", "unknown", "There is no such site."));
    }
    let position =
        punchtrail_infra::devices::assign(&app.ledger, device, site, &operator.metadata()).await?;
    Ok(Answer(Written { position }))
}
