//! A real filesystem that is soon full, for one test.
//!
//! It is mounted where nobody else sees it: the test's program runs itself again in a mount
//! namespace of its own, for this one test, and with it goes everything that it started, since the
//! process namespace is its own, too. Where the machine doesn't allow that, the test is not run.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use punchtrail_testkit::not_run;
use tokio::{process::Command, time::timeout};

use crate::programs::refusal;

/// Tells the inner run where the filesystem is.
const MOUNTED: &str = "PUNCHTRAIL_TEST_SMALL_DISK";
/// Mounts, and does the rest there.
const MOUNT: &str = r#"mount -t tmpfs -o "size=$1,mode=0755" tmpfs "$2" && shift 2 && "$@""#;
/// For the whole inner run.
const RUN_WAIT: Duration = Duration::from_secs(300);
/// Written at once while the disk is filled, in bytes; the last piece is halved until nothing fits.
const PIECE_BYTES: usize = 1 << 20;

/// The filesystem, seen from inside.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// A filesystem of `mib` MiB for the test named `test`, which calls this first and ends if it
    /// gets none: then the test has been run inside, or can't be run here.
    ///
    /// # Errors
    /// When the inner run failed, with what it said.
    ///
    /// # Panics
    /// Under `CI`, when it can't be run here.
    pub async fn of(test: &str, mib: u32) -> anyhow::Result<Option<Self>> {
        if let Some(path) = std::env::var_os(MOUNTED) {
            return Ok(Some(Self { path: path.into() }));
        }
        let point = tempfile::Builder::new().prefix("punchtrail-disk-").tempdir()?;
        fs::set_permissions(point.path(), fs::Permissions::from_mode(0o711))?;
        let mut probe = inside(point.path(), mib);
        if let Some(refusal) = refusal(probe.arg("true")).await {
            not_run(format!("this machine lets us mount nothing: {refusal}"));
            return Ok(None);
        }
        let mut run = inside(point.path(), mib);
        run.arg(std::env::current_exe()?).args(["--exact", test, "--nocapture"]);
        let output = timeout(RUN_WAIT, run.env(MOUNTED, point.path()).output())
            .await
            .with_context(|| format!("{test} takes too long on its small disk"))??;
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        let passed = output.status.success() && said.contains("1 passed");
        ensure!(
            passed,
            "on its small disk, {test} ends with {}: {said}{complained}",
            output.status
        );
        eprint!("{complained}");
        Ok(None)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Fills it: not one byte more fits. May be repeated as others free some.
    ///
    /// # Errors
    /// When it can't be written for another reason.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = File::options().append(true).create(true).open(self.ballast())?;
        let zeros = vec![0; PIECE_BYTES];
        let mut piece = PIECE_BYTES;
        while piece > 0 {
            match ballast.write(&zeros[..piece]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When it wasn't filled.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }
}

/// The beginning of a command that runs where a filesystem of `mib` MiB is mounted at `point`.
fn inside(point: &Path, mib: u32) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    command.args(["sh", "-c", MOUNT, "sh", &format!("{mib}m")]).arg(point);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}
