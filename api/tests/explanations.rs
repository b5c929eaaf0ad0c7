//! Explanations, over HTTP: of a punch from capture to ruling, and of a worker's day.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use common::{Device, House};
use hyper::StatusCode;
use punchtrail_protocol::{EmployeeId, Time, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

async fn at_work() -> (House, Device, EmployeeId) {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada Lovelace").await;
    let device = house.device(site).await;
    (house, device, employee)
}

fn steps(explanation: &Value) -> Vec<&str> {
    let steps = explanation["steps"].as_array().unwrap();
    steps.iter().map(|step| step["step"].as_str().unwrap()).collect()
}

fn told(explanation: &Value) -> String {
    let sentences = explanation["sentences"].as_array().unwrap();
    let texts: Vec<&str> = sentences.iter().map(|said| said.as_str().unwrap()).collect();
    texts.join("\n")
}

#[tokio::test]
async fn a_double_tap_explains_itself_before_and_after_the_ruling() {
    let (house, mut device, employee) = at_work().await;
    let first = device.capture(employee, PunchKind::In);
    let second = device.capture(employee, PunchKind::In);
    house.deliver(&device, &[device.item(&first), device.item(&second)]).await;
    let head = house.settled().await;
    let path = format!("/v1/punches/{}/explanation", second.punch);
    let waiting = house.read_after(&path, head).await.body;
    assert_eq!(waiting["standing"], "referred");
    assert_eq!(waiting["counts"], true);
    assert_eq!(steps(&waiting), ["captured", "synced", "verified", "decided"]);
    assert_eq!(waiting["steps"][3]["evidence"]["anomalies"][0]["code"], "near_duplicate");
    let sentences = told(&waiting);
    assert!(sentences.contains("Ada Lovelace also clocked in"), "{sentences}");
    assert!(sentences.contains(&first.punch.to_string()), "{sentences}");
    assert!(sentences.contains("waits for a manager.\nIt counts until then."), "{sentences}");
    assert!(sentences.ends_with("the first one counts there."), "as on the card: {sentences}");

    let ruling = json!({"decision": "reject", "reason": "duplicate", "note": "tapped twice"});
    let ruled = house.write(&format!("/v1/punches/{}/decision", second.punch), &ruling).await;
    let position = ruled.body["position"].as_u64().unwrap();
    let rejected = house.read_after(&path, position).await;
    assert_eq!(rejected.body["counts"], false);
    assert_eq!(rejected.body["position"], position);
    let end = "The note on it: “tapped twice”.\nIt does not count.";
    assert!(told(&rejected.body).ends_with(end), "{}", rejected.text);
    assert_eq!(house.read(&path).await.text, rejected.text, "the same events, the same answer");
    house.close().await;
}

#[tokio::test]
async fn who_may_not_ask_and_what_is_not_there() {
    let (house, device, employee) = at_work().await;
    let unknown = format!("/v1/punches/{}/explanation", Uuid::now_v7());
    assert_eq!(house.read(&unknown).await.refusal(), "404 not_found");
    assert_eq!(house.read("/v1/punches/1/explanation").await.refusal(), "404 not_found");
    assert_eq!(house.get(&unknown, None).await.refusal(), "401 unauthenticated");
    assert_eq!(house.get(&unknown, Some(&device.token)).await.refusal(), "403 forbidden");
    let stranger = format!("/v1/employees/{}/days/2026-11-21/explanation", Uuid::now_v7());
    assert_eq!(house.read(&stranger).await.refusal(), "404 not_found");
    for day in ["2026-02-30", "today", "2026-11-21T00:00:00Z", "-000001-01-01", "9999-12-31"] {
        let answer = house.read(&format!("/v1/employees/{employee}/days/{day}/explanation")).await;
        assert!(!answer.status.is_server_error(), "{day}: {}", answer.text);
    }
    house.close().await;
}

#[tokio::test]
async fn a_day_names_the_device_that_still_holds_punches() {
    let (house, mut device, employee) = at_work().await;
    let now = Time::from(jiff::Timestamp::now());
    let captures: Vec<_> = (0..3).map(|_| device.capture(employee, PunchKind::Out)).collect();
    house.deliver(&device, &[device.item(&captures[0]), device.item(&captures[2])]).await;
    let mut heartbeat = device.heartbeat();
    heartbeat["outbox"] = json!(1);
    heartbeat["oldest"] = json!(captures[1].captured_at);
    house.post("/v1/devices/self/heartbeat", Some(&device.token), &heartbeat).await;
    let head = house.settled().await;

    let zone = house.read(&format!("/v1/sites/{}", device.site())).await.body["tz"].clone();
    let zone = jiff::tz::TimeZone::get(zone.as_str().unwrap()).unwrap();
    let day = now.timestamp().to_zoned(zone).date();
    let path = format!("/v1/employees/{employee}/days/{day}/explanation");
    let absence = house.read_after(&path, head).await;
    assert_eq!(absence.status, StatusCode::OK, "{}", absence.text);
    assert_eq!(absence.body["punches"].as_array().unwrap().len(), 2);
    assert_eq!(absence.body["conclusion"]["code"], "on_the_way");
    let held = &absence.body["devices"][0];
    assert_eq!(held["holds"], "punches");
    assert_eq!(held["waiting"], 1);
    assert_eq!(held["missing"][0]["gap"], json!({"from": 2, "to": 2}));
    let report = held["report"].as_str().unwrap();
    assert!(report.starts_with("By its last report at "), "{report}");
    assert!(report.contains("“Front door” still holds 1 punch"), "{report}");
    assert!(told(&absence.body).contains("number 2 is missing"), "{}", absence.text);
    house.close().await;
}
