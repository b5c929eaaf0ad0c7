//! A few threads for one purpose: pictures to be looked at, files to be written.
//!
//! They aren't those that tokio lends to whatever blocks: of those there may be hundreds, each next
//! piece of work goes to another, and each keeps for later what it once allocated. A decoded
//! picture is some megabytes.

use std::{num::NonZero, thread::available_parallelism};

use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

/// So many threads. Who waits for one and is dropped gives up its place.
#[derive(Debug)]
pub struct Threads {
    free: Semaphore,
    /// None once it is dropped.
    threads: Option<Runtime>,
}

/// The system gives no more threads.
#[derive(Debug, thiserror::Error)]
#[error("no threads to be had: {0}")]
pub struct NoThreads(#[from] std::io::Error);

/// The work broke off.
#[derive(Debug, thiserror::Error)]
#[error("work on another thread broke off: {0}")]
pub struct BrokeOff(String);

impl From<BrokeOff> for std::io::Error {
    fn from(error: BrokeOff) -> Self {
        Self::other(error)
    }
}

impl Threads {
    /// As many as the machine has cores, for work that waits for nothing.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn of_cores(name: &str) -> Result<Self, NoThreads> {
        Self::start(name, available_parallelism().map_or(1, NonZero::get))
    }

    /// So many, each started when it is first needed.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(name: &str, count: usize) -> Result<Self, NoThreads> {
        let threads =
            Builder::new_current_thread().max_blocking_threads(count).thread_name(name).build()?;
        Ok(Self { free: Semaphore::new(count), threads: Some(threads) })
    }

    /// Does the work on one of them, in turn.
    ///
    /// # Errors
    /// When it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BrokeOff> {
        let broke = |why: &dyn std::fmt::Display| BrokeOff(why.to_string());
        let _turn = self.free.acquire().await.map_err(|error| broke(&error))?;
        let threads = self.threads.as_ref().ok_or_else(|| broke(&"the threads have ended"))?;
        threads.spawn_blocking(work).await.map_err(|error| broke(&error))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The last one may be dropped where nobody may wait.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc, thread};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_threads_work_than_were_asked_for() {
        let threads = Arc::new(Threads::start("test", 3).unwrap());
        let working = (0..200).map(|_| {
            let threads = Arc::clone(&threads);
            async move { threads.run(|| thread::current().id()).await.unwrap() }
        });
        let seen: HashSet<_> = futures::future::join_all(working).await.into_iter().collect();
        assert!(seen.len() <= 3, "{seen:?}");
    }

    #[tokio::test]
    async fn work_that_panics_takes_no_thread_with_it() {
        let threads = Threads::of_cores("test").unwrap();
        for _ in 0..20 {
            assert!(threads.run(|| panic!("on purpose")).await.is_err());
        }
        assert_eq!(threads.run(|| 1).await.unwrap(), 1);
    }
}
