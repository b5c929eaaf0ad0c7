//! How a punch is kept and reached: the database it lies in, and what is built on it.
//!
//! Arrows between its folders; what stands on the right may use what stands left of it, never the
//! other way (`tests/tests/house.rs`):
//!
//! ```text
//! threads ← photos, identity
//! supervision ← postgres ← ledger ← follower ← adjudicator ← audit
//! ledger ← idempotency
//! postgres ← quotas
//! ledger ← people ← devices, sites
//! ledger ← rulings ← people, audit, devices
//! access ← people, devices
//! postgres ← photos ← identity
//! access ← devices
//! postgres ← queue
//! key_file ← identity, webhooks, backup
//! postgres ← mail
//! access, follower, mail ← webhooks
//! audit, photos ← backup
//! ```

pub mod access;
pub mod adjudicator;
pub mod audit;
pub mod backup;
pub mod devices;
pub mod follower;
pub mod idempotency;
pub mod identity;
pub mod key_file;
pub mod ledger;
pub mod mail;
pub mod people;
pub mod photos;
pub mod postgres;
pub mod queue;
pub mod quotas;
pub mod rulings;
pub mod sites;
pub mod supervision;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod threads;
pub mod webhooks;
