//! What waits for a person, and what people rule, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, Device, House, request};
use hyper::{Method, StatusCode};
use punchtrail_infra::access::credentials;
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, capture::PunchKind};
use serde_json::{Value, json};

/// A worker's day at a site: in, out, and as many doubles of the out as asked for, each referred.
struct Scene {
    house: House,
    site: SiteId,
    employee: EmployeeId,
    device: Device,
    start: PunchId,
    doubles: Vec<PunchId>,
}

fn at(text: &str) -> Time {
    format!("2026-11-20T{text}.000Z").parse().unwrap()
}

impl Scene {
    async fn new(doubles: u32) -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let employee = house.employee(site, "B1", "Ada Lovelace").await;
        let device = house.device(site).await;
        let mut scene =
            Self { house, site, employee, device, start: PunchId::NIL, doubles: Vec::new() };
        scene.start = scene.press(PunchKind::In, at("08:00:00")).await;
        scene.press(PunchKind::Out, at("16:00:00")).await;
        for n in 0..doubles {
            let again = at("16:00:00").plus_millis(i64::from(n + 1) * 10_000);
            let double = scene.press(PunchKind::Out, again).await;
            scene.doubles.push(double);
        }
        scene.house.settled().await;
        scene
    }

    async fn press(&mut self, kind: PunchKind, at: Time) -> PunchId {
        let mut capture = self.device.capture(self.employee, kind);
        capture.captured_at = at;
        let capture = self.device.chain.capture_with(|next| {
            let seq = next.seq;
            let prev = next.prev;
            *next = capture.clone();
            (next.seq, next.prev) = (seq, prev);
        });
        let answer = self.house.deliver(&self.device, &[self.device.item(&capture)]).await;
        assert_eq!(answer.outcomes(), ["applied"], "{}", answer.text);
        capture.punch
    }

    async fn rule(&self, punch: PunchId, body: Value) -> Answer {
        self.house.write(&format!("/v1/punches/{punch}/decision"), &body).await
    }

    async fn ruled(&self, punch: PunchId, body: Value) -> Value {
        let answer = self.rule(punch, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        self.house.settled().await;
        answer.body
    }

    async fn reviews(&self, query: &str) -> Vec<Value> {
        let head = self.house.settled().await;
        let page = self.house.read_after(&format!("/v1/reviews?{query}"), head).await;
        page.body["data"].as_array().unwrap_or_else(|| panic!("{}", page.text)).clone()
    }
}

#[tokio::test]
async fn what_waits_is_listed_counted_and_paged() {
    let scene = Scene::new(3).await;
    let all = scene.reviews("").await;
    assert_eq!(all.len(), 3);
    assert_eq!(all[0]["punch"], json!(scene.doubles[0]), "the oldest first");
    assert_eq!(all[0]["employee_name"], "Ada Lovelace");
    assert_eq!(all[0]["doubts"][0]["code"], "near_duplicate");
    assert!(all[0]["doubts"][0]["text"].as_str().unwrap().contains(' '));
    let waited = |review: &Value, of: &str| review[of].as_str().unwrap().parse::<Time>().unwrap();
    let within = waited(&all[0], "due_at").millis_since(waited(&all[0], "referred_at"));
    assert_eq!(within, 3 * 86_400_000);
    for (query, count) in [
        (format!("site={}&reason=near_duplicate", scene.site), 3),
        (format!("employee={}", scene.employee), 3),
        ("reason=fork".to_owned(), 0),
        ("escalated=true".to_owned(), 0),
        ("before=2020-01-01T00:00:00.000Z".to_owned(), 0),
    ] {
        assert_eq!(scene.reviews(&query).await.len(), count, "{query}");
    }
    for filter in ["", "reason=near_duplicate&"] {
        let first = scene.house.read(&format!("/v1/reviews?{filter}limit=2")).await.body;
        assert_eq!(first["data"].as_array().unwrap().len(), 2);
        let cursor = first["next_cursor"].as_str().unwrap();
        let rest = scene.house.read(&format!("/v1/reviews?{filter}cursor={cursor}")).await.body;
        assert_eq!(rest["data"][0]["punch"], json!(scene.doubles[2]), "{filter}");
        assert_eq!(rest["has_more"], false);
    }
    let counts = scene.house.read(&format!("/v1/reviews/counts?site={}", scene.site)).await.body;
    let expected = json!({ "open": 3, "by_reason": [{ "reason": "near_duplicate", "open": 3 }] });
    assert_eq!(counts, expected);
    scene.ruled(scene.doubles[0], json!({ "decision": "accept" })).await;
    assert_eq!(scene.house.read("/v1/reviews/counts").await.body["open"], 2);
    assert_eq!(scene.reviews("").await.len(), 2);
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn a_review_shows_what_each_ruling_would_do_before_it_is_made() {
    let scene = Scene::new(0).await;
    let later = at("16:30:00");
    let mut scene = scene;
    // Half an hour after the first out: pairs with nothing, and stands for the wrong kind.
    let wrong = scene.press(PunchKind::Out, at("16:00:30")).await;
    scene.house.settled().await;
    let head = scene.house.settled().await;
    let shown = scene.house.read_after(&format!("/v1/reviews/{wrong}"), head).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.text);
    let shown = shown.body;
    assert_eq!(shown["neighbours"].as_array().unwrap().len(), 2);
    assert!(shown["sentences"].to_string().contains("also clocked out"), "{shown}");
    assert_eq!(shown["previews"]["use_server_time"], Value::Null);
    for ruling in ["accept", "reject"] {
        let days = shown["previews"][ruling].as_array().unwrap();
        assert_eq!(days[0]["day"], "2026-11-20");
        assert_eq!(days[0]["then"]["provisional_min"], 0, "{shown}");
        assert_eq!(days[0]["then"]["accepted_min"], 480, "{ruling}: {shown}");
    }
    let path = format!("/v1/punches/{}/decision/preview", scene.start);
    let void = scene.house.write(&path, &json!({ "decision": "void" })).await.body;
    let now = json!({ "accepted_min": 480, "provisional_min": 0, "taken_min": 0 });
    assert_eq!(void["days"][0]["now"], now, "{void}");
    let none = json!({ "accepted_min": 0, "provisional_min": 0, "taken_min": 0 });
    assert_eq!(void["days"][0]["then"], none, "{void}");
    let amend = json!({ "decision": "amend", "effective_at": at("09:00:00") });
    let amend = scene.house.write(&path, &amend).await.body;
    assert_eq!(amend["days"][0]["then"]["accepted_min"], 420, "{amend}");
    let tomorrow = json!({ "decision": "amend", "effective_at": later.plus_millis(86_400_000) });
    let tomorrow = scene.house.write(&path, &tomorrow).await.body;
    assert_eq!(tomorrow["days"][0]["then"], none, "{tomorrow}");
    let stands = scene.house.read(&format!("/v1/punches/{}", scene.start)).await.body;
    assert_eq!(stands["standing"], "accepted", "nothing was written");
    let accepted = scene.house.read(&format!("/v1/reviews/{}", scene.start)).await;
    assert_eq!(accepted.refusal(), "404 not_found", "it waits for nobody");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn of_two_who_rule_at_once_the_second_is_told_who_was_first() {
    let scene = Scene::new(2).await;
    let seen = scene.reviews("").await;
    let sequence = seen[0]["sequence"].as_u64().unwrap();
    let (punch, other) = (scene.doubles[0], scene.doubles[1]);
    let ruling = |decision: &str| {
        json!({
            "decision": decision, "reason": "duplicate", "expected_sequence": sequence,
        })
    };
    let first = scene.ruled(punch, ruling("void")).await;
    assert_eq!(first["sequence"].as_u64().unwrap(), sequence + 1);
    let second = scene.rule(punch, ruling("reject")).await;
    assert_eq!(second.refusal(), "409 already_ruled");
    let detail = second.body["detail"].as_str().unwrap();
    assert!(detail.contains("“test”") && detail.contains("20"), "{detail}");
    // What comes to be known is no ruling.
    let early = json!({ "decision": "accept", "expected_sequence": 2 });
    assert_eq!(scene.rule(other, early).await.refusal(), "409 punch_changed");
    // A void is undone by a ruling, and both stay to be seen.
    scene.ruled(punch, json!({ "decision": "accept", "reason": "mistake" })).await;
    let events = scene.house.read(&format!("/v1/punches/{punch}/events")).await.body;
    let types: Vec<&str> = events["data"].as_array().unwrap()[2..]
        .iter()
        .map(|event| event["event_type"].as_str().unwrap())
        .collect();
    let expected = ["AnomalyFlagged", "ReferredForReview", "Voided", "Reinstated", "Accepted"];
    assert_eq!(types, expected);
    let told = scene.house.read(&format!("/v1/punches/{punch}/explanation")).await.body;
    let told = told["sentences"].to_string();
    assert!(told.contains("as it repeats another one") && told.contains("brought it back"));
    assert!(told.contains("as the ruling before was a mistake"), "{told}");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn many_are_accepted_at_once_and_each_stands_alone() {
    let mut scene = Scene::new(3).await;
    let seen = scene.reviews("").await;
    let item = |review: &Value| {
        let sequence = &review["sequence"];
        json!({ "punch": review["punch"], "expected_sequence": sequence })
    };
    // One is ruled on meanwhile, one is referred for something else.
    scene.ruled(scene.doubles[1], json!({ "decision": "void" })).await;
    scene.device.chain.next.badge = Some("nobody's".to_owned());
    scene.device.chain.next.employee = None;
    let unknown = scene.device.chain.capture_with(|next| next.captured_at = at("12:00:00"));
    scene.house.deliver(&scene.device, &[scene.device.item(&unknown)]).await;
    let other = scene.reviews("reason=unknown_badge").await;
    // What doubled the one that was ruled on is looked at again.
    let last = scene.reviews("reason=near_duplicate").await;
    let last = last.iter().find(|review| review["punch"] == json!(scene.doubles[2]));
    let mut items: Vec<Value> = seen[..2].iter().chain(last).map(item).collect();
    items.push(item(&other[0]));
    let body = json!({
        "referred_for": "near_duplicate", "items": items, "reason": "confirmed",
        "note": "Seen on the camera",
    });
    let done = scene.house.write("/v1/reviews/accept", &body).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    let accepted: Vec<_> = done.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["accepted"].as_bool().unwrap(), one["code"].as_str().unwrap_or("")))
        .collect();
    let expected = [(true, ""), (false, "already_ruled"), (true, ""), (false, "conflict")];
    assert_eq!(accepted, expected, "{}", done.text);
    let at_once = |of: &str, count: usize| {
        let items: Vec<Value> = (0..count)
            .map(|_| json!({ "punch": uuid::Uuid::now_v7(), "expected_sequence": 4 }))
            .collect();
        json!({ "referred_for": of, "items": items })
    };
    for (body, refusal) in [
        (at_once("face_mismatch", 1), "422 invalid: /referred_for invalid_value"),
        (at_once("fork", 0), "422 invalid: /items invalid_value"),
        (at_once("fork", 101), "422 invalid: /items invalid_value"),
    ] {
        let refused = scene.house.write("/v1/reviews/accept", &body).await;
        assert_eq!(refused.refusal(), refusal);
    }
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn nobody_rules_on_their_own() {
    let scene = Scene::new(1).await;
    let writer = &scene.house.pools.writer;
    let own = credentials::create_operator_key(writer, "Ada herself", Some(scene.employee));
    let (_, own) = own.await.unwrap();
    let double = scene.doubles[0];
    let decision = json!({ "decision": "accept" });
    let path = format!("/v1/punches/{double}/decision");
    let refused = scene.house.post(&path, Some(own.reveal()), &decision).await;
    assert_eq!(refused.refusal(), "403 own_record");
    let seen = scene.reviews("").await;
    let items = json!([{ "punch": double, "expected_sequence": seen[0]["sequence"] }]);
    let bulk = json!({ "referred_for": "near_duplicate", "items": items });
    let done = scene.house.post("/v1/reviews/accept", Some(own.reveal()), &bulk).await;
    assert_eq!(done.body["data"][0]["code"], "own_record");
    let path = format!("/v1/employees/{}/face/codes", scene.employee);
    let refused = scene.house.post(&path, Some(own.reveal()), &json!({})).await;
    assert_eq!(refused.refusal(), "403 own_record");
    let garbage = scene.device.signed(b"garbage");
    scene.house.deliver(&scene.device, &[garbage]).await;
    scene.house.settled().await;
    let waiting = scene.house.read("/v1/quarantine?state=waiting").await.body;
    let path = format!("/v1/quarantine/{}/admit", waiting["data"][0]["item"].as_str().unwrap());
    let admit = json!({
        "employee": scene.employee, "site": scene.site, "kind": "in", "captured_at": at("07:00:00"),
    });
    let refused = scene.house.post(&path, Some(own.reveal()), &admit).await;
    assert_eq!(refused.refusal(), "403 own_record");
    // Somebody else may.
    scene.ruled(double, decision).await;
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn a_wrong_clock_is_set_right_by_one_ruling() {
    let mut scene = Scene::new(0).await;
    let house = &scene.house;
    let beat = house.beat(&scene.device).await;
    assert_eq!(beat.status, StatusCode::OK, "{}", beat.text);
    // Of the same boot, an hour ahead.
    let mut capture = scene.device.capture(scene.employee, PunchKind::In);
    let uptime_ms = 90_000;
    (capture.uptime_ms, capture.captured_at) =
        (uptime_ms, Time::from(jiff::Timestamp::now()).plus_millis(3_600_000));
    let capture = scene.device.chain.capture_with(|next| {
        let (seq, prev) = (next.seq, next.prev);
        *next = capture.clone();
        (next.seq, next.prev) = (seq, prev);
    });
    house.deliver(&scene.device, &[scene.device.item(&capture)]).await;
    let found = scene.reviews("reason=clock_suspect").await;
    assert_eq!(found.len(), 1);
    let head = house.settled().await;
    let detail = house.read_after(&format!("/v1/reviews/{}", capture.punch), head).await.body;
    let to = detail["previews"]["use_server_time"]["effective_at"].as_str().unwrap().to_owned();
    scene.ruled(capture.punch, json!({ "decision": "use_server_time" })).await;
    let head = house.settled().await;
    let punch = house.read_after(&format!("/v1/punches/{}", capture.punch), head).await.body;
    assert_eq!((&punch["standing"], &punch["effective_at"]), (&json!("accepted"), &json!(to)));
    assert_eq!(punch["captured_at"], json!(capture.captured_at), "what was captured stays");
    let told = house.read(&format!("/v1/punches/{}/explanation", capture.punch)).await.body;
    assert!(told["sentences"].to_string().contains("as the device's clock was wrong"));
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn a_note_is_read_by_whoever_reads_the_explanation_until_it_is_erased() {
    let scene = Scene::new(1).await;
    let double = scene.doubles[0];
    let note = "She showed me the \u{202e}ticket <b>";
    scene.ruled(double, json!({ "decision": "accept", "note": note })).await;
    let explained =
        async || scene.house.read(&format!("/v1/punches/{double}/explanation")).await.body;
    let told = explained().await;
    assert!(told["sentences"].to_string().contains("She showed me the"), "{told}");
    let steps = told["steps"].as_array().unwrap();
    let digest = steps.iter().find_map(|step| step["note"].as_str()).unwrap().to_owned();
    let path = format!("/v1/notes/{digest}");
    assert_eq!(scene.house.read(&path).await.body["text"], note);
    let erase = request(Method::DELETE, &path, Some(&scene.house.key), axum::body::Body::empty());
    let erased = scene.house.ask(erase).await;
    assert_eq!(erased.status, StatusCode::NO_CONTENT, "{}", erased.text);
    assert_eq!(scene.house.read(&path).await.refusal(), "404 not_found");
    let told = explained().await["sentences"].to_string();
    assert!(told.contains("The note on it was erased."), "{told}");
    assert!(!told.contains("ticket"));
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn what_nobody_rules_on_in_time_is_escalated_once() {
    let scene = Scene::new(2).await;
    let now = scene.house.app.ledger.now();
    punchtrail_api::escalations::look(&scene.house.app, now).await.unwrap();
    assert_eq!(scene.reviews("escalated=true").await.len(), 0, "there is time left");
    let later = now.plus_millis(4 * 86_400_000);
    punchtrail_api::escalations::look(&scene.house.app, later).await.unwrap();
    let head = scene.house.settled().await;
    assert_eq!(scene.reviews("escalated=true").await.len(), 2);
    punchtrail_api::escalations::look(&scene.house.app, later).await.unwrap();
    assert_eq!(scene.house.settled().await, head, "once is enough");
    let path = format!("/v1/punches/{}/explanation", scene.doubles[0]);
    let told = scene.house.read(&path).await.body["sentences"].to_string();
    assert!(told.contains("Nobody had ruled on it by"), "{told}");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}
