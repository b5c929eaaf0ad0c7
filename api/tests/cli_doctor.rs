//! `punchtrail doctor` on data that is well, and on data that isn't.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod cli_common;

use std::os::unix::fs::PermissionsExt as _;

use cli_common::{Ran, Scene};
use punchtrail_infra::testing::sqlx;

/// What was found of one thing, its states.
fn states(ran: &Ran, check: &str) -> Vec<String> {
    let object = ran.json();
    let checks = object["checks"].as_array().unwrap();
    let of_it = checks.iter().filter(|one| one["check"] == check);
    of_it.map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

/// What is wrong.
fn wrong(ran: &Ran) -> Vec<String> {
    let object = ran.json();
    let checks = object["checks"].as_array().unwrap();
    let wrong = checks.iter().filter(|one| one["state"] == "wrong");
    wrong.map(|one| one["check"].as_str().unwrap().to_owned()).collect()
}

fn cured(ran: &Ran) {
    for check in ran.json()["checks"].as_array().unwrap() {
        if check["state"] == "wrong" && check["check"] != "database" {
            assert!(check["cure"].is_string(), "{check}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_cure_and_changes_nothing() {
    let mut scene = Scene::new().await;
    scene.punches(2).await;
    scene.checkpoint().await;
    let head = scene.ledger.head().await.unwrap();
    scene.run(&["key", "new", "--name", "for ever"]).await;
    let ill = scene.run(&["doctor", "--json", "--listen", "0.0.0.0:8080"]).await;
    assert_eq!(ill.exit, 1, "{ill:?}");
    cured(&ill);
    for check in ["listening", "devices", "keys"] {
        assert_eq!(states(&ill, check), ["wrong"], "{check}: {ill:?}");
    }
    for check in ["files", "checkpoint", "database", "schema"] {
        assert_eq!(states(&ill, check), ["ok"], "{check}: {ill:?}");
    }
    assert_eq!(states(&ill, "backup"), ["note"]);
    assert_eq!(states(&ill, "read models"), ["note"], "no server ran yet");

    // Each cure cures.
    scene.run(&["key", "revoke", "for ever"]).await;
    scene.run(&["device", "revoke", "front door"]).await;
    let backups = scene.dir.path().join("backups");
    std::fs::create_dir(&backups).unwrap();
    std::fs::write(backups.join("dump"), "x").unwrap();
    let well = ["doctor", "--json", "--backups", backups.to_str().unwrap()];
    let well = scene.run(&well).await;
    for check in ["listening", "keys", "backup"] {
        assert_eq!(states(&well, check), ["ok"], "{check}: {well:?}");
    }
    // What the machine itself may lack is no matter of this test's.
    let left = wrong(&well);
    let of_machine = ["disk", "time zones"];
    assert!(left.iter().all(|check| of_machine.contains(&check.as_str())), "{well:?}");
    assert_eq!(
        (well.exit == 0, &well.json()["healthy"]),
        (left.is_empty(), &left.is_empty().into())
    );

    let key = scene.dir.path().join("checkpoints/key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = scene.run(&["doctor"]).await;
    assert_eq!(open.exit, 1);
    assert!(open.stdout.contains("→ chmod 600") && open.stdout.contains("WRONG"), "{open:?}");
    let empty = tempfile::tempdir().unwrap();
    let none = scene.run(&["doctor", "--json", "--backups", empty.path().to_str().unwrap()]).await;
    assert_eq!(states(&none, "backup"), ["wrong"]);
    let now = scene.ledger.head().await.unwrap();
    assert_eq!(now.0, head.0 + 1, "only what was revoked is an event");
    scene.close().await;
}

#[tokio::test]
async fn another_schema_and_a_database_that_forgets_are_found() {
    let scene = Scene::new().await;
    sqlx::query(
        "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)",
    )
    .execute(&scene.pools.owner)
    .await
    .unwrap();
    let older = scene.run(&["doctor", "--json"]).await;
    assert_eq!((older.exit, states(&older, "schema")), (1, vec!["wrong".to_owned()]), "{older:?}");
    assert!(older.stdout.contains("older than this program, by 1 step"), "{older:?}");
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (999999, 'of tomorrow', true, '', 0)",
    )
    .execute(&scene.pools.owner)
    .await
    .unwrap();
    let newer = scene.run(&["doctor", "--json"]).await;
    assert!(newer.stdout.contains("of a newer version"), "{newer:?}");
    let nowhere = ["doctor", "--json", "--database-url", "postgres://x@127.0.0.1:1/x"];
    let nowhere = scene.run(&[&nowhere[..], &["--database-wait", "0"]].concat()).await;
    assert_eq!(states(&nowhere, "database"), ["wrong"], "{nowhere:?}");
    let url = scene.database.url();
    let joint = if url.contains('?') { '&' } else { '?' };
    let forgetful = format!("{url}{joint}options=-c%20synchronous_commit%3Doff");
    let off = scene.run(&["doctor", "--json", "--database-url", &forgetful]).await;
    assert_eq!(states(&off, "database"), ["wrong"], "{off:?}");
    assert!(off.stdout.contains("synchronous_commit = off"), "{off:?}");
    scene.close().await;
}

#[tokio::test]
async fn a_certificate_is_looked_at() {
    let scene = Scene::new().await;
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");
    let (cert, key) = (format!("{files}/first.pem"), format!("{files}/first.key"));
    let tls = ["doctor", "--json", "--listen", "0.0.0.0:8443", "--tls-cert", &cert];
    let good = scene.run(&[&tls[..], &["--tls-key", &key]].concat()).await;
    assert_eq!(states(&good, "listening"), ["ok"], "{good:?}");
    assert_eq!(states(&good, "certificate"), ["ok"], "{good:?}");
    let missing = scene.run(&[&tls[..], &["--tls-key", "gone.key"]].concat()).await;
    assert_eq!(states(&missing, "certificate"), ["wrong"], "{missing:?}");
    scene.close().await;
}
