//! What a request asks, read into types that can't be wrong.

pub mod after;
pub mod cursor;
pub mod extract;
pub mod limits;
pub mod page;
pub mod time;
pub mod walk;
