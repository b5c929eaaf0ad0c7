//! How long it takes from a punch to its verdict, at given rates, and the highest rate that holds.
//!
//! An open loop: a punch is due every so often, whether or not the ones before have their verdicts.
//! A device does one punch after the other (the punch, its photo, then it waits as a worker does);
//! a punch that finds no device free begins late, and its delays count from when it was due.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use punchtrail_simulator::percentiles::of_sorted;
use punchtrail_testkit::Faces;
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{interval, sleep_until},
};

use super::{
    Options,
    door::{Busy, Door, Site},
    say,
    search::{Search, grows},
};
use crate::database::Cluster;

/// Between two looks at how many punches wait for their verdict.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Punches before the first rate: connections, the cache of references.
const WARM_UP: Duration = Duration::from_secs(4);
const WARM_UP_RATE: f64 = 2.0;
/// Where the search begins when no rate was given.
const SEARCH_FROM: f64 = 10.0;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Delay {
    pub devices: usize,
    /// At the rates that were asked for.
    pub runs: Vec<Run>,
    /// At those that the search tried.
    pub search: Vec<Run>,
    /// In punches a second.
    pub highest_that_holds: Option<f64>,
}

/// One rate.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Punches a second.
    pub rate: f64,
    pub punches: usize,
    pub verdicts: usize,
    /// Punches without a verdict, by why.
    pub failures: BTreeMap<String, usize>,
    /// Calls that were refused as busy and made again.
    pub busy: u64,
    /// How late the latest punch began, in milliseconds.
    pub late_max_ms: f64,
    /// From when the punch was due.
    pub from_due: Of,
    /// From when it was acknowledged, and how late it had begun.
    pub from_punch: Of,
    /// From when the photo was acknowledged, and how late the punch had begun.
    pub from_photo: Of,
    /// Punches due that had no verdict, four times a second until the last was due.
    pub backlog: Vec<u64>,
    /// Whether that grew.
    pub grows: bool,
}

/// Until the verdict, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Of {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub max_ms: f64,
}

impl Of {
    fn among(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share| of_sorted(&times, share).unwrap_or_default().as_secs_f64() * 1_000.0;
        Self { p50_ms: at(0.5), p95_ms: at(0.95), max_ms: at(1.0) }
    }
}

impl Run {
    /// How many got no verdict.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    fn holds(&self) -> bool {
        !self.grows && self.failures.is_empty()
    }
}

/// One punch's times.
struct Times {
    due: Instant,
    began: Instant,
    acknowledged: Instant,
    put: Instant,
    judged: Instant,
}

impl Times {
    fn late(&self) -> Duration {
        self.began - self.due
    }
}

/// The devices, of which each is at one punch at a time.
struct Crowd {
    free: Semaphore,
    doors: Mutex<Vec<Door>>,
    busy: Busy,
}

impl Crowd {
    fn doors(&self) -> std::sync::MutexGuard<'_, Vec<Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A punch that is due now, from its press to its verdict.
    async fn punch(&self, due: Instant) -> anyhow::Result<Times> {
        let _turn = self.free.acquire().await?;
        let began = Instant::now();
        let Some(mut door) = self.doors().pop() else { anyhow::bail!("no device is free") };
        let done = self.at(&mut door, due, began).await;
        self.doors().push(door);
        done
    }

    async fn at(&self, door: &mut Door, due: Instant, began: Instant) -> anyhow::Result<Times> {
        let press = door.press(0)?;
        door.deliver(&press, &self.busy).await?;
        let acknowledged = Instant::now();
        door.put(&press, &self.busy).await?;
        let put = Instant::now();
        door.verdict(&press, &self.busy).await?;
        Ok(Times { due, began, acknowledged, put, judged: Instant::now() })
    }
}

/// Measures it.
pub async fn measure(cluster: &Cluster, faces: &Faces, options: &Options) -> anyhow::Result<Delay> {
    let checking = ["--face-checks", "local"];
    let mut site = Site::open(cluster, faces, options.devices, &checking, &[]).await?;
    let doors = std::mem::take(&mut site.doors);
    let crowd = Arc::new(Crowd {
        free: Semaphore::new(doors.len()),
        doors: Mutex::new(doors),
        busy: Busy::default(),
    });
    at_rate(&crowd, WARM_UP_RATE, WARM_UP).await?;
    let mut delay = Delay {
        devices: options.devices,
        runs: Vec::new(),
        search: Vec::new(),
        highest_that_holds: None,
    };
    for rate in &options.rates {
        let run = at_rate(&crowd, *rate, Duration::from_secs(options.seconds)).await?;
        delay.runs.push(run);
    }
    if options.search_s > 0 {
        search(&crowd, Duration::from_secs(options.search_s), &mut delay).await?;
    }
    site.close(cluster).await?;
    Ok(delay)
}

/// Looks for the highest rate that holds, from what the given rates showed.
async fn search(crowd: &Arc<Crowd>, within: Duration, delay: &mut Delay) -> anyhow::Result<()> {
    let highest = delay.runs.iter().map(|run| run.rate).fold(0.0, f64::max);
    let mut search = Search::from(if highest > 0.0 { highest } else { SEARCH_FROM });
    for run in &delay.runs {
        search.note(run.rate, run.holds());
    }
    while let Some(rate) = search.next() {
        let run = at_rate(crowd, rate, within).await?;
        search.note(rate, run.holds());
        delay.search.push(run);
    }
    delay.highest_that_holds = search.held;
    Ok(())
}

/// Punches at one rate, and waits for all their verdicts.
async fn at_rate(crowd: &Arc<Crowd>, rate: f64, within: Duration) -> anyhow::Result<Run> {
    let punches = ((rate * within.as_secs_f64()).round() as usize).max(1);
    let (start, busy_before) = (Instant::now(), crowd.busy.load(Ordering::Relaxed));
    let due_at = |nth: usize| start + Duration::from_secs_f64(nth as f64 / rate);
    let (due, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let looking = tokio::spawn(look(Arc::clone(&due), Arc::clone(&done), start + within));
    let mut pressing = JoinSet::new();
    for nth in 0..punches {
        let at = due_at(nth);
        sleep_until(at.into()).await;
        due.fetch_add(1, Ordering::Relaxed);
        let (crowd, done) = (Arc::clone(crowd), Arc::clone(&done));
        pressing.spawn(async move {
            let times = crowd.punch(at).await;
            done.fetch_add(1, Ordering::Relaxed);
            times
        });
    }
    let backlog = looking.await?;
    let (mut times, mut failures) = (Vec::new(), BTreeMap::new());
    while let Some(ended) = pressing.join_next().await {
        match ended? {
            Ok(of_one) => times.push(of_one),
            Err(error) => *failures.entry(format!("{error:#}")).or_default() += 1,
        }
    }
    let of = |from: fn(&Times) -> Duration| Of::among(times.iter().map(from).collect());
    let run = Run {
        rate,
        punches,
        verdicts: times.len(),
        failures,
        busy: crowd.busy.load(Ordering::Relaxed) - busy_before,
        late_max_ms: of(Times::late).max_ms,
        from_due: of(|times| times.judged - times.due),
        from_punch: of(|times| times.judged - times.acknowledged + times.late()),
        from_photo: of(|times| times.judged - times.put + times.late()),
        grows: grows(&backlog, punches as f64),
        backlog,
    };
    let Of { p50_ms, p95_ms, .. } = run.from_punch;
    let fared = if run.holds() { "holds" } else { "doesn't hold" };
    say(&format!("{rate:.2} punches/s: {p50_ms:.0} ms, 95 of 100 {p95_ms:.0} ms; {fared}"));
    Ok(run)
}

/// How many wait for their verdict, looked at until then.
async fn look(due: Arc<AtomicU64>, done: Arc<AtomicU64>, until: Instant) -> Vec<u64> {
    let (mut backlog, mut looks) = (Vec::new(), interval(LOOK_EVERY));
    while Instant::now() < until {
        looks.tick().await;
        // In this order: what is due meanwhile isn't done before it.
        let done = done.load(Ordering::Relaxed);
        backlog.push(due.load(Ordering::Relaxed).saturating_sub(done));
    }
    backlog
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank_and_none_is_nothing() {
        let times = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(Of::among(times), Of { p50_ms: 50.0, p95_ms: 95.0, max_ms: 100.0 });
        assert_eq!(Of::among(Vec::new()), Of::default());
    }
}
