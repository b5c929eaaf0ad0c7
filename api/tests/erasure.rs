//! A person over real HTTP and the command line: what stands in the way of their erasure, what they
//! are given when they ask, and that nothing is left of them in any table afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use std::{
    io::{Cursor, Read},
    path::Path,
    process::Output,
};

use axum::body::Body;
use common::{Device, House, request};
use hyper::{Method, StatusCode};
use image::{DynamicImage, ImageFormat};
use punchtrail_infra::testing::sqlx::{self, ConnectOptions, Connection};
use punchtrail_protocol::{Digest, EmployeeId, PunchId, SiteId, Time, capture::PunchKind};
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::{Value, json};

const NAME: &str = "<b>Zoë</b> Quillfeather";
const BADGE: &str = "BX-77031";
const ELSEWHERE: &str = "HR-90210";
const NOTE: &str = "Quillfeather overslept";
const HOLD: &str = "docket 4711/26";

/// A person with a picture, two punches of which the second waits for a manager, and a hold.
struct Scene {
    house: House,
    site: SiteId,
    device: Device,
    employee: EmployeeId,
    punches: [PunchId; 2],
    photo: Digest,
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let mut device = house.device(site).await;
        house.beat(&device).await;
        let employee = imported(&house, site).await;
        let picture = picture();
        let photo = Digest::of(&picture);
        let mut punches = [PunchId::NIL; 2];
        for (index, punch) in punches.iter_mut().enumerate() {
            let capture = device.chain.capture_with(|capture| {
                (capture.employee, capture.kind) = (Some(employee), PunchKind::In);
                let ago = -60_000 + 5_000 * index as i64;
                capture.captured_at = Time::from(jiff::Timestamp::now()).plus_millis(ago);
                capture.uptime_ms = 60_000 + 5_000 * index as u64;
                capture.photo = (index == 0).then_some(photo);
            });
            *punch = capture.punch;
            let item = device.item(&capture);
            assert_eq!(house.deliver(&device, &[item]).await.outcomes(), ["applied"]);
        }
        let put = request(
            Method::PUT,
            &format!("/v1/photos/{photo}"),
            Some(&device.token),
            Body::from(picture),
        );
        assert_eq!(house.ask(put).await.status, StatusCode::CREATED);
        let path = format!("/v1/employees/{employee}/erasure");
        eventually("the punch to know its picture", PATIENCE, async || {
            Ok((house.read(&path).await.body["photos"] == 1).then_some(()))
        })
        .await
        .unwrap();
        house.settled().await;
        Self { house, site, device, employee, punches, photo }
    }

    fn of_person(&self, rest: &str) -> String {
        format!("/v1/employees/{}{rest}", self.employee)
    }

    async fn hold(&self) {
        let held = self.house.write(&self.of_person("/legal-hold"), &json!({ "note": HOLD })).await;
        assert_eq!(held.status, StatusCode::OK, "{}", held.text);
    }

    async fn delete(&self, rest: &str) -> common::Answer {
        let (path, key) = (self.of_person(rest), Some(self.house.key.as_str()));
        self.house.ask(request(Method::DELETE, &path, key, Body::empty())).await
    }

    /// Rules on what waits, with a note, and lets the records go.
    async fn clear(&self) {
        let decision = json!({ "decision": "accept", "note": NOTE });
        let path = format!("/v1/punches/{}/decision", self.punches[1]);
        let ruled = self.house.write(&path, &decision).await;
        assert_eq!(ruled.status, StatusCode::OK, "{}", ruled.text);
        let path = format!("/v1/sites/{}/policy", self.site);
        let policy = json!({ "record_retention_days": 0 }).to_string();
        let key = Some(self.house.key.as_str());
        let changed = self.house.send(Method::PUT, &path, key, policy).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
        self.house.settled().await;
    }

    async fn erase(&self) -> common::Answer {
        self.house.write(&self.of_person("/erasure"), &json!({})).await
    }

    /// In how many rows of which tables something stands.
    async fn found(&self, needle: &str) -> Vec<String> {
        let mut superuser = self.house.database.owner_options().connect().await.unwrap();
        let tables: Vec<(String, Vec<String>)> = sqlx::query_as(
            "select quote_ident(table_schema) || '.' || quote_ident(table_name), \
                 coalesce(array_agg(quote_ident(column_name)) filter (where data_type = 'bytea'), \
                     '{}') \
             from information_schema.columns \
             where table_schema not in ('pg_catalog', 'information_schema') group by 1",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        assert!(tables.len() > 30, "{tables:?}");
        let mut found = Vec::new();
        for (table, bytes) in tables {
            // All columns as text, and bytes as what they spell.
            let spelled: String = bytes
                .iter()
                .map(|column| format!(" or position(convert_to($1, 'UTF8') in {column}) > 0"))
                .collect();
            let statement = format!(
                "select count(*) from {table} as held \
                 where position($1 in held::text) > 0{spelled}"
            );
            let rows: i64 = sqlx::query_scalar(&statement)
                .bind(needle)
                .fetch_one(&mut superuser)
                .await
                .unwrap();
            if rows > 0 {
                found.push(table);
            }
        }
        superuser.close().await.unwrap();
        found
    }
}

fn picture() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(160, 120).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

async fn punchtrail(house: &House, arguments: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
        .args(arguments)
        .arg("--json")
        .env("DATABASE_URL", house.database.url())
        .env("PUNCHTRAIL_PHOTOS", house.photos())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Imports the person as an operator does.
async fn imported(house: &House, site: SiteId) -> EmployeeId {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("roster.csv");
    let roster =
        format!("badge,name,pin,site,external_id\n{BADGE},{NAME},4711,{site},{ELSEWHERE}\n");
    std::fs::write(&file, roster).unwrap();
    let done = punchtrail(house, &["employee", "import", file.to_str().unwrap()]).await;
    assert_eq!(object(&done)["created"], 1, "{done:?}");
    let listed = house.read(&format!("/v1/employees?site={site}")).await;
    listed.body["data"][0]["employee"].as_str().unwrap().parse().map(EmployeeId).unwrap()
}

#[tokio::test]
async fn every_reason_that_stands_in_the_way_is_told_at_once() {
    let scene = Scene::new().await;
    scene.hold().await;
    scene.hold().await;
    let refused = scene.erase().await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    assert_eq!(refused.refusal(), "409 erasure_refused:  retention_runs");
    let codes: Vec<&str> = refused.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["retention_runs", "legal_hold", "review_open"]);
    let outlook = scene.house.read(&scene.of_person("/erasure")).await.body;
    assert_eq!(outlook["obstacles"][1], json!({ "code": "legal_hold", "holds": 2 }));
    assert_eq!(outlook["obstacles"][2], json!({ "code": "review_open", "punches": 1, "items": 0 }));
    assert_eq!([&outlook["directory"], &outlook["notes"], &outlook["photos"]], [1, 2, 1]);

    // The command line says the same, and a dry run erases nothing.
    let dry = punchtrail(&scene.house, &["erase", "person", BADGE, "--dry-run"]).await;
    assert_eq!(object(&dry)["obstacles"], outlook["obstacles"], "{dry:?}");
    let refused = punchtrail(&scene.house, &["erase", "person", BADGE]).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for word in ["must be kept until", "Legal holds stand", "wait for a manager"] {
        assert!(said.contains(word), "{said}");
    }

    // Each by itself is enough.
    scene.clear().await;
    let refused = scene.erase().await;
    assert_eq!(refused.refusal(), "409 erasure_refused:  legal_hold");
    assert_eq!(scene.delete("/legal-hold").await.status, StatusCode::OK);
    assert_eq!(scene.erase().await.refusal(), "409 erasure_refused:  legal_hold");
    assert_eq!(scene.delete("/legal-hold").await.status, StatusCode::OK);
    assert_eq!(scene.delete("/legal-hold").await.refusal(), "409 conflict");
    let empty = scene.house.write(&scene.of_person("/legal-hold"), &json!({})).await;
    assert_eq!(empty.refusal(), "422 invalid: /note missing_field");
    assert_eq!(scene.erase().await.status, StatusCode::ACCEPTED);
    let nobody = format!("/v1/employees/{}/erasure", scene.site);
    assert_eq!(scene.house.write(&nobody, &json!({})).await.refusal(), "404 not_found");
    scene.house.close().await;
}

#[tokio::test]
async fn nothing_is_left_of_an_erased_person_in_any_table() {
    let scene = Scene::new().await;
    scene.hold().await;
    assert_eq!(scene.delete("/legal-hold").await.status, StatusCode::OK);
    scene.clear().await;
    for needle in ["Quillfeather", BADGE, ELSEWHERE, NOTE, HOLD] {
        assert!(!scene.found(needle).await.is_empty(), "{needle} is somewhere before");
    }
    let erased = scene.erase().await;
    assert_eq!(erased.status, StatusCode::ACCEPTED, "{}", erased.text);
    for needle in ["Quillfeather", BADGE, ELSEWHERE, NOTE, HOLD] {
        assert_eq!(scene.found(needle).await, Vec::<String>::new(), "{needle}");
    }
    let house = &scene.house;
    let path = format!("/v1/photos/{}", scene.photo);
    eventually("the picture to be gone", PATIENCE, async || {
        Ok((house.get(&path, Some(&house.key)).await.status == StatusCode::NOT_FOUND).then_some(()))
    })
    .await
    .unwrap();
    speaks_of_the_worker(&scene).await;
    stands_nowhere(&scene).await;
    assert_eq!(scene.erase().await.status, StatusCode::ACCEPTED, "once more changes nothing");
    house.settled().await;
    let verified = punchtrail(house, &["ledger", "verify", "--deep"]).await;
    let report = object(&verified);
    assert_eq!(report["intact"], true, "{report}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("1 people were erased") && notes.contains("2 notes"), "{notes}");
    scene.house.close().await;
}

async fn speaks_of_the_worker(scene: &Scene) {
    let path = format!("/v1/punches/{}/explanation", scene.punches[1]);
    let told = eventually("the name to be forgotten", PATIENCE, async || {
        let told = scene.house.read(&path).await.body["sentences"].to_string();
        Ok((!told.contains("Quill")).then_some(told))
    })
    .await
    .unwrap();
    assert!(told.contains("The worker clocked in"), "{told}");
    assert!(told.contains("everything else kept of them was erased on"), "{told}");
    let explained =
        punchtrail(&scene.house, &["punch", "explain", &scene.punches[1].to_string()]).await;
    let explained = object(&explained)["sentences"].to_string();
    assert!(explained.contains("was erased on"), "{explained}");
}

/// Not on the roster, not at the door, not after a rebuild; and the id elsewhere is free.
async fn stands_nowhere(scene: &Scene) {
    let house = &scene.house;
    let rebuilt = punchtrail(house, &["projection", "rebuild", "roster"]).await;
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    let listed = house.read(&format!("/v1/employees?site={}", scene.site)).await;
    assert_eq!(listed.body["data"], json!([]));
    assert_eq!(house.read("/v1/employees").await.body["data"], json!([]));
    let one = house.read(&scene.of_person("")).await.body;
    assert!(one["name"].is_null() && one["erased_at"].is_string(), "{one}");
    let manifest = format!("/v1/sites/{}/manifest", scene.site);
    let manifest = house.get(&manifest, Some(&scene.device.token)).await;
    assert_eq!(manifest.status, StatusCode::OK, "{}", manifest.text);
    assert!(!manifest.text.contains(&scene.employee.to_string()), "{}", manifest.text);
    assert_eq!(
        house.get(&scene.of_person("/export"), Some(&house.key)).await.refusal(),
        "404 not_found"
    );
    let consent = json!({ "notice": "2026-01", "language": "de" });
    let consent = house.write(&scene.of_person("/face/consent"), &consent).await;
    assert_eq!(consent.refusal(), "409 conflict");
    let again = imported(house, scene.site).await;
    assert_ne!(again, scene.employee, "who comes again is somebody new");
    let other = house.read(&format!("/v1/employees/{again}")).await.body;
    assert_eq!(other["external_id"], ELSEWHERE);
}

fn file(archive: &mut zip::ZipArchive<Cursor<&[u8]>>, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let names: Vec<_> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    let found = archive.by_name(name);
    found.unwrap_or_else(|_| panic!("{name} in {names:?}")).read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_person_is_given_everything_that_is_held_of_them() {
    let scene = Scene::new().await;
    scene.clear().await;
    let answer = scene.house.get(&scene.of_person("/export"), Some(&scene.house.key)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let mut archive = zip::ZipArchive::new(Cursor::new(&answer.bytes[..])).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let person: Value = serde_json::from_slice(&file(&mut archive, "person.json")).unwrap();
    assert_eq!(
        [&person["name"], &person["badge"], &person["external_id"]],
        [NAME, BADGE, ELSEWHERE]
    );
    let notes: Value = serde_json::from_slice(&file(&mut archive, "notes.json")).unwrap();
    assert_eq!(notes[0]["body"], NOTE);
    let punches: Value = serde_json::from_slice(&file(&mut archive, "punches.json")).unwrap();
    assert_eq!(punches.as_array().unwrap().len(), 2);
    assert_eq!(punches[0]["punch"], scene.punches[1].to_string(), "the newest first");
    assert!(punches[0]["explanation"].as_array().unwrap().len() > 2);
    let table = text(file(&mut archive, "punches.csv"));
    assert_eq!(table.lines().filter(|line| line.contains(",in,")).count(), 2, "{table}");
    assert!(text(file(&mut archive, "timecards.csv")).contains("double_in"));
    let events = text(file(&mut archive, "events.jsonl"));
    for kind in ["Registered", "Captured", "Accepted"] {
        assert!(events.contains(&format!("\"event_type\":\"{kind}\"")), "{kind}");
    }
    let picture = file(&mut archive, &format!("photos/{}-{}.jpg", scene.punches[0], scene.photo));
    assert!(image::load_from_memory(&picture).is_ok());
    let looked = scene.house.read(&format!("/v1/photos/{}/reads", scene.photo)).await;
    assert_eq!(looked.body["data"].as_array().unwrap().len(), 1);
    let page = text(file(&mut archive, "index.html"));
    assert!(page.contains("&lt;b&gt;Zoë") && !page.contains("<b>"), "names are text");
    assert!(!page.contains("src=") && !page.contains("href="), "whole in itself");
    by_hand(&scene, &answer.bytes).await;
    scene.house.close().await;
}

/// The command line writes the same, once.
async fn by_hand(scene: &Scene, served: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("zoe.zip");
    let to = to.to_str().unwrap();
    let written = punchtrail(&scene.house, &["export", "person", ELSEWHERE, "--to", to]).await;
    assert!(written.status.success(), "{written:?}");
    let bytes = std::fs::read(to).unwrap();
    let names = |bytes: &[u8]| {
        let archive = zip::ZipArchive::new(Cursor::new(bytes.to_vec())).unwrap();
        let mut names: Vec<String> =
            archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&bytes), names(served));
    let again = punchtrail(&scene.house, &["export", "person", ELSEWHERE, "--to", to]).await;
    assert_eq!(again.status.code(), Some(1), "it is there already");
    assert!(Path::new(to).exists());
    let none = dir.path().join("none.zip");
    let none = none.to_str().unwrap();
    let nobody = punchtrail(&scene.house, &["export", "person", "nobody", "--to", none]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(!Path::new(none).exists(), "half an archive is none");
}
