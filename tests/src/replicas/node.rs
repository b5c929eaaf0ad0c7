//! One node: a Postgres with its data directory, and the gate by which others reach it.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use punchtrail_infra::postgres::{Account, Binaries};
use punchtrail_testkit::{PATIENCE, eventually};
use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{
    ConnectOptions, Connection, Executor,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::timeout;

use crate::{DataDir, Gate, cluster::lives, process::Process};

/// The superuser that `initdb` makes; nobody needs a password on loopback.
pub(super) const USER: &str = "punchtrail";
/// Below the ports that systems give to outgoing connections (ip(7), `ip_local_port_range`): a port
/// is still free when its node comes back.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// Ports that were free when they were chosen and were taken before they were used, at most.
const ATTEMPTS_MAX: u32 = 5;
/// Marks the processes of a run of tests.
const RUN: &str = "PUNCHTRAIL_TEST_RUN";
/// A program of Postgres on two busy cores.
const PROGRAM_WAIT: Duration = Duration::from_secs(60);
/// An answer of a node that runs.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// For a node's processes to be gone.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How often they are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The same for every node, so that each is ready to be the primary. A short memory of who is gone;
/// no slots, which a promoted standby wouldn't have.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_keep_size = 256MB
max_wal_size = 192MB
min_wal_size = 192MB
max_connections = 200
shared_buffers = 64MB
# In the data directory, with which it goes.
dynamic_shared_memory_type = mmap
wal_retrieve_retry_interval = 200ms
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
timezone = 'UTC'
log_timezone = 'UTC'
";

/// A commit waits for whichever other node is the first to have it. A name of one's own does no
/// harm, so it is the same on all.
const SYNCHRONOUS_STANDBYS: &str = "ANY 1 (n1,n2,n3)";

/// What a node has to do with the others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Replication {
    /// The port of the node that it follows.
    pub follows: Option<u16>,
    /// Whether its commits wait for nobody.
    pub asynchronous: bool,
}

/// Postgres's programs, and who runs them.
#[derive(Debug)]
pub(super) struct Programs {
    account: Account,
    binaries: Binaries,
}

impl Programs {
    /// # Errors
    /// When Postgres isn't installed.
    pub fn find(folder: &DataDir) -> anyhow::Result<Arc<Self>> {
        let account = Account::for_cluster(&folder.path().join("n1"))?;
        Ok(Arc::new(Self { account, binaries: Binaries::newest()? }))
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.binaries.dir
    }

    /// Gives their user a file or folder.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own(&self, path: &Path) -> anyhow::Result<()> {
        Ok(self.account.own(path)?)
    }

    fn command(&self, program: &str) -> Command {
        self.any(self.binaries.program(program))
    }

    /// Any program, run as they are.
    pub fn any(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C.UTF-8").env("PATH", "/usr/bin:/bin").current_dir("/");
        // By which `./dev test` ends what outlives its test.
        command.envs(std::env::var_os(RUN).map(|run| (RUN, run)));
        self.account.run(&mut command);
        command
    }

    async fn run(&self, mut command: Command) -> anyhow::Result<()> {
        let shown = command.get_program().display().to_string();
        command.stdin(std::process::Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let output = timeout(PROGRAM_WAIT, command.kill_on_drop(true).output())
            .await
            .with_context(|| format!("{shown} takes too long"))??;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{shown} ends with {}: {}", output.status, said.trim());
        Ok(())
    }
}

/// A port that nobody listens on now.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let mut dice = rand::rng();
    (0..1_000)
        .map(|_| dice.random_range(PORTS))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("no free port is to be found")
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    name: String,
    dir: PathBuf,
    /// What is of this node alone, beside its data: data are copied from node to node.
    own: PathBuf,
    log: PathBuf,
    port: u16,
    gate: Gate,
    gate_port: u16,
    programs: Arc<Programs>,
    server: Option<Process>,
    starts: u32,
}

impl Node {
    /// A node that has no data yet.
    ///
    /// # Errors
    /// When it has no place.
    pub async fn new(
        number: usize,
        folder: &DataDir,
        programs: &Arc<Programs>,
    ) -> anyhow::Result<Self> {
        let name = format!("n{number}");
        let dir = folder.path().join(&name);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        programs.own(&dir)?;
        let port = free_port()?;
        let gate = Gate::open(address(port), number as u64).await?;
        let gate_port = gate.address().port();
        let (own, log) = (dir.with_extension("conf"), folder.log(&name)?);
        let programs = Arc::clone(programs);
        Ok(Self { name, dir, own, log, port, gate, gate_port, programs, server: None, starts: 0 })
    }

    /// Its name as a standby.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port by which others reach it.
    pub fn reached_at(&self) -> u16 {
        self.gate_port
    }

    /// The line on which they do.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// How to connect to it past its gate.
    pub fn direct(&self) -> PgConnectOptions {
        direct(self.port)
    }

    /// Creates an empty cluster and starts it as the primary.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn create(&mut self) -> anyhow::Result<()> {
        let mut initdb = self.programs.command("initdb");
        initdb.arg("-D").arg(&self.dir).args(["-U", USER, "--auth=trust", "-E", "UTF8"]);
        initdb.args(["--locale=C", "--data-checksums", "--no-sync", "--no-instructions"]);
        self.programs.run(initdb).await?;
        let file = self.dir.join("postgresql.conf");
        let usual = fs::read_to_string(&file)?;
        fs::write(&file, format!("{usual}{SETTINGS}include '{}'\n", self.own.display()))?;
        self.configure(&Replication::default())?;
        self.serve().await
    }

    /// Becomes a standby with a copy of `primary`.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn copy_of(&mut self, primary: &Node) -> anyhow::Result<()> {
        let mut copy = self.programs.command("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-p", &primary.reached_at().to_string(), "-U", USER, "-D"]);
        copy.arg(&self.dir).args(["-X", "stream", "-c", "fast", "--no-sync"]);
        self.programs.run(copy).await?;
        self.become_standby()?;
        self.configure(&Replication {
            follows: Some(primary.reached_at()),
            ..Replication::default()
        })?;
        self.serve().await
    }

    /// Writes what is of this node alone; one that runs takes it at once.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn configure(&self, replication: &Replication) -> anyhow::Result<()> {
        let (name, port) = (&self.name, self.port);
        let follows = replication
            .follows
            .map(|port| format!("host=127.0.0.1 port={port} user={USER} application_name={name}"));
        let names = if replication.asynchronous { "" } else { SYNCHRONOUS_STANDBYS };
        let own = format!(
            "port = {port}\ncluster_name = '{name}'\nsynchronous_standby_names = '{names}'\n\
             primary_conninfo = '{}'\n",
            follows.unwrap_or_default()
        );
        fs::write(&self.own, own)?;
        match self.postmaster() {
            Ok(postmaster) => Ok(kill_process(postmaster, Signal::HUP)?),
            Err(_) => Ok(()),
        }
    }

    /// Its data came from another node: it reads its own settings, and follows.
    fn become_standby(&self) -> anyhow::Result<()> {
        let file = self.dir.join("postgresql.conf");
        let text = fs::read_to_string(&file)?;
        let kept = text.lines().filter(|line| !line.starts_with("include '"));
        let mut text = kept.fold(String::new(), |text, line| text + line + "\n");
        text.push_str(&format!("include '{}'\n", self.own.display()));
        fs::write(&file, text)?;
        let mark = self.dir.join("standby.signal");
        fs::write(&mark, "")?;
        self.programs.own(&mark)
    }

    /// Starts it on the data that it has, and waits until it answers.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn serve(&mut self) -> anyhow::Result<()> {
        let mut attempt = 1;
        loop {
            let mut command = self.programs.command("postgres");
            command.arg("-D").arg(&self.dir);
            self.starts += 1;
            let log = self.log.with_extension(format!("{}.log", self.starts));
            let mut server = Process::start(&self.name, command, &log)?;
            let direct = self.direct();
            let up = eventually(format!("{} to answer", self.name), PATIENCE, async || {
                if !server.runs()? {
                    return Ok(Some(false));
                }
                let answer = timeout(ANSWER_WAIT, direct.connect()).await;
                Ok(matches!(answer, Ok(Ok(_))).then_some(true))
            });
            if up.await.with_context(|| server.log_tail())? {
                self.server = Some(server);
                return Ok(());
            }
            let said = server.log_tail();
            if attempt == ATTEMPTS_MAX || !said.contains("could not bind") {
                bail!("{} does not start: {said}", self.name);
            }
            attempt += 1;
            self.move_to(free_port()?)?;
        }
    }

    /// Somebody else has its port: it takes another, and its gate leads there.
    fn move_to(&mut self, port: u16) -> anyhow::Result<()> {
        let own = fs::read_to_string(&self.own)?;
        let (was, is) = (format!("port = {}\n", self.port), format!("port = {port}\n"));
        fs::write(&self.own, own.replace(&was, &is))?;
        self.port = port;
        self.gate.lead_to(address(port));
        Ok(())
    }

    fn postmaster(&self) -> anyhow::Result<Pid> {
        let server = self.server.as_ref().with_context(|| format!("{} doesn't run", self.name))?;
        i32::try_from(server.id()).ok().and_then(Pid::from_raw).context("a process id")
    }

    /// Signals the postmaster and then its children, so that it makes no more of them.
    fn signal_all(&self, signal: Signal) -> anyhow::Result<()> {
        let postmaster = self.postmaster()?;
        kill_process(postmaster, signal)?;
        for child in children(postmaster) {
            // It may have ended meanwhile.
            let _ = kill_process(child, signal);
        }
        Ok(())
    }

    /// # Errors
    /// When it doesn't run.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        let postmaster = self.postmaster()?;
        // Nothing of it does anything more while the rest is killed.
        self.signal_all(Signal::STOP)?;
        let children = children(postmaster);
        for &child in &children {
            let _ = kill_process(child, Signal::KILL);
        }
        self.server.take().context("it runs")?.kill_9()?;
        // The next start finds the memory that they share unused.
        wait_until_gone(&children);
        Ok(())
    }

    /// # Errors
    /// When it doesn't run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// # Errors
    /// When it doesn't run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// How much of the primary's log it has, in bytes since the beginning.
    ///
    /// # Errors
    /// When it doesn't say.
    pub async fn received(&self) -> anyhow::Result<i64> {
        let received = "select greatest(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0'), \
             pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'))::bigint";
        self.number(received).await
    }

    /// Makes it the primary, and waits until it is.
    ///
    /// # Errors
    /// When it doesn't become it.
    pub async fn promote(&self) -> anyhow::Result<()> {
        let promoted = self.number("select pg_promote(true, 30)::int").await?;
        ensure!(promoted == 1, "{} is not promoted", self.name);
        Ok(())
    }

    /// Makes its data, whatever became of them, a beginning to follow `primary` from.
    ///
    /// # Errors
    /// When that isn't possible.
    pub async fn rewind_to(&mut self, primary: &PgConnectOptions) -> anyhow::Result<()> {
        if self.server.is_some() {
            self.kill_9()?;
        }
        // Until the new primary's first checkpoint is done, its files name the old timeline.
        run_on(primary, "checkpoint").await?;
        let mut rewind = self.programs.command("pg_rewind");
        rewind.arg("-D").arg(&self.dir).arg("--no-sync").arg(format!(
            "--source-server=host=127.0.0.1 port={} user={USER} dbname=postgres",
            primary.get_port()
        ));
        self.programs.run(rewind).await?;
        self.become_standby()
    }

    /// Asks for one number.
    ///
    /// # Errors
    /// When it doesn't answer in time.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let asked = async {
            let mut connection = self.direct().connect().await?;
            let sql = format!("select ({sql})::bigint");
            let number = sqlx::query_scalar(&sql).fetch_one(&mut connection).await?;
            connection.close().await?;
            anyhow::Ok(number)
        };
        let answer = timeout(PROGRAM_WAIT, asked).await;
        answer.with_context(|| format!("{} does not answer", self.name))?
    }

    /// Runs a statement without waiting for any standby.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run_alone(&self, sql: &str) -> anyhow::Result<()> {
        run_on(&self.direct().options([("synchronous_commit", "local")]), sql).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(postmaster) = self.postmaster() {
            end(postmaster);
        }
    }
}

/// Ends a Postgres, frozen or not, by an immediate shutdown: it tidies up what isn't in its folder,
/// and its data go with that.
pub(super) fn end(postmaster: Pid) {
    for pid in children(postmaster).into_iter().chain([postmaster]) {
        let _ = kill_process(pid, Signal::CONT);
    }
    let _ = kill_process(postmaster, Signal::QUIT);
    wait_until_gone(&[postmaster]);
    if lives(postmaster) {
        let _ = kill_process(postmaster, Signal::KILL);
    }
}

fn wait_until_gone(processes: &[Pid]) {
    let began = Instant::now();
    while processes.iter().any(|pid| lives(*pid)) && began.elapsed() < STOP_WAIT {
        std::thread::sleep(LOOK_EVERY);
    }
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Runs a statement on a connection of its own.
///
/// # Errors
/// When it fails.
pub(super) async fn run_on(options: &PgConnectOptions, sql: &str) -> anyhow::Result<()> {
    let mut connection = options.connect().await?;
    connection.execute(sql).await?;
    Ok(connection.close().await?)
}

/// How to connect to whoever listens on a port.
pub(super) fn direct(port: u16) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .ssl_mode(PgSslMode::Disable)
        .username(USER)
        .database("postgres")
}

/// The processes that `parent` has started and that live (proc_pid_stat(5): "pid (name) state
/// parent …").
pub(super) fn children(parent: Pid) -> Vec<Pid> {
    let of_parent = |entry: fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let its = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (Pid::from_raw(its) == Some(parent)).then_some(pid)
    };
    fs::read_dir(Path::new("/proc")).into_iter().flatten().flatten().filter_map(of_parent).collect()
}
