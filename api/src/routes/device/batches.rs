//! What devices deliver: batches of captures.

use axum::{
    Extension, Json as Answer,
    extract::{Request, State},
};
use punchtrail_protocol::{
    SiteId,
    wire::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, BatchAnswer, BatchRequest},
};

use crate::{
    ask::extract::{InPath, read_json, read_json_body},
    auth::DeliveringDevice,
    delivery,
    door::{admission::Calling, envelope::RequestId},
    problem::{Code, Refusal},
    state::App,
};

/// Takes a batch of captures. Every item is answered; each answer is an acknowledgement.
#[utoipa::path(
    post, path = "/v1/sites/{site}/punches/batch", tag = "sync",
    params(("site" = SiteId, Path, description = "A site the device was ever assigned to")),
    request_body = BatchRequest, responses((status = 200, body = BatchAnswer)),
    security(("device_token" = [])),
)]
pub async fn deliver(
    State(app): State<App>,
    device: DeliveringDevice,
    InPath(site): InPath<SiteId>,
    Extension(request_id): Extension<RequestId>,
    Calling(caller): Calling,
    request: Request,
) -> Result<Answer<BatchAnswer>, Refusal> {
    device.delivers_for(site)?;
    let (bytes, _held) = read_json_body(&app, request, BATCH_BYTES_MAX).await?;
    let _alone = app.begin_delivery(device.id())?;
    let batch: BatchRequest = read_json(&bytes)?;
    drop(bytes);
    within_limits(&batch)?;
    let items = batch.punches.len();
    let answer = delivery::take(&app, device.access(), &request_id, batch.punches).await?;
    let next_batch_after_ms = app.admission.pace(caller, items);
    Ok(Answer(BatchAnswer { next_batch_after_ms, ..answer }))
}

fn within_limits(batch: &BatchRequest) -> Result<(), Refusal> {
    match batch.punches.len() {
        0 => Err(Refusal::field("/punches", "invalid_value", "A batch has at least one item.")),
        1..=BATCH_ITEMS_MAX => Ok(()),
        _ => Err(Refusal::new(
            Code::PayloadTooLarge,
            "A batch has at most 500 items. Nothing was taken; send less at once.",
        )),
    }
}
