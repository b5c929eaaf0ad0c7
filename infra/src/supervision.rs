//! Long tasks, watched: one that ends or panics is started again, and everybody can see that it
//! was.
//!
//! A task that dies silently is the worst of failures: the server answers, and something is never
//! done again. So every task that lives as long as the server is started here, under a name. When
//! it ends without having been asked to, it is said in the log, counted, shown in readiness until
//! it runs again, and started anew after a pause that grows while it keeps failing.
//!
//! It must never: start a task again after it was asked to stop, or let a panic of one task reach
//! another.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long after its first failure a task is started again.
const RESTART_FIRST: Duration = Duration::from_millis(100);
/// The longest pause before another start.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A task that ran for so long had started well: its next failure counts as a first one.
const SETTLED: Duration = Duration::from_secs(60);

/// What a task is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    pub name: &'static str,
    /// Whether it runs; not between a failure and its next start.
    pub runs: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it last ended unasked.
    pub error: Option<String>,
}

/// The tasks of this node. Cheap to clone; all clones know the same tasks.
#[derive(Debug, Clone, Default)]
pub struct Supervisor(Arc<Mutex<Vec<watch::Receiver<TaskStatus>>>>);

/// A task under supervision.
#[derive(Debug)]
pub struct Supervised(JoinHandle<()>);

impl Supervised {
    /// Waits until it has ended, after its token was cancelled.
    pub async fn settled(self) {
        let _ = self.0.await;
    }
}

impl Supervisor {
    /// Runs what `make` gives, and again whenever that ends, until `stop` is cancelled. The task
    /// itself has to end then. Must be called within a runtime.
    pub fn spawn<F, Task>(&self, name: &'static str, stop: CancellationToken, make: F) -> Supervised
    where
        F: FnMut() -> Task + Send + 'static,
        Task: Future<Output = ()> + Send + 'static,
    {
        let status = TaskStatus { name, runs: true, restarts: 0, error: None };
        let (publish, watched) = watch::channel(status);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.has_changed().is_ok());
        known.push(watched);
        metrics::counter!("punchtrail_task_restarts_total", "task" => name).absolute(0);
        Supervised(tokio::spawn(watch_over(publish, stop, make)))
    }

    /// What the tasks are doing, those that were not asked to stop.
    pub fn status(&self) -> Vec<TaskStatus> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = |task: &&watch::Receiver<TaskStatus>| task.has_changed().is_ok();
        known.iter().filter(here).map(|task| task.borrow().clone()).collect()
    }
}

async fn watch_over<F, Task>(
    status: watch::Sender<TaskStatus>,
    stop: CancellationToken,
    mut make: F,
) where
    F: FnMut() -> Task + Send + 'static,
    Task: Future<Output = ()> + Send + 'static,
{
    let name = status.borrow().name;
    let mut pause = RESTART_FIRST;
    loop {
        let begun = Instant::now();
        // A panic in `make` is the task's, too.
        let ended = AssertUnwindSafe(async { make().await }).catch_unwind().await;
        if stop.is_cancelled() {
            return;
        }
        let error = ended.map_or_else(|panic| said(&*panic), |()| "it ended unasked".to_owned());
        if begun.elapsed() >= SETTLED {
            pause = RESTART_FIRST;
        }
        tracing::error!(task = name, %error, restart_ms = pause.as_millis() as u64, "a task died");
        metrics::counter!("punchtrail_task_restarts_total", "task" => name).increment(1);
        status.send_modify(|status| {
            (status.runs, status.error) = (false, Some(error));
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(RESTART_MAX);
        status.send_modify(|status| {
            (status.runs, status.restarts) = (true, status.restarts + 1);
        });
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use punchtrail_testkit::{PATIENCE, eventually};

    use super::*;

    async fn seen(supervisor: &Supervisor, wanted: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
        eventually("the task's status", PATIENCE, async || {
            Ok(supervisor.status().into_iter().find(&wanted))
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_seen_and_comes_back() {
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let starts = Arc::new(AtomicU64::new(0));
        let (counted, until) = (Arc::clone(&starts), stop.clone());
        let task = supervisor.spawn("clumsy", stop.clone(), move || {
            let (start, until) = (counted.fetch_add(1, Ordering::SeqCst), until.clone());
            async move {
                match start {
                    0 => panic!("the first time"),
                    1 => {}
                    _ => until.cancelled().await,
                }
            }
        });
        let down = seen(&supervisor, |status| !status.runs).await;
        assert_eq!(down.error.as_deref(), Some("it panicked: the first time"));
        let back = seen(&supervisor, |status| status.runs && status.restarts == 2).await;
        assert_eq!(back.error.as_deref(), Some("it ended unasked"), "and why stays to be read");
        stop.cancel();
        task.settled().await;
        assert_eq!(supervisor.status(), [], "it was asked to stop");
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_task_that_is_asked_to_stop_is_not_started_again() {
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let until = stop.clone();
        let task = supervisor.spawn("obedient", stop.clone(), move || {
            let until = until.clone();
            async move { until.cancelled().await }
        });
        seen(&supervisor, |status| status.runs).await;
        stop.cancel();
        task.settled().await;
    }
}
