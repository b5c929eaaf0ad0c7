//! What happens in a storm, counted as it happens: a row a second, and durations by class of call.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use punchtrail_device::{client::CallError, drain::lane::Errand};
use serde::{Deserialize, Serialize};

use crate::percentiles::Durations;

/// The most seconds that have a row of their own; what comes later is counted in the last.
const SECONDS_MAX: usize = 86_400;

/// One second after the gate opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    pub acknowledged: u64,
    /// Photos that the server has now.
    pub photos: u64,
    /// Punches that wait at its end.
    pub outstanding: u64,
    pub batches: u64,
    pub heartbeats: u64,
    pub manifests: u64,
    pub busy_503: u64,
    pub busy_429: u64,
    pub refused: u64,
    /// Calls without an answer, or without one that makes sense.
    pub unanswered: u64,
    /// Calls that follow a failed one of the same device.
    pub retries: u64,
}

/// Everything counted.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// A row a second, without `outstanding`.
    pub seconds: Vec<Second>,
    pub batches: Durations,
    pub heartbeats: Durations,
    pub manifests: Durations,
    pub photos: Durations,
    /// Calls of any class that were refused as busy: how soon a device is told.
    pub sheds: Durations,
    pub failures: BTreeMap<String, u64>,
    pub calls: u64,
    pub in_flight: u64,
    pub in_flight_max: u64,
    /// Punches sent, each time counted.
    pub items_sent: u64,
    /// Batches sent once more on purpose.
    pub batches_twice: u64,
    pub garbage_sent: u64,
    /// Items of garbage answered with anything but `quarantined`.
    pub garbage_taken: u64,
    /// Times that a device's folder refused.
    pub store_failures: u64,
    /// What waited when the gate opened.
    pub outstanding: u64,
    /// Of it, what is acknowledged.
    pub acknowledged: u64,
    /// Photos that waited when the gate opened.
    pub photos_outstanding: u64,
    /// Of them, what the server has.
    pub photos_put: u64,
    /// Times that a photo was refused for what it is, and as busy.
    pub photos_refused: u64,
    pub photos_busy: u64,
    /// When the last punch was acknowledged and the last photo put, since the gate opened.
    pub last_punch: Duration,
    pub last_photo: Duration,
}

/// Counts.
#[derive(Debug)]
pub struct Meter {
    tally: Mutex<(Instant, Tally)>,
}

impl Meter {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { tally: Mutex::new((Instant::now(), Tally::default())) }
    }

    fn lock(&self) -> MutexGuard<'_, (Instant, Tally)> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gate opens now; `outstanding` punches and `photos` wait.
    pub fn open_gate(&self, outstanding: u64, photos: u64) {
        let waiting = Tally { outstanding, photos_outstanding: photos, ..Tally::default() };
        *self.lock() = (Instant::now(), waiting);
    }

    /// Since the gate opened.
    pub fn elapsed(&self) -> Duration {
        self.lock().0.elapsed()
    }

    /// What was counted so far.
    pub fn tally(&self) -> Tally {
        self.lock().1.clone()
    }

    /// Punches outstanding, acknowledged, and calls shed so far, for whoever watches.
    pub fn glance(&self) -> (u64, u64) {
        let tally = &self.lock().1;
        let sheds = tally.seconds.iter().map(|second| second.busy_503 + second.busy_429).sum();
        (tally.acknowledged, sheds)
    }

    /// Counts something beside calls.
    pub fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.lock().1);
    }

    /// A call starts; `retry` when the same device's last one failed.
    pub fn asked(&self, retry: bool) {
        let mut counted = self.lock();
        let (start, tally) = &mut *counted;
        tally.calls += 1;
        tally.in_flight += 1;
        tally.in_flight_max = tally.in_flight_max.max(tally.in_flight);
        tally.at(start.elapsed()).retries += u64::from(retry);
    }

    /// A call ended after `took`.
    pub fn answered(&self, errand: Errand, took: Duration, failure: Option<&CallError>) {
        let mut counted = self.lock();
        let (start, tally) = &mut *counted;
        tally.settle(start.elapsed(), errand, took, failure);
    }

    /// A call was given up when the time was over.
    pub fn abandoned(&self) {
        self.count(|tally| tally.in_flight = tally.in_flight.saturating_sub(1));
    }

    /// Punches are acknowledged in their device's file.
    pub fn acknowledged(&self, punches: u64) {
        let mut counted = self.lock();
        let (start, tally) = &mut *counted;
        tally.acknowledged += punches;
        tally.at(start.elapsed()).acknowledged += punches;
        if punches > 0 {
            tally.last_punch = start.elapsed();
        }
    }

    /// A photo is stored, by its device's file.
    pub fn photo_put(&self) {
        let mut counted = self.lock();
        let (start, tally) = &mut *counted;
        tally.photos_put += 1;
        tally.at(start.elapsed()).photos += 1;
        tally.last_photo = start.elapsed();
    }
}

impl Tally {
    fn at(&mut self, elapsed: Duration) -> &mut Second {
        let second = (elapsed.as_secs() as usize).min(SECONDS_MAX - 1);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        &mut self.seconds[second]
    }

    fn settle(
        &mut self,
        elapsed: Duration,
        errand: Errand,
        took: Duration,
        failure: Option<&CallError>,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let Some(error) = failure else {
            let (durations, second): (_, fn(&mut Second) -> &mut u64) = match errand {
                Errand::Batch(_) => (&mut self.batches, |second| &mut second.batches),
                Errand::Heartbeat => (&mut self.heartbeats, |second| &mut second.heartbeats),
                Errand::Walk => (&mut self.manifests, |second| &mut second.manifests),
                // Its row counts it once its device knows.
                Errand::Photo => return self.photos.add_us(took_us),
                // No simulated device retakes a picture or objects, and commands are no load to
                // measure.
                Errand::Attachment | Errand::Commands | Errand::Dispute => return,
            };
            durations.add_us(took_us);
            *second(self.at(elapsed)) += 1;
            return;
        };
        *self.failures.entry(error.code().to_owned()).or_default() += 1;
        if matches!(error, CallError::Busy { .. }) {
            self.sheds.add_us(took_us);
        }
        if errand == Errand::Photo {
            self.photos_busy += u64::from(matches!(error, CallError::Busy { .. }));
            self.photos_refused += u64::from(matches!(error, CallError::Refused { .. }));
        }
        let second = self.at(elapsed);
        match error {
            CallError::Busy { code, .. } if code == "busy" => second.busy_503 += 1,
            CallError::Busy { .. } => second.busy_429 += 1,
            CallError::Refused { .. } => second.refused += 1,
            CallError::Unreachable(_) | CallError::Silent(_) | CallError::Senseless { .. } => {
                second.unanswered += 1;
            }
        }
    }

    /// The rows, each with what waited at its end.
    pub fn series(&self) -> Vec<Second> {
        let mut outstanding = self.outstanding;
        self.seconds
            .iter()
            .map(|second| {
                outstanding = outstanding.saturating_sub(second.acknowledged);
                Second { outstanding, ..*second }
            })
            .collect()
    }
}

/// Counts a call that may be given up on the way.
struct Measured<'a> {
    meter: &'a Meter,
    over: bool,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.meter.abandoned();
        }
    }
}

/// Makes a call and counts it; `retry` when the same device's last one failed.
pub async fn measured<T>(
    meter: &Meter,
    errand: Errand,
    retry: bool,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    meter.asked(retry);
    let mut measured = Measured { meter, over: false };
    let since = Instant::now();
    let ended = call.await;
    measured.over = true;
    meter.answered(errand, since.elapsed(), ended.as_ref().err());
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn busy(code: &str) -> CallError {
        CallError::Busy { code: code.to_owned(), detail: String::new(), retry_after: None }
    }

    #[test]
    fn calls_land_in_their_second_and_class() {
        let mut tally = Tally::default();
        tally.settle(S / 2, Errand::Heartbeat, S / 10, None);
        tally.settle(S * 2, Errand::Batch(1), S, None);
        tally.settle(S * 2, Errand::Batch(1), S / 4, Some(&busy("busy")));
        tally.settle(S * 2, Errand::Batch(1), S / 4, Some(&busy("one_at_a_time")));
        tally.settle(S * 3, Errand::Walk, S, Some(&CallError::Unreachable("cut".to_owned())));
        let rows = tally.series();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0], Second { heartbeats: 1, ..Second::default() });
        assert_eq!(rows[1], Second::default());
        assert_eq!(rows[2], Second { batches: 1, busy_503: 1, busy_429: 1, ..Second::default() });
        assert_eq!(rows[3], Second { unanswered: 1, ..Second::default() });
        let counts = [&tally.batches, &tally.heartbeats, &tally.manifests, &tally.sheds]
            .map(|durations| durations.percentiles().count);
        assert_eq!(counts, [1, 1, 0, 2]);
        assert_eq!(tally.failures["one_at_a_time"], 1);
    }

    #[test]
    fn outstanding_goes_down_with_what_is_acknowledged() {
        let mut tally = Tally { outstanding: 10, ..Tally::default() };
        tally.at(S).acknowledged += 4;
        tally.at(S * 3).acknowledged += 6;
        let outstanding: Vec<u64> = tally.series().iter().map(|row| row.outstanding).collect();
        assert_eq!(outstanding, [10, 6, 6, 0]);
    }
}
