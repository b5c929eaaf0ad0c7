//! What a device is told to do, and what it says became of it.

use axum::{Json as Answer, extract::State};
use punchtrail_infra::devices::commands::{self, Finish};
use punchtrail_projections::devices::commands::waiting as waiting_for;
use punchtrail_protocol::{
    CommandId,
    command::RESULT_DETAIL_CHARS_MAX,
    wire::{CommandResult, CommandResultAnswer, ItemStatus, WaitingCommands},
};

use crate::{
    ask::extract::{InPath, Json},
    auth::{DeliveringDevice, ReadingDevice},
    door::envelope::RequestId,
    problem::Refusal,
    state::App,
};

/// The commands that wait for a device.
#[utoipa::path(
    get, path = "/v1/devices/self/commands", tag = "sync",
    operation_id = "listOwnCommands",
    responses((status = 200, body = WaitingCommands)), security(("device_token" = [])),
)]
pub async fn waiting(
    State(app): State<App>,
    device: ReadingDevice,
) -> Result<Answer<WaitingCommands>, Refusal> {
    let data = waiting_for(&app.pools.reader, device.id(), app.ledger.now()).await?;
    Ok(Answer(WaitingCommands { data }))
}

/// Takes what a device says became of a command.
#[utoipa::path(
    put, path = "/v1/devices/self/commands/{command}/result", tag = "sync",
    operation_id = "putCommandResult",
    params(("command" = CommandId, Path, description = "A command that was for this device")),
    request_body = CommandResult, responses((status = 200, body = CommandResultAnswer)),
    security(("device_token" = [])),
)]
pub async fn finish(
    State(app): State<App>,
    device: DeliveringDevice,
    InPath(command): InPath<CommandId>,
    request: axum::Extension<RequestId>,
    Json(CommandResult { status, detail }): Json<CommandResult>,
) -> Result<Answer<CommandResultAnswer>, Refusal> {
    if detail.as_ref().is_some_and(|text| text.chars().count() > RESULT_DETAIL_CHARS_MAX) {
        let what = format!("`detail` has at most {RESULT_DETAIL_CHARS_MAX} characters.");
        return Err(Refusal::field("/detail", "invalid_value", what));
    }
    let finish = Finish { command, status, detail };
    let (is_new, position) =
        commands::finish(&app.ledger, device.id(), finish, request.as_str()).await?;
    let status = if is_new { ItemStatus::Applied } else { ItemStatus::Duplicate };
    Ok(Answer(CommandResultAnswer { status, position }))
}
