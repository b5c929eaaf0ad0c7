//! A device on a folder: opening it, becoming one, and what others ask of it.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ed25519_dalek::SigningKey;
use punchtrail_protocol::{
    Digest, EmployeeId, Time,
    sealed_photo::PhotoKey,
    signing::{ENROLMENT_TYPE, PublicKey, sign},
    wire::{CERTIFICATE_CHARS_MAX, EnrollRequest, pairing_code},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    APP,
    backoff::BACKOFF_CAP_MS,
    client::{AddressError, CALL_MS, CallError, Server},
    clock::{Clock, MachineClock, Moment},
    folder::{AgentLock, Folder, FolderError},
    glance::Glance,
    store::{
        Store, StoreError,
        contact::{self, Contact},
        identity::{self, Identity},
        photos, roster,
    },
};

/// The longest name of a device, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// What is added to the heartbeat's interval before silence counts as being offline, in seconds:
/// time for the heartbeat itself.
pub const CONTACT_GRACE_S: u64 = 60;

/// How a device is opened.
#[derive(Clone)]
pub struct Options {
    pub clock: Arc<dyn Clock>,
    /// Makes ids, keys and jitter repeatable; for tests and the simulator only.
    pub seed: Option<u64>,
    /// Bounds the database, in pages of 4 KiB.
    pub pages_max: Option<u32>,
    /// Bounds the waits between tries that this device chooses itself, in milliseconds.
    pub retry_cap_ms: u64,
    /// Bounds how long a call may take, in milliseconds, below the client's own limit; for tests.
    pub call_ms: u64,
    /// Bounds the spread after a reconnect, in seconds, below the policy's; for rehearsals.
    pub spread_cap_s: Option<u32>,
    /// Whether a commit is on the disk when it returns. A device at a door never goes without; the
    /// simulator may, since it would measure its own disk.
    pub synced: bool,
    /// Looks at pictures here and now; without it nothing is said about them.
    pub glance: Option<Arc<dyn Glance>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(MachineClock::default()),
            seed: None,
            pages_max: None,
            retry_cap_ms: BACKOFF_CAP_MS,
            call_ms: CALL_MS,
            spread_cap_s: None,
            synced: true,
            glance: None,
        }
    }
}

/// A device on its folder. Cheap to share; all work through one connection.
#[derive(Clone)]
pub struct Device {
    pub(crate) folder: Folder,
    pub(crate) store: Store,
    pub(crate) options: Options,
    dice: Arc<Mutex<StdRng>>,
    restart: Arc<AtomicBool>,
}

/// Why a device couldn't enrol.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// A code that can't be one.
    #[error(
        "`{0}` is not a pairing code: eight letters of BCDFGHJKLMNPQRSTVWXZ, like BCDF-GHJK. \
         Nothing was changed; check the code and try again"
    )]
    BadCode(String),
    #[error("a device's name has 1 to {NAME_CHARS_MAX} characters. Nothing was changed")]
    BadName,
    #[error("{0}. Nothing was changed")]
    Address(#[from] AddressError),
    /// The server didn't take it.
    #[error(
        "not enrolled: {0}. What this folder held is untouched. A code works once and for ten \
         minutes; if it was used or its answer got lost, ask for another"
    )]
    Call(#[from] CallError),
    #[error(
        "{0}. The server knows a new device now, but this folder doesn't: enrol again with \
         another code"
    )]
    Store(#[from] StoreError),
}

/// Why it isn't known who is meant.
#[derive(Debug, thiserror::Error)]
pub enum WhoError {
    #[error(
        "nobody is known here as `{0}`, neither by name nor by badge. Nothing was done; the id \
         does, also of somebody whom this device doesn't know"
    )]
    Nobody(String),
    /// Several are called so.
    #[error(
        "`{named}` is the name or badge of several people. Nothing was done; say which one by the \
         id: {}",
        .candidates.iter().map(|(id, name)| format!("{id} ({name})")).collect::<Vec<_>>().join(", ")
    )]
    Several { named: String, candidates: Vec<(EmployeeId, String)> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Device {
    /// Whose id, badge or name that is. What looks like an id is one.
    ///
    /// # Errors
    /// When it is nobody's here, or several people's.
    pub async fn called(&self, named: &str) -> Result<EmployeeId, WhoError> {
        if let Ok(employee) = named.trim().parse() {
            return Ok(employee);
        }
        let mut db = self.store.read().await?;
        let found = match identity::current(&mut db).await? {
            Some(identity) => roster::called(&mut db, identity.id, named).await?,
            None => Vec::new(),
        };
        match found.as_slice() {
            [(employee, _)] => Ok(*employee),
            [] => Err(WhoError::Nobody(named.to_owned())),
            _ => Err(WhoError::Several { named: named.to_owned(), candidates: found }),
        }
    }

    /// Opens the device in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Empty`] where none was ever enrolled.
    pub async fn open(dir: impl Into<PathBuf>, options: Options) -> Result<Self, StoreError> {
        Self::open_folder(Folder::at(dir), false, options).await
    }

    /// Opens the device in `dir`, or makes a folder for one.
    ///
    /// # Errors
    /// When the folder can't be made or read.
    pub async fn create(dir: impl Into<PathBuf>, options: Options) -> Result<Self, StoreError> {
        let folder = Folder::at(dir);
        folder.create()?;
        Self::open_folder(folder, true, options).await
    }

    async fn open_folder(
        folder: Folder,
        create: bool,
        options: Options,
    ) -> Result<Self, StoreError> {
        let store = Store::open(&folder, create, options.pages_max, options.synced).await?;
        let dice = options.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64);
        Ok(Self {
            folder,
            store,
            options,
            dice: Arc::new(Mutex::new(dice)),
            restart: Arc::default(),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All clocks, now.
    pub fn now(&self) -> Moment {
        self.options.clock.read()
    }

    /// Becomes the folder's agent, which alone enrols, drains and walks.
    ///
    /// # Errors
    /// [`FolderError::Taken`] when another process is.
    pub fn lock_agent(&self) -> Result<AgentLock, FolderError> {
        self.folder.lock_agent()
    }

    /// Ends the connection, so that the folder can be copied as it is.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Whether the server asked this process to end, so that it is started again.
    pub fn restart_asked(&self) -> bool {
        self.restart.load(Ordering::Relaxed)
    }

    pub(crate) fn ask_restart(&self) {
        self.restart.store(true, Ordering::Relaxed);
    }

    /// A roll from 0 to 1.
    pub(crate) fn roll(&self) -> f64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    pub(crate) fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes[..]);
        bytes
    }

    /// An id made at `at`: unguessable, and in the order of time.
    pub(crate) fn id_at(&self, at: Time) -> Uuid {
        // RFC 9562 has 48 bits of milliseconds since 1970; a clock before that gives zero.
        let millis = u64::try_from(at.millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.random_bytes::<10>()).into_uuid()
    }

    /// The identity that captures now.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        identity::current(&mut *self.store.read().await?).await
    }

    /// Becomes a new device at `server` by a pairing code. An earlier identity of this folder keeps
    /// delivering what it captured.
    ///
    /// # Errors
    /// With what was kept and what to do.
    pub async fn enroll(
        &self,
        _agent: &AgentLock,
        server: &str,
        code: &str,
        name: &str,
    ) -> Result<Identity, EnrollError> {
        let letters = pairing_code(code).ok_or_else(|| EnrollError::BadCode(code.to_owned()))?;
        let name = name.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            return Err(EnrollError::BadName);
        }
        let server = Server::with_patience(server, self.options.call_ms)?;
        let seed = Zeroizing::new(self.random_bytes::<32>());
        let key = SigningKey::from_bytes(&seed);
        let enrolled = server
            .enroll(&EnrollRequest {
                proof: sign(&key, ENROLMENT_TYPE, letters.as_bytes()).to_string(),
                code: letters,
                name: name.to_owned(),
                public_key: PublicKey::from(&key).to_string(),
                app: APP.to_owned(),
            })
            .await?;
        let mut identity = Identity {
            id: 0,
            device: enrolled.device,
            org: enrolled.org,
            site: enrolled.site,
            server: server.address().to_owned(),
            name: name.to_owned(),
            token: Zeroizing::new(enrolled.token),
            key,
            certificate: enrolled
                .certificate
                .filter(|text| text.chars().count() <= CERTIFICATE_CHARS_MAX),
            seq: 0,
            head: Digest::ZERO,
            ended: false,
            unreadable: None,
        };
        let mut write = self.store.write().await?;
        identity.id = identity::add(&mut write, &identity, self.now().time).await?;
        if let Some(history) = &enrolled.history {
            contact::told_history(&mut write, identity.id, history).await?;
        }
        if let Some(key) = photo_key(enrolled.photo_key.as_deref()) {
            contact::told_photo_key(&mut write, identity.id, &key).await?;
        }
        write.commit().await.map_err(StoreError::from)?;
        tracing::info!(device = %identity.device, site = %identity.site, "enrolled");
        Ok(identity)
    }

    /// Erases the photos of a person's punches from this device. Gives how many files.
    ///
    /// # Errors
    /// When store or folder refuse; what is committed stays erased.
    pub async fn forget_photos(&self, employee: EmployeeId) -> Result<usize, StoreError> {
        let mut write = self.store.write().await?;
        let files = photos::forget_of(&mut write, employee, self.now().time, None).await?;
        write.commit().await?;
        self.forget_files(&files).await?;
        tracing::info!(photos = files.len(), "a person's photos erased");
        Ok(files.len())
    }

    /// Deletes photo files that a crash left without a capture.
    ///
    /// # Errors
    /// When the store or the folder refuses.
    pub async fn sweep_photos(&self, _agent: &AgentLock) -> Result<(), StoreError> {
        let mut write = self.store.write().await?;
        let named = photos::all(&mut write).await?;
        let swept = self.folder.sweep_photos(|digest| named.contains(digest))?;
        if swept > 0 {
            tracing::info!(swept, "photos without a capture removed");
        }
        Ok(write.rollback().await?)
    }
}

/// The server's key as it told it. One that can't be read is none: photos are kept as before,
/// rather than not at all.
pub(crate) fn photo_key(told: Option<&str>) -> Option<PhotoKey> {
    told.and_then(|text| {
        let read = text.parse();
        if read.is_err() {
            tracing::error!("the server's key for photos can't be read; the one before is used");
        }
        read.ok()
    })
}

/// Whether the server counts as out of reach at `now`: the last try failed, or nobody has reached
/// it since this boot within a heartbeat's interval and [`CONTACT_GRACE_S`]. What an agent isn't
/// running to find out is out of reach.
pub fn is_offline(contact: &Contact, heartbeat_s: u32, now: &Moment) -> bool {
    let patience_ms = (u64::from(heartbeat_s) + CONTACT_GRACE_S) * 1_000;
    !contact.reached
        || contact.reached_at.is_none_or(|(_, boot, uptime_ms)| {
            boot != now.boot || now.uptime_ms.saturating_sub(uptime_ms) > patience_ms
        })
}
