//! What devices deliver: batches of captures.

use axum::{
    Extension, Json as Answer,
    extract::{Request, State},
};
use punchtrail_domain::{
    delivery::{ReadItem, Rules},
    log::recorded::Actor,
};
use punchtrail_infra::{
    access::credentials::DeviceAccess,
    devices::delivery,
    ledger::{Delivery, DeliveryOutcome, Metadata, QuarantineRoom},
};
use punchtrail_projections::rulings::quarantine;
use punchtrail_protocol::{
    PunchId, SiteId, Time,
    wire::{
        BATCH_BYTES_MAX, BATCH_ITEMS_MAX, BatchAnswer, BatchItem, BatchRequest, ItemResult,
        ItemStatus,
    },
};
use strum::VariantArray as _;

use super::history;
use crate::{
    ask::extract::{Coming, InPath, read_json, read_json_body},
    auth::DeliveringDevice,
    door::{admission::Caller, envelope::RequestId},
    metrics,
    problem::{Code, Refusal},
    state::App,
};

/// Takes a batch of captures. Every item is answered; each answer is an acknowledgement.
#[utoipa::path(
    post, path = "/v1/sites/{site}/punches/batch", tag = "sync",
    operation_id = "deliverPunches",
    params(("site" = SiteId, Path, description = "A site the device was ever assigned to")),
    request_body = BatchRequest, responses((status = 200, body = BatchAnswer)),
    security(("device_token" = [])),
)]
pub async fn deliver(
    State(app): State<App>,
    device: DeliveringDevice,
    InPath(site): InPath<SiteId>,
    Extension(request_id): Extension<RequestId>,
    caller: Option<Caller>,
    request: Request,
) -> Result<Answer<BatchAnswer>, Refusal> {
    device.delivers_for(site)?;
    app.delivers_nothing(device.id())?;
    let Coming { mut body, admitted } = read_json_body(&app, request, BATCH_BYTES_MAX).await?;
    let _alone = app.begin_delivery(device.id())?;
    admitted.wait_for_permit().await?;
    let batch: BatchRequest = read_json(body.bytes())?;
    body.read();
    within_limits(&batch)?;
    let items = batch.punches.len();
    let answer = take(&app, device.access(), &request_id, batch.punches).await?;
    let next_batch_after_ms = app.door.admission.pace(caller, items);
    let history = Some(history::told(&app));
    Ok(Answer(BatchAnswer { next_batch_after_ms, history, ..answer }))
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

/// Takes a batch.
///
/// # Errors
/// Busy when the ledger can't take it now.
async fn take(
    app: &App,
    access: &DeviceAccess,
    request: &RequestId,
    items: Vec<BatchItem>,
) -> Result<BatchAnswer, Refusal> {
    let received_at = app.ledger.now();
    let read = read_apart(app, access, items).await?;
    let named: Vec<_> = read.iter().map(ReadItem::named).collect();
    let faults: Vec<_> = read.iter().map(|item| item.fault().map(str::to_owned)).collect();
    let device = access.device;
    let items = delivery::prepare(app.ledger.pool(), device, received_at, read).await?;
    let metadata = Metadata::new(Actor::Device(device)).with_request(request.as_str());
    let room = room(app, access).await?;
    let outcome =
        app.ledger.deliver(Delivery { device, received_at, metadata, items, room }).await?;
    if outcome.left > 0 {
        return Err(full(outcome.left));
    }
    Ok(answer(outcome, named, faults, app.ledger.now()))
}

/// How much more of a device may go into quarantine, by what waits there for a person.
async fn room(app: &App, access: &DeviceAccess) -> Result<QuarantineRoom, Refusal> {
    let most = match access.revoked {
        true => QuarantineRoom::OF_REVOKED,
        false => QuarantineRoom::OF_DEVICE,
    };
    if access.quarantined == 0 {
        return Ok(most);
    }
    let (items, bytes) = quarantine::waiting_of(&app.pools.reader, access.device).await?;
    Ok(most.beside(items, bytes))
}

fn full(left: usize) -> Refusal {
    Refusal::new(
        Code::QuarantineFull,
        format!(
            "{left} of the items can't be taken as punches, and too much of this device waits in \
             quarantine already. They were not taken, whatever else is a punch was. Send the \
             others without them, and keep them until people have ruled on what waits."
        ),
    )
}

/// Signatures are checked together, away from the threads that serve requests, and no more batches
/// at once than there are cores.
async fn read_apart(
    app: &App,
    access: &DeviceAccess,
    items: Vec<BatchItem>,
) -> Result<Vec<ReadItem>, Refusal> {
    let DeviceAccess { device, key, ref sites, .. } = *access;
    let rules = Rules { device, key, org: app.deployment.org, sites: sites.clone() };
    app.on_a_core(move || rules.read_all(items)).await
}

const KEPT: &str = "It is kept where a manager sees it and can admit it.";
const IN_CONFLICT: &str = "Other bytes came under this punch's id before, and stand.";

fn answer(
    outcome: DeliveryOutcome,
    named: Vec<(Option<PunchId>, Option<u64>)>,
    faults: Vec<Option<String>>,
    server_time: Time,
) -> BatchAnswer {
    let results: Vec<ItemResult> = outcome
        .items
        .iter()
        .zip(named.into_iter().zip(faults))
        .map(|(item, ((punch, seq), fault))| {
            let detail = match item.status {
                ItemStatus::Applied | ItemStatus::Duplicate => None,
                ItemStatus::Conflict => Some(format!("{IN_CONFLICT} {KEPT}")),
                ItemStatus::Quarantined => Some(match fault {
                    Some(fault) => format!("{fault} {KEPT}"),
                    None => KEPT.to_owned(),
                }),
            };
            let (status, position, code) = (item.status, item.position, item.code);
            ItemResult { punch, seq, status, position, code, detail }
        })
        .collect();
    count(&results);
    BatchAnswer {
        results,
        acked_through: outcome.acked_through,
        ledger: outcome.head,
        server_time,
        next_batch_after_ms: 0,
        history: None,
    }
}

fn count(results: &[ItemResult]) {
    for status in ItemStatus::VARIANTS {
        let count = results.iter().filter(|result| result.status == *status).count();
        if count > 0 {
            metrics::items(status.into(), count as u64);
        }
    }
}
