//! A photo's bytes are there: the punches that name it are told.

use punchtrail_domain::{
    log::recorded::Actor,
    punch::{Punch, PunchCommand},
};
use punchtrail_infra::ledger::{ExecuteError, Ledger, Metadata};
use punchtrail_projections::punches::photos;
use punchtrail_protocol::{Digest, PunchId};

use crate::{problem::Refusal, state::App};

/// Tells the punches that are known to name a photo that it came. One that comes later is told by
/// the feeder, which looks whether its photo is there.
///
/// # Errors
/// When the ledger can't take it now: the photo is to be sent again.
pub async fn came(app: &App, photo: Digest) -> Result<(), Refusal> {
    for punch in photos::awaiting(&app.pools.reader, photo).await? {
        tell(&app.ledger, punch, photo).await?;
    }
    Ok(())
}

/// Tells one punch that its photo came; nothing when it knows.
///
/// # Errors
/// When the ledger can't take it now.
pub async fn tell(
    ledger: &Ledger,
    punch: PunchId,
    photo: Digest,
) -> Result<(), ExecuteError<punchtrail_domain::punch::PunchError>> {
    let command = PunchCommand::ReceivePhoto { photo, received_at: ledger.now() };
    let metadata = Metadata::new(Actor::Server);
    match ledger.execute::<Punch>(&punch.to_string(), command, &metadata).await {
        // One that a person admitted names no photo that a check could be made of.
        Ok(_) | Err(ExecuteError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
