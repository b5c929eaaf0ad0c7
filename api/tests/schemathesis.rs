//! Schemathesis over the whole description: requests that it makes up, of which the description
//! allows some and forbids others, and answers that are held to it. As whoever may do a thing, as
//! an admin, as a device and as nobody, against a server that has one of everything.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod callers;
mod common;
mod filled;
mod provider;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use filled::Filled;
use punchtrail_testkit::{OpenApiTools, finished};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The same requests in each run.
const SEED: &str = "20261126";
/// More than a run takes on a busy machine, beyond the time that it is given.
const PATIENCE: Duration = Duration::from_secs(600);
/// For how long to go on, in seconds, as each caller: `./dev fuzz api` says it.
const SECONDS: &str = "PUNCHTRAIL_TEST_API_SECONDS";
/// Who asks, how many requests are made up for each operation, and in which ways: an owner has what
/// each operation asks for, the others their own credentials everywhere.
const CALLERS: [(&str, &str, &str); 4] = [
    ("owner", "12", "examples,coverage,fuzzing"),
    ("operator_key", "2", "fuzzing"),
    ("device_token", "2", "fuzzing"),
    ("nobody", "2", "fuzzing"),
];
/// Who asks, too, where there is time.
const ROLES: [&str; 3] = ["manager", "auditor", "payroll"];
/// What no caller does with success, and why.
const NEVER: [(&str, &str); 0] = [];

/// Where hooks and settings are.
fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis")
}

struct Session {
    tools: OpenApiTools,
    filled: Filled,
    folder: TempDir,
}

impl Session {
    async fn run(&self, caller: &str, examples: &str, phases: &str) {
        let told = json!({"caller": caller, "given": self.filled.given});
        fs::write(self.folder.path().join("told.json"), told.to_string()).unwrap();
        let mut command = self.tools.python(&[&home()]);
        command
            .current_dir(self.folder.path())
            .args(["-m", "schemathesis.cli", "--config-file"])
            .arg(home().join("schemathesis.toml"))
            .arg("run")
            .arg(format!("http://{}/openapi.json", self.filled.house.address));
        let mut patience = PATIENCE;
        match variable(SECONDS) {
            Some(seconds) => {
                patience += Duration::from_secs(2 * seconds.parse::<u64>().unwrap());
                command.args(["--max-time", &seconds]);
                let seed = variable("PUNCHTRAIL_SEED");
                command.args(seed.iter().flat_map(|seed| ["--seed", seed.as_str()]));
            }
            None => {
                command.args(["--seed", SEED, "--max-examples", examples, "--phases", phases]);
            }
        }
        let said = finished(command, patience).await;
        let said = said.unwrap_or_else(|error| panic!("as {caller}: {error:#}"));
        println!("as {caller}:\n{said}");
    }

    /// The operations that were done: `METHOD /path STATUS` is a line of each answer.
    fn done(&self) -> BTreeSet<String> {
        let answers = fs::read_to_string(self.folder.path().join("answers")).unwrap();
        let lines = answers.lines().filter_map(|line| line.rsplit_once(' '));
        let done = lines.filter(|(_, status)| status.starts_with('2') || *status == "303");
        let by_hand = self.filled.given.called.iter().cloned();
        done.map(|(operation, _)| operation.to_owned()).chain(by_hand).collect()
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn operations(description: &Value) -> BTreeSet<String> {
    let paths = description["paths"].as_object().unwrap();
    let methods = paths.iter().flat_map(|(path, methods)| {
        let names = methods.as_object().unwrap().keys();
        names.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    methods.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_description_says() {
    let Some(tools) = OpenApiTools::brought() else { return };
    let (filled, folder) = (Filled::new().await, tempfile::tempdir().unwrap());
    let session = Session { tools, filled, folder };
    for (caller, examples, phases) in CALLERS {
        session.run(caller, examples, phases).await;
    }
    if variable(SECONDS).is_some() {
        for role in ROLES {
            session.run(role, "", "").await;
        }
    }
    let all = operations(&session.filled.house.get("/openapi.json", None).await.body);
    let never: BTreeSet<_> = NEVER.iter().map(|(operation, _)| (*operation).to_owned()).collect();
    let undone: BTreeSet<_> = &all - &session.done();
    assert_eq!(undone, never, "operations that nobody did with success");
    session.filled.close().await;
}
