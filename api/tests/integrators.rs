//! docs/integrators.md, run: every command of it, in order, in one shell, against a real server;
//! and each answer that the page shows has the shape that it shows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use common::House;
use punchtrail_protocol::capture::PunchKind;
use serde_json::Value;

/// Stands between what one block prints and what the next does.
const AFTER: &str = "=== the next block ===";

/// A block of commands, and the answer that the page shows below it, if any.
struct Block {
    commands: String,
    shown: Option<Value>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let fences: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    for fence in fences {
        let (kind, text) = fence.split_once('\n').unwrap();
        match kind {
            "sh" => blocks.push(Block { commands: text.to_owned(), shown: None }),
            "json" => {
                let shown = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
                blocks.last_mut().unwrap().shown = Some(shown);
            }
            other => panic!("a block of {other}, which nothing runs"),
        }
    }
    blocks
}

/// Whether an answer has the fields that the page shows, and no others unless it says "…".
fn is_like(shown: &Value, answer: &Value) -> bool {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => {
            let more = shown.contains_key("…");
            let names: Vec<_> = shown.keys().filter(|name| *name != "…").collect();
            (more || names.len() == answer.len())
                && names.iter().all(|name| {
                    answer.get(*name).is_some_and(|value| is_like(&shown[*name], value))
                })
        }
        (Value::Array(shown), Value::Array(answer)) => match (shown.first(), answer.first()) {
            (Some(shown), Some(answer)) => is_like(shown, answer),
            (Some(_), None) => false,
            (None, _) => true,
        },
        (Value::Null, _) | (_, Value::Null) => true,
        (shown, answer) => std::mem::discriminant(shown) == std::mem::discriminant(answer),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_page_does_what_the_page_says() {
    let page = include_str!("../../docs/integrators.md");
    let house = House::new().await;
    let site = house.site().await;
    let (ada, bea) =
        (house.employee(site, "1", "Ada One").await, house.employee(site, "2", "Bea Two").await);
    let mut device = house.device(site).await;
    let items: Vec<Value> = [(ada, PunchKind::In), (bea, PunchKind::In), (ada, PunchKind::Out)]
        .map(|(who, kind)| device.next(who, kind))
        .into();
    house.deliver(&device, &items).await.outcomes();
    house.settled().await;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("punchtrail");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_punchtrail"), &program).unwrap();
    let blocks = blocks(page);
    assert!(blocks.len() > 8, "{}", blocks.len());
    let commands: Vec<&str> = blocks.iter().map(|block| block.commands.as_str()).collect();
    let script = folder.path().join("page.sh");
    fs::write(&script, commands.join(&format!("\necho '{AFTER}'\n"))).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = tokio::process::Command::new("bash")
        .args(["-eu", "-o", "pipefail"])
        .arg(&script)
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env("PUNCHTRAIL", format!("http://{}", house.address))
        .env("DATABASE_URL", house.database.url())
        .env("PUNCHTRAIL_DATA_DIR", folder.path())
        .env("no_proxy", "127.0.0.1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (said, complained) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}\n{complained}");
    let said: Vec<&str> = said.split(AFTER).map(str::trim).collect();
    assert_eq!(said.len(), blocks.len(), "{said:?}\n{complained}");
    for (block, said) in blocks.iter().zip(&said) {
        let Some(shown) = &block.shown else { continue };
        let answer: Value = serde_json::from_str(said).unwrap_or(Value::Null);
        assert!(is_like(shown, &answer), "{}\nthe page: {shown}\nin truth: {said}", block.commands);
    }
    let about = |what: &str| {
        let found = blocks.iter().zip(&said).find(|(block, _)| block.commands.contains(what));
        *found.unwrap().1
    };
    let pages: Vec<Value> =
        about("next_cursor").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let people: usize = pages.iter().map(|page| page["data"].as_array().unwrap().len()).sum();
    assert_eq!((pages.len(), people), (2, 2), "one a page");
    let cards: Value = serde_json::from_str(about("/v1/timecards")).unwrap();
    assert!(cards["data"].is_array(), "{cards}");
    let twice = about("Idempotency-Key").to_ascii_lowercase();
    assert_eq!(twice.matches("200 ok").count(), 2, "{twice}");
    assert_eq!(twice.matches("idempotent-replayed: true").count(), 1, "{twice}");
    let read: Value = serde_json::from_str(about("Punchtrail-After")).unwrap();
    assert_eq!(read["external_id"], "4711", "{read}");
    assert_eq!(about("x-ratelimit").lines().count(), 3);
    house.close().await;
}
