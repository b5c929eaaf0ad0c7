//! What an operator reads: names and local times, what a name means, lists, hours, and errors.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod cli_common;
mod common;

use cli_common::{Ran, Scene, ran};
use common::House;
use jiff::tz::TimeZone;
use punchtrail_infra::testing::sqlx;
use punchtrail_protocol::{Time, capture::PunchKind};
use serde_json::Value;

/// Runs the binary on a house's database.
async fn run(house: &House, arguments: &[&str]) -> Ran {
    ran(&house.database, None, arguments).await
}

fn done(ran: Ran) -> Ran {
    assert_eq!(ran.exit, 0, "{ran:?}");
    ran
}

#[tokio::test]
async fn punches_hours_and_what_waits_are_listed_by_name_and_local_time() {
    let house = House::new().await;
    let site = house.site().await;
    let who = house.employee(site, "B1", "Ada Lovelace").await;
    house.employee(site, "B2", "Ben").await;
    let mut device = house.device(site).await;
    let items = [PunchKind::In, PunchKind::In].map(|kind| device.next(who, kind));
    house.deliver(&device, &items).await;
    house.settled().await;

    let listed =
        done(run(&house, &["punch", "list", "--employee", "Ada Lovelace", "--json"]).await);
    let listed = listed.json();
    assert_eq!(listed["punches"].as_array().unwrap().len(), 2);
    assert_eq!(listed["has_more"], false);
    let first = &listed["punches"][1];
    assert_eq!(first["employee_name"], "Ada Lovelace");
    let at: Time = first["effective_at"].as_str().unwrap().parse().unwrap();
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let local = at.timestamp().to_zoned(berlin).strftime("%Y-%m-%d %H:%M %Z").to_string();
    let table = done(run(&house, &["punch", "list", "--device", "Front door"]).await).stdout;
    for part in ["Ada Lovelace", &local, "Front door", "referred: near duplicate"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(!table.contains(&who.to_string()), "{table}");
    let exact = done(run(&house, &["punch", "list", "--ids", "--utc"]).await).stdout;
    for part in [&who.to_string(), &at.to_string(), &site.to_string(), &device.id.to_string()] {
        assert!(exact.contains(part), "{part}: {exact}");
    }
    assert!(!exact.contains("Lovelace"), "{exact}");
    let none = done(run(&house, &["punch", "list", "--employee", "Ben"]).await);
    assert_eq!(none.stdout, "No such punch.\n");

    let waiting = done(run(&house, &["review", "list"]).await).stdout;
    for part in ["Ada Lovelace", "near duplicate", &local] {
        assert!(waiting.contains(part), "{part}: {waiting}");
    }
    let people = done(run(&house, &["employee", "list"]).await).stdout;
    assert!(people.contains("Ada Lovelace") && !people.contains(&who.to_string()), "{people}");
    let card = done(run(&house, &["timecard", "Ada Lovelace"]).await).stdout;
    for part in ["Ada Lovelace", "not paired", "total", "in without out"] {
        assert!(card.contains(part), "{part}: {card}");
    }
    let card = done(run(&house, &["timecard", "B1", "--json"]).await).json();
    assert_eq!(card["employee"], who.to_string());
    assert_eq!(card["cards"].as_array().unwrap().len(), 1);
    let far = ["timecard", "B1", "--from", "2020-01-01", "--to", "2026-01-01"];
    let far = run(&house, &far).await;
    assert!(far.exit == 1 && far.stderr.contains("no more than 92"), "{far:?}");
    let shown = first["punch"].as_str().unwrap();
    let shown = done(run(&house, &["punch", "show", shown]).await).stdout;
    for part in ["employee     Ada Lovelace", "device       Front door, number 1", "CE"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_name_that_several_have_means_none_and_an_id_is_an_id() {
    let house = House::new().await;
    let (mill, hill) = (house.site().await, house.site().await);
    let ada = house.employee(mill, "17", "Ada").await.to_string();
    let other = house.employee(hill, "18", "Ada").await.to_string();
    let ben = house.employee(hill, "19", "Ben").await.to_string();
    for arguments in [
        &["employee", "rename", "Ada", "Eve"][..],
        &["timecard", "Ada"],
        &["punch", "list", "--employee", "Ada"],
        &["face", "show", "Ada"],
        &["erase", "person", "Ada", "--dry-run"],
    ] {
        let refused = run(&house, arguments).await;
        assert_eq!(refused.exit, 1, "{arguments:?}: {refused:?}");
        for part in [&ada, &other, "badge 17", "badge 18", "2 people"] {
            assert!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
    }
    // A badge of one that is the name of another.
    done(run(&house, &["employee", "rename", "19", "17"]).await);
    let refused = run(&house, &["employee", "badge", "list", "17"]).await;
    assert!(refused.exit == 1 && refused.stderr.contains(&ben), "{refused:?}");
    for (named, id) in [("18", &other), (&*ada, &ada), ("19", &ben)] {
        let found = done(run(&house, &["face", "show", named, "--json"]).await).json();
        assert_eq!(found["employee"], **id);
    }
    let letters = done(run(&house, &["employee", "rename", "18", "Zoë"]).await);
    assert!(letters.stderr.is_empty(), "{letters:?}");
    let found = done(run(&house, &["face", "show", "zoë", "--json"]).await).json();
    assert_eq!(found["employee"], other);

    let first = house.device(mill).await.id.to_string();
    let (a, b) = (house.device(hill).await.id.to_string(), first);
    let refused = run(&house, &["device", "revoke", "Front door"]).await;
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains(&a) && refused.stderr.contains(&b), "{refused:?}");
    let revoked = done(run(&house, &["device", "revoke", &a, "--json"]).await).json();
    assert_eq!(revoked["device"], a);
    // The one that still has access is meant.
    let told = done(run(&house, &["device", "commands", "Front door", "--json"]).await).json();
    assert_eq!(told["device"], b);
    let nobody = run(&house, &["device", "revoke", "Back door"]).await;
    assert!(nobody.stderr.contains("`device list` shows them"), "{nobody:?}");

    for _ in 0..2 {
        done(run(&house, &["key", "new", "--name", "payroll"]).await);
    }
    let refused = run(&house, &["key", "revoke", "payroll"]).await;
    assert!(refused.exit == 1 && refused.stderr.contains("2 keys"), "{refused:?}");
    let id = refused.stderr.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    done(run(&house, &["key", "revoke", id]).await);
    done(run(&house, &["key", "revoke", "payroll"]).await);
    let trail = ["audit", "list", "--act", "key_revoked", "--subject", "key:payroll"];
    let refused = run(&house, &trail).await;
    assert!(refused.exit == 1 && refused.stderr.contains("revoked"), "{refused:?}");
    let listed = done(run(&house, &["audit", "list", "--act", "key_revoked"]).await).stdout;
    assert!(listed.contains("key payroll") && listed.contains("key revoked"), "{listed}");
    house.close().await;
}

#[tokio::test]
async fn a_key_is_alone_on_stdout_and_said_to_be_shown_once() {
    let scene = Scene::new().await;
    let made = done(scene.run(&["key", "new", "--name", "payroll"]).await);
    assert!(made.stdout.starts_with("ptk_") && made.stdout.lines().count() == 1, "{made:?}");
    assert!(made.stderr.contains("shown this once"), "{made:?}");
    let json = done(scene.run(&["key", "new", "--json"]).await);
    assert!(json.stderr.is_empty(), "{json:?}");
    let listed = done(scene.run(&["key", "list"]).await).stdout;
    assert!(listed.contains("payroll") && listed.contains("never"), "{listed}");
    let id = json.json()["id"].as_str().unwrap().to_owned();
    assert!(!listed.contains(&id), "{listed}");
    assert!(done(scene.run(&["key", "list", "--ids"]).await).stdout.contains(&id));
    scene.close().await;
}

#[tokio::test]
async fn a_policys_durations_have_units() {
    let scene = Scene::new().await;
    done(scene.run(&["site", "add", "--name", "Mill", "--tz", "Europe/Berlin"]).await);
    let set =
        ["--set", "clock_suspect=2min", "--set", "shift_max=12h 30min", "--set", "lookback=3d"];
    let changed = done(scene.run(&[&["site", "policy", "Mill"][..], &set].concat()).await).stdout;
    for part in ["clock_suspect=2min", "shift_max=12h 30min", "lookback=3d", "heartbeat="] {
        assert!(changed.contains(part), "{part}: {changed}");
    }
    let policy = done(scene.run(&["site", "policy", "Mill", "--json"]).await).json();
    assert_eq!(policy["policy"]["clock_suspect_s"], 120);
    let refused = scene.run(&["site", "policy", "Mill", "--set", "clock_suspect=120"]).await;
    assert_eq!(refused.exit, 2);
    assert!(refused.stderr.contains("of which unit? `120min`"), "{refused:?}");
    scene.close().await;
}

#[tokio::test]
async fn events_are_shown_byte_for_byte() {
    let mut scene = Scene::new().await;
    let punch = scene.punches(1).await[0].to_string();
    let stored: Vec<(String, String)> = sqlx::query_as(
        "select payload::text, metadata::text from events where aggregate_id = $1 \
         order by position",
    )
    .bind(&punch)
    .fetch_all(&scene.pools.writer)
    .await
    .unwrap();
    assert!(stored.len() > 1);
    let text = done(scene.run(&["punch", "events", &punch]).await).stdout;
    let json = done(scene.run(&["punch", "events", &punch, "--json"]).await).stdout;
    for (payload, metadata) in stored {
        for part in [payload, metadata] {
            assert!(text.contains(&part), "{part}: {text}");
            assert!(json.contains(&part), "{part}: {json}");
        }
    }
    scene.close().await;
}

#[tokio::test]
async fn a_wrong_address_of_the_database_is_said_once_with_what_to_do() {
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
        .args(["ledger", "status", "--database-wait", "0"])
        .env("DATABASE_URL", nowhere)
        .env_remove("RUST_LOG")
        .env_remove("PUNCHTRAIL_DATA_DIR")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert_eq!(said.to_lowercase().matches("refused").count(), 1, "{said}");
    for part in ["nothing at 127.0.0.1:1", "Start PostgreSQL there", "DATABASE_URL"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn completions_and_pages_are_of_these_commands() {
    let dir = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| {
        let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
            .args(arguments)
            .env_remove("DATABASE_URL")
            .env_remove("PUNCHTRAIL_DATA_DIR")
            .output();
        let ran = command.await.unwrap();
        assert!(ran.status.success(), "{arguments:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).await;
        assert!(script.contains("timecard") && script.contains("new-epoch"), "{shell}");
    }
    let pages = dir.path().join("man1");
    let said = run(&["man", pages.to_str().unwrap(), "--json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["pages"].as_u64().unwrap() > 50, "{said}");
    let page = std::fs::read_to_string(pages.join("punchtrail-timecard.1")).unwrap();
    assert!(page.contains("worked time"), "{page}");
}
