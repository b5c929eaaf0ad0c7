//! What is held of one person, and whether it may be erased: read across the models and the ledger,
//! for whoever asks on that person's behalf. No model of its own.

pub mod held;
pub mod obstacles;

use std::time::Duration;

use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::Position;
use tokio::time::Instant;

use crate::{
    engine::{self, ReadBehind},
    people::roster,
    punches::{photos, timecards, timeline},
    rulings::{disputes, quarantine},
    sites,
};

/// The models that all of this rests on. Who is to be erased is asked for when they have taken the
/// whole ledger: an older one may lack a punch that waits for a ruling, or a note.
pub const RESTS_ON: [&str; 7] = [
    timeline::NAME,
    timecards::NAME,
    quarantine::NAME,
    disputes::NAME,
    photos::NAME,
    roster::NAME,
    sites::NAME,
];

/// How often a command looks whether the server has brought the models along.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until the models stand at `position`, for who has no models of their own: a command beside
/// a server.
///
/// Gives the one that is behind at `deadline`, as where no server runs.
///
/// # Errors
/// When the database is out of reach.
pub async fn caught_up(
    pool: &Pool,
    position: Position,
    deadline: Instant,
) -> Result<Option<ReadBehind>, sqlx::Error> {
    loop {
        let Some(behind) = behind(pool, position).await? else { return Ok(None) };
        if Instant::now() >= deadline {
            return Ok(Some(behind));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The first model that isn't there yet.
async fn behind(pool: &Pool, position: Position) -> Result<Option<ReadBehind>, sqlx::Error> {
    for name in RESTS_ON {
        let there = engine::stands_at(pool, name).await?;
        if there < position {
            return Ok(Some(ReadBehind { name: name.to_owned(), position: there }));
        }
    }
    Ok(None)
}
