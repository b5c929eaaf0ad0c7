//! What waits for a person's ruling.

pub mod disputes;
pub mod quarantine;
pub mod reviews;
