//! The read side: one file a read model, and the runner that feeds them from the ledger.

pub mod projection;

pub use projection::{Generation, Projection, ProjectionError};
