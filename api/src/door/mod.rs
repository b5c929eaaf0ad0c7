//! What stands between the network and a handler: connections and their limits, the gate,
//! admission, and the envelope around every request. Nothing here knows what a punch is.

pub mod address;
pub mod admission;
pub mod connection_limit;
pub mod connections;
pub mod crowd;
pub mod envelope;
pub mod gate;
pub mod head_guard;
pub mod idle;
pub mod leftover;
pub mod limits;
pub mod refusals;
pub mod remembered;
pub mod throttle;
pub mod tls;
pub mod visit;
pub mod waiters;

use self::{
    address::TrustedProxies, admission::Admission, connection_limit::ConnectionLimit, gate::Gate,
    limits::Timeouts, refusals::Refusals, visit::Visit, waiters::Place,
};

use axum::extract::Request;

/// What is granted to whoever comes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// Who may join a line.
    pub gate: Gate,
    pub admission: Admission,
    /// How many connections the listener for all serves.
    pub connections: ConnectionLimit,
    /// Who may say for whom they ask.
    pub proxies: TrustedProxies,
    /// What is refused, for the log.
    pub refusals: Refusals,
}

impl Door {
    /// Where a request comes from.
    pub fn place_of(&self, request: &Request) -> Place {
        let number = request.extensions().get::<Visit>().map_or(0, Visit::number);
        (self.proxies.sender_of(request), number)
    }
}
