//! Nobody at the door can hurt the others: strangers, a revoked device, a device that does its
//! worst, each over real connections while honest callers go on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use common::{Device, House, enrolment_body, request};
use ed25519_dalek::SigningKey;
use hyper::{Method, Request, StatusCode, client::conn::http2, header, header::HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo};
use punchtrail_api::upkeep;
use punchtrail_infra::{
    devices,
    ledger::{Metadata, QuarantineRoom},
    photos::loose::LOOSE_OF_REVOKED_MAX,
    testing::sqlx,
};
use punchtrail_protocol::{
    Digest, Time,
    capture::PunchKind,
    signing::{ENROLMENT_TYPE, sign},
};
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const ENROLL: &str = "/v1/devices/enroll";

/// Requests on one HTTP/2 connection, each with a length and no body.
async fn stall(
    house: &House,
    count: usize,
    request: impl Fn() -> hyper::http::request::Builder,
) -> JoinSet<()> {
    let stream = TcpStream::connect(house.address).await.unwrap();
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut stalled = JoinSet::new();
    stalled.spawn(async move { drop(connection.await) });
    for _ in 0..count {
        let nothing = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let request =
            request().header(header::CONTENT_LENGTH, 300).body(Body::from_stream(nothing)).unwrap();
        let mut sender = sender.clone();
        stalled.spawn(async move { drop(sender.send_request(request).await) });
    }
    stalled
}

fn post(house: &House, path: &str) -> hyper::http::request::Builder {
    Request::post(format!("http://{}{path}", house.address))
        .header(header::CONTENT_TYPE, "application/json")
}

async fn bodies_come(house: &House, at_least: usize) {
    eventually("bodies to be coming", PATIENCE, async || {
        let metrics = house.get("/metrics", Some(&house.key)).await.text;
        let line = metrics.lines().find_map(|l| l.strip_prefix("punchtrail_admission_coming "));
        let coming = line.and_then(|count| count.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((coming >= at_least as f64).then_some(()))
    })
    .await
    .unwrap();
}

/// Someone reads, a device enrols, reports and delivers, a photo comes.
async fn others_go_on(house: &House) {
    assert_eq!(house.read("/v1/sites").await.status, StatusCode::OK);
    assert_eq!(house.read("/v1/punches").await.status, StatusCode::OK);
    let site = house.site().await;
    let employee = house.employee(site, &format!("B-{site}"), "Ada").await;
    let code = house.code(site).await;
    let key = SigningKey::from_bytes(&[9; 32]);
    let enrolled = house.post(ENROLL, None, &enrolment_body(&key, &code)).await;
    assert_eq!(enrolled.status, StatusCode::CREATED, "{}", enrolled.text);
    let mut device = house.device(site).await;
    assert_eq!(house.beat(&device).await.status, StatusCode::OK);
    let items = [device.next(employee, PunchKind::In), device.next(employee, PunchKind::Out)];
    assert_eq!(house.deliver(&device, &items).await.outcomes(), ["applied", "applied"]);
    let photo = photo(&device);
    let path = format!("/v1/photos/{}", Digest::of(&photo));
    let mut request = request(Method::PUT, &path, Some(&device.token), Body::from(photo));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
    let kept = house.ask(request).await;
    assert_eq!(kept.status, StatusCode::CREATED, "{}", kept.text);
}

fn photo(device: &Device) -> Vec<u8> {
    [b"\xff\xd8\xff".as_slice(), device.token.as_bytes()].concat()
}

async fn revoke(house: &House, device: &Device) {
    let at = Time::from(jiff::Timestamp::now());
    devices::revoke(&house.ledger, device.id, at, &Metadata::default()).await.unwrap();
}

#[tokio::test]
async fn strangers_whose_bodies_never_come_starve_nobody() {
    let house = House::new().await;
    let mut stalled = Vec::new();
    for path in [ENROLL, "/v1/devices/return"].into_iter().cycle().take(8) {
        stalled.push(stall(&house, 64, || post(&house, path)).await);
    }
    bodies_come(&house, 32).await;
    others_go_on(&house).await;
    house.close().await;
}

#[tokio::test]
async fn strangers_with_credentials_of_nobody_starve_nobody() {
    let house = House::new().await;
    let mut flood = JoinSet::new();
    for connection in 0..6 {
        let (address, stream) = (house.address, TcpStream::connect(house.address).await.unwrap());
        flood.spawn(async move {
            let (sender, driving) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(driving);
            for round in 0_u64.. {
                let asked = (0..32).map(|n| {
                    let kind = if n % 2 == 0 { "ptk_" } else { "ptd_" };
                    let token = format!("{kind}{connection:03}{round:020}{n:020}");
                    let path = ["/v1/punches", "/metrics", "/v1/sites", "/v1/devices"][n % 4];
                    let request = Request::get(format!("http://{address}{path}"))
                        .header(header::AUTHORIZATION, format!("Bearer {token}"))
                        .body(Body::empty())
                        .unwrap();
                    sender.clone().send_request(request)
                });
                for answer in futures::future::join_all(asked).await.into_iter().flatten() {
                    let status = answer.status().as_u16();
                    assert!([401, 503].contains(&status), "{status}");
                }
            }
        });
    }
    for _ in 0..3 {
        others_go_on(&house).await;
    }
    assert!(flood.try_join_next().is_none(), "the flood went on");
    flood.shutdown().await;
    house.close().await;
}

#[tokio::test]
async fn wrong_codes_lock_no_right_one_out() {
    let house = House::new().await;
    let site = house.site().await;
    let code = house.code(site).await;
    let letters = b"BCDFGHJKLMNPQRSTVWXZ";
    let key = SigningKey::from_bytes(&[7; 32]);
    let stream = TcpStream::connect(house.address).await.unwrap();
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let guesses: Vec<_> = (0..700_usize)
        .map(|n| {
            let at = |place: u32| char::from(letters[n / 20_usize.pow(place) % 20]);
            let guess: String = (0..8).map(|place| at(place % 3)).collect();
            let body = enrolment_body(&key, &guess).to_string();
            let request = post(&house, ENROLL).body(Body::from(body)).unwrap();
            sender.clone().send_request(request)
        })
        .collect();
    let answers = futures::future::join_all(guesses).await;
    assert!(answers.iter().flatten().all(|answer| answer.status().is_client_error()
        || answer.status() == StatusCode::SERVICE_UNAVAILABLE));
    let enrolled = house.post(ENROLL, None, &enrolment_body(&key, &code)).await;
    assert_eq!(enrolled.status, StatusCode::CREATED, "{}", enrolled.text);
    house.close().await;
}

/// Guessing goes on, from the same place.
#[tokio::test]
async fn a_right_code_gets_through_while_somebody_guesses() {
    let house = House::new().await;
    let code = house.code(house.site().await).await;
    let (key, letters) = (SigningKey::from_bytes(&[7; 32]), b"BCDFGHJKLMNPQRSTVWXZ");
    let mut guessing = JoinSet::new();
    for connection in 0..6_usize {
        let stream = TcpStream::connect(house.address).await.unwrap();
        let (sender, driving) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driving);
        let guesses: Vec<_> = (0..400_usize)
            .map(|n| {
                let n = n * 6 + connection;
                let at = |place: u32| char::from(letters[n / 20_usize.pow(place) % 20]);
                let guess: String = (0..8).map(|place| at(place % 4)).collect();
                enrolment_body(&key, &guess).to_string()
            })
            .collect();
        let uri = format!("http://{}{ENROLL}", house.address);
        guessing.spawn(async move {
            for guess in guesses.iter().cycle() {
                let sending = (0..15).map(|_| {
                    let request = Request::post(&uri)
                        .header(header::CONTENT_TYPE, "application/json")
                        .body(Body::from(guess.clone()))
                        .unwrap();
                    sender.clone().send_request(request)
                });
                futures::future::join_all(sending).await;
            }
        });
    }
    eventually("guesses to be put off", PATIENCE, async || {
        let metrics = house.get("/metrics", Some(&house.key)).await.text;
        Ok(metrics.contains("route=\"/v1/devices/enroll\",status=\"429\"").then_some(()))
    })
    .await
    .unwrap();
    let enrolled = house.post(ENROLL, None, &enrolment_body(&key, &code)).await;
    assert_eq!(enrolled.status, StatusCode::CREATED, "{}", enrolled.text);
    guessing.shutdown().await;
    house.close().await;
}

/// However a token is spelled, it is one caller's.
#[tokio::test]
async fn a_caller_is_one_however_its_credentials_are_spelled() {
    let house = House::new().await;
    let site = house.site().await;
    let bad = house.device(site).await;
    let path = format!("/v1/sites/{site}/punches/batch");
    let mut stalled = Vec::new();
    for n in 0..40 {
        let spelled = format!("{}{}{}", ["bearer", "BEARER"][n % 2], " ".repeat(n + 1), bad.token);
        let request = || post(&house, &path).header("authorization", &spelled);
        stalled.push(stall(&house, 1, request).await);
    }
    others_go_on(&house).await;
    let metrics = house.get("/metrics", Some(&house.key)).await.text;
    let line = metrics.lines().find_map(|l| l.strip_prefix("punchtrail_admission_coming "));
    assert!(line.unwrap().parse::<f64>().unwrap() <= 8.0, "{line:?}");
    house.close().await;
}

/// A read that announces a body is a read, and waits in the line of reads.
#[tokio::test]
async fn a_body_that_nobody_reads_is_not_waited_for() {
    let house = House::new().await;
    let auth = format!("authorization: Bearer {}\r\n", house.key);
    let code = format!("/v1/sites/{}/pairing-codes", house.site().await);
    for (line, status) in [("GET /v1/sites".to_owned(), 200), (format!("POST {code}"), 201)] {
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\n{auth}content-length: 5\r\n\r\n");
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(str::from_utf8(&start).unwrap(), format!("HTTP/1.1 {status}"));
    }
    house.close().await;
}

#[tokio::test]
async fn wrong_codes_that_begin_alike_are_few() {
    let house = House::new().await;
    let code = house.code(house.site().await).await;
    let key = SigningKey::from_bytes(&[7; 32]);
    let guesses = (0..80_usize).map(|n| {
        let last = char::from(b"BCDFGHJKLMNPQRSTVWXZ"[n % 20]);
        let guess = format!("{}{last}{last}{last}{last}", &code[..4]);
        let (house, body) = (&house, enrolment_body(&key, &guess));
        async move { house.post(ENROLL, None, &body).await.status.as_u16() }
    });
    let statuses = futures::future::join_all(guesses).await;
    let of = |code: u16| statuses.iter().filter(|status| **status == code).count();
    assert!(of(429) >= 40, "{statuses:?}");
    assert_eq!(of(403) + of(429), 80, "{statuses:?}");
    // Others aren't concerned.
    others_go_on(&house).await;
    house.close().await;
}

#[tokio::test]
async fn a_device_that_does_its_worst_starves_no_other() {
    let house = House::new().await;
    let site = house.site().await;
    for is_revoked in [true, false] {
        let mut stalled = Vec::new();
        for _ in 0..2 {
            let bad = house.device(site).await;
            if is_revoked {
                revoke(&house, &bad).await;
            }
            let batch = format!("/v1/sites/{site}/punches/batch");
            for path in [batch.as_str(), "/v1/devices/self/heartbeat"] {
                let request =
                    || post(&house, path).header("authorization", format!("Bearer {}", bad.token));
                stalled.push(stall(&house, 63, request).await);
            }
            let photo = || {
                Request::put(format!("http://{}/v1/photos/{}", house.address, "0".repeat(64)))
                    .header("authorization", format!("Bearer {}", bad.token))
            };
            stalled.push(stall(&house, 63, photo).await);
        }
        bodies_come(&house, if is_revoked { 6 } else { 10 }).await;
        others_go_on(&house).await;
    }
    house.close().await;
}

#[tokio::test]
async fn many_devices_whose_photos_never_come_stop_no_photo() {
    let house = House::new().await;
    let site = house.site().await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let bad = house.device(site).await;
        let photo = || {
            Request::put(format!("http://{}/v1/photos/{}", house.address, "0".repeat(64)))
                .header("authorization", format!("Bearer {}", bad.token))
        };
        stalled.push(stall(&house, 2, photo).await);
    }
    bodies_come(&house, 40).await;
    others_go_on(&house).await;
    house.close().await;
}

#[tokio::test]
async fn a_revoked_device_still_delivers() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B-1", "Ada").await;
    let mut device = house.device(site).await;
    revoke(&house, &device).await;
    let item = device.next(employee, PunchKind::In);
    assert_eq!(house.deliver(&device, &[item]).await.outcomes(), ["applied"]);
    let read = house.get(&format!("/v1/sites/{site}/manifest"), Some(&device.token)).await;
    assert_eq!(read.refusal(), "403 device_revoked");
    house.close().await;
}

#[tokio::test]
async fn connections_that_say_nothing_make_room() {
    let house = House::with(|options| options.connections_max = 8).await;
    let device = house.device(house.site().await).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        if silent.len() % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x").await.unwrap();
        }
        silent.push(stream);
    }
    eventually("a device to be served", PATIENCE, async || {
        Ok((house.beat(&device).await.status == StatusCode::OK).then_some(()))
    })
    .await
    .unwrap();
    house.close().await;
}

async fn send_photo(house: &House, device: &Device, photo: &[u8]) -> u16 {
    let path = format!("/v1/photos/{}", Digest::of(photo));
    let mut request = request(Method::PUT, &path, Some(&device.token), Body::from(photo.to_vec()));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
    house.ask(request).await.status.as_u16()
}

fn nth_photo(n: u64) -> Vec<u8> {
    [b"\xff\xd8\xff".as_slice(), &n.to_be_bytes()].concat()
}

#[tokio::test]
async fn photos_of_no_punch_are_few_and_go_again() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B-1", "Ada").await;
    let (mut device, other) = (house.device(site).await, house.device(site).await);
    revoke(&house, &device).await;
    for n in 0..LOOSE_OF_REVOKED_MAX {
        assert_eq!(send_photo(&house, &device, &nth_photo(n)).await, 201);
    }
    assert_eq!(send_photo(&house, &device, &nth_photo(1_000)).await, 503);
    assert_eq!(send_photo(&house, &other, &nth_photo(2_000)).await, 201, "others aren't concerned");
    // Its punches make room: their photos are somebody's.
    let items: Vec<_> = (0..2)
        .map(|n| {
            let capture = device.chain.capture_with(|capture| {
                capture.employee = Some(employee);
                capture.captured_at = Time::from(jiff::Timestamp::now());
                capture.photo = Some(Digest::of(&nth_photo(n)));
            });
            device.item(&capture)
        })
        .collect();
    assert_eq!(house.deliver(&device, &items).await.outcomes(), ["applied", "applied"]);
    house.settled().await;
    assert_eq!(send_photo(&house, &device, &nth_photo(1_000)).await, 201);
    // What nobody names goes after three months, what a punch names never.
    upkeep::look(&house.app).await.unwrap();
    for n in [0, 1, 5, 1_000] {
        assert!(house.app.photos.has(&Digest::of(&nth_photo(n))).await.unwrap(), "{n}");
    }
    sqlx::query("update loose_photos set came_at = now() - interval '90 days' where photo <> $1")
        .bind(Digest::of(&nth_photo(1_000)).0.as_slice())
        .execute(&house.pools.owner)
        .await
        .unwrap();
    upkeep::look(&house.app).await.unwrap();
    for (n, stays) in [(0, true), (1, true), (5, false), (1_000, true), (2_000, false)] {
        assert_eq!(house.app.photos.has(&Digest::of(&nth_photo(n))).await.unwrap(), stays, "{n}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_device_fills_its_own_quarantine_and_its_punches_come_all_the_same() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B-1", "Ada").await;
    let mut device = house.device(site).await;
    revoke(&house, &device).await;
    let path = format!("/v1/sites/{site}/punches/batch");
    let garbage = |n: u64| json!({ "capture": n.to_string(), "signature": "x" });
    let all = QuarantineRoom::OF_REVOKED.items;
    for batch in (0..all).collect::<Vec<_>>().chunks(500) {
        let items: Vec<_> = batch.iter().map(|n| garbage(*n)).collect();
        assert_eq!(house.deliver(&device, &items).await.status, StatusCode::OK);
    }
    let kept = async || {
        let head = house.settled().await;
        assert_eq!(house.read_after("/v1/quarantine?limit=1", head).await.status, StatusCode::OK);
    };
    kept().await;
    let punch = device.next(employee, PunchKind::In);
    let both = json!({ "punches": [garbage(all), punch, garbage(0)] });
    let refused = house.post(&path, Some(&device.token), &both).await;
    assert_eq!(refused.refusal(), "422 quarantine_full");
    assert!(refused.text.contains("rule"), "{}", refused.text);
    assert_eq!(house.deliver(&device, &[punch]).await.outcomes(), ["duplicate"], "it was taken");
    // A ruling makes room.
    let head = house.settled().await;
    let waiting = house.read_after("/v1/quarantine?state=waiting&limit=1", head).await;
    let item = waiting.body["data"][0]["item"].as_str().unwrap();
    let ruled = house.write(&format!("/v1/quarantine/{item}/dismiss"), &json!({})).await;
    assert_eq!(ruled.status, StatusCode::OK, "{}", ruled.text);
    kept().await;
    let taken = house.deliver(&device, &[garbage(all)]).await.outcomes();
    assert_eq!(taken, ["quarantined bad_encoding"]);
    house.close().await;
}

/// What is answered to these bytes until the connection ends.
async fn answered(house: &House, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection ends");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_its_connection_ends() {
    let house = House::new().await;
    let auth = format!("authorization: Bearer {}\r\n", house.key);
    let good = format!("GET /v1/sites HTTP/1.1\r\nhost: x\r\n{auth}\r\n");
    let post = "POST /v1/devices/enroll HTTP/1.1\r\nhost: x\r\n";
    for bad in [
        format!("GET /v1/sites HTTP/1.1\r\nhost: x\r\nhost: x\r\n{auth}\r\n"),
        format!("GET /v1/sites HTTP/1.1\r\nhost: x\r\nHost: y\r\n{auth}\r\n"),
        format!("GET /v1/sites HTTP/1.1\r\n{auth}\r\n"),
        format!("GET /v1/sites HTTP/1.1\r\nhost: x\r\n{auth}{auth}\r\n"),
        format!("GET /v1/sites HTTP/1.1\nhost: x\r\n{auth}\r\n"),
        format!("GET /v1/sites HTTP/1.1\r\nhost: x\n{auth}\r\n"),
        format!("{post}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}content-length: 2\r\ncontent-length: 2\r\n\r\n{{}}"),
        format!("{post}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ] {
        let answer = answered(&house, bad.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad}: {answer}");
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.contains(r#""code":"bad_request""#), "{answer}");
        // Behind a good one, both are answered, in order, and nothing else.
        let both = answered(&house, format!("{good}{bad}{good}").as_bytes()).await;
        assert!(both.starts_with("HTTP/1.1 200 "), "{bad}: {both}");
        assert_eq!(both.matches("HTTP/1.1 ").count(), 2, "{bad}: {both}");
        assert_eq!(both.matches("HTTP/1.1 400 ").count(), 1, "{bad}: {both}");
    }
    let coded = format!("{post}content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{{}}");
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    stream.write_all(coded.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 415");
    house.close().await;
}

#[tokio::test]
async fn a_body_that_trickles_or_stops_holds_no_memory_that_it_announced() {
    let house = House::with(|options| options.timeouts.silence = Duration::from_millis(300)).await;
    let site = house.site().await;
    let bad = house.device(site).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let head = format!(
        "POST /v1/sites/{site}/punches/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 3000000\r\n\r\n{{",
        bad.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 408");
    house.close().await;
}

#[tokio::test]
async fn who_asks_through_a_trusted_proxy_is_told_apart() {
    let proxied = async |forwarded_for: &str, house: &House, code: &str| {
        let key = SigningKey::from_bytes(&[7; 32]);
        let letters = code.replace('-', "");
        let body = json!({
            "code": code, "name": "door", "public_key": enrolment_body(&key, code)["public_key"],
            "proof": sign(&key, ENROLMENT_TYPE, letters.as_bytes()), "app": "test/1",
        });
        let request = Request::post(ENROLL)
            .header(header::HOST, "test")
            .header("x-forwarded-for", forwarded_for)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        house.ask(request).await
    };
    let house = House::with(|options| {
        options.proxies.0.push("127.0.0.0/8".parse().unwrap());
    })
    .await;
    let code = house.code(house.site().await).await;
    let mut refusals = Vec::new();
    for n in 0..800_u32 {
        let letters = b"BCDFGHJKLMNPQRSTVWXZ";
        let at = |place: u32| char::from(letters[(n / 20_u32.pow(place) % 20) as usize]);
        let guess: String = (0..8).map(|place| at(place % 3)).collect();
        refusals.push(proxied("198.51.100.1", &house, &guess).await.status.as_u16());
    }
    assert!(refusals.iter().all(|status| [403, 429].contains(status)), "{refusals:?}");
    let right = proxied("198.51.100.2", &house, &code).await;
    assert_eq!(right.status, StatusCode::CREATED, "{}", right.text);
    house.close().await;
}
