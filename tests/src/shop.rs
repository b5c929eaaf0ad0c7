//! The smallest world a whole-system test needs: a server with one site and three people.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use punchtrail_protocol::EmployeeId;
use punchtrail_testkit::PATIENCE;

use crate::{Agent, Cli, Installation, Kiosk, Operator, Server, compare, comparison::Comparison};

/// The site's time zone.
pub const ZONE: &str = "Europe/Berlin";
/// Everybody's badges.
pub const BADGES: [&str; 3] = ["101", "102", "103"];
const ROSTER: &str = "badge,name,pin,site\n101,Ada,,Shop\n102,Ben,4711,Shop\n103,Cem,,Shop\n";
/// Agents here start at once, report often and drain in small batches.
const POLICY: [&str; 4] =
    ["punches_per_minute=60000", "reconnect_spread_s=0", "heartbeat_s=5", "batch_max=5"];

/// A roster of `people`, from the first of [`BADGES`] on, nobody with a PIN.
pub fn crowd(people: usize) -> String {
    let rows = (101..101 + people).map(|badge| format!("{badge},Worker {badge},,Shop\n"));
    std::iter::once("badge,name,pin,site\n".to_owned()).chain(rows).collect()
}

/// A server with one site.
#[derive(Debug)]
pub struct Shop {
    /// Whom the HTTP API answers.
    pub operator: Operator,
    pub cli: Cli,
    pub server: Server,
    pub site: String,
    /// The person with the first badge.
    pub employee: EmployeeId,
}

impl Shop {
    /// Opens it on a private Postgres of its own.
    ///
    /// # Errors
    /// When anything fails.
    pub async fn open() -> anyhow::Result<Self> {
        Self::open_at(Installation::embedded()?).await
    }

    /// Opens it on an empty database.
    ///
    /// # Errors
    /// When anything fails.
    pub async fn open_at(place: Installation) -> anyhow::Result<Self> {
        Self::open_with(place, ROSTER, &POLICY).await
    }

    /// Opens it on an empty database with the people of `roster`, of whom the first of [`BADGES`]
    /// is one, and with `policy`, values like `batch_max=5`.
    ///
    /// # Errors
    /// When anything fails.
    pub async fn open_with(
        place: Installation,
        roster: &str,
        policy: &[&str],
    ) -> anyhow::Result<Self> {
        let cli = place.cli();
        let server = Server::start(&place).await?;
        let site = cli.text(&["site", "add", "--name", "Shop", "--tz", ZONE], "site").await?;
        let mut set = vec!["site", "policy", "Shop"];
        set.extend(policy.iter().flat_map(|value| ["--set", value]));
        cli.json(&set).await?;
        let file = place.data.path().join("roster.csv");
        fs::write(&file, roster)?;
        cli.json(&["employee", "import", file.to_str().context("a path in UTF-8")?]).await?;
        let operator = Operator::new(&cli, server.url(), "test").await?;
        operator.settled(false, PATIENCE).await?;
        let people = operator.employees().await?;
        let employee = people.get(BADGES[0]).context("a person with that badge")?.parse()?;
        Ok(Self { operator, cli, server, site, employee })
    }

    /// A device in this process, at `base`.
    ///
    /// # Errors
    /// When it can't enrol.
    pub async fn kiosk(&self, base: &str) -> anyhow::Result<Kiosk> {
        Kiosk::enroll(base, &self.code().await?, "Kiosk").await
    }

    /// A real device on a folder of its own, at `base`; its agent doesn't run yet.
    ///
    /// # Errors
    /// When it can't enrol.
    pub async fn agent(&self, base: &str) -> anyhow::Result<Agent> {
        let devices = self.server.installation().data.path().join("devices");
        fs::create_dir_all(&devices)?;
        self.agent_in(&devices, base).await
    }

    /// The same on a new folder in `devices`.
    ///
    /// # Errors
    /// When it can't enrol.
    pub async fn agent_in(&self, devices: &Path, base: &str) -> anyhow::Result<Agent> {
        let number = fs::read_dir(devices)?.count() + 1;
        let name = format!("Door {number}");
        let agent = Agent::new(&name, &devices.join(number.to_string()), ZONE);
        agent.enroll(base, &self.code().await?).await?;
        Ok(agent)
    }

    async fn code(&self) -> anyhow::Result<String> {
        self.cli.text(&["device", "pair", "--site", "Shop"], "code").await
    }

    /// The files of the devices in `folders` held against the ledger.
    ///
    /// # Errors
    /// When a file or the database can't be read.
    pub async fn compare(&self, folders: &[PathBuf]) -> anyhow::Result<Comparison> {
        compare(folders, &self.server.installation().database().await?).await
    }

    /// The server runs again, elsewhere.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.server.restart().await?;
        self.operator.move_to(self.server.url());
        Ok(())
    }
}
