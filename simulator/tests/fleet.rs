//! The fleet simulator: small fleets of the real device core against the stand-in, in every mode.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::ValueEnum;
use futures::future::join_all;
use punchtrail_device::{Device, Options, store::outbox};
use punchtrail_protocol::{Digest, capture::Capture, signing::CAPTURE_TYPE};
use punchtrail_simulator::{
    self as simulator, FILES_MAX, Misbehaviour, Pairing, Plan, Progress, Report,
};
use punchtrail_stand_in::{CODE, Call, Fault, OPERATOR_KEY, StandIn, person};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

const PROGRAM: &str = env!("CARGO_BIN_EXE_punchtrail-fleet");

fn plan(server: &StandIn, dir: &Path, devices: usize, punches: usize) -> Plan {
    Plan {
        dir: dir.join("fleet"),
        server: server.url.clone(),
        pairing: Pairing::Operator {
            key: Zeroizing::new(OPERATOR_KEY.to_owned()),
            sites: vec![server.ledger().site],
        },
        devices,
        punches,
        photos: 0.0,
        moved: false,
        misbehaviours: Vec::new(),
        share: 0.5,
        stale_rosters: 0.0,
        seed: 7,
        deadline: Duration::from_secs(120),
        offline: Duration::from_secs(8 * 3_600),
        spread_cap_s: None,
        retry_cap_ms: 2_000,
        memory_mib: 64,
        synced: false,
        own_server: false,
    }
}

async fn run(plan: &Plan) -> Report {
    simulator::run(plan.clone(), &Progress::hidden(), &CancellationToken::new()).await.unwrap()
}

/// Everything each device's file holds is on the server, byte for byte and once, and is
/// acknowledged.
async fn holds_what_the_files_hold(server: &StandIn, plan: &Plan, punches_each: usize) {
    for index in 0..plan.devices {
        let device = Device::open(plan.folder(index), Options::default()).await.unwrap();
        let identity = device.identity().await.unwrap().unwrap();
        let held =
            outbox::held(&mut device.store().read().await.unwrap(), identity.id).await.unwrap();
        assert_eq!(device.status().await.unwrap().current.unwrap().outbox, 0);
        device.close().await;
        let ledger = server.ledger();
        let captures = ledger.captures(identity.device);
        assert_eq!((held.len(), captures.len()), (punches_each, punches_each));
        for (kept, capture) in held.iter().zip(&captures) {
            assert!(kept.acknowledged);
            assert_eq!(kept.bytes, capture.to_bytes());
        }
    }
    assert_eq!(server.ledger().punches.len(), plan.devices * punches_each);
}

#[tokio::test]
async fn a_fleet_captures_offline_delivers_and_agrees_with_the_server() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    let mut plan = plan(&server, dir.path(), 8, 21);
    plan.stale_rosters = 0.25;
    let report = run(&plan).await;
    assert!(report.outcome.complete, "{report}");
    assert_eq!((report.outcome.outstanding, report.outcome.acknowledged), (168, 168));
    assert_eq!(report.outcome.by_status["applied"], 168);
    assert_eq!((report.drained.all.devices, report.drained.all.drained), (8, 8));
    assert_eq!((report.latency.manifest.count, report.failures.retries), (2, 0));
    // Before the punches, and when they are delivered.
    assert_eq!(report.latency.heartbeats.count, 16);
    assert_eq!(report.seconds.last().unwrap().outstanding, 0);
    holds_what_the_files_hold(&server, &plan, 21).await;

    let ledger = server.ledger();
    for enrolment in ledger.tokens.values() {
        let captures = ledger.captures(enrolment.device);
        let mut prev = Digest::ZERO;
        for (capture, seq) in captures.iter().zip(1..) {
            assert_eq!((capture.seq, capture.prev, capture.offline), (seq, prev, true));
            assert!(ledger.rows.iter().any(|row| Some(row.employee) == capture.employee));
            prev = Digest::of(&capture.to_bytes());
        }
        assert!(captures.windows(2).all(|two| two[0].captured_at < two[1].captured_at
            && two[0].uptime_ms < two[1].uptime_ms
            && two[0].boot == two[1].boot));
    }
    drop(ledger);
    let svg = simulator::plot(&report).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("8 devices come back at once: complete"));
}

#[tokio::test]
async fn the_newest_punches_have_photos_which_follow_them() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    server.ledger().refuse_photos = true;
    let mut plan = plan(&server, dir.path(), 3, 10);
    (plan.photos, plan.deadline) = (0.2, Duration::from_secs(3));
    let refused = run(&plan).await;
    assert_eq!((refused.outcome.acknowledged, refused.photos.outstanding), (30, 6));
    assert!(refused.photos.refused > 0 && refused.photos.waiting == 6, "{refused}");
    assert!(!refused.outcome.complete, "{refused}");
    let said = refused.to_string();
    assert!(said.starts_with("NOT COMPLETE: every punch is acknowledged, but photos"), "{said}");

    server.ledger().refuse_photos = false;
    (plan.punches, plan.deadline) = (0, Duration::from_secs(120));
    let report = run(&plan).await;
    assert!(report.outcome.complete, "{report}");
    assert_eq!((report.photos.put, report.photos.waiting, report.latency.photos.count), (6, 0, 6));
    assert!(report.to_string().contains("photos       6 waited, 6 stored, 0 still wait"));
    holds_what_the_files_hold(&server, &plan, 10).await;
    let ledger = server.ledger();
    let mut named = Vec::new();
    for enrolment in ledger.tokens.values() {
        let captures = ledger.captures(enrolment.device);
        let with: Vec<u64> = captures.iter().filter(|c| c.photo.is_some()).map(|c| c.seq).collect();
        assert_eq!(with, [9, 10]);
        named.extend(captures.iter().filter_map(|capture| capture.photo));
    }
    named.sort_unstable();
    assert!(named.iter().eq(&ledger.photos), "each has bytes of its own, and all came");
}

#[tokio::test]
async fn photos_wait_as_long_as_the_server_asks() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    server.ledger().always.insert("photos", Fault::Busy(1));
    let mut plan = plan(&server, dir.path(), 2, 3);
    plan.photos = 1.0;
    let running = tokio::spawn({
        let plan = plan.clone();
        async move { run(&plan).await }
    });
    let tries = || server.ledger().faulted;
    punchtrail_testkit::eventually(
        "photos to be refused",
        punchtrail_testkit::PATIENCE,
        async || Ok((tries() >= 4).then_some(())),
    )
    .await
    .unwrap();
    server.ledger().always.clear();
    let report = running.await.unwrap();
    assert!(report.outcome.complete && report.photos.put == 6, "{report}");
    // A second each, and each device's own: nobody hurried.
    assert!((4..20).contains(&report.photos.busy), "{report}");
}

#[tokio::test]
async fn bulk_captures_are_those_of_single_punches() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    let plan = plan(&server, dir.path(), 1, 3);
    assert!(run(&plan).await.outcome.complete);
    let device = Device::open(plan.folder(0), Options::default()).await.unwrap();
    let press = punchtrail_device::Press {
        badge: "1001".to_owned(),
        kind: punchtrail_protocol::capture::PunchKind::In,
        pin: None,
        photo: None,
    };
    // A single punch goes on where the bulk ended, by the people that the file knows.
    let single = device.punch(press).await.unwrap();
    assert_eq!(single.seq, 4);
    assert_eq!(single.employee, Some(server.ledger().rows[0].employee));
    let identity = device.identity().await.unwrap().unwrap();
    let held = outbox::held(&mut device.store().read().await.unwrap(), identity.id).await.unwrap();
    let key = punchtrail_protocol::signing::PublicKey::from(&identity.key);
    let mut prev = Digest::ZERO;
    for kept in &held {
        let capture = Capture::parse(&kept.bytes).unwrap();
        let signature = kept.signature.as_slice().try_into().unwrap();
        key.verify(CAPTURE_TYPE, &kept.bytes, &punchtrail_protocol::signing::Signature(signature))
            .unwrap();
        assert_eq!(capture.prev, prev);
        prev = kept.digest;
    }
    assert_eq!(held.len(), 4);
}

#[tokio::test]
async fn nothing_is_lost_whatever_they_do_wrong() {
    join_all(Misbehaviour::value_variants().iter().map(async |&mode| {
        let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
        {
            let mut ledger = server.ledger();
            ledger.takes_garbage = mode == Misbehaviour::Garbage;
            ledger.policy.batch_max = 25;
            // Something to be wrong about: failures of every kind.
            ledger.batch_faults.extend([
                Fault::Busy(0),
                Fault::CutAfterCommit,
                Fault::OneAtATime,
                Fault::Html(502),
                Fault::Refuse(413, "payload_too_large"),
            ]);
        }
        let mut plan = plan(&server, dir.path(), 4, 100);
        plan.misbehaviours = vec![mode];
        let report = run(&plan).await;
        assert!(report.outcome.complete, "{mode}: {report}");
        assert_eq!(report.outcome.acknowledged, 400, "{mode}");
        assert_eq!(
            (report.drained.misbehaving.drained, report.drained.well_behaved.drained),
            (2, 2)
        );
        let statuses = report.outcome.by_status.values().sum::<u64>();
        assert_eq!(statuses, 400, "{mode}");
        assert!(
            report.failures.retries >= 4 && report.failures.unanswered == 2,
            "{mode}: {report}"
        );
        match mode {
            Misbehaviour::Duplicates => {
                assert!(report.sent.batches_twice > 0 && report.sent.items > 425, "{report}");
                assert!(report.outcome.by_status["duplicate"] > 25, "{report}");
            }
            Misbehaviour::Garbage => {
                assert!(report.sent.garbage > 0, "{report}");
                assert_eq!(server.ledger().quarantined, report.sent.garbage);
            }
            Misbehaviour::Clocks => {
                let now = jiff::Timestamp::now().as_millisecond();
                let ledger = server.ledger();
                let latest = ledger.tokens.values().map(|enrolment| {
                    ledger.captures(enrolment.device).last().unwrap().captured_at.millis()
                });
                let wrong = latest.filter(|at| (now - at).abs() > 3_000_000).count();
                assert_eq!(wrong, 2);
            }
            _ => {}
        }
        holds_what_the_files_hold(&server, &plan, 100).await;
    }))
    .await;
}

#[tokio::test]
async fn retry_after_is_obeyed_by_those_that_behave_and_by_no_others() {
    let cases = [
        (vec![], true),
        (vec![Misbehaviour::NoThrottle], true),
        (vec![Misbehaviour::FixedRetry], true),
        (vec![Misbehaviour::IgnoreRetryAfter], false),
        (vec![Misbehaviour::FixedRetry, Misbehaviour::IgnoreRetryAfter], false),
    ];
    join_all(cases.map(async |(modes, obeyed)| {
        let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
        server.ledger().storm = Some((2, 2));
        let mut plan = plan(&server, dir.path(), 6, 10);
        (plan.misbehaviours, plan.share) = (modes.clone(), 1.0);
        let report = run(&plan).await;
        assert!(report.outcome.complete, "{report}");
        assert_eq!(server.ledger().early == 0, obeyed, "{modes:?}: {}", server.ledger().early);
        assert_eq!((report.failures.busy_503, report.latency.sheds.count), (12, 12));
        assert!(report.failures.retries >= 12);
        holds_what_the_files_hold(&server, &plan, 10).await;
    }))
    .await;
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_fails_the_run_and_the_next_goes_on() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    server.ledger().storm = Some((u32::MAX, 1));
    let mut plan = plan(&server, dir.path(), 3, 5);
    plan.deadline = Duration::from_secs(2);
    let report = run(&plan).await;
    assert!(!report.outcome.complete);
    assert_eq!((report.outcome.acknowledged, report.outcome.unacknowledged), (0, 15));
    assert!(report.to_string().starts_with("NOT COMPLETE: punches still wait"), "{report}");
    let device = Device::open(plan.folder(1), Options::default()).await.unwrap();
    let status = device.status().await.unwrap().current.unwrap();
    assert_eq!((status.outbox, status.last_error.unwrap().code.as_str()), (5, "busy"));
    device.close().await;

    server.ledger().storm = None;
    (plan.punches, plan.deadline) = (0, Duration::from_secs(120));
    let report = run(&plan).await;
    assert!(report.outcome.complete, "{report}");
    assert_eq!(report.outcome.acknowledged, 15);
    assert_eq!(server.ledger().tokens.len(), 3, "nobody is enrolled twice");
    holds_what_the_files_hold(&server, &plan, 5).await;
}

#[tokio::test]
async fn what_was_only_captured_is_delivered_later_and_to_the_servers_new_address() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    let mut plan = plan(&server, dir.path(), 4, 6);
    plan.stale_rosters = 0.5;
    let (progress, stop) = (Progress::hidden(), CancellationToken::new());
    let waiting = simulator::capture_only(plan.clone(), &progress, &stop).await.unwrap();
    assert_eq!((waiting.devices, waiting.punches), (4, 24));
    assert!(server.ledger().punches.is_empty(), "the gate was closed");

    plan.server = server.url.replace("127.0.0.1", "localhost");
    plan.punches = 0;
    let refused = simulator::run(plan.clone(), &progress, &stop).await.unwrap_err();
    assert!(refused.to_string().contains("enrolled at another server"), "{refused}");
    plan.moved = true;
    let report = run(&plan).await;
    assert!(report.outcome.complete, "{report}");
    assert_eq!((report.outcome.acknowledged, report.latency.manifest.count), (24, 2));
    assert_eq!(server.ledger().tokens.len(), 4, "nobody is enrolled twice");
    holds_what_the_files_hold(&server, &plan, 6).await;
}

#[tokio::test]
async fn a_server_that_says_less_than_it_took_is_found_out() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    let plan = plan(&server, dir.path(), 2, 4);
    server.ledger().quarantine_all = true;
    let report = run(&plan).await;
    assert!(!report.outcome.complete);
    assert_eq!((report.outcome.unacknowledged, report.outcome.discrepancies), (0, 2));
    assert!(report.outcome.discrepancies_listed[0].contains("4 of its punches are quarantined"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_files_are_open_than_promised() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    server.ledger().policy.batch_max = 4;
    let mut plan = plan(&server, dir.path(), 150, 12);
    plan.photos = 0.1;
    plan.misbehaviours = vec![Misbehaviour::NoThrottle];
    let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let counter = std::thread::spawn({
        let (over, most, dir) = (over.clone(), most.clone(), plan.dir.clone());
        move || {
            while !over.load(Ordering::Relaxed) {
                let open = std::fs::read_dir("/proc/self/fd")
                    .unwrap()
                    .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
                    .filter(|file| file.starts_with(&dir))
                    .count();
                most.fetch_max(open, Ordering::Relaxed);
            }
        }
    });
    let report = run(&plan).await;
    over.store(true, Ordering::Relaxed);
    counter.join().unwrap();
    assert!(report.outcome.complete, "{report}");
    let most = most.load(Ordering::Relaxed);
    assert!((1..=FILES_MAX).contains(&most), "{most} files open at once");
}

#[tokio::test]
async fn the_same_seed_chooses_the_same() {
    let mut chosen = Vec::new();
    for seed in [1, 1, 2] {
        let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
        server.ledger().takes_garbage = true;
        server.ledger().rows = (0..40).map(|n| person(&format!("{n}"), "Temp", None)).collect();
        let mut plan = plan(&server, dir.path(), 4, 60);
        (plan.seed, plan.share) = (seed, 1.0);
        plan.misbehaviours = vec![Misbehaviour::Garbage];
        let report = run(&plan).await;
        assert!(report.outcome.complete, "{report}");
        chosen.push(report.sent.garbage);
    }
    assert_eq!(chosen[0], chosen[1]);
    assert_ne!(chosen[0], chosen[2], "the seed has no part in it");
}

fn fleet(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg("--fleet-dir")
        .arg(dir.join("fleet"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("PUNCHTRAIL_OPERATOR_KEY");
    command
}

#[tokio::test]
async fn the_command_writes_its_report_and_plot_and_is_not_aimed_by_accident() {
    let (server, dir) = (StandIn::start().await, tempfile::tempdir().unwrap());
    let elsewhere = ["--server", "https://punchtrail.example", "--key", "k", "--site"];
    let site = server.ledger().site.to_string();
    let refused = fleet(dir.path(), &elsewhere).arg(&site).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("--i-own-this-server"), "{said}");
    assert!(!dir.path().join("fleet").exists(), "nothing was done");

    let (json, svg) = (dir.path().join("report.json"), dir.path().join("report.svg"));
    let codes = dir.path().join("codes");
    std::fs::write(&codes, format!("{CODE}\n{CODE}\n")).unwrap();
    let mut command = fleet(dir.path(), &["--devices", "2", "--punches", "5", "--seed", "11"]);
    command.arg("--server").arg(&server.url).arg("--codes").arg(&codes);
    command.arg("--report").arg(&json).arg("--plot").arg(&svg);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (said, log) =
        (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
    assert!(ran.status.success(), "{said}{log}");
    assert!(said.starts_with("COMPLETE: every punch is acknowledged") && log.contains("seed 11"));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["outcome"]["by_status"]["applied"], 10);
    assert_eq!(report["seconds"][0]["outstanding"].as_u64().map(|left| left <= 10), Some(true));
    assert!(std::fs::read_to_string(&svg).unwrap().contains("Outstanding punches"));
    assert!(server.ledger().calls.contains(&Call::Heartbeat { outbox: 5, photos: 0 }));

    server.ledger().storm = Some((u32::MAX, 60));
    let mut command = fleet(dir.path(), &["--devices", "2", "--punches", "1", "--deadline-s", "1"]);
    command.arg("--server").arg(&server.url).arg("--codes").arg(&codes);
    let failed = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
}
