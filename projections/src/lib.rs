//! The read side: one file a read model, and the runner that feeds them from the ledger.
//!
//! A read model answers one kind of question quickly. Everything in it comes from the ledger's events,
//! in order, each taken once; it can be dropped and filled anew at any time, and is never the truth.
//! Readers go through views in the schema `read`, and through the functions in each model's file, which
//! join names from the directories as they read.

pub mod devices;
pub mod employees;
pub mod explanations;
pub mod page;
mod progress;
pub mod projection;
mod punch_row;
mod punches;
pub mod quarantine;
pub mod rebuild;
pub mod roster;
pub mod runner;
mod search;
pub mod site_feed;
pub mod sites;
pub mod timecards;
pub mod timeline;

use std::sync::Arc;

pub use page::{Order, Page};
pub use projection::{Generation, Projection, ProjectionError};
pub use punch_row::PunchRow;
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use runner::{ProjectionState, ProjectionStatus, Projections, ReadBehind};

/// Every read model there is.
pub fn all() -> Vec<Arc<dyn Projection>> {
    vec![
        Arc::new(timeline::Timeline),
        Arc::new(timecards::Timecards),
        Arc::new(roster::Roster),
        Arc::new(site_feed::SiteFeed),
        Arc::new(devices::Devices),
        Arc::new(sites::Sites),
        Arc::new(quarantine::QuarantinedItems),
        Arc::new(explanations::ChainFacts),
    ]
}
