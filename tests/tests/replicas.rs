//! A storm over a highly available Postgres, with two servers on it: its primary is killed, cut off
//! or frozen, or has no standby left. Nothing acknowledged is lost, nothing is there twice, and
//! writes go on by themselves. docs/faults.md has these in its table, docs/operations.md says how
//! to run such a database.
//!
//! A failed test prints its seed; `PUNCHTRAIL_SEED=…` decides the same again.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use punchtrail_protocol::{capture::PunchKind, wire::BatchRequest};
use punchtrail_testkit::{PATIENCE, eventually};
use punchtrail_tests::{
    Installation, Kiosk, Operator, Patroni, Replicas, Server, Storm, agent::Punch, compare, seed,
    shop::BADGES,
};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// What each device brings. Few, for the storm is only what goes on meanwhile.
const PUNCHES: usize = 20;

/// A storm on two servers over one database, in the middle.
struct Scene<Replicas> {
    // Dropped in this order.
    storm: Storm,
    second: Server,
    replicas: Replicas,
}

/// Which way servers reach the database.
enum By {
    HaProxy,
    /// A URL with every host.
    Hosts,
}

impl Scene<Replicas> {
    /// None where it can't run.
    async fn open(by: By) -> Option<Self> {
        let replicas = Replicas::start().await.unwrap()?;
        let (proxy, all) = (replicas.url(), replicas.url_of_all());
        let url = match by {
            By::HaProxy => &proxy,
            By::Hosts => &all,
        };
        Some(Self::on(replicas, url, &proxy).await)
    }

    /// Another node is promoted, and punches are captured there.
    async fn fails_over(&mut self) {
        self.replicas.fail_over().await.unwrap();
        self.goes_on().await;
    }
}

impl<Replicas> Scene<Replicas> {
    /// Servers on `url`. What the test itself reads, it reads by `proxy`, which goes on by itself.
    async fn on(replicas: Replicas, url: &str, proxy: &str) -> Self {
        let place = |url| Installation::with_database(url).unwrap();
        let gathered = Storm::gather_with(place(url), seed().unwrap(), PUNCHES, |_| None);
        let mut storm = gathered.await.unwrap();
        storm.database = place(proxy).database().await.unwrap();
        let second = Server::start(&place(url)).await.unwrap();
        for line in storm.lines.iter().skip(1).step_by(2) {
            line.lead_to(second.address().unwrap());
        }
        storm.reach_a_random_moment().await.unwrap();
        storm.slow();
        Self { storm, second, replicas }
    }

    /// How much is captured, once that can be read.
    async fn captured(&self) -> u64 {
        let captured = eventually("the ledger to be read", PATIENCE, async || {
            Ok(self.storm.captured().await.ok())
        });
        captured.await.unwrap()
    }

    /// Punches go on being captured.
    async fn goes_on(&self) {
        let enough = (self.captured().await + 10).min(self.storm.all());
        eventually(format!("{enough} captures"), PATIENCE, async || {
            Ok(self.storm.captured().await.is_ok_and(|captured| captured >= enough).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Either server, asked by an operator.
    fn operators(&self) -> [Operator; 2] {
        let first = self.storm.shop.operator.clone();
        let mut second = first.clone();
        second.move_to(self.second.url());
        [first, second]
    }

    /// Waits until both servers say that they are ready, or not.
    async fn are_ready(&self, ready: bool) {
        for server in self.operators() {
            eventually(format!("/readyz to say {ready}"), PATIENCE, async || {
                let (status, said) = server.ask(Method::GET, "/readyz", None).await?;
                let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Ok((status == code && said["ready"] == ready).then_some(()))
            })
            .await
            .unwrap();
        }
    }

    /// Holds what holds in the middle, then lets everything arrive and holds what holds in the end.
    async fn ends_well(&mut self) {
        self.storm.holds_and_shows().await.unwrap();
        self.storm.ends_well().await.unwrap();
        self.are_ready(true).await;
    }
}

#[tokio::test]
async fn the_primary_is_killed() {
    let Some(mut scene) = Scene::open(By::HaProxy).await else { return };
    let killed = scene.replicas.primary();
    scene.replicas.kill_9(killed).unwrap();
    scene.fails_over().await;
    scene.replicas.rejoin(killed).await.unwrap();
    scene.ends_well().await;
}

#[tokio::test]
async fn the_primary_is_cut_off() {
    let Some(mut scene) = Scene::open(By::HaProxy).await else { return };
    let cut_off = scene.replicas.primary();
    scene.replicas.cut_off(cut_off);
    scene.fails_over().await;
    // Its sessions wait for standbys that are gone. It is taken back before anybody hears it.
    scene.replicas.rejoin(cut_off).await.unwrap();
    scene.replicas.connect_again(cut_off);
    scene.ends_well().await;
}

#[tokio::test]
async fn the_primary_is_frozen_and_comes_back_when_another_is_promoted() {
    let Some(mut scene) = Scene::open(By::HaProxy).await else { return };
    let frozen = scene.replicas.primary();
    scene.replicas.freeze(frozen).unwrap();
    scene.fails_over().await;
    // For a while both take writes, and HAProxy knows no better; no standby follows the old one.
    scene.replicas.thaw(frozen).unwrap();
    scene.storm.holds_and_shows().await.unwrap();
    scene.replicas.rejoin(frozen).await.unwrap();
    scene.goes_on().await;
    scene.ends_well().await;
}

#[tokio::test]
async fn without_a_proxy_servers_find_the_primary_and_stay_there() {
    let Some(mut scene) = Scene::open(By::Hosts).await else { return };
    let frozen = scene.replicas.primary();
    scene.replicas.freeze(frozen).unwrap();
    scene.fails_over().await;
    // It says that it takes writes, and nobody believes it.
    scene.replicas.thaw(frozen).unwrap();
    scene.goes_on().await;
    scene.replicas.rejoin(frozen).await.unwrap();
    let killed = scene.replicas.primary();
    scene.replicas.kill_9(killed).unwrap();
    scene.fails_over().await;
    scene.ends_well().await;
}

/// Sends one thing until the server has it; gives what it answered.
async fn send(kiosk: &Kiosk, bytes: &[u8]) -> (StatusCode, Value) {
    let items = vec![kiosk.missigned(bytes)];
    let body = serde_json::to_vec(&BatchRequest { punches: items }).unwrap();
    kiosk.post(&kiosk.batch_path(), body).await.unwrap()
}

#[tokio::test]
async fn no_standby_is_left() {
    let Some(mut scene) = Scene::open(By::HaProxy).await else { return };
    let kiosk = scene.storm.shop.kiosk(scene.storm.shop.server.url()).await.unwrap();
    kiosk.heartbeat(0, None).await.unwrap();
    let standbys = scene.replicas.standbys();
    for &standby in &standbys {
        scene.replicas.kill_9(standby).unwrap();
    }
    // The primary has it, and nobody else: it isn't acknowledged, however often it is sent.
    let (status, problem) = send(&kiosk, b"alone").await;
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"busy".into()));
    scene.are_ready(false).await;
    let log = std::fs::read_to_string(scene.storm.shop.server.process().log()).unwrap();
    assert!(log.contains("can't commit"), "it is said in the log");
    // A primary that starts again shows what only it has. It isn't acknowledged then either.
    let primary = scene.replicas.primary();
    scene.replicas.kill_9(primary).unwrap();
    scene.replicas.start_alone(primary).await.unwrap();
    let (status, problem) = send(&kiosk, b"alone").await;
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"busy".into()));

    scene.replicas.start_again(standbys[0]).await.unwrap();
    scene.are_ready(true).await;
    let taken = eventually("it to be taken", PATIENCE, async || {
        let (status, answer) = send(&kiosk, b"alone").await;
        Ok((status == StatusCode::OK).then_some(answer))
    });
    assert_eq!(taken.await.unwrap()["results"][0]["status"], "quarantined");
    scene.ends_well().await;
}

#[tokio::test]
async fn a_server_waits_for_the_primary_when_it_starts() {
    let Some(mut replicas) = Replicas::start().await.unwrap() else { return };
    replicas.kill_9(replicas.primary()).unwrap();
    let [proxy, hosts] = [replicas.url(), replicas.url_of_all()]
        .map(|url| Installation::with_database(&url).unwrap());
    let promote = async {
        eventually("a start that waits", PATIENCE, async || {
            let logs = std::fs::read_dir(hosts.data.path().join("logs"));
            let logs = logs.into_iter().flatten().flatten();
            let mut said = logs.map(|log| std::fs::read_to_string(log.path()).unwrap_or_default());
            Ok(said.any(|said| said.contains("waiting for the database")).then_some(()))
        })
        .await
        .unwrap();
        replicas.fail_over().await.unwrap();
    };
    let (by_proxy, by_hosts, ()) =
        tokio::join!(Server::start(&proxy), Server::start(&hosts), promote);
    assert!(by_proxy.unwrap().terminate().await.unwrap().success());
    assert!(by_hosts.unwrap().terminate().await.unwrap().success());
}

impl Scene<Patroni> {
    async fn open_with_patroni() -> Option<Self> {
        let patroni = Patroni::start().await.unwrap()?;
        let url = patroni.url();
        Some(Self::on(patroni, &url, &url).await)
    }
}

#[tokio::test]
async fn patroni_fails_over_when_its_leaders_postgres_is_killed() {
    let Some(mut scene) = Scene::open_with_patroni().await else { return };
    let killed = scene.replicas.leader().await.unwrap();
    scene.replicas.kill_9_postgres(killed).unwrap();
    scene.replicas.another_leads(killed).await.unwrap();
    scene.goes_on().await;
    scene.ends_well().await;
    scene.replicas.is_healthy().await.unwrap();
}

/// What lost acknowledged commits with Patroni 3.0.2 and etcd.
#[tokio::test]
async fn patroni_takes_a_leader_back_that_was_frozen() {
    let Some(mut scene) = Scene::open_with_patroni().await else { return };
    let frozen = scene.replicas.leader().await.unwrap();
    scene.replicas.freeze(frozen).unwrap();
    scene.replicas.another_leads(frozen).await.unwrap();
    scene.goes_on().await;
    scene.replicas.thaw(frozen).unwrap();
    scene.replicas.is_healthy().await.unwrap();
    assert_ne!(scene.replicas.leader().await.unwrap(), frozen, "it was taken back");
    scene.ends_well().await;
}

/// What must hold when acknowledged events are lost with the primary: it is noticed, said as what
/// it is, and the devices bring back what they keep, those enrolled within the lost time, too.
#[tokio::test]
async fn an_asynchronous_standby_that_lacks_the_newest_is_promoted() {
    let Some(mut scene) = Scene::open(By::HaProxy).await else { return };
    let place = scene.storm.shop.server.installation().clone();
    let database = scene.storm.database.clone();
    let position = async || -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("select position from ledger_head").fetch_one(&database).await?)
    };
    scene.replicas.leave_standbys_behind().await.unwrap();
    let kept = position().await.unwrap();
    // What is acknowledged from here on is lost with the primary.
    scene.goes_on().await;
    let url = scene.storm.shop.server.url().to_owned();
    let mut late = scene.storm.shop.agent(&url).await.unwrap();
    let punch = Punch { badge: BADGES[0], kind: PunchKind::In, pin: None, then: None };
    late.punch(&punch).await.unwrap();
    assert_eq!(late.sync().await.unwrap()["complete"], true);
    let lost = position().await.unwrap();
    assert!(lost > kept);

    let primary = scene.replicas.primary();
    scene.replicas.kill_9(primary).unwrap();
    scene.replicas.fail_over().await.unwrap();
    scene.goes_on().await;
    scene.replicas.rejoin(primary).await.unwrap();

    // The device that the ledger never heard of finds its way back, and brings its punch.
    late.start().await.unwrap();
    let mut folders = scene.storm.folders();
    folders.push(late.dir().to_owned());
    scene.storm.carry(None);
    for fleet in &mut scene.storm.fleets {
        fleet.delivers().await.unwrap();
        // A device that had nothing left before the loss has ended, and hears of it at its start.
        fleet.start(&scene.storm.shop).unwrap();
        fleet.delivers().await.unwrap();
    }
    eventually("everything lost to be brought back", PATIENCE, async || {
        Ok(compare(&folders, &database).await?.is_complete().is_ok().then_some(()))
    })
    .await
    .unwrap();
    let comparison = compare(&folders, &database).await.unwrap();
    assert_eq!(comparison.captures, scene.storm.all() + 1);
    // That nothing waits was said by some before the loss, and they have ended: nobody says it
    // again.
    scene.are_ready(true).await;

    // Said as what it is: a step back, from there to there, and nothing else is wrong. Where a
    // node had signed for what is lost, an auditor has to know of it: that is exit 1.
    let said = place.cli().run(&["ledger", "verify"]).await.unwrap();
    let findings = said.json["findings"].as_array().unwrap();
    let said_so = |finding: &Value| finding["code"] == "went_back";
    assert!(findings.iter().all(said_so), "{}", said.json);
    assert_eq!(said.code == 0, findings.is_empty(), "{}", said.json);
    let ready = scene.storm.shop.operator.ask(Method::GET, "/readyz", None).await.unwrap().1;
    assert_eq!(ready["went_back"]["times"], 1, "{ready}");
    assert!(ready["went_back"]["after"].as_i64().unwrap() <= kept, "{ready}");
    assert!(said.json["notes"].to_string().contains("had gone back"), "{}", said.json);
}
