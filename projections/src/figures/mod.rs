//! Figures of each site and week: disputes by cause and how long they waited, what was referred and
//! how it was ruled, what checks of pictures came to, how late punches came.
//!
//! Everything counts in the week in which it was recorded, by the server's clock in the site's
//! zone; weeks begin on Mondays. So a week that is over never changes: a punch that comes late
//! counts when it comes, a ruling when it is made.

mod fold;
mod read;
mod write;

use std::sync::Arc;

use futures::future::BoxFuture;
use punchtrail_infra::ledger::Entry;
use sqlx::PgConnection;

use crate::engine::{Generation, Projection, ProjectionError};

pub use read::{
    CauseFigures, CauseSummary, DelayBucket, DisputeFigures, Figures, FiguresView, Outcomes,
    Referrals, Row, SITES_MAX, SiteFigures, SyncDelay, VerificationFigures, WEEKS_DEFAULT,
    WEEKS_MAX, Week, Weeks, WrongWeeks, csv, figures, newest, rows,
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "figures";

/// What is counted, as the table and the CSV name it.
pub mod counted {
    /// Captures that came.
    pub const CAPTURED: &str = "captured";
    /// How late they came; the code is the bucket's upper bound in seconds, or `more`.
    pub const SYNC_DELAY: &str = "sync_delay";
    /// Punches that came to wait for a ruling, under no code; and for each reason.
    pub const REFERRED: &str = "referred";
    /// How they were ruled, in all and for each reason that they waited for.
    pub const RULED: &str = "ruled";
    /// Pictures that matched, by provider.
    pub const MATCHED: &str = "matched";
    /// Pictures that didn't, by provider and kind of miss.
    pub const MISSED: &str = "missed";
    /// Pictures without a verdict, by what was missing.
    pub const UNCHECKED: &str = "unchecked";
    /// Disputes that were opened, by cause.
    pub const OPENED: &str = "disputes_opened";
    /// Disputes that were settled, by cause and how.
    pub const RESOLVED: &str = "disputes_resolved";
    /// Disputes that were taken up again, by cause.
    pub const REOPENED: &str = "disputes_reopened";
    /// The middle one of the waits of those settled, in hours, by cause. No counter.
    pub const HOURS_MEDIAN: &str = "dispute_hours_median";
    /// The wait that nine in ten of them don't exceed, in hours, by cause. No counter.
    pub const HOURS_P90: &str = "dispute_hours_p90";
}

/// The upper bounds of how late a punch came, in seconds, each with its code.
pub(crate) const DELAYS: [(u64, &str); 12] = [
    (1, "1"),
    (5, "5"),
    (30, "30"),
    (60, "60"),
    (300, "300"),
    (1_800, "1800"),
    (3_600, "3600"),
    (14_400, "14400"),
    (43_200, "43200"),
    (86_400, "86400"),
    (259_200, "259200"),
    (604_800, "604800"),
];
/// Later than all of them.
pub(crate) const LATER: &str = "more";

/// The model.
#[derive(Debug)]
pub struct SiteWeeks;

impl Projection for SiteWeeks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["figures", "figure_waits", "figure_disputes", "figure_referrals", "figure_sites"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {figures} (
                 site   uuid not null,
                 -- Its Monday.
                 week   date not null,
                 figure text not null,
                 code   text not null,
                 detail text not null,
                 count  bigint not null,
                 -- Serves a site's weeks, and every change.
                 primary key (site, week, figure, code, detail)
             );
             -- Each time that a dispute was settled: how long it had waited since it was opened or
             -- taken up again.
             create table {waits} (
                 dispute   uuid not null,
                 sequence  bigint not null,
                 site      uuid not null,
                 week      date not null,
                 cause     text not null,
                 waited_ms bigint not null,
                 primary key (dispute, sequence)
             );
             create table {disputes} (
                 -- Serves every change.
                 dispute     uuid primary key,
                 site        uuid not null,
                 cause       text not null,
                 -- Null while it is settled.
                 waits_since timestamptz
             );
             -- What waits for a ruling, and why.
             create table {referrals} (
                 -- Serves every change.
                 punch   uuid primary key,
                 site    uuid not null,
                 reasons text[] not null,
                 -- Whether it was amended meanwhile: then who accepts it has amended it.
                 amended boolean not null,
                 -- Whether its doubts were taken back: what follows says where it stands.
                 lifted  boolean not null
             );
             create table {sites} (
                 site uuid primary key,
                 tz   text not null
             )",
            figures = generation.table("figures"),
            waits = generation.table("figure_waits"),
            disputes = generation.table("figure_disputes"),
            referrals = generation.table("figure_referrals"),
            sites = generation.table("figure_sites"),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        let waits = generation.table("figure_waits");
        format!(
            "-- Serves the weeks of all sites.
             create index if not exists {week} on {figures} (week);
             -- Serves the waits of all sites.
             create index if not exists {waits_week} on {waits} (week);
             -- Serves a site's waits.
             create index if not exists {waits_site} on {waits} (site, week);
             -- Serves how many wait, of a site and in all: few do among many.
             create index if not exists {waiting} on {disputes} (site, cause)
                 where waits_since is not null;",
            figures = generation.table("figures"),
            disputes = generation.table("figure_disputes"),
            week = generation.index("figures", "week"),
            waits_week = generation.index("figure_waits", "week"),
            waits_site = generation.index("figure_waits", "site"),
            waiting = generation.index("figure_disputes", "waiting"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let batch = fold::Batch::of(events).await?;
            if batch.is_empty() {
                return Ok(());
            }
            let held = write::held(tx, generation, &batch).await?;
            let folded = batch.fold(held).await?;
            write::write(tx, generation, folded).await
        })
    }
}
