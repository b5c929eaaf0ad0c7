//! The served description is one that others' tools read: it is valid, and clients in Python and
//! TypeScript that are made from it call the real server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use common::House;
use punchtrail_protocol::{PunchId, SiteId, capture::PunchKind};
use punchtrail_testkit::{OpenApiTools, TypeScript, finished};
use serde_json::Value;
use tempfile::TempDir;

/// More than any of the tools takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// What takes no JSON, which openapi-python-client knows nothing else of.
const NOT_IN_PYTHON: [&str; 3] = ["import_employees", "put_face_reference", "put_photo"];

/// A house with a punch in it, and its description in a folder.
struct Described {
    house: House,
    site: SiteId,
    punch: PunchId,
    folder: TempDir,
}

impl Described {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let employee = house.employee(site, "B1", "Ada").await;
        let mut device = house.device(site).await;
        let capture = device.capture(employee, PunchKind::In);
        let item = device.item(&capture);
        assert_eq!(house.deliver(&device, &[item]).await.outcomes(), ["applied"]);
        house.settled().await;
        let folder = tempfile::tempdir().unwrap();
        let served = house.get("/openapi.json", None).await;
        fs::write(folder.path().join("openapi.json"), &served.bytes).unwrap();
        Self { house, site, punch: capture.punch, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("openapi.json")
    }

    /// Every operation, as Python would call it.
    fn operations(&self) -> BTreeSet<String> {
        let text = fs::read(self.path()).unwrap();
        let description: Value = serde_json::from_slice(&text).unwrap();
        let paths = description["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|path| path.as_object().unwrap().values());
        operations.map(|of| snake_case(of["operationId"].as_str().unwrap())).collect()
    }

    /// What a client's program is told, as its arguments.
    fn told(&self) -> [String; 4] {
        let address = format!("http://{}", self.house.address);
        [address, self.house.key.clone(), self.site.to_string(), self.punch.to_string()]
    }

    /// Whoever the client took on, whose id it printed, is there.
    async fn took_on(self, said: &str, name: &str) {
        let hired = self.house.read(&format!("/v1/employees/{}", said.trim())).await;
        assert_eq!(hired.body["name"], name, "{said}: {}", hired.text);
        self.house.close().await;
    }
}

fn snake_case(name: &str) -> String {
    let letters = name.chars().flat_map(|letter| {
        let before = letter.is_ascii_uppercase().then_some('_');
        before.into_iter().chain([letter.to_ascii_lowercase()])
    });
    letters.collect()
}

/// The names of the modules in the folders of a folder.
fn modules(folder: &Path) -> BTreeSet<String> {
    let entries = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries(folder).filter(|path| path.is_dir());
    let files = folders.flat_map(|path| entries(&path));
    files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_valid() {
    let Some(tools) = OpenApiTools::brought() else { return };
    let described = Described::new().await;
    let mut validator = tools.python(&[]);
    validator.args(["-m", "openapi_spec_validator"]).arg(described.path());
    let said = finished(validator, PATIENCE).await.unwrap();
    assert!(said.contains("OK"), "{said}");
    let mut examples = tools.python(&[]);
    examples.arg(program("examples.py")).arg(described.path());
    finished(examples, PATIENCE).await.unwrap();
    described.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_is_made_from_it_and_calls_the_server() {
    let Some(tools) = OpenApiTools::brought() else { return };
    let described = Described::new().await;
    let mut maker = tools.python(&[]);
    maker
        .args(["-m", "openapi_python_client", "generate", "--meta", "none"])
        .arg("--output-path")
        .arg(described.folder.path().join("punchtrail"))
        .arg("--path")
        .arg(described.path());
    finished(maker, PATIENCE).await.unwrap();
    let made = modules(&described.folder.path().join("punchtrail/api"));
    let left_out: Vec<_> = described.operations().difference(&made).cloned().collect();
    assert_eq!(left_out, NOT_IN_PYTHON, "operations that the client can't call");
    let mut client = tools.python(&[described.folder.path()]);
    client.arg(program("client.py")).args(described.told());
    let said = finished(client, PATIENCE).await.unwrap();
    described.took_on(&said, "Grace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_typescript_is_made_from_it_and_calls_the_server() {
    let Some(tools) = TypeScript::brought() else { return };
    let described = Described::new().await;
    let folder = described.folder.path();
    std::os::unix::fs::symlink(tools.modules(), folder.join("node_modules")).unwrap();
    fs::write(folder.join("package.json"), r#"{"type": "module"}"#).unwrap();
    fs::copy(program("client.ts"), folder.join("client.ts")).unwrap();
    let mut maker = tools.program("openapi-typescript");
    maker.arg(described.path()).arg("--output").arg(folder.join("openapi.ts"));
    finished(maker, PATIENCE).await.unwrap();
    let mut compiler = tools.program("tsc");
    compiler
        .current_dir(folder)
        .args(["--strict", "--noUncheckedIndexedAccess", "--target", "es2022"])
        .args(["--module", "nodenext", "client.ts"]);
    finished(compiler, PATIENCE).await.unwrap();
    let mut client = tools.node();
    client.arg(folder.join("client.js")).args(described.told());
    let said = finished(client, PATIENCE).await.unwrap();
    described.took_on(&said, "Grace").await;
}
