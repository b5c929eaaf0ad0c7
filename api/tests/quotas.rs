//! What devices and keys may ask for within a day, over real HTTP, on two nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use axum::body::Body;
use common::{Answer, House, ask, request};
use hyper::{Method, StatusCode};
use punchtrail_infra::testing::sqlx;
use punchtrail_protocol::capture::PunchKind;

fn number(answer: &Answer, header: &str) -> i64 {
    let value = answer.headers.get(header).unwrap_or_else(|| panic!("{header}: {answer:?}"));
    value.to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_devices_reads_are_counted_on_all_nodes_and_its_deliveries_never() {
    let house = House::with(|options| options.allowance.device_calls = 5).await;
    let (second, stop, running) = house.second().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let path = format!("/v1/sites/{site}/punches");
    let token = device.token.clone();
    let read =
        async |node| ask(node, request(Method::GET, &path, Some(&token), Body::empty())).await;
    for left in (0..5).rev() {
        let answer = read(house.address).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(number(&answer, "x-ratelimit-limit"), 5);
        assert_eq!(number(&answer, "x-ratelimit-remaining"), left);
    }
    let refused = read(house.address).await;
    assert_eq!(refused.refusal(), "429 quota_exceeded");
    assert_eq!(number(&refused, "x-ratelimit-remaining"), 0);
    let (wait_s, reset_s) =
        (number(&refused, "retry-after"), number(&refused, "x-ratelimit-reset"));
    assert!((86_000..=87_000).contains(&wait_s), "{wait_s}");
    let now: i64 = sqlx::query_scalar("select extract(epoch from now())::bigint")
        .fetch_one(&house.pools.writer)
        .await
        .unwrap();
    assert!((reset_s - now - wait_s).abs() < 60, "{reset_s} {now} {wait_s}");
    // The other node counts the same window, with a limit of its own here.
    let elsewhere = read(second).await;
    assert_eq!(number(&elsewhere, "x-ratelimit-limit"), 1_000);
    assert_eq!(number(&elsewhere, "x-ratelimit-remaining"), 994);
    // What it delivers, and is told to fetch, isn't counted.
    let item = device.next(employee, PunchKind::In);
    let delivered = house.deliver(&device, &[item]).await;
    assert_eq!(delivered.outcomes(), ["applied"]);
    assert_eq!(house.beat(&device).await.status, StatusCode::OK);
    for path in [format!("/v1/sites/{site}/manifest"), "/v1/devices/self/commands".to_owned()] {
        let answer = house.get(&path, Some(&device.token)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert!(!answer.headers.contains_key("x-ratelimit-limit"), "{path}");
    }
    // Another device has a window of its own; what was refused isn't counted.
    let other = house.device(site).await;
    let answer = house.get(&path, Some(&other.token)).await;
    assert_eq!(number(&answer, "x-ratelimit-remaining"), 4);
    sqlx::query("update call_windows set newest = newest - 145")
        .execute(&house.pools.writer)
        .await
        .unwrap();
    assert_eq!(number(&read(house.address).await, "x-ratelimit-remaining"), 4);
    stop.cancel();
    running.await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn a_keys_calls_are_counted() {
    let house = House::with(|options| options.allowance.key_calls = 3).await;
    for left in (0..3).rev() {
        let answer = house.get("/v1/sites", Some(&house.key)).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(number(&answer, "x-ratelimit-remaining"), left);
    }
    let refused = house.get("/v1/sites", Some(&house.key)).await;
    assert_eq!(refused.refusal(), "429 quota_exceeded");
    assert!(number(&refused, "retry-after") > 0);
    // Nobody is counted as nobody.
    assert_eq!(house.get("/v1/sites", Some("ptk_none")).await.refusal(), "401 unauthenticated");
    house.close().await;
}
