//! What a punch is.
//!
//! Aggregates, their events and the rules that judge them; the explanation and the timecard.
//! Everything here is pure: no I/O, no SQL, no clock read, no runtime started. Whoever calls brings
//! the facts, and the same facts always give the same answer. What devices share with it is
//! `punchtrail-protocol`.
//!
//! Arrows between its folders; what stands on the right may use what stands left of it, never the
//! other way (`tests/tests/house.rs`):
//!
//! ```text
//! aggregate ← punch ← policy ← site ← log ← explanation
//! aggregate ← device, employee, quarantine, epoch ← log
//! aggregate ← device ← dispute ← log
//! policy ← timecard ← explanation
//! ```

pub mod aggregate;
pub mod delivery;
pub mod device;
pub mod dispute;
pub mod employee;
pub mod epoch;
pub mod erasure;
pub mod explanation;
pub mod log;
pub mod policy;
pub mod punch;
pub mod quarantine;
pub mod site;
pub mod timecard;

pub use aggregate::{AggregateType, StoredEvent};
pub use log::recorded::{Event, Recorded};
