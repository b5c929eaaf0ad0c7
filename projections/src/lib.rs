//! The read side: one file a read model, and the runner that feeds them from the ledger.
//!
//! A read model answers one kind of question quickly. Everything in it comes from the ledger's
//! events, in order, each taken once; it can be dropped and filled anew at any time, and is never
//! the truth. Readers go through views in the schema `read`, and through the functions in each
//! model's file, which join names from the directories as they read.
//!
//! Arrows between its folders; what stands on the right may use what stands left of it, never the
//! other way (`tests/tests/house.rs`):
//!
//! ```text
//! engine ← sites ← punches ← people, explanations
//! engine ← devices, rulings ← people, explanations, privacy
//! people, punches ← privacy
//! engine ← figures
//! ```

pub mod devices;
pub mod engine;
pub mod explanations;
pub mod figures;
pub mod people;
pub mod privacy;
pub mod punches;
pub mod rulings;
pub mod sites;

use std::sync::Arc;

use engine::Projection;

/// Every read model there is.
pub fn all() -> Vec<Arc<dyn Projection>> {
    vec![
        Arc::new(punches::timeline::Timeline),
        Arc::new(punches::timecards::Timecards),
        Arc::new(people::roster::Roster),
        Arc::new(punches::site_feed::SiteFeed),
        Arc::new(punches::photos::Photos),
        Arc::new(devices::Devices),
        Arc::new(devices::commands::DeviceCommands),
        Arc::new(sites::Sites),
        Arc::new(rulings::quarantine::QuarantinedItems),
        Arc::new(rulings::reviews::Reviews),
        Arc::new(rulings::disputes::Disputes),
        Arc::new(explanations::ChainFacts),
        Arc::new(figures::SiteWeeks),
    ]
}
