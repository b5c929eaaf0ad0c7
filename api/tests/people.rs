//! People as devices and operators look for them, and what the next thing is that each does, over
//! HTTP; and where a device is, which decides whom it has.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, Device, House, request};
use hyper::{Method, StatusCode};
use punchtrail_infra::testing::sqlx;
use punchtrail_protocol::{BootId, EmployeeId, Time, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

fn now() -> Time {
    jiff::Timestamp::now().into()
}

/// What a device reads, everything that is written now in it.
async fn get(house: &House, device: &Device, path: &str) -> Answer {
    let mut request = request(Method::GET, path, Some(&device.token), axum::body::Body::empty());
    let head = house.ledger.head().await.unwrap();
    request.headers_mut().insert("punchtrail-after", head.0.into());
    house.ask(request).await
}

fn typed(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn names(found: &Answer) -> Vec<&str> {
    assert_eq!(found.status, StatusCode::OK, "{}", found.text);
    found.body["data"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn people_are_found_by_a_part_of_their_name_in_scripts_without_spaces() {
    let house = House::new().await;
    let (site, other) = (house.site().await, house.site().await);
    let device = house.device(site).await;
    for (badge, name) in
        [("1", "王小明"), ("2", "山田　太郎"), ("3", "김민수"), ("4", "สมชัย"), ("5", "José García")]
    {
        house.employee(site, badge, name).await;
    }
    let far = house.employee(other, "6", "李小龙").await;
    for (part, expected) in [
        ("明", vec!["王小明"]),
        ("小明", vec!["王小明"]),
        ("太郎", vec!["山田　太郎"]),
        ("山田太郎", vec!["山田　太郎"]),
        ("수", vec!["김민수"]),
        ("ชัย", vec!["สมชัย"]),
        ("garcia", vec!["José García"]),
        ("龙", vec![]),
        ("b", vec![]),
    ] {
        let q = typed(part);
        let found = get(&house, &device, &format!("/v1/sites/{site}/employees?q={q}")).await;
        assert_eq!(names(&found), expected, "{part} at the door");
        let found = house.read(&format!("/v1/employees?site={site}&q={q}")).await;
        assert_eq!(names(&found), expected, "{part} for an operator");
        assert_eq!(
            (&found.body["next_cursor"], &found.body["has_more"]),
            (&Value::Null, &json!(false))
        );
    }
    // Operators search everywhere, and find who has left.
    let q = typed("小");
    assert_eq!(names(&house.read(&format!("/v1/employees?q={q}")).await), ["李小龙", "王小明"]);
    house.write(&format!("/v1/employees/{far}/departure"), &json!({})).await;
    let left = house.read(&format!("/v1/employees?q={q}&limit=1")).await;
    assert_eq!(names(&left), ["李小龙"]);
    assert!(left.body["data"][0]["departed_at"].is_string());

    for (query, refusal) in [
        ("q=".to_owned(), "422 invalid: q invalid_value"),
        (format!("q={}", "a".repeat(65)), "422 invalid: q invalid_value"),
        ("q=a&cursor=AAAA".to_owned(), "422 invalid: cursor invalid_value"),
        ("q=a&limit=0".to_owned(), "422 invalid: limit invalid_value"),
        ("q=a%00".to_owned(), "422 invalid: q invalid_value"),
    ] {
        assert_eq!(house.read(&format!("/v1/employees?{query}")).await.refusal(), refusal);
    }
    assert_eq!(names(&house.read("/v1/employees?q=%20-").await), [""; 0]);
    house.close().await;
}

#[tokio::test]
async fn of_many_the_best_twenty_are_found() {
    let house = House::new().await;
    let site = house.site().await;
    let ids: Vec<Uuid> = (0..4_500).map(|_| Uuid::now_v7()).collect();
    let named: Vec<String> = (0..4_500).map(|n| format!("Worker {n:04}")).collect();
    sqlx::query(
        "insert into employee_directory (employee, name) \
         select * from unnest($1::uuid[], $2::text[])",
    )
    .bind(&ids)
    .bind(&named)
    .execute(&house.pools.writer)
    .await
    .unwrap();
    // In the last step of all.
    house.employee(site, "K-1", "Kaya, Ada").await;
    assert_eq!(names(&house.read("/v1/employees?q=kaya").await), ["Kaya, Ada"]);
    // The directory alone makes nobody: these were never registered.
    assert_eq!(names(&house.read("/v1/employees?q=worker").await), [""; 0]);
    house.close().await;
}

/// A capture made at `at` by the device's clock, delivered.
async fn punched(house: &House, device: &mut Device, who: EmployeeId, kind: PunchKind, at: Time) {
    let capture = device.chain.capture_with(|capture| {
        (capture.employee, capture.kind, capture.captured_at) = (Some(who), kind, at);
        capture.uptime_ms = 60_000;
    });
    let item = device.item(&capture);
    let answer = house.deliver(device, &[item]).await;
    assert_eq!(answer.body["results"][0]["status"], "applied", "{}", answer.text);
}

async fn next_of(house: &House, device: &Device, who: EmployeeId) -> Value {
    let manifest = get(house, device, &format!("/v1/sites/{}/manifest", device.site())).await;
    let rows = manifest.body["data"].as_array().unwrap();
    let row = rows.iter().find(|row| row["employee"] == who.to_string()).unwrap();
    row["last_kind"].clone()
}

#[tokio::test]
async fn the_last_kind_is_that_of_the_last_true_time() {
    let house = House::new().await;
    let site = house.site().await;
    let [ada, ben, cem] = [
        house.employee(site, "1", "Ada").await,
        house.employee(site, "2", "Ben").await,
        house.employee(site, "3", "Cem").await,
    ];
    let [mut right, mut wrong] = [house.device(site).await, house.device(site).await];

    // Nobody knows by how much: it can't be later than it came.
    punched(&house, &mut wrong, ada, PunchKind::In, now().plus_millis(3 * YEAR_MS)).await;
    assert_eq!(next_of(&house, &right, ada).await, "in");
    punched(&house, &mut right, ada, PunchKind::Out, now()).await;
    assert_eq!(next_of(&house, &right, ada).await, "out", "came later, and is of a right clock");

    // Known by a heartbeat of the same boot: three years ahead, so this was an hour ago.
    wrong.chain.next.boot = BootId(Uuid::new_v4());
    let mut beat = wrong.heartbeat();
    beat["clock"] = json!(now().plus_millis(3 * YEAR_MS));
    beat["uptime_ms"] = json!(60_000 + 2 * HOUR_MS);
    let told = house.post("/v1/devices/self/heartbeat", Some(&wrong.token), &beat).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.text);
    punched(&house, &mut right, ben, PunchKind::BreakStart, now().plus_millis(-HOUR_MS)).await;
    // Its clock shows what was two hours ago, by right clocks.
    punched(&house, &mut wrong, ben, PunchKind::In, now().plus_millis(3 * YEAR_MS - 2 * HOUR_MS))
        .await;
    assert_eq!(next_of(&house, &right, ben).await, "break_start");

    // And a clock years behind, known to be: made after what a right clock shows.
    wrong.chain.next.boot = BootId(Uuid::new_v4());
    let mut beat = wrong.heartbeat();
    beat["clock"] = json!(now().plus_millis(-20 * YEAR_MS));
    beat["uptime_ms"] = json!(60_000);
    house.post("/v1/devices/self/heartbeat", Some(&wrong.token), &beat).await;
    punched(&house, &mut right, cem, PunchKind::In, now().plus_millis(-HOUR_MS)).await;
    punched(&house, &mut wrong, cem, PunchKind::Out, now().plus_millis(-20 * YEAR_MS)).await;
    assert_eq!(next_of(&house, &right, cem).await, "out");

    // What is rejected doesn't count, and what is amended is at the time that was found.
    house.settled().await;
    let listed = house.read(&format!("/v1/punches?employee={cem}")).await;
    let out = listed.body["data"].as_array().unwrap().iter().find(|row| row["kind"] == "out");
    let path = format!("/v1/punches/{}/decision", out.unwrap()["punch"].as_str().unwrap());
    let earlier = now().plus_millis(-5 * HOUR_MS);
    let amend = json!({"decision": "amend", "effective_at": earlier, "reason": "wrong_time"});
    let amended = house.write(&path, &amend).await;
    assert_eq!(amended.status, StatusCode::OK, "{}", amended.text);
    assert_eq!(next_of(&house, &right, cem).await, "in");
    house.models_are_as_rebuilt().await;
    house.close().await;
}

#[tokio::test]
async fn a_heartbeat_names_the_site_that_the_device_is_at() {
    let house = House::new().await;
    let [first, second] = [house.site().await, house.site().await];
    let device = house.device(first).await;
    assert_eq!(house.beat(&device).await.body["site"], first.to_string());
    let assign = async |site| {
        let path = format!("/v1/devices/{}/site", device.id);
        house.write(&path, &json!({ "site": site })).await
    };
    for site in [second, first, second] {
        let moved = assign(site).await;
        assert_eq!(moved.status, StatusCode::OK, "{}", moved.text);
        assert_eq!(house.beat(&device).await.body["site"], site.to_string());
    }
    // Who reads nothing more learns of no move either.
    house.write(&format!("/v1/devices/{}/revoke", device.id), &json!({})).await;
    let told = house.beat(&device).await;
    assert_eq!((told.status, told.body.get("site")), (StatusCode::OK, None));
    house.close().await;
}
