//! Punches whose verdict is overdue: a person looks, and the ledger says why.

use std::time::Duration;

use punchtrail_domain::{
    log::recorded::Actor,
    punch::{Missing, Punch, PunchCommand},
};
use punchtrail_infra::ledger::{ExecuteError, Metadata};
use punchtrail_projections::punches::photos;
use punchtrail_protocol::PunchId;
use tokio_util::sync::CancellationToken;

use super::broke::Broke;
use crate::{rounds, state::App};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// How much later than due a punch is given up here whose picture waits to be checked, in
/// milliseconds.
const GRACE_MS: i64 = 120_000;
/// Punches that are looked at together.
const PAGE: u32 = 200;

/// Gives up what is overdue, until it is stopped. Of several nodes each may do it: a punch takes it
/// once.
pub async fn run(app: App, stop: CancellationToken) {
    let failing = "overdue verdicts can't be given up now; they are looked at again";
    rounds::go(EVERY, stop, failing, || look(&app)).await;
}

/// Gives up what is overdue now, a page of it.
///
/// # Errors
/// When the database is out of reach.
pub async fn look(app: &App) -> Result<(), Broke> {
    for punch in photos::overdue(&app.pools.reader, PAGE).await? {
        overdue(app, punch).await?;
    }
    Ok(())
}

/// Of a punch whose picture came, whoever checks gives up first, and knows better why.
async fn overdue(app: &App, punch: PunchId) -> Result<(), Broke> {
    let loaded = app.ledger.load::<Punch>(&punch.to_string()).await?;
    let pictures = loaded.aggregate.pictures();
    let late_ms = pictures.verify_by().map_or(0, |due_at| app.ledger.now().millis_since(due_at));
    let attempts = pictures.attempts().values();
    let missing = match attempts.clone().any(|picture| picture.awaits_check()) {
        true if late_ms < GRACE_MS => return Ok(()),
        true => Missing::Unreachable,
        false if attempts.clone().any(|picture| picture.erased.is_some()) => Missing::PhotoErased,
        false => Missing::Photo,
    };
    give_up(app, punch, missing).await
}

/// No verdict can be had on a punch; a person looks.
///
/// # Errors
/// When the ledger can't take it now.
pub async fn give_up(app: &App, punch: PunchId, missing: Missing) -> Result<(), Broke> {
    let command = PunchCommand::GiveUp { missing };
    let metadata = Metadata::new(Actor::Server);
    match app.ledger.execute::<Punch>(&punch.to_string(), command, &metadata).await {
        Ok(_) | Err(ExecuteError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
