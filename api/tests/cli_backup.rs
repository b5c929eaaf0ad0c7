//! `backup`, `backup verify` and `restore` as an operator runs them, on databases of one's own; and
//! whatever an operator may give them that is no good.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod cli_common;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cli_common::{Ran, Scene, ran};
use punchtrail_infra::testing::TestDatabase;
use serde_json::Value;

/// A place for backups, beside the data directory.
struct Backups(tempfile::TempDir);

impl Backups {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("backups")
    }

    fn text(&self) -> String {
        self.dir().to_str().unwrap().to_owned()
    }

    /// The folder of one.
    fn of(&self, made: &Value) -> PathBuf {
        self.dir().join(made["backup"].as_str().unwrap())
    }
}

async fn back_up(scene: &Scene, backups: &Backups, more: &[&str]) -> Value {
    let dir = backups.text();
    let ran = scene.run(&[&["backup", &dir, "--json"], more].concat()).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    ran.json()
}

/// An empty database, and a data directory for it.
struct Elsewhere {
    database: TestDatabase,
    dir: tempfile::TempDir,
}

impl Elsewhere {
    async fn new() -> Self {
        Self { database: TestDatabase::empty().await, dir: tempfile::tempdir().unwrap() }
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        ran(&self.database, Some(self.dir.path()), arguments).await
    }

    async fn close(self) {
        self.database.close().await;
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test]
async fn what_was_backed_up_is_the_same_elsewhere_and_says_that_it_went_back() {
    let mut scene = Scene::new().await;
    scene.punches(3).await;
    scene.checkpoint().await;
    let photos = scene.dir.path().join("photos/ab");
    fs::create_dir_all(&photos).unwrap();
    let photo = punchtrail_protocol::Digest::of(b"a photo").to_string();
    let folder = scene.dir.path().join("photos").join(&photo[..2]);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(&photo[2..]), b"a photo").unwrap();
    fs::write(photos.join("0".repeat(62)), b"another than its name says").unwrap();

    let backups = Backups::new();
    let made = back_up(&scene, &backups, &[]).await;
    assert_eq!(made["database"], "dump");
    assert_eq!((&made["photos"]["count"], &made["damaged_photos"]), (&1.into(), &1.into()));
    // Nobody else may look into it.
    let folder = backups.of(&made);
    for path in files_below(&folder) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{path:?}");
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o077, 0);
    let verified = scene.run(&["backup", "verify", &backups.text(), "--json"]).await;
    assert_eq!(verified.exit, 0, "{verified:?}");
    assert_eq!(verified.json()["backups"][0]["photos"], 1);

    // The second one shares what it can, and what is signed since is ahead of the first.
    scene.punches(2).await;
    scene.checkpoint().await;
    let second = back_up(&scene, &backups, &["--keep", "2"]).await;
    assert!(second["head"].as_u64() > made["head"].as_u64());
    let kept = backups.of(&second).join("photos").join(&photo[..2]).join(&photo[2..]);
    assert_eq!(fs::metadata(kept).unwrap().nlink(), 2);

    let elsewhere = Elsewhere::new().await;
    // The newest checkpoints were kept; the first backup is put back.
    let copied = ["-a", scene.dir.path().join("checkpoints").to_str().unwrap()].map(str::to_owned);
    let to = elsewhere.dir.path().join("checkpoints");
    let status = std::process::Command::new("cp").args(copied).arg(to).status().unwrap();
    assert!(status.success());
    let first = made["backup"].as_str().unwrap();
    let dir = backups.text();
    let restore = ["restore", &dir, "--backup", first, "--no-serve", "--json"];
    let ran = elsewhere.run(&[&restore[..], &["--reason", "a drill"]].concat()).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    let restored = ran.json();
    assert_eq!(restored["position"], made["head"]);
    assert_eq!(restored["kept_checkpoints"], true);
    assert_eq!(restored["checkpoints"]["epoch"], 2);
    assert_eq!(restored["checkpoints"]["after"], made["head"]);
    assert_eq!(restored["checkpoints"]["ahead_through"], second["head"]);
    assert_eq!(restored["photos"], 1);
    let status = elsewhere.run(&["ledger", "status", "--json"]).await.json();
    assert_eq!(status["head"].as_u64().unwrap(), made["head"].as_u64().unwrap() + 1);
    let events = elsewhere.run(&["ledger", "replay", "--json"]).await;
    assert_eq!(events.json()["by_type"]["epoch.Opened"], 1, "{events:?}");
    let shown = elsewhere.run(&["checkpoint", "show", "--json"]).await;
    assert_eq!(shown.exit, 0, "{shown:?}");
    let verified = elsewhere.run(&["ledger", "verify", "--json"]).await;
    assert_eq!(verified.exit, 0, "{verified:?}");
    assert_eq!(verified.json()["checkpoints"]["epochs"][1]["reason"], "a drill");

    // Once more would write over it.
    let again = elsewhere.run(&restore).await;
    assert_eq!(again.exit, 1, "{again:?}");
    assert!(again.stderr.contains("nothing was changed"), "{again:?}");
    elsewhere.close().await;
    scene.close().await;
}

#[tokio::test]
async fn only_so_many_are_kept_and_what_was_interrupted_goes() {
    let mut scene = Scene::new().await;
    scene.punches(1).await;
    let backups = Backups::new();
    let first = back_up(&scene, &backups, &[]).await;
    let interrupted = backups.dir().join("20200101T000000Z.new");
    fs::create_dir(&interrupted).unwrap();
    fs::write(interrupted.join("database.dump"), b"half").unwrap();
    let listed = scene.run(&["backup", "verify", &backups.text(), "--all", "--json"]).await.json();
    assert_eq!(listed["unfinished"], serde_json::json!(["20200101T000000Z.new"]));
    let second = back_up(&scene, &backups, &["--keep", "1"]).await;
    assert_eq!(second["removed"], serde_json::json!([first["backup"]]));
    assert!(!interrupted.exists() && !backups.of(&first).exists());
    let listed = scene.run(&["backup", "verify", &backups.text(), "--all", "--json"]).await.json();
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1);
    scene.close().await;
}

#[tokio::test]
async fn a_folder_that_is_no_good_for_it_is_refused_and_left_as_it_is() {
    let scene = Scene::new().await;
    let backups = Backups::new();
    let refused = async |scene: &Scene, dir: &str, why: &str| {
        let ran = scene.run(&["backup", dir]).await;
        assert_eq!(ran.exit, 1, "{ran:?}");
        assert!(ran.stderr.contains(why), "{ran:?}");
        assert!(ran.stderr.contains("nothing was written"), "{ran:?}");
    };
    let dir = backups.dir();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("letter.txt"), b"dear").unwrap();
    refused(&scene, &backups.text(), "holds other things").await;
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    let inside = scene.dir.path().join("backups");
    refused(&scene, inside.to_str().unwrap(), "is in the data directory").await;
    assert!(!inside.exists());
    fs::remove_file(dir.join("letter.txt")).unwrap();
    let made = back_up(&scene, &backups, &[]).await;
    let other = Scene::new().await;
    refused(&other, &backups.text(), "are of another ledger").await;
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "{made}, its owner, the lock");
    for (scene, arguments) in [(&scene, &["backup"][..]), (&scene, &["backup", "verify"])] {
        assert_eq!(scene.run(arguments).await.exit, 2);
    }
    other.close().await;
    scene.close().await;
}

#[tokio::test]
async fn a_backup_that_is_no_good_is_not_put_back() {
    let mut scene = Scene::new().await;
    scene.punches(2).await;
    scene.checkpoint().await;
    let backups = Backups::new();
    let nothing = scene.run(&["backup", "verify", &backups.text()]).await;
    assert_eq!(nothing.exit, 3, "{nothing:?}");
    let made = back_up(&scene, &backups, &[]).await;
    let (folder, dir) = (backups.of(&made), backups.text());
    let elsewhere = Elsewhere::new().await;
    let refused = async |why: &str| {
        let ran = elsewhere.run(&["restore", &dir, "--no-serve"]).await;
        assert_eq!(ran.exit, 1, "{why}: {ran:?}");
        assert!(ran.stderr.contains(why), "{why}: {ran:?}");
        let status = elsewhere.run(&["ledger", "status"]).await;
        assert!(status.stderr.contains("there is no ledger"), "{why}: {status:?}");
        assert!(!elsewhere.dir.path().join("checkpoints").exists(), "{why}");
    };
    // Altered, half there, gone, more than was written.
    let dump = folder.join("database.dump");
    let whole = fs::read(&dump).unwrap();
    fs::write(&dump, &whole[..whole.len() / 2]).unwrap();
    refused("database.dump was altered, or is half there").await;
    let verified = scene.run(&["backup", "verify", &dir]).await;
    assert_eq!(verified.exit, 1, "{verified:?}");
    assert!(verified.stdout.contains("DAMAGED"), "{verified:?}");
    fs::remove_file(&dump).unwrap();
    refused("database.dump").await;
    fs::write(&dump, &whole).unwrap();
    fs::write(folder.join("stray"), b"?").unwrap();
    refused("stray is there, and no file of it").await;
    fs::remove_file(folder.join("stray")).unwrap();
    // By a newer program.
    let manifest = folder.join("manifest.json");
    let written = fs::read_to_string(&manifest).unwrap();
    let altered = |field: &str, value: Value| {
        let mut object: Value = serde_json::from_str(&written).unwrap();
        object[field] = value;
        fs::write(&manifest, object.to_string()).unwrap();
    };
    altered("schema", 9_999.into());
    refused("was made by a newer Punchtrail (its schema is 9999").await;
    altered("format", 9.into());
    refused("was made by a newer Punchtrail (its format is 9").await;
    altered("database", "cluster".into());
    refused("a copy of a private Postgres").await;
    altered("roles", serde_json::json!(["payroll_export"]));
    refused("payroll_export").await;
    fs::write(&manifest, &written[..written.len() / 2]).unwrap();
    refused("manifest.json can't be read").await;
    fs::remove_file(&manifest).unwrap();
    refused("there is no backup").await;
    fs::write(&manifest, &written).unwrap();
    // Checkpoints of another ledger.
    let other = Scene::new().await;
    other.checkpoint().await;
    let theirs = other.dir.path().join("checkpoints");
    let to = elsewhere.dir.path().join("checkpoints");
    let copied = std::process::Command::new("cp").arg("-a").args([&theirs, &to]).status().unwrap();
    assert!(copied.success());
    let ran = elsewhere.run(&["restore", &dir, "--no-serve"]).await;
    assert!(ran.stderr.contains("of another ledger than the backup"), "{ran:?}");
    other.close().await;
    elsewhere.close().await;
    scene.close().await;
}
