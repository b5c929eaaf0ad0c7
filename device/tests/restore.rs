//! A server whose database went back, or whose clock leaps: nothing is forgotten on its word alone,
//! and whatever a restore took is sent again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod door;

use std::path::Path;

use punchtrail_device::{Device, Drain};
use punchtrail_protocol::Digest;
use punchtrail_stand_in::{CODE, Call, Fault, StandIn};
use sqlx::{Connection, migrate::Migrator, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use self::door::{DAY_MS, Door};

const YEAR_MS: i64 = 365 * DAY_MS;

impl Door {
    /// A punch with a photo, delivered.
    async fn delivered(&self) -> Digest {
        let photo = self.punch(Some(b"\xff\xd8\xffframe")).await.photo.unwrap();
        assert!(self.sync().await.complete);
        photo
    }

    /// All clocks go on for so long, with a contact each day.
    async fn live(&self, server: &StandIn, days: i64) {
        for _ in 0..days {
            self.clocks.pass_ms(DAY_MS);
            server.pass_ms(DAY_MS);
            assert!(self.sync().await.complete);
        }
    }
}

#[tokio::test]
async fn a_servers_clock_that_leaps_makes_no_device_forget() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let photo = door.delivered().await;
    for leap_ms in [YEAR_MS, -YEAR_MS, YEAR_MS, -YEAR_MS, 40 * YEAR_MS, -40 * YEAR_MS] {
        server.pass_ms(leap_ms);
        door.sync().await;
        door.clocks.pass_ms(60_000);
        server.pass_ms(60_000);
        door.sync().await;
        assert_eq!(door.held().await.len(), 1, "after a leap of {leap_ms} ms");
    }
    assert!(door.device.folder().photo(photo).exists());
    // Once the clocks agree again, they count.
    door.live(&server, 29).await;
    assert_eq!(door.held().await.len(), 1);
    door.live(&server, 3).await;
    assert_eq!(door.held().await.len(), 0);
    assert!(!door.device.folder().photo(photo).exists());
}

#[tokio::test]
async fn what_is_acknowledged_stays_for_the_restore_window() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let photo = door.delivered().await;
    let file = door.device.folder().photo(photo);
    let pass = async |ms| {
        door.clocks.pass_ms(ms);
        server.pass_ms(ms);
        assert!(door.sync().await.complete);
    };
    pass(30 * DAY_MS - 1).await;
    assert_eq!(door.held().await.len(), 1, "kept to the last millisecond");
    pass(1).await;
    assert_eq!(door.held().await.len(), 0);
    assert!(!file.exists());
    assert_eq!(door.punch(None).await.seq, 2, "the chain goes on");
    assert!(door.sync().await.complete);
}

#[tokio::test]
async fn an_earlier_identity_stays_until_its_window_is_over() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.delivered().await;
    let agent = door.device.lock_agent().unwrap();
    door.device.enroll(&agent, &server.url, CODE, "Gate again").await.unwrap();
    drop(agent);
    door.live(&server, 29).await;
    assert_eq!(door.device.status().await.unwrap().earlier[0].kept, 1);
    door.live(&server, 2).await;
    assert!(door.device.status().await.unwrap().earlier.is_empty());
}

#[tokio::test]
async fn what_was_acknowledged_while_the_servers_clock_was_ahead_is_forgotten_some_day() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    server.pass_ms(40 * YEAR_MS);
    door.delivered().await;
    server.pass_ms(-40 * YEAR_MS);
    door.live(&server, 30).await;
    assert_eq!(door.held().await.len(), 1);
    door.live(&server, 2).await;
    assert_eq!(door.held().await.len(), 0);
}

#[tokio::test]
async fn the_devices_own_clock_alone_makes_it_forget_nothing_either() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.delivered().await;
    // Set by hand; set by the same wrong source as the server's; and over a reboot.
    door.clocks.set_ms(YEAR_MS);
    door.sync().await;
    door.clocks.set_ms(YEAR_MS);
    server.pass_ms(YEAR_MS);
    door.sync().await;
    for _ in 0..3 {
        door.clocks.reboot_ms(YEAR_MS);
        server.pass_ms(YEAR_MS);
        door.sync().await;
        // A clock that starts in 1970 until it is set.
        door.clocks.reboot_ms(-40 * YEAR_MS);
        door.sync().await;
        door.clocks.set_ms(40 * YEAR_MS);
        door.sync().await;
    }
    assert_eq!(door.held().await.len(), 1);
}

#[tokio::test]
async fn a_device_that_is_off_at_night_forgets_in_time_and_one_that_was_off_for_weeks_later() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.delivered().await;
    let half_ms = DAY_MS / 2;
    for _ in 0..29 {
        door.clocks.pass_ms(half_ms);
        server.pass_ms(half_ms);
        door.sync().await;
        door.clocks.reboot_ms(half_ms);
        server.pass_ms(half_ms);
        door.sync().await;
    }
    assert_eq!(door.held().await.len(), 1);
    // Of the weeks only a day counts, which is the one that lacked.
    door.clocks.reboot_ms(21 * DAY_MS);
    server.pass_ms(21 * DAY_MS);
    door.sync().await;
    assert_eq!(door.held().await.len(), 0);
    door.delivered().await;
    door.clocks.reboot_ms(60 * DAY_MS);
    server.pass_ms(60 * DAY_MS);
    door.sync().await;
    assert_eq!(door.held().await.len(), 1, "of sixty days off, one counts");
}

#[tokio::test]
async fn a_server_cannot_set_a_window_below_the_devices_own() {
    let server = StandIn::start().await;
    server.ledger().policy.restore_window_s = 0;
    let door = Door::enrolled(&server).await;
    door.delivered().await;
    door.live(&server, 6).await;
    assert_eq!(door.held().await.len(), 1);
    door.live(&server, 2).await;
    assert_eq!(door.held().await.len(), 0);
}

#[tokio::test]
async fn a_folder_of_an_earlier_program_counts_from_its_upgrade() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    door.delivered().await;
    let Door { dir, device, clocks } = door;
    device.close().await;
    let path = dir.path().join("d/device.db");
    undo_the_third_migration(&path).await;

    let device = Device::open(dir.path().join("d"), door::options(&clocks)).await.unwrap();
    let door = Door { dir, device, clocks };
    // The time before the upgrade is nobody's word but the server's.
    server.pass_ms(31 * DAY_MS);
    door.clocks.pass_ms(31 * DAY_MS);
    assert!(door.sync().await.complete);
    assert_eq!(door.held().await.len(), 1);
    assert_eq!(door.device.status().await.unwrap().employees, 2);
    door.live(&server, 29).await;
    assert_eq!(door.held().await.len(), 1);
    door.live(&server, 1).await;
    assert_eq!(door.held().await.len(), 0);
}

/// The database as the program before wrote it.
async fn undo_the_third_migration(path: &Path) {
    let mut migrator = Migrator::new(Path::new("migrations")).await.unwrap();
    migrator.migrations = migrator.migrations.iter().take(2).cloned().collect();
    let older = path.with_extension("older");
    let options = SqliteConnectOptions::new().filename(&older).create_if_missing(true);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    migrator.run(&mut db).await.unwrap();
    sqlx::query("ATTACH ? AS newer").bind(path.to_str().unwrap()).execute(&mut db).await.unwrap();
    for table in ["identity", "contact", "capture", "photo", "manifest"] {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM pragma_table_info(?1, 'newer')
             INTERSECT SELECT name FROM pragma_table_info(?1, 'main')",
        )
        .bind(table)
        .fetch_all(&mut db)
        .await
        .unwrap();
        let columns = columns.join(", ");
        let copy =
            format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}");
        sqlx::query(&copy).execute(&mut db).await.unwrap();
    }
    db.close().await.unwrap();
    std::fs::rename(older, path).unwrap();
    for beside in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(path.with_extension(beside));
    }
}

#[tokio::test]
async fn a_photos_answer_that_names_another_epoch_brings_everything_back() {
    let server = StandIn::start().await;
    server.ledger().part_at(100);
    let door = Door::enrolled(&server).await;
    door.punch_times(3).await;
    door.delivered().await;
    let id = door.device.identity().await.unwrap().unwrap().device;
    let before = server.ledger().captures(id);
    assert_eq!(before.len(), 4);
    // The ledger goes back while a photo waits; a hole keeps acked_through where it was.
    door.punch(Some(b"\xff\xd8\xffanother")).await;
    server.ledger().always.insert("photos", Fault::Refuse(415, "unsupported_media_type"));
    assert!(!door.sync().await.complete);
    server.ledger().always.clear();
    server.ledger().part_at(102);
    server.ledger().photos.clear();
    server.ledger().calls.clear();

    let agent = door.device.lock_agent().unwrap();
    let mut drain = Drain::new(&door.device, &agent);
    let stop = tokio_util::sync::CancellationToken::new();
    let all = async {
        let look = async || {
            let ledger = server.ledger();
            Ok((ledger.punches.len() == 5 && ledger.photos.len() == 2).then_some(()))
        };
        punchtrail_testkit::eventually("all to be back", punchtrail_testkit::PATIENCE, look)
            .await
            .unwrap();
        stop.cancel();
    };
    tokio::join!(drain.run(&stop), all);
}

#[tokio::test]
async fn an_epoch_in_a_head_makes_a_heartbeat_due_and_stops_forgetting_until_it_is_explained() {
    let server = StandIn::start().await;
    server.ledger().part_at(100);
    let door = Door::enrolled(&server).await;
    door.delivered().await;
    server.ledger().epoch_header = Some(Uuid::new_v4().to_string());
    door.clocks.pass_ms(40 * DAY_MS);
    server.pass_ms(40 * DAY_MS);
    server.ledger().calls.clear();
    door.punch_times(1).await;
    assert!(door.sync().await.complete);
    assert_eq!(door.held().await.len(), 2, "nothing is forgotten while an epoch is in doubt");
    let beats =
        |calls: &[Call]| calls.iter().filter(|c| matches!(c, Call::Heartbeat { .. })).count();
    let calls = server.ledger().calls.clone();
    assert!((2..=4).contains(&beats(&calls)), "asked, and not again and again: {calls:?}");
    for unreadable in ["", "x", "\u{e9}", "00000000-0000-0000-0000-00000000000Z"] {
        server.ledger().epoch_header = Some(unreadable.to_owned());
        door.sync().await;
        assert_eq!(door.held().await.len(), 1, "what can't be read changes nothing");
    }
}

#[tokio::test]
async fn any_answer_that_names_another_epoch_makes_a_heartbeat_due() {
    for path in ["batch", "photos", "manifest"] {
        let server = StandIn::start().await;
        server.ledger().part_at(100);
        let door = Door::enrolled(&server).await;
        door.punch_times(2).await;
        assert!(door.sync().await.complete);
        match path {
            "batch" => door.punch_times(1).await,
            "photos" => {
                server.ledger().refuse_photos = true;
                door.punch(Some(b"\xff\xd8\xffframe")).await;
                assert!(!door.sync().await.complete);
                server.ledger().refuse_photos = false;
            }
            _ => server.ledger().roster = "r2".to_owned(),
        }
        {
            let mut ledger = server.ledger();
            ledger.calls.clear();
            ledger.always.insert(path, Fault::Refuse(415, "told_to"));
            ledger.parts_on = Some((path, 101));
        }
        door.sync().await;
        let calls = server.ledger().calls.clone();
        let beats = calls.iter().filter(|call| matches!(call, Call::Heartbeat { .. })).count();
        assert!(beats >= 2, "{path}: {beats} heartbeats");
        server.ledger().always.clear();
        assert!(door.sync().await.complete, "{path}");
        assert_eq!(server.ledger().punches.len(), if path == "manifest" { 2 } else { 3 });
    }
}

#[tokio::test]
async fn a_photo_delivered_after_the_copy_was_made_is_sent_again() {
    let server = StandIn::start().await;
    server.ledger().part_at(100);
    let door = Door::enrolled(&server).await;
    server.ledger().refuse_photos = true;
    let photo = door.punch(Some(b"\xff\xd8\xffframe")).await.photo.unwrap();
    assert!(!door.sync().await.complete);
    // The copy is made here: it has the punch and lacks the photo.
    server.ledger().refuse_photos = false;
    assert!(door.sync().await.complete);
    assert!(server.ledger().photos.contains(&photo));
    let head = server.ledger().head;
    server.ledger().part_at(head);
    server.ledger().photos.clear();
    assert!(door.sync().await.complete);
    assert!(server.ledger().photos.contains(&photo), "its punch was there all the time");
    assert_eq!(door.held().await.len(), 1);
}

#[tokio::test]
async fn an_anchor_longer_than_any_is_never_given_back() {
    let server = StandIn::start().await;
    server.ledger().part_at(100);
    let door = Door::enrolled(&server).await;
    let mut write = door.device.store().write().await.unwrap();
    let history = punchtrail_protocol::wire::LedgerHistory {
        epochs: Vec::new(),
        anchor: "x".repeat(100_000),
    };
    punchtrail_device::store::contact::told_history(&mut write, 1, &history).await.unwrap();
    let contact = punchtrail_device::store::contact::of(&mut write, 1).await.unwrap();
    assert_eq!(contact.anchor, None);
    write.rollback().await.unwrap();
}
