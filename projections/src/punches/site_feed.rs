//! A site's punches, one row each at its latest change, in the order of those changes: what a
//! device reads to know what became of its punches.
//!
//! The order is the ledger's, so no clock has a part in it. A reader who has read to a position and
//! asks for what follows misses no change: a punch that changes moves to the end.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx;
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_protocol::{Position, SiteId, Time};
use sqlx::PgConnection;

use crate::{
    engine::{Generation, Projection, ProjectionError, page::Page},
    punches::{
        batch::{self, Takes},
        row::{COLUMNS, PunchView},
    },
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "site_feed";

/// The model.
#[derive(Debug)]
pub struct SiteFeed;

impl Projection for SiteFeed {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["site_feed"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {table} (
                 -- Serves every change of a punch.
                 punch        uuid primary key,
                 employee     uuid,
                 site         uuid not null,
                 -- Null for one that a person added.
                 device       uuid,
                 kind         text not null,
                 captured_at  timestamptz not null,
                 effective_at timestamptz not null,
                 standing     text not null,
                 reasons      text[],
                 position     bigint not null
             )",
            table = generation.table("site_feed"),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        format!(
            "-- Serves a site's changes after a position.
             create index if not exists {index} on {table} (site, position);",
            index = generation.index("site_feed", "site"),
            table = generation.table("site_feed"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let punches = batch::fold(events, Takes::Standings).await?;
            let table = generation.table("site_feed");
            batch::insert(tx, &table, &punches.new).await?;
            batch::change(tx, &table, &punches.changed).await
        })
    }
}

/// The site's punches that changed after `after`, in the order of their changes; at most `limit`,
/// and never more than [`crate::engine::page::PAGE_ROWS_MAX`]. The next page goes on after the last
/// row's position.
///
/// # Errors
/// When the database is out of reach.
pub async fn after(
    pool: &Pool,
    site: SiteId,
    after: Position,
    limit: u32,
) -> Result<Page<PunchView>, sqlx::Error> {
    let statement = format!(
        "select {COLUMNS} from read.site_feed where site = $1 and position > $2 \
         order by position limit $3"
    );
    let rows = sqlx::query_as(&statement)
        .bind(site.uuid())
        .bind(after.to_db())
        .bind(Page::<PunchView>::to_ask(limit))
        .fetch_all(pool)
        .await?;
    Ok(Page::cut(rows, limit))
}

/// The position after which a look-back to `since` begins: everything recorded then or later
/// follows it. Found by halving, as positions and times of recording go up together.
///
/// # Errors
/// When the database is out of reach.
pub async fn look_back(pool: &Pool, since: Time) -> Result<Position, sqlx::Error> {
    // Before `low` everything is older; `high` is recorded in time, or just beyond the head.
    let found: i64 = sqlx::query_scalar(
        "with recursive halving (low, high) as ( \
             select 0::bigint, (select position + 1 from ledger_head) \
             union all select case when middle.older then middle.at else low end, \
                    case when middle.older then high else middle.at end \
             from halving, lateral (select at, ( \
                     select recorded_at < $1 from events where position = at) as older \
                 from (select (low + high) / 2 as at) as half) as middle \
             where high - low > 1 ) select max(low) from halving where high - low = 1",
    )
    .bind(since.timestamp().to_sqlx())
    .fetch_one(pool)
    .await?;
    Ok(Position::from_db(found))
}
