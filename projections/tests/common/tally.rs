//! A small model for tests of the runner: how many events of each type there were. Its second
//! version has another column.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_projections::engine::{Generation, Projection, ProjectionError};
use sqlx::PgConnection;

#[derive(Debug, Clone, Copy)]
pub struct Tally {
    pub version: i32,
    /// Whether each batch stays open for a moment, as a slow one would.
    pub slow: bool,
}

impl Projection for Tally {
    fn name(&self) -> &'static str {
        "tally"
    }

    fn version(&self) -> i32 {
        self.version
    }

    fn tables(&self) -> &'static [&'static str] {
        &["tally"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        let version = self.version;
        let table = generation.table("tally");
        format!(
            "create table {table} (event_type text primary key, count bigint not null, \
             v{version} boolean not null default true)"
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
            for entry in events {
                entry.event()?;
                *counts.entry(&entry.recorded.event_type).or_default() += 1;
            }
            let (types, counts): (Vec<&str>, Vec<i64>) = counts.into_iter().unzip();
            let statement = format!(
                "insert into {} as held (event_type, count) \
                 select * from unnest($1::text[], $2::bigint[]) \
                 on conflict (event_type) do update set count = held.count + excluded.count",
                generation.table("tally")
            );
            sqlx::query(&statement).bind(types).bind(counts).execute(&mut *tx).await?;
            if self.slow {
                sqlx::query("select pg_sleep(0.02)").execute(tx).await?;
            }
            Ok(())
        })
    }
}

/// How many events the model has counted, as its readers see it.
pub async fn counted(pool: &Pool) -> u64 {
    let sum: i64 = sqlx::query_scalar("select coalesce(sum(count), 0)::bigint from read.tally")
        .fetch_one(pool)
        .await
        .unwrap();
    sum.cast_unsigned()
}
