//! What devices say of themselves.

use std::time::Duration;

use axum::{Json as Answer, extract::State};
use punchtrail_infra::devices::reports::{self, Reported};
use punchtrail_projections::people::roster;
use punchtrail_protocol::{
    Position,
    capture::{APP_CHARS_MAX, INTEGER_LIMIT},
    spread::reconnect_ms,
    wire::{Heartbeat, HeartbeatAnswer},
};

use super::history;
use crate::{
    ask::extract::Json, auth::DeliveringDevice, door::admission::Caller, problem::Refusal,
    state::App,
};

/// Takes a device's report of itself.
#[utoipa::path(
    post, path = "/v1/devices/self/heartbeat", tag = "sync",
    operation_id = "sendHeartbeat",
    request_body = Heartbeat, responses((status = 200, body = HeartbeatAnswer)),
    security(("device_token" = [])),
)]
pub async fn take(
    State(app): State<App>,
    device: DeliveringDevice,
    caller: Option<Caller>,
    Json(heartbeat): Json<Heartbeat>,
) -> Result<Answer<HeartbeatAnswer>, Refusal> {
    checked(&heartbeat)?;
    let told = history::remembered(&app, heartbeat.anchor.as_deref())?;
    let site = device.present_site()?;
    let server_time = app.ledger.now();
    let at = told.map_or(Position::START, |told| told.anchor.position);
    let recorded = reports::record(app.ledger.pool(), device.id(), server_time, &heartbeat, at);
    let Reported { acked_through, stored } = recorded.await?;
    if let Some(told) = told {
        app.ledger.compare(told, stored).await?;
    }
    let roster::InForce { version: roster, policy, commands } =
        roster::in_force(&app.pools.reader, site, device.id(), server_time).await?;
    let start = reconnect_ms(device.id(), policy.reconnect_spread_s);
    let next_batch_after_ms =
        app.door.admission.announce(caller, heartbeat.outbox, Duration::from_millis(start));
    Ok(Answer(HeartbeatAnswer {
        server_time,
        acked_through,
        roster,
        // A revoked device reads nothing more.
        commands: commands && !device.access().revoked,
        next_batch_after_ms,
        site: (!device.access().revoked).then_some(site),
        history: Some(history::told(&app)),
    }))
}

fn checked(heartbeat: &Heartbeat) -> Result<(), Refusal> {
    let numbers = [
        ("/outbox", heartbeat.outbox),
        ("/photos", heartbeat.photos),
        ("/seq", heartbeat.seq),
        ("/uptime_ms", heartbeat.uptime_ms),
    ];
    if let Some((pointer, _)) = numbers.into_iter().find(|(_, number)| *number >= INTEGER_LIMIT) {
        return Err(Refusal::field(pointer, "invalid_value", "Numbers are below 2^53."));
    }
    if heartbeat.app.chars().count() > APP_CHARS_MAX {
        return Err(Refusal::field("/app", "invalid_value", "`app` has at most 64 characters."));
    }
    Ok(())
}
