//! Delivering what waits, for every identity of the folder, for as long as it takes.
//!
//! Heartbeat first after a reconnect; then, spread over devices, punches oldest first at the
//! policy's rate, then disputes, then attachments, then photos. Each answer is settled in one
//! transaction before the next call. Whatever a server says, nothing is dropped: a refusal is shown
//! in `status`, waited out and tried again, or, where it is final, kept for people to see. Two
//! tries never follow one another without a pause, nor across restarts: the pause is kept in the
//! store.

pub mod courier;
mod errand;
pub mod lane;
pub mod route;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::{
    courier::{Account, Batch, Courier, News, RecordSent, Setback},
    route::Route,
};
use self::{
    lane::{Errand, Need, Next, Pace},
    route::failure,
};
use crate::{
    backoff::TRY_FLOOR_MS,
    client::CallError,
    device::Device,
    folder::AgentLock,
    status::ErrorStatus,
    store::{
        StoreError, attachments,
        contact::{self, Contact},
        failures::Purpose,
        identity::{self, IdentityId},
    },
};

/// How often the loop looks at the outbox, in milliseconds: punches come from other processes.
pub const LOOK_MS: u64 = 500;
/// How often photos are looked for that were kept before the server's key was known, in
/// milliseconds.
pub const SEAL_LOOK_MS: u64 = 2_000;
/// The same after the folder refused, in milliseconds.
const SEAL_AGAIN_MS: u64 = 60_000;
/// How long nothing is tried after the database was found damaged: that passes by no waiting, and
/// what can be read may still be delivered.
const DAMAGED_PAUSE_MS: u64 = 60_000;
/// How long a call in flight may go on after a stop was asked for, in milliseconds.
pub const STOP_GRACE_MS: u64 = 5_000;
/// The longest pause that a person who asked for a sync waits through, in milliseconds.
pub const SYNC_PATIENCE_MS: u64 = 30_000;
/// Failures in a row of one kind of call after which a sync says so and ends, however well others
/// go.
pub const SYNC_TRIES_MAX: u32 = 4;
/// Calls after which a sync ends if less didn't wait after any of them than before: a server may
/// take everything and take it back.
pub const SYNC_CALLS_MAX: u32 = 40;

/// Drains a folder, as its agent.
pub struct Drain<'a> {
    device: &'a Device,
    routes: BTreeMap<IdentityId, Route<Device>>,
    seal_at: Instant,
}

/// What a sync did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SyncReport {
    /// Whether nothing waits any more.
    pub complete: bool,
    /// Punches that the server acknowledged.
    pub delivered: u64,
    /// Retakes that the server acknowledged.
    pub attachments_delivered: u64,
    /// Disputes that the server acknowledged.
    pub disputes_delivered: u64,
    /// Photos that the server stored.
    pub photos_delivered: u64,
    /// Punches that still wait. They are safe on this device.
    pub waiting: u64,
    pub attachments_waiting: u64,
    pub disputes_waiting: u64,
    pub photos_waiting: u64,
    /// Why something still waits.
    pub error: Option<ErrorStatus>,
}

impl SyncReport {
    /// How much still waits.
    pub fn left(&self) -> u64 {
        self.waiting + self.attachments_waiting + self.disputes_waiting + self.photos_waiting
    }
}

impl<'a> Drain<'a> {
    /// Drains `device`'s folder; the lock says that nobody else does.
    pub fn new(device: &'a Device, _agent: &AgentLock) -> Self {
        Self { device, routes: BTreeMap::new(), seal_at: Instant::now() }
    }

    /// Works until `stop`, or until the server asks for a restart. A call in flight at a stop may
    /// finish within [`STOP_GRACE_MS`].
    pub async fn run(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() && !self.device.restart_asked() {
            let grace = async {
                stop.cancelled().await;
                tokio::time::sleep(Duration::from_millis(STOP_GRACE_MS)).await;
            };
            let look_at = tokio::select! {
                turned = self.turn() => turned.unwrap_or_else(|error| {
                    tracing::error!(%error, "the folder can't be worked on; trying again");
                    let pause_ms = match error {
                        StoreError::Damaged(_) => DAMAGED_PAUSE_MS,
                        _ => TRY_FLOOR_MS,
                    };
                    Instant::now() + Duration::from_millis(pause_ms)
                }),
                // Dropping a turn is safe: its transaction rolls back, its call may be repeated.
                () = grace => return,
            };
            tokio::select! {
                () = sleep_until(look_at) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Does one errand at most for each identity. Gives when to look again.
    async fn turn(&mut self) -> Result<Instant, StoreError> {
        self.look_at_identities().await?;
        if Instant::now() >= self.seal_at {
            self.seal_photos().await;
        }
        let mut look_at = Instant::now() + Duration::from_millis(LOOK_MS);
        for route in self.routes.values_mut() {
            let Some(account) = route.account().await? else { continue };
            match route.next(&account, Pace::Steady) {
                Next::Wait(at) => look_at = look_at.min(at),
                Next::Do(errand) => {
                    if let Err(Setback::Store(error)) = route.perform(errand, &account).await {
                        return Err(error);
                    }
                    look_at = Instant::now();
                }
            }
        }
        Ok(look_at)
    }

    /// Seals what was kept before a key was known. What the folder refuses now it may take later;
    /// nothing else waits for it.
    async fn seal_photos(&mut self) {
        let mut pause_ms = SEAL_LOOK_MS;
        for &identity in self.routes.keys() {
            match self.device.seal_photos(identity).await {
                Ok(true) => pause_ms = pause_ms.min(LOOK_MS),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "photos can't be sealed; trying again");
                    pause_ms = SEAL_AGAIN_MS;
                }
            }
        }
        self.seal_at = Instant::now() + Duration::from_millis(pause_ms);
    }

    async fn look_at_identities(&mut self) -> Result<(), StoreError> {
        let mut db = self.device.store.read().await?;
        let identities = identity::all(&mut db).await?;
        self.routes.retain(|id, _| identities.iter().any(|identity| identity.id == *id));
        for identity in identities {
            if self.routes.contains_key(&identity.id) {
                continue;
            }
            let contact = contact::of(&mut db, identity.id).await?;
            let (id, courier) = (identity.id, self.device.clone());
            let (policy, cap_ms) = (courier.policy(&contact), courier.options.retry_cap_ms);
            let ready_at = Instant::now() + held_for(&courier, &contact);
            self.routes.insert(id, Route::new(identity, courier, &policy, cap_ms, ready_at));
        }
        Ok(())
    }

    /// Delivers everything now, as a person asked: no spread, no rate, but every pause that a
    /// failure or the server makes. Ends when nothing waits, after [`SYNC_TRIES_MAX`] failures of
    /// one kind of call in a row, or after [`SYNC_CALLS_MAX`] calls that made nothing less.
    ///
    /// # Errors
    /// When the store refuses; a server that doesn't take everything is said in the report.
    pub async fn sync(&mut self) -> Result<SyncReport, StoreError> {
        self.look_at_identities().await?;
        self.seal_photos().await;
        let mut report = SyncReport::default();
        let mut reachable = true;
        for route in self.routes.values_mut() {
            if let Err((errand, error)) = route.sync().await? {
                reachable &= error.reached() || route.lane.in_contact();
                report.error = Some(failure(errand, &error, self.device.now().time).into());
            }
            report.delivered += route.punches_delivered;
            report.attachments_delivered += route.attachments_delivered;
            report.disputes_delivered += route.disputes_delivered;
            report.photos_delivered += route.photos_delivered;
        }
        for (id, route) in &mut self.routes {
            let Some(Account { need, .. }) = route.account().await? else { continue };
            report.waiting += need.waiting;
            // Those that wait for their punch, too.
            let mut db = self.device.store.read().await?;
            report.attachments_waiting += attachments::backlog(&mut db, *id).await?.waiting;
            report.disputes_waiting += need.disputes;
            report.photos_waiting += need.photos;
        }
        // The walk may have brought the key.
        self.seal_photos().await;
        report.complete = report.left() == 0 && reachable;
        Ok(report)
    }
}

impl Route<Device> {
    /// Delivers all of this identity's. The inner result is the failure that ended it.
    async fn sync(&mut self) -> Result<Result<(), (Errand, CallError)>, StoreError> {
        let mut failures = BTreeMap::<Purpose, u32>::new();
        let mut last: Option<(Errand, CallError)> = None;
        let (mut fewest, mut calls) = (u64::MAX, 0);
        (self.punches_delivered, self.attachments_delivered) = (0, 0);
        (self.disputes_delivered, self.photos_delivered) = (0, 0);
        self.lane.heartbeat_now(Instant::now());
        loop {
            let Some(account) = self.account().await? else { return Ok(Ok(())) };
            let now = Instant::now();
            let Need { waiting, attachments, disputes, photos, commands } = account.need;
            let left = waiting + attachments + disputes + photos;
            if left < fewest {
                (fewest, calls) = (left, 0);
            }
            match self.next(&account, Pace::Asked) {
                Next::Do(errand) if calls >= SYNC_CALLS_MAX => {
                    return Ok(Err(last.unwrap_or_else(|| (errand, in_vain()))));
                }
                Next::Do(errand) => {
                    // A result that is told is one less; what waits grew by asking.
                    calls += u32::from(errand != Errand::Commands || commands == 0);
                    let failed = failures.entry(errand.purpose()).or_default();
                    match self.perform(errand, &account).await {
                        Ok(()) => {
                            *failed = 0;
                            last = last.filter(|(of, _)| of.purpose() != errand.purpose());
                        }
                        Err(Setback::Store(error)) => return Err(error),
                        Err(Setback::Call(error)) => {
                            *failed += 1;
                            if *failed >= SYNC_TRIES_MAX {
                                return Ok(Err((errand, error)));
                            }
                            last = Some((errand, error));
                        }
                    }
                }
                // What failed and isn't waited for, like a walk that comes later, is said.
                Next::Wait(_) if self.settled(&account) => return Ok(last.map_or(Ok(()), Err)),
                Next::Wait(at) if at > now + Duration::from_millis(SYNC_PATIENCE_MS) => {
                    if let Some(last) = last {
                        return Ok(Err(last));
                    }
                    let mut db = self.courier.store.read().await?;
                    let known = contact::of(&mut db, self.identity.id).await?.failures;
                    let paused = known.into_iter().next().map_or_else(
                        || ("paused".to_owned(), "it asked for a pause".to_owned()),
                        |failure| (failure.code, failure.text),
                    );
                    let (code, detail) = paused;
                    let retry_after = Some(at - now);
                    let busy = CallError::Busy { code, detail, retry_after };
                    return Ok(Err((Errand::Heartbeat, busy)));
                }
                Next::Wait(at) => sleep_until(at).await,
            }
        }
    }
}

/// The server takes what it is given, and it waits again all the same.
fn in_vain() -> CallError {
    CallError::Senseless {
        status: 200,
        detail: format!("{SYNC_CALLS_MAX} calls went well and as much waits as before"),
    }
}

/// How long a pause that an earlier process was given still lasts; one of another boot has passed.
fn held_for(device: &Device, contact: &Contact) -> Duration {
    let now = device.now();
    let left_ms = contact
        .hold
        .filter(|(boot, _)| *boot == now.boot)
        .map_or(0, |(_, until_ms)| until_ms.saturating_sub(now.uptime_ms));
    Duration::from_millis(left_ms.min(crate::backoff::RETRY_AFTER_MAX_S * 1_500))
}
