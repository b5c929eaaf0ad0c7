//! The server itself: who is let in, how it refuses, whether it is well, how it stops.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use std::time::Duration;

use common::{House, ask, request};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use punchtrail_infra::testing::sqlx;
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const OPERATOR_PATHS: &[(&str, &str)] = &[
    ("GET", "/v1/punches"),
    ("GET", "/v1/punches/0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e"),
    ("GET", "/v1/punches/0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e/events"),
    ("GET", "/v1/punches/0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e/explanation"),
    ("POST", "/v1/punches/0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e/decision"),
    ("GET", "/v1/employees/0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e/days/2026-11-21/explanation"),
    ("GET", "/v1/timeline"),
    ("GET", "/v1/timecards"),
    ("GET", "/v1/quarantine"),
    ("GET", "/v1/employees"),
    ("GET", "/v1/sites"),
    ("GET", "/v1/devices"),
    ("GET", "/v1/events"),
    ("GET", "/v1/ledger"),
    ("GET", "/v1/figures"),
    ("GET", "/metrics"),
];

#[tokio::test]
async fn nobody_is_let_in_without_a_token_in_force() {
    let house = House::new().await;
    let device = house.device(house.site().await).await;
    let mut details = std::collections::HashSet::new();
    let unknown = [
        None,
        Some(""),
        Some("ptd_short"),
        Some("ptk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        Some("ptd_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ];
    for (method, path) in OPERATOR_PATHS {
        let method: Method = method.parse().unwrap();
        for token in unknown {
            let answer = house.send(method.clone(), path, token, "{}").await;
            assert_eq!(answer.refusal(), "401 unauthenticated", "{path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            details.insert(answer.body["detail"].clone());
        }
        let answer = house.send(method, path, Some(&device.token), "{}").await;
        assert_eq!(answer.refusal(), "403 forbidden", "{path}");
    }
    assert_eq!(details.len(), 1, "one answer to whatever is tried");
    let site = device.site();
    for (method, path) in [
        ("POST", format!("/v1/sites/{site}/punches/batch")),
        ("GET", format!("/v1/sites/{site}/manifest")),
        ("GET", format!("/v1/sites/{site}/employees?q=a")),
        ("GET", format!("/v1/sites/{site}/punches")),
        ("POST", "/v1/devices/self/heartbeat".to_owned()),
    ] {
        let method: Method = method.parse().unwrap();
        let answer = house.send(method.clone(), &path, None, "{}").await;
        assert_eq!(answer.refusal(), "401 unauthenticated", "{path}");
        let answer = house.send(method, &path, Some(&house.key), "{}").await;
        assert_eq!(answer.refusal(), "403 forbidden", "{path}");
    }
    house.close().await;
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_same_form() {
    let house = House::new().await;
    assert_eq!(house.get("/", None).await.refusal(), "404 not_found");
    assert_eq!(house.get("/v1/nothing", None).await.refusal(), "404 not_found");
    assert_eq!(house.get("/v1/punches/%ff", Some(&house.key)).await.refusal(), "404 not_found");
    let wrong = house.send(Method::DELETE, "/v1/punches", Some(&house.key), "").await;
    assert_eq!(wrong.refusal(), "405 method_not_allowed");
    assert_eq!(wrong.headers["allow"], "GET,HEAD,POST");
    assert_eq!(wrong.headers["x-content-type-options"], "nosniff");
    assert_eq!(wrong.headers["cache-control"], "no-store");
    house.close().await;
}

#[tokio::test]
async fn a_refusal_reads_so() {
    let house = House::new().await;
    let answer = house.get("/v1/punches", None).await;
    let mut body = answer.body.clone();
    assert!(body["request_id"].as_str().is_some_and(|id| id.len() == 36));
    body["request_id"] = json!("…");
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).unwrap(), @r#"
    {
      "code": "unauthenticated",
      "detail": "Send `Authorization: Bearer` with a device's token or an operator's key that is in force, or sign in.",
      "request_id": "…",
      "status": 401,
      "title": "Authentication is needed",
      "type": "/docs/problems#unauthenticated"
    }
    "#);
    house.close().await;
}

#[tokio::test]
async fn it_is_alive_ready_and_measured() {
    let house = House::new().await;
    assert_eq!(house.get("/livez", None).await.text, "alive\n");
    let ready = house.get("/readyz", None).await;
    assert_eq!(ready.status, StatusCode::OK, "{}", ready.text);
    assert_eq!(ready.body["ready"], true);
    assert_eq!(ready.body["commits"]["able"], true, "{}", ready.text);
    let followers = ready.body["followers"].as_array().unwrap();
    let named = |name: &str| followers.iter().find(|follower| follower["name"] == name).unwrap();
    for name in ["adjudicator", "checkpoints", "timeline"] {
        assert!(["following", "standby"].contains(&named(name)["state"].as_str().unwrap()));
    }
    let tasks = ready.body["tasks"].as_array().unwrap();
    for name in ["adjudicator", "committer", "head_poller", "leases", "metrics_upkeep"] {
        assert!(tasks.iter().any(|task| task["name"] == name && task["runs"] == true), "{name}");
    }
    assert!(ready.body["schema"].as_i64().is_some_and(|version| version >= 3));
    let metrics = house.read("/metrics").await;
    assert!(metrics.text.contains("punchtrail_http_requests_total"), "{}", metrics.text);
    assert!(metrics.text.contains("punchtrail_follower_lag_events"), "{}", metrics.text);
    let described = house.get("/openapi.json", None).await;
    assert_eq!(described.body["openapi"], "3.1.0");
    house.close().await;
}

#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    let house = House::new().await;
    let stream = TcpStream::connect(house.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
    let driving = tokio::spawn(connection);
    let uri = format!("http://{}/livez", house.address);
    let request = hyper::Request::get(uri).body(axum::body::Body::empty()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"alive\n");
    drop(sender);
    driving.await.unwrap().unwrap();
    house.close().await;
}

#[tokio::test]
async fn a_batch_in_flight_is_answered_before_the_server_stops() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let item = device.next(employee, PunchKind::In);
    let body = json!({ "punches": [item] }).to_string();
    let head = format!(
        "POST /v1/sites/{site}/punches/batch HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        device.token,
        body.len()
    );
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let (first, second) = body.split_at(body.len() / 2);
    stream.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
    // The request is in flight for sure once another one after it has been answered.
    house.get("/livez", None).await;
    house.begin_stop();
    eventually("a stopping server to take no new connections", PATIENCE, async || {
        Ok(TcpStream::connect(house.address).await.is_err().then_some(()))
    })
    .await
    .unwrap();
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains(r#""status":"applied""#), "{answer}");
    house.close().await;
}

#[tokio::test]
async fn a_connection_cut_before_the_answer_loses_nothing() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let item = device.next(employee, PunchKind::In);
    let body = json!({ "punches": [item.clone()] }).to_string();
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let text = format!(
        "POST /v1/sites/{site}/punches/batch HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\n\
         content-length: {}\r\n\r\n{body}",
        device.token,
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let outcomes = eventually("the first batch to end", PATIENCE, async || {
        let answer = house.deliver(&device, std::slice::from_ref(&item)).await;
        Ok((answer.status != StatusCode::TOO_MANY_REQUESTS).then(|| answer.outcomes()))
    })
    .await
    .unwrap();
    assert!(["applied", "duplicate"].contains(&outcomes[0].as_str()), "{outcomes:?}");
    let again = house.deliver(&device, &[item]).await;
    assert_eq!(again.outcomes(), ["duplicate"]);
    house.close().await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_503_and_comes_back() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let mut device = house.device(site).await;
    let item = device.next(employee, PunchKind::In);
    let mut gone: sqlx::PgConnection =
        sqlx::Connection::connect(house.database.url()).await.unwrap();
    let busy = "select pg_terminate_backend(pid) from pg_stat_activity \
        where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query(busy).execute(&mut gone).await.unwrap();
    eventually("the server to recover", PATIENCE, async || {
        let answer = house.deliver(&device, std::slice::from_ref(&item)).await;
        if answer.status == StatusCode::OK {
            return Ok(Some(()));
        }
        assert_eq!(answer.refusal(), "503 busy");
        assert!(answer.headers.contains_key("retry-after"));
        Ok(None)
    })
    .await
    .unwrap();
    let _ = ask(house.address, request(Method::GET, "/livez", None, "".into())).await;
    house.close().await;
}

#[tokio::test]
async fn two_servers_on_one_database_append_at_once() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada").await;
    let (second, stop, stopped) = house.second().await;
    let mut devices = Vec::new();
    for _ in 0..6 {
        devices.push(house.device(site).await);
    }
    let sending = devices.iter_mut().enumerate().map(|(at, device)| {
        let house = &house;
        async move {
            for round in 0..5 {
                let items: Vec<_> = (0..10).map(|_| device.next(employee, PunchKind::In)).collect();
                let body = json!({ "punches": items }).to_string();
                let path = format!("/v1/sites/{site}/punches/batch");
                let both = [house.address, second];
                for address in [both[(at + round) % 2], both[(at + round + 1) % 2]] {
                    let sent =
                        request(Method::POST, &path, Some(&device.token), body.clone().into());
                    assert_eq!(ask(address, sent).await.outcomes().len(), 10);
                }
            }
        }
    });
    futures::future::join_all(sending).await;
    let head = house.settled().await;
    let (events, first, last): (i64, i64, i64) =
        sqlx::query_as("select count(*), min(position), max(position) from events")
            .fetch_one(&house.pools.writer)
            .await
            .unwrap();
    let head = i64::try_from(head).unwrap();
    assert_eq!((events, first, last), (head, 1, head), "dense");
    let captured = "select count(*), count(distinct aggregate_id) from events \
        where event_type = 'Captured'";
    let captured: (i64, i64) =
        sqlx::query_as(captured).fetch_one(&house.pools.writer).await.unwrap();
    assert_eq!(captured, (300, 300), "nothing twice");
    let judged = "select count(distinct aggregate_id) from events \
        where event_type in ('Accepted', 'ReferredForReview')";
    let judged: i64 = sqlx::query_scalar(judged).fetch_one(&house.pools.writer).await.unwrap();
    let twice = "select count(*) from (select from events \
        where event_type in ('Accepted', 'AnomalyFlagged') \
        group by aggregate_id, payload::text having count(*) > 1) as doubled";
    let twice: i64 = sqlx::query_scalar(twice).fetch_one(&house.pools.writer).await.unwrap();
    assert_eq!((judged, twice), (300, 0), "each judged, and nothing found twice");
    stop.cancel();
    stopped.await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn a_model_that_is_behind_is_said_to_be() {
    let house = House::new().await;
    let site = house.site().await;
    let mut held = house.pools.reader.begin().await.unwrap();
    sqlx::query("select * from read.projections where name = 'sites' for update")
        .fetch_all(&mut *held)
        .await
        .unwrap();
    let policy = json!({ "batch_max": 7 }).to_string();
    let path = format!("/v1/sites/{site}/policy");
    let written = house.send(Method::PUT, &path, Some(&house.key), policy).await;
    let position = written.body["position"].as_u64().unwrap();
    let path = format!("/v1/sites/{site}");
    let behind = house.read_after(&path, position).await;
    assert_eq!(behind.refusal(), "503 read_behind");
    assert!(behind.headers.contains_key("retry-after"));
    held.commit().await.unwrap();
    assert_eq!(house.read_after(&path, position).await.body["policy"]["batch_max"], 7);
    house.close().await;
}

/// Reads until the server ends the connection, for at most ten seconds.
async fn until_ended(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let reading = stream.read_to_end(&mut text);
    let _ = tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .expect("the server ends the connection");
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn clients_that_take_too_long_are_let_go() {
    let short = Duration::from_millis(200);
    let house = House::with(|options| {
        options.timeouts.head = short;
        options.timeouts.body = short;
        options.timeouts.photo = short;
    })
    .await;
    let device = house.device(house.site().await).await;
    let mut silent = TcpStream::connect(house.address).await.unwrap();
    assert_eq!(until_ended(&mut silent).await, "");
    let mut half = TcpStream::connect(house.address).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nhost: te").await.unwrap();
    assert_eq!(until_ended(&mut half).await, "");
    for (line, kind) in [
        (format!("POST /v1/sites/{}/punches/batch", device.site()), "application/json"),
        ("POST /v1/devices/self/heartbeat".to_owned(), "application/json"),
        (format!("PUT /v1/photos/{}", "0".repeat(64)), "image/jpeg"),
    ] {
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\n\
             content-length: 1000\r\n\r\n{{",
            device.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = until_ended(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout"), "{answer}");
        assert!(answer.contains(r#""code":"request_timeout""#), "{answer}");
    }
    house.close().await;
}

#[tokio::test]
async fn metrics_are_open_only_where_they_were_asked_for() {
    let house = House::with(|options| options.metrics_listen = Some(common::LISTEN)).await;
    let address = house.metrics_address.unwrap();
    let open = ask(address, request(Method::GET, "/metrics", None, "".into())).await;
    assert!(open.text.contains("punchtrail_ledger_position"), "{}", open.text);
    let other =
        ask(address, request(Method::GET, "/v1/punches", Some(&house.key), "".into())).await;
    assert_eq!(other.refusal(), "404 not_found");
    assert_eq!(house.get("/metrics", None).await.refusal(), "401 unauthenticated");
    house.close().await;
}

#[tokio::test]
async fn a_sender_of_a_large_body_reads_why_it_is_refused() {
    let house = House::new().await;
    let site = house.site().await;
    let path = format!("/v1/sites/{site}/punches/batch");
    let answer = house.send(Method::POST, &path, Some("ptd_nobody"), vec![b'x'; 3 << 20]).await;
    assert_eq!(answer.refusal(), "401 unauthenticated");
    house.close().await;
}
