//! A provider of sign-ins, set at the command line: what can't be right is refused before anything
//! is started, and the client's secret is in no listing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

use std::process::Stdio;

use tokio::process::Command;

const SECRET: &str = "PUNCHTRAIL_OPENID_CLIENT_SECRET";
const ISSUER: &[&str] = &["--openid-issuer", "https://id.example"];
const CLIENT: &[&str] = &["--openid-client-id", "clock"];
const PUBLIC: &[&str] = &["--public-url", "https://clock.example"];

/// Runs `serve` where it can only fail, and gives its exit code and what it complains of.
async fn serve(arguments: &[&[&str]], secret: Option<&str>) -> (i32, String, bool) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_punchtrail"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .args(arguments.concat())
        .env_remove("DATABASE_URL")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(secret) = secret {
        command.env(SECRET, secret);
    }
    let output = command.output().await.unwrap();
    let complains = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), complains, data.exists())
}

#[tokio::test]
async fn what_can_not_be_right_starts_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = ["--openid-client-secret-file", file.path().to_str().unwrap()];
    let gone = ["--openid-client-secret-file", "/not/there"];
    let clear = ["--openid-issuer", "http://id.example"];
    let below = ["--public-url", "https://clock.example/app"];
    for (arguments, secret, exit, why) in [
        (&[&clear[..], CLIENT, PUBLIC][..], None, 1, "has to be an https address"),
        (&[ISSUER, CLIENT, &below[..]], None, 1, "without a path"),
        (&[ISSUER, PUBLIC], None, 2, "--openid-client-id"),
        (&[ISSUER, CLIENT], None, 2, "--public-url"),
        (&[ISSUER, CLIENT, PUBLIC, &file[..]], None, 1, "1 to 4096 bytes"),
        (&[ISSUER, CLIENT, PUBLIC, &gone[..]], None, 1, "can't be read from /not/there"),
        (&[ISSUER, CLIENT, PUBLIC, &file[..]], Some("s3cret"), 1, "given twice"),
    ] {
        let (code, complains, made) = serve(arguments, secret).await;
        assert_eq!(code, exit, "{arguments:?}: {complains}");
        assert!(complains.contains(why), "{arguments:?}: {complains}");
        assert!(!complains.contains("s3cret") && !made, "{arguments:?}: {complains}");
    }
}

#[tokio::test]
async fn the_secret_is_in_no_listing() {
    let output = Command::new(env!("CARGO_BIN_EXE_punchtrail"))
        .args(["serve", "--help"])
        .env(SECRET, "s3cret")
        .output()
        .await
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("--openid-client-secret-file") && !help.contains("s3cret"), "{help}");
}
