//! The server: what devices, people and integrators speak to.
//!
//! [`server::Server`] opens the ledger, starts what follows it, and serves HTTP. The routes are a
//! table ([`router`]); a handler authorises, calls, answers, and does nothing else.
//!
//! Arrows between its folders; what stands on the right may use what stands left of it, never the
//! other way (`tests/tests/house.rs`):
//!
//! ```text
//! metrics ← problem ← door ← ask, auth ← routes ← router ← server
//! ask, auth ← once, quota ← routes, router
//! problem ← problem_page ← routes
//! problem ← openapi ← router
//! health ← routes
//! seal ← ask, routes
//! problem ← commands ← identity ← privacy ← routes
//! problem ← disputes ← routes
//! problem ← escalations
//! rounds ← webhooks ← server
//! rounds ← commands, identity
//! ```

pub mod ask;
pub mod auth;
pub mod commands;
pub mod disputes;
pub mod door;
pub mod escalations;
pub mod health;
pub mod identity;
pub mod metrics;
pub mod once;
pub mod openapi;
pub mod privacy;
pub mod problem;
pub mod problem_page;
pub mod quota;
pub mod rounds;
pub mod router;
pub mod routes;
pub mod seal;
pub mod server;
pub mod state;
pub mod upkeep;
pub mod webhooks;
