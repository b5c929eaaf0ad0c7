//! `ledger verify` against a ledger that a superuser altered. Each alteration is one that the
//! database itself would not notice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test that is the failure")]

mod cli_common;

use cli_common::{Ran, Scene};
use punchtrail_domain::{
    device::{Device, DeviceCommand, DeviceEvent, Gap},
    log::leaf::Leaf,
};
use punchtrail_infra::{
    ledger::Metadata,
    testing::{TestDatabase, sqlx},
};
use punchtrail_testkit::{PATIENCE, eventually};
use serde_json::Value;
use sqlx::Row;

/// Positions 1 to 3 enrol the device; each punch then takes two.
const FIRST_PUNCH: u64 = 4;

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect()
}

/// The report of a verification that must find the ledger tampered with.
fn tampered(ran: &Ran) -> Value {
    assert_eq!(ran.exit, 1, "{ran:?}");
    let report = ran.json();
    assert_eq!(report["intact"], false, "{ran:?}");
    report
}

async fn verify(scene: &Scene) -> Ran {
    scene.run(&["ledger", "verify", "--json"]).await
}

/// The row at a position with another payload, hashed anew.
async fn rehashed(scene: &Scene, position: u64, from: &str, to: &str) -> String {
    let row = sqlx::query(
        "select (extract(epoch from recorded_at) * 1000000)::bigint as at, aggregate_type, \
         aggregate_id, sequence, event_type, event_version, payload::text as payload, \
         metadata::text as metadata from events where position = $1",
    )
    .bind(position.cast_signed())
    .fetch_one(&scene.pools.writer)
    .await
    .unwrap();
    let before: &str = row.get("payload");
    let payload = before.replacen(from, to, 1);
    assert_ne!(before, payload);
    let hash = Leaf {
        position,
        recorded_at_us: row.get("at"),
        aggregate_type: row.get("aggregate_type"),
        aggregate_id: row.get("aggregate_id"),
        sequence: row.get::<i64, _>("sequence").cast_unsigned(),
        event_type: row.get("event_type"),
        event_version: row.get("event_version"),
        payload: &payload,
        metadata: row.get("metadata"),
    }
    .hash()
    .unwrap();
    format!(
        "update events set payload = '{payload}'::json, leaf_hash = '\\x{hash}'::bytea \
         where position = {position}"
    )
}

#[tokio::test]
async fn an_untouched_ledger_is_intact_and_gaps_and_forks_are_only_listed() {
    let mut scene = Scene::new().await;
    let punches = scene.punches(5).await;
    let other = {
        let mut other = scene.capture();
        other.punch = punches[0];
        other
    };
    scene.deliver(vec![scene.kiosk.item(&other), scene.garbage("nonsense")]).await;
    let gap = DeviceEvent::SequenceGapOpened { gap: Gap { from: 8, to: 9 } };
    let fork = DeviceEvent::ForkDetected { seq: 2, first: Some(punches[1]), second: None };
    let observe = DeviceCommand::Observe { events: vec![gap, fork] };
    let id = scene.kiosk.id.to_string();
    scene.ledger.execute::<Device>(&id, observe, &Metadata::default()).await.unwrap();
    scene.checkpoint().await;
    scene.punches(1).await;
    let ran = verify(&scene).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    let report = ran.json();
    assert_eq!(report["intact"], true);
    assert_eq!(report["events"], report["head"]);
    // Five punches, the conflicting capture, and one more punch.
    assert_eq!(report["signatures"], 7);
    assert_eq!(report["checkpoints"]["agreeing"], 1);
    assert_eq!(report["checkpoints"]["uncovered"], 2);
    assert_eq!((&report["gaps"][0]["from"], &report["gaps"][0]["to"]), (&8.into(), &9.into()));
    assert_eq!(report["forks"][0]["seq"], 2);
    scene.close().await;
}

#[tokio::test]
async fn a_changed_row_is_named() {
    let mut scene = Scene::new().await;
    scene.punches(5).await;
    scene.checkpoint().await;
    let at = FIRST_PUNCH + 3;
    scene
        .tamper(&format!(
            "update events set payload = replace(payload::text, 'unknown', 'Unknown')::json \
             where position = {at}"
        ))
        .await;
    let ran = verify(&scene).await;
    let report = tampered(&ran);
    assert_eq!(report["first_bad"], at, "{ran:?}");
    assert_eq!(codes(&report), ["leaf_mismatch"]);
    let text = scene.run(&["ledger", "verify"]).await;
    assert_eq!(text.exit, 1);
    assert!(text.stdout.contains(&format!("first at position {at}")), "{text:?}");
    scene.close().await;
}

#[tokio::test]
async fn a_changed_capture_with_its_hash_made_anew_is_caught_by_checkpoint_and_signature() {
    let mut scene = Scene::new().await;
    scene.punches(3).await;
    scene.checkpoint().await;
    scene.punches(3).await;
    scene.checkpoint().await;
    // The fifth punch: between the two checkpoints, at 3 + 6 = 9 and 3 + 12 = 15.
    let at = FIRST_PUNCH + 8;
    let change = rehashed(&scene, at, r#"\"in\""#, r#"\"out\""#).await;
    scene.tamper(&change).await;
    let ran = verify(&scene).await;
    let report = tampered(&ran);
    assert_eq!(report["first_bad"], at, "the signature says exactly where: {ran:?}");
    let codes = codes(&report);
    assert!(codes.contains(&"root_mismatch") && codes.contains(&"bad_signature"), "{ran:?}");
    assert!(!codes.contains(&"leaf_mismatch"), "{ran:?}");
    let range = &report["findings"].as_array().unwrap()[0];
    assert_eq!((&range["position"], &range["through"]), (&10.into(), &15.into()), "{ran:?}");
    scene.close().await;
}

#[tokio::test]
async fn a_changed_unsigned_event_with_its_hash_made_anew_is_caught_by_the_checkpoint() {
    let mut scene = Scene::new().await;
    scene.punches(2).await;
    scene.checkpoint().await;
    scene.punches(2).await;
    scene.checkpoint().await;
    // `Synced` of the third punch carries no signature of its own.
    let at = FIRST_PUNCH + 5;
    let change = rehashed(&scene, at, "\"unknown\"", r#"{"known":{"offset_ms":0}}"#).await;
    scene.tamper(&change).await;
    let ran = verify(&scene).await;
    let report = tampered(&ran);
    assert_eq!(codes(&report), ["root_mismatch"], "{ran:?}");
    let first = report["first_bad"].as_u64().unwrap();
    let through = report["findings"][0]["through"].as_u64().unwrap();
    assert!((first..=through).contains(&at) && first > 7, "{ran:?}");
    scene.close().await;
}

#[tokio::test]
async fn removed_newest_rows_are_missed_whether_or_not_the_head_is_moved_back() {
    for code in ["missing", "beyond_head"] {
        let mut scene = Scene::new().await;
        scene.punches(5).await;
        scene.checkpoint().await;
        match code {
            "missing" => scene.tamper("delete from events where position > 9").await,
            _ => put_back(&scene, 9).await,
        }
        let ran = verify(&scene).await;
        let report = tampered(&ran);
        assert_eq!(report["first_bad"], 10, "{ran:?}");
        assert_eq!(codes(&report)[0], code, "{ran:?}");
        assert_eq!(report["findings"][0]["through"], 13, "{ran:?}");
        scene.close().await;
    }
}

#[tokio::test]
async fn a_removed_row_in_the_middle_is_a_hole() {
    let mut scene = Scene::new().await;
    scene.punches(3).await;
    scene.checkpoint().await;
    scene.tamper("delete from events where position = 5").await;
    let report = tampered(&verify(&scene).await);
    assert_eq!(report["first_bad"], 5);
    assert_eq!(report["findings"][0]["code"], "missing");
    scene.close().await;
}

#[tokio::test]
async fn a_checkpoint_that_was_altered_is_a_finding_and_one_kept_elsewhere_is_compared() {
    let mut scene = Scene::new().await;
    scene.punches(2).await;
    scene.checkpoint().await;
    let latest = scene.dir.path().join("checkpoints/0001/latest");
    let note = std::fs::read_to_string(&latest).unwrap();
    let kept = scene.file("kept-by-the-auditor", &note);
    let kept = kept.to_str().unwrap();
    assert_eq!(scene.run(&["ledger", "verify", "--against", kept, "--json"]).await.exit, 0);
    // Who removes rows and every trace of them in the folder still meets the copy elsewhere.
    let folder = scene.dir.path().join("checkpoints/0001");
    std::fs::remove_dir_all(folder.join("kept")).unwrap();
    std::fs::create_dir(folder.join("kept")).unwrap();
    std::fs::remove_file(&latest).unwrap();
    put_back(&scene, 5).await;
    assert_eq!(verify(&scene).await.exit, 0, "nothing here knows better");
    let ran = scene.run(&["ledger", "verify", "--against", kept, "--json"]).await;
    assert_eq!(codes(&tampered(&ran)), ["beyond_head"]);
    std::fs::write(&latest, note.replacen("\n7\n", "\n5\n", 1)).unwrap();
    assert_eq!(codes(&tampered(&verify(&scene).await)), ["bad_checkpoint"]);
    scene.close().await;
}

/// Puts an earlier state of the database back: nothing after that position was ever there.
async fn put_back(scene: &Scene, head: u64) {
    scene.tamper(&back_to(head)).await;
}

fn back_to(head: u64) -> String {
    format!(
        "delete from events where position > {head}; \
         delete from device_chain where position > {head}; \
         update device_progress set acked_through = last, highest = last from ( \
             select coalesce(max(seq), 0) as last from device_chain) held; \
         update ledger_head set position = {head}, recorded_at = ( \
             select recorded_at from events where position = {head})"
    )
}

#[tokio::test]
async fn a_step_back_that_a_server_noticed_is_said_as_what_it_is() {
    let mut scene = Scene::new().await;
    scene.punches(5).await;
    scene.checkpoint().await;
    scene.tamper_beside_a_server(&back_to(9)).await;
    eventually("the server to notice", PATIENCE, async || {
        Ok((scene.ledger.history().epochs().count() == 2).then_some(()))
    })
    .await
    .unwrap();
    let ran = verify(&scene).await;
    let report = tampered(&ran);
    assert_eq!(codes(&report), ["went_back"], "{ran:?}");
    assert!(report["notes"].to_string().contains("had gone back"), "{ran:?}");
    scene.close().await;
}

async fn new_epoch(scene: &Scene) -> Ran {
    scene.run(&["checkpoint", "new-epoch", "--reason", "Monday's copy", "--json"]).await
}

#[tokio::test]
async fn a_restored_copy_is_told_of_until_an_operator_opens_a_new_epoch() {
    let mut scene = Scene::new().await;
    scene.punches(1).await;
    scene.checkpoint().await;
    scene.punches(1).await;
    let refused = new_epoch(&scene).await;
    assert_eq!(refused.exit, 1, "{refused:?}");
    assert!(refused.json()["error"].as_str().unwrap().contains("agrees with all"), "{refused:?}");
    scene.punches(3).await;
    scene.checkpoint().await;
    put_back(&scene, 7).await;
    assert_eq!(verify(&scene).await.exit, 1);
    let opened = new_epoch(&scene).await.json();
    assert_eq!((&opened["epoch"], &opened["after"]), (&2.into(), &5.into()), "{opened}");
    assert_eq!(opened["signed"], true, "{opened}");
    scene.checkpoint().await;
    let ran = verify(&scene).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    let report = ran.json();
    assert_eq!(report["checkpoints"]["earlier"], 1, "{ran:?}");
    assert_eq!(report["checkpoints"]["epochs"][0]["lost_through"], 13, "{ran:?}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("Monday's copy") && notes.contains("is lost"), "{notes}");
    let refused = new_epoch(&scene).await;
    assert_eq!(refused.exit, 1, "once is enough: {refused:?}");
    scene.close().await;
}

#[tokio::test]
async fn a_new_epoch_washes_nothing_away() {
    let mut scene = Scene::new().await;
    scene.punches(1).await;
    scene.checkpoint().await;
    scene.punches(3).await;
    scene.checkpoint().await;
    let latest = std::fs::read_to_string(scene.dir.path().join("checkpoints/0001/latest")).unwrap();
    let kept = scene.file("the-auditors", &latest);
    let against = ["ledger", "verify", "--json", "--against", kept.to_str().unwrap()];
    put_back(&scene, 9).await;
    assert_eq!(new_epoch(&scene).await.exit, 0);
    scene.checkpoint().await;
    assert_eq!(verify(&scene).await.exit, 0);
    // What an auditor holds counts, whatever was opened meanwhile.
    let ran = scene.run(&against).await;
    let report = tampered(&ran);
    assert_eq!(codes(&report), ["beyond_head"], "{ran:?}");
    assert!(report["notes"].to_string().contains("after position 5"), "{ran:?}");
    // What was signed up to the fork point must hold in the new epoch as well.
    let change = rehashed(&scene, FIRST_PUNCH + 1, "\"unknown\"", r#"{"known":{"offset_ms":0}}"#);
    scene.tamper(&change.await).await;
    let codes_now = |ran: &Ran| codes(&tampered(ran)).iter().map(|c| (*c).to_owned()).collect();
    let ran = verify(&scene).await;
    let found: Vec<String> = codes_now(&ran);
    assert_eq!(found, ["root_mismatch", "root_mismatch"], "of both epochs: {ran:?}");
    // A third epoch moves the fork point back, in the open.
    assert_eq!(new_epoch(&scene).await.json()["after"], 0);
    scene.checkpoint().await;
    let ran = verify(&scene).await;
    assert_eq!(ran.json()["checkpoints"]["epochs"][0]["lost_through"], 11, "{ran:?}");
    assert_eq!(ran.json()["checkpoints"]["epochs"][1]["lost_through"], 9, "{ran:?}");
    // Without its word on the fork, earlier checkpoints must hold in full.
    std::fs::remove_file(scene.dir.path().join("checkpoints/0003/fork")).unwrap();
    let found: Vec<String> = codes_now(&verify(&scene).await);
    assert!(found.contains(&"root_mismatch".to_owned()), "{found:?}");
    scene.close().await;
}

#[tokio::test]
async fn a_lost_key_ends_its_epoch_and_what_it_signed_still_counts() {
    let mut scene = Scene::new().await;
    scene.punches(2).await;
    scene.checkpoint().await;
    std::fs::remove_file(scene.dir.path().join("checkpoints/key")).unwrap();
    assert_eq!(verify(&scene).await.json()["checkpoints"]["agreeing"], 1);
    let opened = new_epoch(&scene).await.json();
    assert_eq!((&opened["after"], &opened["signed"]), (&7.into(), &false.into()), "{opened}");
    scene.checkpoint().await;
    let ran = verify(&scene).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.json()["notes"].to_string().contains("key was gone"), "{ran:?}");
    let change = rehashed(&scene, FIRST_PUNCH + 1, "\"unknown\"", r#"{"known":{"offset_ms":0}}"#);
    scene.tamper(&change.await).await;
    assert_eq!(codes(&tampered(&verify(&scene).await)), ["root_mismatch", "root_mismatch"]);
    scene.close().await;
}

#[tokio::test]
async fn a_file_that_can_not_be_compared_is_not_called_tampered_with() {
    let mut scene = Scene::new().await;
    scene.punches(1).await;
    scene.checkpoint().await;
    let note = std::fs::read_to_string(scene.dir.path().join("checkpoints/0001/latest")).unwrap();
    let vkey = std::fs::read_to_string(scene.dir.path().join("checkpoints/vkey")).unwrap();
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let missing = path(scene.dir.path().join("nothing-here"));
    let folder = path(scene.dir.path().to_owned());
    let empty = path(scene.file("empty", ""));
    let other = path(scene.file("other", &note.replace("punchtrail/", "punchtrial/")));
    for file in [&missing, &folder, &empty, &other] {
        let ran = scene.run(&["ledger", "verify", "--json", "--against", file]).await;
        assert_eq!(ran.exit, 3, "{file}: {ran:?}");
        let error = ran.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(file) && error.contains("Nothing was verified"), "{error}");
    }
    // A new folder with a new key doesn't know the auditor's; the auditor does.
    let kept = path(scene.file("kept", &note));
    std::fs::remove_dir_all(scene.dir.path().join("checkpoints")).unwrap();
    scene.checkpoint().await;
    let against = ["ledger", "verify", "--json", "--against", &kept, "--vkey", vkey.trim()];
    let ran = scene.run(&against[..5]).await;
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert!(ran.json()["error"].as_str().unwrap().contains("--vkey"), "{ran:?}");
    let ran = scene.run(&against).await;
    assert_eq!((ran.exit, &ran.json()["checkpoints"]["elsewhere"]), (0, &1.into()), "{ran:?}");
    // Forged it is a finding.
    scene.file("kept", &note.replacen("\n5\n", "\n4\n", 1));
    assert_eq!(codes(&tampered(&scene.run(&against).await)), ["bad_checkpoint"]);
    scene.close().await;
}

#[tokio::test]
async fn what_could_not_be_verified_is_not_called_tampered_with() {
    let scene = Scene::new().await;
    scene.tamper("alter table device_chain rename to elsewhere").await;
    let ran = verify(&scene).await;
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert!(ran.json()["error"].as_str().unwrap().contains("nothing is known"), "{ran:?}");
    // A database that no server ever used, and a ledger without an event.
    let unused = scene
        .database
        .url()
        .replace(scene.database.owner_options().get_database().unwrap(), "postgres");
    let ran = scene.run(&["--database-url", &unused, "ledger", "verify", "--json"]).await;
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert!(ran.json()["error"].as_str().unwrap().contains("never was"), "{ran:?}");
    let empty = TestDatabase::new().await;
    let ran = scene.run(&["--database-url", empty.url(), "ledger", "verify", "--json"]).await;
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert!(ran.json()["error"].as_str().unwrap().contains("nothing to verify"), "{ran:?}");
    empty.close().await;
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    let ran = scene.run(&["--database-url", nowhere, "ledger", "verify", "--json"]).await;
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert!(ran.json()["error"].is_string(), "{ran:?}");
    scene.close().await;
}
