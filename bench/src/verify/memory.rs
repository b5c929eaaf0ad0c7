//! The server's memory while photos wait for their check: it asks Rekognition at an address where
//! nobody answers, so every check is put off, and tried again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use punchtrail_testkit::{Faces, eventually};
use serde::Serialize;

use super::{
    Options,
    door::{Busy, Door, Site},
    say,
};
use crate::{
    database::Cluster,
    fleet::SETTLE_MAX,
    kernel::{mib, status},
};

/// Devices that deliver at once.
const DEVICES: usize = 8;
/// How large a photo is, in bytes: the camera's frame, and a comment for the rest.
const PHOTO_BYTES: usize = 300_000;
/// Photos of each device before memory is looked at first.
const WARM_UP: usize = 3;
/// How long memory is watched while all of them wait.
const WATCH: Duration = Duration::from_secs(30);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Nobody listens on this machine's port 1. Whatever credentials there are must not be used.
const NOBODY: [(&str, &str); 7] = [
    ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
    ("AWS_ENDPOINT_URL_REKOGNITION", "http://127.0.0.1:1"),
    ("AWS_ACCESS_KEY_ID", "bench"),
    ("AWS_SECRET_ACCESS_KEY", "bench"),
    ("AWS_REGION", "eu-central-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("PUNCHTRAIL_SQS_QUEUE", ""),
];

/// The server's resident memory (`VmRSS`), in MiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    pub photos: usize,
    pub photo_bytes: usize,
    /// After some photos, none of which the next are.
    pub before_mib: f64,
    /// The most that was seen while photos came and waited.
    pub most_mib: f64,
    /// In the end, with all of them waiting.
    pub waiting_mib: f64,
}

impl Memory {
    /// How much more there was at most than before.
    pub fn more_mib(&self) -> f64 {
        (self.most_mib - self.before_mib).max(0.0)
    }
}

/// Measures it.
pub async fn measure(
    cluster: &Cluster,
    faces: &Faces,
    options: &Options,
) -> anyhow::Result<Memory> {
    let asking = ["--face-checks", "rekognition"];
    let mut site = Site::open(cluster, faces, DEVICES, &asking, &NOBODY).await?;
    let (server, photos) = (site.server.process().id(), options.photos);
    deliver(&mut site.doors, DEVICES * WARM_UP).await?;
    waiting(&site, DEVICES * WARM_UP).await?;
    let before_mib = resident(server)?;
    let over = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(server, Arc::clone(&over)));
    say(&format!("memory: {before_mib:.1} MiB; {photos} photos come"));
    deliver(&mut site.doors, photos).await?;
    waiting(&site, DEVICES * WARM_UP + photos).await?;
    tokio::time::sleep(WATCH).await;
    over.store(true, Ordering::Relaxed);
    let most_mib = watching.await?;
    let waiting_mib = resident(server)?;
    waiting(&site, DEVICES * WARM_UP + photos).await?;
    site.close(cluster).await?;
    Ok(Memory { photos, photo_bytes: PHOTO_BYTES, before_mib, most_mib, waiting_mib })
}

/// So many punches with photos, shared out among the devices, all at once.
async fn deliver(doors: &mut [Door], photos: usize) -> anyhow::Result<()> {
    let (busy, devices) = (Busy::default(), doors.len());
    let delivering = doors.iter_mut().enumerate().map(async |(nth, door)| {
        for _ in (nth..photos).step_by(devices) {
            let press = door.press(PHOTO_BYTES)?;
            door.deliver(&press, &busy).await?;
            door.put(&press, &busy).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(delivering).await.map(drop)
}

/// Waits until so many checks are in the queue, and none has a verdict.
async fn waiting(site: &Site, checks: usize) -> anyhow::Result<()> {
    eventually(format!("{checks} checks in the queue"), SETTLE_MAX, async || {
        let queued: i64 =
            sqlx::query_scalar("select count(*) from check_queue").fetch_one(&site.pool).await?;
        let dead: i64 = sqlx::query_scalar("select count(*) from check_dead_letters")
            .fetch_one(&site.pool)
            .await?;
        ensure!(dead == 0, "{dead} checks were given up");
        Ok((usize::try_from(queued)? == checks).then_some(()))
    })
    .await
}

/// The most memory that is seen until it is over.
async fn watch(server: u32, over: Arc<AtomicBool>) -> f64 {
    let mut most_mib = 0.0_f64;
    while !over.load(Ordering::Relaxed) {
        most_mib = most_mib.max(resident(server).unwrap_or_default());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    most_mib
}

fn resident(server: u32) -> anyhow::Result<f64> {
    Ok(mib(&status(server).context("the server runs")?, "VmRSS"))
}
