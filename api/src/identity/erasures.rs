//! What is kept of a face is erased: when its person withdraws their consent, when somebody with
//! the right asks for it, when they have left for long, and when a site keeps a picture no longer.
//! And what stands beside the ledger of an erased person is removed again, should something have
//! come in with their erasure, or come back after it.
//!
//! The bytes go first, then the ledger says so: what it calls erased is gone. Devices that may hold
//! photos of the person are told to forget them; until they have, what they send is erased as it
//! arrives. Its place moves when its work is done, so all of it may be done twice.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use jiff::SignedDuration;
use punchtrail_domain::{
    Event,
    employee::{Employee, EmployeeCommand, EmployeeError, EmployeeEvent},
    erasure::Erasure,
    log::recorded::Actor,
    punch::{Origin, Punch, PunchCommand, PunchEvent},
};
use punchtrail_infra::{
    follower::{Failure, Follower, Step, Tell, place},
    identity::embeddings,
    ledger::{ExecuteError, Ledger, Metadata, ReadError, load},
    people::erasure,
};
use punchtrail_projections::{
    devices,
    people::roster,
    privacy::{RESTS_ON, held},
    punches::{
        photos::{self, KeptPhoto},
        timecards,
    },
    sites,
};
use punchtrail_protocol::{Digest, EmployeeId, Position, Time};
use tokio::time::Instant;

use super::broke::Broke;
use crate::{commands, state::App};

/// The follower's name.
pub const NAME: &str = "erasures";
/// The most events that are taken in one step.
const STEP_EVENTS_MAX: u32 = 2_000;
/// Photos that are erased together.
const PAGE: u32 = 200;
/// Of which so many at once.
const AT_ONCE: usize = 8;
/// How long a step waits for the model that says what is kept of a person.
const MODEL_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The follower.
pub struct Erasures(App);

impl Erasures {
    /// Of this node.
    pub fn new(app: App) -> Self {
        Self(app)
    }

    async fn follow(&self) -> Result<Step, Failure> {
        let app = &self.0;
        let (ledger, pool) = (&app.ledger, app.ledger.pool());
        let from = place::of(pool, NAME).await?;
        let entries = ledger.feed().read(from, STEP_EVENTS_MAX).await?;
        let Some(to) = entries.last().map(|entry| entry.position()) else {
            return Ok(Step::AtHead(from));
        };
        let (mut erased, mut came, mut forgotten) = (Vec::new(), Vec::new(), Vec::new());
        for entry in &entries {
            let event = entry.event().map_err(ReadError::from)?;
            if let Event::Punch(punch, PunchEvent::PhotoReceived { photo, .. }) = event {
                came.push(KeptPhoto { photo: *photo, punch: *punch });
            }
            let Event::Employee(employee, event) = event else { continue };
            match event {
                EmployeeEvent::BiometricConsentWithdrawn { .. } => {
                    erase(ledger, *employee, Erasure::ConsentWithdrawn, &by_the_server())
                        .await
                        .map_err(Failure::passing)?;
                }
                EmployeeEvent::ReferencePhotoRemoved { photo } => {
                    forget_reference(app, *photo).await.map_err(Failure::passing)?;
                }
                EmployeeEvent::BiometricsErased { because, at } => {
                    erased.push((*employee, *because, *at));
                }
                EmployeeEvent::Erased { .. } => forgotten.push(*employee),
                _ => {}
            }
        }
        if !erased.is_empty() || !forgotten.is_empty() {
            let mut models = vec![devices::NAME, timecards::NAME];
            models.extend(RESTS_ON);
            let models = app.projections.wait_for(&models, to, Instant::now() + MODEL_WAIT);
            models.await.map_err(Failure::passing)?;
        }
        for employee in forgotten {
            forget(app, employee).await.map_err(Failure::passing)?;
        }
        for (employee, because, at) in erased {
            commands::forget_photos(app, employee, at).await.map_err(Failure::passing)?;
            everything(app, employee, because).await.map_err(Failure::passing)?;
        }
        came_too_late(app, &came).await.map_err(Failure::passing)?;
        if !place::move_on(pool, NAME, from, to).await? {
            return Err(Failure::passing("another node moved the place of the erasures"));
        }
        Ok(Step::Moved { to, events: entries.len() })
    }
}

impl Follower for Erasures {
    fn place(&mut self) -> BoxFuture<'_, Result<Option<Position>, Failure>> {
        Box::pin(async { Ok(Some(place::of(self.0.ledger.pool(), NAME).await?)) })
    }

    fn step<'a>(&'a mut self, _: &'a Tell) -> BoxFuture<'a, Result<Step, Failure>> {
        Box::pin(self.follow())
    }
}

/// Asks for the erasure of everything that is kept of a person's face; the follower does it.
///
/// # Errors
/// When there is no such person, or the ledger can't take it now.
pub async fn erase(
    ledger: &Ledger,
    employee: EmployeeId,
    because: Erasure,
    metadata: &Metadata,
) -> Result<Position, ExecuteError<EmployeeError>> {
    let command = EmployeeCommand::EraseBiometrics { because, at: ledger.now() };
    let done = ledger.execute::<Employee>(&employee.to_string(), command, metadata).await?;
    Ok(done.position)
}

/// Removes what stands beside the ledger of an erased person, notes of that moment among them.
async fn forget(app: &App, employee: EmployeeId) -> Result<(), Broke> {
    let named = held::notes(&app.pools.reader, employee).await?;
    let notes: Vec<Digest> = named.into_iter().map(|note| note.digest).collect();
    erasure::forget(app.ledger.pool(), employee, &notes).await?;
    for photo in held::photos_of_items(&app.pools.reader, employee).await? {
        app.photos.remove(&photo).await?;
    }
    Ok(())
}

/// Erases, of the photos that just came, those of people who had what was taken until then erased
/// before it came.
async fn came_too_late(app: &App, came: &[KeptPhoto]) -> Result<(), Broke> {
    let pool = app.ledger.pool();
    let ids: Vec<String> = came.iter().map(|kept| kept.punch.to_string()).collect();
    let punches = load::<Punch>(pool, &ids).await?;
    let taken = |kept: &KeptPhoto| {
        let punch = &punches.get(&kept.punch.to_string())?.aggregate;
        match punch.origin()? {
            Origin::Captured { capture, .. } => Some((punch.employee()?, capture.captured_at)),
            Origin::Admitted { .. } | Origin::Entered { .. } => None,
        }
    };
    let people: BTreeSet<String> =
        came.iter().filter_map(taken).map(|(employee, _)| employee.to_string()).collect();
    let people = load::<Employee>(pool, &Vec::from_iter(people)).await?;
    for kept in came {
        let because = taken(kept).and_then(|(employee, taken_at)| {
            let person = people.get(&employee.to_string())?;
            person.aggregate.biometrics().erases(taken_at)
        });
        if let Some(because) = because {
            erase_photos(app, &[*kept], because).await?;
        }
    }
    Ok(())
}

/// Erases reference photos with what was made of them, and the pictures of a person's punches.
async fn everything(app: &App, employee: EmployeeId, because: Erasure) -> Result<(), Broke> {
    for (photo, stands) in photos::references_of(&app.pools.reader, employee).await? {
        // One that was enrolled anew since then stands.
        if !stands {
            forget_reference(app, photo).await?;
        }
    }
    loop {
        let kept = photos::kept_of(&app.pools.reader, employee, PAGE).await?;
        if kept.is_empty() {
            return Ok(());
        }
        let head = erase_photos(app, &kept, because).await?;
        let model = app.projections.wait_for(&[photos::NAME], head, Instant::now() + MODEL_WAIT);
        model.await?;
    }
}

async fn forget_reference(app: &App, photo: Digest) -> Result<(), Broke> {
    embeddings::forget(app.ledger.pool(), photo).await?;
    // A punch may name the same picture.
    if photos::named(&app.pools.reader, &[photo]).await?.is_empty() {
        app.photos.remove(&photo).await?;
    }
    Ok(())
}

/// Erases photos of punches, and has their punches say so. Up to where the ledger says it.
async fn erase_photos(app: &App, kept: &[KeptPhoto], because: Erasure) -> Result<Position, Broke> {
    let photos: BTreeSet<Digest> = kept.iter().map(|kept| kept.photo).collect();
    futures::stream::iter(photos)
        .map(|photo| async move { app.photos.remove(&photo).await })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let metadata = by_the_server();
    let said: Vec<Position> = futures::stream::iter(kept.iter().copied())
        .map(|kept| {
            let (metadata, id) = (metadata.clone(), kept.punch.to_string());
            async move {
                let at = app.ledger.now();
                let command = PunchCommand::ErasePhoto { photo: kept.photo, because, at };
                let done = app.ledger.execute::<Punch>(&id, command, &metadata).await?;
                Ok::<_, Broke>(done.position)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(said.into_iter().max().unwrap_or_default())
}

/// Erases what sites keep no longer and what came back of erased people, and asks for the erasure
/// of the faces of those who have left for long; a page of each.
///
/// # Errors
/// When the database or the store is out of reach.
pub async fn sweep(app: &App) -> Result<(), Broke> {
    for employee in roster::erased_with_names(&app.pools.reader, PAGE).await? {
        forget(app, employee).await?;
    }
    let now = app.ledger.now();
    for (site, policy) in sites::policies(&app.pools.reader, now).await? {
        let kept_for = SignedDuration::from_hours(24 * i64::from(policy.photo_retention_days));
        let before = earlier(now, kept_for);
        loop {
            let kept = photos::kept_since(&app.pools.reader, site, before, PAGE).await?;
            if kept.is_empty() {
                break;
            }
            let head = erase_photos(app, &kept, Erasure::RetentionOver).await?;
            let deadline = Instant::now() + MODEL_WAIT;
            if app.projections.wait_for(&[photos::NAME], head, deadline).await.is_err() {
                break;
            }
        }
        let left_for = SignedDuration::from_hours(24 * i64::from(policy.face_departed_days));
        for employee in
            roster::departed_with_faces(&app.pools.reader, site, earlier(now, left_for)).await?
        {
            erase(&app.ledger, employee, Erasure::Departed, &by_the_server()).await?;
        }
    }
    Ok(())
}

fn by_the_server() -> Metadata {
    Metadata::new(Actor::Server)
}

fn earlier(now: Time, by: SignedDuration) -> Time {
    Time::from_millis(
        now.millis().saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
    )
}
