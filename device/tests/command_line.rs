//! The program itself: what it prints, refuses and survives.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use punchtrail_protocol::Time;
use punchtrail_stand_in::{CODE, Fault, StandIn, person};
use punchtrail_testkit::{PATIENCE, eventually, not_run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_punchtrail-device");

struct Folder {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        Self { _dir: dir, path }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--dir").arg(&self.path).args(arguments).env_remove("RUST_LOG");
        command
    }

    /// Runs to the end, off the runtime that serves the stand-in.
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments).await;
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{arguments:?}: {}", said(&output)))
    }

    async fn enrolled(server: &StandIn) -> Self {
        let folder = Self::new();
        let arguments =
            ["enroll", "--server", &server.url, "--code", CODE, "--name", "Gate", "--json"];
        let answer = folder.json(&arguments).await;
        assert_eq!(answer["employees"], 2, "{answer}");
        folder
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A process of ours, killed when a test ends early.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn first_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn ended(mut self) -> (Option<i32>, String) {
        let ended = eventually("the agent to stop", PATIENCE, async || Ok(self.0.try_wait()?));
        let status = ended.await.unwrap();
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        (status.code(), text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn enrol_punch_sync_status() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    assert_eq!((mode(&folder.path), mode(&folder.path.join("device.db"))), (0o700, 0o600));

    let punch =
        folder.json(&["punch", "--badge", "1001", "--kind", "in", "--pin", "4711", "--json"]).await;
    assert_eq!((&punch["seq"], &punch["identified_by"]), (&1.into(), &"pin".into()), "{punch}");
    let plain = folder.run(&["punch", "--badge", "1001", "--kind", "out"]).await;
    assert!(plain.status.success());
    assert!(said(&plain).contains("Recorded: work ended at"), "{}", said(&plain));

    let status = folder.json(&["status", "--json"]).await;
    assert_eq!((&status["outbox"], &status["last_seq"]), (&2.into(), &2.into()), "{status}");
    assert_eq!((&status["employees"], &status["roster_version"]), (&2.into(), &"r1".into()));
    assert_eq!(status["oldest"], punch["captured_at"]);

    let report = folder.json(&["sync", "--json"]).await;
    assert_eq!((&report["delivered"], &report["complete"]), (&2.into(), &true.into()), "{report}");
    let status = folder.json(&["status", "--json"]).await;
    assert_eq!((&status["outbox"], &status["acked_through"]), (&0.into(), &2.into()), "{status}");
    let shown = folder.run(&["status"]).await;
    assert!(said(&shown).contains("0 punches"), "{}", said(&shown));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_what_happened_and_what_to_do() {
    let server = StandIn::start().await;
    let folder = Folder::new();
    for (arguments, part) in [
        (&["status"][..], "enroll"),
        (&["sync"][..], "enroll"),
        (&["run"][..], "enroll"),
        (&["punch", "--badge", "1", "--kind", "in"][..], "enroll"),
        (&["enroll", "--server", &server.url, "--code", "AEIO-UAEI"][..], "not a pairing code"),
        (&["enroll", "--server", &server.url, "--code", "ZZZZ-ZZZZ"][..], "pairing_code_invalid"),
        (&["enroll", "--server", "http://10.1.2.3", "--code", CODE][..], "clear text"),
    ] {
        let output = folder.run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said(&output).contains(part), "{arguments:?}: {}", said(&output));
    }
    let folder = Folder::enrolled(&server).await;
    let wrong =
        folder.run(&["punch", "--badge", "1001", "--kind", "in", "--pin", "0", "--json"]).await;
    let error: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    assert_eq!((wrong.status.code(), &error["error"]["code"]), (Some(1), &"wrong_pin".into()));
    let unknown = folder.run(&["punch", "--badge", "1001", "--kind", "lunch"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("break_start"), "{}", said(&unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_a_folder_and_workers_punch_beside_it() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let mut agent = Running::start(&mut folder.command(&["run"]));
    assert!(agent.first_line().starts_with("running as device "));

    for second in
        [&["run"][..], &["sync"][..], &["enroll", "--server", &server.url, "--code", CODE][..]]
    {
        let refused = folder.run(second).await;
        assert_eq!(refused.status.code(), Some(1), "{second:?}");
        let text = said(&refused);
        assert!(text.contains(&format!("process {}", agent.pid())), "{second:?}: {text}");
        assert!(text.contains("already working"), "{second:?}: {text}");
    }
    let punches = (0..4).map(|_| folder.run(&["punch", "--badge", "1001", "--kind", "in"]));
    for output in futures::future::join_all(punches).await {
        assert!(output.status.success(), "{}", said(&output));
    }
    let status = folder.json(&["status", "--json"]).await;
    assert_eq!((&status["agent_pid"], &status["last_seq"]), (&agent.pid().into(), &4.into()));

    eventually("all to be delivered", PATIENCE, async || {
        Ok((folder.json(&["status", "--json"]).await["outbox"] == 0).then_some(()))
    })
    .await
    .unwrap();
    agent.signal(Signal::TERM);
    let (code, text) = agent.ended().await;
    assert_eq!((code, text.trim()), (Some(0), "stopped; what waits is on disk"));
    assert!(folder.run(&["sync"]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_the_server_restarts_ends_as_documented_and_shows_its_messages() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let expires_at = Time::from(jiff::Timestamp::now()).plus_millis(86_400_000);
    let told = |command: u128, kind: &str, args: Value| {
        let command = uuid::Uuid::from_u128(command);
        json!({ "command": command, "type": kind, "args": args, "expires_at": expires_at })
    };
    server.ledger().clock = Time::from(jiff::Timestamp::now());
    server.ledger().commands = vec![
        told(1, "show_message", json!({ "text": "Back door \u{1b}[2J only" })),
        told(2, "restart_agent", json!({})),
    ];
    let mut agent = Running::start(&mut folder.command(&["run"]));
    assert!(agent.first_line().starts_with("running as device "));
    let (code, text) = agent.ended().await;
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("as the server asked"), "{text}");
    let shown = said(&folder.run(&["status"]).await);
    assert!(shown.contains("message        Back door \\u{1b}[2J only"), "{shown}");
    // The next one tells, and isn't restarted again.
    assert!(folder.run(&["sync"]).await.status.success());
    assert_eq!(server.ledger().results.len(), 2);
    assert!(folder.run(&["sync"]).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_leaves_something_fails_and_says_what() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    folder.run(&["punch", "--badge", "1001", "--kind", "in"]).await;
    server.ledger().batch_faults.push_back(Fault::Busy(100));
    let output = folder.run(&["sync"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("1 punches and 0 photos still wait, safe"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_on_the_screen_and_leaves_the_chain_whole() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let punch = ["punch", "--badge", "1001", "--kind", "in", "--json"];
    folder.json(&punch).await;
    let full = [&["--pages-max", "1"], &punch[..]].concat();
    let mut made = 1;
    let refused = loop {
        let output = folder.run(&full).await;
        if !output.status.success() {
            break output;
        }
        made += 1;
        assert!(made < 100);
    };
    let error: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(error["error"]["code"], "disk_full", "{}", said(&refused));
    assert_eq!(folder.json(&punch).await["seq"], made + 1);
    assert_eq!(folder.json(&["sync", "--json"]).await["delivered"], made + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_the_chain_goes_on_and_what_was_confirmed_is_there() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let mut confirmed = Vec::new();
    for moment in 0..12u64 {
        let punch = ["punch", "--badge", "1001", "--kind", "in", "--json"];
        let mut hand = Running::start(&mut folder.command(&punch));
        // Where the kill lands is the machine's to say; every place must do.
        std::thread::sleep(Duration::from_millis(moment * 3));
        hand.0.kill().unwrap();
        hand.0.wait().unwrap();
        if let Ok(punch) = serde_json::from_str::<Value>(&hand.first_line()) {
            confirmed.push(punch["punch"].clone());
        }
    }
    let last = folder.json(&["punch", "--badge", "1001", "--kind", "out", "--json"]).await;
    let seq = last["seq"].as_u64().unwrap();
    confirmed.push(last["punch"].clone());
    assert!(folder.run(&["sync"]).await.status.success());
    let ledger = server.ledger();
    let device = ledger.tokens.values().next().unwrap().device;
    let captures = ledger.captures(device);
    assert_eq!(ledger.acked_through(device), seq);
    for punch in &confirmed {
        assert!(captures.iter().any(|capture| *punch == capture.punch.to_string()), "{punch}");
    }
    for pair in captures.windows(2) {
        assert_eq!(pair[1].prev, punchtrail_protocol::Digest::of(&pair[0].to_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_can_be_rehearsed_with_a_wrong_clock_and_another_boot() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let boot = "5f0c7a52-0000-4000-8000-000000000005";
    let arguments = ["--clock-offset-s", "-10800", "--boot", boot];
    let punch = ["punch", "--badge", "1001", "--kind", "in", "--json"];
    let slow = folder.json(&[&arguments[..], &punch[..]].concat()).await;
    let right = folder.json(&punch).await;
    let time = |punch: &Value| -> punchtrail_protocol::Time {
        punch["captured_at"].as_str().unwrap().parse().unwrap()
    };
    let behind_ms = time(&right).millis_since(time(&slow));
    assert!((10_800_000..10_860_000).contains(&behind_ms), "{behind_ms}");
    folder.run(&["sync"]).await;
    let ledger = server.ledger();
    let device = ledger.tokens.values().next().unwrap().device;
    assert_eq!(ledger.captures(device)[0].boot.to_string(), boot);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_outside_cannot_act_on_a_terminal() {
    const NASTY: &str = "E\u{1b}[2Jve\u{9b}31m\u{202e}\u{200b}\r\n\u{7}\u{8}\u{2028}Zoë";
    let server = StandIn::start().await;
    server.ledger().rows.push(person("13", NASTY, None));
    let folder = Folder::new();
    let name = format!("Gate {NASTY}");
    let enrol = ["enroll", "--server", &server.url, "--code", CODE, "--name", &name, "--json"];
    assert!(folder.run(&enrol).await.status.success());
    let badge = format!("b{NASTY}");
    let known = ["punch", "--badge", "13", "--kind", "in"];
    let unknown = ["punch", "--badge", &badge, "--kind", "in"];
    let exact = folder.json(&[&known[..], &["--json"]].concat()).await;
    assert_eq!(exact["name"], NASTY, "JSON is exact");
    let sent = Fault::Body(format!("{{\"results\":\"{}\"}}", "x".repeat(100)));
    server.ledger().always.insert("batch", sent);
    let detail = format!("no{NASTY}");
    server.ledger().always.insert("heartbeat", Fault::Problem(422, detail.clone()));
    let misused = ["punch", "--badge", "1", "--kind", NASTY];
    let bad_photo = [&known[..], &["--photo", NASTY]].concat();
    let commands =
        [&known[..], &unknown, &["sync"], &["sync", "--json"], &["status"], &misused, &bad_photo];
    for command in commands {
        let mut process = folder.command(command);
        process.env("RUST_LOG", "trace");
        let output = tokio::task::spawn_blocking(move || process.output().unwrap()).await.unwrap();
        let text = said(&output);
        let acts = |c: char| {
            c != '\n' && c.is_control() || matches!(c, '\u{202e}' | '\u{200b}' | '\u{2028}')
        };
        assert!(!text.chars().any(acts), "{command:?}: {text:?}");
    }
    let status = folder.json(&["status", "--json"]).await;
    assert!(status["errors"].to_string().contains("no"), "{status}");
    let told = status["last_error"]["detail"].as_str().unwrap();
    assert!(told.contains(&detail), "{told:?}");
    let shown = folder.run(&["punch", "--badge", "13", "--kind", "out"]).await;
    assert!(said(&shown).contains("\\u{1b}[2Jve\\u{9b}31m\\u{202e}"), "{}", said(&shown));
    assert!(said(&shown).contains("Zoë"), "{}", said(&shown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_is_a_file_and_what_is_none_is_refused_before_anything_is_recorded() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let punch = |photo: &str| {
        let arguments = ["punch", "--badge", "1001", "--kind", "in", "--photo", photo, "--json"];
        arguments.map(str::to_owned)
    };
    let at = |name: &str| folder.path.with_file_name(name).to_str().unwrap().to_owned();
    let (pipe, huge, text, good) = (at("pipe"), at("huge"), at("text"), at("good"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    std::fs::write(&text, "hello").unwrap();
    std::fs::write(&good, b"\xff\xd8\xffframe").unwrap();
    for bad in ["/dev/zero", "/dev/stdin", "/proc/self/maps", "/", &pipe, &huge, &text, "gone"] {
        let arguments = punch(bad);
        let answer = folder.json(&arguments.each_ref().map(String::as_str)).await;
        assert_eq!(answer["error"]["code"], "bad_photo", "{bad}: {answer}");
    }
    let arguments = punch(&good);
    let answer = folder.json(&arguments.each_ref().map(String::as_str)).await;
    assert_eq!(answer["seq"], 1, "nothing was recorded before: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_calling_the_program_gives_more_guesses() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let wrong = ["punch", "--badge", "1001", "--kind", "in", "--pin", "0000", "--json"];
    for _ in 0..5 {
        assert_eq!(folder.json(&wrong).await["error"]["code"], "wrong_pin");
    }
    let boot = "0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e";
    let enrol = ["enroll", "--server", &server.url, "--code", CODE, "--json"];
    for extra in [
        &["--boot", boot][..],
        &["--boot", "0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8f"],
        &["--clock-offset-s", "86400000"],
        &["--clock-offset-s", "-86400000"],
        &["--pages-max", "1"],
        &[],
    ] {
        let answer = folder.json(&[extra, &wrong].concat()).await;
        let code = answer["error"]["code"].as_str().unwrap();
        assert!(["pin_throttled", "disk_full"].contains(&code), "{extra:?}: {answer}");
        folder.json(&enrol).await;
    }
}

impl Folder {
    /// A photo's file, unlike any other.
    fn photo(&self, tail: &str) -> String {
        let path = self.path.with_file_name(format!("{tail}.jpg"));
        std::fs::write(&path, [b"\xff\xd8\xff", tail.as_bytes()].concat()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retake_killed_at_any_moment_is_there_whole_or_not_at_all() {
    let server = StandIn::start().await;
    server.ledger().new_photo_key();
    let folder = Folder::enrolled(&server).await;
    folder.json(&["punch", "--badge", "1001", "--kind", "in", "--json"]).await;
    let mut confirmed = Vec::new();
    for moment in 0..12u64 {
        let photo = folder.photo(&format!("attempt{moment}"));
        let retake = ["retake", "--punch", "last", "--photo", &photo, "--json"];
        let mut hand = Running::start(&mut folder.command(&retake));
        // Where the kill lands is the machine's to say; every place must do.
        std::thread::sleep(Duration::from_millis(moment * 3));
        hand.0.kill().unwrap();
        hand.0.wait().unwrap();
        if let Ok(kept) = serde_json::from_str::<Value>(&hand.first_line()) {
            confirmed.push(kept);
        }
    }
    let photo = folder.photo("last");
    confirmed.push(folder.json(&["retake", "--punch", "last", "--photo", &photo, "--json"]).await);
    assert!(folder.run(&["sync"]).await.status.success());
    let ledger = server.ledger();
    let attempts: Vec<u32> = ledger.attachments.keys().map(|(_, attempt)| *attempt).collect();
    assert_eq!(attempts, (1..=attempts.len() as u32).collect::<Vec<_>>());
    assert!(attempts.len() >= confirmed.len());
    for kept in &confirmed {
        let photo = kept["photo"].as_str().unwrap().parse().unwrap();
        assert!(ledger.photos.contains(&photo), "{kept}");
    }
    assert_eq!(ledger.photos.len(), attempts.len(), "no picture without its attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_there_hears_the_verdict_and_none_fails_the_press() {
    use punchtrail_protocol::{Position, guidance::Guidance, vocabulary::Standing, wire::Verdict};
    let server = StandIn::start().await;
    server.ledger().new_photo_key();
    server.ledger().rows[0].face = true;
    let folder = Folder::enrolled(&server).await;
    let mut agent = Running::start(&mut folder.command(&["run", "--spread-cap-s", "0"]));
    agent.first_line();
    let missed = |attempt| Verdict {
        standing: Standing::Recorded,
        attempt: Some(attempt),
        guidance: vec![Guidance::OnePerson],
        retake: true,
        position: Position(102),
    };
    server.ledger().verdicts.push_back(missed(0));
    let photo = folder.photo("frame");
    let punch = ["punch", "--badge", "1001", "--kind", "in", "--photo", &photo];
    let waiting = [&punch[..], &["--wait-verdict", "20", "--json"]].concat();
    let output = folder.run(&waiting).await;
    assert!(output.status.success(), "{}", said(&output));
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((lines.len(), &lines[0]["seq"], &lines[0]["face"]), (2, &1.into(), &true.into()));
    assert_eq!(lines[1]["verdict"]["guidance"][0]["text"], "One person at a time");

    let again = folder.photo("again");
    folder.json(&["retake", "--punch", "last", "--photo", &again, "--json"]).await;
    server.ledger().verdicts.extend([missed(0), missed(1)]);
    let asked = ["verdict", "--punch", "last", "--wait-s", "20", "--language", "de"];
    let output = folder.run(&asked).await;
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("Picture 1 can't be used:\n  Bitte nur eine Person"), "{text}");
    assert!(text.contains("retake --punch "), "{text}");

    server.ledger().always.insert("verdict", Fault::Cut);
    let output = folder.run(&[&punch[..], &["--wait-verdict", "1"]].concat()).await;
    assert!(output.status.success() && said(&output).contains("The punch stands"));
    let output = folder.run(&asked).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let error = folder.json(&["verdict", "--punch", "last", "--json"]).await;
    assert_eq!(error["error"]["code"], "no_answer");
    let misused = folder.run(&["verdict", "--punch", "last", "--wait-s", "21"]).await;
    assert_eq!(misused.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn references_and_erasure_are_commands() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let employee = server.ledger().rows[0].employee.to_string();
    let (one, two) = (folder.photo("one"), folder.photo("two"));
    let reference = |code| {
        ["reference", "--employee", &employee, "--code", code, "--photo", &one, "--photo", &two]
            .map(str::to_owned)
            .into_iter()
            .chain(["--notice", "2026-01", "--language", "de", "--json"].map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let told = async |code| {
        let arguments = reference(code);
        folder.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    assert_eq!(told("BCDF-GHJK").await["error"]["code"], "pairing_code_invalid");
    assert_eq!(told(punchtrail_stand_in::REFERENCES_CODE).await["references"], 2);
    folder.json(&["punch", "--badge", "1001", "--kind", "in", "--photo", &one, "--json"]).await;
    let nobody = folder.run(&["forget-photos", "--employee", "nobody at all"]).await;
    assert_eq!(nobody.status.code(), Some(1), "{}", said(&nobody));
    assert!(said(&nobody).contains("neither by name nor by badge"), "{}", said(&nobody));
    // By badge, by name, by id: the same person.
    let name = server.ledger().rows[0].name.clone();
    for (named, erased) in [("1001", 1), (&*name, 0), (&*employee, 0)] {
        let forgotten = folder.json(&["forget-photos", "--employee", named, "--json"]).await;
        assert_eq!(
            (&forgotten["employee"], &forgotten["erased"]),
            (&json!(employee), &json!(erased))
        );
    }
    let status = folder.json(&["status", "--json"]).await;
    assert_eq!((&status["photos"], &status["photos_erased"]), (&0.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_users_folder_is_not_taken_for_an_empty_one() {
    /// Nobody's, on every Linux.
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return not_run("running as another user");
    }
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    // Where anybody may start it.
    let program = tempfile::tempdir().unwrap();
    for dir in [program.path(), folder.path.parent().unwrap()] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let copy = program.path().join("punchtrail-device");
    std::fs::copy(PROGRAM, &copy).unwrap();
    for arguments in [
        &["status"][..],
        &["punch", "--badge", "1001", "--kind", "in"],
        &["salvage"],
        &["enroll", "--server", &server.url, "--code", CODE],
    ] {
        let mut command = Command::new(&copy);
        command.arg("--dir").arg(&folder.path).args(arguments).env_remove("RUST_LOG").uid(NOBODY);
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(ran.status.code(), Some(1), "{arguments:?}: {}", said(&ran));
        for part in ["another user's folder (user id 0)", "runs as user id 65534", "don't enrol"] {
            assert!(said(&ran).contains(part), "{part}: {}", said(&ran));
        }
    }
    assert!(folder.run(&["status"]).await.status.success());
}

#[tokio::test]
async fn a_worker_disputes_and_reads_their_own_after_their_pin() {
    let server = StandIn::start().await;
    let folder = Folder::enrolled(&server).await;
    let ada = server.ledger().rows[0].employee.to_string();
    server.ledger().always.insert("record", Fault::Cut);
    let dispute = ["dispute", "--json", "--employee", &ada, "--day", "2026-01-02"];
    let rest = ["--cause", "missing_punch", "--text", "All \u{202e}day", "--pin"];
    let wrong = folder.json(&[&dispute[..], &rest, &["0000"]].concat()).await;
    assert_eq!(wrong["error"]["code"], "wrong_pin", "{wrong}");
    let kept = folder.json(&[&dispute[..], &rest, &["4711"]].concat()).await;
    assert_eq!((&kept["day"], &kept["employee"]), (&"2026-01-02".into(), &ada.as_str().into()));
    let record = ["record", "--employee", &ada, "--pin", "4711"];
    let offline = folder.run(&record).await;
    assert!(offline.status.success(), "{}", said(&offline));
    for part in ["could not be asked", "held by this device", "waits to be sent"] {
        assert!(said(&offline).contains(part), "{part}: {}", said(&offline));
    }
    server.ledger().always.clear();
    let synced = folder.json(&["sync", "--json"]).await;
    assert_eq!(synced["disputes_delivered"], 1, "{synced}");
    let online = folder.run(&record).await;
    for part in
        ["dispute about 2026-01-02, missing_punch", "you: All \\u{202e}day", "answer: Looked"]
    {
        assert!(said(&online).contains(part), "{part}: {}", said(&online));
    }
    let both = folder.run(&[&dispute[..], &rest, &["4711", "--punch", &ada]].concat()).await;
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    let days = folder.run(&[&record[..], &["--days", "32"]].concat()).await;
    assert_eq!(days.status.code(), Some(2), "{}", said(&days));
}
