//! People: who works where, and how somebody is found.

pub mod employees;
mod finding;
pub mod pins;
pub mod record;
pub mod roster;
mod search;
