//! What every handler works with. A node holds nothing that another node would need: only who is
//! being served here just now.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use punchtrail_infra::{
    access::deployment::Deployment, ledger::Ledger, photos::PhotoStore, postgres::Pools,
};
use punchtrail_projections::{engine::Projections, explanations::Explanations};
use punchtrail_protocol::DeviceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    auth::keys::Keys,
    door::{
        Door,
        limits::{BODIES_KIB_MAX, FAILED_ENROLMENTS_PER_MINUTE_MAX},
        quota::PerMinute,
    },
    health::Health,
    problem::{Code, Refusal},
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
    /// Memory for bodies, in KiB.
    bodies: Arc<Semaphore>,
    /// Who may verify signatures now: no more than there are cores.
    pub verifying: Semaphore,
    pub failed_enrolments: PerMinute,
    /// Operators' keys found good a moment ago.
    pub keys: Keys,
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
    pub fn new(
        ledger: Ledger,
        pools: Pools,
        deployment: Deployment,
        photos: Arc<dyn PhotoStore>,
        projections: Projections,
        health: Health,
        door: Door,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Parts {
            explanations: Explanations::start(pools.reader.clone(), ledger.supervisor()),
            ledger,
            pools,
            deployment,
            photos,
            door,
            projections,
            health,
            delivering: Arc::default(),
            bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            verifying: Semaphore::new(cores),
            failed_enrolments: PerMinute::new(FAILED_ENROLMENTS_PER_MINUTE_MAX),
            keys: Keys::default(),
        }))
    }

    /// Sets memory aside for a body of that length.
    ///
    /// # Errors
    /// Busy when too much is held already.
    pub fn hold_body(&self, length_bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = u32::try_from(length_bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Arc::clone(&self.bodies).try_acquire_many_owned(kib).map_err(|_| {
            Refusal::busy(
                "More is coming in than can be held now. Nothing was taken; send it again.",
            )
        })
    }

    /// Marks a device's batch as being taken, until the guard is dropped.
    ///
    /// # Errors
    /// When another batch of the device is being taken.
    pub fn begin_delivery(&self, device: DeviceId) -> Result<DeliveryGuard, Refusal> {
        let mut delivering = self.delivering.lock().unwrap_or_else(PoisonError::into_inner);
        if !delivering.insert(device) {
            return Err(Refusal::new(
                Code::OneAtATime,
                "Another batch of this device is being taken. Nothing of this one was taken; send \
                 it again after the answer to the other.",
            )
            .retried_after(1));
        }
        Ok(DeliveryGuard { delivering: Arc::clone(&self.delivering), device })
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
