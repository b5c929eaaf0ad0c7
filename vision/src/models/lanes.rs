//! How many checks run at a time, each on one thread.
//!
//! rten works on a pool of threads that it shares between all callers; two checks at a time would
//! then be cut into pieces that wait for each other. Here each run gets a pool of one thread, and
//! there are only so many of those.

use std::{
    num::NonZero,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use rten::{RunOptions, ThreadPool};

/// A fixed number of threads, lent one at a time.
#[derive(Debug)]
pub struct Lanes {
    free: Mutex<Vec<Arc<ThreadPool>>>,
    returned: Condvar,
}

/// One thread, lent until this is dropped.
pub struct Lane<'a> {
    lanes: &'a Lanes,
    pool: Arc<ThreadPool>,
}

impl Lanes {
    /// Starts so many threads; they rest until they are lent.
    pub fn new(count: NonZero<usize>) -> Self {
        let pools = (0..count.get()).map(|_| Arc::new(ThreadPool::with_num_threads(1)));
        Self { free: Mutex::new(pools.collect()), returned: Condvar::new() }
    }

    /// Waits until one is free. It always comes: a run ends, and what it borrowed is dropped even
    /// if it panics.
    pub fn take(&self) -> Lane<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(pool) = free.pop() {
                return Lane { lanes: self, pool };
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Lane<'_> {
    /// What makes rten run on this thread and no other.
    pub fn run_options(&self) -> RunOptions {
        RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool)))
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let mut free = self.lanes.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(Arc::clone(&self.pool));
        self.lanes.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn never_more_at_a_time_than_there_are_lanes() {
        let lanes = Lanes::new(NonZero::new(2).unwrap());
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lane = lanes.take();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(lanes.free.lock().unwrap().len(), 2);
    }
}
