//! What a request may ask for, and say. What is granted to whoever comes stands in `door::limits`.

use std::time::Duration;

/// How long a read waits for its model to reach `Punchtrail-After`.
pub const AFTER_MAX: Duration = Duration::from_secs(5);
/// Rows of a page unless asked otherwise.
pub const PAGE_DEFAULT: u32 = 100;
/// The most rows of a page.
pub const PAGE_MAX: u32 = 1_000;
/// Rows of a manifest page unless asked otherwise.
pub const MANIFEST_PAGE_DEFAULT: u32 = 500;
/// Rows of a site's feed unless asked otherwise.
pub const FEED_PAGE_DEFAULT: u32 = 200;
/// Characters of a search.
pub const SEARCH_CHARS_MAX: usize = 64;
/// Events of one aggregate that are shown.
pub const STREAM_EVENTS_MAX: usize = 1_000;
/// Characters of a device's name.
pub const DEVICE_NAME_CHARS_MAX: usize = 64;
/// Business days of a worker's record unless asked otherwise.
pub const RECORD_DAYS_DEFAULT: u32 = 7;
/// Disputes of one person that may wait when another comes from a device.
pub const DISPUTES_OF_WORKER_MAX: u64 = 50;
/// Disputes from one device that may wait when another comes from it.
pub const DISPUTES_OF_DEVICE_MAX: u64 = 500;
/// Characters of a note.
pub const NOTE_CHARS_MAX: usize = 2_000;
/// The largest roster that is taken over HTTP, in bytes.
pub const ROSTER_BODY_BYTES_MAX: usize = 8 << 20;
/// The most PINs that such a roster brings: each takes some 20 ms of a core.
pub const ROSTER_BODY_PINS_MAX: usize = 1_000;
/// The most punches that are ruled on together.
pub const BULK_RULINGS_MAX: usize = 100;
/// Rows of figures as CSV; some ten megabytes.
pub const FIGURE_ROWS_MAX: u32 = 100_000;
/// Punches of an unknown badge that one request gives to a person; more are sent again.
pub const BADGE_PUNCHES_MAX: usize = 2_000;
/// Punches of an unknown badge that one request looks at, those included that were theirs already.
pub const BADGE_PUNCHES_SEEN_MAX: usize = 10_000;
/// Days that a preview of many punches shows.
pub const PREVIEW_DAYS_MAX: usize = 31;
/// Punches that were left as they are, of which an answer says why.
pub const LEFT_SHOWN_MAX: usize = 100;
