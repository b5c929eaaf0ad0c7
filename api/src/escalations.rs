//! Punches on which nobody has ruled within the time that their site wants them ruled on.

use jiff::SignedDuration;
use punchtrail_domain::{
    log::recorded::Actor,
    punch::{Punch, PunchCommand},
};
use punchtrail_infra::ledger::{ExecuteError, Metadata};
use punchtrail_projections::{
    rulings::reviews::{self, Filter},
    sites,
};
use punchtrail_protocol::Time;

use crate::{problem::Refusal, state::App};

/// Punches that are looked at together.
const PAGE: u32 = 200;

/// Escalates what is overdue by that time: of each site a page. Of several nodes each may do it: a
/// punch takes it once.
///
/// # Errors
/// When the database is out of reach, or the ledger can't take it now.
pub async fn look(app: &App, now: Time) -> Result<(), Refusal> {
    for (site, policy) in sites::policies(&app.pools.reader, now).await? {
        let within = SignedDuration::from_secs(i64::from(policy.review_deadline_s));
        let within_ms = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        let filter = Filter {
            site: Some(site),
            before: Some(now.plus_millis(-within_ms)),
            escalated: Some(false),
            ..Filter::default()
        };
        for review in reviews::list(&app.pools.reader, &filter, None, PAGE).await?.rows {
            let due_at = review.referred_at.plus_millis(within_ms);
            let (id, command) = (review.punch.to_string(), PunchCommand::Escalate { due_at });
            let metadata = Metadata::new(Actor::Server);
            match app.ledger.execute::<Punch>(&id, command, &metadata).await {
                Ok(_) | Err(ExecuteError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
