//! Admission over real connections: each class has its own budget, what doesn't fit is refused
//! before its body is read with a time to come back, and people are served all the while.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use std::time::Duration;

use common::{Device, House};
use hyper::{Method, StatusCode};
use punchtrail_api::door::admission::{Budget, Class};
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One delivery at a time and none that waits; everything else as usual.
fn narrow(class: Class) -> Budget {
    match class {
        Class::Delivery => Budget { at_once: 1, wait_max: Duration::ZERO, waiting_max: 0 },
        other => other.budget(),
    }
}

/// A delivery whose body doesn't come.
async fn hang(house: &House, path: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// What is answered to it.
async fn answered(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}") {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
    String::from_utf8(bytes).unwrap()
}

/// No delivery at all; everything else as usual.
fn shut(class: Class) -> Budget {
    match class {
        Class::Delivery => Budget { at_once: 0, wait_max: Duration::ZERO, waiting_max: 0 },
        other => other.budget(),
    }
}

/// Waits until so many bodies are coming.
async fn coming(house: &House, bodies: usize) {
    let wanted = format!("punchtrail_admission_coming {bodies}\n");
    let mut metrics = String::new();
    let seen = eventually("bodies to be coming", PATIENCE, async || {
        metrics = house.get("/metrics", Some(&house.key)).await.text;
        Ok(metrics.contains(&wanted).then_some(()))
    })
    .await;
    seen.unwrap_or_else(|error| panic!("{error}: {metrics}"));
}

#[tokio::test]
async fn a_full_queue_refuses_before_the_body_and_lets_people_through() {
    let house = House::with(|options| options.budget = Some(shut)).await;
    let site = house.site().await;
    let device = house.device(site).await;
    let path = format!("/v1/sites/{site}/punches/batch");
    // The refusal comes although the body never does, says when to come back, and ends the
    // connection.
    let refused = answered(hang(&house, &path, &device.token).await).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    let head = refused.to_lowercase();
    assert!(head.contains("\r\nconnection: close\r\n"), "{refused}");
    assert!(head.contains("\r\nretry-after: "), "{refused}");
    assert!(refused.contains(r#""code":"busy""#), "{refused}");
    // Coming before that time changes nothing.
    let again = answered(hang(&house, &path, &device.token).await).await;
    assert!(again.starts_with("HTTP/1.1 503"), "{again}");

    // Other classes don't notice.
    assert_eq!(house.beat(&device).await.status, StatusCode::OK);
    assert_eq!(house.read("/v1/sites").await.status, StatusCode::OK);
    let metrics = house.get("/metrics", Some(&house.key)).await.text;
    assert!(metrics.contains("punchtrail_admission_refused_total{class=\"delivery\",why="));
    house.close().await;
}

#[tokio::test]
async fn nobody_waits_behind_who_keeps_silent() {
    let house = House::with(|options| options.budget = Some(narrow)).await;
    let site = house.site().await;
    let employee = house.employee(site, "B-1", "Ada").await;
    let mut device = house.device(site).await;
    let path = format!("/v1/sites/{site}/punches/batch");
    let mut silent = Vec::new();
    for _ in 0..8 {
        let other = house.device(site).await;
        silent.push(hang(&house, &path, &other.token).await);
    }
    coming(&house, 8).await;
    // There is one permit, and none of them has it.
    let item = device.next(employee, PunchKind::In);
    assert_eq!(house.deliver(&device, &[item]).await.outcomes(), ["applied"]);
    drop(silent);
    coming(&house, 0).await;
    house.close().await;
}

#[tokio::test]
async fn of_a_devices_batches_that_do_not_come_the_newest_stands() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B-1", "Ada").await;
    let mut device = house.device(site).await;
    let path = format!("/v1/sites/{site}/punches/batch");
    let first = hang(&house, &path, &device.token).await;
    coming(&house, 1).await;
    // Until then it may have only just come.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let second = hang(&house, &path, &device.token).await;
    let refused = answered(first).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains(r#""code":"one_at_a_time""#), "{refused}");
    // A line that broke in the middle of a batch doesn't keep the next one waiting.
    let item = device.next(employee, PunchKind::In);
    assert_eq!(house.deliver(&device, &[item]).await.outcomes(), ["applied"]);
    drop(second);
    house.close().await;
}

#[tokio::test]
async fn a_device_that_has_more_gets_its_next_slot_with_its_answer() {
    // With one at a time, the queue isn't free while a device is answered.
    let house = House::with(|options| options.budget = Some(narrow)).await;
    let site = house.site().await;
    let employee = house.employee(site, "B-1", "Ada").await;
    let mut device = house.device(site).await;
    let mut heartbeat = device.heartbeat();
    heartbeat["outbox"] = 2.into();
    let heard = house.post("/v1/devices/self/heartbeat", Some(&device.token), &heartbeat).await;
    assert_eq!(heard.status, StatusCode::OK, "{}", heard.text);
    let mut pause_ms = async || {
        let item = device.next(employee, PunchKind::In);
        let taken = house.deliver(&device, &[item]).await;
        assert_eq!(taken.outcomes(), ["applied"]);
        taken.body["next_batch_after_ms"].as_u64().unwrap()
    };
    // A quarter of a minute at least: it drains by such slices.
    assert!(pause_ms().await >= 15_000);
    assert!((2_000..=4_000).contains(&pause_ms().await));
    house.close().await;
}

#[tokio::test]
async fn heartbeats_of_more_than_can_be_served_say_when_to_deliver() {
    // Ten a second, until a permit has been measured.
    let house = House::with(|options| options.budget = Some(narrow)).await;
    let site = house.site().await;
    let policy = json!({ "reconnect_spread_s": 0 }).to_string();
    let path = format!("/v1/sites/{site}/policy");
    let written = house.send(Method::PUT, &path, Some(&house.key), policy).await;
    assert_eq!(written.status, StatusCode::OK, "{}", written.text);
    house.settled().await;
    let beat = async |device: &Device, outbox: u64| {
        let mut heartbeat = device.heartbeat();
        heartbeat["outbox"] = outbox.into();
        let heard = house.post("/v1/devices/self/heartbeat", Some(&device.token), &heartbeat).await;
        assert_eq!(heard.status, StatusCode::OK, "{}", heard.text);
        heard.body["next_batch_after_ms"].as_u64().unwrap()
    };
    let (mut at_once, mut told) = (0, Vec::new());
    for _ in 0..60 {
        let device = house.device(site).await;
        match beat(&device, 100).await {
            0 => at_once += 1,
            wait_ms => told.push((device, wait_ms)),
        }
        if told.len() == 3 {
            break;
        }
    }
    assert!(at_once >= 10, "{at_once}");
    // Each heartbeat is told of the same slot, and one that has nothing to deliver of none.
    for (device, wait_ms) in &told {
        assert!((1_000..10_000).contains(wait_ms), "{wait_ms}");
        assert!(beat(device, 100).await <= *wait_ms);
        assert_eq!(beat(device, 0).await, 0);
    }
    house.close().await;
}

#[tokio::test]
async fn beyond_the_connection_limit_people_are_served_and_devices_told_when_to_come() {
    let house = House::with(|options| options.connections_max = 2).await;
    let site = house.site().await;
    let device = house.device(site).await;
    let idle = [
        TcpStream::connect(house.address).await.unwrap(),
        TcpStream::connect(house.address).await.unwrap(),
    ];
    let read = house.read("/v1/sites").await;
    assert_eq!(read.status, StatusCode::OK, "{}", read.text);
    assert_eq!(read.headers["connection"], "close");
    let beat = house.beat(&device).await;
    assert_eq!(beat.refusal(), "503 busy");
    assert!(beat.headers.contains_key("retry-after"));
    drop(idle);
    house.close().await;
}
