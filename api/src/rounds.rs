//! What is looked at now and then, for as long as the server runs.

use std::{future::Future, time::Duration};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Looks at once and then every so often, until it is stopped, also in the middle of a look; a look
/// that took long puts off the next. `failing` says in the log that one failed.
pub async fn go<E, L>(
    every: Duration,
    stop: CancellationToken,
    failing: &'static str,
    mut look: impl FnMut() -> L,
) where
    L: Future<Output = Result<(), E>>,
{
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if stop.run_until_cancelled(look()).await.is_some_and(|looked| looked.is_err()) {
            tracing::warn!("{failing}");
        }
    }
}
