//! The same nodes steered by Patroni, as operators run them: it watches over each, elects a leader
//! by the Raft protocol among its own processes, promotes, demotes and takes nodes back.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use futures::future::join_all;
use punchtrail_testkit::{PATIENCE, eventually, not_run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    DATABASE, NODES,
    node::{Programs, USER, children, direct, end, free_port, run_on},
    proxy::{self, Proxy},
};
use crate::{DataDir, process::Process};

/// Names the folder of Patroni's Python packages; `./dev test` brings them.
const PACKAGES: &str = "PUNCHTRAIL_TEST_PATRONI";
/// In order of preference: the first that the database's user can run is taken.
const PYTHONS: [&str; 2] = ["/usr/bin/python3", "python3"];
/// For a Patroni's answer; a frozen one gives none.
const VIEW_WAIT: Duration = Duration::from_secs(1);
/// Starts in which a port was taken between its choice and its use, at most.
const ATTEMPTS_MAX: u32 = 3;

/// Three nodes, each with a Patroni, and HAProxy in front.
#[derive(Debug)]
pub struct Patroni {
    // Dropped in this order.
    proxy: Proxy,
    nodes: Vec<Member>,
    http: reqwest::Client,
    _folder: DataDir,
}

/// A node, and the Patroni that watches over it.
#[derive(Debug)]
struct Member {
    patroni: Process,
    dir: PathBuf,
    ports: Ports,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    postgres: u16,
    rest: u16,
    raft: u16,
}

/// Python with Patroni's packages, for the database's user.
struct Python {
    program: &'static str,
    packages: PathBuf,
}

impl Python {
    /// Copies the packages to where the database's user can read them, and tries who can run them.
    ///
    /// # Errors
    /// Why not.
    fn find(folder: &DataDir, programs: &Programs) -> anyhow::Result<Self> {
        let from = std::env::var_os(PACKAGES)
            .with_context(|| format!("{PACKAGES} names no Patroni; `./dev test` brings one"))?;
        let packages = folder.path().join("packages");
        let copied = Command::new("cp").arg("-r").arg(from).arg(&packages).status()?;
        ensure!(copied.success(), "Patroni's packages can't be copied");
        let of = |program| Self { program, packages: packages.clone() };
        let runs = |python: &Self| {
            let mut command = python.command(programs, "import patroni, psycopg, psutil, yaml");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let found = PYTHONS.into_iter().map(of).find(runs);
        found.context("no python3 here runs Patroni as the database's user")
    }

    fn command(&self, programs: &Programs, code: &str) -> Command {
        let mut command = programs.any(self.program);
        command.env("PYTHONPATH", &self.packages).args(["-c", code]);
        command
    }
}

impl Patroni {
    /// Starts everything, with an empty database; none where this machine lacks something, which is
    /// then said.
    ///
    /// # Errors
    /// When something doesn't come up.
    ///
    /// # Panics
    /// Under `CI`, when it can't be run here.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let Some(haproxy) = proxy::program() else {
            not_run("there is no haproxy: `./dev setup` or `apt-get install haproxy` brings it");
            return Ok(None);
        };
        let folder = DataDir::fresh()?;
        let programs = Programs::find(&folder)?;
        let python = match Python::find(&folder, &programs) {
            Ok(python) => python,
            Err(why) => {
                not_run(why);
                return Ok(None);
            }
        };
        let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let mut attempt = 1;
        let nodes = loop {
            let nodes = members(&folder, &programs, &python, attempt)?;
            match healthy(&nodes, &http).await {
                Ok(()) => break nodes,
                Err(error) if attempt == ATTEMPTS_MAX => return Err(error),
                // A taken port; what else it may be shows again.
                Err(_) => attempt += 1,
            }
        };
        let leader = leader(&nodes, &http).await?;
        run_on(&direct(nodes[leader].ports.postgres), &format!("create database {DATABASE}"))
            .await?;
        let ports: Vec<u16> = nodes.iter().map(|node| node.ports.postgres).collect();
        let proxy = Proxy::start(&haproxy, &ports, &folder).await?;
        Ok(Some(Self { proxy, nodes, http, _folder: folder }))
    }

    /// The database's URL, through HAProxy.
    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// The node that Patroni calls the leader.
    ///
    /// # Errors
    /// When there is none.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        leader(&self.nodes, &self.http).await
    }

    /// Waits until another node than `before` leads.
    ///
    /// # Errors
    /// When none does.
    pub async fn another_leads(&self, before: usize) -> anyhow::Result<()> {
        eventually("another leader", PATIENCE, async || {
            let leads = leader(&self.nodes, &self.http).await;
            Ok(leads.is_ok_and(|leads| leads != before).then_some(()))
        })
        .await
    }

    /// Waits until all nodes follow one leader, and commits wait for one of them.
    ///
    /// # Errors
    /// When they don't.
    pub async fn is_healthy(&self) -> anyhow::Result<()> {
        healthy(&self.nodes, &self.http).await
    }

    /// kill -9 of a node's Postgres alone.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn kill_9_postgres(&self, node: usize) -> anyhow::Result<()> {
        let postmaster = self.nodes[node].postmaster().context("no Postgres runs there")?;
        Ok(kill_process(postmaster, Signal::KILL)?)
    }

    /// Stops a node where it stands, its Patroni as well.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn freeze(&self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].signal_all(Signal::STOP)
    }

    /// Lets it go on as if nothing had been.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn thaw(&self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].signal_all(Signal::CONT)
    }
}

fn members(
    folder: &DataDir,
    programs: &Arc<Programs>,
    python: &Python,
    attempt: u32,
) -> anyhow::Result<Vec<Member>> {
    let mut ports = Vec::new();
    for _ in 0..NODES {
        ports.push(Ports { postgres: free_port()?, rest: free_port()?, raft: free_port()? });
    }
    let member = |(index, own): (usize, &Ports)| {
        let name = format!("n{}", index + 1);
        let dir = folder.path().join(format!("{attempt}-{name}"));
        fs::create_dir(&dir)?;
        // Patroni makes what it needs within.
        programs.own(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let raft: Vec<u16> = ports.iter().map(|ports| ports.raft).collect();
        let file = folder.path().join(format!("{attempt}-{name}.yml"));
        fs::write(&file, settings(&name, own, &raft, &dir, programs.folder()))?;
        let mut command = python.command(programs, "from patroni.__main__ import main; main()");
        command.arg(&file);
        let patroni = Process::start(&name, command, &folder.log(&name)?)?;
        Ok(Member { patroni, dir, ports: *own })
    };
    ports.iter().enumerate().map(member).collect()
}

impl Member {
    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
    }

    /// Patroni first, so that it doesn't see its Postgres frozen; and last to go on.
    fn signal_all(&self, signal: Signal) -> anyhow::Result<()> {
        let patroni = i32::try_from(self.patroni.id()).ok().and_then(Pid::from_raw);
        let postmaster = self.postmaster().context("no Postgres runs there")?;
        let all = patroni.into_iter().chain([postmaster]).chain(children(postmaster));
        for pid in all {
            // A backend may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Or it would start its Postgres again.
        let _ = self.patroni.kill_9();
        if let Some(postmaster) = self.postmaster() {
            end(postmaster);
        }
    }
}

async fn members_of(node: &Member, http: &reqwest::Client) -> anyhow::Result<Vec<Value>> {
    let url = format!("http://127.0.0.1:{}/cluster", node.ports.rest);
    let cluster: Value = http.get(url).send().await?.json().await?;
    Ok(cluster["members"].as_array().context("a cluster's members")?.clone())
}

/// What each node that answers in time says of all.
async fn views(nodes: &[Member], http: &reqwest::Client) -> Vec<Vec<Value>> {
    let asked = nodes.iter().map(|node| timeout(VIEW_WAIT, members_of(node, http)));
    join_all(asked).await.into_iter().filter_map(|answer| answer.ok()?.ok()).collect()
}

fn leader_in(view: &[Value]) -> Option<u64> {
    view.iter().find(|member| member["role"] == "leader")?["port"].as_u64()
}

/// The one that most nodes call the leader: one that was frozen takes itself for it at first.
async fn leader(nodes: &[Member], http: &reqwest::Client) -> anyhow::Result<usize> {
    let views = views(nodes, http).await;
    let called = |port: u64| views.iter().filter(|view| leader_in(view) == Some(port)).count();
    let leads = |node: &Member| called(u64::from(node.ports.postgres)) * 2 > nodes.len();
    nodes.iter().position(leads).context("nobody leads")
}

async fn healthy(nodes: &[Member], http: &reqwest::Client) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    let waited = eventually("a leader that all follow", PATIENCE, async || {
        seen = views(nodes, http).await;
        let leader = seen.first().and_then(|view| leader_in(view));
        let well = |view: &Vec<Value>| is_well(view, nodes.len()) && leader_in(view) == leader;
        Ok((seen.len() == nodes.len() && seen.iter().all(well)).then_some(()))
    })
    .await;
    waited.with_context(|| format!("Patroni says {seen:?}"))
}

/// Whether all run on one timeline, and commits wait for one of them.
fn is_well(view: &[Value], nodes: usize) -> bool {
    let with = |role: &str| view.iter().filter(|member| member["role"] == role).count();
    let run = view.iter().all(|it| it["state"] == "running" || it["state"] == "streaming");
    let one = view.windows(2).all(|pair| pair[0]["timeline"] == pair[1]["timeline"]);
    view.len() == nodes && with("leader") == 1 && with("sync_standby") >= 1 && run && one
}

/// A node's file. Short times, as far as Patroni lets them be: since 4.0 a leader is given 20
/// seconds at least.
fn settings(name: &str, own: &Ports, raft: &[u16], dir: &Path, programs: &Path) -> String {
    let Ports { postgres, rest, raft: me } = own;
    let partners = raft.iter().filter(|port| *port != me);
    let partners = partners.map(|port| format!("\"127.0.0.1:{port}\"")).collect::<Vec<_>>();
    let (partners, dir, programs) = (partners.join(", "), dir.display(), programs.display());
    format!(
        "scope: punchtrail
name: {name}
restapi: {{listen: \"127.0.0.1:{rest}\", connect_address: \"127.0.0.1:{rest}\"}}
raft: {{data_dir: {dir}/raft, self_addr: \"127.0.0.1:{me}\", partner_addrs: [{partners}]}}
watchdog: {{mode: \"off\"}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    primary_start_timeout: 0
    synchronous_mode: true
    synchronous_mode_strict: true
    postgresql:
      use_pg_rewind: true
      use_slots: false
      parameters:
        max_connections: 200
        shared_buffers: 64MB
        wal_keep_size: 256MB
        max_wal_size: 192MB
        min_wal_size: 192MB
        dynamic_shared_memory_type: mmap
        wal_retrieve_retry_interval: 200ms
        wal_sender_timeout: 5s
        wal_receiver_timeout: 5s
  initdb: [{{encoding: UTF8}}, {{locale: C}}, data-checksums, no-sync]
postgresql:
  listen: 127.0.0.1:{postgres}
  connect_address: 127.0.0.1:{postgres}
  data_dir: {dir}/data
  bin_dir: {programs}
  pgpass: {dir}/pgpass
  basebackup: [{{checkpoint: fast}}, no-sync]
  pg_hba: [host all all 127.0.0.1/32 trust, host replication all 127.0.0.1/32 trust]
  authentication:
    superuser: {{username: {USER}, password: x}}
    replication: {{username: replicator, password: x}}
    rewind: {{username: {USER}, password: x}}
  parameters: {{unix_socket_directories: \"\"}}
"
    )
}
