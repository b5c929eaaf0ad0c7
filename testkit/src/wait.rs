//! Waiting for something that happens elsewhere: a condition, looked at until it holds, and a
//! bound. No other test code has a loop with a deadline.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::bail;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(15);
/// A bound for whatever should take seconds, generous because tests share two slow cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until there is something to see. A look that has begun is not cut short: what takes long
/// bounds itself.
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

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test]
    async fn what_comes_late_is_seen() {
        let mut looks = 0;
        let seen = eventually("a third look", PATIENCE, async || {
            looks += 1;
            Ok((looks == 3).then_some("there"))
        });
        assert_eq!(seen.await.unwrap(), "there");
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    async fn what_does_not_come_is_named() {
        let never = eventually("rain", Duration::ZERO, async || Ok(None::<()>)).await;
        assert_eq!(never.unwrap_err().to_string(), "rain: not so after 0 s");
    }

    #[tokio::test]
    async fn a_look_that_fails_ends_it() {
        let mut looks = 0;
        let failed = eventually("a second look", PATIENCE, async || {
            looks += 1;
            ensure!(looks < 2, "it is broken");
            Ok(None::<()>)
        });
        assert_eq!(failed.await.unwrap_err().to_string(), "it is broken");
    }
}
