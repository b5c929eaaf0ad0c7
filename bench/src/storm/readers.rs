//! People who read while a storm goes on: explanations, timecards, and searches at a device.
//!
//! An open loop: a read is due every so often, whether or not the one before was answered, and its
//! time counts from when it was due. A server that stalls for a second is asked all the same and
//! pays for every read of that second.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use punchtrail_simulator::percentiles::of_sorted;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep_until};

use super::{Over, setup::Library};

/// Between two reads: 50 a second.
const EVERY: Duration = Duration::from_millis(20);
/// After this a read counts as not answered.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How many days of timecards are asked for.
const DAYS: i64 = 7;

/// What is read, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Explanation,
    /// A person's timecards of a week.
    Timecard,
    /// People by name, at a device.
    Search,
}

const KINDS: [Kind; 3] = [Kind::Explanation, Kind::Timecard, Kind::Search];

/// Readers of one server, their connections kept.
#[derive(Debug, Clone)]
pub struct Readers {
    http: reqwest::Client,
    base: String,
    library: Library,
    days: (String, String),
}

/// How a phase of reading went.
#[derive(Debug, Default, Serialize)]
pub struct Phase {
    pub all: Latency,
    pub by_kind: BTreeMap<Kind, Latency>,
    /// Reads that weren't answered as they should be: by status, or by what happened instead.
    pub failed: BTreeMap<String, u64>,
}

/// Of answered reads, from when they were due, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    pub answered: usize,
    /// Half of them took no longer.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Reads from a storm's beginning.
#[derive(Debug, Default, Serialize)]
pub struct Storm {
    /// Due while devices delivered.
    pub during: Phase,
    /// Due after that, if there were too few before.
    pub after: Phase,
}

/// One read.
struct Read {
    kind: Kind,
    took: Duration,
    failure: Option<String>,
}

impl Readers {
    /// Readers of the server at `base`, who have read each kind once.
    ///
    /// # Errors
    /// When that isn't answered.
    pub async fn new(base: &str, library: &Library) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(ANSWER_WAIT).no_proxy().build()?;
        let today = jiff::Zoned::now().date();
        let from = today.checked_sub(jiff::Span::new().days(DAYS))?;
        let days = (from.to_string(), today.tomorrow()?.to_string());
        let readers = Self { http, base: base.to_owned(), library: library.clone(), days };
        for kind in KINDS {
            let read = readers.read(kind, 0, Instant::now()).await;
            ensure!(read.failure.is_none(), "{kind:?} isn't answered: {:?}", read.failure);
        }
        Ok(readers)
    }

    /// Reads so many times.
    ///
    /// # Errors
    /// When a part of this program fails; the server's failures are counted.
    pub async fn idle(&self, reads: usize) -> anyhow::Result<Phase> {
        let over = Over::default();
        over.set();
        Ok(self.storm(reads, &over).await?.after)
    }

    /// Reads on until it is `over`, and `reads_min` reads at least.
    ///
    /// # Errors
    /// When a part of this program fails; the server's failures are counted.
    pub async fn storm(&self, reads_min: usize, over: &Over) -> anyhow::Result<Storm> {
        let start = Instant::now();
        let mut reading = JoinSet::new();
        let (mut during, mut after) = (Vec::new(), Vec::new());
        let mut sort = |(within, read): (bool, Read)| {
            if within { during.push(read) } else { after.push(read) }
        };
        for (number, kind) in KINDS.into_iter().cycle().enumerate() {
            if number >= reads_min && over.is_set() {
                break;
            }
            let due = start + EVERY * u32::try_from(number)?;
            sleep_until(due.into()).await;
            let (readers, within) = (self.clone(), !over.is_set());
            reading.spawn(async move { (within, readers.read(kind, number, due).await) });
            while let Some(read) = reading.try_join_next() {
                sort(read?);
            }
        }
        while let Some(read) = reading.join_next().await {
            sort(read?);
        }
        Ok(Storm { during: Phase::of(&during), after: Phase::of(&after) })
    }

    /// What the server at `base` counted.
    ///
    /// # Errors
    /// When it isn't answered.
    pub async fn metrics(base: &str, library: &Library) -> anyhow::Result<String> {
        let asked = reqwest::Client::new()
            .get(format!("{base}/metrics"))
            .bearer_auth(&library.operator_key)
            .timeout(ANSWER_WAIT);
        Ok(asked.send().await?.error_for_status()?.text().await?)
    }

    async fn read(&self, kind: Kind, number: usize, due: Instant) -> Read {
        let failure = self.ask(kind, number).await.err().map(|error| error.to_string());
        Read { kind, took: due.elapsed(), failure }
    }

    async fn ask(&self, kind: Kind, number: usize) -> anyhow::Result<()> {
        let (base, library) = (&self.base, &self.library);
        let (url, token) = match kind {
            Kind::Explanation => {
                let punch = turn(&library.punches, number)?;
                (format!("{base}/v1/punches/{punch}/explanation"), &library.operator_key)
            }
            Kind::Timecard => {
                let (employee, (from, to)) = (turn(&library.people, number)?, &self.days);
                let query = format!("employee={employee}&from={from}&to={to}");
                (format!("{base}/v1/timecards?{query}"), &library.operator_key)
            }
            Kind::Search => {
                let (token, site) = &library.device;
                let typed = [("q", turn(&library.names, number)?)];
                let people = format!("{base}/v1/sites/{site}/employees");
                (reqwest::Url::parse_with_params(&people, typed)?.into(), token)
            }
        };
        let request = self.http.get(url).bearer_auth(token);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => anyhow::bail!(unanswered(&error)),
        };
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| anyhow::anyhow!(unanswered(&error)))?;
        ensure!(status.is_success(), "{}", status.as_u16());
        ensure!(!body.is_empty(), "empty");
        Ok(())
    }
}

/// The one whose turn it is. A prime's steps, so that neighbours aren't read one after the other.
fn turn<T>(all: &[T], number: usize) -> anyhow::Result<&T> {
    all.get(number * 7_919 % all.len().max(1)).context("something to read")
}

fn unanswered(error: &reqwest::Error) -> &'static str {
    match error {
        error if error.is_timeout() => "timeout",
        error if error.is_connect() => "no connection",
        _ => "broken off",
    }
}

impl Phase {
    fn of(reads: &[Read]) -> Self {
        let mut failed = BTreeMap::new();
        for failure in reads.iter().filter_map(|read| read.failure.as_ref()) {
            *failed.entry(failure.clone()).or_default() += 1;
        }
        let of = |wanted: &dyn Fn(Kind) -> bool| {
            let answered = reads.iter().filter(|read| read.failure.is_none() && wanted(read.kind));
            Latency::of(answered.map(|read| read.took).collect())
        };
        let by_kind = KINDS.map(|kind| (kind, of(&|other| other == kind))).into();
        Self { all: of(&|_| true), by_kind, failed }
    }

    /// How many reads weren't answered as they should be.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl Latency {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |share| of_sorted(&took, share).unwrap_or_default().as_secs_f64() * 1_000.0;
        Self { answered: took.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_read_is_counted_and_has_no_latency() {
        let read = |kind, ms, failure: Option<&str>| Read {
            kind,
            took: Duration::from_millis(ms),
            failure: failure.map(str::to_owned),
        };
        let mut reads: Vec<Read> = (1..=99).map(|ms| read(Kind::Timecard, ms, None)).collect();
        reads.push(read(Kind::Search, 400, None));
        reads.push(read(Kind::Search, 9_000, Some("503")));
        let phase = Phase::of(&reads);
        assert_eq!(phase.failures(), 1);
        let all = Latency { answered: 100, p50_ms: 50.0, p99_ms: 99.0, max_ms: 400.0 };
        assert_eq!(phase.all, all);
        assert_eq!(phase.by_kind[&Kind::Search].answered, 1);
        assert_eq!(phase.by_kind[&Kind::Explanation], Latency::default());
    }
}
