//! People and keys, as the binary makes them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod cli_common;

use cli_common::Scene;
use punchtrail_infra::access::{links, passwords, trail::Doer};

#[tokio::test]
async fn admins_come_in_by_a_link_and_users_by_theirs() {
    let scene = Scene::new().await;
    let writer = &scene.pools.writer;
    let run = async |arguments: &[&str]| scene.run(&[arguments, &["--json"]].concat()).await;
    let added = run(&["site", "add", "--name", "Mill", "--tz", "Europe/Berlin"]).await;
    assert_eq!(added.exit, 0, "{added:?}");
    let first = run(&["admin", "link", "--at", "https://clock.example/"]).await;
    assert_eq!(first.exit, 0, "{first:?}");
    let first = first.json();
    let link = first["link"].as_str().unwrap();
    let token = first["token"].as_str().unwrap().to_owned();
    assert_eq!(link, format!("https://clock.example/welcome#{token}"));
    let second = run(&["admin", "link"]).await.json();
    assert_eq!(first["user"], second["user"]);
    assert!(links::whose(writer, &token).await.is_err(), "the last one is void");
    let phc = passwords::hash("three doors, one key").unwrap();
    let token = second["token"].as_str().unwrap();
    links::accept(writer, token, &phc, &Doer::default()).await.unwrap();

    let invited = run(&[
        "user",
        "invite",
        "mo@example.org",
        "--name",
        "Mo",
        "--role",
        "manager",
        "--sites",
        "Mill",
    ])
    .await;
    assert_eq!(invited.exit, 0, "{invited:?}");
    let user = invited.json()["user"].as_str().unwrap().to_owned();
    for wrong in [
        &["user", "invite", "x@example.org", "--role", "manager"][..],
        &["user", "invite", "x@example.org", "--role", "payroll", "--sites", "Mill"],
        &["user", "invite", "mo@example.org", "--role", "payroll"],
        &["user", "role", "admin", "payroll"],
        &["user", "disable", "admin"],
        &["user", "erase", "admin"],
        &["user", "link", "nobody@example.org"],
        &["admin", "link", "--login", "mo@example.org"],
        &["key", "new", "--scope", "punches:read", "--expires", "2020-01-01T00:00:00Z"],
    ] {
        let ran = run(wrong).await;
        assert_eq!(ran.exit, 1, "{wrong:?}: {ran:?}");
    }
    let nonsense = run(&["key", "new", "--scope", "everything"]).await;
    assert_eq!(nonsense.exit, 2, "{nonsense:?}");
    for (arguments, exit) in [
        (&["user", "role", &user, "auditor"][..], 0),
        (&["user", "disable", "mo@example.org"], 0),
        (&["user", "disable", "mo@example.org", "--undo"], 0),
        (&["user", "sessions", "mo@example.org"], 0),
        (&["user", "sessions", "mo@example.org", "--end"], 0),
        (&["user", "tie", "mo@example.org", "--nobody"], 0),
        (&["user", "tie", "mo@example.org"], 2),
        (&["user", "erase", "mo@example.org"], 0),
        (&["user", "disable", &user], 1),
    ] {
        let ran = run(arguments).await;
        assert_eq!(ran.exit, exit, "{arguments:?}: {ran:?}");
    }
    let users = run(&["user", "list"]).await;
    assert!(!users.stdout.contains("mo@example.org"), "{users:?}");
    assert_eq!(users.json()["users"].as_array().unwrap().len(), 2);

    let key = run(&[
        "key",
        "new",
        "--name",
        "payroll",
        "--scope",
        "timecards:read,names:read",
        "--sites",
        "Mill",
        "--expires",
        "2999-01-01T00:00:00Z",
    ])
    .await
    .json();
    assert_eq!(key["scopes"].as_array().unwrap().len(), 2, "{key}");
    let listed = run(&["key", "list"]).await.json();
    assert_eq!(listed["keys"][0]["expires_at"], "2999-01-01T00:00:00.000Z", "{listed}");
    let revoked = run(&["key", "revoke", key["id"].as_str().unwrap()]).await;
    assert_eq!(revoked.exit, 0, "{revoked:?}");
    let trail = run(&["audit", "list", "--act", "role_changed"]).await.json();
    let lines = trail["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]["actor"]), (1, &"command_line".into()), "{trail}");
    scene.checkpoint().await;
    let verified = run(&["ledger", "verify"]).await;
    assert_eq!(verified.exit, 0, "{verified:?}");
    scene.close().await;
}
