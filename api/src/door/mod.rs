//! What stands between the network and a handler: connections and their limits, admission, and the
//! envelope around every request. Nothing here knows what a punch is.

pub mod admission;
pub mod connection_limit;
pub mod connections;
pub mod envelope;
pub mod idle;
pub mod leftover;
pub mod limits;
pub mod quota;

use self::{admission::Admission, connection_limit::ConnectionLimit, limits::Timeouts};

/// What is granted to whoever comes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    /// How long clients may take.
    pub timeouts: Timeouts,
    pub admission: Admission,
    /// How many connections the listener for all serves.
    pub connections: ConnectionLimit,
}
