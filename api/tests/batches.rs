//! Batches, over HTTP: every status, every refusal, and what bad captures come to.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Device, House};
use hyper::{Method, StatusCode};
use punchtrail_infra::testing::sqlx;
use punchtrail_protocol::{EmployeeId, PunchId, Time, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

async fn at_work() -> (House, Device, EmployeeId) {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada Lovelace").await;
    let device = house.device(site).await;
    (house, device, employee)
}

async fn events(house: &House) -> i64 {
    sqlx::query_scalar("select count(*) from events").fetch_one(&house.pools.writer).await.unwrap()
}

#[tokio::test]
async fn a_punch_counts_once_however_often_it_is_sent() {
    let (house, mut device, employee) = at_work().await;
    let items: Vec<Value> = [PunchKind::In, PunchKind::Out]
        .into_iter()
        .map(|kind| device.next(employee, kind))
        .collect();
    let first = house.deliver(&device, &items).await;
    assert_eq!(first.outcomes(), ["applied", "applied"]);
    assert_eq!(first.body["acked_through"], 2);
    assert_eq!(first.body["results"][0]["seq"], 1);
    assert_eq!(first.body["next_batch_after_ms"], 0);
    assert!(first.body["server_time"].as_str().unwrap().parse::<Time>().is_ok());
    let again = house.deliver(&device, &items).await;
    assert_eq!(again.outcomes(), ["duplicate", "duplicate"]);
    for (then, now) in [(0, 0), (1, 1)] {
        assert_eq!(first.body["results"][then]["position"], again.body["results"][now]["position"]);
    }
    house.close().await;
}

#[tokio::test]
async fn other_bytes_under_one_punch_are_a_conflict_and_evidence_once() {
    let (house, mut device, employee) = at_work().await;
    let capture = device.capture(employee, PunchKind::In);
    let mut other = capture.clone();
    other.kind = PunchKind::Out;
    let items = [device.item(&capture), device.item(&other), device.item(&capture)];
    let answer = house.deliver(&device, &items).await;
    assert_eq!(answer.outcomes(), ["applied", "conflict", "duplicate"]);
    assert_eq!(answer.body["results"][0]["position"], answer.body["results"][1]["position"]);
    let head = house.settled().await;
    let again = house.deliver(&device, &items).await;
    assert_eq!(again.outcomes(), ["duplicate", "conflict", "duplicate"]);
    assert_eq!(again.body["ledger"], head, "the same again writes nothing");
    house.close().await;
}

/// A capture's text with one part replaced, signed as it then stands.
fn altered(device: &mut Device, employee: EmployeeId, from: &str, to: &str) -> Value {
    let capture = device.capture(employee, PunchKind::In);
    let text = String::from_utf8(capture.to_bytes()).unwrap();
    let seq = format!(r#""seq":{}"#, capture.seq);
    let from = from.replace(r#""seq":N"#, &seq);
    let altered = text.replacen(&from, to, 1);
    assert_ne!(altered, text, "{from} is not in {text}");
    device.signed(altered.as_bytes())
}

#[tokio::test]
async fn what_can_not_be_a_punch_is_quarantined_and_acknowledged() {
    let (house, mut device, employee) = at_work().await;
    let cases = [
        (r#""seq":N"#, r#""seq":0"#),
        (r#""seq":N"#, r#""seq":-4"#),
        (r#""seq":N"#, r#""seq":1.5"#),
        (r#""seq":N"#, r#""seq":2e3"#),
        (r#""seq":N"#, r#""seq":9007199254740992"#),
        (r#""seq":N"#, r#""seq":123456789012345678901234567890"#),
        (r#""kind":"in""#, r#""kind":"lunch""#),
        (r#""kind":"in""#, r#""kind":"in","kind":"out""#),
        (r#""badge":null"#, r#""badge":null,"mood":"good""#),
        (r#""badge":null,"#, ""),
        (r#""badge":null"#, r#""badge":"B7""#),
        (r#""offline":false"#, r#""offline":"no""#),
        (r#""utc_offset_s":3600"#, r#""utc_offset_s":3600.25"#),
    ];
    for (from, to) in cases {
        let item = altered(&mut device, employee, from, to);
        let answer = house.deliver(&device, std::slice::from_ref(&item)).await;
        assert_eq!(answer.outcomes(), ["quarantined bad_capture"], "{to}");
        let detail = answer.body["results"][0]["detail"].as_str().unwrap();
        assert!(detail.ends_with("admit it."), "{detail}");
        let before = house.settled().await;
        let again = house.deliver(&device, &[item]).await;
        assert_eq!(again.outcomes(), ["quarantined bad_capture"]);
        let position = |answer: &common::Answer| answer.body["results"][0]["position"].clone();
        assert_eq!(position(&answer), position(&again));
        assert_eq!(again.body["ledger"], before, "the same again writes nothing");
    }
    house.close().await;
}

#[tokio::test]
async fn times_that_are_none_are_quarantined_and_odd_ones_are_taken() {
    let (house, mut device, employee) = at_work().await;
    let mut with_time = |time: &str| {
        let capture = device.capture(employee, PunchKind::In);
        let text = String::from_utf8(capture.to_bytes()).unwrap();
        let text = text.replacen(&capture.captured_at.to_string(), time, 1);
        device.signed(text.as_bytes())
    };
    let bad = [
        "2016-12-31T23:59:60.000Z",
        "2026-11-21T08:59:03.120",
        "2026-11-21T08:59:03Z",
        "2026-11-21T08:59:03.120+01:00",
        "9999-12-31T23:59:59.999Z",
        "yesterday",
    ];
    let items: Vec<Value> = bad.iter().map(|time| with_time(time)).collect();
    let odd = ["1970-01-01T00:00:00.000Z", "9999-12-30T00:00:00.000Z", "0001-01-02T00:00:00.000Z"];
    let odd: Vec<Value> = odd.iter().map(|time| with_time(time)).collect();
    let answer = house.deliver(&device, &items).await;
    assert_eq!(answer.outcomes(), vec!["quarantined bad_capture"; bad.len()]);
    let answer = house.deliver(&device, &odd).await;
    assert_eq!(answer.outcomes(), vec!["applied"; odd.len()]);
    let head = house.settled().await;
    let referred = house.read_after("/v1/punches?standing=referred", head).await;
    assert_eq!(referred.body["data"].as_array().unwrap().len(), odd.len(), "{}", referred.text);
    house.close().await;
}

#[tokio::test]
async fn the_checks_come_in_the_protocols_order() {
    let (house, mut device, employee) = at_work().await;
    let mut stranger = house.device(device.site()).await;
    let huge = device.signed(&[b'x'; 4_097]);
    let huge_text = json!({ "capture": "!".repeat(6_000), "signature": "" });
    let encoding = json!({ "capture": "+/+/", "signature": "AA" });
    let short = json!({ "capture": "e30", "signature": "AA" });
    let mut padded = device.next(employee, PunchKind::In);
    padded["capture"] = json!(format!("{}=", padded["capture"].as_str().unwrap()));
    let mut unsigned = device.next(employee, PunchKind::In);
    unsigned["signature"] = json!("A".repeat(86));
    let garbage = device.signed(b"\xff\xfe garbage");
    let version = altered(&mut device, employee, r#""v":1"#, r#""v":2"#);
    let other_device = stranger.capture(employee, PunchKind::In);
    let mut elsewhere = device.capture(employee, PunchKind::In);
    elsewhere.site = house.site().await;
    let mut other_org = device.capture(employee, PunchKind::In);
    other_org.org.0 = Uuid::new_v4();
    let mut both = device.capture(employee, PunchKind::In);
    (both.device, both.org) = (stranger.id, punchtrail_protocol::OrgId::NIL);
    let items = [
        huge,
        huge_text,
        encoding,
        short,
        padded,
        unsigned,
        garbage,
        version,
        device.item(&other_device),
        device.item(&elsewhere),
        device.item(&other_org),
        device.item(&both),
    ];
    let answer = house.deliver(&device, &items).await;
    insta::assert_snapshot!(answer.outcomes().join("\n"), @r"
    quarantined too_large
    quarantined too_large
    quarantined bad_encoding
    quarantined bad_encoding
    quarantined bad_encoding
    quarantined bad_signature
    quarantined bad_capture
    quarantined unknown_version
    quarantined wrong_device
    quarantined wrong_site
    quarantined wrong_site
    quarantined wrong_device
    ");
    let named = |at: usize| answer.body["results"][at]["punch"].as_str();
    assert_eq!(named(0), None);
    assert!(named(5).is_some(), "the id of an unsigned capture can be read");
    house.close().await;
}

#[tokio::test]
async fn doubts_are_applied_and_gaps_and_forks_are_facts_about_the_device() {
    let (house, mut device, employee) = at_work().await;
    let one = device.capture(employee, PunchKind::In);
    let two = device.capture(employee, PunchKind::Out);
    let mut four = device.capture(employee, PunchKind::BreakStart);
    four.seq = 4;
    let mut fork = two.clone();
    (fork.punch, fork.kind) = (PunchId(Uuid::now_v7()), PunchKind::BreakEnd);
    let items = [device.item(&four), device.item(&one), device.item(&two), device.item(&fork)];
    let answer = house.deliver(&device, &items).await;
    assert_eq!(answer.outcomes(), ["applied"; 4]);
    assert_eq!(answer.body["acked_through"], 2, "3 is missing");
    let head = house.settled().await;
    let shown = house.read_after(&format!("/v1/devices/{}", device.id), head).await.body;
    assert_eq!(shown["forks"], 1, "{shown}");
    assert_eq!(shown["gaps"], json!([{ "from": 3, "to": 3 }]));
    let forked = house.read(&format!("/v1/punches/{}", fork.punch)).await.body;
    assert_eq!(forked["standing"], "referred");
    assert_eq!(forked["reasons"], json!(["fork"]));
    house.close().await;
}

#[tokio::test]
async fn of_a_hundred_sends_at_once_one_is_applied() {
    let (house, mut device, employee) = at_work().await;
    let items: Vec<Value> = (0..20).map(|_| device.next(employee, PunchKind::In)).collect();
    let sends = (0..100).map(|_| house.deliver(&device, &items));
    let answers = futures::future::join_all(sends).await;
    let mut applied = 0;
    let mut positions = std::collections::HashSet::new();
    for answer in answers {
        if answer.status != StatusCode::OK {
            // Another of them is being taken, or more wait than can be served in a second.
            assert!(["429 one_at_a_time", "503 busy"].contains(&answer.refusal().as_str()));
            assert!(answer.headers.contains_key("retry-after"));
            continue;
        }
        let outcomes = answer.outcomes();
        applied += outcomes.iter().filter(|outcome| *outcome == "applied").count();
        assert!(outcomes.iter().all(|outcome| outcome == &outcomes[0]), "no partial batch");
        positions.insert(answer.body["results"][0]["position"].as_u64());
    }
    assert_eq!((applied, positions.len()), (items.len(), 1));
    house.close().await;
}

#[tokio::test]
async fn refused_batches_write_nothing() {
    let (house, mut device, employee) = at_work().await;
    let item = device.next(employee, PunchKind::In);
    let before = events(&house).await;
    let path = format!("/v1/sites/{}/punches/batch", device.site());
    let send = |body: String| house.send(Method::POST, &path, Some(&device.token), body);
    let many = json!({ "punches": vec![item.clone(); 501] });
    let mut padded = json!({ "punches": [item] });
    padded["punches"][0]["capture"] = json!("A".repeat(3 << 20));
    let unknown = json!({ "punches": [{ "capture": "", "signature": "", "note": "hi" }] });
    for (body, refusal) in [
        (many.to_string(), "413 payload_too_large"),
        (padded.to_string(), "413 payload_too_large"),
        (json!({ "punches": [] }).to_string(), "422 invalid: /punches invalid_value"),
        (json!({}).to_string(), "422 invalid: /punches missing_field"),
        (json!({ "punches": [], "x": 1 }).to_string(), "422 invalid: /x unknown_field"),
        (unknown.to_string(), "422 invalid: /punches/0/note unknown_field"),
        (
            json!({ "punches": [{ "capture": 1, "signature": "" }] }).to_string(),
            "422 invalid: /punches/0/capture invalid_value",
        ),
        (json!([]).to_string(), "422 invalid:  invalid_value"),
        (r#"{"punches":[],"punches":[]}"#.to_owned(), "400 malformed_json"),
        (r#"{"punches":["\u0000"]}"#.to_owned(), "400 malformed_json"),
        (r#"{"punches":["\udc00"]}"#.to_owned(), "400 malformed_json"),
        (r#"{"punches":[]} {}"#.to_owned(), "400 malformed_json"),
        ("[".repeat(40), "400 malformed_json"),
        (String::new(), "400 malformed_json"),
    ] {
        let answer = send(body.clone()).await;
        assert_eq!(answer.refusal(), refusal, "{}", &body[..body.len().min(80)]);
    }
    assert_eq!(events(&house).await, before);
    house.close().await;
}

#[tokio::test]
async fn a_batch_of_another_type_or_site_is_refused() {
    let (house, device, _) = at_work().await;
    let path = format!("/v1/sites/{}/punches/batch", device.site());
    let mut text = common::request(Method::POST, &path, Some(&device.token), "{}".into());
    text.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(house.ask(text).await.refusal(), "415 unsupported_media_type");
    let elsewhere = house.site().await;
    for site in [elsewhere.to_string(), Uuid::new_v4().to_string(), "nowhere".to_owned()] {
        let path = format!("/v1/sites/{site}/punches/batch");
        let answer = house.post(&path, Some(&device.token), &json!({ "punches": [] })).await;
        assert_eq!(answer.refusal(), "404 not_found");
    }
    house.close().await;
}

#[tokio::test]
async fn a_moved_device_delivers_for_both_sites_and_reads_at_the_new_one() {
    let (house, mut device, employee) = at_work().await;
    let here = device.next(employee, PunchKind::In);
    let there = house.site().await;
    let moved =
        house.write(&format!("/v1/devices/{}/site", device.id), &json!({ "site": there })).await;
    assert_eq!(moved.status, StatusCode::OK, "{}", moved.text);
    let old = device.site();
    assert_eq!(house.deliver(&device, &[here]).await.outcomes(), ["applied"]);
    device.chain.next.site = there;
    let next = device.next(employee, PunchKind::Out);
    assert_eq!(house.deliver(&device, &[next]).await.outcomes(), ["applied"]);
    let manifest = |site| format!("/v1/sites/{site}/manifest");
    let token = Some(device.token.as_str());
    assert_eq!(house.get(&manifest(old), token).await.refusal(), "404 not_found");
    assert_eq!(house.get(&manifest(there), token).await.status, StatusCode::OK);
    house.close().await;
}

#[tokio::test]
async fn a_revoked_device_delivers_and_reads_nothing() {
    let (house, mut device, employee) = at_work().await;
    let item = device.next(employee, PunchKind::In);
    let revoke = format!("/v1/devices/{}/revoke", device.id);
    assert_eq!(house.write(&revoke, &json!({})).await.status, StatusCode::OK);
    let answer = house.deliver(&device, &[item]).await;
    assert_eq!(answer.outcomes(), ["applied"]);
    let token = Some(device.token.as_str());
    let beat = house.beat(&device).await;
    assert_eq!(beat.body["acked_through"], 1, "{}", beat.text);
    for path in ["manifest", "employees?q=a", "punches"] {
        let path = format!("/v1/sites/{}/{path}", device.site());
        assert_eq!(house.get(&path, token).await.refusal(), "403 device_revoked");
    }
    let head = house.settled().await;
    let path = format!("/v1/punches/{}", answer.body["results"][0]["punch"].as_str().unwrap());
    let punch = house.read_after(&path, head).await.body;
    assert_eq!(punch["reasons"], json!(["revoked_device"]), "{punch}");
    house.close().await;
}

#[tokio::test]
async fn a_clock_is_known_from_a_heartbeat_of_the_same_boot() {
    let (house, mut device, employee) = at_work().await;
    let beat =
        house.post("/v1/devices/self/heartbeat", Some(&device.token), &device.heartbeat()).await;
    assert_eq!(beat.status, StatusCode::OK, "{}", beat.text);
    let server_time: Time = beat.body["server_time"].as_str().unwrap().parse().unwrap();
    let mut fast = device.capture(employee, PunchKind::In);
    // A minute before the heartbeat by uptime, three hours ahead by the device's clock.
    fast.uptime_ms = 60_000;
    fast.captured_at = server_time.plus_millis(-60_000 + 3 * 3_600_000);
    let mut unknown = device.capture(employee, PunchKind::Out);
    unknown.boot.0 = Uuid::new_v4();
    let items = [device.item(&fast), device.item(&unknown)];
    assert_eq!(house.deliver(&device, &items).await.outcomes(), ["applied"; 2]);
    let clock = async |punch: PunchId| {
        let events = house.read(&format!("/v1/punches/{punch}/events")).await.body;
        let payload = events["data"][1]["payload"].as_str().unwrap();
        serde_json::from_str::<Value>(payload).unwrap()["Synced"]["clock"].clone()
    };
    assert_eq!(clock(fast.punch).await, json!({ "known": { "offset_ms": 10_800_000 } }));
    assert_eq!(clock(unknown.punch).await, json!("unknown"));
    let head = house.settled().await;
    let path = format!("/v1/punches/{}", fast.punch);
    let reasons = house.read_after(&path, head).await.body["reasons"].clone();
    assert!(reasons.as_array().unwrap().contains(&json!("clock_suspect")), "{reasons}");
    house.close().await;
}
