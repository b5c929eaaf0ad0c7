//! What the server grants to whoever comes. What a request may ask for is limited in `ask::limits`,
//! what a device may send by the protocol (`punchtrail_protocol::wire`).

use std::time::Duration;

/// Connections served at once. A batch takes a fraction of a second, and near the limit answers
/// close their connections, so that many more devices than this can be served.
pub const CONNECTIONS_MAX: usize = 2_048;
/// Connections beyond them that are still read: people are served on them, devices get a time to
/// come back. One more waits in the kernel's queue.
pub const CONNECTIONS_OVERFLOW_MAX: usize = 256;
/// Connections of one origin over which nothing with good credentials has come, and of which no
/// request is being answered: one more ends the oldest.
pub const SILENT_OF_ORIGIN_MAX: usize = 1_024;
/// The same of one caller with good credentials.
pub const SILENT_OF_CALLER_MAX: usize = 32;
/// And of a revoked device.
pub const SILENT_OF_REVOKED_MAX: usize = 4;
/// When the limit is reached, those that have been silent for so long make room.
pub const SILENT_MIN: Duration = Duration::from_secs(1);
/// Requests at once whose bodies are still coming; one more ends the oldest of whoever has most.
pub const COMING_MAX: usize = 2_048;
/// The same of those who ask to be enrolled.
pub const COMING_OF_STRANGERS_MAX: usize = 512;
/// How long a client on such a connection may take for a head, or stand idle.
pub const OVERFLOW_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Requests at once on one HTTP/2 connection, and so the answers on it that nobody reads.
pub const STREAMS_MAX: u32 = 16;
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
    /// For a photo.
    pub photo: Duration,
    /// Without a byte of a body that is coming.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            body: Duration::from_secs(30),
            photo: Duration::from_secs(100),
            silence: Duration::from_secs(10),
        }
    }
}

/// How long any request may take from its head to its answer.
pub const REQUEST_MAX: Duration = Duration::from_secs(120);
/// Bodies held in memory at once, as far as they have come, all requests together, in KiB; what
/// comes beyond it is refused as busy.
pub const BODIES_KIB_MAX: usize = 160 << 10;
/// The same for those of revoked devices.
pub const REVOKED_BODIES_KIB_MAX: usize = 16 << 10;
/// And of those who ask to be enrolled.
pub const STRANGERS_BODIES_KIB_MAX: usize = 16 << 10;
/// The largest body of such a request, in bytes.
pub const STRANGERS_BODY_BYTES_MAX: usize = 8 << 10;
/// How much of a body that is refused is still read and thrown away, in bytes, so that the sender
/// gets to read the refusal.
pub const REFUSED_BYTES_MAX: usize = 16 << 20;
/// And for how long.
pub const REFUSED_MAX: Duration = Duration::from_secs(5);

/// Wrong pairing codes that may come from one origin at once; then one each
/// [`WRONG_CODE_EVERY`]. At this rate, guessing one open code of 20^8 within its ten minutes
/// succeeds once in 3.8 million tries.
pub const WRONG_CODES_MAX: u32 = 600;
/// After so long one more wrong code may come from the same origin.
pub const WRONG_CODE_EVERY: Duration = Duration::from_millis(100);
/// Wrong pairing codes that may begin with the same letters, wherever they come from; then one each
/// [`WRONG_IN_SPACE_EVERY`]. Who saw half of a code finds the rest once in 700 tries.
pub const WRONG_IN_SPACE_MAX: u32 = 20;
/// After so long one more wrong code may begin with the same letters.
pub const WRONG_IN_SPACE_EVERY: Duration = Duration::from_secs(3);
/// Wrong codes for reference photos that may come from a device; then one each
/// [`WRONG_REFERENCES_EVERY`].
pub const WRONG_REFERENCES_MAX: u32 = 10;
/// After so long one more may come.
pub const WRONG_REFERENCES_EVERY: Duration = Duration::from_secs(10);
/// Records of workers that a device may read at once; then one each [`RECORDS_EVERY`].
pub const RECORDS_MAX: u32 = 60;
/// After so long one more may be read.
pub const RECORDS_EVERY: Duration = Duration::from_secs(2);
/// The same of one worker.
pub const RECORDS_OF_PERSON_MAX: u32 = 10;
/// After so long one more of that worker may be read.
pub const RECORDS_OF_PERSON_EVERY: Duration = Duration::from_secs(10);
/// Tries of one origin that wait for their turn.
pub const TRIES_WAITING_MAX: usize = 50;
/// And for how long.
pub const TRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How many letters those are.
pub const SPACE_LETTERS: usize = 4;
/// How long requests in flight may take to be answered when the server stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);
/// How long followers and the ledger may take to settle when the server stops.
pub const SETTLE_MAX: Duration = Duration::from_secs(20);
