//! What the server grants to whoever comes. What a request may ask for is limited in `ask::limits`,
//! what a device may send by the protocol (`punchtrail_protocol::wire`).

use std::time::Duration;

/// Connections served at once. A batch takes a fraction of a second, and near the limit answers
/// close their connections, so that many more devices than this can be served.
pub const CONNECTIONS_MAX: usize = 2_048;
/// Connections beyond them that are still read: people are served on them, devices get a time to
/// come back. One more waits in the kernel's queue.
pub const CONNECTIONS_OVERFLOW_MAX: usize = 256;
/// How long a client on such a connection may take for a head, or stand idle.
pub const OVERFLOW_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at once on one HTTP/2 connection.
pub const STREAMS_MAX: u32 = 64;
/// The largest head of a request, in bytes; and what is read from a connection at a time.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header fields of a request.
pub const HEADERS_MAX: usize = 64;

/// How long a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a head; and for the next one on an HTTP/1 connection.
    pub head: Duration,
    /// Without a byte either way, on any connection.
    pub idle: Duration,
    /// For the body of a JSON request.
    pub body: Duration,
    pub photo: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            body: Duration::from_secs(30),
            photo: Duration::from_secs(100),
        }
    }
}

/// How long any request may take from its head to its answer.
pub const REQUEST_MAX: Duration = Duration::from_secs(120);
/// Bodies held in memory at once, all requests together, in KiB; beyond it a request is refused as
/// busy before a byte of its body is read.
pub const BODIES_KIB_MAX: usize = 192 << 10;
/// How much of a body that is refused is still read and thrown away, in bytes, so that the sender
/// gets to read the refusal.
pub const REFUSED_BYTES_MAX: usize = 16 << 20;
/// And for how long.
pub const REFUSED_MAX: Duration = Duration::from_secs(5);

/// Failed enrolments a minute on this node; beyond it enrolment is refused for the rest of the
/// minute. At this rate, guessing one open code of 20^8 within its ten minutes succeeds once in 4
/// million tries.
pub const FAILED_ENROLMENTS_PER_MINUTE_MAX: u32 = 600;
/// How long requests in flight may take to be answered when the server stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);
/// How long followers and the ledger may take to settle when the server stops.
pub const SETTLE_MAX: Duration = Duration::from_secs(20);
