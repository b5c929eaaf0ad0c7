//! A door of a test: a device whose clocks the test sets.

#![allow(dead_code, reason = "each test's file uses its part")]

use std::sync::{Arc, Mutex};

use punchtrail_device::{
    Confirmation, Device, Drain, Options, Press, SyncReport,
    clock::{Clock, Moment},
    status::IdentityStatus,
    store::{outbox, outbox::Kept},
};
use punchtrail_protocol::{BootId, Time, capture::PunchKind};
use punchtrail_stand_in::{CODE, StandIn};
use uuid::Uuid;
use zeroize::Zeroizing;

pub const DAY_MS: i64 = 86_400_000;

/// Clocks that stand still until they are set.
#[derive(Clone)]
pub struct Clocks(Arc<Mutex<Moment>>);

impl Clock for Clocks {
    fn read(&self) -> Moment {
        self.0.lock().unwrap().clone()
    }
}

impl Default for Clocks {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Moment {
            time: Time::from_millis(1_790_000_000_000),
            utc_offset_s: 0,
            tz: "Etc/UTC".to_owned(),
            boot: BootId(Uuid::new_v4()),
            uptime_ms: 1_000,
        })))
    }
}

impl Clocks {
    /// Time passes, and all clocks show it.
    pub fn pass_ms(&self, ms: i64) {
        self.set_ms(ms);
        self.0.lock().unwrap().uptime_ms += ms as u64;
    }

    /// The wall clock is set by so much.
    pub fn set_ms(&self, ms: i64) {
        let mut moment = self.0.lock().unwrap();
        moment.time = moment.time.plus_millis(ms);
    }

    /// The device was off for so long.
    pub fn reboot_ms(&self, off_ms: i64) {
        self.set_ms(off_ms);
        let mut moment = self.0.lock().unwrap();
        (moment.boot, moment.uptime_ms) = (BootId(Uuid::new_v4()), 0);
    }
}

/// A device at a door.
pub struct Door {
    pub dir: tempfile::TempDir,
    pub device: Device,
    pub clocks: Clocks,
}

/// Short waits and calls, so that a test of many failures is over soon; the floor between tries
/// stays.
pub fn options(clocks: &Clocks) -> Options {
    let clock = Arc::new(clocks.clone());
    Options { clock, retry_cap_ms: 1_000, call_ms: 400, ..Options::default() }
}

impl Door {
    pub async fn enrolled(server: &StandIn) -> Self {
        let (dir, clocks) = (tempfile::tempdir().unwrap(), Clocks::default());
        let device = Device::create(dir.path().join("d"), options(&clocks)).await.unwrap();
        let door = Self { dir, device, clocks };
        let agent = door.device.lock_agent().unwrap();
        door.device.enroll(&agent, &server.url, CODE, "Gate").await.unwrap();
        drop(agent);
        assert!(door.sync().await.complete);
        server.ledger().calls.clear();
        door
    }

    pub async fn punch(&self, photo: Option<&[u8]>) -> Confirmation {
        let press = Press {
            badge: "1001".to_owned(),
            kind: PunchKind::In,
            pin: None,
            photo: photo.map(|bytes| Zeroizing::new(bytes.to_vec())),
        };
        self.device.punch(press).await.unwrap()
    }

    pub async fn punch_times(&self, times: usize) {
        for _ in 0..times {
            self.punch(None).await;
        }
    }

    pub async fn sync(&self) -> SyncReport {
        let agent = self.device.lock_agent().unwrap();
        Drain::new(&self.device, &agent).sync().await.unwrap()
    }

    pub async fn status(&self) -> IdentityStatus {
        self.device.status().await.unwrap().current.unwrap()
    }

    pub async fn held(&self) -> Vec<Kept> {
        let id = self.device.identity().await.unwrap().unwrap().id;
        outbox::held(&mut self.device.store().read().await.unwrap(), id).await.unwrap()
    }
}
