//! Seats: how many connections of a listener are served at once.
//!
//! A connection costs memory whether it asks for anything or not, so there are only so many. When they
//! become scarce, every answer to a device ends its connection, and seats turn over fast. When there are
//! none left, a few more connections are still read, so that people get their answers and devices a time
//! to come back ([`Beyond`]). What comes then waits in the kernel's queue, moments as long as answers
//! end connections.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Seats are scarce when fewer than one in so many is free.
const SCARCE_SHARE: usize = 4;

/// A connection beyond the seats: only people are let in on it, once.
#[derive(Debug, Clone, Copy)]
pub struct Beyond;

/// An answer that ends its connection, since seats are scarce.
#[derive(Debug, Clone, Copy)]
pub struct Ends;

/// The seats of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Seats {
    max: usize,
    usual: Arc<Semaphore>,
    beyond: Arc<Semaphore>,
}

/// One seat, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
    /// Whether it is one beyond the usual.
    pub beyond: bool,
}

impl Seats {
    /// `max` seats, and `beyond` more for people and refusals.
    pub fn new(max: usize, beyond: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        let [usual, beyond] = [max, beyond].map(|seats| Arc::new(Semaphore::new(seats)));
        Self { max, usual, beyond }
    }

    /// The next free seat, a usual one if there is one.
    pub async fn take(&self) -> Seat {
        let (usual, beyond) = (Arc::clone(&self.usual), Arc::clone(&self.beyond));
        let (permit, beyond) = tokio::select! {
            biased;
            permit = usual.acquire_owned() => (permit, false),
            permit = beyond.acquire_owned() => (permit, true),
        };
        // Nobody closes these semaphores.
        Seat { _permit: permit.ok(), beyond }
    }

    /// Whether connections should end with their answers.
    pub fn are_scarce(&self) -> bool {
        self.usual.available_permits() < self.max / SCARCE_SHARE
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn seats_become_scarce_and_then_only_those_beyond_are_left() {
        let seats = Seats::new(8, 1);
        let mut taken = Vec::new();
        for _ in 0..8 {
            assert_eq!(seats.are_scarce(), taken.len() > 6);
            taken.push(seats.take().await);
        }
        assert!(taken.iter().all(|seat| !seat.beyond));
        let last = seats.take().await;
        assert!(last.beyond);
        assert!(seats.take().now_or_never().is_none());
        drop(taken.pop());
        assert!(!seats.take().await.beyond);
    }
}
