//! Devices that wait for the verdict on a picture, while the worker stands there.
//!
//! One task follows the ledger for all who wait on this node; who waits holds no permit, and one of
//! many is answered at once rather than kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use punchtrail_domain::AggregateType;
use punchtrail_infra::ledger::Feed;
use punchtrail_protocol::{DeviceId, PunchId};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::problem::{Code, Refusal};

/// The most who wait on this node.
const WAITING_MAX: usize = 4_096;
/// Events that are looked at together.
const PAGE_EVENTS: u32 = 1_000;
/// How long the follower rests when nothing comes or the database is away.
const LOOK: Duration = Duration::from_secs(1);

/// Who waits for verdicts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Verdicts(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    devices: HashMap<DeviceId, PunchId>,
    punches: HashMap<PunchId, Arc<Notify>>,
}

/// A device that waits; no longer when dropped.
#[derive(Debug)]
pub struct Waiter {
    verdicts: Verdicts,
    device: DeviceId,
    punch: PunchId,
    news: Arc<Notify>,
}

impl Verdicts {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device begins to wait for news of a punch; none when too many wait already.
    ///
    /// # Errors
    /// When it waits for something already.
    pub fn wait(&self, device: DeviceId, punch: PunchId) -> Result<Option<Waiter>, Refusal> {
        let mut waiting = self.waiting();
        if waiting.devices.contains_key(&device) {
            return Err(one_at_a_time());
        }
        if waiting.devices.len() >= WAITING_MAX {
            return Ok(None);
        }
        waiting.devices.insert(device, punch);
        let news = Arc::clone(waiting.punches.entry(punch).or_default());
        Ok(Some(Waiter { verdicts: self.clone(), device, punch, news }))
    }

    /// Tells those who wait of what happens to their punches, until it is stopped.
    pub async fn follow(self, mut feed: Feed, stop: CancellationToken) {
        let mut at = feed.seen();
        loop {
            let next = feed.wait_beyond(at, Instant::now() + LOOK);
            if stop.run_until_cancelled(next).await.is_none() {
                return;
            }
            let seen = feed.seen();
            if seen < at || self.waiting().punches.is_empty() {
                at = seen;
                continue;
            }
            match feed.read(at, PAGE_EVENTS).await {
                Ok(entries) => {
                    for entry in entries {
                        at = entry.position();
                        let recorded = &entry.recorded;
                        if recorded.aggregate_type == AggregateType::Punch {
                            self.tell(&recorded.aggregate_id);
                        }
                    }
                }
                // Who waits looks again by itself when its time is over.
                Err(error) => {
                    tracing::debug!(%error, "verdicts can't be followed now");
                    at = seen;
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    fn tell(&self, punch: &str) {
        let waiting = self.waiting();
        if let Some(news) = punch.parse().ok().and_then(|punch| waiting.punches.get(&punch)) {
            news.notify_one();
        }
    }
}

impl Waiter {
    /// Waits until something happens to the punch, at most until then. Whether something did.
    pub async fn news(&self, until: Instant) -> bool {
        tokio::time::timeout_at(until, self.news.notified()).await.is_ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.verdicts.waiting();
        waiting.devices.remove(&self.device);
        if !waiting.devices.values().any(|punch| *punch == self.punch) {
            waiting.punches.remove(&self.punch);
        }
    }
}

fn one_at_a_time() -> Refusal {
    Refusal::new(
        Code::OneAtATime,
        "This device waits for a verdict already. Ask again after the answer.",
    )
    .retried_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn ids(n: u128) -> (DeviceId, PunchId) {
        (DeviceId(Uuid::from_u128(n)), PunchId(Uuid::from_u128(n)))
    }

    #[tokio::test]
    async fn who_waits_is_told_and_waits_once() {
        let verdicts = Verdicts::default();
        let (device, punch) = ids(1);
        let waiter = verdicts.wait(device, punch).unwrap().unwrap();
        assert!(verdicts.wait(device, ids(2).1).is_err());
        verdicts.tell(&ids(2).1.to_string());
        verdicts.tell("no id");
        verdicts.tell(&punch.to_string());
        assert!(waiter.news(Instant::now() + Duration::from_secs(60)).await);
        drop(waiter);
        assert!(verdicts.waiting().punches.is_empty());
        assert!(verdicts.wait(device, punch).unwrap().is_some());
    }
}
