//! What explanations say in situations that people met in the field, over HTTP.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use common::{Device, House, day_of};
use hyper::StatusCode;
use punchtrail_protocol::{
    EmployeeId, PunchId, Time,
    capture::{Capture, IdentifiedBy, PunchKind},
};
use serde_json::{Value, json};

struct Scene {
    house: House,
    device: Device,
    employee: EmployeeId,
}

impl Scene {
    async fn of_zone(tz: &str) -> Self {
        let house = House::new().await;
        let site = house.site_in(tz).await;
        let employee = house.employee(site, "B1", "Ada Lovelace").await;
        let device = house.device(site).await;
        Self { house, device, employee }
    }

    fn capture(&mut self, kind: PunchKind, at: &str, change: impl FnOnce(&mut Capture)) -> Capture {
        let employee = self.employee;
        self.device.chain.capture_with(|capture| {
            (capture.employee, capture.kind) = (Some(employee), kind);
            capture.captured_at = at.parse().unwrap();
            change(capture);
        })
    }

    async fn take(&mut self, captures: &[Capture]) {
        let items: Vec<Value> = captures.iter().map(|capture| self.device.item(capture)).collect();
        let outcomes = self.house.deliver(&self.device, &items).await.outcomes();
        assert!(outcomes.iter().all(|outcome| outcome == "applied"), "{outcomes:?}");
        self.house.settled().await;
    }

    async fn punch(&self, punch: PunchId) -> Value {
        let answer = self.house.read(&format!("/v1/punches/{punch}/explanation")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body
    }

    async fn day(&self, day: &str) -> Value {
        let path = format!("/v1/employees/{}/days/{day}/explanation", self.employee);
        let answer = self.house.read(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body
    }
}

fn told(explanation: &Value) -> String {
    let sentences = explanation["sentences"].as_array().unwrap();
    let texts: Vec<&str> = sentences.iter().map(|said| said.as_str().unwrap()).collect();
    texts.join("\n")
}

#[track_caller]
fn says(explanation: &Value, parts: &[&str]) {
    let told = told(explanation);
    for part in parts {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn the_hour_that_comes_twice_says_which() {
    let cases = [
        ("America/New_York", "2026-11-01", "05:45", "06:15", "01:45:00 EDT", "01:15:00 EST"),
        ("Europe/Berlin", "2026-10-25", "00:50", "01:10", "02:50:00 CEST", "02:10:00 CET"),
        (
            "Australia/Lord_Howe",
            "2026-04-05",
            "14:50",
            "15:05",
            "01:50:00 UTC+11",
            "01:35:00 UTC+10:30",
        ),
    ];
    for (tz, day, from, until, first, second) in cases {
        let mut scene = Scene::of_zone(tz).await;
        let date = if tz.starts_with("Australia") { "2026-04-04" } else { day };
        let at = |clock: &str| format!("{date}T{clock}:00.000Z");
        let came = scene.capture(PunchKind::In, &at(from), |_| {});
        let left = scene.capture(PunchKind::Out, &at(until), |_| {});
        scene.take(&[came.clone(), left.clone()]).await;
        says(&scene.punch(came.punch).await, &[&format!("at {first}")]);
        says(&scene.punch(left.punch).await, &[&format!("at {second}")]);
        let (came_at, left_at) =
            (format!("clocked in at {first}"), format!("clocked out at {second}"));
        says(&scene.day(day).await, &[&came_at, &left_at]);

        let ruling = json!({"decision": "amend", "effective_at": left.captured_at});
        let path = format!("/v1/punches/{}/decision", came.punch);
        let ruled = scene.house.write(&path, &ruling).await;
        assert!(ruled.status.is_success(), "{}", ruled.text);
        says(&scene.punch(came.punch).await, &[&format!("to {second} instead of {first}")]);
        scene.house.close().await;
    }
}

#[tokio::test]
async fn what_is_only_in_quarantine_is_named_on_the_day() {
    let mut scene = Scene::of_zone("Europe/Berlin").await;
    let other = scene.house.employee(scene.device.site(), "B2", "Ben Okafor").await;
    let lunch = |capture: &Capture, field: &str, to: Value| {
        let mut said = serde_json::to_value(capture).unwrap();
        said[field] = to;
        said.to_string()
    };
    let first = scene.capture(PunchKind::In, "2026-11-10T11:00:00.000Z", |_| {});
    let second = scene.capture(PunchKind::Out, "2026-11-10T12:00:00.000Z", |_| {});
    let third = scene.capture(PunchKind::In, "2026-11-11T12:00:00.000Z", |_| {});
    let others = scene.capture(PunchKind::In, "2026-11-10T11:00:00.000Z", |capture| {
        capture.employee = Some(other);
    });
    let items = [
        lunch(&first, "kind", json!("lunch")),
        lunch(&second, "employee", json!("nobody that can be read")),
        lunch(&third, "uptime_ms", json!(-1)),
        lunch(&others, "kind", json!("lunch")),
    ];
    let items: Vec<Value> = items.iter().map(|text| scene.device.signed(text.as_bytes())).collect();
    let outcomes = scene.house.deliver(&scene.device, &items).await.outcomes();
    assert!(outcomes.iter().all(|one| one == "quarantined bad_capture"), "{outcomes:?}");
    scene.house.settled().await;

    let day = scene.day("2026-11-10").await;
    assert_eq!(day["punches"], json!([]));
    assert_eq!(day["quarantined_count"], 2, "not what names somebody else: {day}");
    assert_eq!(day["quarantined"][0]["names_worker"], true);
    assert_eq!(day["quarantined"][0]["captured_at"], "2026-11-10T11:00:00.000Z");
    assert_eq!(day["quarantined"][1]["names_worker"], false);
    says(
        &day,
        &["says to be a punch of Ada Lovelace made at 12:00:00", "whose it is can't be read"],
    );
    let conclusion = day["conclusion"]["sentence"].as_str().unwrap();
    assert!(conclusion.ends_with("may be among what waits for a person here."), "{conclusion}");
    assert_eq!(scene.day("2026-11-11").await["quarantined_count"], 1);
    assert_eq!(scene.day("2026-11-12").await["quarantined_count"], 0);

    // Nothing of it can be read: it is of the day on which it came.
    let noise = scene.device.signed(b"no capture at all");
    let outcomes = scene.house.deliver(&scene.device, &[noise]).await.outcomes();
    assert!(outcomes[0].starts_with("quarantined"), "{outcomes:?}");
    let item = scene.house.read("/v1/quarantine").await;
    let received = item.body["data"].as_array().unwrap().iter().map(|one| &one["received_at"]);
    let newest: Time = received.filter_map(|at| at.as_str()?.parse().ok()).max().unwrap();
    let today = scene.day(&day_of(newest)).await;
    says(&today, &["whose it is and when it was made can't be read"]);
    scene.house.close().await;
}

#[tokio::test]
async fn a_badge_that_nobody_has_is_named_to_whose_day_lacks_it() {
    let mut scene = Scene::of_zone("Europe/Berlin").await;
    let unknown = |capture: &mut Capture| {
        (capture.employee, capture.badge) = (None, Some("777".to_owned()));
    };
    let came = scene.capture(PunchKind::In, "2026-11-10T07:00:00.000Z", unknown);
    let left = scene.capture(PunchKind::Out, "2026-11-10T15:00:00.000Z", unknown);
    scene.take(&[came.clone(), left.clone()]).await;
    let waiting = scene.punch(came.punch).await;
    assert_eq!(
        (waiting["counts"].clone(), waiting["employee"].clone()),
        (json!(false), json!(null))
    );
    says(&waiting, &["Somebody with an unknown badge", "It counts for nobody until then."]);
    let day = scene.day("2026-11-10").await;
    assert_eq!(day["unknown_badges_count"], 2, "{day}");
    assert_eq!(day["unknown_badges"][0]["punch"], json!(came.punch));
    assert_eq!(day["unknown_badges"][0]["tie"], "here");
    says(
        &day,
        &["Somebody clocked in", "Somebody clocked out", "It counts for nobody until it is known"],
    );
    assert!(!day.to_string().contains("777"), "{day}");

    let own_in = scene.capture(PunchKind::In, "2026-11-10T07:30:00.000Z", |_| {});
    let own_out = scene.capture(PunchKind::Out, "2026-11-10T15:30:00.000Z", |_| {});
    scene.take(&[own_in, own_out]).await;
    let whole = scene.day("2026-11-10").await;
    assert_eq!(whole["unknown_badges_count"], 0, "a day that lacks nothing: {whole}");
    scene.house.close().await;
}

#[tokio::test]
async fn a_clock_that_was_right_and_showed_utc_a_pin_and_a_punch_alone() {
    let mut scene = Scene::of_zone("Europe/Berlin").await;
    let now = Time::from(jiff::Timestamp::now());
    scene.house.beat(&scene.device).await;
    let pin = |by| {
        move |capture: &mut Capture| {
            (capture.identified_by, capture.uptime_ms) = (by, 120_000);
            (capture.utc_offset_s, capture.tz) = (0, "Etc/UTC".to_owned());
        }
    };
    let capture = scene.capture(PunchKind::Out, &now.to_string(), pin(IdentifiedBy::Pin));
    scene.take(std::slice::from_ref(&capture)).await;
    let explained = scene.punch(capture.punch).await;
    assert!(!explained.to_string().contains("none_set_up"), "{explained}");
    assert_eq!(explained["steps"][2]["evidence"]["identified_by"], "pin");
    assert_eq!(explained["on_card"]["code"], "out_without_in");
    let parts = [
        "The device's clock was right; its screen showed ",
        ", UTC, where the site had ",
        "A PIN confirmed who punched",
        "On the card it has no partner: no shift was open for it to close.",
    ];
    says(&explained, &parts);
    scene.house.close().await;
}

#[tokio::test]
async fn both_punches_of_one_reading_taken_twice_say_so() {
    let mut scene = Scene::of_zone("Europe/Berlin").await;
    let came = scene.capture(PunchKind::In, "2026-11-10T07:00:00.000Z", |_| {});
    let left = scene.capture(PunchKind::Out, "2026-11-10T07:00:04.000Z", |_| {});
    scene.take(&[came.clone(), left.clone()]).await;
    let (first, second) = (scene.punch(came.punch).await, scene.punch(left.punch).await);
    assert_eq!(second["standing"], "referred", "{second}");
    says(&second, &["Ada Lovelace had clocked in only 4 seconds earlier", "taken twice"]);
    says(&first, &["The clocking out 4 seconds later", "waits for a manager"]);
    scene.house.close().await;
}
