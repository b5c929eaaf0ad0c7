//! What devices add to a punch: another picture, and what they ask about it.

use std::time::Duration;

use axum::{Json as Answer, extract::State};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_domain::{
    log::recorded::Actor,
    punch::{Punch, PunchCommand},
};
use punchtrail_infra::{
    access::credentials::DeviceAccess,
    ledger::{Loaded, Metadata},
};
use punchtrail_protocol::{
    DeviceId, PunchId,
    attachment::{ATTACHMENT_BYTES_MAX, Attachment},
    signing::{ATTACHMENT_TYPE, Signature},
    vocabulary::Standing,
    wire::{AttachmentAnswer, AttachmentRequest, ItemStatus, VERDICT_WAIT_S_MAX, Verdict},
};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use crate::{
    ask::extract::{InPath, Json, Line, Params},
    auth::{DeliveringDevice, ReadingDevice},
    problem::{Code, Refusal},
    state::App,
};

/// Takes another picture's record. The picture itself comes by `PUT /v1/photos/{sha256}`.
#[utoipa::path(
    post, path = "/v1/punches/{punch}/attachments", tag = "sync",
    operation_id = "attachPicture",
    params(("punch" = PunchId, Path, description = "A punch that this device captured")),
    request_body = AttachmentRequest, responses((status = 200, body = AttachmentAnswer)),
    security(("device_token" = [])),
)]
pub async fn attach(
    State(app): State<App>,
    device: DeliveringDevice,
    InPath(punch): InPath<PunchId>,
    Json(body): Json<AttachmentRequest>,
) -> Result<Answer<AttachmentAnswer>, Refusal> {
    let (record, signature) = read(device.access(), punch, &body)?;
    captured_by(&app, device.id(), punch).await?;
    let received_at = app.ledger.now();
    let command = PunchCommand::Retake { record, signature, received_at };
    let metadata = Metadata::new(Actor::Device(device.id()));
    let done = app.ledger.execute::<Punch>(&punch.to_string(), command, &metadata).await?;
    let is_new = !done.events.is_empty();
    let status = if is_new { ItemStatus::Applied } else { ItemStatus::Duplicate };
    Ok(Answer(AttachmentAnswer { status, position: done.position }))
}

/// What the device signed, by every rule of the record.
fn read(
    access: &DeviceAccess,
    punch: PunchId,
    body: &AttachmentRequest,
) -> Result<(String, Signature), Refusal> {
    let invalid = |pointer, what: String| Refusal::field(pointer, "invalid_value", what);
    let too_long = body.record.len() > ATTACHMENT_BYTES_MAX.div_ceil(3) * 4;
    let bytes = URL_SAFE_NO_PAD.decode(&body.record).ok().filter(|_| !too_long);
    let bytes = bytes.ok_or_else(|| {
        let what = "`record` is base64url without padding, of at most 1,024 bytes.";
        invalid("/record", what.to_owned())
    })?;
    let signature = punchtrail_protocol::signing::from_base64url(&body.signature)
        .map(Signature)
        .ok_or_else(bad_signature)?;
    access.key.verify(ATTACHMENT_TYPE, &bytes, &signature).map_err(|_| bad_signature())?;
    let read = Attachment::parse(&bytes)
        .map_err(|error| invalid("/record", format!("The record can't be taken: {error}.")))?;
    if read.device != access.device {
        return Err(foreign());
    }
    if read.punch != punch {
        let what = "The record is of another punch than the path names.";
        return Err(invalid("/record", what.to_owned()));
    }
    String::from_utf8(bytes)
        .map(|text| (text, signature))
        .map_err(|_| invalid("/record", "The record is no UTF-8.".to_owned()))
}

fn bad_signature() -> Refusal {
    Refusal::new(
        Code::BadSignature,
        "The record isn't signed by the key that this device enrolled with. Nothing was kept.",
    )
}

fn foreign() -> Refusal {
    Refusal::new(
        Code::Forbidden,
        "Another device captured this punch; only that one can add to it. Nothing \
         was kept.",
    )
}

/// The punch, if this device captured it.
async fn captured_by(
    app: &App,
    device: DeviceId,
    punch: PunchId,
) -> Result<Loaded<Punch>, Refusal> {
    let loaded = app.ledger.load::<Punch>(&punch.to_string()).await?;
    match loaded.aggregate.captured_by() {
        Some(by) if by == device => Ok(loaded),
        Some(_) => Err(foreign()),
        None => Err(Refusal::not_found()),
    }
}

/// The same for whoever only asks: what another device captured isn't there.
async fn known_to(app: &App, device: DeviceId, punch: PunchId) -> Result<Loaded<Punch>, Refusal> {
    captured_by(app, device, punch).await.map_err(|refusal| match refusal.code() {
        Code::Forbidden => Refusal::not_found(),
        _ => refusal,
    })
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VerdictQuery {
    /// How long to wait for a verdict on the newest picture, 0 to 20 seconds; 0 unless given.
    pub wait_s: Option<u32>,
}

/// Where a punch stands, and what the worker can do about a picture that can't be used.
#[utoipa::path(
    get, path = "/v1/punches/{punch}/verdict", tag = "sync",
    operation_id = "getPunchVerdict",
    params(("punch" = PunchId, Path, description = "A punch that this device captured"),
        VerdictQuery),
    responses((status = 200, body = Verdict)), security(("device_token" = [])),
)]
pub async fn verdict(
    State(app): State<App>,
    device: ReadingDevice,
    InPath(punch): InPath<PunchId>,
    Params(query): Params<VerdictQuery>,
    line: Line,
) -> Result<Answer<Verdict>, Refusal> {
    let wait_s = query.wait_s.unwrap_or_default();
    if wait_s > VERDICT_WAIT_S_MAX {
        return Err(Refusal::field("wait_s", "invalid_value", "`wait_s` is from 0 to 20."));
    }
    let until = Instant::now() + Duration::from_secs(u64::from(wait_s));
    // Before it is looked at, so that nothing between is missed.
    let waiter = app.verdicts.wait(device.id(), punch)?;
    loop {
        let loaded = known_to(&app, device.id(), punch).await?;
        let waits = waiter.as_ref().filter(|_| !is_settled(&loaded.aggregate));
        let Some(waiter) = waits.filter(|_| Instant::now() < until) else {
            return Ok(Answer(told(&loaded)));
        };
        line.put_down().await;
        waiter.news(until).await;
        line.wait_for_permit().await?;
    }
}

fn told(loaded: &Loaded<Punch>) -> Verdict {
    let punch = &loaded.aggregate;
    let (attempt, guidance, may_help) = punch.pictures().advice();
    let retake = may_help && punch.standing().counts() && !punch.is_ruled();
    let position = loaded.position.unwrap_or_default();
    Verdict { standing: punch.standing(), attempt, guidance, retake, position }
}

/// Whether there is nothing to wait for: a verdict on the newest picture, or none to come.
fn is_settled(punch: &Punch) -> bool {
    let pictures = punch.pictures();
    if pictures.verify_by().is_none() {
        return punch.standing() != Standing::Recorded;
    }
    let newest = pictures.attempts().values().next_back();
    punch.is_ruled()
        || pictures.unavailable().is_some()
        || newest.is_some_and(|picture| picture.verdict.is_some())
}
