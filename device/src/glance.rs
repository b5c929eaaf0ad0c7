//! A glance at a picture on the device, before anybody compares it with a face: whether there is
//! one, near enough, lit, still. It works without a network, says what the worker can do at once,
//! and decides nothing: the punch is on disk before anybody looks.
//!
//! What looks comes from outside ([`Options::glance`](crate::Options)); without it nothing is said.

use std::{fmt, sync::Arc, time::Duration};

use punchtrail_protocol::guidance::Guidance;
use zeroize::Zeroizing;

/// How long a worker is kept for a glance, in milliseconds; one that takes longer says nothing.
pub const GLANCE_MS: u64 = 2_000;

/// Looks at a picture, JPEG or PNG; gives what the worker can do better, the most helpful first,
/// and nothing about a good one.
pub trait Glance: Send + Sync {
    /// What the worker can do about this picture.
    fn guidance(&self, photo: &[u8]) -> Vec<Guidance>;
}

/// Looks, for at most [`GLANCE_MS`]. Whatever goes wrong in it, nothing is said.
pub(crate) async fn guidance(
    glance: Option<&Arc<dyn Glance>>,
    photo: Option<Zeroizing<Vec<u8>>>,
) -> Vec<Guidance> {
    let Some((glance, photo)) = glance.cloned().zip(photo) else { return Vec::new() };
    let look = tokio::task::spawn_blocking(move || glance.guidance(&photo));
    match tokio::time::timeout(Duration::from_millis(GLANCE_MS), look).await {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a glance at a picture failed");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(waited_ms = GLANCE_MS, "a glance at a picture takes too long");
            Vec::new()
        }
    }
}

impl fmt::Debug for dyn Glance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Glance")
    }
}
