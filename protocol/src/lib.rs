//! What a device and the server share, and whoever writes a device of their own would use: ids and
//! time, the capture and its signature, the bodies of requests and answers, the words for what
//! becomes of a punch. The authority on all of it is `docs/device-protocol.md`.
//!
//! Everything here is pure: no I/O, no clock read, no runtime started; what is sealed takes the
//! system's randomness.
//!
//! Arrows between its folders; what stands on the right may use what stands left of it, never the
//! other way (`tests/tests/house.rs`):
//!
//! ```text
//! strict_json ← capture ← wire
//! strict_json ← attachment
//! capture ← attachment
//! strict_json ← wire
//! vocabulary ← wire
//! dispute ← wire
//! guidance ← wire
//! signing ← sealed_photo
//! strict_json ← command ← wire
//! ```

pub mod attachment;
pub mod capture;
pub mod command;
pub mod digest;
pub mod dispute;
pub mod guidance;
pub mod id;
pub mod position;
pub mod sealed_photo;
pub mod shown;
pub mod signing;
pub mod spelling;
pub mod spread;
pub mod strict_json;
pub mod time;
pub mod vocabulary;
pub mod wire;

pub use digest::Digest;
pub use id::{BootId, CommandId, DeviceId, DisputeId, EmployeeId, EpochId, OrgId, PunchId, SiteId};
pub use position::Position;
pub use time::Time;
