//! Faults in the middle of a storm, at moments that chance decides: nothing is lost, nothing is
//! there twice, and meanwhile it is known which device still holds what. docs/faults.md is the
//! table of these.
//!
//! A failed test prints its seed; `PUNCHTRAIL_SEED=…` decides the same again.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use punchtrail_protocol::{capture::PunchKind, wire::BatchRequest};
use punchtrail_testkit::{PATIENCE, eventually};
use punchtrail_tests::{
    Installation, Kiosk, Shop, SmallDisk, Storm,
    agent::Punch,
    cluster::lives,
    gate::{Chance, Gate, Line, LostAnswers, Traffic},
    seed,
    shop::BADGES,
    storm::{DEVICES, nothing_waits},
};
use rand::RngExt;
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The requests that deliver punches.
const DELIVERIES: &str = "/punches/batch";
/// A small disk for four devices, and for a Postgres and a server's own files, in MiB.
const DEVICES_DISK_MIB: u32 = 16;
const POSTGRES_DISK_MIB: u32 = 192;

/// A storm on a private Postgres, in the middle.
async fn storm() -> Storm {
    storm_at(Installation::embedded().unwrap()).await
}

async fn storm_at(place: Installation) -> Storm {
    let mut storm = Storm::gather(place, seed().unwrap(), |_| None).await.unwrap();
    storm.reach_a_random_moment().await.unwrap();
    storm
}

/// Waits until the server answers a read again.
async fn serves(storm: &Storm) {
    eventually("the server to answer", PATIENCE, async || {
        Ok(storm.shop.operator.head().await.is_ok().then_some(()))
    })
    .await
    .unwrap();
}

/// Waits until all lines together have seen enough of something.
async fn have_seen(storm: &Storm, what: &str, enough: impl Fn(&Traffic) -> bool) {
    eventually(what, PATIENCE, async || {
        Ok(storm.lines.iter().map(Gate::traffic).all(|traffic| enough(&traffic)).then_some(()))
    })
    .await
    .unwrap();
}

fn duplicates(reports: &[Value]) -> u64 {
    reports.iter().filter_map(|report| report["outcome"]["by_status"]["duplicate"].as_u64()).sum()
}

#[tokio::test]
async fn the_server_is_killed() {
    let mut storm = storm().await;
    storm.shop.server.kill_9().unwrap();
    storm.slow();
    storm.restart_server().await.unwrap();
    storm.shows_what_waits().await.unwrap();
    storm.ends_well().await.unwrap();
}

#[tokio::test]
async fn postgres_is_killed() {
    let mut storm = storm().await;
    storm.slow();
    let killed = storm.shop.server.installation().data.kill_9_postgres().unwrap();
    eventually("Postgres to be gone", PATIENCE, async || Ok((!lives(killed)).then_some(())))
        .await
        .unwrap();
    serves(&storm).await;
    storm.shows_what_waits().await.unwrap();
    storm.ends_well().await.unwrap();
}

#[tokio::test]
async fn a_backend_of_postgres_is_killed() {
    let mut storm = storm().await;
    storm.slow();
    // Postgres ends all its sessions then, and recovers.
    let backend = "select pid from pg_stat_activity where backend_type = 'client backend' \
        and application_name like 'punchtrail-%' order by (state = 'active') desc, backend_start \
        limit 1";
    let backend: i32 = sqlx::query_scalar(backend).fetch_one(&storm.database).await.unwrap();
    let backend = Pid::from_raw(backend).unwrap();
    kill_process(backend, Signal::KILL).unwrap();
    eventually("the backend to be gone", PATIENCE, async || Ok((!lives(backend)).then_some(())))
        .await
        .unwrap();
    serves(&storm).await;
    storm.shows_what_waits().await.unwrap();
    storm.ends_well().await.unwrap();
}

/// All but the devices on `line` deliver everything.
async fn all_others_deliver(storm: &mut Storm, line: usize) {
    storm.carry(None);
    for (other, fleet) in storm.fleets.iter_mut().enumerate() {
        if other != line {
            fleet.delivers().await.unwrap();
        }
    }
}

/// Holds that it is known what the devices on `line` still hold, and that no other holds anything.
async fn only_these_hold_punches(storm: &Storm, line: usize) {
    let comparison = storm.shows_what_waits().await.unwrap();
    let there = storm.shop.compare(&storm.fleets[line].folders()).await.unwrap();
    assert_eq!(comparison.unsent, there.unsent);
}

#[tokio::test]
async fn a_tenth_of_the_devices_is_killed() {
    let mut storm = storm().await;
    let line = storm.dice.random_range(0..storm.fleets.len());
    storm.fleets[line].kill_9().unwrap();
    all_others_deliver(&mut storm, line).await;
    only_these_hold_punches(&storm, line).await;
    storm.fleets[line].start(&storm.shop).unwrap();
    storm.fleets[line].delivers().await.unwrap();
    storm.has_ended_well().await.unwrap();
}

#[tokio::test]
async fn the_network_is_cut() {
    let mut storm = storm().await;
    for line in &storm.lines {
        line.set(Line::Cut);
    }
    let captured = storm.captured().await.unwrap();
    have_seen(&storm, "tries on every line", |line| line.turned_away > 0).await;
    storm.shows_what_waits().await.unwrap();
    // What was under way when the lines were cut may still have been written.
    assert!(storm.captured().await.unwrap() <= captured + (DEVICES * 5) as u64);
    for line in &storm.lines {
        line.set(Line::Open);
    }
    storm.ends_well().await.unwrap();
}

#[tokio::test]
async fn the_network_carries_2_kb_a_second() {
    let mut storm = storm().await;
    storm.slow();
    let captured = storm.captured().await.unwrap();
    storm.have_captured(captured + 10).await.unwrap();
    storm.shows_what_waits().await.unwrap();
    storm.ends_well().await.unwrap();
}

#[tokio::test]
async fn answers_are_lost_after_the_request_was_sent() {
    let mut storm = storm().await;
    let lose = |chance| Some(LostAnswers { to: DELIVERIES.to_owned(), chance });
    for line in &storm.lines {
        line.lose_answers(lose(Chance::Always(1.0)));
    }
    have_seen(&storm, "lost answers on every line", |line| line.answers_lost > 0).await;
    let comparison = storm.shows_what_waits().await.unwrap();
    let unsent: u64 = comparison.unsent.values().sum();
    assert!(comparison.waiting > unsent, "some are there, and their devices don't know");
    for line in &storm.lines {
        line.lose_answers(lose(Chance::Always(0.2)));
    }
    let reports = storm.ends_well().await.unwrap();
    assert!(duplicates(&reports) > 0, "they were sent again");
}

#[tokio::test]
async fn the_disk_of_devices_is_full() {
    let name = "the_disk_of_devices_is_full";
    let Some(disk) = SmallDisk::of(name, DEVICES_DISK_MIB).await.unwrap() else { return };
    let place = Installation::embedded().unwrap();
    let on_it = |line: usize| (line == 0).then(|| disk.path().to_owned());
    let mut storm = Storm::gather(place, seed().unwrap(), on_it).await.unwrap();
    storm.reach_a_random_moment().await.unwrap();
    disk.fill().unwrap();
    all_others_deliver(&mut storm, 0).await;
    // What they had open when it was filled has made a little room.
    disk.fill().unwrap();
    only_these_hold_punches(&storm, 0).await;
    disk.free().unwrap();
    let report = storm.fleets[0].delivers().await.unwrap();
    assert_ne!(report["simulator"]["store_failures"], 0, "the full disk was noticed");
    storm.has_ended_well().await.unwrap();
}

#[tokio::test]
async fn a_punch_on_a_full_disk_is_refused_at_once_and_the_ones_before_it_are_safe() {
    let name = "a_punch_on_a_full_disk_is_refused_at_once_and_the_ones_before_it_are_safe";
    let Some(disk) = SmallDisk::of(name, DEVICES_DISK_MIB).await.unwrap() else { return };
    let shop = Shop::open().await.unwrap();
    let agent = shop.agent_in(disk.path(), shop.server.url()).await.unwrap();
    let punch = Punch { badge: BADGES[0], kind: PunchKind::In, pin: None, then: None };
    agent.punch(&punch).await.unwrap();
    agent.punch(&punch).await.unwrap();
    disk.fill().unwrap();
    let refusal = agent.punch(&punch).await.unwrap_err().to_string();
    assert!(refusal.contains("NOT RECORDED") && refusal.contains("disk_full"), "{refusal}");
    let sync = agent.sync().await.unwrap();
    assert!(sync["error"]["detail"].to_string().contains("disk is full"), "{sync}");
    disk.free().unwrap();
    agent.punch(&punch).await.unwrap();
    assert_eq!(agent.sync().await.unwrap()["complete"], true);

    let comparison = shop.compare(&[agent.dir().to_owned()]).await.unwrap();
    comparison.is_complete().unwrap();
    assert_eq!(comparison.captures, 3, "those that were confirmed");
    nothing_waits(&shop).await.unwrap();
}

/// A device that sends what can't be taken as a punch and so has to be kept, something else each
/// time.
struct Nuisance {
    kiosk: Kiosk,
    sent: u32,
    /// Where the server said that it keeps them.
    kept: Vec<u64>,
}

impl Nuisance {
    async fn at(storm: &Storm) -> Self {
        let kiosk = storm.shop.kiosk(storm.shop.server.url()).await.unwrap();
        kiosk.heartbeat(0, None).await.unwrap();
        Self { kiosk, sent: 0, kept: Vec::new() }
    }

    /// Sends something. Gives whether it is durably there; if not, the server may only say that it
    /// is busy.
    async fn is_kept(&mut self) -> bool {
        self.sent += 1;
        let items = vec![self.kiosk.missigned(&self.sent.to_be_bytes())];
        let body = serde_json::to_vec(&BatchRequest { punches: items }).unwrap();
        match self.kiosk.post(&self.kiosk.batch_path(), body).await.unwrap() {
            (StatusCode::OK, answer) => {
                self.kept.push(answer["results"][0]["position"].as_u64().unwrap());
                true
            }
            (StatusCode::SERVICE_UNAVAILABLE, problem) if problem["code"] == "busy" => false,
            (status, problem) => panic!("a batch answers {status}: {problem}"),
        }
    }

    /// Waits until the server keeps what it is sent, or doesn't.
    async fn wait_until_kept(&mut self, kept: bool) {
        let what = if kept { "the server to keep something" } else { "the server to be busy" };
        eventually(what, PATIENCE, async || Ok((self.is_kept().await == kept).then_some(())))
            .await
            .unwrap();
    }

    /// Holds that everything is where the server said.
    async fn is_durable(&self, storm: &Storm) {
        let there =
            "select position from events where event_type = 'Quarantined' order by position";
        let there: Vec<i64> = sqlx::query_scalar(there).fetch_all(&storm.database).await.unwrap();
        let there: Vec<u64> = there.into_iter().map(i64::cast_unsigned).collect();
        assert!(self.kept.iter().all(|kept| there.contains(kept)), "{:?}: {there:?}", self.kept);
    }
}

/// A storm on a small disk that is filled in its middle until the server is busy.
async fn storm_without_room(disk: &SmallDisk) -> (Storm, Nuisance) {
    let storm = storm_at(Installation::embedded_in(disk.path()).unwrap()).await;
    let mut nuisance = Nuisance::at(&storm).await;
    storm.slow();
    disk.fill().unwrap();
    nuisance.wait_until_kept(false).await;
    (storm, nuisance)
}

/// There is room again, and nobody does anything else.
async fn recovers(disk: &SmallDisk, mut storm: Storm, mut nuisance: Nuisance) {
    disk.free().unwrap();
    nuisance.wait_until_kept(true).await;
    storm.shows_what_waits().await.unwrap();
    storm.ends_well().await.unwrap();
    nuisance.is_durable(&storm).await;
}

#[tokio::test]
async fn the_disk_of_postgres_is_full() {
    let name = "the_disk_of_postgres_is_full";
    let Some(disk) = SmallDisk::of(name, POSTGRES_DISK_MIB).await.unwrap() else { return };
    let (storm, nuisance) = storm_without_room(&disk).await;
    recovers(&disk, storm, nuisance).await;
}

#[tokio::test]
async fn the_disk_of_postgres_is_too_full_for_its_log() {
    let name = "the_disk_of_postgres_is_too_full_for_its_log";
    let Some(disk) = SmallDisk::of(name, POSTGRES_DISK_MIB).await.unwrap() else { return };
    let (storm, mut nuisance) = storm_without_room(&disk).await;
    let data = storm.shop.server.installation().data.clone();
    let before = data.postmaster().unwrap();
    // A new segment of its log is where Postgres gives up and ends, and can't start either.
    let _ = sqlx::query("select pg_switch_wal()").execute(&storm.database).await;
    eventually("Postgres to end", PATIENCE, async || {
        disk.fill()?;
        assert!(!nuisance.is_kept().await);
        Ok((!lives(before)).then_some(()))
    })
    .await
    .unwrap();
    recovers(&disk, storm, nuisance).await;
}
