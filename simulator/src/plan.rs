//! What a fleet is to do, checked before anything is done.

use std::{path::PathBuf, time::Duration};

use punchtrail_device::client::is_loopback;
use punchtrail_protocol::SiteId;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use zeroize::Zeroizing;

use crate::{FleetError, Misbehaviour};

/// The most devices of a fleet: each has a connection of its own, and loopback has some 28,000
/// ports.
pub const DEVICES_MAX: usize = 20_000;
/// The most punches that one device captures in a run.
pub const PUNCHES_MAX: usize = 10_000;
/// Which share of a device's punches has a photo, of a fleet with photos, unless told otherwise:
/// five of the usual 150. All of them would be a million and a half of files for ten thousand
/// devices.
pub const PHOTOS_SHARE: f64 = 1.0 / 30.0;
/// The longest time that captures are spread over, in seconds: a site's usual look-back.
const OFFLINE_S_MAX: u64 = 30 * 86_400;
/// Memory for batches on their way, in MiB: at least a large batch, at most what a permit can
/// count.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 16..=1 << 20;
/// Open files beside the devices' connections and their folders: libraries, logs, the runtime.
const FILES_SPARE: u64 = 128;

/// Where pairing codes come from.
#[derive(Debug, Clone)]
pub enum Pairing {
    /// Made with an operator's key, for these sites in turn.
    Operator { key: Zeroizing<String>, sites: Vec<SiteId> },
    /// Made before; one for each device that isn't enrolled yet.
    Codes(Vec<String>),
}

/// What a fleet is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the devices' folders are, or will be. A fleet that is there is used again.
    pub dir: PathBuf,
    pub server: String,
    /// How devices that aren't enrolled yet become so.
    pub pairing: Pairing,
    pub devices: usize,
    /// How many punches each captures in this run. With 0 it delivers what waits from an earlier
    /// one.
    pub punches: usize,
    /// Which share of these punches has a photo, from 0 to 1: the newest of each device, one at
    /// least if it isn't 0.
    pub photos: f64,
    /// The fleet that is there was enrolled at this very server, under another address.
    pub moved: bool,
    /// What some of them do wrong.
    pub misbehaviours: Vec<Misbehaviour>,
    /// Which share of them does, from 0 to 1.
    pub share: f64,
    /// Which share of them finds another roster than the one it has, and walks the manifest.
    pub stale_rosters: f64,
    /// Chooses who misbehaves, who punches when, jitter and garbage; the same seed chooses the
    /// same. Keys and punch ids are never made from it.
    pub seed: u64,
    /// How long the devices may take from the gate on.
    pub deadline: Duration,
    /// Over how long before now the captures are spread.
    pub offline: Duration,
    /// Bounds the policy's spread after a reconnect, in seconds.
    pub spread_cap_s: Option<u32>,
    /// Bounds the waits between tries that a device chooses itself, in milliseconds.
    pub retry_cap_ms: u64,
    /// Memory for batches on their way, all devices together, in MiB. Devices wait for it when it
    /// is used up, and the report says how long.
    pub memory_mib: u32,
    /// Whether commits wait for this machine's disk.
    pub synced: bool,
    /// The operator says that a server elsewhere is theirs.
    pub own_server: bool,
}

impl Plan {
    /// How many of a device's punches of this run have no photo; those after them have one.
    pub(crate) fn without_photo(&self) -> usize {
        let with = (self.photos * self.punches as f64).round() as usize;
        let least = usize::from(self.photos > 0.0);
        self.punches - with.max(least).min(self.punches)
    }

    /// Whether some devices misbehave and others don't.
    pub fn is_mixed(&self) -> bool {
        !self.misbehaviours.is_empty() && self.share > 0.0 && self.share < 1.0
    }

    /// Whether this can be done here.
    ///
    /// # Errors
    /// With what to change.
    pub fn check(&self) -> Result<(), FleetError> {
        let refused = |text: String| Err(FleetError::Plan(text));
        if !is_loopback(&self.server)? && !self.own_server {
            return refused(format!(
                "{} is another machine, and this is a load tool. If that server is yours and may \
                 be loaded, say so with --i-own-this-server",
                self.server
            ));
        }
        if !(1..=DEVICES_MAX).contains(&self.devices) {
            return refused(format!("a fleet has 1 to {DEVICES_MAX} devices"));
        }
        if self.punches > PUNCHES_MAX {
            return refused(format!("a device captures at most {PUNCHES_MAX} punches in a run"));
        }
        let shares = [self.share, self.stale_rosters, self.photos];
        if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return refused("a share is a number from 0 to 1".to_owned());
        }
        if self.offline.as_secs() > OFFLINE_S_MAX || self.offline.is_zero() {
            return refused(
                "captures are spread over at least a second, at most 30 days".to_owned(),
            );
        }
        if !MEMORY_MIB.contains(&self.memory_mib) {
            return refused("batches on their way need 16 MiB at least".to_owned());
        }
        if matches!(&self.pairing, Pairing::Operator { sites, .. } if sites.is_empty()) {
            return refused("name at least one site with --site".to_owned());
        }
        self.raise_file_limit()
    }

    /// Raises this process's limit of open files as far as it may, and says so if that isn't
    /// enough.
    fn raise_file_limit(&self) -> Result<(), FleetError> {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let wanted = self.devices as u64 + crate::FILES_MAX as u64 + FILES_SPARE;
        let limit = getrlimit(Resource::Nofile);
        if limit.current.is_none_or(|current| current >= wanted) {
            return Ok(());
        }
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if limit.maximum.is_none_or(|most| most >= wanted)
            && setrlimit(Resource::Nofile, raised).is_ok()
        {
            return Ok(());
        }
        Err(FleetError::Plan(format!(
            "{} devices need {wanted} open files, each having a connection; this user may have {}. \
             Raise the limit (ulimit -n) or take fewer devices",
            self.devices,
            limit.maximum.map_or_else(|| "fewer".to_owned(), |most| most.to_string()),
        )))
    }

    /// The folder of device `index`.
    pub fn folder(&self, index: usize) -> PathBuf {
        self.dir.join(format!("device-{index:05}"))
    }

    /// Dice of device `index`: the same for one seed, whatever the others do.
    pub(crate) fn dice(&self, index: usize) -> StdRng {
        // The golden ratio's bits spread neighbours far apart.
        StdRng::seed_from_u64(
            self.seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        )
    }

    /// For each device, whether it is of the share `share`; `salt` tells different choices apart.
    pub(crate) fn chosen(&self, share: f64, salt: u64) -> Vec<bool> {
        let chosen = (share * self.devices as f64).round() as usize;
        let mut marks: Vec<bool> = (0..self.devices).map(|index| index < chosen).collect();
        marks.shuffle(&mut StdRng::seed_from_u64(self.seed ^ salt));
        marks
    }
}
