//! Those who wait for something that few may have at once, each origin for itself: one of an
//! origin at a time, in the order they came, and where too many of an origin wait, the connections
//! of which most wait have to give way to the others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Member};

/// Origins of which some wait.
const ORIGINS_MAX: usize = 4_096;

/// Where a request comes from: its origin, and the number of its connection.
pub type Place = (IpAddr, u64);

/// Those who wait. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waiters {
    each_max: usize,
    lines: Arc<Mutex<HashMap<IpAddr, Line>>>,
}

/// Those of an origin.
#[derive(Debug)]
struct Line {
    waiting: Crowd<u64>,
    front: Arc<Semaphore>,
    /// Whoever waits or is in front.
    count: usize,
}

/// One who waits, and then is the one in front of its origin, until it is dropped.
#[derive(Debug)]
pub struct Waiter {
    waiters: Waiters,
    origin: IpAddr,
    out: CancellationToken,
    member: Option<Member<u64>>,
    front: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Waiters {
    /// At most `each_max` of an origin.
    pub fn new(each_max: usize) -> Self {
        Self { each_max, lines: Arc::default() }
    }

    /// Joins the line of its origin; none when too many origins have one.
    pub fn join(&self, (origin, connection): Place) -> Option<Waiter> {
        let mut lines = self.lines();
        if lines.len() >= ORIGINS_MAX && !lines.contains_key(&origin) {
            return None;
        }
        let line = lines.entry(origin).or_insert_with(|| Line {
            waiting: Crowd::new(self.each_max),
            front: Arc::new(Semaphore::new(1)),
            count: 0,
        });
        line.count += 1;
        let out = CancellationToken::new();
        Some(Waiter {
            waiters: self.clone(),
            origin,
            member: Some(line.waiting.join(connection, self.each_max, out.clone())),
            out,
            front: Arc::clone(&line.front),
            turn: None,
        })
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<IpAddr, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Waits until it is in front of its origin. Whether it got there: it may have to give way.
    pub async fn is_in_front(&mut self) -> bool {
        let front = Arc::clone(&self.front);
        self.turn = tokio::select! {
            biased;
            turn = front.acquire_owned() => turn.ok(),
            () = self.out.cancelled() => None,
        };
        self.member = None;
        self.turn.is_some()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.member = None;
        let mut lines = self.waiters.lines();
        if let Some(line) = lines.get_mut(&self.origin) {
            line.count -= 1;
            if line.count == 0 {
                lines.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::FutureExt;

    use super::*;

    fn from(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
    }

    #[tokio::test]
    async fn each_origin_has_its_own_line_and_there_most_give_way() {
        let waiters = Waiters::new(3);
        let join = |origin, connection| waiters.join((from(origin), connection)).unwrap();
        let mut first = join(1, 1);
        assert!(first.is_in_front().await);
        let mut many: Vec<_> = (0..3).map(|_| join(1, 1)).collect();
        let mut elsewhere = join(2, 5);
        assert!(elsewhere.is_in_front().await);
        let mut other = join(1, 2);
        let gave_way = many[0].is_in_front().now_or_never();
        assert_eq!(gave_way, Some(false), "the oldest of whoever has most");
        drop(first);
        let mut second = many.swap_remove(1);
        assert!(second.is_in_front().await);
        drop((second, many));
        assert!(other.is_in_front().await);
        drop((other, elsewhere));
        assert!(waiters.lines().is_empty());
    }
}
