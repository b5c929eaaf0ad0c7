//! Commands to devices, for operators: issue one, see what became of it, take it back.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_infra::devices;
use punchtrail_projections::devices::{
    commands::{self, CommandView},
    one as device_of,
};
use punchtrail_protocol::{
    CommandId, DeviceId, Position, Time,
    command::{BadArgs, CommandArgs, CommandType},
};
use serde::{Deserialize, Serialize};
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

/// What a device shall do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueBody {
    #[serde(rename = "type")]
    pub kind: CommandType,
    /// Those of its type: `text` of `show_message`; `employee` of `forget_photos`, and
    /// `taken_until`, which is now unless given. Others have none.
    #[serde(default)]
    pub args: CommandArgs,
}

/// A command that was issued.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedCommand {
    pub command: CommandId,
    #[serde(rename = "type")]
    pub kind: CommandType,
    pub issued_at: Time,
    /// Not to be acted on any more from then.
    pub expires_at: Time,
    pub position: Position,
}

/// Tells a device to do something. It hears of it with its next heartbeat.
#[utoipa::path(
    post, path = "/v1/devices/{device}/commands", tag = "devices",
    operation_id = "issueDeviceCommand",
    params(("device" = DeviceId, Path, description = "The device")),
    request_body = IssueBody, responses((status = 201, body = IssuedCommand)),
    security(("operator_key" = [])),
)]
pub async fn issue(
    State(app): State<App>,
    operator: Operator,
    InPath(device): InPath<DeviceId>,
    Json(IssueBody { kind, args }): Json<IssueBody>,
) -> Result<(StatusCode, Answer<IssuedCommand>), Refusal> {
    operator.commands_device(&app, device).await?;
    args.check(kind).map_err(unfit)?;
    let author = operator.author(args.text.clone());
    let issued = devices::commands::issue(&app.ledger, device, (kind, &args), &author).await?;
    let devices::commands::Issued { command, issued_at, expires_at, position } = issued;
    let answer = IssuedCommand { command, kind, issued_at, expires_at, position };
    Ok((StatusCode::CREATED, Answer(answer)))
}

fn unfit(wrong: BadArgs) -> Refusal {
    let code = match wrong {
        BadArgs::Missing(_) => "missing_field",
        BadArgs::Unknown(_) => "unknown_field",
        BadArgs::Text => "invalid_value",
    };
    let what = format!("The arguments can't be taken: {wrong}. Nothing was issued.");
    Refusal::field(format!("/args/{}", wrong.argument()), code, what)
}

/// A device's commands, newest first.
#[utoipa::path(
    get, path = "/v1/devices/{device}/commands", tag = "devices",
    operation_id = "listDeviceCommands",
    params(After, ("device" = DeviceId, Path, description = "The device"), PageQuery),
    responses((status = 200, body = Page<CommandView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    InPath(device): InPath<DeviceId>,
    after: After,
    walk: Walk,
    Params(page): Params<PageQuery>,
) -> Result<Answer<Page<CommandView>>, Refusal> {
    after.reached(&app, &[commands::NAME, punchtrail_projections::devices::NAME]).await?;
    operator.reaches_device(&app, device).await?;
    let (pool, limit) = (&app.pools.reader, page.limit()?);
    let place = page.place(&app, &walk)?.map(|place| Position(u64::from_be_bytes(place)));
    device_of(pool, device).await?.ok_or_else(Refusal::not_found)?;
    let found = commands::list(pool, device, place, limit).await?;
    let key = |row: &CommandView| row.position.0.to_be_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

/// Takes a command back that isn't finished. A device that heard of it may act on it all the same.
#[utoipa::path(
    delete, path = "/v1/devices/{device}/commands/{command}", tag = "devices",
    operation_id = "cancelDeviceCommand",
    params(
        ("device" = DeviceId, Path, description = "The device"),
        ("command" = CommandId, Path, description = "A command to it"),
    ),
    responses((status = 200, body = Written)), security(("operator_key" = [])),
)]
pub async fn cancel(
    State(app): State<App>,
    operator: Operator,
    InPath((device, command)): InPath<(DeviceId, CommandId)>,
    _: Permitted,
) -> Result<Answer<Written>, Refusal> {
    operator.commands_device(&app, device).await?;
    let author = operator.author(None);
    let position = devices::commands::cancel(&app.ledger, device, command, &author).await?;
    Ok(Answer(Written { position }))
}
