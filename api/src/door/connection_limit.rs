//! How many connections of a listener are served at once.
//!
//! A connection costs memory whether it asks for anything or not, so their number is limited. When
//! the limit is near, every answer to a device closes its connection, and others get theirs fast.
//! When it is reached, a few more connections overflow it: they are still read, so that people get
//! their answers and devices a time to come back. What comes then waits in the kernel's queue,
//! moments as long as answers close connections. Whoever keeps silent makes room first.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{crowd::Crowd, limits::SILENT_MIN, visit::Whose};

/// The limit is near when less than one part in so many is left.
const NEAR_SHARE: usize = 4;

/// How long a connection that has to go may take to do so.
const ROOM_WAIT: Duration = Duration::from_millis(50);

/// A request on a connection that overflows the limit: only people are admitted on it, once.
#[derive(Debug, Clone, Copy)]
pub struct Overflow;

/// The limit of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    max: usize,
    within: Arc<Semaphore>,
    overflow: Arc<Semaphore>,
    silent: Crowd<Whose>,
}

/// Counts as one connection until it is dropped.
#[derive(Debug)]
pub struct Counted {
    _permit: Option<OwnedSemaphorePermit>,
    /// Whether it overflows the limit.
    pub is_overflow: bool,
}

impl ConnectionLimit {
    /// `max` connections, and `overflow` more for people and refusals.
    pub fn new(max: usize, overflow_max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        let [within, overflow] = [max, overflow_max].map(|most| Arc::new(Semaphore::new(most)));
        Self { max, within, overflow, silent: Crowd::new(max.saturating_add(overflow_max)) }
    }

    /// The connections of which no request is being answered.
    pub fn silent(&self) -> &Crowd<Whose> {
        &self.silent
    }

    /// Waits until one more may be served, within the limit if it can.
    pub async fn acquire(&self) -> Counted {
        loop {
            let makes_room =
                self.within.available_permits() == 0 && self.silent.turn_out_one(SILENT_MIN);
            let within = Arc::clone(&self.within).acquire_owned();
            // Nobody closes these semaphores.
            if makes_room && let Ok(permit) = tokio::time::timeout(ROOM_WAIT, within).await {
                return Counted { _permit: permit.ok(), is_overflow: false };
            }
            let (within, overflow) = (Arc::clone(&self.within), Arc::clone(&self.overflow));
            let (permit, is_overflow) = tokio::select! {
                biased;
                permit = within.acquire_owned() => (permit, false),
                permit = overflow.acquire_owned() => (permit, true),
                // Somebody may have been silent for long enough by now.
                () = tokio::time::sleep(SILENT_MIN) => continue,
            };
            return Counted { _permit: permit.ok(), is_overflow };
        }
    }

    /// Whether answers should close their connections.
    pub fn is_near(&self) -> bool {
        self.within.available_permits() < self.max / NEAR_SHARE
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_limit_comes_near_and_then_only_the_overflow_is_left() {
        let limit = ConnectionLimit::new(8, 1);
        let mut open = Vec::new();
        for _ in 0..8 {
            assert_eq!(limit.is_near(), open.len() > 6);
            open.push(limit.acquire().await);
        }
        assert!(open.iter().all(|connection| !connection.is_overflow));
        let last = limit.acquire().await;
        assert!(last.is_overflow);
        assert!(limit.acquire().now_or_never().is_none());
        drop(open.pop());
        assert!(!limit.acquire().await.is_overflow);
    }
}
