//! The server: what devices, people and integrators speak to.
//!
//! [`server::Server`] opens the ledger, starts what follows it, and serves HTTP. The routes are a table
//! ([`router`]); a handler authorises, calls, answers, and does nothing else.

pub mod admission;
pub mod after;
pub mod auth;
pub mod cursor;
pub mod delivery;
pub mod envelope;
pub mod extract;
pub mod health;
pub mod idle;
pub mod keys;
pub mod leftover;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod quota;
pub mod router;
pub mod routes;
pub mod seats;
pub mod server;
pub mod state;
