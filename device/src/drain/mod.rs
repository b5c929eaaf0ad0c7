//! Delivering what waits, for every identity of the folder, for as long as it takes.
//!
//! Heartbeat first after a reconnect; then, spread over devices, punches oldest first at the policy's
//! rate, then photos. Each answer is settled in one transaction before the next call. Whatever a server
//! says, nothing is dropped: a refusal is shown in `status`, waited out and tried again. Two tries never
//! follow one another without a pause, nor across restarts: the pause is kept in the store.

pub mod errand;
pub mod lane;

use std::{collections::BTreeMap, time::Duration};

use punchtrail_protocol::wire::DevicePolicy;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::errand::Setback;
use self::{
    errand::{PhotoSent, concerns_the_content},
    lane::{Errand, Lane, Next, Pace},
};
use crate::{
    backoff::TRY_FLOOR_MS,
    client::{CallError, Server},
    device::Device,
    folder::AgentLock,
    status::ErrorStatus,
    store::{
        StoreError,
        contact::{self, Contact, Failure},
        identity::{self, Identity, IdentityId},
        outbox,
    },
};

/// How often the loop looks at the outbox, in milliseconds: punches come from other processes.
pub const LOOK_MS: u64 = 500;
/// How long a call in flight may go on after a stop was asked for, in milliseconds.
pub const STOP_GRACE_MS: u64 = 5_000;
/// The longest pause that a person who asked for a sync waits through, in milliseconds.
pub const SYNC_PATIENCE_MS: u64 = 30_000;
/// Ceiling of the wait before a walk of the manifest starts over when the roster changed under it, in
/// milliseconds.
const WALK_AGAIN_MS: u64 = 10_000;
/// Failures in a row after which a sync says so and ends.
pub const SYNC_TRIES_MAX: u32 = 4;

/// Drains a folder, as its agent.
pub struct Drain<'a> {
    device: &'a Device,
    lanes: BTreeMap<IdentityId, Route>,
}

/// An identity on its way to its server.
struct Route {
    identity: Identity,
    lane: Lane,
    /// Made at the first call; making it fails where the machine has no root certificates.
    server: Option<Server>,
}

/// What a sync did.
#[derive(Debug, Clone, Serialize)]
pub struct SyncReport {
    /// Whether nothing waits any more.
    pub complete: bool,
    /// Punches that the server acknowledged.
    pub delivered: u64,
    /// Photos that the server stored.
    pub photos_delivered: u64,
    /// Punches that still wait. They are safe on this device.
    pub waiting: u64,
    /// Photos that still wait.
    pub photos_waiting: u64,
    /// Why something still waits.
    pub error: Option<ErrorStatus>,
}

#[derive(Debug, Default)]
struct Delivered {
    punches: u64,
    photos: u64,
}

impl<'a> Drain<'a> {
    /// Drains `device`'s folder; the lock says that nobody else does.
    pub fn new(device: &'a Device, _agent: &AgentLock) -> Self {
        Self { device, lanes: BTreeMap::new() }
    }

    /// Works until `stop`. A call in flight then may finish within [`STOP_GRACE_MS`].
    pub async fn run(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let grace = async {
                stop.cancelled().await;
                tokio::time::sleep(Duration::from_millis(STOP_GRACE_MS)).await;
            };
            let look_at = tokio::select! {
                turned = self.turn() => turned.unwrap_or_else(|error| {
                    tracing::error!(%error, "the folder can't be worked on; trying again");
                    Instant::now() + Duration::from_millis(TRY_FLOOR_MS)
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
        let mut look_at = Instant::now() + Duration::from_millis(LOOK_MS);
        for route in self.lanes.values_mut() {
            let Some((need, contact)) = self.device.need(&route.identity).await? else { continue };
            let policy = policy_of(self.device, &contact);
            match route.lane.next(need, &policy, Pace::Steady, Instant::now()) {
                Next::Wait(at) => look_at = look_at.min(at),
                Next::Do(errand) => {
                    if let Err(Setback::Store(error)) =
                        route.perform(self.device, errand, &policy, &mut Delivered::default()).await
                    {
                        return Err(error);
                    }
                    look_at = Instant::now();
                }
            }
        }
        Ok(look_at)
    }

    async fn look_at_identities(&mut self) -> Result<(), StoreError> {
        let mut db = self.device.store.read().await?;
        let identities = identity::all(&mut db).await?;
        self.lanes.retain(|id, _| identities.iter().any(|identity| identity.id == *id));
        for identity in identities {
            if self.lanes.contains_key(&identity.id) {
                continue;
            }
            let contact = contact::of(&mut db, identity.id).await?;
            let now = Instant::now();
            let lane = Lane::new(
                identity.device,
                &policy_of(self.device, &contact),
                self.device.options.retry_cap_ms,
                now + held_for(self.device, &contact),
                now,
            );
            self.lanes.insert(identity.id, Route { identity, lane, server: None });
        }
        Ok(())
    }

    /// Delivers everything now, as a person asked: no spread, no rate, but every pause that a failure or
    /// the server makes. Ends when nothing waits, or after [`SYNC_TRIES_MAX`] failures in a row.
    ///
    /// # Errors
    /// When the store refuses; a server that doesn't take everything is said in the report.
    pub async fn sync(&mut self) -> Result<SyncReport, StoreError> {
        self.look_at_identities().await?;
        let mut delivered = Delivered::default();
        let mut error = None;
        let mut reachable = true;
        for route in self.lanes.values_mut() {
            if let Err(failure) = route.sync(self.device, &mut delivered).await? {
                reachable &= failure.reached();
                error = Some(failure);
            }
        }
        let mut report = SyncReport {
            complete: false,
            delivered: delivered.punches,
            photos_delivered: delivered.photos,
            waiting: 0,
            photos_waiting: 0,
            error: error.map(|error| self.failure(&error).into()),
        };
        for route in self.lanes.values() {
            let Some((need, _)) = self.device.need(&route.identity).await? else { continue };
            report.waiting += need.waiting;
            report.photos_waiting += need.photos;
        }
        report.complete = report.waiting + report.photos_waiting == 0 && reachable;
        Ok(report)
    }

    fn failure(&self, error: &CallError) -> Failure {
        failure(self.device, error)
    }
}

impl Route {
    /// Delivers all of this identity's. The inner result is the failure that ended it.
    async fn sync(
        &mut self,
        device: &Device,
        delivered: &mut Delivered,
    ) -> Result<Result<(), CallError>, StoreError> {
        let mut failures = 0;
        let mut last = CallError::Unreachable("it was not tried".to_owned());
        self.lane.heartbeat_now(Instant::now());
        loop {
            let Some((need, contact)) = device.need(&self.identity).await? else {
                return Ok(Ok(()));
            };
            let policy = policy_of(device, &contact);
            let now = Instant::now();
            match self.lane.next(need, &policy, Pace::Asked, now) {
                Next::Do(errand) => {
                    match self.perform(device, errand, &policy, delivered).await {
                        Ok(()) => failures = 0,
                        Err(Setback::Store(error)) => return Err(error),
                        Err(Setback::Call(error)) => {
                            failures += 1;
                            last = error;
                        }
                    }
                    if failures >= SYNC_TRIES_MAX {
                        return Ok(Err(last));
                    }
                }
                Next::Wait(_) if self.settled(need) => return Ok(Ok(())),
                Next::Wait(at) if at > now + Duration::from_millis(SYNC_PATIENCE_MS) => {
                    let held = contact.failure.map_or(last, |failure| CallError::Busy {
                        code: failure.code,
                        detail: failure.text,
                        retry_after: Some(at - now),
                    });
                    return Ok(Err(held));
                }
                Next::Wait(at) => sleep_until(at).await,
            }
        }
    }

    /// Nothing waits, and the server has heard so.
    fn settled(&self, need: lane::Need) -> bool {
        need == lane::Need::default() && self.lane.in_contact() && !self.lane.reports_backlog()
    }

    async fn perform(
        &mut self,
        device: &Device,
        errand: Errand,
        policy: &DevicePolicy,
        delivered: &mut Delivered,
    ) -> Result<(), Setback> {
        let done = match self.server() {
            Ok(server) => self.attempt(&server, device, errand, policy, delivered).await,
            Err(error) => Err(error.into()),
        };
        let Err(setback) = done else { return Ok(()) };
        match &setback {
            Setback::Call(error) => self.note(device, errand, error, policy).await?,
            // The call may have been answered; without this, a full disk would make it a tight loop.
            Setback::Store(_) => {
                let pause = CallError::Unreachable("the store refused".to_owned());
                self.lane.failed(&pause, device.roll(), Instant::now());
            }
        }
        Err(setback)
    }

    fn server(&mut self) -> Result<Server, CallError> {
        if self.server.is_none() {
            let server = Server::at(&self.identity.server)
                .and_then(|server| server.with_token(&self.identity.token))
                .map_err(|error| CallError::Unreachable(error.to_string()))?;
            self.server = Some(server);
        }
        self.server.clone().ok_or_else(|| CallError::Unreachable("no server".to_owned()))
    }

    async fn attempt(
        &mut self,
        server: &Server,
        device: &Device,
        errand: Errand,
        policy: &DevicePolicy,
        delivered: &mut Delivered,
    ) -> Result<(), Setback> {
        match errand {
            Errand::Heartbeat => {
                let mut heard = device.heartbeat(server, &self.identity).await?;
                let current = device.identity().await?.map(|identity| identity.id);
                heard.roster_differs &= current == Some(self.identity.id);
                self.lane.heartbeat_answered(heard, policy, device.roll(), Instant::now());
            }
            Errand::Walk => {
                device.walk(server, &self.identity).await?;
                if let Some((_, contact)) = device.need(&self.identity).await? {
                    self.lane.walked(&policy_of(device, &contact), Instant::now());
                }
            }
            Errand::Batch(items_max) => {
                let sent = device.deliver(server, &self.identity, items_max).await?;
                let items = sent.seqs.len();
                match sent.outcome {
                    Ok(next_after_ms) => {
                        delivered.punches += items as u64;
                        let now = Instant::now();
                        self.lane.batch_answered(items, sent.took_ms, next_after_ms, policy, now);
                    }
                    Err(error) => {
                        if !error.reached() {
                            self.lane.batch_unanswered(items, sent.took_ms);
                        }
                        return self.batch_failed(device, &sent.seqs, error).await;
                    }
                }
            }
            Errand::Photo => match device.deliver_photo(server, &self.identity).await? {
                Some(PhotoSent::Stored) => {
                    delivered.photos += 1;
                    self.lane.photo_answered(Instant::now());
                }
                Some(PhotoSent::Refused(error)) => {
                    self.lane.photo_refused(device.roll(), Instant::now());
                    return Err(error.into());
                }
                Some(PhotoSent::Lost) | None => {}
            },
        }
        Ok(())
    }

    /// A batch refused for its content is halved; one item refused alone steps behind the others.
    async fn batch_failed(
        &mut self,
        device: &Device,
        seqs: &[u64],
        error: CallError,
    ) -> Result<(), Setback> {
        if concerns_the_content(&error) {
            if self.lane.split(seqs.len(), Instant::now()) {
                tracing::warn!(device = %self.identity.device, items = seqs.len(), %error,
                    "batch refused; halves are tried");
                return Ok(());
            }
            if let [seq] = seqs {
                let mut write = device.store.write().await?;
                outbox::refused_alone(&mut write, self.identity.id, *seq).await?;
                write.commit().await.map_err(StoreError::from)?;
            }
        }
        Err(error.into())
    }

    /// Writes down what went wrong, for `status` and for the pause to hold across a restart.
    async fn note(
        &mut self,
        device: &Device,
        errand: Errand,
        error: &CallError,
        policy: &DevicePolicy,
    ) -> Result<(), StoreError> {
        let now = Instant::now();
        let floor = now + Duration::from_millis(TRY_FLOOR_MS);
        let next_at = match errand {
            // Already paced, and no reason to hold up the rest.
            Errand::Photo if concerns_the_content(error) => floor,
            Errand::Walk if error.refused_with().is_some() => {
                // The roster changed meanwhile: soon again. Anything else won't change so soon.
                let within_ms = match error.refused_with() {
                    Some(409) => WALK_AGAIN_MS,
                    _ => u64::from(policy.heartbeat_s) * 1_000,
                };
                let wait_ms = within_ms / 2 + (device.roll() * (within_ms / 2) as f64) as u64;
                self.lane.walk_refused(floor + Duration::from_millis(wait_ms));
                floor
            }
            _ => self.lane.failed(error, device.roll(), now),
        };
        tracing::warn!(device = %self.identity.device, ?errand, %error,
            wait_ms = (next_at - now).as_millis() as u64, "not done; trying again later");
        // Held across processes: what the server asked for, else the floor, which a person's next
        // `sync` waits out in a second.
        let asked = error.retry_after().map_or(floor, |_| next_at);
        let mut write = device.store.write().await?;
        contact::failed(
            &mut write,
            self.identity.id,
            &device.now(),
            error.reached(),
            &failure(device, error),
            (asked - now).as_millis() as u64,
        )
        .await?;
        Ok(write.commit().await?)
    }
}

fn failure(device: &Device, error: &CallError) -> Failure {
    Failure { at: device.now().time, code: error.code().to_owned(), text: error.to_string() }
}

fn policy_of(device: &Device, contact: &Contact) -> DevicePolicy {
    let mut policy = contact.policy.clone().unwrap_or_default();
    let cap_s = device.options.spread_cap_s.unwrap_or(u32::MAX);
    policy.reconnect_spread_s = policy.reconnect_spread_s.min(cap_s);
    policy
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
