//! A storm over a highly available Postgres whose primary is killed, cut off or frozen in its
//! middle: nothing acknowledged is lost, nothing is there twice, and writes go on by themselves.
//! docs/faults.md has these in its table, docs/operations.md says how to run such a database.
//!
//! A failed test prints its seed; `PUNCHTRAIL_SEED=…` decides the same again.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use punchtrail_testkit::{PATIENCE, eventually};
use punchtrail_tests::{Installation, Replicas, Server, Storm, seed};

/// A storm on two servers over one database, in the middle.
struct Scene {
    // Dropped in this order.
    storm: Storm,
    _second: Server,
    replicas: Replicas,
}

impl Scene {
    /// On a highly available Postgres behind HAProxy; none where that can't run.
    async fn open() -> Option<Self> {
        let replicas = Replicas::start().await.unwrap()?;
        let url = replicas.url();
        Some(Self::open_at(replicas, &url).await)
    }

    async fn open_at(replicas: Replicas, url: &str) -> Self {
        let t = std::time::Instant::now();
        let place = Installation::with_database(url).unwrap();
        let mut storm = Storm::gather(place, seed().unwrap(), |_| None).await.unwrap();
        let second = Server::start(&Installation::with_database(url).unwrap()).await.unwrap();
        for line in storm.lines.iter().skip(1).step_by(2) {
            line.lead_to(second.address().unwrap());
        }
        storm.reach_a_random_moment().await.unwrap();
        storm.slow();
        eprintln!("moment reached {:?}", t.elapsed());
        Self { storm, _second: second, replicas }
    }

    /// Another node is promoted, and both servers go on writing there.
    async fn fails_over(&mut self) {
        let before = self.storm.captured().await;
        let promoted = std::time::Instant::now();
        self.replicas.fail_over().await.unwrap();
        eprintln!("promoted in {:?}, {before:?}", promoted.elapsed());
        let now = eventually("the ledger to be read", PATIENCE, async || {
            Ok(self.storm.captured().await.ok())
        });
        let now = now.await.unwrap();
        eprintln!("read after {:?}", promoted.elapsed());
        eventually("captures on the new primary", PATIENCE, async || {
            Ok(self.storm.captured().await.is_ok_and(|captured| captured > now + 10).then_some(()))
        })
        .await
        .unwrap();
        eprintln!("10 more after {:?}", promoted.elapsed());
    }

    async fn ends_well(&mut self) {
        let t = std::time::Instant::now();
        self.storm.shows_what_waits().await.unwrap();
        eprintln!("shown {:?}", t.elapsed());
        self.storm.ends_well().await.unwrap();
        eprintln!("ended {:?}", t.elapsed());
    }
}

#[tokio::test]
async fn the_primary_is_killed() {
    let Some(mut scene) = Scene::open().await else { return };
    scene.replicas.kill_9(scene.replicas.primary()).unwrap();
    scene.fails_over().await;
    scene.ends_well().await;
}

#[tokio::test]
async fn the_primary_is_cut_off() {
    let Some(mut scene) = Scene::open().await else { return };
    scene.replicas.cut_off(scene.replicas.primary());
    scene.fails_over().await;
    scene.ends_well().await;
}
