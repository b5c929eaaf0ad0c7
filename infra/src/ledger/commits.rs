//! Whether this node can commit: by the last time that it did, and by nothing else. A database that
//! answers reads may be a standby, or wait for one with every commit; only a commit shows that it
//! takes one.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// A node that made no commit for so long isn't ready, in milliseconds: longer than a commit may
/// take, so that one slow disk doesn't turn devices away.
pub const COMMITTED_MS_MAX: u64 = 6_000;
/// How long the committer does nothing before it commits something to see whether it can, in
/// milliseconds: twice within the time above, and a failure leaves time for another try.
pub(super) const PROVE_MS: u64 = 2_000;

/// This node's commits, as it last saw them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitStatus {
    /// Whether it could commit a moment ago.
    pub able: bool,
    /// When it last did.
    pub last: Option<Timestamp>,
    /// Since when commits fail.
    pub failing_since: Option<Timestamp>,
    /// Why the last one failed, or what is waited for.
    pub error: Option<String>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    last: Option<(Instant, Timestamp)>,
    failing: Option<(Timestamp, String)>,
}

/// Told by the committer, asked by readiness. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Commits(Arc<watch::Sender<Seen>>);

impl Commits {
    /// One was made.
    pub(super) fn made(&self) {
        self.0.send_modify(|seen| {
            seen.last = Some((Instant::now(), Timestamp::now()));
            if let Some((since, _)) = seen.failing.take() {
                tracing::info!(%since, "this node commits again");
            }
        });
    }

    /// One wasn't, or its answer was lost. The first one is said loudly.
    pub(super) fn failed(&self, error: &sqlx::Error) {
        let why = error.to_string();
        self.0.send_modify(|seen| {
            if seen.failing.is_none() {
                tracing::error!(error = why, "this node can't commit; it tries again");
            }
            let since = seen.failing.as_ref().map_or_else(Timestamp::now, |(since, _)| *since);
            seen.failing = Some((since, why));
        });
    }

    /// Waits until the first was made or failed, at most for so long.
    pub(super) async fn first(&self, limit: Duration) {
        let mut seen = self.0.subscribe();
        let known = seen.wait_for(|seen| seen.last.is_some() || seen.failing.is_some());
        // Nothing known is what its status says, too.
        let _ = timeout(limit, known).await;
    }

    pub(super) fn status(&self) -> CommitStatus {
        let Seen { last, failing } = self.0.borrow().clone();
        let fresh = Duration::from_millis(COMMITTED_MS_MAX);
        let able = last.is_some_and(|(at, _)| at.elapsed() <= fresh);
        let (failing_since, error) = failing.unzip();
        let waits = || (!able).then(|| "the database hasn't answered a commit yet".to_owned());
        let last = last.map(|(_, at)| at);
        CommitStatus { able, last, failing_since, error: error.or_else(waits) }
    }
}
