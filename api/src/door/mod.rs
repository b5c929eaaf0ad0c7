//! What stands between the network and a handler: connections and their limits, admission, and the
//! envelope around every request. Nothing here knows what a punch is.

pub mod admission;
pub mod envelope;
pub mod idle;
pub mod leftover;
pub mod limits;
pub mod quota;
pub mod seats;
