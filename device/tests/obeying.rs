//! Commands of the server: heard with a heartbeat, kept before anything is done, done once whatever
//! dies in between, and told of until the server has heard.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod door;

use punchtrail_device::{
    Device, Drain,
    client::CommandGiven,
    folder::PhotoFile,
    store::{commands, identity::Identity},
};
use punchtrail_protocol::{
    CommandId, Digest, EmployeeId, Time, command::CommandStatus, wire::CommandResult,
};
use punchtrail_stand_in::{Call, Fault, StandIn};
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::door::{DAY_MS, Door, options};

fn jpeg(tail: &str) -> Vec<u8> {
    [&[0xff, 0xd8, 0xff, 0xe0], b"eyes-nose-mouth".as_slice(), tail.as_bytes()].concat()
}

/// A command that is given from now on; its id.
fn give(server: &StandIn, kind: &str, args: Value) -> String {
    let mut ledger = server.ledger();
    let expires_at = ledger.clock.plus_millis(DAY_MS);
    let command = CommandId(Uuid::now_v7()).to_string();
    ledger.commands.push(json!({
        "command": command, "type": kind, "args": args, "expires_at": expires_at,
        "added_by_a_later_version": true,
    }));
    command
}

/// What was told of each command, in the order it came.
fn told(server: &StandIn) -> Vec<(CommandStatus, String)> {
    let ledger = server.ledger();
    let told = ledger.results.iter();
    told.map(|(_, result)| (result.status, result.detail.clone().unwrap_or_default())).collect()
}

impl Door {
    async fn identity(&self) -> Identity {
        self.device.identity().await.unwrap().unwrap()
    }

    async fn messages(&self) -> Vec<String> {
        let messages = self.device.status().await.unwrap().messages;
        messages.into_iter().map(|message| message.text).collect()
    }

    fn ada(server: &StandIn) -> EmployeeId {
        server.ledger().rows.iter().find(|row| row.name == "Ada").unwrap().employee
    }

    fn has_file(&self, photo: Digest) -> bool {
        self.device.folder().photo(PhotoFile::Sealed(photo, 1)).exists()
    }
}

#[tokio::test]
async fn each_command_is_done_and_told_of() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let text = "Stock-taking at six";
    give(&server, "sync_employees", json!({}));
    give(&server, "upload_pending", json!({}));
    give(&server, "show_message", json!({ "text": text }));
    assert!(door.sync().await.complete);
    assert_eq!(told(&server), vec![(CommandStatus::Done, String::new()); 3]);
    assert!(server.ledger().calls.contains(&Call::Manifest), "walked anew");
    assert_eq!(door.messages().await, [text]);
    assert_eq!(door.status().await.commands, 0);

    // It is shown until it expires, and then nothing is left of it.
    door.clocks.pass_ms(DAY_MS + 1);
    assert_eq!(door.messages().await, [] as [String; 0]);
    let later = server.ledger().clock.plus_millis(DAY_MS + 1);
    server.ledger().clock = later;
    assert!(door.sync().await.complete);
    let mut db = door.device.store().read().await.unwrap();
    let kept = "SELECT count(*) FROM command WHERE args LIKE '%text%'";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut *db).await.unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn what_is_unknown_malformed_or_over_is_refused_and_said_so() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    give(&server, "make_coffee", json!({ "sugar": 2 }));
    give(&server, "show_message", json!({}));
    give(&server, "show_message", json!({ "text": "x".repeat(501) }));
    give(&server, "show_message", json!({ "text": "x".repeat(100_000) }));
    give(&server, "forget_photos", json!({ "employee": "everybody" }));
    give(&server, "restart_agent", json!({ "text": "now" }));
    give(&server, "restart_agent", json!([]));
    let over = server.ledger().clock.plus_millis(-1);
    give(&server, "restart_agent", json!({}));
    server.ledger().commands[7]["expires_at"] = json!(over);
    assert!(door.sync().await.complete);
    let told = told(&server);
    let statuses: Vec<CommandStatus> = told.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [CommandStatus::Refused; 8], "{told:?}");
    assert!(told[0].1.contains("doesn't know"), "{told:?}");
    assert!(told[7].1.contains("expired"), "{told:?}");
    assert!(!door.device.restart_asked());
    assert_eq!(door.messages().await, [] as [String; 0]);
}

#[tokio::test]
async fn a_person_s_photos_are_forgotten_before_they_are_sent_and_later_ones_stay() {
    let server = StandIn::start().await;
    server.ledger().new_photo_key();
    let door = Door::enrolled(&server).await;
    let erased = door.punch(Some(&jpeg("before"))).await.photo.unwrap();
    let taken_until = door.device.now().time;
    door.clocks.pass_ms(60_000);
    let kept = door.punch(Some(&jpeg("after a new consent"))).await.photo.unwrap();
    let (employee, args) = (
        Door::ada(&server),
        |employee, until: Time| json!({ "employee": employee, "taken_until": until }),
    );
    give(&server, "forget_photos", args(employee, taken_until));
    assert!(door.has_file(erased) && door.has_file(kept));
    assert!(door.sync().await.complete);
    assert_eq!(told(&server), [(CommandStatus::Done, "1 photos erased".to_owned())]);
    assert!(!door.has_file(erased) && door.has_file(kept));
    let ledger = server.ledger();
    assert_eq!(ledger.photos.iter().collect::<Vec<_>>(), [&kept], "the erased one was never sent");
    assert_eq!(ledger.punches.len(), 2, "both punches stand");
}

#[tokio::test]
async fn killed_between_keeping_and_doing_it_is_done_once() {
    let server = StandIn::start().await;
    server.ledger().new_photo_key();
    let door = Door::enrolled(&server).await;
    let photo = door.punch(Some(&jpeg("first"))).await.photo.unwrap();
    let args = json!({ "employee": Door::ada(&server), "taken_until": door.device.now().time });
    let command = give(&server, "forget_photos", args.clone());
    // Kept, and then the process dies: nothing was done.
    let given = CommandGiven {
        command: command.parse().unwrap(),
        kind: "forget_photos".to_owned(),
        args,
        expires_at: server.ledger().clock.plus_millis(DAY_MS),
    };
    let id = door.identity().await.id;
    let mut write = door.device.store().write().await.unwrap();
    commands::take(&mut write, id, &[given]).await.unwrap();
    write.commit().await.unwrap();
    door.device.close().await;
    assert!(door.has_file(photo));

    let again = Device::open(door.dir.path().join("d"), options(&door.clocks)).await.unwrap();
    let door = Door { device: again, ..door };
    assert!(door.sync().await.complete);
    assert!(!door.has_file(photo));
    assert_eq!(told(&server), [(CommandStatus::Done, "1 photos erased".to_owned())]);
    // A server that went back gives it again: told again, done no more.
    let given = json!({
        "command": command, "type": "forget_photos",
        "expires_at": server.ledger().clock.plus_millis(DAY_MS),
        "args": { "employee": Door::ada(&server) },
    });
    let later = door.punch(Some(&jpeg("later"))).await.photo.unwrap();
    server.ledger().commands.push(given);
    assert!(door.sync().await.complete);
    assert!(door.has_file(later), "nothing more was done");
    assert_eq!(told(&server).len(), 2);
    assert_eq!(told(&server)[0], told(&server)[1]);
}

#[tokio::test]
async fn a_result_is_told_until_it_is_heard_and_holds_up_no_punch() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let command = give(&server, "upload_pending", json!({}));
    let given = CommandGiven {
        command: command.parse().unwrap(),
        kind: "upload_pending".to_owned(),
        args: json!({}),
        expires_at: server.ledger().clock.plus_millis(DAY_MS),
    };
    let id = door.identity().await.id;
    let mut write = door.device.store().write().await.unwrap();
    commands::take(&mut write, id, &[given]).await.unwrap();
    write.commit().await.unwrap();
    server.ledger().always.insert("commands", Fault::Refuse(500, "internal"));
    door.punch_times(3).await;
    let report = door.sync().await;
    assert_eq!((report.delivered, report.waiting), (3, 0));
    let status = door.status().await;
    assert_eq!((status.commands, status.errors[0].of), (1, "commands"), "{status:?}");
    server.ledger().always.clear();
    // What its store keeps survives the process.
    assert!(door.sync().await.complete);
    assert_eq!(told(&server), [(CommandStatus::Done, String::new())]);
    let status = door.status().await;
    assert_eq!((status.commands, status.errors.len()), (0, 0), "{status:?}");
}

#[tokio::test]
async fn a_server_without_commands_is_no_failure() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    give(&server, "upload_pending", json!({}));
    server.ledger().without_commands = true;
    let report = door.sync().await;
    assert!(report.complete && report.error.is_none(), "{report:?}");
}

#[tokio::test]
async fn a_restart_ends_the_agent_once_and_is_told_of_by_the_next_one() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    let command = give(&server, "restart_agent", json!({}));
    let (agent, never) = (door.device.lock_agent().unwrap(), CancellationToken::new());
    timeout(PATIENCE, Drain::new(&door.device, &agent).run(&never)).await.expect("it ends");
    assert!(door.device.restart_asked());
    assert_eq!(server.ledger().results, [] as [(String, CommandResult); 0]);
    drop(agent);
    door.device.close().await;

    let again = Device::open(door.dir.path().join("d"), options(&door.clocks)).await.unwrap();
    let (agent, stop) = (again.lock_agent().unwrap(), CancellationToken::new());
    let (drained, until) = (again.clone(), stop.clone());
    let running = tokio::spawn(async move { Drain::new(&drained, &agent).run(&until).await });
    eventually("the result", PATIENCE, async || {
        anyhow::Ok(server.ledger().results.first().cloned())
    })
    .await
    .map(|(of, result)| assert_eq!((of, result.status), (command, CommandStatus::Done)))
    .unwrap();
    assert!(!again.restart_asked() && !running.is_finished(), "it is done once");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn many_commands_are_done_a_hundred_at_a_time() {
    let server = StandIn::start().await;
    let door = Door::enrolled(&server).await;
    for n in 0..250 {
        give(&server, "show_message", json!({ "text": format!("number {n}") }));
    }
    assert!(door.sync().await.complete);
    assert_eq!(server.ledger().results.len(), 250);
    let asked = server.ledger().calls.iter().filter(|call| **call == Call::Commands).count();
    assert_eq!(asked, 3);
    assert_eq!(door.messages().await.len(), 20, "the newest");
}
