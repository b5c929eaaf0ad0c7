//! A ledger with a device's captures in it, and the binary run on it as an operator runs it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and fails where it fails"
)]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use ed25519_dalek::SigningKey;
use punchtrail_infra::{
    access::deployment::Deployment,
    audit::checkpoint::{Checkpoints, Folder},
    devices::enrolment::{self, Enrolment},
    ledger::{DeliveryItem, Ledger},
    postgres::Pools,
    testing::{
        TestDatabase, sqlx,
        world::{Kiosk, NOON_MS},
    },
};
use punchtrail_protocol::{
    OrgId, PunchId, SiteId, Time,
    capture::Capture,
    signing::{PublicKey, to_base64url},
    vocabulary::QuarantineCode,
    wire::BatchItem,
};
use punchtrail_testkit::Chain;
use serde_json::Value;
use sqlx::{ConnectOptions, Connection};
use uuid::Uuid;

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Ran {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The one object that `--json` gives.
    pub fn json(&self) -> Value {
        let mut objects = serde_json::Deserializer::from_str(&self.stdout).into_iter::<Value>();
        let object = objects.next().unwrap_or_else(|| panic!("no object: {self:?}")).unwrap();
        assert!(objects.next().is_none(), "more than one object: {self:?}");
        assert!(object.is_object(), "{self:?}");
        object
    }
}

/// A database of the test's own, with a device enrolled at a site.
pub struct Scene {
    pub database: TestDatabase,
    pub pools: Pools,
    pub ledger: Ledger,
    pub dir: tempfile::TempDir,
    pub org: OrgId,
    pub kiosk: Kiosk,
}

impl Scene {
    pub async fn new() -> Self {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let ledger = Ledger::open(pools.writer.clone()).await.unwrap();
        let org = Deployment::open(&pools.writer).await.unwrap().org;
        let site = SiteId(Uuid::from_u128(77));
        let key = SigningKey::from_bytes(&[7; 32]);
        let code = enrolment::make_code(&pools.writer, site).await.unwrap();
        let enrolment = Enrolment {
            code: code.shown().replace('-', ""),
            name: "front door".to_owned(),
            key: PublicKey::from(&key),
            app: "test".to_owned(),
        };
        let device = enrolment::enroll(&ledger, org, enrolment).await.unwrap().device;
        let dir = tempfile::tempdir().unwrap();
        let mut chain = Chain::new(org, site, device, key);
        chain.next.captured_at = Time::from_millis(NOON_MS);
        Self { database, pools, ledger, dir, org, kiosk: Kiosk::new(chain) }
    }

    pub async fn close(self) {
        self.ledger.close().await;
        self.pools.close().await;
        self.database.close().await;
    }

    /// The device's next capture.
    pub fn capture(&mut self) -> Capture {
        self.kiosk.capture_with(|capture| {
            let minutes = i64::try_from(capture.seq).unwrap();
            capture.captured_at = capture.captured_at.plus_millis(minutes * 60_000 - 3_600_000);
        })
    }

    /// Something that can't be taken as a punch.
    pub fn garbage(&self, text: &str) -> DeliveryItem {
        let raw = BatchItem { capture: to_base64url(text.as_bytes()), signature: "AA".to_owned() };
        DeliveryItem::quarantine(raw, QuarantineCode::BadSignature, None, None, None)
    }

    pub async fn deliver(&self, items: Vec<DeliveryItem>) {
        self.ledger.deliver(self.kiosk.delivery(items)).await.unwrap();
    }

    /// Delivers that many captures, and gives their punches.
    pub async fn punches(&mut self, count: usize) -> Vec<PunchId> {
        let captures: Vec<Capture> = (0..count).map(|_| self.capture()).collect();
        self.deliver(captures.iter().map(|capture| self.kiosk.item(capture)).collect()).await;
        captures.iter().map(|capture| capture.punch).collect()
    }

    /// Signs everything that is there.
    pub async fn checkpoint(&self) {
        let folder = Folder::open(self.dir.path(), self.org).unwrap();
        let checkpoints = Checkpoints::new(self.pools.writer.clone(), folder.into());
        checkpoints.advance().await.unwrap();
    }

    /// Does what no role of ours may: as the superuser, with the triggers off. No server runs
    /// meanwhile, nor any more: it would notice, and say so in the ledger.
    pub async fn tamper(&self, statements: &str) {
        self.ledger.close().await;
        self.tamper_beside_a_server(statements).await;
    }

    /// The same, and the server goes on.
    pub async fn tamper_beside_a_server(&self, statements: &str) {
        let mut superuser = self.database.owner_options().connect().await.unwrap();
        let statements = format!(
            "begin; alter table events disable trigger all; {statements}; \
             alter table events enable always trigger events_append_only; \
             alter table events enable always trigger events_no_truncate; commit"
        );
        sqlx::raw_sql(&statements).execute(&mut superuser).await.unwrap();
        superuser.close().await.unwrap();
    }

    /// Runs the binary on this database.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        ran(&self.database, Some(self.dir.path()), arguments).await
    }

    /// A file in the scene's folder.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Runs the binary on a database, with a data directory or without.
pub async fn ran(database: &TestDatabase, data_dir: Option<&Path>, arguments: &[&str]) -> Ran {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"));
    command.args(arguments).env("DATABASE_URL", database.url()).env_remove("RUST_LOG");
    if let Some(dir) = data_dir {
        command.env("PUNCHTRAIL_DATA_DIR", dir);
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    Ran {
        exit: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
