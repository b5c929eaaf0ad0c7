//! The fleet simulator, `punchtrail-fleet`, as a process: some simulated devices behind one line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Shop,
    agent::RETRY_CAP_MS,
    process::Process,
    programs::{FLEET, program},
};

/// Enrolling and capturing on two busy cores.
const CAPTURE_WAIT: Duration = Duration::from_secs(120);
/// What isn't delivered by then makes a run fail: long enough for a crowded machine.
const DEADLINE_S: u64 = 300;
/// For the devices' last heartbeats and the comparison of their files.
const END_WAIT: Duration = Duration::from_secs(DEADLINE_S + 30);
/// Devices find the server again within so many seconds after the gate opened.
const SPREAD_CAP_S: u32 = 1;

/// Some simulated devices in a folder, and the process that runs them.
#[derive(Debug)]
pub struct Fleet {
    dir: PathBuf,
    server: String,
    site: String,
    key: String,
    devices: usize,
    seed: u64,
    wrong: Vec<String>,
    running: Option<Process>,
}

impl Fleet {
    /// `devices` of `shop`, in the folder `dir`, that take `server` for its server. `seed` chooses
    /// who punches when.
    pub fn new(shop: &Shop, server: &str, dir: &Path, devices: usize, seed: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            server: server.to_owned(),
            site: shop.site.clone(),
            key: shop.operator.key().to_owned(),
            devices,
            seed,
            wrong: Vec::new(),
            running: None,
        }
    }

    /// Which share of them does what wrong, from now on.
    pub fn misbehave(&mut self, modes: &str, share: f64) {
        self.wrong =
            ["--misbehave", modes, "--share", &share.to_string()].map(str::to_owned).into();
    }

    /// The devices' folders.
    pub fn folders(&self) -> Vec<PathBuf> {
        (0..self.devices).map(|index| self.dir.join(format!("device-{index:05}"))).collect()
    }

    fn command(&self, punches: usize) -> anyhow::Result<Command> {
        let mut command = Command::new(program(FLEET)?);
        command
            .args(["--server", &self.server, "--site", &self.site])
            .args(["--devices", &self.devices.to_string(), "--punches", &punches.to_string()])
            .args(["--seed", &self.seed.to_string(), "--deadline-s", &DEADLINE_S.to_string()])
            // What goes wrong here goes wrong for files as a device at a door has them.
            .arg("--synced")
            .arg("--fleet-dir")
            .arg(&self.dir)
            .args(&self.wrong)
            .env("PUNCHTRAIL_OPERATOR_KEY", &self.key)
            .env("PUNCHTRAIL_DEVICE_RETRY_CAP_MS", RETRY_CAP_MS.to_string())
            .env("PUNCHTRAIL_DEVICE_SPREAD_CAP_S", SPREAD_CAP_S.to_string());
        Ok(command)
    }

    fn process(&self, shop: &Shop, command: Command) -> anyhow::Result<Process> {
        Process::start("a fleet", command, &shop.server.installation().data.log("fleet")?)
    }

    /// Enrols them and lets each capture `punches` offline. Nothing is delivered.
    ///
    /// # Errors
    /// When the simulator fails, with what it said.
    pub async fn capture(&self, shop: &Shop, punches: usize) -> anyhow::Result<()> {
        let mut command = self.command(punches)?;
        command.arg("--capture-only");
        let mut process = self.process(shop, command)?;
        let status = process.ends(CAPTURE_WAIT).await?;
        ensure!(status.success(), "a fleet can't be set up ({status}): {}", process.log_tail());
        Ok(())
    }

    fn report(&self) -> PathBuf {
        self.dir.with_extension("json")
    }

    /// Opens the gate: within a second or two each of them finds the server and delivers what
    /// waits.
    ///
    /// # Errors
    /// When the simulator can't be started.
    pub fn start(&mut self, shop: &Shop) -> anyhow::Result<()> {
        let mut command = self.command(0)?;
        command.arg("--report").arg(self.report());
        self.running = Some(self.process(shop, command)?);
        Ok(())
    }

    /// kill -9 of all these devices.
    ///
    /// # Errors
    /// When they don't run.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.running.take().context("the fleet does not run")?.kill_9()
    }

    /// Waits until everything is delivered, and gives the simulator's report.
    ///
    /// # Errors
    /// When the simulator's verdict isn't that every punch is acknowledged and everything agrees.
    pub async fn delivers(&mut self) -> anyhow::Result<Value> {
        let mut process = self.running.take().context("the fleet does not run")?;
        let status = process.ends(END_WAIT).await?;
        let said = process.said();
        ensure!(status.success(), "a fleet ends with {status}: {said} {}", process.log_tail());
        let verdict = "COMPLETE: every punch is acknowledged";
        ensure!(said.starts_with(verdict), "a fleet's verdict is another: {said}");
        Ok(serde_json::from_slice(&fs::read(self.report())?)?)
    }
}
