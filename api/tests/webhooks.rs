//! Webhooks over HTTP: who may, what is taken, what is told and shown, and what fills gaps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, House, request};
use hyper::{Method, StatusCode, header};
use punchtrail_infra::{
    access::{credentials::Secret, keys},
    testing::sqlx,
    webhooks::address::Egress,
};
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, Receiver, Reply, eventually};
use serde_json::{Value, json};

async fn house() -> House {
    House::with(|options| options.webhooks.egress = Egress::new(Vec::new(), true)).await
}

/// Everything is judged and told.
async fn told(house: &House) {
    let head = house.settled().await;
    eventually("the ledger to be told", PATIENCE, async || {
        let page = house.read(&format!("/v1/events?after={}", head - 1)).await.body;
        Ok((page["next_after"].as_u64() >= Some(head)).then_some(()))
    })
    .await
    .unwrap();
}

async fn make(house: &House, body: Value) -> String {
    let made = house.write("/v1/webhooks", &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert!(made.body["secret"].as_str().unwrap().starts_with("whsec_"));
    made.body["webhook"].as_str().unwrap().to_owned()
}

async fn with(house: &House, method: Method, path: &str, body: &Value) -> Answer {
    house.send(method, path, Some(&house.key), body.to_string()).await
}

#[tokio::test]
async fn what_is_told_fills_gaps_and_is_filtered() {
    let house = house().await;
    let (site, other) = (house.site().await, house.site().await);
    let employee = house.employee(site, "B1", "Ada Lovelace").await;
    house.employee(other, "B2", "Ben").await;
    let mut device = house.device(site).await;
    let punch = device.next(employee, PunchKind::In);
    assert_eq!(house.deliver(&device, std::slice::from_ref(&punch)).await.outcomes(), ["applied"]);
    assert_eq!(house.deliver(&device, &[punch]).await.outcomes(), ["duplicate"]);
    told(&house).await;

    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = house.read(&format!("/v1/events?after={after}&limit=2")).await.body;
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 2);
        seen.extend(data.clone());
        after = page["next_after"].as_u64().unwrap();
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(after, house.ledger.head().await.unwrap().0);
    let types: Vec<&str> = seen.iter().map(|one| one["body"]["type"].as_str().unwrap()).collect();
    let count = |wanted: &str| types.iter().filter(|one| **one == wanted).count();
    assert_eq!((count("punch.recorded"), count("punch.accepted")), (1, 1), "{types:?}");
    assert_eq!(count("device.enrolled"), 1);
    assert!(!seen.iter().any(|one| one.to_string().contains("Lovelace")), "no names");
    let accepted = seen.iter().find(|one| one["body"]["type"] == "punch.accepted").unwrap();
    let data = &accepted["body"]["data"];
    assert_eq!((&data["kind"], &data["standing"]), (&json!("in"), &json!("accepted")));
    assert_eq!(data["employee"], employee.to_string());
    assert_eq!(data["position"], accepted["position"]);

    let only = house.read("/v1/events?types=punch.accepted,punch.voided").await.body;
    assert_eq!(only["data"], json!([accepted]));
    let there = house.read(&format!("/v1/events?site={other}&limit=1000")).await.body;
    assert!(
        there["data"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| { one["body"]["type"] == "employee.changed" })
    );
    for (query, refusal) in [
        ("types=punch.eaten", "422 invalid: types unknown"),
        ("after=18446744073709551615", "422 invalid: after invalid_value"),
        ("limit=0", "422 invalid: limit invalid_value"),
    ] {
        assert_eq!(house.read(&format!("/v1/events?{query}")).await.refusal(), refusal);
    }
    house.close().await;
}

#[tokio::test]
async fn an_endpoint_is_made_told_shown_changed_and_removed() {
    let house = house().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let receiver = Receiver::answering(|_, before| match before {
        0 => Reply::Status(418, vec!["x-tea: pot".to_owned()], "short and stout".to_owned()),
        _ => Reply::status(200),
    });
    let receiver = receiver.await.unwrap();
    let types = json!(["punch.accepted"]);
    let body = json!({
        "name": " payroll ", "url": receiver.url(), "types": types, "sites": [site],
        "contact": "payroll@example.com", "after": 0,
    });
    let webhook = make(&house, body.clone()).await;
    let path = format!("/v1/webhooks/{webhook}");
    let shown = house.read(&path).await.body;
    assert_eq!((&shown["name"], &shown["types"]), (&json!("payroll"), &types));
    assert_eq!(shown["secrets"], json!([null]));
    assert!(!shown.to_string().contains("whsec"));
    let mut device = house.device(site).await;
    let punch = device.next(employee, PunchKind::In);
    house.deliver(&device, &[punch]).await;
    told(&house).await;
    let deliveries = format!("{path}/deliveries");
    let tried = eventually("a try", PATIENCE, async || {
        let page = house.read(&deliveries).await.body;
        Ok(page["data"].get(0).filter(|one| one["tries"] == 1).cloned())
    })
    .await
    .unwrap();
    assert_eq!((&tried["state"], &tried["status"]), (&json!("pending"), &json!(418)));
    let one = format!("{deliveries}/{}", tried["delivery"]);
    let detail = house.read(&one).await.body;
    let attempt = &detail["attempts"][0];
    assert_eq!(attempt["answer"], "short and stout");
    assert!(attempt["headers"].as_str().unwrap().contains("x-tea: pot"));
    assert_eq!(detail["body"], receiver.received()[0].body);
    assert_eq!(house.write(&format!("{one}/redelivery"), &json!({})).await.status, 202);
    eventually("the redelivery", PATIENCE, async || {
        let page = house.read(&format!("{deliveries}?state=delivered")).await.body;
        Ok((page["data"].as_array().unwrap().len() == 1).then_some(()))
    })
    .await
    .unwrap();
    let received = receiver.received();
    assert_eq!((&received[0].id, &received[0].body), (&received[1].id, &received[1].body));

    let tested = house.write(&format!("{path}/test"), &json!({})).await;
    assert_eq!(tested.status, 202, "{}", tested.text);
    let span = json!({ "since": "2020-01-01T00:00:00.000Z", "everything": true });
    let again = house.write(&format!("{path}/redeliveries"), &span).await;
    assert_eq!(again.status, 202, "{}", again.text);
    eventually("all of it once more", PATIENCE, async || Ok((receiver.count() == 4).then_some(())))
        .await
        .unwrap();
    let jobs = house.read(&format!("{path}/redeliveries")).await.body;
    assert_eq!(jobs["data"][0]["redelivery"], again.body["redelivery"]);

    let changed = json!({ "name": "other", "url": receiver.url() });
    assert_eq!(with(&house, Method::PUT, &path, &changed).await.status, 204);
    let disabled = format!("{path}/disabled");
    let off = with(&house, Method::PUT, &disabled, &json!({ "disabled": true })).await;
    assert_eq!(off.status, 204, "{}", off.text);
    let shown = house.read("/v1/webhooks").await.body["data"][0].clone();
    assert_eq!((&shown["name"], &shown["disabled_because"]), (&json!("other"), &json!("person")));
    assert_eq!((&shown["types"], &shown["contact"]), (&Value::Null, &Value::Null));
    let on = json!({ "disabled": false, "missed": true });
    assert_eq!(with(&house, Method::PUT, &disabled, &on).await.status, 204);
    let secret = house.write(&format!("{path}/secret"), &json!({ "overlap_h": 1 })).await;
    assert_eq!(secret.status, 201);
    assert_eq!(house.read(&path).await.body["secrets"].as_array().unwrap().len(), 2);
    assert_eq!(with(&house, Method::DELETE, &path, &json!({})).await.status, 204);
    assert_eq!(house.read(&path).await.refusal(), "404 not_found");
    let trail = house.read("/v1/audit").await.body.to_string();
    for act in ["webhook_made", "webhook_changed", "webhook_secret_made", "webhook_removed"] {
        assert!(trail.contains(act), "{act}");
    }
    house.close().await;
}

#[tokio::test]
async fn what_can_not_be_an_endpoint_is_refused() {
    let house = house().await;
    let good = json!({ "name": "x", "url": "http://127.0.0.1:40000/" });
    for (field, value, refusal) in [
        ("name", json!(""), "422 invalid: /name invalid_value"),
        ("name", json!("n".repeat(65)), "422 invalid: /name invalid_value"),
        ("url", json!("https://10.0.0.1/"), "422 invalid: /url invalid_value"),
        ("url", json!("http://127.0.0.1:5432/"), "422 invalid: /url invalid_value"),
        ("url", json!("ftp://example.com/"), "422 invalid: /url invalid_value"),
        ("types", json!(["punch.accepted", "x"]), "422 invalid: /types/1 unknown"),
        ("types", json!([]), "422 invalid: /types invalid_value"),
        ("sites", json!([]), "422 invalid: /sites unknown"),
        ("sites", json!([uuid::Uuid::nil()]), "422 invalid: /sites unknown"),
        ("contact", json!("nobody"), "422 invalid: /contact invalid_value"),
        ("after", json!(1u64 << 40), "422 invalid: /after beyond_head"),
        ("after", json!(1u64 << 60), "422 invalid: /after invalid_value"),
        ("colour", json!("red"), "422 invalid: /colour unknown_field"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        assert_eq!(house.write("/v1/webhooks", &body).await.refusal(), refusal, "{body}");
    }
    let nobody = format!("/v1/webhooks/{}", uuid::Uuid::nil());
    for (method, path, body) in [
        (Method::GET, String::new(), json!({})),
        (Method::PUT, String::new(), good.clone()),
        (Method::DELETE, String::new(), json!({})),
        (Method::POST, "/test".to_owned(), json!({})),
        (Method::POST, "/secret".to_owned(), json!({})),
        (Method::PUT, "/disabled".to_owned(), json!({ "disabled": true })),
        (Method::POST, "/deliveries/1/redelivery".to_owned(), json!({})),
        (Method::POST, "/redeliveries".to_owned(), json!({ "since": "2026-01-01T00:00:00.000Z" })),
    ] {
        let answer = with(&house, method, &format!("{nobody}{path}"), &body).await;
        assert_eq!(answer.refusal(), "404 not_found", "{path}");
    }
    house.close().await;
}

/// The secret is given once, also when the request is sent again by its key.
#[tokio::test]
async fn a_secret_is_never_kept_with_an_answer() {
    let house = house().await;
    let body = json!({ "name": "x", "url": "http://127.0.0.1:40000/" });
    let ask = || async {
        let sent = body.to_string();
        let mut asked = request(Method::POST, "/v1/webhooks", Some(&house.key), sent.into());
        let json = header::HeaderValue::from_static("application/json");
        asked.headers_mut().insert(header::CONTENT_TYPE, json);
        asked.headers_mut().insert("idempotency-key", "\"once\"".parse().unwrap());
        house.ask(asked).await
    };
    let first = ask().await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    assert_eq!(ask().await.refusal(), "409 answer_not_kept");
    assert_eq!(house.read("/v1/webhooks").await.body["data"].as_array().unwrap().len(), 1);
    let kept: Vec<Option<Vec<u8>>> = sqlx::query_scalar("select body from kept_answers")
        .fetch_all(&house.pools.writer)
        .await
        .unwrap();
    assert!(kept.iter().all(Option::is_none));
    house.close().await;
}

#[tokio::test]
async fn a_key_needs_the_scope_and_of_sites_sees_theirs() {
    let house = house().await;
    let (site, other) = (house.site().await, house.site().await);
    house.employee(site, "B1", "Ada").await;
    house.employee(other, "B2", "Ben").await;
    told(&house).await;
    let key = |scopes: &[&str], sites: Option<Vec<_>>| {
        let scopes = Some(scopes.iter().map(|scope| (*scope).to_owned()).collect());
        keys::NewKey { name: "k", scopes, sites, ..keys::NewKey::default() }
    };
    let doer = punchtrail_infra::access::trail::Doer::command_line();
    let make =
        async |new| -> Secret { keys::create(&house.pools.writer, new, &doer).await.unwrap().1 };
    let reads = make(key(&["webhooks:read"], None)).await;
    let of_site = make(key(&["webhooks:read"], Some(vec![site]))).await;
    let neither = make(key(&["punches:read"], None)).await;
    let get = async |path: &str, key: &Secret| house.get(path, Some(key.reveal())).await;
    assert_eq!(get("/v1/webhooks", &reads).await.status, 200);
    assert_eq!(get("/v1/webhooks", &neither).await.status, 403);
    assert_eq!(get("/v1/webhooks", &of_site).await.status, 403);
    assert_eq!(get("/v1/ledger/events", &reads).await.status, 403);
    let body = json!({ "name": "x", "url": "http://127.0.0.1:40000/" });
    let made = house.post("/v1/webhooks", Some(reads.reveal()), &body).await;
    assert_eq!(made.status, 403);
    let of = |answer: &Answer| answer.body["data"].as_array().unwrap().len();
    let (all, own) = (get("/v1/events", &reads).await, get("/v1/events", &of_site).await);
    assert!(of(&own) > 0 && of(&own) < of(&all), "{} of {}", of(&own), of(&all));
    let there = get(&format!("/v1/events?site={other}"), &of_site).await;
    assert_eq!(there.refusal(), "404 not_found");
    house.close().await;
}
