//! Waiting for something that happens elsewhere: a condition, looked at until it holds, and a bound.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::bail;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(15);
/// A bound for whatever should take seconds, generous because tests share two slow cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until there is something to see.
///
/// # Errors
/// When it isn't there within `within`, naming `what`; or at once as `look` fails.
pub async fn eventually<T>(
    what: impl Display,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await? {
            return Ok(seen);
        }
        if began.elapsed() > within {
            bail!("{what}: not so after {} s", within.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
