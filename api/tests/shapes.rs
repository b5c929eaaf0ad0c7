//! JSON is what the pages say and nothing else: each body of each request with each of its objects
//! as an array of the same values, and each of its words as an object with nothing in it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod callers;
mod common;

use callers::{PASSWORD, Person, cookies, sign_in, user};
use common::{House, enrolment_body, request};
use ed25519_dalek::SigningKey;
use hyper::{Method, header};
use punchtrail_domain::policy::Policy;
use punchtrail_infra::access::roles::Role;
use punchtrail_protocol::capture::PunchKind;
use serde_json::{Map, Value, json};

/// The values of an object in the order that its text has them; of `serde_json` itself they come
/// sorted by name.
fn values(object: &Map<String, Value>, order: &[&str]) -> Value {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_by_key(|(name, _)| order.iter().position(|known| known == name));
    fields.into_iter().map(|(_, value)| value.clone()).collect()
}

/// The pointers to everything in a value, itself first.
fn pointers(value: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let below: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, v)| (n.to_string(), v)).collect(),
        _ => vec![],
    };
    for (name, value) in below {
        found.extend(pointers(value).into_iter().map(|inside| format!("/{name}{inside}")));
    }
    found
}

/// Everything that the body must not be taken as.
fn other_shapes(body: &Value, order: &[&str], words: &[&str]) -> Vec<Value> {
    let mut shapes = Vec::new();
    for pointer in pointers(body) {
        let mut put = |value: Value| {
            let mut shape = body.clone();
            *shape.pointer_mut(&pointer).unwrap() = value;
            shapes.push(shape);
        };
        match body.pointer(&pointer).unwrap() {
            Value::Object(object) => {
                put(values(object, order));
                put(json!([]));
                put(json!([object]));
                put(Value::Null);
            }
            Value::String(word) if words.contains(&word.as_str()) => {
                put(json!({ word: null }));
                put(json!({ word: {} }));
                put(json!({ word: [] }));
                put(json!([word]));
                put(json!(0));
            }
            Value::Number(number) => {
                put(json!(number.to_string()));
                put(json!([number]));
                put(json!(number.as_f64().unwrap() + 0.5));
            }
            Value::Bool(_) => put(json!(1)),
            _ => {}
        }
    }
    shapes
}

#[tokio::test]
async fn no_body_is_taken_in_another_shape() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let punch = device.capture(employee, PunchKind::In);
    let item = device.item(&punch);
    let batch = json!({ "punches": [item] });
    let unsigned = json!({ "capture": "e30", "signature": "" });
    assert_eq!(house.deliver(&device, &[item, unsigned]).await.outcomes().len(), 2);
    let kept = house.read("/v1/quarantine").await.body["data"][0]["item"].clone();
    let kept = kept.as_str().unwrap();
    let mut beat = device.heartbeat();
    beat["oldest"] = json!("2026-11-21T09:00:00.000Z");
    let key = SigningKey::from_bytes(&[9; 32]);
    let enrolment = enrolment_body(&key, &house.code(site).await);
    let come_back = json!({ "certificate": "AAAA", "proof": "AAAA" });
    let policy = serde_json::to_value(Policy::default()).unwrap();
    let zone = json!({ "tz": "Europe/Paris", "from": "2026-11-21", "correct_past": false });
    let at = "2026-11-21T09:00:00.000Z";
    let admission =
        json!({ "employee": employee, "site": site, "kind": "in", "captured_at": at, "note": "n" });
    let decision = json!({ "decision": "reject", "reason": "other", "note": "n" });
    let amendment = json!({ "decision": "amend", "effective_at": at, "kind": "out" });
    let bulk = json!({
        "referred_for": "fork", "reason": "confirmed", "note": "n",
        "items": [{ "punch": punch.punch, "expected_sequence": 4 }],
    });
    let dispute = uuid::Uuid::now_v7();
    let disputed = json!({
        "dispute": dispute, "employee": employee, "punch": punch.punch, "day": null,
        "cause": "wrong_time", "text": "",
    });
    let mut opened = disputed.clone();
    opened["site"] = json!(site);
    let word = json!({ "note": "n", "expected_sequence": 1 });
    let resolution = json!({
        "how": "amend", "effective_at": at, "kind": "out", "by_punch": null, "site": null,
        "employee": null, "reason": "other", "note": "n", "expected_sequence": 1,
    });
    let entered = json!({
        "punch": dispute, "employee": employee, "site": site, "kind": "in", "at": at,
        "reason": "other", "note": "n",
    });
    let person =
        json!({ "employee": employee, "reason": "other", "note": "n", "expected_sequence": 1 });
    let shift = json!({ "out": dispute, "note": "n", "expected_sequence": 1 });
    let badge = json!({
        "badge": "b", "from": at, "until": null, "employee": employee, "reason": "other",
        "note": "n", "as_of": 1,
    });
    let admin = user(&house, "ada@example.org", Role::Admin, &[]).await.id;
    let let_in = sign_in(&house, "ada@example.org", PASSWORD, "").await;
    let own = cookies(&let_in);
    let own = Some(own.as_str());
    let (token, operator) = (Some(device.token.as_str()), Some(house.key.as_str()));
    let requests = [
        (Method::POST, "/v1/devices/enroll".to_owned(), None, enrolment),
        (Method::POST, "/v1/devices/return".to_owned(), None, come_back),
        (Method::POST, format!("/v1/sites/{site}/punches/batch"), token, batch),
        (Method::POST, "/v1/devices/self/heartbeat".to_owned(), token, beat),
        (Method::PUT, format!("/v1/sites/{site}/policy"), operator, policy),
        (Method::PUT, format!("/v1/sites/{site}/zone"), operator, zone.clone()),
        (Method::POST, format!("/v1/sites/{site}/zone/preview"), operator, zone),
        (Method::POST, format!("/v1/quarantine/{kept}/admit"), operator, admission),
        (Method::POST, format!("/v1/quarantine/{kept}/dismiss"), operator, json!({ "note": "n" })),
        (Method::POST, format!("/v1/punches/{}/decision", punch.punch), operator, decision),
        (
            Method::POST,
            format!("/v1/punches/{}/decision", punch.punch),
            operator,
            amendment.clone(),
        ),
        (
            Method::POST,
            format!("/v1/punches/{}/decision/preview", punch.punch),
            operator,
            amendment,
        ),
        (Method::POST, "/v1/punches".to_owned(), operator, entered.clone()),
        (Method::POST, "/v1/punches/preview".to_owned(), operator, entered),
        (Method::PUT, format!("/v1/punches/{}/person", punch.punch), operator, person.clone()),
        (Method::POST, format!("/v1/punches/{}/person/preview", punch.punch), operator, person),
        (Method::POST, format!("/v1/punches/{}/shift", punch.punch), operator, shift.clone()),
        (Method::POST, format!("/v1/punches/{}/shift/preview", punch.punch), operator, shift),
        (Method::POST, "/v1/unknown-badges/assign".to_owned(), operator, badge.clone()),
        (Method::POST, "/v1/unknown-badges/assign/preview".to_owned(), operator, badge),
        (Method::POST, "/v1/reviews/accept".to_owned(), operator, bulk),
        (
            Method::POST,
            format!("/v1/employees/{employee}/legal-hold"),
            operator,
            json!({ "note": "n" }),
        ),
        (Method::POST, format!("/v1/devices/{}/site", device.id), operator, json!({"site": site})),
        (
            Method::POST,
            format!("/v1/employees/{employee}/departure"),
            operator,
            json!({ "at": at }),
        ),
        (Method::POST, format!("/v1/employees/{employee}/return"), operator, json!({ "at": at })),
        (Method::PUT, format!("/v1/employees/{employee}/name"), operator, json!({ "name": "n" })),
        (Method::PUT, format!("/v1/employees/{employee}/pin"), operator, json!({ "pin": "4711" })),
        (
            Method::POST,
            "/v1/sites".to_owned(),
            operator,
            json!({ "name": "n", "tz": "Europe/Berlin" }),
        ),
        (
            Method::PUT,
            "/v1/employees/by-external-id/e".to_owned(),
            operator,
            json!({
                "name": "n", "site": site, "badge": "b", "pin": "4711", "from": "2026-11-26",
                "reissue": "2026-11-26", "returned": "2026-11-26",
            }),
        ),
        (
            Method::POST,
            "/v1/employees".to_owned(),
            operator,
            json!({
                "name": "n", "site": site, "from": at, "badge": "b", "external_id": "e",
                "pin": "4711",
            }),
        ),
        (
            Method::POST,
            format!("/v1/employees/{employee}/badges"),
            operator,
            json!({ "badge": "b", "from": at, "reissue": true }),
        ),
        (
            Method::POST,
            format!("/v1/employees/{employee}/badges/{}/end", "0".repeat(64)),
            operator,
            json!({ "because": "lost", "until": at }),
        ),
        (
            Method::PUT,
            format!("/v1/employees/{employee}/assignments/{site}"),
            operator,
            json!({ "from": at, "until": at }),
        ),
        (
            Method::POST,
            format!("/v1/punches/{}/attachments", punch.punch),
            token,
            json!({ "record": "e30", "signature": "" }),
        ),
        (
            Method::POST,
            format!("/v1/sites/{site}/employees/{employee}/references"),
            token,
            json!({
                "code": "BCDF-GHJK", "notice": "2026-01", "language": "de", "given_at": at,
                "photos": ["0".repeat(64)],
            }),
        ),
        (
            Method::POST,
            format!("/v1/employees/{employee}/face/consent"),
            operator,
            json!({ "notice": "2026-01", "language": "de", "given_at": at }),
        ),
        (
            Method::PUT,
            format!("/v1/employees/{employee}/face/head-covering"),
            operator,
            json!({ "expected": true }),
        ),
        (
            Method::POST,
            format!("/v1/devices/{}/commands", device.id),
            operator,
            json!({ "type": "show_message", "args": { "text": "Good morning" } }),
        ),
        (
            Method::PUT,
            format!("/v1/devices/self/commands/{employee}/result"),
            token,
            json!({ "status": "done", "detail": "d" }),
        ),
        (Method::POST, format!("/v1/sites/{site}/disputes"), token, disputed.clone()),
        (Method::POST, "/v1/disputes".to_owned(), operator, opened),
        (Method::POST, format!("/v1/disputes/{dispute}/answers"), operator, word.clone()),
        (Method::POST, format!("/v1/disputes/{dispute}/reopening"), operator, word),
        (Method::POST, format!("/v1/disputes/{dispute}/resolution"), operator, resolution),
        (
            Method::POST,
            "/v1/sign-in".to_owned(),
            None,
            json!({ "login": "l", "password": "p", "code": "c" }),
        ),
        (
            Method::POST,
            "/v1/links/acceptance".to_owned(),
            None,
            json!({ "token": "t", "password": "p" }),
        ),
        (
            Method::POST,
            "/v1/session/password".to_owned(),
            own,
            json!({ "current": "c", "password": "p" }),
        ),
        (Method::POST, "/v1/session/provider".to_owned(), own, json!({ "current": "c" })),
        (Method::POST, "/v1/sign-in/provider/code".to_owned(), None, json!({ "code": "c" })),
        (Method::POST, "/v1/session/second-factor".to_owned(), own, json!({ "current": "c" })),
        (
            Method::POST,
            "/v1/session/second-factor/confirmation".to_owned(),
            own,
            json!({ "code": "c" }),
        ),
        (
            Method::POST,
            "/v1/session/second-factor/removal".to_owned(),
            own,
            json!({ "current": "c", "code": "c" }),
        ),
        (
            Method::POST,
            "/v1/users".to_owned(),
            operator,
            json!({ "login": "l", "name": "n", "role": "payroll", "sites": [] }),
        ),
        (
            Method::PUT,
            format!("/v1/users/{admin}/role"),
            operator,
            json!({ "role": "payroll", "sites": [] }),
        ),
        (
            Method::PUT,
            format!("/v1/users/{admin}/employee"),
            operator,
            json!({ "employee": employee }),
        ),
        (Method::PUT, format!("/v1/users/{admin}/disabled"), operator, json!({ "disabled": true })),
        (
            Method::POST,
            format!("/v1/users/{admin}/link"),
            operator,
            json!({ "clears_second_factor": true }),
        ),
        (
            Method::POST,
            format!("/v1/users/{admin}/grants"),
            operator,
            json!({ "reason": "r", "expires_at": at }),
        ),
        (
            Method::PUT,
            "/v1/roles/payroll".to_owned(),
            operator,
            json!({ "second_factor_required": true }),
        ),
        (
            Method::POST,
            "/v1/keys".to_owned(),
            operator,
            json!({ "name": "n", "scopes": ["sites:read"], "sites": [site], "expires_at": at }),
        ),
        (
            Method::POST,
            "/v1/webhooks".to_owned(),
            operator,
            json!({ "name": "n", "url": "https://10.0.0.1/", "types": ["punch.voided"],
                    "sites": [site], "contact": "a@example.org", "after": 1 }),
        ),
        (
            Method::PUT,
            format!("/v1/webhooks/{dispute}"),
            operator,
            json!({ "name": "n", "url": "https://10.0.0.1/", "types": ["punch.voided"],
                    "sites": [site], "contact": "a@example.org" }),
        ),
        (
            Method::POST,
            format!("/v1/webhooks/{dispute}/secret"),
            operator,
            json!({ "overlap_h": 1 }),
        ),
        (
            Method::PUT,
            format!("/v1/webhooks/{dispute}/disabled"),
            operator,
            json!({ "disabled": true }),
        ),
        (
            Method::POST,
            format!("/v1/webhooks/{dispute}/redeliveries"),
            operator,
            json!({ "since": at, "until": at, "everything": true }),
        ),
    ];
    let described = house.get("/openapi.json", None).await.body;
    let bodies: usize = described["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .filter(|operation| operation["requestBody"]["content"]["application/json"].is_object())
        .count();
    assert_eq!(bodies, requests.len() - 1, "each request with a body, one of them twice");
    let words = [
        "in",
        "out",
        "reject",
        "amend",
        "other",
        "show_message",
        "done",
        "wrong_time",
        "fork",
        "lost",
        "payroll",
    ];
    let head = house.settled().await;
    for (method, path, token, body) in &requests {
        // The order of the fields in the sources, which a derived reader goes by.
        let order: Option<Vec<&str>> =
            ORDERS.iter().find(|(name, _)| path.ends_with(name)).map(|(_, order)| order.to_vec());
        // What ends with an id is named by what stands in front of it.
        let of = || ORDERS.iter().find(|(name, _)| path.contains(&format!("/{name}/")));
        let order: Vec<&str> = order.unwrap_or_else(|| of().unwrap().1.to_vec());
        for shape in other_shapes(body, &order, &words) {
            let text = shape.to_string();
            let answer = match token {
                Some(cookies) if cookies.starts_with("__Host-") => {
                    let mut asked = request(method.clone(), path, None, text.clone().into());
                    let json = header::HeaderValue::from_static("application/json");
                    asked.headers_mut().insert(header::CONTENT_TYPE, json);
                    Person::Browser((*cookies).to_owned()).put_on(&mut asked);
                    house.ask(asked).await
                }
                token => house.send(method.clone(), path, *token, text.clone()).await,
            };
            let refusal = answer.refusal();
            assert!(refusal.starts_with("422 invalid: "), "{path} {text}: {refusal}");
        }
    }
    assert_eq!(house.settled().await, head, "nothing was written");
    house.close().await;
}

const ORDERS: [(&str, &[&str]); 61] = [
    ("secret", &["overlap_h"]),
    ("redeliveries", &["since", "until", "everything"]),
    ("webhooks", &["name", "url", "types", "sites", "contact", "after"]),
    ("/pin", &["pin"]),
    ("/v1/sites", &["name", "tz"]),
    ("by-external-id/e", &["name", "site", "badge", "pin", "from", "reissue", "returned"]),
    ("/zone", &["tz", "from", "correct_past"]),
    ("/zone/preview", &["tz", "from", "correct_past"]),
    ("session/provider", &["current"]),
    ("provider/code", &["code"]),
    ("sign-in", &["login", "password", "code"]),
    ("acceptance", &["token", "password"]),
    ("password", &["current", "password"]),
    ("second-factor", &["current"]),
    ("confirmation", &["code"]),
    ("removal", &["current", "code"]),
    ("users", &["login", "name", "role", "sites"]),
    ("role", &["role", "sites"]),
    ("employee", &["employee"]),
    ("disabled", &["disabled"]),
    ("link", &["clears_second_factor"]),
    ("grants", &["reason", "expires_at"]),
    ("payroll", &["second_factor_required"]),
    ("keys", &["name", "scopes", "sites", "expires_at"]),
    ("disputes", &["dispute", "site", "employee", "punch", "day", "cause", "text"]),
    ("answers", &["note", "expected_sequence"]),
    ("reopening", &["note", "expected_sequence"]),
    (
        "resolution",
        &[
            "how",
            "effective_at",
            "kind",
            "by_punch",
            "site",
            "employee",
            "reason",
            "note",
            "expected_sequence",
        ],
    ),
    ("/v1/punches", &["punch", "employee", "site", "kind", "at", "reason", "note"]),
    ("/v1/punches/preview", &["punch", "employee", "site", "kind", "at", "reason", "note"]),
    ("person", &["employee", "reason", "note", "expected_sequence"]),
    ("person/preview", &["employee", "reason", "note", "expected_sequence"]),
    ("shift", &["out", "note", "expected_sequence"]),
    ("shift/preview", &["out", "note", "expected_sequence"]),
    ("assign", &["badge", "from", "until", "employee", "reason", "note", "as_of"]),
    ("assign/preview", &["badge", "from", "until", "employee", "reason", "note", "as_of"]),
    ("enroll", &["code", "name", "public_key", "proof", "app"]),
    ("devices/return", &["certificate", "proof"]),
    ("return", &["at"]),
    ("name", &["name"]),
    ("assignments", &["from", "until"]),
    ("employees", &["name", "site", "from", "badge", "external_id", "pin"]),
    ("badges", &["badge", "from", "reissue"]),
    ("end", &["because", "until"]),
    ("batch", &["capture", "signature"]),
    (
        "heartbeat",
        &["outbox", "photos", "oldest", "seq", "clock", "boot", "uptime_ms", "app", "anchor"],
    ),
    (
        "policy",
        &[
            "batch_max",
            "punches_per_minute",
            "reconnect_spread_s",
            "heartbeat_s",
            "restore_window_s",
            "lookback_s",
            "clock_suspect_s",
            "near_duplicate_s",
            "travel_s",
            "photos",
            "faces",
            "face_deadline_s",
            "face_local_min",
            "face_rekognition_min",
            "face_brightness_min",
            "face_brightness_max",
            "face_sharpness_min",
            "face_px_min",
            "photo_retention_days",
            "face_departed_days",
            "review_deadline_s",
            "record_retention_days",
            "languages",
            "day_starts_min",
            "shift_max_s",
        ],
    ),
    ("admit", &["employee", "site", "kind", "captured_at", "note"]),
    ("dismiss", &["note"]),
    ("legal-hold", &["note"]),
    ("decision", &["decision", "reason", "effective_at", "kind", "expected_sequence", "note"]),
    ("preview", &["decision", "reason", "effective_at", "kind", "expected_sequence", "note"]),
    ("accept", &["referred_for", "items", "punch", "expected_sequence", "reason", "note"]),
    ("site", &["site"]),
    ("departure", &["at"]),
    ("attachments", &["record", "signature"]),
    ("references", &["code", "notice", "language", "given_at", "photos"]),
    ("consent", &["notice", "language", "given_at"]),
    ("head-covering", &["expected"]),
    ("commands", &["type", "args", "text", "employee", "taken_until"]),
    ("result", &["status", "detail"]),
];

#[tokio::test]
async fn no_capture_is_taken_in_another_shape() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let capture = device.capture(employee, PunchKind::In);
    let text = String::from_utf8(capture.to_bytes()).unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    let mut order: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    order.sort_by_key(|name| text.find(&format!("\"{name}\":")));
    let items: Vec<Value> = other_shapes(&body, &order, &["in", "badge"])
        .iter()
        .map(|shape| device.signed(shape.to_string().as_bytes()))
        .collect();
    let outcomes = house.deliver(&device, &items).await.outcomes();
    assert!(outcomes.len() > 20);
    assert_eq!(outcomes, vec!["quarantined bad_capture"; items.len()]);
    assert_eq!(house.deliver(&device, &[device.item(&capture)]).await.outcomes(), ["applied"]);
    house.close().await;
}

#[tokio::test]
async fn a_heartbeat_writes_null_where_the_page_does_and_nowhere_else() {
    let house = House::new().await;
    let site = house.site().await;
    let device = house.device(site).await;
    let beat = async |beat: &Value| {
        let path = "/v1/devices/self/heartbeat";
        house.post(path, Some(&device.token), beat).await
    };
    let good = device.heartbeat();
    assert_eq!(beat(&good).await.status, 200, "`oldest` is null");
    let mut wrong = good.clone();
    wrong["anchor"] = Value::Null;
    assert_eq!(beat(&wrong).await.refusal(), "422 invalid: /anchor invalid_value");
    let mut wrong = good;
    wrong.as_object_mut().unwrap().remove("oldest");
    assert_eq!(beat(&wrong).await.refusal(), "422 invalid: /oldest missing_field");
    house.close().await;
}
