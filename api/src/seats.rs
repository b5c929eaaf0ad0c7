//! Seats: how many connections of a listener are served at once.
//!
//! A connection costs memory whether it asks for anything or not, so there are only so many. When they
//! become scarce, every answer ends its connection, and devices that ask once in a while come anew.
//! When there are none left, a few more connections are still read, so that people get their answers
//! and devices a time to come back instead of silence ([`Beyond`]).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Seats are scarce when fewer than one in so many is free.
const SCARCE_SHARE: usize = 4;

/// A connection beyond the seats: only people are let in on it, once.
#[derive(Debug, Clone, Copy)]
pub struct Beyond;

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
    _permit: OwnedSemaphorePermit,
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

    /// A seat, if there is one.
    pub fn take(&self) -> Option<Seat> {
        let seat = |seats: &Arc<Semaphore>, beyond| {
            let permit = Arc::clone(seats).try_acquire_owned().ok()?;
            Some(Seat { _permit: permit, beyond })
        };
        seat(&self.usual, false).or_else(|| seat(&self.beyond, true))
    }

    /// Whether connections should end with their answers.
    pub fn are_scarce(&self) -> bool {
        self.usual.available_permits() < self.max / SCARCE_SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_become_scarce_and_then_only_those_beyond_are_left() {
        let seats = Seats::new(8, 1);
        let mut taken: Vec<_> = (0..6).filter_map(|_| seats.take()).collect();
        assert!(!seats.are_scarce());
        taken.extend(seats.take());
        assert!(seats.are_scarce());
        taken.extend(seats.take());
        assert!(taken.iter().all(|seat| !seat.beyond));
        let last = seats.take().unwrap();
        assert!(last.beyond);
        assert!(seats.take().is_none());
        drop(taken.pop());
        assert!(!seats.take().unwrap().beyond);
    }
}
