//! What is measured of reading, over HTTP by two readers: how long the middle answer takes.

use std::time::Instant;

use anyhow::Context;
use punchtrail_tests::{Installation, Server};
use serde_json::Value;

use super::{
    cpu::Workers,
    history::History,
    measure::{Measured, cpu_us},
    table::{Aim, Table},
};
use crate::database::Cluster;

/// Readers at once.
const READERS: usize = 2;

/// A read: where, and with what right.
type Read = (String, String);

/// Explanations, timecards, and what a device fetches: its site's people and its punches.
pub async fn measure(
    cluster: &Cluster,
    place: &Installation,
    history: &History,
    reads: usize,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut server = Server::start(place).await?;
    let key = place.cli().text(&["key", "new"], "key").await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let (from, to) = history.month()?;
    let mut since = Vec::new();
    for door in &history.doors {
        let url = format!("{}/v1/sites/{}/punches", server.url(), door.site);
        let first = http.get(&url).bearer_auth(&door.token).send().await?.error_for_status()?;
        let first: Value = first.json().await?;
        since.push(first["next_cursor"].as_str().context("a page has a cursor")?.to_owned());
    }
    let base = server.url().to_owned();
    let door = |turn: usize| turn * 7_919 % history.doors.len();
    let explanation = |turn: usize| {
        (format!("{base}/v1/punches/{}/explanation", history.punch(turn)), key.clone())
    };
    let card = |turn: usize| {
        let people = &history.doors[door(turn)].people;
        let employee = people[turn % people.len()];
        (format!("{base}/v1/timecards?employee={employee}&from={from}&to={to}"), key.clone())
    };
    let roster = |turn: usize| {
        let door = &history.doors[door(turn)];
        (format!("{base}/v1/sites/{}/manifest", door.site), door.token.clone())
    };
    let delta = |turn: usize| {
        let (since, door) = (&since[door(turn)], &history.doors[door(turn)]);
        (format!("{base}/v1/sites/{}/punches?since={since}", door.site), door.token.clone())
    };
    let workers =
        Workers { postmaster: cluster.postmaster()?, server: Some(server.process().id()) };
    let kinds: [(&str, &dyn Fn(usize) -> Read); 4] =
        [("explanation", &explanation), ("card", &card), ("roster", &roster), ("delta", &delta)];
    for (name, read) in kinds {
        let before = workers.time()?;
        let took_ms = took(&http, reads, read).await?;
        let cpu_us = cpu_us(workers, before, took_ms.len())?;
        let middle = Measured { by_clock: took_ms[took_ms.len() / 2], cpu_us };
        table.measured(name, "ms p50", Aim::AtMost(1.3), middle);
        let late = took_ms[took_ms.len() * 99 / 100];
        table.add(&format!("{name}_p99"), late, "ms p99", Aim::AtMost(1.3));
    }
    server.terminate().await.map(drop)
}

/// How long so many answers took, the fastest first.
async fn took(
    http: &reqwest::Client,
    reads: usize,
    read: &dyn Fn(usize) -> Read,
) -> anyhow::Result<Vec<f64>> {
    let each = reads.div_ceil(READERS);
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let asked: Vec<Read> = (0..each).map(|turn| read(reader * each + turn)).collect();
            tokio::spawn(ask_all(http.clone(), asked))
        })
        .collect();
    let mut took_ms = Vec::with_capacity(each * READERS);
    for reader in readers {
        took_ms.extend(reader.await??);
    }
    took_ms.sort_unstable_by(f64::total_cmp);
    Ok(took_ms)
}

async fn ask_all(http: reqwest::Client, asked: Vec<Read>) -> anyhow::Result<Vec<f64>> {
    let mut took_ms = Vec::with_capacity(asked.len());
    for (url, right) in asked {
        let started = Instant::now();
        http.get(url).bearer_auth(right).send().await?.error_for_status()?.bytes().await?;
        took_ms.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(took_ms)
}
