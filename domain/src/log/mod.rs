//! The ledger as a log that can be verified: an event as it is kept, the leaf that it is hashed as,
//! the Merkle tree over the leaves, and the signed notes that say its root to the world outside.

pub mod leaf;
pub mod merkle;
pub mod recorded;
pub mod signed_note;
