//! What runs at the door: a device that records punches on its own disk and delivers them when it
//! can.
//!
//! - [`capture`]: the moment of a punch. Never waits for a network.
//! - [`retake`], [`verdict`], [`mod@reference`]: pictures of faces, beside the punch and never in
//!   its way.
//! - [`dispute`], [`record`]: what a worker says of their punches and may see of them, after a PIN
//!   ([`confirm`]).
//! - [`drain`]: delivering, at a sane rate, until the server has had everything for longer than any
//!   restore would reach back.
//! - [`obey`]: what the server tells this device to do, done once.
//! - [`store`], [`folder`]: what is kept, and how it survives a power cut; [`mod@salvage`]: saving
//!   what can be read once the file is damaged.
//!
//! Two kinds of process work on one folder. The *agent* (`run`, `sync`, `enroll`) holds the
//! folder's lock; a second one is refused. A *punch* takes no such lock, only SQLite's write lock
//! for the length of one transaction: workers can punch while the agent runs, any number of them at
//! once, and since a sequence number is read and taken under that lock, no two captures share one.
//! `status` only reads.
//!
//! It must never: send what isn't committed, forget what wasn't acknowledged for the restore
//! window, use a sequence number twice, correct a capture's time, or try twice without a pause.
//!
//! Arrows between its folders; what stands on the right may use what stands left of it, never the
//! other way (`tests/tests/house.rs`):
//!
//! ```text
//! clock, policy ← store ← pin ← capture
//! folder ← store ← device ← status ← drain
//! folder ← store ← salvage
//! glance ← device
//! backoff, client ← device ← frame ← capture, retake, reference
//! retake ← verdict
//! pin, device ← confirm ← dispute, record
//! client ← record
//! device ← manifest ← drain
//! device ← obey ← drain
//! client ← store
//! policy ← manifest
//! ```

pub mod backoff;
pub mod capture;
pub mod client;
pub mod clock;
pub mod confirm;
pub mod device;
pub mod dispute;
pub mod drain;
pub mod folder;
pub mod frame;
pub mod glance;
pub mod manifest;
pub mod obey;
pub mod pin;
pub mod policy;
pub mod program;
pub mod record;
pub mod reference;
pub mod retake;
pub mod salvage;
pub mod status;
pub mod store;
pub mod verdict;

pub use capture::{Confirmation, Press, PunchError};
pub use confirm::NotConfirmed;
pub use device::{Device, EnrollError, Options};
pub use dispute::{Dispute, DisputeError, KeptDispute};
pub use drain::{Drain, SyncReport};
pub use frame::BadPhoto;
pub use pin::Pin;
pub use record::{OwnRecord, RecordError};
pub use reference::{Reference, ReferenceError};
pub use retake::{RetakeError, Retaken, Which};
pub use salvage::{SalvageError, Salvaged};
pub use verdict::{Judged, VerdictError};

/// Program and version, as captures and requests carry them.
pub const APP: &str = concat!("punchtrail-device/", env!("CARGO_PKG_VERSION"));
