//! Fifty devices with 150 punches each come back at once while people read: what was promised of
//! that, for devices that behave and for devices that don't. Nothing is said of speed; `./dev bench
//! storm` does that.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::sync::atomic::{AtomicBool, Ordering};

use futures::{FutureExt, future::join_all};
use jiff::{Timestamp, tz::TimeZone};
use punchtrail_protocol::capture::PunchKind;
use punchtrail_tests::{
    Agent, Fleet, Hostile, Installation, Kiosk, Shop,
    agent::Punch,
    seed,
    shop::{BADGES, ZONE, crowd},
    storm::{nothing_waits, verified},
};
use reqwest::{Method, StatusCode};

const DEVICES: usize = 50;
const PUNCHES: usize = 150;
/// As devices come, but for a rate that makes them wait a quarter of a minute.
const POLICY: [&str; 1] = ["punches_per_minute=6000"];
const MISBEHAVIOUR: &str = "no-throttle,fixed-retry,ignore-retry-after,duplicates,garbage,clocks";

/// A device whose one punch is there from the beginning, and who may look for people.
async fn doors(shop: &Shop) -> (Agent, Kiosk) {
    let agent = shop.agent(shop.server.url()).await.unwrap();
    let punch = Punch { badge: BADGES[0], kind: PunchKind::In, pin: None, then: None };
    agent.punch(&punch).await.unwrap();
    assert_eq!(agent.sync().await.unwrap()["complete"], true);
    let kiosk = shop.kiosk(shop.server.url()).await.unwrap();
    kiosk.heartbeat(0, None).await.unwrap();
    (agent, kiosk)
}

/// How many readers there are, and how often each searches at the device, which may ask a thousand
/// times a day.
const READERS: usize = 4;
const SEARCHES_MAX: usize = 240;

/// Reads an explanation, a timecard and a search, over and over until told to stop. Gives how
/// often.
async fn read(shop: &Shop, punch: &str, kiosk: &Kiosk, stop: &AtomicBool) -> usize {
    let today = Timestamp::now().to_zoned(TimeZone::get(ZONE).unwrap()).date();
    let explanation = format!("/v1/punches/{punch}/explanation");
    let timecard = format!("/v1/timecards?employee={}&from={today}&to={today}", shop.employee);
    let search = format!("/v1/sites/{}/employees?q=Worker", shop.site);
    let (mut reads, mut searches) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        for path in [&explanation, &timecard] {
            let (status, answer) = shop.operator.ask(Method::GET, path, None).await.unwrap();
            assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        }
        reads += 2;
        if searches < SEARCHES_MAX {
            let (status, answer) = kiosk.ask(Method::GET, &search, None).await.unwrap();
            assert_eq!(status, StatusCode::OK, "{search}: {answer}");
            searches += 1;
        }
    }
    reads
}

/// A stranger and a revoked device begin to do their worst.
async fn beset_by_two(shop: &Shop) -> Hostile {
    let revoked = shop.kiosk(shop.server.url()).await.unwrap();
    revoked.heartbeat(0, None).await.unwrap();
    let path = format!("/v1/devices/{}/revoke", revoked.chain.next.device);
    let (status, answer) = shop.operator.ask(Method::POST, &path, None).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
    Hostile::begin(shop.server.url(), shop.server.address().unwrap(), &revoked).unwrap()
}

/// Runs the storm, `misbehave` told to nine of ten devices, beside a stranger and a revoked device
/// that do their worst if it is `beset`, and holds every promise against it.
async fn storm(misbehave: Option<&str>, beset: bool) {
    let place = Installation::embedded().unwrap();
    let shop = Shop::open_with(place, &crowd(DEVICES), &POLICY).await.unwrap();
    let (agent, kiosk) = doors(&shop).await;
    let punch = agent.kept().await.unwrap()[0].punch.clone();
    let folder = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(
        &shop,
        shop.server.url(),
        &folder.path().join("fleet"),
        DEVICES,
        seed().unwrap(),
    );
    if let Some(modes) = misbehave {
        fleet.misbehave(modes, 0.9);
    }
    fleet.capture(&shop, PUNCHES).await.unwrap();
    fleet.start(&shop).unwrap();

    let hostile = if beset { Some(beset_by_two(&shop).await) } else { None };
    let over = AtomicBool::new(false);
    let delivering = fleet.delivers().map(|report| {
        over.store(true, Ordering::Relaxed);
        report.unwrap()
    });
    let reading = join_all((0..READERS).map(|_| read(&shop, &punch, &kiosk, &over)));
    let (report, reads) = tokio::join!(delivering, reading);
    assert!(reads.iter().all(|reads| *reads > 0), "nobody read meanwhile: {reads:?}");
    assert_eq!(report["outcome"]["acknowledged"], DEVICES * PUNCHES, "{}", report["outcome"]);

    drop(hostile);
    let mut folders = fleet.folders();
    folders.push(agent.dir().to_owned());
    let comparison = shop.compare(&folders).await.unwrap();
    comparison.is_complete().unwrap();
    assert_eq!(comparison.captures, (DEVICES * PUNCHES + 1) as u64);
    nothing_waits(&shop).await.unwrap();
    verified(&shop).await.unwrap();
}

#[tokio::test]
async fn a_well_behaved_fleet_is_taken_whole_and_nobody_is_turned_away() {
    storm(None, false).await;
}

#[tokio::test]
async fn so_is_one_in_which_nine_of_ten_do_everything_wrong() {
    storm(Some(MISBEHAVIOUR), false).await;
}

#[tokio::test]
async fn so_is_one_beside_a_stranger_and_a_revoked_device_that_do_their_worst() {
    storm(None, true).await;
}
