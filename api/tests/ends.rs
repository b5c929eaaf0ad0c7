//! Every number that comes from outside at the ends of what can be written, over HTTP and on a real
//! ledger, and whatever was taken then explained, paired and replayed: nothing is the server's
//! fault, and nothing overflows (a build for tests checks, as the release build does).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{House, request};
use hyper::{Method, StatusCode};
use punchtrail_domain::policy::Policy;
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{NUMBERS, TIMES, text, with_fields};
use serde_json::Value;

/// Every punch explained and every business day of it made, as an operator asks for them.
async fn follow(house: &House, employee: &str) {
    let head = house.settled().await;
    let path = format!("/v1/punches?employee={employee}&order=oldest&limit=1000");
    let found = house.read_after(&path, head).await;
    let rows = found.body["data"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let punch = row["punch"].as_str().unwrap();
        let at = row["effective_at"].as_str().unwrap();
        let day = &at[..10];
        for path in [
            format!("/v1/punches/{punch}/explanation"),
            format!("/v1/timecards?employee={employee}&from={day}&to={day}"),
            format!("/v1/employees/{employee}/days/{day}/explanation"),
            format!("/v1/timeline?employee={employee}&from={at}&to={at}"),
        ] {
            let answer = house.read_after(&path, head).await;
            assert!(!answer.status.is_server_error(), "{path}: {}", answer.text);
            if path.starts_with("/v1/punches") {
                assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
            }
        }
    }
    let replayed = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
        .args(["ledger", "replay", "--json"])
        .env("DATABASE_URL", house.database.url())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(replayed.status.success(), "{replayed:?}");
    let replayed: Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!(replayed["through"], head);
}

#[tokio::test]
async fn captures_at_their_ends_are_taken_or_kept_and_can_be_explained() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    house.beat(&device).await;
    let mut items = Vec::new();
    for field in ["v", "seq", "utc_offset_s", "uptime_ms"] {
        for number in NUMBERS {
            let example = text(&device.capture(employee, PunchKind::In));
            items.push(device.signed(with_fields(&example, &[(field, number)]).as_bytes()));
        }
    }
    for time in TIMES {
        for (offset, uptime) in [("-93599", "0"), ("93599", "9007199254740991"), ("0", "120000")] {
            let example = text(&device.capture(employee, PunchKind::Out));
            let time = format!("\"{time}\"");
            let fields =
                [("captured_at", &time[..]), ("utc_offset_s", offset), ("uptime_ms", uptime)];
            items.push(device.signed(with_fields(&example, &fields).as_bytes()));
        }
    }
    let mut applied = 0;
    for batch in items.chunks(60) {
        for outcome in house.deliver(&device, batch).await.outcomes() {
            applied += usize::from(outcome == "applied");
            let known = ["applied", "quarantined bad_capture", "quarantined unknown_version"];
            assert!(known.contains(&outcome.as_str()), "{outcome}");
        }
    }
    assert!(applied > 40, "{applied}");
    // With the longest and the shortest of everything that a policy sets.
    for policy in [
        r#"{"lookback_s":31622400,"clock_suspect_s":86400,"near_duplicate_s":3600,"travel_s":86400,
            "day_starts_min":1439,"shift_max_s":172800}"#,
        r#"{"lookback_s":3600,"clock_suspect_s":1,"near_duplicate_s":0,"travel_s":0,
            "day_starts_min":0,"shift_max_s":3600}"#,
    ] {
        let path = format!("/v1/sites/{site}/policy");
        let answer = house.send(Method::PUT, &path, Some(&house.key), policy).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let next = device.next(employee, PunchKind::In);
        assert_eq!(house.deliver(&device, &[next]).await.outcomes(), ["applied"]);
        follow(&house, &employee.to_string()).await;
    }
    house.close().await;
}

#[tokio::test]
async fn heartbeats_at_their_ends_are_taken_or_refused_and_captures_judged_by_them() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let good = device.heartbeat().to_string();
    let times: Vec<String> = TIMES.iter().map(|time| format!("\"{time}\"")).collect();
    let mut bodies = Vec::new();
    for field in ["outbox", "photos", "seq", "uptime_ms"] {
        bodies.extend(NUMBERS.iter().map(|number| with_fields(&good, &[(field, number)])));
    }
    for field in ["clock", "oldest"] {
        bodies.extend(times.iter().map(|time| with_fields(&good, &[(field, time)])));
    }
    let mut taken = 0;
    for body in bodies {
        let path = "/v1/devices/self/heartbeat";
        let answer = house.send(Method::POST, path, Some(&device.token), body.clone()).await;
        taken += usize::from(answer.status == StatusCode::OK);
        if answer.status != StatusCode::OK {
            let refusal = answer.refusal();
            let expected = ["422 invalid: ", "400 malformed_json"];
            assert!(expected.iter().any(|start| refusal.starts_with(start)), "{body}: {refusal}");
        }
        if answer.status == StatusCode::OK && taken % 8 == 0 {
            let next = device.next(employee, PunchKind::In);
            assert_eq!(house.deliver(&device, &[next]).await.outcomes(), ["applied"]);
        }
    }
    assert!(taken > 40, "{taken}");
    let unheard = format!("/v1/employees/{employee}/days/2026-11-21/explanation");
    assert!(!house.read(&unheard).await.status.is_server_error());
    follow(&house, &employee.to_string()).await;
    house.close().await;
}

#[tokio::test]
async fn policies_queries_cursors_and_headers_have_their_ranges() {
    let house = House::new().await;
    let site = house.site().await;
    let device = house.device(site).await;
    let policy = serde_json::to_value(Policy::default()).unwrap();
    let numbers = policy.as_object().unwrap().iter().filter(|(_, value)| value.is_number());
    for (field, _) in numbers {
        for number in NUMBERS {
            let body = format!("{{\"{field}\":{number}}}");
            let path = format!("/v1/sites/{site}/policy");
            let answer = house.send(Method::PUT, &path, Some(&house.key), body.clone()).await;
            if answer.status != StatusCode::OK {
                let refusal = answer.refusal();
                let at_fault = refusal.starts_with("400 malformed_json")
                    || refusal == format!("422 invalid: /{field} invalid_value");
                assert!(at_fault, "{body}: {refusal}");
            }
        }
    }
    for number in NUMBERS.iter().copied().filter(|number| !number.contains(['"', '['])) {
        for path in [
            format!("/v1/ledger/events?after={number}"),
            format!("/v1/ledger/events?limit={number}"),
            format!("/v1/punches?limit={number}"),
            format!("/v1/quarantine?limit={number}"),
            format!("/v1/disputes?limit={number}"),
        ] {
            let answer = house.get(&path, Some(&house.key)).await;
            assert!(
                answer.status == StatusCode::OK || answer.refusal().starts_with("422 invalid"),
                "{path}: {}",
                answer.text
            );
        }
        let record = format!("employees/{}/record?days", uuid::Uuid::nil());
        for path in ["manifest?limit", "punches?limit", &record] {
            let path = format!("/v1/sites/{site}/{path}={number}");
            let answer = house.get(&path, Some(&device.token)).await;
            assert!(!answer.status.is_server_error(), "{path}: {}", answer.text);
        }
        let mut read =
            request(Method::GET, "/v1/punches", Some(&house.key), axum::body::Body::empty());
        read.headers_mut().insert("punchtrail-after", number.parse().unwrap());
        let answer = house.ask(read).await;
        assert!(
            answer.status == StatusCode::OK || answer.refusal().starts_with("422 invalid"),
            "{number}: {}",
            answer.text
        );
    }
    house.close().await;
}
