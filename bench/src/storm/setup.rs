//! What every run begins with: a server's database with sites, people, enrolled devices and a
//! little history for readers, and the devices' files, full of punches that nobody has had yet.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use ed25519_dalek::SigningKey;
use punchtrail_tests::{
    Installation, Server,
    programs::{FLEET, program},
};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::say;
use crate::{
    database::Cluster,
    fleet::{enroll, hire, open_site, settled},
    report::REPORTS,
};

/// How many devices a site has.
const DEVICES_PER_SITE: usize = 250;
/// How many people punch at each device.
const PEOPLE_PER_DEVICE: usize = 4;
/// Devices that have delivered before, so that there is something to read.
const EARLY_DEVICES: usize = 20;
/// And what each of them delivered.
const EARLY_PUNCHES: usize = 50;
/// Folders that one `cp` is told of.
const COPIED_AT_ONCE: usize = 1_000;

/// Where every run begins.
pub struct World {
    pub library: Library,
    pub took: Took,
    /// The database to copy. Nobody is connected to it.
    template: String,
    /// The server's directory to copy: its checkpoints and their key.
    place: Installation,
    scratch: tempfile::TempDir,
}

/// What readers ask for, and with what right.
#[derive(Debug, Clone)]
pub struct Library {
    pub operator_key: String,
    /// A device's token, and the site that it may search.
    pub device: (String, String),
    pub punches: Vec<Uuid>,
    pub people: Vec<Uuid>,
    /// Names of people at the device's site.
    pub names: Vec<String>,
}

/// How long the set-up took, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Took {
    /// Sites, people, and the devices that delivered before.
    pub shop_s: f64,
    /// Enrolling the fleet and letting it capture.
    pub fleet_s: f64,
}

/// What a run has to itself.
pub struct Copy {
    pub place: Installation,
    pub fleet: PathBuf,
    /// Folders of all devices whose punches the ledger may have in the end.
    pub folders: Vec<PathBuf>,
    url: String,
}

impl World {
    /// Makes it: so many devices with so many punches each, of which `photos` is the share that has
    /// a photo.
    pub async fn prepare(
        cluster: &Cluster,
        (devices, punches): (usize, usize),
        photos: f64,
        seed: u64,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(REPORTS).context("make the folder of reports")?;
        // On the disk of the checkout: elsewhere it might be memory.
        let scratch = tempfile::Builder::new().prefix("storm-").tempdir_in(REPORTS)?;
        let template = cluster.empty().await?;
        let place = Installation::with_database(&template)?;
        let mut server = Server::start(&place).await?;
        let pool = PgPool::connect(&template).await?;

        let began = Instant::now();
        let (early, sites) = open_sites(&place, devices).await?;
        settled(&pool).await?;
        let key = place.cli().text(&["key", "new"], "key").await?;
        let first =
            Fleet { server: server.url(), key: &key, seed, dir: scratch.path().join("early") };
        let sizes = (EARLY_DEVICES, EARLY_PUNCHES);
        first.simulate(&[early], sizes, &["--spread-cap-s", "0", "--stale-rosters", "0"]).await?;
        settled(&pool).await?;
        let library = library(&pool, &server, &place, &key, &sites[0]).await?;
        let shop_s = began.elapsed().as_secs_f64();
        say(&format!("{} sites and {EARLY_DEVICES} early devices, {shop_s:.0} s", sites.len()));

        let began = Instant::now();
        let fleet = Fleet { dir: scratch.path().join("fleet"), ..first };
        let share = photos.to_string();
        let mut more = vec!["--capture-only"];
        if photos > 0.0 {
            more.extend(["--photos", "--photos-of-punches", &share]);
        }
        let said = fleet.simulate(&sites, (devices, punches), &more).await?;
        let fleet_s = began.elapsed().as_secs_f64();
        say(&said);

        settled(&pool).await?;
        sqlx::query("vacuum analyze").execute(&pool).await?;
        pool.close().await;
        server.terminate().await?;
        Ok(Self { library, took: Took { shop_s, fleet_s }, template, place, scratch })
    }

    /// A copy of all of it, for a run of the first `devices` devices. It is on the disk when this
    /// returns, so that writing it out doesn't fall into the measurement.
    pub async fn copy(
        &self,
        cluster: &Cluster,
        name: &str,
        devices: usize,
    ) -> anyhow::Result<Copy> {
        let url = cluster.copy_of(&self.template).await?;
        let place = Installation::with_database(&url)?
            .with_variable("PUNCHTRAIL_WEBHOOK_INSECURE_LOOPBACK", "true");
        let mut server_files = self.place.data.path().as_os_str().to_owned();
        server_files.push("/.");
        copy_into(place.data.path(), &[server_files.into()])?;
        let fleet = self.scratch.path().join(name);
        std::fs::create_dir(&fleet)?;
        let devices = folders(&self.scratch.path().join("fleet"), devices);
        for some in devices.chunks(COPIED_AT_ONCE) {
            copy_into(&fleet, some)?;
        }
        let synced = Command::new("sync").arg("--file-system").arg(&fleet).status()?;
        ensure!(synced.success(), "what was copied could not be written out");
        let early = folders(&self.scratch.path().join("early"), EARLY_DEVICES);
        let folders = folders(&fleet, devices.len()).into_iter().chain(early).collect();
        Ok(Copy { place, fleet, folders, url })
    }
}

impl Copy {
    /// A pool on its database.
    pub async fn pool(&self) -> anyhow::Result<PgPool> {
        Ok(PgPool::connect(&self.url).await?)
    }

    /// Removes it.
    pub async fn remove(self, cluster: &Cluster) -> anyhow::Result<()> {
        cluster.drop_database(&self.url).await?;
        std::fs::remove_dir_all(&self.fleet).context("remove the run's devices")
    }
}

/// The simulator, as the set-up uses it.
struct Fleet<'a> {
    server: &'a str,
    key: &'a str,
    seed: u64,
    dir: PathBuf,
}

impl Fleet<'_> {
    async fn simulate(
        &self,
        sites: &[String],
        (devices, punches): (usize, usize),
        more: &[&str],
    ) -> anyhow::Result<String> {
        let mut command = simulator(&self.dir, self.server, self.key, sites)?;
        command.args(["--devices", &devices.to_string(), "--punches", &punches.to_string()]);
        command.args(["--seed", &self.seed.to_string()]).args(more).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the fleet could not be set up: {said} {log}");
        Ok(said)
    }
}

/// The simulator's command for a fleet in `dir`.
pub fn simulator(dir: &Path, server: &str, key: &str, sites: &[String]) -> anyhow::Result<Command> {
    let mut command = Command::new(program(FLEET)?);
    command
        .args(["--server", server])
        .args(sites.iter().flat_map(|site| ["--site", site]))
        .arg("--fleet-dir")
        .arg(dir)
        .env("PUNCHTRAIL_OPERATOR_KEY", key)
        .env_remove("RUST_LOG");
    Ok(command)
}

/// The site of the devices that deliver beforehand, and those of the fleet, with their people.
async fn open_sites(place: &Installation, devices: usize) -> anyhow::Result<(String, Vec<String>)> {
    let early = open_site(place, "Early").await?;
    let mut sites = Vec::new();
    for n in 0..devices.div_ceil(DEVICES_PER_SITE) {
        sites.push(open_site(place, &format!("Storm {n}")).await?);
    }
    let people = devices.min(DEVICES_PER_SITE) * PEOPLE_PER_DEVICE;
    let mut posts = vec![(early.as_str(), EARLY_DEVICES * PEOPLE_PER_DEVICE)];
    posts.extend(sites.iter().map(|site| (site.as_str(), people)));
    hire(place, &posts).await?;
    Ok((early, sites))
}

/// What readers ask for; those at a device search at `site`.
async fn library(
    pool: &PgPool,
    server: &Server,
    place: &Installation,
    key: &str,
    site: &str,
) -> anyhow::Result<Library> {
    let code = place.cli().text(&["device", "pair", "--site", site], "code").await?;
    let reader = enroll(server.url(), &SigningKey::from_bytes(&rand::random()), &code).await?;
    let punches = "select aggregate_id::uuid from events \
        where aggregate_type = 'punch' and event_type = 'Captured' order by position";
    let people = "select distinct employee from read.timeline order by employee";
    let names = "select name from employee_directory join read.roster using (employee) \
        where site = $1::uuid order by badge";
    Ok(Library {
        operator_key: key.to_owned(),
        device: (reader.token, site.to_owned()),
        punches: sqlx::query_scalar(punches).fetch_all(pool).await?,
        people: sqlx::query_scalar(people).fetch_all(pool).await?,
        names: sqlx::query_scalar(names).bind(site).fetch_all(pool).await?,
    })
}

/// Folders of a fleet's first devices.
fn folders(fleet: &Path, devices: usize) -> Vec<PathBuf> {
    (0..devices).map(|index| fleet.join(format!("device-{index:05}"))).collect()
}

/// Copies with owners and modes, sharing blocks where the file system can.
fn copy_into(to: &Path, what: &[PathBuf]) -> anyhow::Result<()> {
    let mut copying = Command::new("cp");
    copying.args(["-a", "--reflink=auto", "--target-directory"]).arg(to).arg("--").args(what);
    ensure!(copying.status()?.success(), "could not copy into {}", to.display());
    Ok(())
}
