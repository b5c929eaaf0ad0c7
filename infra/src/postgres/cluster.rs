//! The files of a private cluster: where they are, how they are created, what it runs with.
//!
//! ```text
//! <data dir>/postgres/cluster          the cluster itself, 0700, owned by the database's user
//! <data dir>/postgres/socket           the Unix socket, the only way in, 0700
//! <data dir>/postgres/postgres.log     the server's log, and .1 before it
//! <data dir>/postgres/transition.lock  held while Postgres is started or stopped
//! <data dir>/postgres/users.lock       held, shared, by every process that uses it
//! ```
//!
//! A cluster without its mark was interrupted while it was created and is created again; one that
//! already holds databases is never removed, mark or not.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    account::Account,
    binaries::{self, Binaries, Places},
    error::PostgresError,
    locks::{FileLock, create_searchable},
};

/// The superuser that `initdb` makes; only who can open the 0700 socket directory can be it.
pub(super) const SUPERUSER: &str = "punchtrail";
/// Names the socket file, nothing listens on TCP.
pub(super) const PORT: u16 = 5432;

const SOCKET_FILE: &str = ".s.PGSQL.5432";
/// `sun_path` of unix(7) has 108 bytes, one of them the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Not the `TMPDIR` of this process: every process has to find the same place.
const SHORT_ROOT: &str = "/tmp";
const PRIVATE_MODE: u32 = 0o700;
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
const LOG_TAIL_BYTES_MAX: u64 = 2_000;
const INITDB_WAIT: Duration = Duration::from_secs(300);
const REMOVE_ATTEMPTS_MAX: u32 = 50;
/// Object ids below this belong to Postgres itself (`FirstNormalObjectId` in its access/transam.h).
const FIRST_USER_OID: u32 = 16_384;

/// Given on the command line of every start, so that no file in the cluster can weaken them.
/// The sizes suit a machine of two cores that does other work too; how much of the database is held
/// in memory goes by the machine ([`shared_buffers_mib`]).
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("max_connections", "100"),
    ("max_wal_size", "4GB"),
    // Kept for the next burst: to make a new file of the log costs as much as to fill it, at the
    // commit.
    ("min_wal_size", "1GB"),
    ("checkpoint_timeout", "15min"),
    ("checkpoint_completion_target", "0.9"),
    ("random_page_cost", "1.1"),
    ("jit", "off"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %a "),
    ("log_checkpoints", "off"),
    // DETAIL lines quote the values of rows, which may be a person's.
    ("log_error_verbosity", "terse"),
];

/// Given where Postgres was built with what they need. Whole pages go to the log after each
/// checkpoint, and devices' keys are spread over all pages of an index: LZ4 makes them a fraction,
/// for less than writing them costs. What changed is noted (PostgreSQL 17), so that a backup needs
/// read no more than that.
const OFFERED: &[Setting] = &[("wal_compression", "lz4"), ("summarize_wal", "on")];

/// What Postgres holds of the database in memory, in MiB: an eighth of what this machine, or the
/// control group that we are in, has. Much less than the quarter that its manual advises for a
/// machine of its own (chapter 20.4): the rest is of use as the kernel's cache, too.
fn shared_buffers_mib() -> u64 {
    const MIB: u64 = 1 << 20;
    let machine = rustix::system::sysinfo();
    let machine_bytes = machine.totalram.saturating_mul(u64::from(machine.mem_unit));
    let group_bytes = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(u64::MAX);
    (machine_bytes.min(group_bytes) / 8 / MIB).clamp(128, 4_096)
}

/// A setting's name and value.
pub(super) type Setting = (&'static str, &'static str);

/// One private cluster on disk.
#[derive(Debug)]
pub(super) struct Cluster {
    root: PathBuf,
    pub dir: PathBuf,
    pub socket_dir: PathBuf,
    pub log: PathBuf,
    pub transition_lock: PathBuf,
    pub users_lock: PathBuf,
    pub account: Account,
    extra_settings: &'static [Setting],
}

impl Cluster {
    /// Finds the cluster's place in `data_dir`, creating directories but no cluster.
    /// `extra_settings` win over the usual ones.
    ///
    /// # Errors
    /// When the directories can't be made or belong to another user.
    pub fn locate(
        data_dir: &Path,
        extra_settings: &'static [Setting],
    ) -> Result<Self, PostgresError> {
        create_searchable(data_dir)?;
        // Postgres runs with another current directory.
        let data_dir = fs::canonicalize(data_dir).map_err(PostgresError::io("find", data_dir))?;
        let root = data_dir.join("postgres");
        create_searchable(&root)?;
        let dir = root.join("cluster");
        let account = Account::for_cluster(&dir)?;
        let socket_dir = socket_dir(&root)?;
        Ok(Self {
            socket_dir,
            log: root.join("postgres.log"),
            transition_lock: root.join("transition.lock"),
            users_lock: root.join("users.lock"),
            account,
            extra_settings,
            dir,
            root,
        })
    }

    /// Left by us in a cluster that was created completely. It lies inside, so that it travels
    /// with every copy of the cluster.
    fn marker(&self) -> PathBuf {
        self.dir.join("punchtrail.ready")
    }

    /// The server programs for this cluster.
    ///
    /// # Errors
    /// See [`binaries::find`].
    pub fn binaries(&self) -> Result<Binaries, PostgresError> {
        let version = binaries::cluster_version(&self.dir).filter(|_| self.marker().exists());
        binaries::find(&Places::from_environment(), &self.dir, version)
    }

    /// Makes sure that a complete cluster and its socket's directory exist.
    /// `transition` is held by the caller and lent to `initdb`, so that a second starter waits
    /// for an `initdb` that outlived us.
    ///
    /// # Errors
    /// When the user can't reach the directory, or `initdb` fails.
    pub async fn ensure_created(
        &self,
        binaries: &Binaries,
        transition: &FileLock,
    ) -> Result<(), PostgresError> {
        self.account.check_reaches(&self.root, &binaries.program("postgres"))?;
        self.create_socket_dir()?;
        if self.marker().exists() {
            return Ok(());
        }
        self.remove_unfinished()?;
        tracing::info!(cluster = %self.dir.display(), version = binaries.major, "creating a \
            PostgreSQL cluster");
        self.create_private(&self.dir)?;
        self.run_initdb(binaries, transition).await?;
        self.mark_ready()
    }

    fn remove_unfinished(&self) -> Result<(), PostgresError> {
        let databases = match fs::read_dir(self.dir.join("base")) {
            Ok(entries) => entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
                .filter(|oid| *oid >= FIRST_USER_OID)
                .count(),
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(PostgresError::io("read", &self.dir)(error)),
        };
        if databases > 0 {
            return Err(PostgresError::UnmarkedCluster {
                cluster: self.dir.clone(),
                marker: self.marker(),
            });
        }
        let mut attempt = 1;
        let removed = loop {
            match fs::remove_dir_all(&self.dir) {
                // A killed initdb's own child may write a last file.
                Err(error)
                    if error.kind() == ErrorKind::DirectoryNotEmpty
                        && attempt < REMOVE_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                settled => break settled,
            }
        };
        match removed {
            Ok(()) => {
                tracing::warn!(cluster = %self.dir.display(), "removed a cluster whose creation \
                    had been interrupted");
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(PostgresError::io("remove", &self.dir)(error)),
        }
    }

    async fn run_initdb(
        &self,
        binaries: &Binaries,
        transition: &FileLock,
    ) -> Result<(), PostgresError> {
        let mut command = Command::new(binaries.program("initdb"));
        command.arg("-D").arg(&self.dir).args(["-U", SUPERUSER, "--auth=trust"]);
        command.args(["--data-checksums", "--no-locale", "-E", "UTF8"]);
        let lent = transition.share().map_err(PostgresError::io("share", &self.transition_lock))?;
        self.prepare(&mut command);
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::from(lent)).kill_on_drop(true);
        let failed = |output: String| PostgresError::Initdb { cluster: self.dir.clone(), output };
        let done = tokio::time::timeout(INITDB_WAIT, command.output())
            .await
            .map_err(|_| failed(format!("not done after {} s", INITDB_WAIT.as_secs())))?
            .map_err(PostgresError::io("run initdb for", &self.dir))?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(failed(if said.is_empty() { done.status.to_string() } else { said }))
    }

    fn mark_ready(&self) -> Result<(), PostgresError> {
        let marker = self.marker();
        let written = File::create(&marker)
            .and_then(|file| file.sync_all())
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .and_then(|()| File::open(&self.root)?.sync_all());
        written.map_err(PostgresError::io("write", &marker))?;
        self.account.own(&marker)
    }

    fn create_socket_dir(&self) -> Result<(), PostgresError> {
        let refused = || PostgresError::SocketDirTaken {
            wanted: self.root.join("socket"),
            taken: self.socket_dir.clone(),
        };
        match fs::symlink_metadata(&self.socket_dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.create_private(&self.socket_dir)
            }
            Err(error) => Err(PostgresError::io("look at", &self.socket_dir)(error)),
            Ok(found) => {
                let me = rustix::process::geteuid().as_raw();
                let owned = [self.account.uid(), me].contains(&found.uid());
                // In a directory that everybody can write to, somebody else may have been first.
                if !found.is_dir() || !owned || found.mode() & 0o077 != 0 {
                    return Err(refused());
                }
                self.account.own(&self.socket_dir)
            }
        }
    }

    fn create_private(&self, dir: &Path) -> Result<(), PostgresError> {
        fs::DirBuilder::new()
            .mode(PRIVATE_MODE)
            .create(dir)
            .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(PRIVATE_MODE)))
            .map_err(PostgresError::io("create", dir))?;
        self.account.own(dir)
    }

    /// User, directory and environment for a program of Postgres.
    fn prepare(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            // A PGOPTIONS or PGPORT meant for another database must not reach this one.
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(&name);
            }
        }
        // It must not tell systemd that our service is ready.
        command.env_remove("NOTIFY_SOCKET").env("LC_ALL", "C").current_dir("/");
        self.account.run(command);
    }

    /// Whether these programs take a setting: what they were built without, they refuse to start
    /// with.
    fn takes(&self, binaries: &Binaries, (name, value): &Setting) -> bool {
        let mut command = Command::new(binaries.program("postgres"));
        command.arg("-D").arg(&self.dir).args(["-C", name, "-c", &format!("{name}={value}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.prepare(&mut command);
        command.status().is_ok_and(|status| status.success())
    }

    /// The command that runs the server in the foreground, its output going to the log.
    ///
    /// # Errors
    /// When the log can't be opened.
    pub fn server_command(&self, binaries: &Binaries) -> Result<Command, PostgresError> {
        self.bound_log()?;
        let open_log = || {
            File::options()
                .append(true)
                .create(true)
                .open(&self.log)
                .map_err(PostgresError::io("open", &self.log))
        };
        let mut command = Command::new(binaries.program("postgres"));
        command.arg("-D").arg(&self.dir).arg("-k").arg(&self.socket_dir);
        command.args(["-p", &PORT.to_string()]);
        command.arg("-c").arg(format!("shared_buffers={}MB", shared_buffers_mib()));
        let offered = OFFERED.iter().filter(|setting| self.takes(binaries, setting));
        for (name, value) in SETTINGS.iter().chain(offered).chain(self.extra_settings) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(open_log()?).stderr(open_log()?);
        self.prepare(&mut command);
        Ok(command)
    }

    fn bound_log(&self) -> Result<(), PostgresError> {
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(&self.log, self.log.with_extension("log.1"))
                .map_err(PostgresError::io("rotate", &self.log))?;
        }
        Ok(())
    }

    /// How long the log is now, to read later what came after.
    pub fn log_length(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    /// The end of what the log gained since it was `from` bytes long.
    pub fn log_tail(&self, from: u64) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            let start = from.min(length).max(length.saturating_sub(LOG_TAIL_BYTES_MAX));
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().ok().filter(|tail| !tail.is_empty()).unwrap_or_else(|| "(nothing)".to_owned())
    }
}

/// `root/socket`, or where that is too long for a socket, a short directory named after the
/// device and inode of `root`, which every process computes alike.
fn socket_dir(root: &Path) -> Result<PathBuf, PostgresError> {
    let wanted = root.join("socket");
    if wanted.join(SOCKET_FILE).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(wanted);
    }
    let found = fs::metadata(root).map_err(PostgresError::io("look at", root))?;
    let name = Sha256::digest(format!("{}:{}", found.dev(), found.ino()));
    Ok(Path::new(SHORT_ROOT).join(format!("punchtrail-{}", hex::encode(&name[..8]))))
}
