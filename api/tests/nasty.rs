//! Whatever a client sends, it is never the server that fails: broken captures, broken bodies, odd
//! paths and queries, each over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{House, request};
use hyper::{Method, StatusCode};
use punchtrail_protocol::capture::PunchKind;
use serde_json::{Value, json};

/// A small generator (xorshift), so that a failing run can be run again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// A text with one thing wrong.
    fn spoil(&mut self, text: &[u8]) -> Vec<u8> {
        let mut spoiled = text.to_vec();
        let at = self.below(text.len());
        let scraps: [&[u8]; 10] = [
            b"\"",
            b"{",
            b"}",
            b"\\u0000",
            b"\\ud800",
            b"\xff",
            b"99999999999999999999",
            b"null",
            b"-",
            b",",
        ];
        match self.below(4) {
            0 => spoiled.truncate(at),
            1 => spoiled[at] = self.below(256) as u8,
            2 => drop(spoiled.splice(at..at, scraps[self.below(scraps.len())].iter().copied())),
            _ => drop(spoiled.drain(at..(at + 1 + self.below(40)).min(text.len()))),
        }
        spoiled
    }
}

#[tokio::test]
async fn every_spoiled_capture_is_acknowledged() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let mut dice = Dice(0x5EED);
    for _ in 0..12 {
        let items: Vec<Value> = (0..50)
            .map(|_| {
                let capture = device.capture(employee, PunchKind::In).to_bytes();
                let mut item = device.signed(&dice.spoil(&capture));
                if dice.below(8) == 0 {
                    let field = ["capture", "signature"][dice.below(2)];
                    let spoiled = dice.spoil(item[field].as_str().unwrap().as_bytes());
                    let text = String::from_utf8_lossy(&spoiled).replace('\0', "");
                    item[field] = json!(text);
                }
                item
            })
            .collect();
        let first = house.deliver(&device, &items).await;
        let outcomes = first.outcomes();
        assert_eq!(outcomes.len(), items.len());
        let known = ["applied", "quarantined", "conflict", "duplicate"];
        assert!(
            outcomes.iter().all(|outcome| known.iter().any(|status| outcome.starts_with(status)))
        );
        let again = house.deliver(&device, &items).await.outcomes();
        for (first, again) in outcomes.iter().zip(&again) {
            let expected = if first == "applied" { "duplicate" } else { first };
            assert_eq!(again, expected);
        }
    }
    house.settled().await;
    let ready = house.get("/readyz", None).await;
    assert_eq!(ready.body["ready"], true, "{}", ready.text);
    house.close().await;
}

#[tokio::test]
async fn every_spoiled_body_is_answered_by_a_refusal_or_taken() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let batch = json!({ "punches": [device.next(employee, PunchKind::In)] }).to_string();
    let beat = device.heartbeat().to_string();
    let mut dice = Dice(0xBAD);
    for (path, body) in [
        (format!("/v1/sites/{site}/punches/batch"), batch),
        ("/v1/devices/self/heartbeat".to_owned(), beat),
    ] {
        for _ in 0..150 {
            let spoiled = dice.spoil(body.as_bytes());
            let token = Some(device.token.as_str());
            let answer = house.send(Method::POST, &path, token, spoiled.clone()).await;
            if answer.status != StatusCode::OK {
                let refusal = answer.refusal();
                let expected = ["400 malformed_json", "422 invalid"];
                assert!(
                    expected.iter().any(|code| refusal.starts_with(code)),
                    "{refusal}: {}",
                    String::from_utf8_lossy(&spoiled)
                );
            }
        }
    }
    house.close().await;
}

#[tokio::test]
async fn no_path_or_query_breaks_the_server() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let device = house.device(site).await;
    let values = [
        "",
        "%00",
        "%ff",
        "0",
        "-1",
        "1e9",
        "99999999999999999999",
        "null",
        "'",
        "%27%20or%201=1--",
        "0001-01-01T00:00:00.000Z",
        "9999-12-30T22:00:00.000Z",
        "-009999-01-02",
        "9999-12-31",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "../../x",
    ];
    let id = employee.to_string();
    let lists = [
        ("/v1/punches", ["employee", "from", "cursor", "standing"]),
        ("/v1/timeline", ["employee", "from", "to", "limit"]),
        ("/v1/timecards", ["employee", "from", "to", "site"]),
        ("/v1/quarantine", ["state", "order", "cursor", "limit"]),
        ("/v1/employees", ["site", "cursor", "limit", "q"]),
        ("/v1/devices", ["site", "cursor", "limit", "x"]),
        ("/v1/events", ["after", "limit", "x", ""]),
    ];
    let mut paths = Vec::new();
    for value in values {
        for (list, names) in lists {
            paths.extend(names.iter().map(|name| format!("{list}?{name}={value}")));
            paths.push(format!("{list}/{value}"));
        }
        paths.push(format!("/v1/timeline?employee={id}&from={value}&to={value}"));
        paths.push(format!("/v1/timecards?employee={id}&from={value}&to={value}"));
        paths.push(format!("/v1/timecards?site={site}&from={value}&to={value}"));
        paths.push(format!("/v1/employees/{id}/days/{value}/explanation"));
        paths.push(format!("/v1/punches/{value}/explanation"));
    }
    let check = async |path: &str, token: &str| {
        let answer =
            house.ask(request(Method::GET, path, Some(token), axum::body::Body::empty())).await;
        assert!(!answer.status.is_server_error(), "{path}: {}", answer.text);
    };
    for path in &paths {
        check(path, &house.key).await;
    }
    for value in values {
        for query in ["manifest?cursor=", "manifest?limit=", "punches?since=", "employees?q="] {
            check(&format!("/v1/sites/{site}/{query}{value}"), &device.token).await;
        }
    }
    house.close().await;
}
