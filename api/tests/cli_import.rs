//! `employee import` and what an operator does around it, on a real database.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod cli_common;

use cli_common::{Ran, Scene};
use punchtrail_infra::testing::sqlx;
use serde_json::{Value, json};
use sqlx::Row;

async fn add_site(scene: &Scene, name: &str) -> String {
    let ran = scene.run(&["site", "add", "--name", name, "--tz", "Europe/Berlin", "--json"]).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    ran.json()["site"].as_str().unwrap().to_owned()
}

async fn import(scene: &Scene, text: &str) -> Ran {
    let file = scene.file("roster.csv", text);
    scene.run(&["employee", "import", file.to_str().unwrap(), "--json"]).await
}

fn counts(ran: &Ran) -> Value {
    assert_eq!(ran.exit, 0, "{ran:?}");
    let object = ran.json();
    let counts = ["imported", "created", "updated", "unchanged", "rows"];
    counts.iter().map(|count| ((*count).to_owned(), object[*count].clone())).collect()
}

async fn entry(scene: &Scene, badge: &str) -> (String, Option<String>, Option<String>) {
    let row = sqlx::query(
        "select name, pin_phc, external_id from employee_directory join badge_holdings held \
             using (employee) where held.number = $1 and held.held_until is null",
    )
    .bind(badge)
    .fetch_one(&scene.pools.writer)
    .await
    .unwrap();
    (row.get(0), row.get(1), row.get(2))
}

async fn employee_events(scene: &Scene) -> Vec<String> {
    sqlx::query_scalar(
        "select payload::text from events where aggregate_type = 'employee' order by position",
    )
    .fetch_all(&scene.pools.writer)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_roster_is_imported_once_however_often_it_is_sent() {
    let scene = Scene::new().await;
    let mill = add_site(&scene, "Mill").await;
    let text = format!("badge,name,pin,site,external_id\n17,Ada,1234,Mill,E-1\n18,Bo,,{mill},\n");
    let first = counts(&import(&scene, &text).await);
    assert_eq!(first, json!({"imported":2,"created":2,"updated":0,"unchanged":0,"rows":2}));
    let (name, phc, external_id) = entry(&scene, "17").await;
    assert_eq!((name.as_str(), external_id.as_deref()), ("Ada", Some("E-1")));
    assert!(phc.as_ref().unwrap().starts_with("$argon2id$"));
    let events = employee_events(&scene).await;
    assert!(!events.iter().any(|event| event.contains("Ada") || event.contains("1234")));
    let again = counts(&import(&scene, &text).await);
    assert_eq!(again, json!({"imported":0,"created":0,"updated":0,"unchanged":2,"rows":2}));
    assert_eq!(entry(&scene, "17").await.1, phc, "an unchanged PIN keeps its string");
    assert_eq!(employee_events(&scene).await, events);
    scene.close().await;
}

#[tokio::test]
async fn what_changed_is_written_and_said_without_values() {
    let scene = Scene::new().await;
    add_site(&scene, "Mill").await;
    add_site(&scene, "Hill").await;
    import(&scene, "badge,name,pin,site,external_id\n17,Ada,1234,Mill,E-1\n18,Bo,,Mill,\n").await;
    let before = employee_events(&scene).await.len();
    let changed = "badge,name,pin,site,external_id\n20,Ada,9999,Hill,E-1\n18,Bo,,Mill,E-2\n";
    let ran = import(&scene, changed).await;
    assert_eq!(counts(&ran)["updated"], 2, "{ran:?}");
    assert!(ran.json()["warnings"][0]["what"].as_str().unwrap().contains("17"), "{ran:?}");
    let events = employee_events(&scene).await;
    let kinds: Vec<&str> =
        events[before..].iter().map(|event| event.split('"').nth(1).unwrap()).collect();
    assert_eq!(kinds, ["DirectoryChanged", "AssignedToSite", "BadgeIssued", "DirectoryChanged"]);
    assert!(events[before].contains(r#"["pin"]"#) && !events.iter().any(|e| e.contains("\"20\"")));
    assert_eq!(entry(&scene, "20").await.0, "Ada");
    // An import takes no badge away: 17 is still hers, until somebody says otherwise.
    let taken = import(&scene, "badge,name,pin,site\n17,Cy,,Mill\n").await;
    assert_eq!(taken.exit, 1, "{taken:?}");
    assert!(taken.stderr.contains("Ada"), "{taken:?}");
    let lost = scene.run(&["employee", "badge", "lost", "E-1", "17", "--json"]).await;
    assert_eq!(lost.exit, 0, "{lost:?}");
    let ran = counts(&import(&scene, "badge,name,pin,site\n17,Cy,,Mill\n").await);
    assert_eq!(ran["created"], 1);
    assert_eq!(scene.run(&["ledger", "verify"]).await.exit, 0);
    scene.close().await;
}

#[tokio::test]
async fn badges_that_swap_owners_within_one_file_are_no_conflict() {
    let scene = Scene::new().await;
    add_site(&scene, "Mill").await;
    import(&scene, "badge,name,pin,site,external_id\n17,Ada,,Mill,E-1\n18,Bo,,Mill,E-2\n").await;
    let swapped = "badge,name,pin,site,external_id\n18,Ada,,Mill,E-1\n17,Bo,,Mill,E-2\n";
    assert_eq!(import(&scene, swapped).await.exit, 1, "nobody said that they changed hands");
    let file = scene.file("swapped.csv", swapped);
    let reissue =
        ["employee", "import", file.to_str().unwrap(), "--reissue", "2026-03-02", "--json"];
    assert_eq!(counts(&scene.run(&reissue).await)["updated"], 2);
    assert_eq!(entry(&scene, "17").await.0, "Bo");
    assert_eq!(counts(&scene.run(&reissue).await)["unchanged"], 2);
    assert_eq!(scene.run(&["ledger", "verify"]).await.exit, 0);
    scene.close().await;
}

#[tokio::test]
async fn one_faulty_row_stops_all_and_every_faulty_row_is_named() {
    let scene = Scene::new().await;
    add_site(&scene, "Mill").await;
    let text = "badge,name,pin,site\n17,Ada,12,Mill\n18,Bo,1234,Mill\n18,Cy,1234,Mill\n";
    let ran = import(&scene, text).await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    let rows: Vec<u64> = ran.json()["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["row"].as_u64().unwrap())
        .collect();
    assert_eq!(rows, [2, 4]);
    assert!(ran.stderr.contains("row 4: `badge` stands in row 3 already"), "{ran:?}");
    let elsewhere = import(&scene, "badge,name,pin,site\n17,Ada,,Mill\n18,Bo,,Hill\n").await;
    assert_eq!(elsewhere.exit, 1);
    assert_eq!(elsewhere.json()["rows"][0]["row"], 3, "{elsewhere:?}");
    assert!(employee_events(&scene).await.is_empty());
    let entries: i64 = sqlx::query_scalar("select count(*) from employee_directory")
        .fetch_one(&scene.pools.writer)
        .await
        .unwrap();
    assert_eq!(entries, 0);
    scene.close().await;
}

#[tokio::test]
async fn thousands_are_one_append() {
    let scene = Scene::new().await;
    add_site(&scene, "Mill").await;
    let rows: String = (0..5_000).map(|n| format!("{n},Worker {n},,Mill\n")).collect();
    let ran = counts(&import(&scene, &format!("badge,name,pin,site\n{rows}")).await);
    assert_eq!(ran["created"], 5_000);
    let transactions: i64 = sqlx::query_scalar(
        "select count(distinct recorded_at) from events where aggregate_type = 'employee'",
    )
    .fetch_one(&scene.pools.writer)
    .await
    .unwrap();
    assert_eq!(transactions, 1);
    assert_eq!(scene.run(&["ledger", "verify"]).await.exit, 0);
    scene.close().await;
}

#[tokio::test]
async fn sites_keys_and_codes_are_made_and_listed() {
    let scene = Scene::new().await;
    let mill = add_site(&scene, "Mill").await;
    let again = scene.run(&["site", "add", "--name", "Mill", "--tz", "UTC"]).await;
    assert_eq!(again.exit, 1);
    assert!(again.stderr.contains("already; nothing was changed"), "{again:?}");
    let sites = scene.run(&["site", "list", "--json"]).await.json();
    assert_eq!(sites["sites"], json!([{"site": mill, "name": "Mill", "tz": "Europe/Berlin"}]));
    let key = scene.run(&["key", "new", "--name", "payroll", "--json"]).await.json();
    assert!(key["key"].as_str().unwrap().starts_with("ptk_"));
    let id = key["id"].as_str().unwrap();
    assert_eq!(scene.run(&["key", "revoke", id]).await.exit, 0);
    let keys = scene.run(&["key", "list", "--json"]).await;
    assert!(!keys.stdout.contains("ptk_"), "{keys:?}");
    assert!(keys.json()["keys"][0]["revoked_at"].is_string());
    let pair = scene.run(&["device", "pair", "--site", "Mill", "--json"]).await.json();
    assert_eq!(pair["code"].as_str().unwrap().len(), 9);
    assert!(pair["expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(scene.run(&["device", "pair", "--site", "Hill"]).await.exit, 1);
    scene.close().await;
}

#[tokio::test]
async fn a_policy_is_changed_by_its_keys_and_checked() {
    let scene = Scene::new().await;
    add_site(&scene, "Mill").await;
    let set =
        ["site", "policy", "Mill", "--set", "heartbeat_s=30", "--set", "photos=true", "--json"];
    let changed = scene.run(&set).await.json();
    assert_eq!(changed["policy"]["heartbeat_s"], 30);
    assert_eq!(scene.run(&set).await.json()["position"], changed["position"], "nothing new");
    for wrong in ["heartbeat_s=1", "wage=3", "photos=perhaps"] {
        let ran = scene.run(&["site", "policy", "Mill", "--set", wrong]).await;
        assert_eq!(ran.exit, 2, "{ran:?}");
    }
    let shown = scene.run(&["site", "policy", "Mill", "--json"]).await.json();
    assert_eq!(shown["policy"], changed["policy"]);
    scene.close().await;
}

#[tokio::test]
async fn a_punch_is_explained_and_replayed_without_a_server() {
    let mut scene = Scene::new().await;
    let punch = scene.punches(1).await[0].to_string();
    let explained = scene.run(&["punch", "explain", &punch, "--json"]).await.json();
    assert_eq!(explained["standing"], "recorded");
    assert_eq!(explained["as_of"], 5);
    assert!(!explained["sentences"].as_array().unwrap().is_empty());
    let text = scene.run(&["punch", "explain", &punch]).await;
    assert!(text.stdout.contains("front door"), "{text:?}");
    let until = ["ledger", "replay", "--punch", &punch, "--until", "4", "--json"];
    let replayed = scene.run(&until).await.json();
    assert_eq!(replayed["events"].as_array().unwrap().len(), 1);
    assert_eq!(replayed["state"]["received_at"], Value::Null);
    let lines = scene.run(&["ledger", "replay", "--ndjson"]).await;
    assert_eq!(lines.stdout.lines().count(), 5);
    assert!(lines.stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    let nobody = "0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e";
    let unknown = scene.run(&["punch", "show", nobody, "--json"]).await;
    assert_eq!(unknown.exit, 1);
    assert!(unknown.json()["error"].as_str().unwrap().contains("device list"));
    scene.close().await;
}

#[tokio::test]
async fn the_command_line_says_what_is_wrong_with_it() {
    let scene = Scene::new().await;
    assert_eq!(scene.run(&[]).await.exit, 2);
    let mistyped = scene.run(&["punch", "explain", "17", "--json"]).await;
    assert_eq!(mistyped.exit, 2);
    assert!(mistyped.json()["error"].as_str().unwrap().contains("17"), "{mistyped:?}");
    assert_eq!(scene.run(&["--help"]).await.exit, 0);
    assert_eq!(scene.run(&["ledger", "replay", "--until", "yesterday"]).await.exit, 2);
    assert_eq!(scene.run(&["ledger", "replay", "--ndjson", "--json"]).await.exit, 2);
    scene.close().await;
}

#[tokio::test]
async fn people_badges_and_sites_by_hand() {
    let scene = Scene::new().await;
    add_site(&scene, "Mill").await;
    add_site(&scene, "Hill").await;
    let run = async |line: &str| {
        let words: Vec<&str> = line.split(' ').chain(["--json"]).collect();
        let ran = scene.run(&words).await;
        assert_eq!(ran.exit, 0, "{line}: {ran:?}");
        ran.json()
    };
    let refused = async |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let ran = scene.run(&words).await;
        assert_eq!(ran.exit, 1, "{line}: {ran:?}");
        ran.stderr
    };
    run("employee add --name Ada --site Mill --badge 17 --external-id E-1").await;
    let bo = run("employee add --name Bo --site Mill").await;
    let bo = bo["employee"].as_str().unwrap().to_owned();
    let said = refused(&format!("employee badge issue {bo} 17")).await;
    assert!(said.contains("Ada"), "{said}");
    run("employee badge return E-1 17 --at 2026-03-02").await;
    let said = refused(&format!("employee badge issue {bo} 17 --from 2026-03-02")).await;
    assert!(said.contains("2026-03-02T23:00:00.000Z"), "through the day: {said}");
    run(&format!("employee badge issue {bo} 17 --from 2026-03-03")).await;
    let held = run("employee badge list E-1").await;
    assert_eq!(held["badges"][0]["because"], "returned");
    run("employee assign E-1 Hill --from 2026-04-01").await;
    run("employee unassign E-1 Mill --until 2026-03-31").await;
    run("employee depart E-1 --at 2026-05-29").await;
    assert_eq!(run("employee depart E-1 --at 2026-05-29").await["changed"], false);
    run("employee depart E-1 --at 2026-05-28T18:00:00+02:00").await;
    run("employee depart E-1 --cancel").await;
    run("employee depart E-1 --at 2026-05-29").await;
    refused("employee return E-1 --at 2026-05-01").await;
    run("employee return E-1 --at 2026-06-01").await;
    run("employee rename E-1 Augusta").await;
    assert_eq!(run("employee rename E-1 Augusta").await["changed"], false);
    assert_eq!(scene.run(&["employee", "depart", "E-1", "--at", "soon"]).await.exit, 2);
    assert_eq!(scene.run(&["ledger", "verify"]).await.exit, 0);
    scene.close().await;
}

#[tokio::test]
async fn a_dry_run_says_everything_and_writes_nothing() {
    let scene = Scene::new().await;
    add_site(&scene, "Mill").await;
    import(&scene, "badge,name,pin,site,external_id\n0071,Ada,,Mill,E-1\n18,Bo,,Mill,\n").await;
    let depart = ["employee", "depart", "18", "--at", "2026-03-02"];
    assert_eq!(scene.run(&depart).await.exit, 0);
    let before = employee_events(&scene).await;
    let text = "badge\tname\tpin\tsite\texternal_id\r\n\
                \t\"Ada\tLovelace\"\t\tMill\tE-1\r\n\r\n\
                71\tCy\t\tMill\t\r\n18\tBo\t\tMill\t\r\n4.01E+12\tDi\t\tMill\t\r\n\
                20\tEd\t\tNowhere\t\r\n21\tFay\t\tMill\t\r\n";
    let units = text.replace("Ada\tLovelace", "Ada Lovelace");
    let bytes: Vec<u8> =
        [0xFF, 0xFE].into_iter().chain(units.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let file = scene.dir.path().join("roster.tsv");
    std::fs::write(&file, bytes).unwrap();
    let ran = scene.run(&["employee", "import", file.to_str().unwrap(), "--dry-run"]).await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    for said in ["row 4: badge 71", "row 5: Bo left", "row 6", "row 7", "renamed from Ada"] {
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
    }
    assert!(ran.stdout.contains("row 8: Fay: new"), "{ran:?}");
    assert_eq!(employee_events(&scene).await, before);
    let back = scene.file("back.csv", "badge,name,pin,site\n18,Bo,,Mill\n");
    let back = ["employee", "import", back.to_str().unwrap(), "--return", "2026-04-01", "--json"];
    assert_eq!(counts(&scene.run(&back).await)["updated"], 1);
    assert_eq!(counts(&scene.run(&back).await)["unchanged"], 1);
    assert_eq!(entry(&scene, "18").await.0, "Bo");
    scene.close().await;
}
