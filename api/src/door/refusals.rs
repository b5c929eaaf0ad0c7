//! A line in the log for every refusal, and no flood of them.
//!
//! The first refusals of a kind to one client each have a line, with the request's id. Beyond them,
//! and beyond as many of a kind to all clients, they are counted, and told once a minute by one
//! line a kind: how many, to how many clients, to whom most. So ten thousand clients that are
//! refused at once write as little as one that asks ten thousand times.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// How long refusals are counted together.
const ROUND: Duration = Duration::from_secs(60);
/// Between two looks whether a round is over.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Lines of one kind to one client, within a round.
const LINES_EACH_MAX: u64 = 5;
/// Lines of one kind to all clients.
const LINES_MAX: u64 = 100;
/// Clients that are told apart within a round.
const CLIENTS_MAX: usize = 4_096;
/// Stands for all beyond them.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Counts refusals. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Refusals(Arc<Mutex<Round>>);

#[derive(Debug)]
struct Round {
    began: Instant,
    clients: HashMap<(&'static str, IpAddr), Tally>,
    kinds: HashMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct Tally {
    count: u64,
    hidden: u64,
}

/// What was refused in a round and has no lines of its own.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    code: &'static str,
    more: u64,
    clients: usize,
    most: IpAddr,
    most_count: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Round::new(Instant::now()))))
    }
}

impl Refusals {
    /// Counts a refusal: whether it has a line of its own.
    pub fn count(&self, code: &'static str, client: IpAddr) -> bool {
        self.count_at(code, client, Instant::now())
    }

    fn count_at(&self, code: &'static str, client: IpAddr, now: Instant) -> bool {
        let (has_line, over) = {
            let mut round = self.round();
            let over = round.is_over(now).then(|| round.end(now));
            (round.count(code, client), over)
        };
        told(over.unwrap_or_default());
        has_line
    }

    /// Tells what was counted, now and then, until it is stopped, and at the end.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let now = Instant::now();
            let over = {
                let mut round = self.round();
                round.is_over(now).then(|| round.end(now))
            };
            told(over.unwrap_or_default());
        }
        let last = self.round().end(Instant::now());
        told(last);
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    fn new(began: Instant) -> Self {
        Self { began, clients: HashMap::new(), kinds: HashMap::new() }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= ROUND
    }

    fn count(&mut self, code: &'static str, client: IpAddr) -> bool {
        let is_known = self.clients.contains_key(&(code, client));
        let client = if is_known || self.clients.len() < CLIENTS_MAX { client } else { OTHERS };
        let tally = self.clients.entry((code, client)).or_default();
        let lines = self.kinds.entry(code).or_default();
        tally.count += 1;
        let has_line = tally.count <= LINES_EACH_MAX && *lines < LINES_MAX;
        *lines += u64::from(has_line);
        tally.hidden += u64::from(!has_line);
        has_line
    }

    fn end(&mut self, now: Instant) -> Vec<Summary> {
        let Self { clients, kinds, .. } = std::mem::replace(self, Self::new(now));
        let summary = |code: &'static str| {
            let of_kind = clients.iter().filter(|((kind, _), one)| *kind == code && one.hidden > 0);
            let (more, clients) = of_kind
                .clone()
                .fold((0, 0), |(more, clients), (_, one)| (more + one.hidden, clients + 1));
            let ((_, most), tally) = of_kind.max_by_key(|(_, one)| one.hidden)?;
            Some(Summary { code, more, clients, most: *most, most_count: tally.hidden })
        };
        kinds.into_keys().filter_map(summary).collect()
    }
}

fn told(summaries: Vec<Summary>) {
    for Summary { code, more, clients, most, most_count } in summaries {
        tracing::info!(code, more, clients, %most, most_count, "more were refused alike");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 + n))
    }

    #[test]
    fn one_who_is_refused_ten_thousand_times_has_a_few_lines_and_a_sum() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let lines = (0..10_000).filter(|_| refusals.count_at("invalid", client(1), now)).count();
        assert_eq!(lines as u64, LINES_EACH_MAX);
        assert!(refusals.count_at("not_found", client(1), now), "another kind");
        assert!(refusals.count_at("invalid", client(2), now), "another client");
        let expected = Summary {
            code: "invalid",
            more: 10_000 - LINES_EACH_MAX,
            clients: 1,
            most: client(1),
            most_count: 10_000 - LINES_EACH_MAX,
        };
        assert_eq!(refusals.round().end(now), [expected]);
        assert!(refusals.count_at("invalid", client(1), now), "a new round");
    }

    #[test]
    fn ten_thousand_clients_write_no_more() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let lines = (0..10_000).filter(|n| refusals.count_at("busy", client(*n), now)).count();
        assert_eq!(lines as u64, LINES_MAX);
        assert!(refusals.round().clients.len() <= CLIENTS_MAX + 1);
        let ended = refusals.round().end(now);
        assert_eq!((ended.len(), ended[0].more), (1, 10_000 - LINES_MAX));
        let later = now + ROUND;
        assert!(refusals.count_at("busy", client(1), later));
    }
}
