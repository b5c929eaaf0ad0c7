//! What is tidied up now and then, by each node for itself: photos that no punch names, photos that
//! a site keeps no longer, codes that nobody can use, reviews whose time is over.

use std::{collections::HashSet, time::Duration};

use jiff::SignedDuration;
use punchtrail_infra::{
    access::{sessions, tries},
    devices::enrolment,
    idempotency, mail,
    people::faces,
    photos::loose,
    quotas,
    webhooks::log,
};
use punchtrail_projections::punches::photos::{self, erased, named};
use punchtrail_protocol::{DeviceId, Digest};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{escalations, identity::erasures, metrics, problem::Refusal, state::App};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(600);
/// Photos that are looked at together.
const PAGE: u32 = 500;
/// How long counts of failed sign-ins are kept.
const TRIES_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// How long a look waits for the model that tells which photos are named.
const MODEL_WAIT: Duration = Duration::from_secs(5);

/// Tidies up until it is stopped.
pub async fn run(app: App, stop: CancellationToken) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if stop.run_until_cancelled(look(&app)).await.is_some_and(|looked| looked.is_err()) {
            tracing::warn!("what is to be tidied up can't be seen now; it is looked at again");
        }
    }
}

/// Tidies up once.
///
/// # Errors
/// When the database is out of reach.
pub async fn look(app: &App) -> Result<(), Refusal> {
    escalations::look(app, app.ledger.now()).await?;
    enrolment::forget_codes(app.ledger.pool()).await?;
    faces::forget_codes(app.ledger.pool()).await?;
    idempotency::forget(app.ledger.pool()).await?;
    quotas::forget(app.ledger.pool()).await?;
    sessions::forget_over(app.ledger.pool()).await?;
    tries::forget(app.ledger.pool(), jiff::Timestamp::now() - TRIES_KEPT).await?;
    log::sweep(app.ledger.pool(), app.ledger.now().timestamp()).await?;
    mail::sweep(app.ledger.pool(), app.ledger.now().timestamp()).await?;
    erasures::sweep(app).await?;
    // A model that is behind would take photos for nobody's.
    let head = app.ledger.head().await?;
    if app.projections.wait_for(&[photos::NAME], head, Instant::now() + MODEL_WAIT).await.is_err() {
        return Ok(());
    }
    let mut after = None;
    while let Some(page) = Page::after(app, None, after).await? {
        after = Some(page.last);
        let mut forgotten: Vec<Digest> = page.named.iter().copied().collect();
        for (photo, age) in page.photos.into_iter().filter(|(photo, _)| !page.named.contains(photo))
        {
            // What was erased and came again before that was known goes at once.
            if age < loose::LOOSE_FOR && !page.erased.contains(&photo) {
                continue;
            }
            match app.photos.remove(&photo).await {
                Ok(()) => metrics::photo_swept(),
                Err(error) => {
                    tracing::warn!(%error, "a photo of no punch can't be removed");
                    continue;
                }
            }
            if age >= loose::FORGOTTEN_AFTER {
                forgotten.push(photo);
            }
        }
        loose::forget(app.ledger.pool(), &forgotten).await?;
    }
    Ok(())
}

/// Forgets those photos of a device that a punch names by now.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget_named(app: &App, device: DeviceId) -> Result<(), Refusal> {
    let mut after = None;
    while let Some(page) = Page::after(app, Some(device), after).await? {
        after = Some(page.last);
        loose::forget(app.ledger.pool(), &Vec::from_iter(page.named)).await?;
    }
    Ok(())
}

/// Photos that were sent for no punch, and those of them that a punch names by now.
struct Page {
    last: Digest,
    /// With how old they are.
    photos: Vec<(Digest, SignedDuration)>,
    named: HashSet<Digest>,
    /// Of which nothing is to be kept.
    erased: HashSet<Digest>,
}

impl Page {
    /// The next of a device's, or of anybody's; none after the last.
    async fn after(
        app: &App,
        device: Option<DeviceId>,
        after: Option<Digest>,
    ) -> Result<Option<Self>, Refusal> {
        let photos = loose::page(app.ledger.pool(), device, after, PAGE).await?;
        let Some((last, _)) = photos.last().copied() else { return Ok(None) };
        let digests: Vec<Digest> = photos.iter().map(|(photo, _)| *photo).collect();
        let named = named(&app.pools.reader, &digests).await?;
        let erased = erased(&app.pools.reader, &digests).await?;
        Ok(Some(Self { last, photos, named, erased }))
    }
}
