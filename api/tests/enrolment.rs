//! Enrolment, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{House, enrolment_body};
use ed25519_dalek::SigningKey;
use hyper::{Method, StatusCode};
use punchtrail_infra::testing::sqlx;
use serde_json::json;

const PATH: &str = "/v1/devices/enroll";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

#[tokio::test]
async fn a_code_enrols_one_device_however_it_is_typed() {
    let house = House::new().await;
    let site = house.site().await;
    for typed in [str::to_lowercase, |code: &str| code.replace('-', ""), str::to_owned] {
        let code = typed(&house.code(site).await);
        let body = enrolment_body(&key(1), &code);
        let answer = house.post(PATH, None, &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        assert_eq!(answer.body["site"], site.to_string());
        assert_eq!(answer.body["org"], house.org.to_string());
        assert!(answer.body["token"].as_str().unwrap().starts_with("ptd_"));
        let again = house.post(PATH, None, &body).await;
        assert_eq!(again.refusal(), "403 pairing_code_invalid");
    }
    house.close().await;
}

#[tokio::test]
async fn of_many_devices_with_one_code_exactly_one_is_enrolled() {
    let house = House::new().await;
    let code = house.code(house.site().await).await;
    let asking = (0..12).map(|seed| {
        let body = enrolment_body(&key(seed), &code);
        let house = &house;
        async move { house.post(PATH, None, &body).await }
    });
    let answers = futures::future::join_all(asking).await;
    let enrolled = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(enrolled, 1);
    let refused: Vec<_> =
        answers.iter().filter(|a| a.status != StatusCode::CREATED).map(|a| a.refusal()).collect();
    assert!(refused.iter().all(|refusal| refusal == "403 pairing_code_invalid"), "{refused:?}");
    let devices: i64 = sqlx::query_scalar("select count(*) from device_credentials")
        .fetch_one(&house.pools.writer)
        .await
        .unwrap();
    assert_eq!(devices, 1);
    house.close().await;
}

#[tokio::test]
async fn wrong_and_expired_codes_look_the_same() {
    let house = House::new().await;
    let code = house.code(house.site().await).await;
    sqlx::query("update pairing_codes set expires_at = now() - interval '1 second'")
        .execute(&house.pools.writer)
        .await
        .unwrap();
    let mut seen = Vec::new();
    for code in [code.as_str(), "BCDF-GHJK", "hello", ""] {
        let answer = house.post(PATH, None, &enrolment_body(&key(1), code)).await;
        assert_eq!(answer.refusal(), "403 pairing_code_invalid");
        seen.push(answer.body["detail"].clone());
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
    house.close().await;
}

#[tokio::test]
async fn every_bad_field_is_pointed_to() {
    let house = House::new().await;
    let code = house.code(house.site().await).await;
    let good = enrolment_body(&key(1), &code);
    let with = |field: &str, value: serde_json::Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let small_order = format!("AQ{}", "A".repeat(41));
    for (body, refusal) in [
        (with("name", json!("")), "422 invalid: /name invalid_value"),
        (with("name", json!("x".repeat(65))), "422 invalid: /name invalid_value"),
        (with("app", json!("x".repeat(65))), "422 invalid: /app invalid_value"),
        (with("public_key", json!("short")), "422 invalid: /public_key invalid_key"),
        (with("public_key", json!(small_order)), "422 invalid: /public_key invalid_key"),
        (with("proof", json!("§")), "422 invalid: /proof invalid_value"),
        (with("proof", json!("A".repeat(86))), "422 invalid: /proof bad_signature"),
        (with("extra", json!(1)), "422 invalid: /extra unknown_field"),
        (with("code", json!(7)), "422 invalid: /code invalid_value"),
        (json!({}), "422 invalid: /code missing_field"),
    ] {
        assert_eq!(house.post(PATH, None, &body).await.refusal(), refusal, "{body}");
    }
    // None of that used the code up.
    assert_eq!(house.post(PATH, None, &good).await.status, StatusCode::CREATED);
    house.close().await;
}

#[tokio::test]
async fn malformed_json_is_refused_as_such() {
    let house = House::new().await;
    for body in [
        r#"{"code":"a","code":"b"}"#,
        r#"{"code":"\u0000"}"#,
        r#"{"code":"\ud800"}"#,
        r#"{"code":"a"} x"#,
        "{",
        "",
        &("[".repeat(33) + &"]".repeat(33)),
    ] {
        let answer = house.send(Method::POST, PATH, None, body.to_owned()).await;
        assert_eq!(answer.refusal(), "400 malformed_json", "{body}");
    }
    house.close().await;
}
