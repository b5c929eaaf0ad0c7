//! Disputes over real HTTP: opened by workers at devices and by people, answered, settled, and what
//! can't be meant refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, Device, House, day_of};
use hyper::StatusCode;
use punchtrail_domain::employee::{Employee, EmployeeCommand};
use punchtrail_infra::{access::credentials, ledger::Metadata, testing::sqlx};
use punchtrail_protocol::{EmployeeId, SiteId, Time, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

const TEXT: &str = "I was there <script>alert(1)</script>\n\u{202e}evil\u{202c} שלום";

/// A site with a worker and a device that delivered an in.
struct Scene {
    house: House,
    site: SiteId,
    employee: EmployeeId,
    device: Device,
    punch: String,
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let employee = house.employee(site, "B1", "Ada Lovelace").await;
        let mut device = house.device(site).await;
        house.beat(&device).await;
        let item = device.next(employee, PunchKind::In);
        let answer = house.deliver(&device, &[item]).await;
        let punch = answer.body["results"][0]["punch"].as_str().unwrap().to_owned();
        house.settled().await;
        Self { house, site, employee, device, punch }
    }

    fn about_punch(&self) -> Value {
        json!({
            "dispute": Uuid::now_v7(), "employee": self.employee, "punch": self.punch, "day": null,
            "cause": "wrong_time", "text": TEXT,
        })
    }

    fn about_day(&self, day: &str) -> Value {
        json!({
            "dispute": Uuid::now_v7(), "employee": self.employee, "punch": null, "day": day,
            "cause": "missing_punch", "text": "",
        })
    }

    /// As the device sends it.
    async fn dispute(&self, body: &Value) -> Answer {
        let path = format!("/v1/sites/{}/disputes", self.site);
        self.house.post(&path, Some(&self.device.token), body).await
    }

    async fn opened(&self, body: &Value) -> String {
        let answer = self.dispute(body).await;
        assert_eq!(answer.body["status"], "applied", "{}", answer.text);
        body["dispute"].as_str().unwrap().to_owned()
    }

    async fn shown(&self, dispute: &str) -> Value {
        let answer = self.house.read(&format!("/v1/disputes/{dispute}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body
    }

    async fn settle(&self, dispute: &str, body: &Value) -> Answer {
        self.house.write(&format!("/v1/disputes/{dispute}/resolution"), body).await
    }

    async fn told(&self) -> String {
        let path = format!("/v1/punches/{}/explanation", self.punch);
        let explained = self.house.read(&path).await.body;
        let said = explained["sentences"].as_array().unwrap_or_else(|| panic!("{explained}"));
        said.iter().map(|said| said.as_str().unwrap()).collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test]
async fn a_worker_opens_one_at_the_device_and_a_manager_settles_it() {
    let scene = Scene::new().await;
    let body = scene.about_punch();
    let dispute = scene.opened(&body).await;
    let again = scene.dispute(&body).await.body;
    assert_eq!(again["status"], "duplicate");
    let shown = scene.shown(&dispute).await;
    assert_eq!((&shown["state"], &shown["cause"]), (&json!("open"), &json!("wrong_time")));
    assert_eq!(shown["opened_by"], format!("device:{}", scene.device.id));
    assert_eq!(shown["employee_name"], "Ada Lovelace");
    assert_eq!(shown["position"], again["position"]);
    assert_eq!(shown["history"][0]["text"], TEXT, "exactly as it was typed");
    assert_eq!(shown["history"][0]["actor"]["type"], "device");

    let answers = format!("/v1/disputes/{dispute}/answers");
    let answered = scene.house.write(&answers, &json!({ "note": "Which time?" })).await;
    assert_eq!(answered.status, StatusCode::OK, "{}", answered.text);
    assert_eq!(scene.shown(&dispute).await["state"], "answered");

    let at = Time::from(jiff::Timestamp::now()).plus_millis(-3_600_000);
    let amend = json!({ "how": "amend", "effective_at": at, "note": "Seen on the door's list" });
    let settled = scene.settle(&dispute, &amend).await;
    assert_eq!(settled.status, StatusCode::OK, "{}", settled.text);
    let shown = scene.shown(&dispute).await;
    assert_eq!((&shown["state"], &shown["how"]), (&json!("resolved"), &json!("amend")));
    assert!(shown["resolved_by"].as_str().unwrap().starts_with("key:"));
    assert_eq!(shown["history"][2]["text"], "Seen on the door's list");
    let punch = scene.house.read(&format!("/v1/punches/{}", scene.punch)).await.body;
    assert_eq!(punch["effective_at"], json!(at));

    let told = scene.told().await;
    for said in [
        "disputed it",
        "its time is said to be wrong",
        "“test” answered",
        "“test” settled the dispute",
        "the punch was corrected",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert!(told.contains("Ada Lovelace, at “Front door”, disputed it"), "{told}");
    assert!(!told.contains("script"), "not what the worker wrote: {told}");
    assert!(told.contains("“Seen on the door's list”"), "{told}");

    // Once more is 409, which names who and when.
    let late = scene.settle(&dispute, &json!({ "how": "dismiss", "note": "no" })).await;
    assert_eq!(late.refusal(), "409 already_ruled");
    assert!(late.body["detail"].as_str().unwrap().contains("“test” settled it at 20"));
    let reopening = format!("/v1/disputes/{dispute}/reopening");
    let reopened = scene.house.write(&reopening, &json!({ "note": "A new list came" })).await;
    assert_eq!(reopened.status, StatusCode::OK, "{}", reopened.text);
    let shown = scene.shown(&dispute).await;
    assert_eq!((&shown["state"], &shown["how"]), (&json!("reopened"), &Value::Null));
    let accept = json!({ "how": "accept", "note": "Right after all" });
    assert_eq!(scene.settle(&dispute, &accept).await.status, StatusCode::OK);
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_and_nothing_is_written() {
    let scene = Scene::new().await;
    let elsewhere = scene.house.site().await;
    let stranger = scene.house.employee(elsewhere, "B2", "Ben").await;
    let head = scene.house.settled().await;
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(72);
    let tomorrow = tomorrow.to_string()[..10].to_owned();
    let with = |field: &str, value: Value| {
        let mut body = scene.about_punch();
        body[field] = value;
        body
    };
    for (body, refusal) in [
        (with("text", json!("x".repeat(10_000))), "422 invalid: /text invalid_value"),
        (with("text", json!("a\u{1b}[2Jb")), "422 invalid: /text invalid_value"),
        (with("text", Value::Null), "422 invalid: /text invalid_value"),
        (with("dispute", json!(Uuid::new_v4())), "422 invalid: /dispute invalid_value"),
        (with("cause", json!("missing_punch")), "422 invalid: /cause invalid_value"),
        (with("cause", json!("bored")), "422 invalid: /cause invalid_value"),
        (with("day", json!("2026-11-21")), "422 invalid: /punch invalid_value"),
        (with("punch", Value::Null), "422 invalid: /punch invalid_value"),
        (with("day", json!("yesterday")), "422 invalid: /day invalid_value"),
        (with("day", json!("2026-11-21T00:00:00")), "422 invalid: /day invalid_value"),
        (with("employee", json!(stranger)), "404 not_found"),
        (with("employee", json!(Uuid::now_v7())), "404 not_found"),
        (with("color", json!("red")), "422 invalid: /color unknown_field"),
        (scene.about_day(&tomorrow), "422 invalid: /day invalid_value"),
        (scene.about_day("9999-12-31"), "422 invalid: /day invalid_value"),
    ] {
        assert_eq!(scene.dispute(&body).await.refusal(), refusal, "{body}");
    }
    let foreign = format!("/v1/sites/{elsewhere}/disputes");
    let answer = scene.house.post(&foreign, Some(&scene.device.token), &scene.about_punch()).await;
    assert_eq!(answer.refusal(), "404 not_found", "the device never served that site");
    assert_eq!(scene.house.settled().await, head);

    // The first stands, whatever comes under its id.
    let body = scene.about_punch();
    let dispute = scene.opened(&body).await;
    for (field, value) in [
        ("text", json!("something else")),
        ("cause", json!("wrong_kind")),
        ("punch", json!(Uuid::now_v7())),
    ] {
        let mut other = body.clone();
        other[field] = value;
        assert_eq!(scene.dispute(&other).await.refusal(), "409 conflict", "{field}");
    }
    let unknown = Uuid::now_v7();
    for (path, body, refusal) in [
        ("resolution", json!({ "how": "dismiss" }), "422 invalid: /note missing_field"),
        (
            "resolution",
            json!({ "how": "dismiss", "note": " " }),
            "422 invalid: /note invalid_value",
        ),
        ("answers", json!({ "note": "x".repeat(2_001) }), "422 invalid: /note invalid_value"),
        ("answers", json!({ "note": "a\u{0}" }), "400 malformed_json"),
        ("reopening", json!({ "note": "why" }), "409 conflict"),
        (
            "resolution",
            json!({ "how": "amend", "note": "n" }),
            "422 invalid: /effective_at missing_field",
        ),
        (
            "resolution",
            json!({ "how": "void", "kind": "in", "note": "n" }),
            "422 invalid: /effective_at invalid_value",
        ),
        (
            "resolution",
            json!({ "how": "add", "note": "n" }),
            "422 invalid: /by_punch missing_field",
        ),
        (
            "resolution",
            json!({ "how": "add", "by_punch": unknown, "note": "n" }),
            "422 invalid: /by_punch unknown",
        ),
        (
            "resolution",
            json!({ "how": "dismiss", "by_punch": unknown, "note": "n" }),
            "422 invalid: /by_punch invalid_value",
        ),
        (
            "resolution",
            json!({ "how": "dismiss", "note": "n", "expected_sequence": 7 }),
            "409 already_ruled",
        ),
    ] {
        let path = format!("/v1/disputes/{dispute}/{path}");
        assert_eq!(scene.house.write(&path, &body).await.refusal(), refusal, "{body}");
    }
    let nothing =
        scene.settle(&unknown.to_string(), &json!({ "how": "dismiss", "note": "n" })).await;
    assert_eq!(nothing.refusal(), "404 not_found");
    assert_eq!(
        scene.house.read(&format!("/v1/disputes/{unknown}")).await.refusal(),
        "404 not_found"
    );
    let path = format!("/v1/sites/{}/disputes", scene.site);
    let key = scene.house.post(&path, Some(&scene.house.key), &body).await;
    assert_eq!(key.refusal(), "403 forbidden");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn two_managers_do_not_overrule_one_another_unseen() {
    let scene = Scene::new().await;
    let dispute = scene.opened(&scene.about_punch()).await;
    let seen = scene.shown(&dispute).await["sequence"].clone();
    let (_, other) =
        credentials::create_operator_key(&scene.house.pools.writer, "Mo \u{202e}x", None)
            .await
            .unwrap();
    let path = format!("/v1/disputes/{dispute}/answers");
    let answer = json!({ "note": "On it", "expected_sequence": seen });
    let first = scene.house.post(&path, Some(other.reveal()), &answer).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    let void = json!({ "how": "void", "note": "Double", "expected_sequence": seen });
    let second = scene.settle(&dispute, &void).await;
    assert_eq!(second.refusal(), "409 already_ruled");
    let detail = second.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("“Mo \\u{202e}x” answered it at "), "{detail}");
    let punch = scene.house.read(&format!("/v1/punches/{}", scene.punch)).await.body;
    assert_eq!(punch["standing"], "accepted", "and the punch wasn't ruled on");
    // At once, from many: one settles it, the others hear who did.
    let void = void_now();
    let settle = || scene.settle(&dispute, &void);
    let all = tokio::join!(settle(), settle(), settle());
    let codes = [all.0, all.1, all.2].map(|answer| answer.status.as_u16());
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), 2, "{codes:?}");
    scene.house.settled().await;
    let punch = scene.house.read(&format!("/v1/punches/{}", scene.punch)).await.body;
    assert_eq!(punch["standing"], "voided");
    let events = scene.house.read(&format!("/v1/punches/{}/events", scene.punch)).await.body;
    let voided = events["data"].as_array().unwrap().iter().filter(|e| e["event_type"] == "Voided");
    assert_eq!(voided.count(), 1);
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

fn void_now() -> Value {
    json!({ "how": "void", "note": "Double" })
}

#[tokio::test]
async fn a_punch_that_was_ruled_on_before_needs_no_second_ruling() {
    let scene = Scene::new().await;
    let dispute = scene.opened(&scene.about_punch()).await;
    // As if whoever ruled had been cut off before the dispute was settled.
    let decision = format!("/v1/punches/{}/decision", scene.punch);
    let ruled = scene.house.write(&decision, &json!({ "decision": "void" })).await;
    assert_eq!(ruled.status, StatusCode::OK, "{}", ruled.text);
    let amend = json!({ "how": "amend", "kind": "out", "note": "n" });
    let refused = scene.settle(&dispute, &amend).await;
    assert_eq!(refused.refusal(), "409 conflict", "it was voided");
    assert_eq!(scene.shown(&dispute).await["state"], "open");
    assert_eq!(scene.settle(&dispute, &void_now()).await.status, StatusCode::OK);
    assert_eq!(scene.shown(&dispute).await["how"], "void");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn the_punch_may_come_later_than_its_dispute() {
    let mut scene = Scene::new().await;
    let capture = scene.device.capture(scene.employee, PunchKind::Out);
    let mut body = scene.about_punch();
    body["punch"] = json!(capture.punch);
    let dispute = scene.opened(&body).await;
    let early = scene.settle(&dispute, &json!({ "how": "accept", "note": "n" })).await;
    assert_eq!(early.refusal(), "404 not_found", "there is nothing to rule on yet");
    let item = scene.device.item(&capture);
    assert_eq!(scene.house.deliver(&scene.device, &[item]).await.outcomes(), ["applied"]);
    scene.house.settled().await;
    let path = format!("/v1/punches/{}/explanation", capture.punch);
    assert!(scene.house.read(&path).await.text.contains(&dispute));
    let accept = scene.settle(&dispute, &json!({ "how": "accept", "note": "n" })).await;
    assert_eq!(accept.status, StatusCode::OK, "{}", accept.text);
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn the_evidence_of_a_day_gathers_itself() {
    let mut scene = Scene::new().await;
    let today = day_of(jiff::Timestamp::now().into());
    // A number is missing, a badge nobody knows, an item in quarantine, and the device holds more.
    drop(scene.device.capture(scene.employee, PunchKind::Out));
    let unknown = scene.device.chain.capture_with(|capture| {
        (capture.employee, capture.badge) = (None, Some("B-9".to_owned()));
        capture.captured_at = Time::from(jiff::Timestamp::now());
        capture.uptime_ms = 70_000;
    });
    let later = scene.device.capture(scene.employee, PunchKind::In);
    let unsigned = json!({
        "capture": scene.device.item(&later)["capture"], "signature": "",
    });
    let item = scene.device.item(&unknown);
    scene.house.deliver(&scene.device, &[item, unsigned]).await;
    let mut beat = scene.device.heartbeat();
    (beat["outbox"], beat["oldest"]) = (json!(12), json!(unknown.captured_at));
    scene.house.post("/v1/devices/self/heartbeat", Some(&scene.device.token), &beat).await;
    let head = scene.house.settled().await;
    scene
        .house
        .read_after(&format!("/v1/employees/{}/days/{today}/explanation", scene.employee), head)
        .await;

    let dispute = scene.opened(&scene.about_day(&today)).await;
    let shown = scene.shown(&dispute).await;
    let evidence = &shown["evidence"];
    assert_eq!(evidence["punches"], 1, "{shown}");
    assert_eq!(evidence["unknown_badges"], json!([unknown.punch]));
    assert_eq!(evidence["quarantined"].as_array().unwrap().len(), 1);
    let device = &evidence["devices"][0];
    assert_eq!(device["device"], json!(scene.device.id));
    assert_eq!(device["last_report"]["waiting"], 12);
    assert_eq!(device["missing"], json!([{ "from": 2, "to": 2 }]));
    assert_eq!(shown["day_now"]["conclusion"]["code"], "on_the_way");
    assert_eq!(shown["history"].as_array().unwrap().len(), 2, "opened, and evidence");

    // What it held came in: settled, the dispute says what was known then.
    let mut beat = scene.device.heartbeat();
    beat["outbox"] = json!(0);
    scene.house.post("/v1/devices/self/heartbeat", Some(&scene.device.token), &beat).await;
    let ruling = scene.settle(&dispute, &void_now()).await;
    assert_eq!(ruling.refusal(), "422 invalid", "there is no punch to be voided");
    let settle = json!({ "how": "add", "by_punch": unknown.punch, "note": "It was that badge" });
    let settled = scene.settle(&dispute, &settle).await;
    assert_eq!(settled.status, StatusCode::OK, "{}", settled.text);
    let shown = scene.shown(&dispute).await;
    assert_eq!((&shown["how"], &shown["by_punch"]), (&json!("add"), &json!(unknown.punch)));
    assert_eq!(shown["evidence"]["devices"][0]["last_report"]["waiting"], 0);
    let path = format!("/v1/employees/{}/days/{today}/explanation", scene.employee);
    let day = scene.house.read(&path).await.body;
    assert_eq!(day["disputes"][0]["dispute"], json!(dispute));
    assert!(day["sentences"].to_string().contains("the missing punch was entered"), "{day}");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn what_is_not_disputed_is_paid() {
    let mut scene = Scene::new().await;
    let out = scene.device.chain.capture_with(|capture| {
        (capture.employee, capture.kind) = (Some(scene.employee), PunchKind::Out);
        capture.captured_at = Time::from(jiff::Timestamp::now());
        capture.uptime_ms = 90_000;
    });
    let item = scene.device.item(&out);
    scene.house.deliver(&scene.device, &[item]).await;
    scene.house.settled().await;
    let today = day_of(jiff::Timestamp::now().into());
    let from = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(48);
    let path = format!(
        "/v1/timecards?employee={}&from={}&to={today}",
        scene.employee,
        &from.to_string()[..10]
    );
    let before = scene.house.read(&path).await.body;
    let dispute = scene.opened(&scene.about_punch()).await;
    let day = scene.opened(&scene.about_day(&today)).await;
    assert_eq!(scene.house.read(&path).await.body, before, "open disputes change no hours");
    for open in [dispute, day] {
        let dismissed = scene.settle(&open, &json!({ "how": "dismiss", "note": "Right" })).await;
        assert_eq!(dismissed.status, StatusCode::OK, "{}", dismissed.text);
    }
    assert_eq!(scene.house.read(&path).await.body, before);
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn a_flood_is_bounded_and_what_waits_is_listed_in_pages() {
    let scene = Scene::new().await;
    let mut opened = Vec::new();
    let refused = loop {
        let body = scene.about_punch();
        let answer = scene.dispute(&body).await;
        if answer.status != StatusCode::OK {
            break (answer.refusal(), body);
        }
        opened.push(body);
        assert!(opened.len() <= 100, "unbounded");
        // The bound follows the read side.
        scene.house.read("/v1/disputes?limit=1").await;
    };
    assert_eq!(refused.0, "422 disputes_full");
    assert_eq!(opened.len(), 50);
    // Others are heard all the same, and so is what is there already.
    let other = scene.house.employee(scene.site, "B2", "Ben").await;
    let mut body = scene.about_punch();
    body["employee"] = json!(other);
    body["cause"] = json!("wrong_person");
    scene.opened(&body).await;
    assert_eq!(scene.dispute(&opened[7]).await.body["status"], "duplicate");
    let first = opened[0]["dispute"].as_str().unwrap();
    scene.settle(first, &json!({ "how": "dismiss", "note": "n" })).await;
    scene.house.read("/v1/disputes?limit=1").await;
    scene.opened(&refused.1).await;

    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let filter = format!("site={}&employee={}&cause=wrong_time", scene.site, scene.employee);
        let page = scene.house.read(&format!("/v1/disputes?{filter}&limit=20{cursor}")).await.body;
        listed.extend(page["data"].as_array().unwrap().iter().map(|row| row["dispute"].clone()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<Value> =
        opened.iter().chain([&refused.1]).map(|body| body["dispute"].clone()).collect();
    assert_eq!(listed, expected, "the oldest first");
    let resolved = scene.house.read("/v1/disputes?state=resolved").await.body;
    assert_eq!(resolved["data"].as_array().unwrap().len(), 1);
    for (query, refusal) in [
        ("state=maybe", "422 invalid: state invalid_value"),
        ("cause=none", "422 invalid: cause invalid_value"),
        ("limit=0", "422 invalid: limit invalid_value"),
        ("color=red", "422 invalid: color unknown_field"),
        ("cursor=zzz", "400 cursor_invalid"),
    ] {
        let answer = scene.house.read(&format!("/v1/disputes?{query}")).await;
        assert_eq!(answer.refusal(), refusal, "{query}");
    }
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn people_open_them_too_and_erased_texts_stay_erased() {
    let scene = Scene::new().await;
    let mut body = scene.about_punch();
    body["site"] = json!(scene.site);
    let made = scene.house.write("/v1/disputes", &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let again = scene.house.write("/v1/disputes", &body).await;
    assert_eq!((again.status, &again.body), (StatusCode::OK, &made.body));
    let mut other = body.clone();
    other["text"] = json!("another");
    assert_eq!(scene.house.write("/v1/disputes", &other).await.refusal(), "409 conflict");
    body["dispute"] = json!(Uuid::now_v7());
    body["site"] = json!(Uuid::now_v7());
    let nowhere = scene.house.write("/v1/disputes", &body).await;
    assert_eq!(nowhere.refusal(), "422 invalid: /employee unknown");
    sqlx::query("delete from notes").execute(&scene.house.pools.writer).await.unwrap();
    assert_eq!(scene.house.write("/v1/disputes", &other).await.status, StatusCode::OK);
    let dispute = other["dispute"].as_str().unwrap();
    assert_eq!(scene.shown(dispute).await["history"][0]["text"], Value::Null);
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn a_revoked_device_delivers_what_was_disputed_at_it_also_of_who_has_gone() {
    let scene = Scene::new().await;
    let gone = EmployeeCommand::UnassignFromSite { site: scene.site, until: Time::default() };
    let (id, metadata) = (scene.employee.to_string(), Metadata::default());
    scene.house.ledger.execute::<Employee>(&id, gone, &metadata).await.unwrap();
    let revoke = format!("/v1/devices/{}/revoke", scene.device.id);
    scene.house.send(hyper::Method::POST, &revoke, Some(&scene.house.key), "").await;
    scene.opened(&scene.about_punch()).await;
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}
