//! `punchtrail dispute` as an operator runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::House;
use punchtrail_protocol::capture::PunchKind;
use serde_json::{Value, json};
use uuid::Uuid;

/// Runs the binary on the house's database.
async fn run(house: &House, arguments: &[&str]) -> (i32, Value, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
        .args(arguments)
        .env("DATABASE_URL", house.database.url())
        .env_remove("RUST_LOG")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    let said = text + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), json, said)
}

#[tokio::test]
async fn a_dispute_is_opened_answered_settled_and_shown() {
    let house = House::new().await;
    let site = house.site().await;
    house.employee(site, "B1", "Ada").await;
    let who = house.employee(site, "B2", "Ben").await;
    let mut device = house.device(site).await;
    let item = device.next(who, PunchKind::In);
    let punch = house.deliver(&device, &[item]).await.body["results"][0]["punch"].clone();
    let (punch, site) = (punch.as_str().unwrap().to_owned(), site.to_string());
    house.settled().await;
    let open = ["dispute", "open", "--json", "--site", &site, "--employee", "B2"];
    let wrong_time = ["--punch", &punch, "--cause", "wrong_time", "--text", "\u{202e}early"];
    let (exit, opened, said) = run(&house, &[&open[..], &wrong_time].concat()).await;
    assert_eq!(exit, 0, "{said}");
    let dispute = opened["dispute"].as_str().unwrap();

    let (_, listed, _) = run(&house, &["dispute", "list", "--json", "--employee", "B2"]).await;
    assert_eq!(listed["disputes"][0]["dispute"], dispute);
    assert_eq!(listed["disputes"][0]["about"], json!({ "punch": punch }));
    let (_, none, _) = run(&house, &["dispute", "list", "--json", "--employee", "B1"]).await;
    assert_eq!(none["disputes"], json!([]));

    let answer = ["dispute", "answer", dispute, "--note", "When then?", "--json"];
    assert_eq!(run(&house, &answer).await.0, 0);
    let stale = ["dispute", "resolve", dispute, "--how", "accept", "--note", "n"];
    let (exit, _, said) = run(&house, &[&stale[..], &["--expected-sequence", "1"]].concat()).await;
    assert_eq!(exit, 1);
    assert!(said.contains("somebody else changed the dispute"), "{said}");
    assert_eq!(run(&house, &stale).await.0, 0);
    let (exit, _, said) = run(&house, &["dispute", "show", dispute]).await;
    assert_eq!(exit, 0);
    for part in ["resolved, wrong_time", "    \\u{202e}early", "When then?", "settled: accept"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (_, waiting, _) = run(&house, &["dispute", "list", "--json"]).await;
    assert_eq!(waiting["disputes"], json!([]));
    let reopen = ["dispute", "reopen", dispute, "--note", "a list came"];
    assert_eq!(run(&house, &reopen).await.0, 0);
    let (_, explained, _) = run(&house, &["punch", "explain", &punch, "--json"]).await;
    assert!(explained["sentences"].to_string().contains("took the dispute up again"));

    // What can't be meant writes nothing.
    let day = ["--day", "9999-12-31", "--cause", "missing_punch"];
    let unfit = ["--day", "2026-01-01", "--cause", "wrong_time"];
    let unknown = Uuid::now_v7().to_string();
    let refused: [(Vec<&str>, i32, &str); 5] = [
        ([&open[..], &day].concat(), 1, "not begun"),
        ([&open[..], &unfit].concat(), 1, "the cause doesn't fit"),
        (vec!["dispute", "answer", dispute, "--note", " "], 2, "at least a word"),
        (vec!["dispute", "show", &unknown], 1, "there is no dispute"),
        (vec!["dispute", "resolve", dispute, "--how", "amend", "--note", "n"], 1, "to amend gives"),
    ];
    let head = house.ledger.head().await.unwrap();
    for (arguments, exit, why) in refused {
        let (ended, _, said) = run(&house, &arguments).await;
        assert_eq!(ended, exit, "{said}");
        assert!(said.contains(why), "{why}: {said}");
    }
    assert_eq!(house.ledger.head().await.unwrap(), head);
    house.close().await;
}
