//! What every handler works with. A node holds nothing that another node would need: only who is
//! being served here just now.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use punchtrail_infra::{
    access::{deployment::Deployment, provider::Provider},
    ledger::Ledger,
    photos::PhotoStore,
    postgres::Pools,
    threads::Threads,
};
use punchtrail_projections::{engine::Projections, explanations::Explanations};
use punchtrail_protocol::{DeviceId, EmployeeId, sealed_photo::PhotoSecret};
use punchtrail_vision::Models;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    auth::known_keys::Keys,
    door::{
        Door,
        gate::Standing,
        limits::{
            BODIES_KIB_MAX, RECORDS_EVERY, RECORDS_MAX, RECORDS_OF_PERSON_EVERY,
            RECORDS_OF_PERSON_MAX, REVOKED_BODIES_KIB_MAX, STRANGERS_BODIES_KIB_MAX,
            TRIES_WAITING_MAX, WRONG_CODE_EVERY, WRONG_CODES_MAX, WRONG_IN_SPACE_EVERY,
            WRONG_IN_SPACE_MAX, WRONG_REFERENCES_EVERY, WRONG_REFERENCES_MAX,
        },
        throttle::Throttle,
        waiters::Waiters,
    },
    health::Health,
    identity::verdicts::Verdicts,
    problem::{Code, Refusal},
    quota::{Allowance, Quotas},
    seal,
    webhooks::Webhooks,
};

/// The server's parts, shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The server's parts.
pub struct Parts {
    pub ledger: Ledger,
    /// Connections for read models.
    pub pools: Pools,
    pub deployment: Deployment,
    pub photos: Arc<dyn PhotoStore>,
    /// Explains punches, many at once.
    pub explanations: Explanations,
    /// What is granted to whoever comes.
    pub door: Door,
    pub projections: Projections,
    /// Whether everything that should run runs.
    pub health: Health,
    /// Devices whose batch is being taken on this node.
    delivering: Arc<Mutex<HashSet<DeviceId>>>,
    bodies: Bodies,
    /// For signatures and pictures.
    cores: Threads,
    /// Wrong pairing codes, by where they come from.
    pub wrong_codes: Throttle<IpAddr>,
    /// And by their first letters.
    pub wrong_in_space: Throttle<String>,
    /// Wrong codes for reference photos, by the device that tries them.
    pub wrong_references: Throttle<DeviceId>,
    /// Workers' records, by the device that reads them.
    pub records: Throttle<DeviceId>,
    /// And by whose they are.
    pub records_of_person: Throttle<(DeviceId, EmployeeId)>,
    /// Who waits for leave to try a code.
    pub tries: Waiters,
    /// Operators' keys found good a moment ago.
    pub keys: Keys,
    /// The models of faces, if they are there.
    pub models: Option<Arc<Models>>,
    /// Devices that wait for a verdict.
    pub verdicts: Verdicts,
    /// Opens photos that were sealed to this deployment.
    pub photo_secret: PhotoSecret,
    /// What callers may ask for within a day.
    pub quotas: Quotas,
    /// Who vouches for people who sign in, if anybody.
    pub provider: Option<Arc<Provider>>,
    /// What webhooks need.
    pub webhooks: Webhooks,
}

/// What a server opens and starts before it serves.
pub struct Opened {
    pub ledger: Ledger,
    /// Connections for read models.
    pub pools: Pools,
    pub deployment: Deployment,
    pub photos: Arc<dyn PhotoStore>,
    pub projections: Projections,
    pub health: Health,
    pub door: Door,
    /// For signatures and pictures.
    pub cores: Threads,
    /// The models of faces, if they are there.
    pub models: Option<Arc<Models>>,
    /// What callers may ask for within a day.
    pub allowance: Allowance,
    /// Who vouches for people who sign in, if anybody.
    pub provider: Option<Arc<Provider>>,
    /// What webhooks need.
    pub webhooks: Webhooks,
}

impl std::ops::Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("deployment", &self.deployment).finish_non_exhaustive()
    }
}

impl App {
    /// Puts the parts together; must be called within a runtime.
    pub fn new(opened: Opened) -> Self {
        let Opened {
            ledger,
            pools,
            deployment,
            photos,
            projections,
            health,
            door,
            cores,
            models,
            allowance,
            provider,
            webhooks,
        } = opened;
        Self(Arc::new(Parts {
            explanations: Explanations::start(pools.reader.clone(), ledger.supervisor()),
            ledger,
            pools,
            photos,
            door,
            projections,
            health,
            delivering: Arc::default(),
            bodies: Bodies::default(),
            cores,
            wrong_codes: Throttle::new(WRONG_CODES_MAX, WRONG_CODE_EVERY),
            wrong_in_space: Throttle::new(WRONG_IN_SPACE_MAX, WRONG_IN_SPACE_EVERY),
            wrong_references: Throttle::new(WRONG_REFERENCES_MAX, WRONG_REFERENCES_EVERY),
            records: Throttle::new(RECORDS_MAX, RECORDS_EVERY),
            records_of_person: Throttle::new(RECORDS_OF_PERSON_MAX, RECORDS_OF_PERSON_EVERY),
            tries: Waiters::new(TRIES_WAITING_MAX),
            keys: Keys::default(),
            models,
            verdicts: Verdicts::default(),
            photo_secret: seal::photo_secret(&deployment),
            quotas: allowance.into(),
            provider,
            webhooks,
            deployment,
        }))
    }

    /// Memory for a body of somebody of that standing; nothing is held yet.
    pub fn body(&self, standing: Standing) -> HeldBody {
        let of = match standing {
            Standing::Known => &self.bodies.known,
            Standing::Revoked => &self.bodies.revoked,
            Standing::Stranger => &self.bodies.strangers,
        };
        HeldBody { of: Arc::clone(of), held: None, bytes: Vec::new() }
    }

    /// Does what takes a core for some milliseconds away from the threads that serve, and no more
    /// at once than there are cores.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn on_a_core<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.cores.run(work).await.map_err(|error| {
            tracing::error!(%error, "work on signatures or a picture broke off");
            Refusal::internal()
        })
    }

    /// That no batch of the device is being taken now.
    ///
    /// # Errors
    /// When one is.
    pub fn delivers_nothing(&self, device: DeviceId) -> Result<(), Refusal> {
        match self.delivering().contains(&device) {
            true => Err(one_at_a_time()),
            false => Ok(()),
        }
    }

    /// Marks a device's batch as being taken, until the guard is dropped.
    ///
    /// # Errors
    /// When another batch of the device is being taken.
    pub fn begin_delivery(&self, device: DeviceId) -> Result<DeliveryGuard, Refusal> {
        if !self.delivering().insert(device) {
            return Err(one_at_a_time());
        }
        Ok(DeliveryGuard { delivering: Arc::clone(&self.delivering), device })
    }

    fn delivering(&self) -> MutexGuard<'_, HashSet<DeviceId>> {
        self.delivering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_at_a_time() -> Refusal {
    Refusal::new(
        Code::OneAtATime,
        "Another batch of this device is being taken. Nothing of this one was taken; send it again \
         after the answer to the other.",
    )
    .retried_after(1)
}

/// Memory for bodies, in KiB, by who sends them: nobody takes another's.
struct Bodies {
    known: Arc<Semaphore>,
    revoked: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Default for Bodies {
    fn default() -> Self {
        let of = |kib| Arc::new(Semaphore::new(kib));
        Self {
            known: of(BODIES_KIB_MAX),
            revoked: of(REVOKED_BODIES_KIB_MAX),
            strangers: of(STRANGERS_BODIES_KIB_MAX),
        }
    }
}

/// A body as far as it has come, and the memory that it holds: no more than that, whatever was
/// announced.
#[derive(Debug)]
pub struct HeldBody {
    of: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: Vec<u8>,
}

impl HeldBody {
    /// Takes more of it in.
    ///
    /// # Errors
    /// Busy when too much is held already.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let kib = |bytes: usize| u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let more = kib(self.bytes.len() + chunk.len()) - kib(self.bytes.len());
        let more = Arc::clone(&self.of).try_acquire_many_owned(more).map_err(|_| {
            Refusal::busy(
                "More is coming in than can be held now. Nothing was taken; send it again.",
            )
        })?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// What has come.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lets go of the bytes, and keeps their memory for what was made of them.
    pub fn read(&mut self) {
        self.bytes = Vec::new();
    }
}

/// A device's batch is being taken.
#[derive(Debug)]
pub struct DeliveryGuard {
    delivering: Arc<Mutex<HashSet<DeviceId>>>,
    device: DeviceId,
}

impl Drop for DeliveryGuard {
    fn drop(&mut self) {
        self.delivering.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.device);
    }
}
