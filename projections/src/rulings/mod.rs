//! What waits for a person: punches for a ruling, badges for somebody who held them, disputes, items
//! that are no punches.

pub mod disputes;
pub mod quarantine;
pub mod reviews;
pub mod unknown;

use std::collections::BTreeMap;

use cqrs_es::Aggregate as _;
use punchtrail_domain::{AggregateType, Event, punch::Punch};
use punchtrail_infra::ledger::{ReadError, streams};
use punchtrail_protocol::{Position, PunchId};
use sqlx::PgConnection;

/// Punches as they stood at a position, whatever has happened since: so a model is the same
/// however far the ledger is by then.
async fn as_of(
    tx: &mut PgConnection,
    punches: &[PunchId],
    through: Position,
) -> Result<BTreeMap<PunchId, Punch>, ReadError> {
    let mut stood: BTreeMap<PunchId, Punch> = BTreeMap::new();
    if punches.is_empty() {
        return Ok(stood);
    }
    let ids: Vec<String> = punches.iter().map(PunchId::to_string).collect();
    for recorded in streams(tx, AggregateType::Punch, &ids).await? {
        if recorded.position > through {
            continue;
        }
        if let Event::Punch(punch, event) = recorded.event()? {
            stood.entry(punch).or_default().apply(event);
        }
    }
    Ok(stood)
}
