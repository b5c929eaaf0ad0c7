//! A few threads for what takes a core for some milliseconds.
//!
//! They aren't those of tokio's that wait for files: of those there may be hundreds, each next
//! piece of work goes to another, and each thread keeps for later what it once allocated. A
//! decoded picture is some megabytes.

use std::thread::available_parallelism;

use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

/// As many threads as the machine has cores, for work that waits for nothing. Who waits for one
/// and is dropped gives up its place.
#[derive(Debug)]
pub struct Cores {
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
#[error("work on a core broke off: {0}")]
pub struct BrokeOff(String);

impl Cores {
    /// Makes them; the threads start with the first work.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start() -> Result<Self, NoThreads> {
        let count = available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = Builder::new_current_thread()
            .max_blocking_threads(count)
            .thread_name("punchtrail-core")
            .build()?;
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

impl Drop for Cores {
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
    async fn no_more_threads_work_than_there_are_cores() {
        let cores = Arc::new(Cores::start().unwrap());
        let working = (0..200).map(|_| {
            let cores = Arc::clone(&cores);
            async move { cores.run(|| thread::current().id()).await.unwrap() }
        });
        let seen: HashSet<_> = futures::future::join_all(working).await.into_iter().collect();
        assert!(seen.len() <= available_parallelism().unwrap().get(), "{seen:?}");
    }

    #[tokio::test]
    async fn work_that_panics_takes_no_thread_with_it() {
        let cores = Cores::start().unwrap();
        for _ in 0..20 {
            assert!(cores.run(|| panic!("on purpose")).await.is_err());
        }
        assert_eq!(cores.run(|| 1).await.unwrap(), 1);
    }
}
