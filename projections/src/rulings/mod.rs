//! What waits for a person's ruling.

pub mod quarantine;
pub mod reviews;
