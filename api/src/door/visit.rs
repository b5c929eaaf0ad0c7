//! A connection while it is served: whose it is, and whether anything of worth has come over it.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use super::{
    crowd::{Crowd, Member},
    gate::Standing,
    limits::{SILENT_OF_CALLER_MAX, SILENT_OF_ORIGIN_MAX, SILENT_OF_REVOKED_MAX},
};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Who is counted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Everybody who comes from there without good credentials.
    Origin(IpAddr),
    /// Whoever has these credentials, by their hash.
    Caller(u64),
}

/// A connection. While no request of it is being answered it is one of the silent, of whom the
/// oldest have to go when there are too many. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Visit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    number: u64,
    peer: IpAddr,
    silent: Crowd<Whose>,
    out: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    /// Whose it is, and how many silent ones they may have; none for a trusted proxy's, which
    /// carries everybody.
    whose: Option<(Whose, usize)>,
    silent: Option<Member<Whose>>,
}

/// A request of a connection, until it is dropped.
#[derive(Debug)]
pub struct InFlight(Visit);

impl Visit {
    /// A connection of `peer`, whose it is until a request of it has good credentials; none for a
    /// trusted proxy.
    pub fn new(peer: IpAddr, origin: Option<IpAddr>, silent: &Crowd<Whose>) -> Self {
        let whose = origin.map(|origin| (Whose::Origin(origin), SILENT_OF_ORIGIN_MAX));
        let visit = Self(Arc::new(Inner {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            peer,
            silent: silent.clone(),
            out: CancellationToken::new(),
            state: Mutex::new(State { in_flight: 0, whose, silent: None }),
        }));
        visit.fall_silent(&mut visit.state());
        visit
    }

    /// Its number among all connections.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Who is at its other end.
    pub fn peer(&self) -> IpAddr {
        self.0.peer
    }

    /// Until it has to go.
    pub async fn turned_out(&self) {
        self.0.out.cancelled().await;
    }

    /// A request came.
    pub fn request(&self) -> InFlight {
        let mut state = self.state();
        state.in_flight += 1;
        state.silent = None;
        InFlight(self.clone())
    }

    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        self.state().in_flight > 0
    }

    /// A request of it had good credentials.
    pub fn is_of(&self, caller: u64, standing: Standing) {
        let each_max = match standing {
            Standing::Revoked => SILENT_OF_REVOKED_MAX,
            _ => SILENT_OF_CALLER_MAX,
        };
        if let Some(whose) = &mut self.state().whose {
            *whose = (Whose::Caller(caller), each_max);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fall_silent(&self, state: &mut State) {
        let Inner { silent, out, .. } = &*self.0;
        state.silent = state.whose.map(|(whose, max)| silent.join(whose, max, out.clone()));
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            self.0.fall_silent(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_connection_is_silent_between_its_requests() {
        let (silent, peer) = (Crowd::new(8), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let visit = Visit::new(peer, Some(peer), &silent);
        assert_eq!(silent.count(), 1);
        let (first, second) = (visit.request(), visit.request());
        drop(first);
        assert_eq!(silent.count(), 0);
        drop(second);
        assert_eq!(silent.count(), 1);
        drop(visit);
        assert_eq!(silent.count(), 0);
        let proxy = Visit::new(peer, None, &silent);
        drop(proxy.request());
        assert_eq!(silent.count(), 0);
    }

    #[test]
    fn the_silent_of_a_caller_are_its_own() {
        let (silent, peer) = (Crowd::new(1_000), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (max, more) = (SILENT_OF_REVOKED_MAX * 8, 2);
        let visits: Vec<_> = (0..max + more)
            .map(|_| {
                let visit = Visit::new(peer, Some(peer), &silent);
                let request = visit.request();
                visit.is_of(7, Standing::Revoked);
                drop(request);
                visit
            })
            .collect();
        assert_eq!(silent.count(), max);
        let turned_out = visits.iter().filter(|visit| visit.0.out.is_cancelled()).count();
        assert_eq!(turned_out, 2);
        assert!(visits[..2].iter().all(|visit| visit.0.out.is_cancelled()), "the oldest");
    }
}
