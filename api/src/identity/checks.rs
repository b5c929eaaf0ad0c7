//! Takes punches from the queue and has their newest picture checked.
//!
//! What is found is recorded by the punch, which takes one verdict on each picture: a check that is
//! made twice, by a node that died or by two at once, leaves one. What can't be found out now is
//! put off, until the time is over that the site waits; then a person looks.

use std::{sync::Arc, time::Duration};

use punchtrail_domain::{
    employee::Employee,
    log::recorded::Actor,
    punch::{Check, Failing, Miss, Missing, Origin, Punch, PunchCommand, PunchError, Verdict},
    site::Site,
};
use punchtrail_infra::{
    identity::{Answer, Asked, Checked, Checkers, References, Thresholds, embeddings},
    ledger::{ExecuteError, Metadata},
    people::faces,
    queue::{BATCH_MAX, Queue, Receipt, Taken, VISIBLE_FOR, WAIT_MAX},
};
use punchtrail_protocol::{DeviceId, Digest, EmployeeId, PunchId, SiteId, Time};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{broke::Broke, deadlines};
use crate::state::App;

/// How long after a failure of the queue it is asked again.
const QUEUE_PAUSE: Duration = Duration::from_secs(2);
/// The shortest and the longest that a check is put off.
const LATER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(15 * 60);
/// A check is put off by one part in so many of how long it has waited.
const LATER_SHARE: u32 = 4;
/// How long what broke is put off.
const BROKE: Duration = Duration::from_secs(10);

/// What checks need.
#[derive(Clone)]
pub struct Checks {
    pub app: App,
    pub queue: Arc<dyn Queue>,
    pub checkers: Arc<Checkers>,
}

/// What became of a message.
enum Done {
    /// Nothing is left to do.
    Finished,
    /// One picture has its verdict; another may wait.
    Checked,
    /// It can't be found out now.
    Later(Duration),
}

/// A picture to be checked, with what it is checked by.
struct Subject {
    employee: EmployeeId,
    site: SiteId,
    device: DeviceId,
    taken_at: Time,
    due_at: Time,
}

impl Checks {
    /// Takes and checks until it is stopped; what is in hand then is finished.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let receiving = self.queue.receive(BATCH_MAX, WAIT_MAX);
            match stop.run_until_cancelled(receiving).await {
                None => return,
                Some(Ok(taken)) => self.all(taken).await,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the queue of checks can't be had; it is asked again");
                    stop.run_until_cancelled(tokio::time::sleep(QUEUE_PAUSE)).await;
                }
            }
        }
    }

    /// Checks what was taken, all at once: whoever checks keeps to what it can do at once.
    async fn all(&self, taken: Vec<Taken>) {
        let mut held: Vec<Receipt> = taken.iter().map(|taken| taken.receipt.clone()).collect();
        let mut checking = JoinSet::new();
        for one in taken {
            let checks = self.clone();
            checking.spawn(async move {
                let (waited, receipt) = (one.waited, one.receipt);
                (checks.one(one.punch, waited).await, receipt)
            });
        }
        let mut finished = Vec::new();
        let mut renew = tokio::time::interval(VISIBLE_FOR / 3);
        renew.tick().await;
        loop {
            let ended = tokio::select! {
                ended = checking.join_next() => ended,
                _ = renew.tick() => {
                    self.say(self.queue.extend(&held).await.map(drop));
                    continue;
                }
            };
            let Some(ended) = ended else { break };
            // One that panicked is left: its lease runs out, and counts.
            let Ok((ended, receipt)) = ended else { continue };
            held.retain(|held| *held != receipt);
            match ended {
                Ok(Done::Finished | Done::Checked) => finished.push(receipt),
                Ok(Done::Later(after)) => self.say(self.queue.later(&[receipt], after).await),
                Err(broke) => {
                    let punch = receipt.punch();
                    tracing::warn!(%punch, error = %broke, "a check broke; it is made again");
                    let reason = broke.to_string();
                    self.say(self.queue.failed(&[receipt], BROKE, &reason).await);
                }
            }
        }
        self.say(self.queue.done(&finished).await);
    }

    /// What the queue doesn't take comes again, and does nothing then.
    fn say(&self, done: Result<(), punchtrail_infra::queue::QueueError>) {
        if let Err(error) = done {
            tracing::warn!(%error, "the queue can't be told; what was in hand comes again");
        }
    }

    /// Checks a punch's pictures that nobody has looked at, until one is a match.
    async fn one(&self, punch: PunchId, waited: Duration) -> Result<Done, Broke> {
        loop {
            match self.newest(punch, waited).await? {
                Done::Checked => {}
                done => return Ok(done),
            }
        }
    }

    /// Checks the newest of them.
    async fn newest(&self, punch: PunchId, waited: Duration) -> Result<Done, Broke> {
        let loaded = self.app.ledger.load::<Punch>(&punch.to_string()).await?;
        let Some((subject, attempt)) = subject(&loaded.aggregate) else {
            return Ok(Done::Finished);
        };
        let Some(picture) = loaded.aggregate.pictures().attempts().get(&attempt) else {
            return Ok(Done::Finished);
        };
        let site = self.app.ledger.load::<Site>(&subject.site.to_string()).await?.aggregate;
        let policy = site.rules().policy_at(subject.taken_at);
        let person = self.app.ledger.load::<Employee>(&subject.employee.to_string()).await?;
        let biometrics = person.aggregate.biometrics();
        if !biometrics.compares(subject.taken_at) {
            deadlines::give_up(&self.app, punch, Missing::NothingToCompare).await?;
            return Ok(Done::Finished);
        }
        let Some(bytes) = self.app.photos.read(&picture.photo).await? else {
            return self.put_off(punch, &subject, waited, Missing::Unreachable).await;
        };
        let newest_first: Vec<_> = biometrics.references().iter().rev().copied().collect();
        let covered_head = faces::covers_head(self.app.ledger.pool(), subject.employee).await?;
        let asked = Asked {
            picture: &bytes,
            references: References { photos: &newest_first, store: &*self.app.photos },
            floors: policy.face_floors(),
            thresholds: Thresholds::from(policy),
            covered_head,
        };
        let Checked { provider, model, answer, .. } = self.checkers.check(&asked).await;
        if !self.still_compares(&subject, &newest_first).await? {
            deadlines::give_up(&self.app, punch, Missing::NothingToCompare).await?;
            return Ok(Done::Finished);
        }
        let check = |quality| Check {
            attempt,
            photo: picture.photo,
            provider,
            model: model.clone(),
            quality,
            floors: asked.floors,
        };
        let verdict = match answer {
            Answer::Match { quality, comparison } => {
                Verdict::Match { check: check(quality), comparison }
            }
            Answer::Miss { quality, failing, comparison } => {
                Verdict::Miss { check: check(quality), failing, comparison }
            }
            Answer::Unavailable(unavailable) if unavailable.passes => {
                return self.put_off(punch, &subject, waited, unavailable.missing).await;
            }
            Answer::Unavailable(unavailable) => {
                deadlines::give_up(&self.app, punch, unavailable.missing).await?;
                return Ok(Done::Finished);
            }
        };
        count(&subject, &verdict);
        let recorded = self.record(punch, verdict).await?;
        Ok(if recorded { Done::Checked } else { Done::Finished })
    }

    /// Whether the person agrees still, now that it was compared. What was made meanwhile of a
    /// photo that was erased meanwhile is forgotten once more.
    async fn still_compares(&self, subject: &Subject, compared: &[Digest]) -> Result<bool, Broke> {
        let person = self.app.ledger.load::<Employee>(&subject.employee.to_string()).await?;
        let biometrics = person.aggregate.biometrics();
        for photo in compared.iter().filter(|photo| !biometrics.references().contains(photo)) {
            embeddings::forget(self.app.ledger.pool(), *photo).await?;
        }
        Ok(biometrics.compares(subject.taken_at))
    }

    /// Whether it was the first verdict on that picture.
    async fn record(
        &self,
        punch: PunchId,
        verdict: Verdict,
    ) -> Result<bool, ExecuteError<PunchError>> {
        let command = PunchCommand::Verify { verdict };
        let metadata = Metadata::new(Actor::Server);
        let id = punch.to_string();
        let done = self.app.ledger.execute::<Punch>(&id, command, &metadata).await?;
        Ok(!done.events.is_empty())
    }

    /// Once more later, or given up when the site's time is over.
    async fn put_off(
        &self,
        punch: PunchId,
        subject: &Subject,
        waited: Duration,
        missing: Missing,
    ) -> Result<Done, Broke> {
        let left_ms = subject.due_at.millis_since(self.app.ledger.now());
        let Some(left) = u64::try_from(left_ms).ok().filter(|left| *left > 0) else {
            deadlines::give_up(&self.app, punch, missing).await?;
            return Ok(Done::Finished);
        };
        let after = (waited / LATER_SHARE).clamp(*LATER.start(), *LATER.end());
        Ok(Done::Later(after.min(Duration::from_millis(left))))
    }
}

/// Whose picture is to be checked, and which; none when nothing is.
fn subject(punch: &Punch) -> Option<(Subject, u32)> {
    let Some(Origin::Captured { capture, .. }) = punch.origin() else { return None };
    let due_at = punch.pictures().verify_by()?;
    let (attempt, _) = punch.pictures().to_check()?;
    let (employee, site, device) = (punch.employee()?, capture.site, capture.device);
    let taken_at = capture.captured_at;
    Some((Subject { employee, site, device, taken_at, due_at }, attempt))
}

/// Counts a verdict: how many of ten are a match is a figure of each site, device and provider.
fn count(subject: &Subject, verdict: &Verdict) {
    let (outcome, provider) = match verdict {
        Verdict::Match { check, .. } => ("match", check.provider),
        Verdict::Miss { check, failing: Failing { miss, .. }, .. } => {
            (Miss::as_str(*miss), check.provider)
        }
    };
    metrics::counter!(
        "punchtrail_face_verdicts_total", "site" => subject.site.to_string(),
        "device" => subject.device.to_string(), "provider" => provider.as_str(),
        "outcome" => outcome
    )
    .increment(1);
}
