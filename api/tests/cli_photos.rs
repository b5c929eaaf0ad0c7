//! Where photos are kept, as the binary is told it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod cli_common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Stdio,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use cli_common::Scene;
use punchtrail_protocol::Digest;
use punchtrail_testkit::{Moto, PATIENCE};
use tokio::{process::Command, time::timeout};

/// Grey, 96 pixels square.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAGAAAABgCAAAAADH8yjkAAAAO0lEQVR42u3NMQ0AAAwDoEqv9KrY\
                   sQQMkB6LQCAQCAQCgUAgEAgEAoFAIBAIBAKBQCAQCAQCgUAg+BoMVB0BDwvUQvEAAAAASUVORK5C\
                   YII=";

/// Makes a bucket; Moto takes it unsigned.
fn make_bucket(url: &str, name: &str) {
    let address = url.strip_prefix("http://").unwrap();
    let mut line = TcpStream::connect(address).unwrap();
    let ask = format!(
        "PUT /{name} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    line.write_all(ask.as_bytes()).unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A run of the binary that knows of S3: its exit code, and what it said on stderr.
async fn ran(scene: &Scene, url: &str, photos: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_punchtrail"));
    command.args(arguments).env("DATABASE_URL", scene.database.url());
    command.env("PUNCHTRAIL_DATA_DIR", scene.dir.path()).env("PUNCHTRAIL_PHOTOS", photos);
    command.env("PUNCHTRAIL_AWS_REGION", "us-east-1").env("AWS_ENDPOINT_URL_S3", url);
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    command.env_remove("AWS_PROFILE").stdin(Stdio::null()).kill_on_drop(true);
    let ran = timeout(PATIENCE, command.output()).await.expect("it ends in time").unwrap();
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[tokio::test]
async fn what_is_named_is_where_photos_are() {
    let Some(moto) = Moto::start() else { return };
    let url = moto.url();
    make_bucket(&url, "acme-punches");
    let (scene, there) = (Scene::new().await, "s3://acme-punches/mill");
    let run = async |arguments: &[&str]| {
        let (exit, said) = ran(&scene, &url, there, arguments).await;
        assert_eq!(exit, Some(0), "{arguments:?}: {said}");
    };
    let roster = "badge,name,pin,site,external_id\n17,Ada Kaya,,Mill,E-1\n";
    let roster = scene.file("roster.csv", roster);
    let bytes = BASE64_STANDARD.decode(PNG).unwrap();
    let (picture, shown) = (scene.dir.path().join("17.png"), scene.dir.path().join("shown.jpg"));
    std::fs::write(&picture, &bytes).unwrap();
    let (digest, shown) = (Digest::of(&bytes).to_string(), shown.to_str().unwrap());
    run(&["site", "add", "--name", "Mill", "--tz", "Europe/Berlin"]).await;
    run(&["employee", "import", roster.to_str().unwrap()]).await;
    run(&["face", "consent", "17", "--notice", "1", "--language", "de"]).await;
    run(&["face", "enrol", "17", "--photo", picture.to_str().unwrap()]).await;
    run(&["photo", "show", &digest, "--out", shown]).await;
    assert!(std::fs::read(shown).unwrap().starts_with(b"\xff\xd8\xff"));
    assert!(!scene.dir.path().join("photos").exists(), "it is in the bucket alone");

    let show = ["photo", "show", &digest, "--out", shown];
    let (exit, said) = ran(&scene, &url, "", &show).await;
    assert_eq!(exit, Some(1), "it isn't in the folder: {said}");
    for command in [&show[..], &["serve", "--listen", "127.0.0.1:0"]] {
        let (exit, said) = ran(&scene, &url, "s3://nobody-made-this", command).await;
        assert_eq!(exit, Some(1), "{said}");
        assert!(said.contains("s3://nobody-made-this") && said.contains("NoSuchBucket"), "{said}");
    }
    let (exit, said) = ran(&scene, &url, "https://acme-punches.example", &show).await;
    assert_eq!(exit, Some(2), "{said}");
    assert!(said.contains("s3://bucket/prefix"), "{said}");
    scene.close().await;
}
