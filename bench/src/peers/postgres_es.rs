//! Stock cqrs-es on stock postgres-es: one `execute` a punch, eight at once.

use std::{sync::Arc, time::Instant};

use cqrs_es::{Aggregate, event_sink::EventSink};
use punchtrail_domain::{punch::PunchError, punch::PunchEvent};
use serde::{Deserialize, Serialize};

use crate::{append::rate, load};

/// postgres-es 0.5's own schema, of its `db/init.sql`, as far as the event store needs it.
const SCHEMA: &str = "create table events (aggregate_type text not null, aggregate_id text not null, \
    sequence bigint check (sequence >= 0) not null, event_type text not null, \
    event_version text not null, payload json not null, metadata json not null, \
    primary key (aggregate_type, aggregate_id, sequence))";
const AT_ONCE: usize = 8;

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
pub async fn execute(url: &str, punches: usize) -> anyhow::Result<f64> {
    let mut kiosk = load::Kiosk::unknown(500);
    let mut work: Vec<Vec<(String, [PunchEvent; 3])>> = vec![Vec::new(); AT_ONCE];
    for n in 0..punches {
        let signed = kiosk.punch();
        work[n % AT_ONCE].push((signed.punch.to_string(), load::events(&signed, kiosk.device)));
    }
    let pool = postgres_es::default_postgress_pool(url).await;
    sqlx::query(SCHEMA).execute(&pool).await?;
    let framework = Arc::new(postgres_es::postgres_cqrs::<Whole>(pool.clone(), vec![], ()));
    let started = Instant::now();
    let tasks = work.into_iter().map(|commands| {
        let framework = Arc::clone(&framework);
        tokio::spawn(async move {
            for (id, command) in commands {
                framework.execute(&id, command).await?;
            }
            anyhow::Ok(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    let rate = rate(punches, started);
    pool.close().await;
    Ok(rate)
}
