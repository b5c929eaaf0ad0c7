//! A worker's own record over real HTTP: what a device shows after a PIN, and to whom it isn't
//! given.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Device, House};
use hyper::StatusCode;
use punchtrail_domain::employee::{Employee, EmployeeCommand};
use punchtrail_infra::ledger::Metadata;
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;

struct Scene {
    house: House,
    site: SiteId,
    employee: EmployeeId,
    device: Device,
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let employee = house.employee(site, "B1", "Ada Lovelace").await;
        // Never heard of: when it pressed is as it says.
        let device = house.device(site).await;
        Self { house, site, employee, device }
    }

    fn path(&self, query: &str) -> String {
        format!("/v1/sites/{}/employees/{}/record{query}", self.site, self.employee)
    }

    async fn record(&self, query: &str) -> common::Answer {
        let token = Some(self.device.token.as_str());
        let mut request = common::request(
            hyper::Method::GET,
            &self.path(query),
            token,
            axum::body::Body::empty(),
        );
        let head = self.house.ledger.head().await.unwrap();
        request.headers_mut().insert("punchtrail-after", head.0.into());
        self.house.ask(request).await
    }

    /// A punch at that time of a day some days ago, UTC.
    async fn punch(&mut self, kind: PunchKind, days_ago: i64, at_ms: i64) -> PunchId {
        let employee = self.employee;
        let midnight = jiff::Timestamp::now().to_string()[..10].to_owned();
        let midnight: Time = format!("{midnight}T00:00:00.000Z").parse().unwrap();
        let capture = self.device.chain.capture_with(|capture| {
            (capture.employee, capture.kind) = (Some(employee), kind);
            capture.captured_at = midnight.plus_millis(at_ms - days_ago * 24 * HOUR_MS);
            capture.uptime_ms = 60_000 + capture.seq;
        });
        let item = self.device.item(&capture);
        assert_eq!(self.house.deliver(&self.device, &[item]).await.outcomes(), ["applied"]);
        self.house.settled().await;
        capture.punch
    }
}

#[tokio::test]
async fn it_says_what_counts_and_why_in_words_and_no_name() {
    let mut scene = Scene::new().await;
    let came = scene.punch(PunchKind::In, 2, 8 * HOUR_MS).await;
    let twice = scene.punch(PunchKind::In, 2, 8 * HOUR_MS + 5_000).await;
    let left = scene.punch(PunchKind::Out, 2, 12 * HOUR_MS).await;
    // A night's work belongs to the day it began.
    let evening = scene.punch(PunchKind::In, 4, 20 * HOUR_MS).await;
    let morning = scene.punch(PunchKind::Out, 3, 2 * HOUR_MS).await;
    let reject = json!({ "decision": "reject", "reason": "duplicate" });
    let path = format!("/v1/punches/{twice}/decision");
    assert_eq!(scene.house.write(&path, &reject).await.status, StatusCode::OK);
    let answer = scene.record("?days=10").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert!(!answer.text.contains("Ada"), "{}", answer.text);
    let days = answer.body["days"].as_array().unwrap();
    assert_eq!(days.len(), 2, "{}", answer.text);
    let of = |day: &Value| -> Vec<Value> {
        day["punches"].as_array().unwrap().iter().map(|punch| punch["punch"].clone()).collect()
    };
    assert_eq!(of(&days[0]), [json!(evening), json!(morning)]);
    assert_eq!(of(&days[1]), [json!(came), json!(twice), json!(left)]);
    assert_eq!((&days[1]["accepted_min"], &days[1]["provisional_min"]), (&json!(240), &json!(0)));
    assert_eq!(days[0]["accepted_min"], 360);
    let rejected = &days[1]["punches"][1];
    assert_eq!(rejected["standing"], "rejected");
    assert_eq!(
        rejected["reasons"],
        json!([{ "code": "duplicate", "text": "A manager rejected it: it repeats another punch" }])
    );
    assert_eq!(answer.body["employee"], json!(scene.employee));
    let today = scene.record("?days=1").await;
    assert_eq!(today.body["days"], json!([]), "{}", today.text);
    scene.house.close().await;
}

#[tokio::test]
async fn it_tells_the_answer_to_a_dispute() {
    let mut scene = Scene::new().await;
    let punch = scene.punch(PunchKind::In, 0, 0).await;
    let dispute = Uuid::now_v7();
    let body = json!({
        "dispute": dispute, "employee": scene.employee, "punch": punch, "day": null,
        "cause": "not_mine", "text": "Not me",
    });
    let path = format!("/v1/sites/{}/disputes", scene.site);
    let opened = scene.house.post(&path, Some(&scene.device.token), &body).await;
    assert_eq!(opened.body["status"], "applied", "{}", opened.text);
    let told = scene.record("").await.body["disputes"][0].clone();
    assert_eq!((&told["state"], &told["text"]), (&json!("open"), &json!("Not me")));
    assert_eq!((&told["answers"], &told["resolution"]), (&json!([]), &Value::Null));
    let answer = json!({ "note": "We look" });
    scene.house.write(&format!("/v1/disputes/{dispute}/answers"), &answer).await;
    let settle = json!({ "how": "void", "note": "A colleague had your badge" });
    scene.house.write(&format!("/v1/disputes/{dispute}/resolution"), &settle).await;
    let told = scene.record("").await.body["disputes"][0].clone();
    assert_eq!(told["answers"][0]["text"], "We look");
    assert_eq!(told["resolution"]["how"], "void");
    assert_eq!(told["resolution"]["words"], "the punch was taken out of the count");
    assert_eq!(told["resolution"]["text"], "A colleague had your badge");
    scene.house.close().await;
}

#[tokio::test]
async fn it_is_given_to_a_device_of_the_site_and_to_nobody_else() {
    let scene = Scene::new().await;
    for (query, refusal) in [
        ("?days=0", "422 invalid: days invalid_value"),
        ("?days=32", "422 invalid: days invalid_value"),
        ("?days=-1", "422 invalid: days invalid_value"),
        ("?days=x", "422 invalid: days invalid_value"),
        ("?name=ada", "422 invalid: name unknown_field"),
    ] {
        assert_eq!(scene.record(query).await.refusal(), refusal, "{query}");
    }
    assert_eq!(scene.record("?days=31").await.status, StatusCode::OK);
    let get = async |path: &str, token: &str| scene.house.get(path, Some(token)).await.refusal();
    let elsewhere = scene.house.site().await;
    let stranger = scene.house.employee(elsewhere, "B2", "Ben").await;
    let of = |site: SiteId, who: EmployeeId| format!("/v1/sites/{site}/employees/{who}/record");
    assert_eq!(get(&of(scene.site, stranger), &scene.device.token).await, "404 not_found");
    assert_eq!(get(&of(elsewhere, stranger), &scene.device.token).await, "404 not_found");
    let nobody = EmployeeId(Uuid::now_v7());
    assert_eq!(get(&of(scene.site, nobody), &scene.device.token).await, "404 not_found");
    assert_eq!(get(&of(scene.site, scene.employee), &scene.house.key).await, "403 forbidden");
    // Who left the site is no longer shown there.
    let gone = EmployeeCommand::UnassignFromSite { site: scene.site, until: Time::default() };
    let (id, metadata) = (scene.employee.to_string(), Metadata::default());
    scene.house.ledger.execute::<Employee>(&id, gone, &metadata).await.unwrap();
    assert_eq!(scene.record("").await.refusal(), "404 not_found");
    let revoke = format!("/v1/devices/{}/revoke", scene.device.id);
    scene.house.send(hyper::Method::POST, &revoke, Some(&scene.house.key), "").await;
    assert_eq!(scene.record("").await.refusal(), "403 device_revoked");
    scene.house.close().await;
}

#[tokio::test]
async fn a_device_that_reads_too_many_waits() {
    let scene = Scene::new().await;
    let mut read = 0;
    let refused = loop {
        let answer = scene.record("").await;
        if answer.status != StatusCode::OK {
            break answer;
        }
        read += 1;
        assert!(read < 60, "of one person");
    };
    assert_eq!(refused.refusal(), "429 quota_exceeded");
    assert!(refused.headers.contains_key("retry-after"));
    assert!(read >= 10, "{read}");
    // Another's is still given, and one who isn't there counts like one who is.
    let ben = scene.house.employee(scene.site, "B2", "Ben").await;
    let path = format!("/v1/sites/{}/employees/{ben}/record", scene.site);
    assert_eq!(scene.house.get(&path, Some(&scene.device.token)).await.status, StatusCode::OK);
    let mut tried = 0;
    loop {
        let path =
            format!("/v1/sites/{}/employees/{}/record", scene.site, EmployeeId(Uuid::now_v7()));
        let answer = scene.house.get(&path, Some(&scene.device.token)).await.refusal();
        if answer == "429 quota_exceeded" {
            break;
        }
        assert_eq!(answer, "404 not_found");
        tried += 1;
        assert!(tried < 200, "guessing who is there is bounded, too");
    }
    scene.house.close().await;
}
