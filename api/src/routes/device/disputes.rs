//! What a worker disputes at a device, kept there like a punch until it is here.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::log::recorded::Actor;
use punchtrail_infra::rulings::{Author, disputes::worked_at};
use punchtrail_projections::rulings::disputes as model;
use punchtrail_protocol::{
    DeviceId, EmployeeId, SiteId,
    wire::{DisputeAnswer, DisputeRequest, ItemStatus},
};

use crate::{
    ask::{
        extract::{InPath, Json},
        limits::{DISPUTES_OF_DEVICE_MAX, DISPUTES_OF_WORKER_MAX},
    },
    auth::DeliveringDevice,
    disputes::{self, Asked},
    problem::{Code, Refusal},
    state::App,
};

/// Takes a dispute. The punch that it is about may come later.
#[utoipa::path(
    post, path = "/v1/sites/{site}/disputes", tag = "sync",
    operation_id = "deliverDispute",
    params(("site" = SiteId, Path, description = "A site that the device serves or served")),
    request_body = DisputeRequest, responses((status = 200, body = DisputeAnswer)),
    security(("device_token" = [])),
)]
pub async fn open(
    State(app): State<App>,
    device: DeliveringDevice,
    InPath(site): InPath<SiteId>,
    Json(body): Json<DisputeRequest>,
) -> Result<Answer<DisputeAnswer>, Refusal> {
    device.delivers_for(site)?;
    let asked = asked(site, body);
    let subject = asked.subject()?;
    if let Some(stands) = disputes::standing(&app, &asked, subject).await? {
        let (status, position) = (ItemStatus::Duplicate, stands.position);
        return Ok(Answer(DisputeAnswer { status, position }));
    }
    if !worked_at(&app.ledger, asked.employee, site).await? {
        return Err(Refusal::not_found());
    }
    has_room(&app, asked.employee, device.id()).await?;
    let actor = Actor::Device(device.id());
    let author = Author { actor, employee: None, request: None, note: asked.note() };
    let opened = disputes::open(&app, &asked, subject, &author).await?;
    let status = if opened.is_new { ItemStatus::Applied } else { ItemStatus::Duplicate };
    Ok(Answer(DisputeAnswer { status, position: opened.position }))
}

fn asked(site: SiteId, body: DisputeRequest) -> Asked {
    let DisputeRequest { dispute, employee, punch, day, cause, text } = body;
    Asked { dispute, site, employee, punch, day, cause, text }
}

/// That not too many wait for a person already, as far as the read side has come.
async fn has_room(app: &App, employee: EmployeeId, device: DeviceId) -> Result<(), Refusal> {
    let (of_person, of_device) = model::waiting(&app.pools.reader, employee, device).await?;
    if of_person < DISPUTES_OF_WORKER_MAX && of_device < DISPUTES_OF_DEVICE_MAX {
        return Ok(());
    }
    Err(Refusal::new(
        Code::DisputesFull,
        "Too many disputes of this person, or from this device, wait for a manager. This one was \
         not taken; keep it, and send it again after some were settled.",
    ))
}
