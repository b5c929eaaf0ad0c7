//! Commands to devices over real HTTP: issued, heard, done once, expired, cancelled; and everything
//! that isn't one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, Device, House};
use hyper::{Method, StatusCode};
use punchtrail_api::commands;
use punchtrail_domain::{
    device::{COMMANDS_WAITING_MAX, Device as Aggregate, DeviceCommand, Instruction},
    employee::{Employee, EmployeeCommand},
    erasure::Erasure,
};
use punchtrail_infra::{ledger::Metadata, testing::sqlx};
use punchtrail_protocol::{
    CommandId, SiteId, Time,
    capture::PunchKind,
    command::{COMMANDS_GIVEN_MAX, FORGETTING_LIFE_S, MESSAGE_CHARS_MAX},
};
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

struct Door {
    house: House,
    site: SiteId,
    device: Device,
}

impl Door {
    async fn open() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let device = house.device(site).await;
        Self { house, site, device }
    }

    fn path(&self) -> String {
        format!("/v1/devices/{}/commands", self.device.id)
    }

    async fn issue(&self, body: &Value) -> Answer {
        self.house.write(&self.path(), body).await
    }

    async fn issued(&self, kind: &str) -> String {
        let answer = self.issue(&json!({ "type": kind })).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.body["command"].as_str().unwrap().to_owned()
    }

    /// What waits, once everything that was written is seen.
    async fn waiting(&self, device: &Device) -> Vec<Value> {
        self.house.read(&self.path()).await;
        let answer = self.house.get("/v1/devices/self/commands", Some(&device.token)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body["data"].as_array().unwrap().clone()
    }

    async fn finish(&self, device: &Device, command: &str, result: &Value) -> Answer {
        let path = format!("/v1/devices/self/commands/{command}/result");
        self.house.send(Method::PUT, &path, Some(&device.token), result.to_string()).await
    }

    async fn cancel(&self, command: &str) -> Answer {
        let path = format!("{}/{command}", self.path());
        self.house.send(Method::DELETE, &path, Some(&self.house.key), String::new()).await
    }

    /// The states of the device's commands, newest first.
    async fn states(&self) -> Vec<String> {
        let answer = self.house.read(&self.path()).await;
        let rows = answer.body["data"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
        rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    }

    async fn head(&self) -> u64 {
        self.house.ledger.head().await.unwrap().0
    }
}

fn done() -> Value {
    json!({ "status": "done", "detail": null })
}

#[tokio::test]
async fn a_command_is_issued_heard_and_done() {
    let door = Door::open().await;
    assert_eq!(door.house.beat(&door.device).await.body["commands"], false);
    let text = "Stock-taking at six: use the back door";
    let answer = door.issue(&json!({ "type": "show_message", "args": { "text": text } })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let command = answer.body["command"].as_str().unwrap().to_owned();
    let waiting = door.waiting(&door.device).await;
    assert_eq!(
        waiting,
        [json!({
            "command": command, "type": "show_message", "args": { "text": text },
            "expires_at": answer.body["expires_at"],
        })]
    );
    assert_eq!(door.house.beat(&door.device).await.body["commands"], true);
    let events = door.house.read("/v1/ledger/events?limit=1000").await;
    assert!(!events.text.contains("Stock-taking"), "the text stands beside the ledger");
    let result = json!({ "status": "done", "detail": "shown until tomorrow" });
    let first = door.finish(&door.device, &command, &result).await;
    assert_eq!((first.status, &first.body["status"]), (StatusCode::OK, &json!("applied")));
    assert_eq!(door.waiting(&door.device).await, [] as [Value; 0]);
    assert_eq!(door.house.beat(&door.device).await.body["commands"], false);
    let row = &door.house.read(&door.path()).await.body["data"][0];
    assert_eq!((&row["state"], &row["detail"]), (&json!("done"), &json!("shown until tomorrow")));
    assert!(row["issued_by"].as_str().unwrap().starts_with("key:"), "{row}");
    // The same again changes nothing, another one doesn't stand.
    let head = door.head().await;
    let again = door.finish(&door.device, &command, &result).await;
    assert_eq!((again.status, &again.body["status"]), (StatusCode::OK, &json!("duplicate")));
    let other = json!({ "status": "failed", "detail": null });
    assert_eq!(door.finish(&door.device, &command, &other).await.refusal(), "409 conflict");
    assert_eq!(door.head().await, head, "nothing was written");
    let count = "select count(*) from notes";
    let notes: i64 = sqlx::query_scalar(count).fetch_one(&door.house.pools.writer).await.unwrap();
    assert_eq!(notes, 2, "the text and the detail, once each");
    door.house.close().await;
}

#[tokio::test]
async fn what_is_no_command_is_refused_and_nothing_is_written() {
    let door = Door::open().await;
    let head = door.head().await;
    let employee = Uuid::from_u128(1);
    let long = "ü".repeat(MESSAGE_CHARS_MAX + 1);
    for (body, refusal) in [
        (json!({ "type": "explode" }), "422 invalid: /type invalid_value"),
        (json!({ "args": {} }), "422 invalid: /type missing_field"),
        (json!({ "type": "show_message" }), "422 invalid: /args/text missing_field"),
        (
            json!({ "type": "show_message", "args": { "text": "" } }),
            "422 invalid: /args/text invalid_value",
        ),
        (
            json!({ "type": "show_message", "args": { "text": long } }),
            "422 invalid: /args/text invalid_value",
        ),
        (
            json!({ "type": "show_message", "args": { "text": 5 } }),
            "422 invalid: /args/text invalid_value",
        ),
        (
            json!({ "type": "restart_agent", "args": { "text": "now" } }),
            "422 invalid: /args/text unknown_field",
        ),
        (json!({ "type": "forget_photos" }), "422 invalid: /args/employee missing_field"),
        (
            json!({ "type": "forget_photos", "args": { "employee": "Ada" } }),
            "422 invalid: /args/employee invalid_value",
        ),
        (
            json!({ "type": "forget_photos", "args": { "employee": employee, "after": 1 } }),
            "422 invalid: /args/after unknown_field",
        ),
    ] {
        assert_eq!(door.issue(&body).await.refusal(), refusal, "{body}");
    }
    let nobody = format!("/v1/devices/{}/commands", Uuid::from_u128(9));
    let body = json!({ "type": "restart_agent" });
    assert_eq!(door.house.write(&nobody, &body).await.refusal(), "404 not_found");
    assert_eq!(door.house.read(&nobody).await.refusal(), "404 not_found");
    let by_a_device = door.house.post(&door.path(), Some(&door.device.token), &body).await;
    assert_eq!(by_a_device.refusal(), "403 forbidden");
    let none = Uuid::from_u128(7).to_string();
    assert_eq!(door.cancel(&none).await.refusal(), "404 not_found");
    assert_eq!(door.finish(&door.device, &none, &done()).await.refusal(), "404 not_found");
    for (result, refusal) in [
        (json!({ "status": "maybe", "detail": null }), "422 invalid: /status invalid_value"),
        (json!({ "status": "done" }), "422 invalid: /detail missing_field"),
        (
            json!({ "status": "done", "detail": "x".repeat(501) }),
            "422 invalid: /detail invalid_value",
        ),
    ] {
        assert_eq!(door.finish(&door.device, &none, &result).await.refusal(), refusal, "{result}");
    }
    assert_eq!(door.head().await, head, "nothing was written");
    door.house.close().await;
}

#[tokio::test]
async fn a_revoked_device_is_told_nothing_more_and_may_say_what_it_did() {
    let door = Door::open().await;
    let command = door.issued("upload_pending").await;
    let revoke = format!("/v1/devices/{}/revoke", door.device.id);
    assert_eq!(door.house.write(&revoke, &json!({})).await.status, StatusCode::OK);
    let refused = door.issue(&json!({ "type": "restart_agent" })).await;
    assert_eq!(refused.refusal(), "409 conflict");
    assert!(refused.text.contains("was revoked"), "{}", refused.text);
    let path = "/v1/devices/self/commands";
    let read = door.house.get(path, Some(&door.device.token)).await;
    assert_eq!(read.refusal(), "403 device_revoked");
    assert_eq!(door.house.beat(&door.device).await.body["commands"], false);
    assert_eq!(door.finish(&door.device, &command, &done()).await.status, StatusCode::OK);
    assert_eq!(door.states().await, ["done"]);
    door.house.close().await;
}

#[tokio::test]
async fn a_command_is_one_device_s_alone_and_can_be_taken_back() {
    let door = Door::open().await;
    let other = door.house.device(door.site).await;
    let command = door.issued("sync_employees").await;
    assert_eq!(door.waiting(&other).await, [] as [Value; 0]);
    assert_eq!(door.finish(&other, &command, &done()).await.refusal(), "404 not_found");
    assert_eq!(door.cancel(&command).await.status, StatusCode::OK);
    assert_eq!(door.cancel(&command).await.status, StatusCode::OK, "twice is once");
    assert_eq!(door.waiting(&door.device).await, [] as [Value; 0]);
    assert_eq!(door.states().await, ["cancelled"]);
    // The device had heard of it, and did it.
    let result = json!({ "status": "failed", "detail": "no room" });
    assert_eq!(door.finish(&door.device, &command, &result).await.status, StatusCode::OK);
    assert_eq!(door.states().await, ["failed"]);
    assert_eq!(door.cancel(&command).await.refusal(), "409 conflict");
    door.house.close().await;
}

#[tokio::test]
async fn what_is_undone_in_time_expires_and_a_late_result_is_a_fact() {
    let door = Door::open().await;
    let (command, expires_at) =
        (CommandId(Uuid::now_v7()), door.house.ledger.now().plus_millis(-1));
    let instruction = Instruction::RestartAgent;
    let issue = DeviceCommand::Issue { command, instruction, expires_at };
    let id = door.device.id.to_string();
    door.house.ledger.execute::<Aggregate>(&id, issue, &Metadata::default()).await.unwrap();
    assert_eq!(door.waiting(&door.device).await, [] as [Value; 0], "it is given no more");
    assert_eq!(door.house.beat(&door.device).await.body["commands"], false);
    commands::look(&door.house.app).await.unwrap();
    commands::look(&door.house.app).await.unwrap();
    assert_eq!(door.states().await, ["expired"]);
    let events = door.house.read("/v1/ledger/events?limit=1000").await.body;
    let types = events["data"].as_array().unwrap().iter().map(|event| &event["event_type"]);
    assert_eq!(types.filter(|kind| *kind == "CommandExpired").count(), 1, "{events}");
    let late = door.finish(&door.device, &command.to_string(), &done()).await;
    assert_eq!(late.body["status"], "applied", "{}", late.text);
    assert_eq!(door.states().await, ["done"]);
    door.house.close().await;
}

#[tokio::test]
async fn no_more_wait_than_fit_and_what_is_to_be_forgotten_still_does() {
    let door = Door::open().await;
    for _ in 0..COMMANDS_WAITING_MAX {
        door.issued("upload_pending").await;
    }
    let head = door.head().await;
    for _ in 0..50 {
        let refused = door.issue(&json!({ "type": "sync_employees" })).await;
        assert_eq!(refused.refusal(), "409 conflict");
        assert!(refused.text.contains("none was issued"), "{}", refused.text);
    }
    assert_eq!(door.head().await, head);
    // What a person has to be forgotten by is told all the same, and the oldest first.
    let employee = json!({ "employee": Uuid::from_u128(1) });
    let forget = door.issue(&json!({ "type": "forget_photos", "args": employee })).await;
    assert_eq!(forget.status, StatusCode::CREATED, "{}", forget.text);
    let waiting = door.waiting(&door.device).await;
    assert_eq!(waiting.len(), COMMANDS_GIVEN_MAX);
    assert!(waiting.iter().all(|command| command["type"] == "upload_pending"));
    let page = door.house.read(&format!("{}?limit=60", door.path())).await.body;
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(page["data"][0]["type"], "forget_photos", "newest first");
    let next = door.house.read(&format!("{}?limit=60&cursor={cursor}", door.path())).await.body;
    assert_eq!((next["data"].as_array().unwrap().len(), &next["has_more"]), (41, &json!(false)));
    door.house.close().await;
}

#[tokio::test]
async fn an_erasure_tells_each_device_that_may_hold_photos_once() {
    let mut door = Door::open().await;
    let employee = door.house.employee(door.site, "101", "Maria Ortiz").await;
    let elsewhere = door.house.site().await;
    let far = door.house.device(elsewhere).await;
    let (earlier, revoked) =
        (door.house.device(elsewhere).await, door.house.device(door.site).await);
    // One that served the site before, and one that was revoked.
    let moved = format!("/v1/devices/{}/site", earlier.id);
    for site in [door.site, elsewhere] {
        let answer = door.house.write(&moved, &json!({ "site": site })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    let revoke = format!("/v1/devices/{}/revoke", revoked.id);
    assert_eq!(door.house.write(&revoke, &json!({})).await.status, StatusCode::OK);
    let item = door.device.next(employee, PunchKind::In);
    assert_eq!(door.house.deliver(&door.device, &[item]).await.outcomes(), ["applied"]);
    let at = door.house.ledger.now();
    let erase = EmployeeCommand::EraseBiometrics { because: Erasure::Requested, at };
    let id = employee.to_string();
    door.house.ledger.execute::<Employee>(&id, erase, &Metadata::default()).await.unwrap();
    let told = eventually("the device to be told", PATIENCE, async || {
        Ok(door.waiting(&door.device).await.into_iter().next())
    })
    .await
    .unwrap();
    assert_eq!(told["type"], "forget_photos");
    assert_eq!(told["args"], json!({ "employee": employee, "taken_until": at }));
    let expires_at: Time = told["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires_at.millis_since(at), i64::from(FORGETTING_LIFE_S) * 1_000);
    // The follower may do a step twice.
    let head = door.head().await;
    commands::forget_photos(&door.house.app, employee, at).await.unwrap();
    assert_eq!(door.head().await, head);
    assert_eq!(door.waiting(&earlier).await.len(), 1);
    assert_eq!(door.waiting(&far).await.len(), 0);
    let path = format!("/v1/devices/{}/commands", revoked.id);
    assert_eq!(door.house.read(&path).await.body["data"], json!([]));
    door.house.close().await;
}
