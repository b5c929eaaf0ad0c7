//! A database that is damaged on the disk: it is said what it is, what can be read is saved and
//! delivered, the damaged file stays as it was, and no number is ever given out twice.

#![allow(clippy::unwrap_used, reason = "in a test that is the failure")]

mod door;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use punchtrail_device::{
    Device, PunchError, SalvageError, Salvaged, folder::Folder, salvage, store::StoreError,
};
use punchtrail_protocol::{DeviceId, Time};
use punchtrail_stand_in::{CODE, Fault, StandIn};
use serde_json::Value;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use self::door::Door;

const PAGE: usize = 4_096;
const PUNCHES: u64 = 60;
const DELIVERED: u64 = 10;

/// A device with punches, the first of them delivered, and nothing open.
struct Damaged {
    server: StandIn,
    door: Door,
    device: DeviceId,
}

impl Damaged {
    async fn folder() -> Self {
        let server = StandIn::start().await;
        let door = Door::enrolled(&server).await;
        let device = door.device.identity().await.unwrap().unwrap().device;
        door.punch_times(DELIVERED as usize).await;
        door.punch(Some(b"\xff\xd8\xffframe")).await;
        assert!(door.sync().await.complete);
        server.ledger().always.insert("batch", Fault::Refuse(500, "internal"));
        door.punch(Some(b"\xff\xd8\xffanother")).await;
        door.punch_times((PUNCHES - DELIVERED - 2) as usize).await;
        door.device.close().await;
        server.ledger().always.clear();
        Self { server, door, device }
    }

    fn dir(&self) -> PathBuf {
        self.door.dir.path().join("d")
    }

    fn database(&self) -> PathBuf {
        self.dir().join("device.db")
    }

    /// The database with some of its bytes changed; gives it as it is then.
    fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = fs::read(self.database()).unwrap();
        change(&mut bytes);
        fs::write(self.database(), &bytes).unwrap();
        bytes
    }

    /// The page that this is the root of.
    async fn root_of(&self, name: &str) -> usize {
        let options = SqliteConnectOptions::new().filename(self.database()).read_only(true);
        let mut db = SqliteConnection::connect_with(&options).await.unwrap();
        let page: i64 = sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE name = ?")
            .bind(name)
            .fetch_one(&mut db)
            .await
            .unwrap();
        db.close().await.unwrap();
        page as usize
    }

    /// What the program says, and whether it failed.
    async fn said(&self, arguments: &[&str]) -> (bool, Value) {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail-device"))
            .arg("--dir")
            .arg(self.dir())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), serde_json::from_str(said.trim()).unwrap_or(Value::Null))
    }

    async fn open(&self) -> Result<Device, StoreError> {
        Device::open(self.dir(), door::options(&self.door.clocks)).await
    }

    async fn salvage(&self) -> Result<Salvaged, SalvageError> {
        salvage::salvage(&Folder::at(self.dir()), Time::from_millis(1)).await
    }

    /// Another process works on the folder from here on.
    async fn anew(self) -> (StandIn, Door, DeviceId) {
        let device = self.open().await.unwrap();
        let Self { server, door, device: id } = self;
        (server, Door { device, ..door }, id)
    }

    /// The numbers that the server holds.
    fn held(server: &StandIn, device: DeviceId) -> BTreeSet<u64> {
        server.ledger().captures(device).into_iter().map(|capture| capture.seq).collect()
    }
}

/// The page on which the text stands.
fn page_with(bytes: &[u8], text: &str) -> usize {
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    at / PAGE
}

fn overwritten(bytes: &mut [u8], page: usize) {
    bytes[page * PAGE..(page + 1) * PAGE].fill(0xff);
}

#[tokio::test]
async fn a_page_of_punches_costs_those_on_it_and_says_which() {
    let folder = Damaged::folder().await;
    let damaged = folder.damage(|bytes| {
        let page = page_with(bytes, r#""seq":40,"#);
        overwritten(bytes, page);
    });
    let (done, said) = folder.said(&["status", "--json"]).await;
    assert!(!done);
    assert_eq!(said["error"]["code"], "damaged");
    let detail = said["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("confirmed punches can't be read (numbers"), "{detail}");
    assert!(detail.contains("punchtrail-device salvage"), "{detail}");

    let (done, looked) = folder.said(&["salvage", "--look", "--json"]).await;
    assert!(done, "{looked}");
    let numbers: BTreeSet<u64> =
        looked["numbers"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert!(numbers.contains(&40) && numbers.len() < 12, "{looked}");
    assert_eq!((&looked["kept_in"], &looked["exact"]), (&Value::Null, &Value::Bool(true)));
    assert_eq!(fs::read(folder.database()).unwrap(), damaged, "nothing was changed");

    let (done, saved) = folder.said(&["salvage", "--json"]).await;
    assert!(done, "{saved}");
    assert_eq!(saved["unreadable"], numbers.len());
    assert_eq!(saved["readable"], PUNCHES - numbers.len() as u64);
    assert_eq!(saved["goes_on"], false);
    let kept = Path::new(saved["kept_in"].as_str().unwrap());
    assert_eq!(fs::read(kept.join("device.db")).unwrap(), damaged, "kept as it was");

    let (server, door, device) = folder.anew().await;
    let refused = door.device.punch(press()).await.unwrap_err();
    assert!(matches!(refused, PunchError::Ended), "{refused}");
    assert!(door.sync().await.complete);
    let expected = (1..=PUNCHES).filter(|seq| !numbers.contains(seq)).collect();
    assert_eq!(Damaged::held(&server, device), expected);
    assert_eq!(server.ledger().photos.len(), 2);
    let status = door.status().await;
    assert_eq!((status.ended, status.unreadable), (true, Some(numbers.len() as u64)));

    // Punches go on under another name, from 1.
    let agent = door.device.lock_agent().unwrap();
    door.device.enroll(&agent, &server.url, CODE, "Gate again").await.unwrap();
    drop(agent);
    assert!(door.sync().await.complete);
    assert_eq!(door.device.punch(press()).await.unwrap().seq, 1);
    assert!(door.sync().await.complete);
}

fn press() -> punchtrail_device::Press {
    let kind = punchtrail_protocol::capture::PunchKind::In;
    punchtrail_device::Press { badge: "1001".to_owned(), kind, pin: None, photo: None }
}

#[tokio::test]
async fn a_file_that_was_cut_short_gives_what_is_left_of_it() {
    let folder = Damaged::folder().await;
    let damaged = folder.damage(|bytes| {
        let page = page_with(bytes, r#""seq":40,"#);
        bytes.truncate(page * PAGE + 100);
    });
    let (done, said) = folder.said(&["sync", "--json"]).await;
    assert!(!done);
    assert_eq!(said["error"]["code"], "damaged", "{said}");
    let refused = folder.said(&["punch", "--badge", "1001", "--kind", "in", "--json"]).await;
    assert_eq!((refused.0, &refused.1["error"]["code"]), (false, &Value::from("damaged")));

    let saved = folder.salvage().await.unwrap();
    assert_eq!(fs::read(saved.kept_in.unwrap().join("device.db")).unwrap(), damaged);
    assert!(!saved.goes_on && saved.readable > 20, "{}", saved.readable);
    let (server, door, device) = folder.anew().await;
    assert!(door.sync().await.complete);
    let held = Damaged::held(&server, device);
    assert!((1..30).all(|seq| held.contains(&seq)), "{held:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_any_more_is_kept_and_the_folder_starts_anew() {
    for damage in [
        (|bytes: &mut Vec<u8>| bytes[..PAGE].fill(0)) as fn(&mut Vec<u8>),
        |bytes| bytes.fill(b'x'),
        Vec::clear,
    ] {
        let folder = Damaged::folder().await;
        let damaged = folder.damage(damage);
        let (done, said) = folder.said(&["status", "--json"]).await;
        assert!(!done);
        assert_eq!(said["error"]["code"], "damaged", "{said}");
        let detail = said["error"]["detail"].as_str().unwrap();
        assert!(detail.contains("nobody can know"), "{detail}");
        assert_eq!(fs::read(folder.database()).unwrap(), damaged);

        let saved = folder.salvage().await.unwrap();
        assert_eq!((saved.readable, saved.unreadable, saved.goes_on), (0, None, false));
        let kept = saved.kept_in.unwrap();
        assert_eq!(fs::read(kept.join("device.db")).unwrap(), damaged);
        assert_eq!(fs::read_dir(kept.join("photos")).unwrap().count(), 2, "photos, too");
        let (server, door, _) = folder.anew().await;
        assert!(matches!(door.device.punch(press()).await, Err(PunchError::NotEnrolled)));
        let agent = door.device.lock_agent().unwrap();
        door.device.enroll(&agent, &server.url, CODE, "Gate again").await.unwrap();
        drop(agent);
        assert!(door.sync().await.complete);
        assert_eq!(door.punch(None).await.seq, 1);
    }
}

#[tokio::test]
async fn damage_elsewhere_leaves_every_punch_and_the_chain_goes_on() {
    for name in ["manifest", "capture_waiting", "manifest_badge", "sqlite_autoindex_capture_1"] {
        let folder = Damaged::folder().await;
        let page = folder.root_of(name).await;
        folder.damage(|bytes| overwritten(bytes, page - 1));
        assert!(matches!(folder.open().await.unwrap().status().await, Err(StoreError::Damaged(_))));
        let saved = folder.salvage().await.unwrap();
        assert_eq!((saved.readable, saved.unreadable), (PUNCHES, Some(0)), "{name}");
        assert!(saved.goes_on, "{name}");
        let (server, door, device) = folder.anew().await;
        assert_eq!(door.device.punch(press()).await.unwrap().seq, PUNCHES + 1, "{name}");
        assert!(door.sync().await.complete);
        assert_eq!(Damaged::held(&server, device).len() as u64, PUNCHES + 1, "{name}");
        assert_eq!(door.device.status().await.unwrap().employees, 2, "walked anew");
    }
}

#[tokio::test]
async fn without_the_index_of_numbers_nobody_says_more_than_is_known() {
    let folder = Damaged::folder().await;
    let index = folder.root_of("sqlite_autoindex_capture_2").await;
    folder.damage(|bytes| {
        let page = page_with(bytes, r#""seq":40,"#);
        overwritten(bytes, page);
        overwritten(bytes, index - 1);
    });
    let saved = folder.salvage().await.unwrap();
    assert!(!saved.exact && !saved.goes_on);
    assert!(saved.numbers.contains(&40) && saved.numbers.len() < 12, "{:?}", saved.numbers);
    assert_eq!(saved.readable + saved.unreadable.unwrap(), PUNCHES);
}

#[tokio::test]
async fn without_its_identity_punches_are_kept_and_none_is_delivered_in_its_name() {
    let folder = Damaged::folder().await;
    let page = folder.root_of("identity").await;
    let damaged = folder.damage(|bytes| overwritten(bytes, page - 1));
    let saved = folder.salvage().await.unwrap();
    assert_eq!((saved.readable, saved.unreadable), (0, Some(PUNCHES)));
    assert_eq!(fs::read(saved.kept_in.unwrap().join("device.db")).unwrap(), damaged);
}

/// The last punches are in the log alone, as after a power cut, and a part of it is written over.
#[tokio::test]
async fn a_log_that_is_written_over_is_no_power_cut() {
    for (spoilt, damaged) in [(1, true), (30, true), (50, false)] {
        let server = StandIn::start().await;
        let door = Door::enrolled(&server).await;
        door.device.close().await;
        let dir = door.dir.path().join("d");
        let device = Device::open(&dir, door::options(&door.clocks)).await.unwrap();
        for _ in 0..50 {
            device.punch(press()).await.unwrap();
        }
        let twin = Folder::at(door.dir.path().join("twin"));
        twin.create().unwrap();
        for file in ["device.db", "device.db-wal"] {
            fs::copy(dir.join(file), twin.path().join(file)).unwrap();
        }
        let log = twin.path().join("device.db-wal");
        let mut bytes = fs::read(&log).unwrap();
        let text = format!(r#""seq":{spoilt},"#);
        let found = bytes.windows(text.len()).rposition(|window| window == text.as_bytes());
        bytes[found.unwrap()] = b'!';
        fs::write(&log, &bytes).unwrap();
        let opened = Device::open(twin.path(), door::options(&door.clocks)).await;
        if !damaged {
            // As if the power had failed while it was written: it was never confirmed.
            assert_eq!(opened.unwrap().punch(press()).await.unwrap().seq, 50);
            continue;
        }
        assert!(matches!(opened, Err(StoreError::Damaged(_))), "{spoilt}");
        let saved = salvage::salvage(&twin, Time::from_millis(1)).await.unwrap();
        assert_eq!((saved.unreadable, saved.goes_on), (None, false), "no number comes twice");
        assert!(saved.readable < 50);
        assert_eq!(fs::read(saved.kept_in.unwrap().join("device.db-wal")).unwrap(), bytes);
    }
}

#[tokio::test]
async fn what_is_sound_or_in_use_is_left_alone() {
    let folder = Damaged::folder().await;
    let before = fs::read(folder.database()).unwrap();
    assert!(matches!(folder.salvage().await, Err(SalvageError::Sound(_))));
    let page = folder.root_of("manifest").await;
    let open = folder.open().await.unwrap();
    let error = folder.salvage().await.unwrap_err();
    assert_eq!(error.code(), "in_use", "{error}");
    open.close().await;
    drop(open);
    assert_eq!(fs::read(folder.database()).unwrap().len(), before.len());
    folder.damage(|bytes| overwritten(bytes, page - 1));
    assert!(folder.salvage().await.unwrap().goes_on);
    assert!(matches!(folder.salvage().await, Err(SalvageError::Sound(_))), "once is enough");
}

#[tokio::test]
async fn a_salvage_that_was_killed_is_ended_by_the_next_and_nobody_works_in_between() {
    // Killed before anything was moved, after the database was, and before the new one was.
    for moved in 0..3 {
        let folder = Damaged::folder().await;
        let page = folder.root_of("manifest").await;
        let damaged = folder.damage(|bytes| overwritten(bytes, page - 1));
        let (dir, log) = (folder.dir(), folder.dir().join("device.db-wal"));
        fs::write(dir.join("device.db.partial"), b"of one that was killed before").unwrap();
        let twin = Folder::at(folder.door.dir.path().join("twin"));
        twin.create().unwrap();
        fs::copy(folder.database(), twin.database()).unwrap();
        salvage::salvage(&twin, Time::from_millis(1)).await.unwrap();
        fs::copy(twin.database(), dir.join("device.db.salvaged")).unwrap();
        fs::write(&log, b"the damaged one's").unwrap();
        let kept = dir.join("damaged-1");
        if moved > 0 {
            fs::create_dir(&kept).unwrap();
            fs::rename(folder.database(), kept.join("device.db")).unwrap();
        }
        if moved > 1 {
            fs::rename(&log, kept.join("device.db-wal")).unwrap();
        }
        for create in [false, true] {
            let options = door::options(&folder.door.clocks);
            let opened = match create {
                true => Device::create(&dir, options).await,
                false => Device::open(&dir, options).await,
            };
            assert!(matches!(opened, Err(StoreError::SalvageBegun)), "{moved} {create}");
        }
        let saved = folder.salvage().await.unwrap();
        assert_eq!((saved.readable, saved.goes_on), (PUNCHES, true), "{moved}");
        assert_eq!(saved.kept_in.as_ref(), Some(&kept));
        assert_eq!(fs::read(kept.join("device.db")).unwrap(), damaged);
        assert_eq!(fs::read(kept.join("device.db-wal")).unwrap(), b"the damaged one's");
        let (_, door, _) = folder.anew().await;
        assert_eq!(door.punch(None).await.seq, PUNCHES + 1);
    }
}
