//! Devices, for operators.

use axum::{Json as Answer, extract::State};
use punchtrail_infra::people::{directory, pins::ask_for_others};
use punchtrail_projections::{
    devices::{self, DeviceView},
    people::{
        pins::{self, KnownPin},
        roster,
    },
};
use punchtrail_protocol::{DeviceId, EmployeeId, Position, SiteId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::routes::Written;
use crate::{
    ask::{
        after::{After, after as wait_for},
        extract::{InPath, Json, Params, Permitted},
        page::{Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

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
    get, path = "/v1/devices", tag = "devices", params(After, DeviceQuery),
    operation_id = "listDevices",
    responses((status = 200, body = Page<DeviceView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<DeviceQuery>,
) -> Result<Answer<Page<DeviceView>>, Refusal> {
    after.reached(&app, &[devices::NAME]).await?;
    let page = PageQuery { cursor: query.cursor, limit: query.limit };
    let place = page.place(&app, &walk)?.map(|id| DeviceId(uuid::Uuid::from_bytes(id)));
    let sites = operator.lists(query.site)?;
    let mut found = devices::list(&app.pools.reader, sites, place, page.limit()?).await?;
    found.rows.iter_mut().for_each(|row| veil(&operator, row));
    let key = |row: &DeviceView| *row.device.0.as_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

/// Takes off a row the sites that its caller doesn't see.
fn veil(operator: &Operator, row: &mut DeviceView) {
    if let Some(own) = operator.sites() {
        row.sites.retain(|site| own.contains(site));
        row.site = row.site.filter(|site| own.contains(site));
    }
}

/// One device.
#[utoipa::path(
    get, path = "/v1/devices/{device}", tag = "devices",
    operation_id = "getDevice",
    params(After, ("device" = DeviceId, Path, description = "The device")),
    responses((status = 200, body = DeviceView)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(device): InPath<DeviceId>,
    after: After,
) -> Result<Answer<DeviceView>, Refusal> {
    after.reached(&app, &[devices::NAME]).await?;
    operator.reaches_device(&app, device).await?;
    let found = devices::one(&app.pools.reader, device).await?;
    let mut row = found.ok_or_else(Refusal::not_found)?;
    veil(&operator, &mut row);
    Ok(Answer(row))
}

/// Ends a device's access. What it holds it may still deliver; those punches are referred. Says
/// whose PINs it knows.
#[utoipa::path(
    post, path = "/v1/devices/{device}/revoke", tag = "devices",
    operation_id = "revokeDevice",
    params(("device" = DeviceId, Path, description = "The device")),
    responses((status = 200, body = Revoked)), security(("operator_key" = [])),
)]
pub async fn revoke(
    State(app): State<App>,
    operator: Operator,
    InPath(device): InPath<DeviceId>,
    _: Permitted,
) -> Result<Answer<Revoked>, Refusal> {
    operator.commands_device(&app, device).await?;
    let now = app.ledger.now();
    let position =
        punchtrail_infra::devices::revoke(&app.ledger, device, now, &operator.metadata()).await?;
    // As far as the read side is: a lost device isn't to wait for it.
    let (pool, sites) = (&app.pools.reader, operator.sites());
    let known = pins::known_to(pool, device, sites, None, PINS_SHOWN_MAX).await?;
    let mut pins = known.rows;
    pins.iter_mut().for_each(|pin| veil_pin(&operator, pin));
    Ok(Answer(Revoked { position, pins, more_pins: known.more }))
}

/// How many people are named whose PINs a revoked device knows.
const PINS_SHOWN_MAX: u32 = 100;

/// Answer to the revocation of a device.
#[derive(Debug, Serialize, ToSchema)]
pub struct Revoked {
    /// Where it stands in the ledger: give it to a read as `Punchtrail-After`.
    pub position: Position,
    /// The people whose PINs the device knows, so that whoever has it can guess them: the first
    /// 100.
    pub pins: Vec<KnownPin>,
    /// Whether there are more: `GET /v1/devices/{device}/pins`.
    pub more_pins: bool,
}

fn veil_pin(operator: &Operator, pin: &mut KnownPin) {
    if !operator.sees_names() {
        pin.employee_name = None;
    }
}

/// The people whose PINs a device knows, revoked or not: everybody who worked where it served, and
/// has that PIN still.
#[utoipa::path(
    get, path = "/v1/devices/{device}/pins", tag = "devices",
    operation_id = "listDevicePins",
    params(After, ("device" = DeviceId, Path, description = "The device"), PageQuery),
    responses((status = 200, body = Page<KnownPin>)), security(("operator_key" = [])),
)]
pub async fn pins(
    State(app): State<App>,
    operator: Operator,
    InPath(device): InPath<DeviceId>,
    after: After,
    walk: Walk,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<KnownPin>>, Refusal> {
    after.reached(&app, &[roster::NAME, devices::NAME]).await?;
    operator.commands_device(&app, device).await?;
    let place = query.place(&app, &walk)?.map(|id| EmployeeId(uuid::Uuid::from_bytes(id)));
    let (pool, limit) = (&app.pools.reader, query.limit()?);
    devices::one(pool, device).await?.ok_or_else(Refusal::not_found)?;
    let mut found = pins::known_to(pool, device, operator.sites(), place, limit).await?;
    found.rows.iter_mut().for_each(|pin| veil_pin(&operator, pin));
    let key = |row: &KnownPin| *row.employee.0.as_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

/// How many were asked for another PIN.
#[derive(Debug, Serialize, ToSchema)]
pub struct RenewalAsked {
    pub asked: usize,
}

/// Asks everybody for another PIN whose PIN a device knows: they are shown so in the list of people
/// until a new one is set.
#[utoipa::path(
    post, path = "/v1/devices/{device}/pins/renewal", tag = "devices",
    operation_id = "renewDevicePins",
    params(("device" = DeviceId, Path, description = "The device")),
    responses((status = 200, body = RenewalAsked)), security(("operator_key" = [])),
)]
pub async fn renew_pins(
    State(app): State<App>,
    operator: Operator,
    InPath(device): InPath<DeviceId>,
    _: Permitted,
) -> Result<Answer<RenewalAsked>, Refusal> {
    operator.commands_device(&app, device).await?;
    let pool = &app.pools.reader;
    wait_for(&app, &[roster::NAME, devices::NAME], app.ledger.seen()).await?;
    devices::one(pool, device).await?.ok_or_else(Refusal::not_found)?;
    let known = pins::everybody(pool, device, operator.sites()).await?;
    let asked: Vec<EmployeeId> = known.iter().map(|pin| pin.employee).collect();
    ask_for_others(app.ledger.pool(), &asked).await?;
    Ok(Answer(RenewalAsked { asked: asked.len() }))
}

/// Where a device shall serve.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignBody {
    pub site: SiteId,
}

/// Lets a device serve another site. It still delivers for its earlier ones.
#[utoipa::path(
    post, path = "/v1/devices/{device}/site", tag = "devices",
    operation_id = "assignDeviceToSite",
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
    operator.commands_device(&app, device).await?;
    operator.reaches_site(site)?;
    if !directory::site_exists(&app.pools.reader, site).await? {
        return Err(Refusal::field("/site", "unknown", "There is no such site."));
    }
    let position =
        punchtrail_infra::devices::assign(&app.ledger, device, site, &operator.metadata()).await?;
    Ok(Answer(Written { position }))
}
