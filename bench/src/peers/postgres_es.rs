//! Stock cqrs-es on stock postgres-es: one `execute` a punch, eight at once.

use std::sync::Arc;

use cqrs_es::{Aggregate, event_sink::EventSink};
use punchtrail_domain::{punch::PunchError, punch::PunchEvent};
use serde::{Deserialize, Serialize};

use super::{finish, punches, side_by_side};

/// postgres-es 0.5's own schema, of its `db/init.sql`, as far as the event store needs it.
const SCHEMA: &str = "create table events (aggregate_type text not null, aggregate_id text not \
    null, sequence bigint check (sequence >= 0) not null, event_type text not null, \
    event_version text not null, payload json not null, metadata json not null, \
    primary key (aggregate_type, aggregate_id, sequence))";

/// A punch whose one command leads to all three events.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Whole;

impl Aggregate for Whole {
    const TYPE: &'static str = "punch";
    type Command = [PunchEvent; 3];
    type Event = PunchEvent;
    type Error = PunchError;
    type Services = ();

    async fn handle(
        &mut self,
        command: Self::Command,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), PunchError> {
        for event in command {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, _: PunchEvent) {}
}

/// Executes one command a punch.
///
/// # Errors
/// When Postgres refuses, or holds another number of events in the end.
pub async fn execute(url: &str, count: usize) -> anyhow::Result<f64> {
    let pool = postgres_es::default_postgress_pool(url).await;
    sqlx::query(SCHEMA).execute(&pool).await?;
    let framework = Arc::new(postgres_es::postgres_cqrs::<Whole>(pool.clone(), vec![], ()));
    let rate = side_by_side(count, punches(count), move |(punch, events)| {
        let framework = Arc::clone(&framework);
        async move { Ok(framework.execute(&punch.to_string(), events).await?) }
    })
    .await?;
    finish(pool, "events", 3 * count).await?;
    Ok(rate)
}
