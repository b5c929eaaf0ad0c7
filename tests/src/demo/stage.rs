//! The processes of the demo: a server on its own Postgres, four devices behind gates, a broken
//! kiosk.

use std::fs;

use anyhow::Context;
use punchtrail_protocol::DeviceId;
use serde_json::json;

use super::{
    cast::{DOORS, SITES, Script},
    faces::Checks,
    screen::Screen,
};
use crate::{Agent, Cli, Gate, Kiosk, Operator, Server};

/// How many batches the backlog of a door makes: enough to be killed in the middle of.
const BATCHES_PER_BACKLOG: usize = 12;

/// Whose key the demo asks with.
const MANAGER: &str = "Petra Vogt";

/// A device at a door, and its line to the server.
#[derive(Debug)]
pub struct Door {
    pub gate: Gate,
    pub agent: Agent,
    pub device: DeviceId,
    /// How many punches it makes.
    pub punches: u64,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Stage {
    // Dropped in this order: devices, lines, server; its Postgres with the last one's directory.
    pub doors: Vec<Door>,
    /// The kiosk that sends garbage, behind the first door's line.
    pub broken: Kiosk,
    /// Whom the HTTP API answers.
    pub operator: Operator,
    pub cli: Cli,
    pub server: Server,
    /// The sites' ids, in the order of [`SITES`].
    pub sites: Vec<String>,
    /// What faces are checked by.
    pub checks: Checks,
}

impl Stage {
    /// Starts the server, makes sites, people and keys, and enrols the devices.
    ///
    /// # Errors
    /// When any of that fails.
    pub async fn set(screen: &Screen, script: &Script, seed: u64) -> anyhow::Result<Self> {
        let checks = Checks::ready().await;
        let place = checks.place()?.with_variable("PUNCHTRAIL_WEBHOOK_INSECURE_LOOPBACK", "1");
        let data = place.data.path().to_owned();
        let cli = place.cli();
        let busy = screen.busy("creating a PostgreSQL cluster and starting the server");
        let server = Server::start(&place).await?;
        drop(busy);
        screen.done(&format!(
            "punchtrail serve: {}, with a PostgreSQL of its own in {}",
            server.url(),
            data.display()
        ));

        let busy = screen.busy("sites and people");
        let mut sites = Vec::new();
        for (name, zone) in SITES {
            sites.push(cli.text(&["site", "add", "--name", name, "--tz", zone], "site").await?);
            pace(&cli, name, script).await?;
        }
        let roster = data.join("roster.csv");
        fs::write(&roster, script.roster())?;
        let roster = roster.to_str().context("a path in UTF-8")?;
        cli.json(&["employee", "import", roster]).await?;
        let operator = Operator::new(&cli, server.url(), MANAGER).await?;
        drop(busy);
        screen.done(&format!(
            "two sites in two time zones, and {} people from roster.csv, every third with a PIN",
            script.workers.len()
        ));

        let busy = screen.busy("pairing devices");
        let mut doors = Vec::new();
        let mut people = Vec::new();
        for (index, (name, site, _)) in DOORS.into_iter().enumerate() {
            let gate = Gate::open(server.address()?, seed.wrapping_add(index as u64)).await?;
            let dir = data.join("devices").join(format!("{}", index + 1));
            fs::create_dir_all(data.join("devices"))?;
            let mut agent = Agent::new(name, &dir, SITES[site].1);
            let code = cli.text(&["device", "pair", "--site", &sites[site]], "code").await?;
            let enrolled = agent.enroll(&gate.url(), &code).await?;
            agent.start().await?;
            people.push(enrolled.employees);
            let punches = script.doors[index].len() as u64;
            doors.push(Door { gate, agent, device: enrolled.device, punches });
        }
        let code = cli.text(&["device", "pair", "--site", &sites[0]], "code").await?;
        let broken = Kiosk::enroll(&doors[0].gate.url(), &code, "Hamburg broken kiosk").await?;
        broken.heartbeat(0, None).await?;
        drop(busy);
        screen.done(&format!(
            "four punchtrail-device processes, each enrolled by a pairing code, each with its \
             site's roster ({} people) on its own disk; and a fifth device that is broken",
            people[0]
        ));
        Ok(Self { doors, broken, operator, cli, server, sites, checks })
    }

    /// The server has another port since it was started again.
    ///
    /// # Errors
    /// When its address can't be read.
    pub fn follow_server(&mut self) -> anyhow::Result<()> {
        let address = self.server.address()?;
        for door in &self.doors {
            door.gate.lead_to(address);
        }
        self.operator.move_to(self.server.url());
        Ok(())
    }

    /// How many punches wait on each device, by its own file.
    ///
    /// # Errors
    /// When one can't be read.
    pub async fn waiting(&self) -> anyhow::Result<Vec<u64>> {
        let mut waiting = Vec::with_capacity(self.doors.len());
        for door in &self.doors {
            waiting.push(door.agent.waiting().await?);
        }
        Ok(waiting)
    }
}

/// A minute's patience is too long for a demo: devices report often, start at once and drain in
/// small batches.
async fn pace(cli: &Cli, site: &str, script: &Script) -> anyhow::Result<()> {
    let backlog = script.doors.iter().map(Vec::len).max().unwrap_or_default();
    let batch_max = format!("batch_max={}", (backlog / BATCHES_PER_BACKLOG).clamp(1, 100));
    let mut arguments = vec!["site", "policy", site];
    for value in [&batch_max, "punches_per_minute=60000", "reconnect_spread_s=0", "heartbeat_s=5"] {
        arguments.extend(["--set", value]);
    }
    let answer = cli.json(&arguments).await?;
    anyhow::ensure!(
        answer["policy"]["heartbeat_s"] == json!(5),
        "the policy was not taken: {answer}"
    );
    Ok(())
}
