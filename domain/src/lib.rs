//! What a punch is.
//!
//! Aggregates, their events and the rules that judge them; the capture record and its signature; the
//! explanation and the timecard. Everything here is pure: no I/O, no SQL, no clock read, no runtime
//! started. Whoever calls brings the facts, and the same facts always give the same answer.

mod aggregate;
pub mod capture;
pub mod device;
pub mod digest;
pub mod employee;
pub mod explanation;
pub mod id;
pub mod leaf;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod punch;
pub mod quarantine;
pub mod recorded;
pub mod signing;
pub mod site;
pub mod strict_json;
pub mod time;
pub mod timecard;
pub mod wire;

pub use digest::Digest;
pub use id::{BootId, DeviceId, EmployeeId, OrgId, PunchId, SiteId};
pub use recorded::{AggregateType, Event, Position, Recorded};
pub use time::Time;
