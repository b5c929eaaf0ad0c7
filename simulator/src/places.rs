//! Bounds on what a fleet holds at once: open files, and batches in memory.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use punchtrail_device::{
    client::CALL_MS,
    device::{Device, Options},
    folder::AgentLock,
    store::StoreError,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::Instant,
};

use crate::{clock::SimulatedClock, duration_ms, misbehaviour::Behaviour, plan::Plan};

/// The most files of devices that are open at a time.
pub const FILES_MAX: usize = 256;
/// What an open device takes of them: its database, log, index of the log, lock, and for a moment
/// the folder itself.
const FILES_PER_DEVICE: usize = 5;
/// Photos on their way at a time, each with its file open.
pub const PHOTOS_AT_ONCE: usize = 96;
/// One of so many places for files is for reading what is sent next.
const READING_SHARE: usize = 2;
/// What a punch on its way takes of the memory for batches, in KiB.
const ITEM_KIB: usize = 1;

/// What is left of the bounds.
#[derive(Debug)]
pub struct Places {
    /// One for each file that may be open.
    files: Arc<Semaphore>,
    photos: Semaphore,
    behaving: Arc<Sending>,
    misbehaving: Arc<Sending>,
    waited_ms: AtomicU64,
    photos_waited_ms: AtomicU64,
}

/// What is left for sending batches. In a mixed fleet those who misbehave have a share of their
/// own: in the field a device doesn't stand in line behind the tight retries of another.
#[derive(Debug)]
struct Sending {
    /// Of the places for files, those for reading what is to be sent next: an answer that waits to
    /// be written down waits behind few readers.
    reading: Semaphore,
    bodies: Arc<Semaphore>,
    bodies_kib: usize,
}

impl Sending {
    fn new(readers: usize, bodies_kib: usize) -> Arc<Self> {
        let (reading, bodies) = (Semaphore::new(readers), Arc::new(Semaphore::new(bodies_kib)));
        Arc::new(Self { reading, bodies, bodies_kib })
    }
}

/// An open device. Closed by [`Visit::end`]; the place is free again then.
pub struct Visit {
    pub device: Device,
    _agent: AgentLock,
    _place: OwnedSemaphorePermit,
}

impl Visit {
    /// Closes the device's files.
    pub async fn end(self) {
        self.device.close().await;
    }
}

impl Places {
    /// All of them free: `memory_mib` for batches on their way; `mixed` when some devices misbehave
    /// and others don't.
    pub fn new(memory_mib: u32, mixed: bool) -> Self {
        let places = FILES_MAX / FILES_PER_DEVICE;
        let shares = 1 + usize::from(mixed);
        let sending = || {
            Sending::new(places / READING_SHARE / shares, ((memory_mib as usize) << 10) / shares)
        };
        let behaving = sending();
        Self {
            files: Arc::new(Semaphore::new(FILES_MAX)),
            photos: Semaphore::new(PHOTOS_AT_ONCE),
            misbehaving: if mixed { sending() } else { Arc::clone(&behaving) },
            behaving,
            waited_ms: AtomicU64::new(0),
            photos_waited_ms: AtomicU64::new(0),
        }
    }

    fn sending(&self, behaviour: &Behaviour) -> &Sending {
        if behaviour.misbehaves { &self.misbehaving } else { &self.behaving }
    }

    /// A place for an open device.
    ///
    /// # Errors
    /// Never while the fleet lives.
    pub async fn file(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let files = self.files.clone().acquire_many_owned(FILES_PER_DEVICE as u32);
        files.await.map_err(StoreError::unreadable)
    }

    /// A place for a photo on its way. The wait for it is the simulator's, and is added up for the
    /// report.
    ///
    /// # Errors
    /// Never while the fleet lives.
    pub async fn photo(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), StoreError> {
        let since = Instant::now();
        let way = self.photos.acquire().await.map_err(StoreError::unreadable)?;
        let file = self.files.acquire().await.map_err(StoreError::unreadable)?;
        self.photos_waited_ms.fetch_add(duration_ms(since.elapsed()), Ordering::Relaxed);
        Ok((way, file))
    }

    /// How long devices waited for such a place, all together, in milliseconds.
    pub fn photos_waited_ms(&self) -> u64 {
        self.photos_waited_ms.load(Ordering::Relaxed)
    }

    /// Leave to open a device for reading what it sends next.
    ///
    /// # Errors
    /// Never while the fleet lives.
    pub async fn reading(&self, behaviour: &Behaviour) -> Result<SemaphorePermit<'_>, StoreError> {
        self.sending(behaviour).reading.acquire().await.map_err(StoreError::unreadable)
    }

    /// Opens the enrolled device `index` of `plan`, as its agent; its clock is off by
    /// `clock_off_s`.
    ///
    /// # Errors
    /// When its folder can't be opened.
    pub async fn visit(
        &self,
        plan: &Plan,
        index: usize,
        clock_off_s: i64,
    ) -> Result<Visit, StoreError> {
        let place = self.file().await?;
        let device = Device::open(plan.folder(index), options(plan, clock_off_s)).await?;
        let agent = device.lock_agent()?;
        Ok(Visit { device, _agent: agent, _place: place })
    }

    /// Room in memory for a batch of `items`. The wait for it is the simulator's, not the server's,
    /// and is added up for the report.
    ///
    /// # Errors
    /// Never while the fleet lives.
    pub async fn body(
        &self,
        behaviour: &Behaviour,
        items: usize,
    ) -> Result<OwnedSemaphorePermit, StoreError> {
        let Sending { bodies, bodies_kib, .. } = self.sending(behaviour);
        let kib = u32::try_from((items * ITEM_KIB).min(*bodies_kib)).unwrap_or(u32::MAX);
        if let Ok(room) = bodies.clone().try_acquire_many_owned(kib) {
            return Ok(room);
        }
        let since = Instant::now();
        let room = bodies.clone().acquire_many_owned(kib).await.map_err(StoreError::unreadable)?;
        self.waited_ms.fetch_add(duration_ms(since.elapsed()), Ordering::Relaxed);
        Ok(room)
    }

    /// How long devices waited for room in memory, all together, in milliseconds.
    pub fn waited_ms(&self) -> u64 {
        self.waited_ms.load(Ordering::Relaxed)
    }
}

/// How a device of `plan` is opened.
pub fn options(plan: &Plan, clock_off_s: i64) -> Options {
    Options {
        clock: Arc::new(SimulatedClock::off_by(clock_off_s)),
        seed: None,
        pages_max: None,
        retry_cap_ms: plan.retry_cap_ms,
        call_ms: CALL_MS,
        spread_cap_s: plan.spread_cap_s,
        synced: plan.synced,
        glance: None,
    }
}
