//! `serve` as a process, and commands beside it on the same data.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod cli_common;

use std::process::Stdio;

use cli_common::Scene;
use punchtrail_infra::testing::line::{Line, Trap};
use punchtrail_testkit::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// A server on a port of the system's choice, and the line it printed when it was ready.
async fn serve(scene: &Scene, more: &[&str]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_punchtrail"))
        .arg("serve")
        .args(if more.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
        .args(more)
        .env("DATABASE_URL", scene.database.url())
        .env("PUNCHTRAIL_DATA_DIR", scene.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let ready = timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await;
    let line = ready.expect("the server is ready in time").unwrap().expect("it says so");
    (child, line)
}

/// Asks it to stop as an init system does, and gives its exit code.
async fn stopped(mut child: Child) -> Option<i32> {
    let pid = i32::try_from(child.id().unwrap()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    timeout(PATIENCE, child.wait()).await.expect("it stops in time").unwrap().code()
}

/// Waits until `list` shows every model at the head.
async fn models_at_head(scene: &Scene) {
    eventually("the read models at the head", PATIENCE, async || {
        let list = scene.run(&["projection", "list", "--json"]).await.json();
        let models = list["projections"].as_array().unwrap();
        let all = !models.is_empty() && models.iter().all(|m| m["position"] == list["head"]);
        Ok(all.then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn it_says_where_it_listens_refuses_a_second_and_stops_when_asked() {
    let scene = Scene::new().await;
    let (child, line) = serve(&scene, &[]).await;
    assert!(line.starts_with("listening http://127.0.0.1:"), "{line}");
    assert!(!line.ends_with(":0"), "{line}");
    let second = scene.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.exit, 1, "{second:?}");
    assert!(second.stderr.contains("already uses"), "{second:?}");
    assert_eq!(stopped(child).await, Some(0));
    let (child, line) = serve(&scene, &["--json"]).await;
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(object["listening"].as_str().unwrap().starts_with("http://"), "{line}");
    assert_eq!(stopped(child).await, Some(0));
    scene.close().await;
}

#[tokio::test]
async fn commands_work_beside_a_server() {
    let mut scene = Scene::new().await;
    let punch = scene.punches(3).await[0].to_string();
    let (child, _) = serve(&scene, &[]).await;
    let site = scene.run(&["site", "add", "--name", "Mill", "--tz", "UTC", "--json"]).await;
    assert_eq!(site.exit, 0, "{site:?}");
    models_at_head(&scene).await;
    let rebuilt = scene.run(&["projection", "rebuild", "timeline", "--json"]).await;
    assert_eq!(rebuilt.exit, 0, "{rebuilt:?}");
    assert_eq!(rebuilt.json()["generation"], 2);
    let unknown = scene.run(&["projection", "rebuild", "nonsense"]).await;
    assert_eq!(unknown.exit, 1);
    assert!(unknown.stderr.contains("timecards"), "it names those there are: {unknown:?}");
    let shown = scene.run(&["punch", "show", &punch, "--json"]).await.json();
    assert_ne!(shown["standing"], "recorded", "the server's adjudicator judged it");
    assert_eq!(scene.run(&["ledger", "verify"]).await.exit, 0);
    assert_eq!(stopped(child).await, Some(0));
    let status = scene.run(&["ledger", "status", "--json"]).await.json();
    assert_eq!(status["checkpoint"]["size"], status["head"], "a last checkpoint was signed");
    scene.close().await;
}

#[tokio::test]
async fn a_database_that_goes_away_while_it_is_opened_is_waited_for() {
    let scene = Scene::new().await;
    let line = Line::to(&scene.database).await;
    // Looked for, checked, migrated, connected to: it may fall silent at any of these.
    for text in ["pg_is_in_recovery", "_sqlx_migrations", "as read_only"] {
        line.lay(Trap { text, arrives: false });
        let opened = Command::new(env!("CARGO_BIN_EXE_punchtrail"))
            .args(["ledger", "status", "--json", "--database-wait", "60"])
            .env("DATABASE_URL", line.url())
            .env("PUNCHTRAIL_DATA_DIR", scene.dir.path())
            .output();
        let opened = timeout(PATIENCE, opened).await.expect("it ends in time").unwrap();
        let said = String::from_utf8_lossy(&opened.stderr);
        assert!(line.has_caught(), "{text}");
        assert_eq!(opened.status.code(), Some(0), "{text}: {said}");
        assert!(said.contains("waiting for the database"), "{text}: {said}");
    }
    scene.close().await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_that_passes_for_a_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let other_server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other_server.local_addr().unwrap().to_string();
    let command = async |arguments: &[&str], url: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_punchtrail"));
        command.args(arguments).env_remove("DATABASE_URL").env("PUNCHTRAIL_DATA_DIR", &data);
        if let Some(url) = url {
            command.env("DATABASE_URL", url);
        }
        let ran = timeout(PATIENCE, command.output()).await.expect("it ends in time").unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    for port in ["--listen", "--metrics-listen"] {
        let other = if port == "--listen" { "--metrics-listen" } else { "--listen" };
        let (exit, said) = command(&["serve", other, "127.0.0.1:0", port, &taken], None).await;
        assert_eq!(exit, Some(1), "{said}");
        assert!(said.contains("can't listen"), "{said}");
        assert!(!data.exists(), "nothing was made");
    }
    let missing = ["serve", "--listen", "127.0.0.1:0", "--tls-cert", "gone", "--tls-key", "gone"];
    let (exit, said) = command(&missing, None).await;
    assert!(exit == Some(1) && said.contains("gone can't be read"), "{said}");
    assert!(!data.exists(), "nothing was made");
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    let (exit, said) = command(&["serve", "--listen", "127.0.0.1:0"], Some(nowhere)).await;
    assert_eq!(exit, Some(1), "{said}");
    let (exit, said) = command(&["ledger", "verify"], None).await;
    assert_eq!(exit, Some(3), "{said}");
    assert!(said.contains("no Punchtrail data"), "{said}");
}

#[tokio::test]
async fn beyond_the_machine_it_listens_in_the_clear_only_when_told_to() {
    let scene = Scene::new().await;
    let refused = scene.run(&["serve", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(refused.exit, 1, "{refused:?}");
    for way in ["--tls-cert", "--tls-key", "--trusted-proxy", "127.0.0.1", "--insecure-http"] {
        assert!(refused.stderr.contains(way), "{way}: {refused:?}");
    }
    let half = scene.run(&["serve", "--listen", "0.0.0.0:0", "--tls-cert", "cert.pem"]).await;
    assert_eq!(half.exit, 2, "{half:?}");
    let missing = ["serve", "--listen", "0.0.0.0:0", "--tls-cert", "gone.pem", "--tls-key", "gone"];
    let missing = scene.run(&missing).await;
    assert!(missing.exit == 1 && missing.stderr.contains("gone.pem can't be read"), "{missing:?}");
    let at = ["--listen", "0.0.0.0:0"];
    let proxied = [&at[..], &["--trusted-proxy", "10.0.0.7", "--trusted-proxy", "10.1.0.0/16"]];
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");
    let (cert, key) = (format!("{files}/first.pem"), format!("{files}/first.key"));
    let tls = [&at[..], &["--tls-cert", &cert, "--tls-key", &key]];
    let insecure = [&at[..], &["--insecure-http"]];
    for (more, scheme) in [(proxied, "http://"), (tls, "https://"), (insecure, "http://")] {
        let (child, line) = serve(&scene, &more.concat()).await;
        assert!(line.starts_with(&format!("listening {scheme}0.0.0.0:")), "{line}");
        assert_eq!(stopped(child).await, Some(0));
    }
    scene.close().await;
}

#[tokio::test]
async fn every_refusal_has_a_line_and_ten_thousand_alike_have_a_few() {
    let scene = Scene::new().await;
    let log = scene.dir.path().join("log.txt");
    let mut child = Command::new(env!("CARGO_BIN_EXE_punchtrail"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("DATABASE_URL", scene.database.url())
        .env("PUNCHTRAIL_DATA_DIR", scene.dir.path())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let ready = timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await;
    let line = ready.expect("the server is ready in time").unwrap().expect("it says so");
    let address = line.rsplit('/').next().unwrap().to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let (asked, mut answers) = (2_000, Vec::new());
    for path in std::iter::repeat_n("/nowhere", asked).chain(["/v1/sites"]) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let mut piece = [0; 4_096];
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        answers.push(answer);
    }
    drop(stream);
    assert_eq!(stopped(child).await, Some(0));
    let log = std::fs::read_to_string(&log).unwrap();
    let of = |code: &str| {
        log.lines().filter(|line| line.contains(": refused ") && line.contains(code)).count()
    };
    assert_eq!((of("\"not_found\""), of("\"unauthenticated\"")), (5, 1), "{log}");
    let id = answers[0].split("x-request-id: ").nth(1).unwrap().split('\r').next().unwrap();
    let first = log.lines().find(|line| line.contains(": refused ")).unwrap();
    for said in [id, "status=404", "client=127.0.0.1"] {
        assert!(first.contains(said), "{said}: {first}");
    }
    let more = format!("more={}", asked - 5);
    assert!(log.lines().any(|line| line.contains("alike") && line.contains(&more)), "{log}");
    scene.close().await;
}
