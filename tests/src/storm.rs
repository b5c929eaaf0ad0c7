//! A storm: devices that captured offline come back at once, over lines that something can happen
//! to; and what has to hold of it, in its middle and in its end.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use jiff::{Timestamp, tz::TimeZone};
use punchtrail_protocol::DeviceId;
use punchtrail_testkit::{PATIENCE, eventually};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use sqlx::PgPool;

use crate::{
    Fleet, Gate, Installation, Shop, compare,
    comparison::Comparison,
    shop::{ZONE, crowd},
};

/// Lines, each with a process of its own that runs the devices behind it. One of them is a tenth.
const LINES: usize = 10;
/// Devices behind a line.
const DEVICES_PER_LINE: usize = 4;
/// All of them.
pub const DEVICES: usize = LINES * DEVICES_PER_LINE;
/// What each has captured, usually.
const PUNCHES: usize = 40;
/// Small batches, so that there is a middle to be hit.
const POLICY: [&str; 4] =
    ["punches_per_minute=60000", "reconnect_spread_s=1", "heartbeat_s=5", "batch_max=5"];
/// What a line carries at first, in bytes a second: a storm takes some seconds.
const LINE_BYTES_PER_S: u64 = 30_000;
/// What it carries when it is bad, in bytes a second.
const BAD_LINE_BYTES_PER_S: u64 = 2_000;
/// A fault strikes when so much of what was left is delivered, at least and at most.
const MOMENT: std::ops::Range<f64> = 0.0..0.6;

/// A storm.
#[derive(Debug)]
pub struct Storm {
    // Dropped in this order: devices, lines, server.
    pub fleets: Vec<Fleet>,
    pub lines: Vec<Gate>,
    pub shop: Shop,
    pub database: PgPool,
    pub dice: StdRng,
    /// What each device has captured.
    pub punches: usize,
    _folders: tempfile::TempDir,
}

impl Storm {
    /// Devices that have captured offline, before their gates open; the server's data is in
    /// `place`, and `folder_of_line` may put a line's devices elsewhere.
    ///
    /// # Errors
    /// When anything fails.
    pub async fn gather(
        place: Installation,
        seed: u64,
        folder_of_line: impl Fn(usize) -> Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        Self::gather_with(place, seed, PUNCHES, folder_of_line).await
    }

    /// The same of devices with so many `punches` each.
    ///
    /// # Errors
    /// When anything fails.
    pub async fn gather_with(
        place: Installation,
        seed: u64,
        punches: usize,
        folder_of_line: impl Fn(usize) -> Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let shop = Shop::open_with(place, &crowd(DEVICES), &POLICY).await?;
        let database = shop.server.installation().database().await?;
        let folders = tempfile::Builder::new().prefix("punchtrail-storm-").tempdir()?;
        let (mut lines, mut fleets) = (Vec::new(), Vec::new());
        for line in 0..LINES {
            let seed = seed.wrapping_add(line as u64);
            let gate = Gate::open(shop.server.address()?, seed).await?;
            let dir = folder_of_line(line).unwrap_or_else(|| folders.path().to_owned());
            let dir = dir.join(format!("line-{line}"));
            fleets.push(Fleet::new(&shop, &gate.url(), &dir, DEVICES_PER_LINE, seed));
            lines.push(gate);
        }
        try_join_all(fleets.iter().map(|fleet| fleet.capture(&shop, punches))).await?;
        let dice = StdRng::seed_from_u64(seed);
        Ok(Self { fleets, lines, shop, database, dice, punches, _folders: folders })
    }

    /// Every device's folder.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.fleets.iter().flat_map(Fleet::folders).collect()
    }

    /// All gates open at once. Waits until every device has reported, and then until chance says
    /// that something should happen, in the middle of it all.
    ///
    /// # Errors
    /// When it doesn't come so far.
    pub async fn reach_a_random_moment(&mut self) -> anyhow::Result<()> {
        self.carry(Some(LINE_BYTES_PER_S));
        for fleet in &mut self.fleets {
            fleet.start(&self.shop)?;
        }
        eventually("a report of every device", PATIENCE, async || {
            Ok((self.reported().await?.len() == DEVICES).then_some(()))
        })
        .await?;
        let all = self.all();
        let now = self.captured().await?;
        let moment = self.dice.random_range(MOMENT);
        let moment = now + ((all - now) as f64 * moment) as u64;
        self.have_captured(moment).await?;
        eprintln!("it strikes with {moment} of {all} punches delivered");
        Ok(())
    }

    /// How many captures the ledger has in the end.
    pub fn all(&self) -> u64 {
        (DEVICES * self.punches) as u64
    }

    /// How many captures the ledger has.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn captured(&self) -> anyhow::Result<u64> {
        let count = "select count(*) from events where event_type = 'Captured'";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&self.database).await?;
        Ok(u64::try_from(count)?)
    }

    /// Waits until the ledger has so many captures.
    ///
    /// # Errors
    /// When it doesn't get them.
    pub async fn have_captured(&self, captures: u64) -> anyhow::Result<()> {
        eventually(format!("{captures} captures in the ledger"), PATIENCE, async || {
            Ok((self.captured().await? >= captures).then_some(()))
        })
        .await
    }

    /// From now on each line carries so many bytes a second; none for no bound.
    pub fn carry(&self, bytes_per_s: Option<u64>) {
        for line in &self.lines {
            line.slow_to(bytes_per_s);
        }
    }

    /// From now on each line carries 2 kB a second.
    pub fn slow(&self) {
        self.carry(Some(BAD_LINE_BYTES_PER_S));
    }

    /// The server runs again, elsewhere; the lines lead there.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn restart_server(&mut self) -> anyhow::Result<()> {
        self.shop.restart().await?;
        let address = self.shop.server.address()?;
        for line in &self.lines {
            line.lead_to(address);
        }
        Ok(())
    }

    /// How many punches wait on each device, by its last heartbeat; devices that never made one are
    /// left out.
    async fn reported(&self) -> anyhow::Result<BTreeMap<DeviceId, u64>> {
        // A connection that broke with the fault costs a read a 503; it is asked again, as anyone
        // would.
        let rows = eventually("the list of devices", PATIENCE, async || {
            Ok(self.shop.operator.rows("/v1/devices").await.ok())
        });
        let rows = rows.await?;
        let mut reported = BTreeMap::new();
        for row in &rows {
            if let Some(waiting) = row["report"]["outbox"].as_u64() {
                reported.insert(text(&row["device"])?.parse()?, waiting);
            }
        }
        Ok(reported)
    }

    /// The devices that may hold punches of today, by the explanation of a day on which some are
    /// missing.
    async fn explained(&self) -> anyhow::Result<Vec<DeviceId>> {
        let today = Timestamp::now().to_zoned(TimeZone::get(ZONE)?).date();
        let path = format!("/v1/employees/{}/days/{today}/explanation", self.shop.employee);
        let explanation = eventually("the explanation of the day", PATIENCE, async || {
            Ok(self.shop.operator.get(&path).await.ok())
        });
        let explanation = explanation.await?;
        let devices = explanation["devices"].as_array().context("an explanation's devices")?;
        let holding = devices.iter().filter(|device| device["holds"] == "punches");
        holding.map(|device| Ok(text(&device["device"])?.parse()?)).collect()
    }

    /// Holds what holds in the middle of a fault: nothing is lost, twice or otherwise; and each
    /// device that holds a punch which isn't in the ledger is known to hold at least so many, by
    /// its last heartbeat and by the explanation of the day. Gives the comparison.
    ///
    /// # Errors
    /// When it doesn't hold.
    pub async fn holds_and_shows(&self) -> anyhow::Result<Comparison> {
        // Asked in this order, since what isn't sent only becomes less.
        let reported = self.reported().await?;
        let explained = self.explained().await?;
        let comparison = compare(&self.folders(), &self.database).await?;
        comparison.holds()?;
        for (device, unsent) in &comparison.unsent {
            let known = reported.get(device).copied().unwrap_or_default();
            ensure!(known >= *unsent, "{device} holds {unsent} and is known to hold {known}");
            ensure!(explained.contains(device), "{device} is not said to hold punches");
        }
        Ok(comparison)
    }

    /// The same while something is still to be shown.
    ///
    /// # Errors
    /// When it doesn't hold, or everything is sent.
    pub async fn shows_what_waits(&self) -> anyhow::Result<Comparison> {
        let comparison = self.holds_and_shows().await?;
        ensure!(!comparison.unsent.is_empty(), "everything is sent already: {comparison:?}");
        Ok(comparison)
    }

    /// Lets the lines carry what they can, and holds what holds in the end: every fleet calls
    /// itself complete, the ledger has every punch of every file once, the server knows that
    /// nothing waits, and `ledger verify` finds nothing. Gives the fleets' reports.
    ///
    /// # Errors
    /// When it doesn't hold.
    pub async fn ends_well(&mut self) -> anyhow::Result<Vec<Value>> {
        self.carry(None);
        let reports = try_join_all(self.fleets.iter_mut().map(Fleet::delivers)).await?;
        self.has_ended_well().await?;
        Ok(reports)
    }

    /// The same when every fleet has called itself complete.
    ///
    /// # Errors
    /// When it doesn't hold.
    pub async fn has_ended_well(&self) -> anyhow::Result<()> {
        let comparison = compare(&self.folders(), &self.database).await?;
        comparison.is_complete()?;
        ensure!(comparison.captures == self.all(), "{comparison:?}");
        nothing_waits(&self.shop).await?;
        verified(&self.shop).await
    }
}

/// Holds that every device has said that nothing waits, and that no number of any is missing.
///
/// # Errors
/// When it doesn't hold.
pub async fn nothing_waits(shop: &Shop) -> anyhow::Result<()> {
    shop.operator.settled(true, PATIENCE).await?;
    for row in shop.operator.rows("/v1/devices").await? {
        let done = row["report"]["outbox"] == 0 && row["missing"] == 0;
        ensure!(done, "not everything of a device is known to be there: {row}");
    }
    Ok(())
}

/// Holds that `ledger verify` finds nothing.
///
/// # Errors
/// When it does.
pub async fn verified(shop: &Shop) -> anyhow::Result<()> {
    let said = shop.cli.run(&["ledger", "verify"]).await?;
    ensure!(said.code == 0, "ledger verify exits {}: {} {}", said.code, said.json, said.stderr);
    Ok(())
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().context("a text")
}
