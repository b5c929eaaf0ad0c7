//! What holds the description of the API to the server: tools of Python's and of node's, as
//! processes on this machine, from packages that `./dev test` brings.

use std::{
    env,
    ffi::OsString,
    iter,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{
    brought::{PYTHONS, brought},
    not_run,
};

/// Names the folder of the Python packages.
const PACKAGES: &str = "PUNCHTRAIL_TEST_OPENAPI";
/// Where `./dev` brings them to, in the target directory. The version is Schemathesis's, which is
/// also in `.ci/openapi.txt`.
const PACKAGES_TO: &str = "tools/openapi-4.32.5";
/// Names the folder of node's packages.
const MODULES: &str = "PUNCHTRAIL_TEST_OPENAPI_TYPESCRIPT";
/// Where `./dev` brings them to. The version is openapi-typescript's, which is also in
/// `.ci/openapi-typescript`.
const MODULES_TO: &str = "tools/openapi-typescript-7.13.0";

/// Schemathesis, openapi-spec-validator and openapi-python-client.
#[derive(Debug)]
pub struct OpenApiTools {
    packages: PathBuf,
    python: &'static str,
}

impl OpenApiTools {
    /// Those that `./dev` brought; none where this machine has none, which is then said.
    ///
    /// # Panics
    /// Under `CI`, when there are none.
    #[track_caller]
    pub fn brought() -> Option<Self> {
        let packages = brought(PACKAGES, PACKAGES_TO);
        let python = PYTHONS.into_iter().find(|python| runs(python));
        match python.filter(|_| packages.is_dir()) {
            Some(python) => Some(Self { packages, python }),
            None => {
                not_run(format_args!(
                    "there is no Schemathesis in {}, or no python3: `./dev setup` brings it, or \
                     {PACKAGES} names it",
                    packages.display()
                ));
                None
            }
        }
    }

    /// Python, to be given arguments: it finds the packages, their programs, and what is in the
    /// further folders. It writes nothing beside its sources.
    ///
    /// # Panics
    /// If a folder's name can't be in a list of folders.
    pub fn python(&self, further: &[&Path]) -> Command {
        let mut python = Command::new(self.python);
        let folders = iter::once(self.packages.as_path()).chain(further.iter().copied());
        python
            .env("PYTHONPATH", list(folders.map(Path::to_path_buf)))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PATH", with_programs(&self.packages.join("bin")))
            .stdin(Stdio::null());
        python
    }
}

/// openapi-typescript, openapi-fetch and the TypeScript compiler.
#[derive(Debug)]
pub struct TypeScript {
    home: PathBuf,
}

impl TypeScript {
    /// Those that `./dev` brought; none where this machine has none, which is then said.
    ///
    /// # Panics
    /// Under `CI`, when there are none.
    #[track_caller]
    pub fn brought() -> Option<Self> {
        let home = brought(MODULES, MODULES_TO);
        if home.is_dir() && runs("node") {
            return Some(Self { home });
        }
        not_run(format_args!(
            "there is no openapi-typescript in {}, or no node: `./dev setup` brings it where npm \
             is, or {MODULES} names it",
            home.display()
        ));
        None
    }

    /// Where the modules are, to be linked to from where they are imported.
    pub fn modules(&self) -> PathBuf {
        self.home.join("node_modules")
    }

    /// One of the packages' programs, to be given arguments.
    ///
    /// # Panics
    /// If a folder's name can't be in a list of folders.
    pub fn program(&self, name: &str) -> Command {
        let programs = self.modules().join(".bin");
        let mut program = Command::new(programs.join(name));
        program.stdin(Stdio::null());
        program
    }

    /// Node itself, to be given arguments.
    pub fn node(&self) -> Command {
        let mut node = Command::new("node");
        node.stdin(Stdio::null());
        node
    }
}

/// Runs it to its end, or ends it when nobody waits any more; gives what it printed.
///
/// # Errors
/// When it can't be started, isn't done within that time, or fails: with what it said.
pub async fn finished(command: Command, within: Duration) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let ran = command.kill_on_drop(true).output();
    let ran = tokio::time::timeout(within, ran).await;
    let ran = ran.with_context(|| format!("not done within {within:?}: {name}"))?;
    let ran = ran.with_context(|| format!("not started: {name}"))?;
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success(), "{} of {name}\n{out}\n{err}", ran.status);
    Ok(out.into_owned())
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn with_programs(folder: &Path) -> OsString {
    let rest = env::var_os("PATH").unwrap_or_default();
    list(iter::once(folder.to_path_buf()).chain(env::split_paths(&rest)))
}

#[expect(clippy::expect_used, reason = "for tests only")]
fn list(folders: impl Iterator<Item = PathBuf>) -> OsString {
    env::join_paths(folders).expect("a folder's name has a colon")
}
