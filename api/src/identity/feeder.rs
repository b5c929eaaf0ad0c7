//! Feeds the queue of checks from the ledger, and tells punches of photos that came before them.
//!
//! Its place moves when its work is done, so all of it may be done twice: a punch takes each photo
//! once, and a check of a punch that has its verdict does nothing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use punchtrail_domain::{
    Event,
    punch::{Punch, PunchEvent},
};
use punchtrail_infra::{
    follower::{Failure, Follower, Step, Tell, place},
    ledger::{Entry, load},
    queue::Queue,
};
use punchtrail_projections::punches::photos;
use punchtrail_protocol::{Digest, Position, PunchId, attachment::Attachment};
use tokio::time::Instant;

use super::{arrivals, broke::Broke};
use crate::state::App;

/// The follower's name.
pub const NAME: &str = "checks";
/// The most events that are taken in one step.
const STEP_EVENTS_MAX: u32 = 2_000;
/// Punches that are told of a photo at once.
const AT_ONCE: usize = 16;
/// How long a step waits for the model that an arriving photo is looked up in.
const MODEL_WAIT: Duration = Duration::from_secs(5);

/// The follower.
pub struct Feeder {
    app: App,
    queue: Arc<dyn Queue>,
}

/// What a stretch of the ledger asks for.
#[derive(Debug, Default)]
struct Asked {
    /// Photos that punches name, which may be there already.
    named: Vec<(PunchId, Digest)>,
    /// Punches that may have a picture to be checked.
    checks: BTreeSet<PunchId>,
}

impl Feeder {
    /// A feeder of that queue.
    pub fn new(app: App, queue: Arc<dyn Queue>) -> Self {
        Self { app, queue }
    }

    async fn feed(&self) -> Result<Step, Failure> {
        let (ledger, pool) = (&self.app.ledger, self.app.ledger.pool());
        let from = place::of(pool, NAME).await?;
        let entries = ledger.feed().read(from, STEP_EVENTS_MAX).await?;
        let Some(to) = entries.last().map(|entry| entry.position()) else {
            return Ok(Step::AtHead(from));
        };
        let mut asked = Asked::default();
        for entry in &entries {
            asked.take(entry)?;
        }
        self.tell_of_photos(&asked.named, to).await?;
        self.send(&asked.checks).await?;
        if !place::move_on(pool, NAME, from, to).await? {
            return Err(Failure::passing("another node moved the feeder's place"));
        }
        Ok(Step::Moved { to, events: entries.len() })
    }

    /// A photo that comes looks in the model for punches that name it. So this looks for photos
    /// only once the model has these punches: then one of the two finds the other.
    async fn tell_of_photos(
        &self,
        named: &[(PunchId, Digest)],
        to: Position,
    ) -> Result<(), Failure> {
        if named.is_empty() {
            return Ok(());
        }
        let model = self.app.projections.wait_for(&[photos::NAME], to, Instant::now() + MODEL_WAIT);
        model.await.map_err(Failure::passing)?;
        let tell = |(punch, photo): (PunchId, Digest)| {
            let app = self.app.clone();
            async move {
                if app.photos.has(&photo).await? {
                    arrivals::tell(&app.ledger, punch, photo).await?;
                }
                Ok::<_, Broke>(())
            }
        };
        futures::stream::iter(named.to_vec())
            .map(tell)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
            .map_err(Failure::passing)
    }

    /// Sends those that have a picture to be checked now.
    async fn send(&self, checks: &BTreeSet<PunchId>) -> Result<(), Failure> {
        if checks.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = checks.iter().map(PunchId::to_string).collect();
        let loaded = load::<Punch>(self.app.ledger.pool(), &ids).await?;
        let waits = |punch: &PunchId| {
            let loaded = loaded.get(&punch.to_string());
            loaded.is_some_and(|loaded| {
                let pictures = loaded.aggregate.pictures();
                pictures.verify_by().is_some() && pictures.to_check().is_some()
            })
        };
        let waiting: Vec<PunchId> = checks.iter().copied().filter(waits).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        self.queue.send(&waiting).await.map_err(Failure::passing)
    }
}

impl Asked {
    fn take(&mut self, entry: &Entry) -> Result<(), Failure> {
        let event = entry.event().map_err(punchtrail_infra::ledger::ReadError::from)?;
        let Event::Punch(punch, event) = event else { return Ok(()) };
        match event {
            PunchEvent::Captured { capture, .. } => {
                let photo = capture.capture().ok().and_then(|capture| capture.photo);
                self.named.extend(photo.map(|photo| (*punch, photo)));
            }
            PunchEvent::PhotoRetaken { record, .. } => {
                let read = Attachment::parse_kept(record.as_bytes()).ok();
                self.named.extend(read.map(|read| (*punch, read.photo)));
            }
            PunchEvent::VerificationRequested { .. } | PunchEvent::PhotoReceived { .. } => {
                self.checks.insert(*punch);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Follower for Feeder {
    fn place(&mut self) -> BoxFuture<'_, Result<Option<Position>, Failure>> {
        Box::pin(async { Ok(Some(place::of(self.app.ledger.pool(), NAME).await?)) })
    }

    fn step<'a>(&'a mut self, _: &'a Tell) -> BoxFuture<'a, Result<Step, Failure>> {
        Box::pin(self.feed())
    }
}
