//! `ledger verify` against a superuser who alters what stands beside the ledger: rows of every
//! table that proves something or follows from what does, taken away, put in, altered.

#![allow(clippy::unwrap_used, reason = "in a test that is the failure")]

mod cli_common;

use std::collections::BTreeSet;

use cli_common::Scene;
use punchtrail_domain::{
    dispute::Subject,
    log::recorded::Actor,
    punch::{PunchCommand, RejectionReason},
    quarantine::item_digest,
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    audit::tables::{Class, TABLES},
    devices::{self, enrolment},
    ledger::Metadata,
    people::{
        directory,
        staff::{self, NewEmployee},
    },
    rulings::{
        self, Admission, Author,
        disputes::{self, Change, Opening, Resolution},
        notes::Note,
    },
    testing::sqlx,
};
use punchtrail_protocol::{
    DisputeId, EmployeeId, SiteId, Time,
    capture::PunchKind,
    dispute::{About, DisputeCause, Settlement},
    signing::{PublicKey, to_base64url},
};
use serde_json::Value;
use sqlx::{ConnectOptions, Connection};
use uuid::Uuid;

/// A ledger with something in every table that is compared.
async fn lived_in() -> Scene {
    let mut scene = Scene::new().await;
    scene.kiosk.chain.next.employee = Some(EmployeeId(Uuid::from_u128(5)));
    let punches = scene.punches(4).await;
    let mut other = scene.capture();
    other.punch = punches[0];
    let garbage = scene.garbage("nonsense");
    scene.deliver(vec![scene.kiosk.item(&other), garbage, scene.garbage("more")]).await;
    // A number that never comes, one whose person isn't known, and two punches at once.
    scene.capture();
    scene.punches(1).await;
    scene.kiosk.chain.next.employee = None;
    scene.kiosk.chain.next.badge = Some("B-9".to_owned());
    scene.punches(1).await;
    let author = |note: &str| Author {
        employee: None,
        actor: Actor::CommandLine,
        request: None,
        note: Some(Note::new(note.to_owned())),
    };
    let reject = |note| PunchCommand::Reject { reason: RejectionReason::NotPresent, note };
    rulings::rule(&scene.ledger, punches[1], &author("he was in Rome"), None, reject)
        .await
        .unwrap();
    let void = |note| PunchCommand::Void { note, reason: None };
    rulings::rule(&scene.ledger, punches[2], &author("twice"), None, void).await.unwrap();
    let item =
        |text: &str| item_digest(scene.kiosk.id, to_base64url(text.as_bytes()).as_bytes(), b"AA");
    let admission = Admission {
        employee: EmployeeId(Uuid::from_u128(5)),
        site: SiteId(Uuid::from_u128(77)),
        kind: PunchKind::Out,
        captured_at: Time::from_millis(1_790_000_000_000),
    };
    let admitted = author("as she says");
    rulings::admit(&scene.ledger, item("nonsense"), admission, &admitted).await.unwrap();
    rulings::dismiss(&scene.ledger, item("more"), &author("nothing")).await.unwrap();
    // A dispute with a text, an answer, and a settlement that rules on the punch by the same note.
    let dispute = DisputeId(Uuid::now_v7());
    let subject = Subject {
        site: SiteId(Uuid::from_u128(77)),
        employee: EmployeeId(Uuid::from_u128(5)),
        about: About::Punch(punches[3]),
        cause: DisputeCause::NotMine,
    };
    let opening = Opening { dispute, subject, evidence: None };
    disputes::open(&scene.ledger, &opening, "not me", &author("not me")).await.unwrap();
    let resolution = Resolution {
        how: Settlement::Void,
        effective_at: None,
        kind: None,
        by_punch: None,
        site: None,
        employee: None,
        reason: None,
        evidence: None,
    };
    for (change, note) in
        [(Change::Answer, "who then?"), (Change::Resolve(resolution), "it was Ben")]
    {
        disputes::change(&scene.ledger, dispute, &change, None, &author(note)).await.unwrap();
    }
    // Somebody with a badge.
    let home = SiteId(Uuid::from_u128(77));
    let mut connection = scene.pools.writer.acquire().await.unwrap();
    directory::put_site(&mut connection, home, "Mill").await.unwrap();
    drop(connection);
    let new = NewEmployee {
        name: "Ada".to_owned(),
        site: home,
        from: None,
        badge: Some("17".to_owned()),
        external_id: None,
        pin: None,
    };
    staff::hire(&scene.ledger, new, &Metadata::default()).await.unwrap();
    // A second device, moved and revoked.
    let key = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    let site = SiteId(Uuid::from_u128(77));
    let code = enrolment::make_code(&scene.pools.writer, site).await.unwrap();
    let enrolment = enrolment::Enrolment {
        code: code.shown().replace('-', ""),
        name: "back door".to_owned(),
        key: PublicKey::from(&key),
        app: "test".to_owned(),
    };
    let second = enrolment::enroll(&scene.ledger, scene.org, enrolment).await.unwrap().device;
    let (ledger, metadata) = (&scene.ledger, Metadata::default());
    let elsewhere = SiteId(Uuid::from_u128(78));
    devices::assign(ledger, second, elsewhere, &metadata).await.unwrap();
    devices::revoke(ledger, second, Time::from_millis(1), &metadata).await.unwrap();
    let mut adjudicator = Adjudicator::new(scene.ledger.clone());
    while adjudicator.step().await.unwrap().is_some() {}
    scene.checkpoint().await;
    scene
}

/// The codes of what is found; none when the ledger is intact.
async fn found(scene: &Scene) -> (BTreeSet<String>, Value) {
    let ran = scene.run(&["ledger", "verify", "--json"]).await;
    assert!(ran.exit < 2, "{ran:?}");
    let report = ran.json();
    let findings = report["findings"].as_array().unwrap();
    let codes = findings.iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ran.exit == 0, findings.is_empty());
    (codes, report)
}

/// What is done to a table, and the finding it must lead to.
const EDITS: &[(&str, &str, &str)] = &[
    ("notes", "note_altered", "update notes set body = body || '!'"),
    ("notes", "note_altered", "update notes set author = 'policy'"),
    ("notes", "note_altered", "update notes set salt = sha256(salt)"),
    ("notes", "note_altered", "update notes set digest = sha256(digest)"),
    ("notes", "note_altered", "insert into notes values ('a', 'b', 'c', 'd')"),
    ("badge_holdings", "badge_altered", "delete from badge_holdings"),
    ("badge_holdings", "badge_altered", "update badge_holdings set number = number || '1'"),
    ("badge_holdings", "badge_altered", "update badge_holdings set employee = gen_random_uuid()"),
    ("badge_holdings", "badge_altered", "update badge_holdings set held_from = now()"),
    ("badge_holdings", "badge_altered", "update badge_holdings set held_until = now()"),
    (
        "badge_holdings",
        "badge_altered",
        "insert into badge_holdings select sha256('x18'), employee, '18', 'x', held_from \
         from badge_holdings",
    ),
    (
        "badge_holdings",
        "badge_altered",
        "insert into badge_holdings select sha256('x17'), gen_random_uuid(), '17', 'x', \
         '-infinity' from badge_holdings",
    ),
    ("conflicting_captures", "bytes_altered", "delete from conflicting_captures"),
    ("conflicting_captures", "bytes_altered", "update conflicting_captures set capture = 'AA'"),
    ("conflicting_captures", "bytes_altered", "update conflicting_captures set signature = 'AA'"),
    (
        "conflicting_captures",
        "bad_signature",
        "update conflicting_captures set signature = repeat('A', 86)",
    ),
    (
        "conflicting_captures",
        "bytes_altered",
        "insert into conflicting_captures select sha256(digest), punch, capture, signature \
         from conflicting_captures",
    ),
    ("quarantine_items", "bytes_altered", "delete from quarantine_items"),
    ("quarantine_items", "bytes_altered", "update quarantine_items set signature = 'AB'"),
    ("quarantine_items", "bytes_altered", "update quarantine_items set device = gen_random_uuid()"),
    (
        "quarantine_items",
        "bytes_altered",
        "insert into quarantine_items select sha256(id), device, capture, signature \
         from quarantine_items",
    ),
    ("device_chain", "chain_altered", "delete from device_chain where seq = 2"),
    ("device_chain", "chain_altered", "update device_chain set seq = 70 where seq = 2"),
    ("device_chain", "chain_altered", "update device_chain set prev = digest where seq = 2"),
    ("device_chain", "chain_altered", "update device_chain set punch = null where seq = 2"),
    ("device_chain", "chain_altered", "update device_chain set position = 2 where seq = 2"),
    (
        "device_chain",
        "chain_altered",
        "insert into device_chain select gen_random_uuid(), seq, digest, prev, punch, position \
         from device_chain",
    ),
    ("device_progress", "progress_altered", "delete from device_progress"),
    ("device_progress", "progress_altered", "update device_progress set acked_through = 1"),
    ("device_progress", "progress_altered", "update device_progress set acked_through = 9"),
    ("device_progress", "progress_altered", "update device_progress set highest = highest + 1"),
    ("device_progress", "progress_altered", "update device_progress set quarantined = 0"),
    (
        "device_progress",
        "progress_altered",
        "insert into device_progress values (gen_random_uuid(), 3, 3, 0)",
    ),
    ("device_credentials", "access_altered", "delete from device_credentials"),
    ("device_credentials", "access_altered", "update device_credentials set revoked_at = null"),
    ("device_credentials", "access_altered", "update device_credentials set revoked_at = now()"),
    (
        "device_credentials",
        "key_altered",
        "update device_credentials set public_key = sha256(public_key)",
    ),
    (
        "device_credentials",
        "access_altered",
        "insert into device_credentials values (gen_random_uuid(), sha256('x'), sha256('y'))",
    ),
    ("device_sites", "sites_altered", "delete from device_sites"),
    ("device_sites", "sites_altered", "update device_sites set site = gen_random_uuid()"),
    (
        "device_sites",
        "sites_altered",
        "update device_sites set ordinal = default where site = \
         '00000000-0000-0000-0000-00000000004d'",
    ),
    (
        "device_sites",
        "sites_altered",
        "insert into device_sites select device, gen_random_uuid() from device_sites",
    ),
    (
        "device_sites",
        "sites_altered",
        "insert into device_sites values (gen_random_uuid(), gen_random_uuid())",
    ),
    ("judged_punches", "memory_altered", "delete from judged_punches"),
    ("judged_punches", "memory_altered", "update judged_punches set employee = punch"),
    (
        "judged_punches",
        "memory_altered",
        "update judged_punches set true_at = true_at + interval '1 microsecond'",
    ),
    ("judged_punches", "memory_altered", "update judged_punches set site = punch"),
    ("judged_punches", "memory_altered", "update judged_punches set kind = 'break_start'"),
    ("judged_punches", "memory_altered", "update judged_punches set is_out = not is_out"),
    ("judged_punches", "memory_altered", "update judged_punches set near_duplicate = true"),
    ("judged_punches", "memory_altered", "update judged_punches set two_sites = true"),
    ("judged_punches", "memory_altered", "update judged_punches set opposite_kind = true"),
    ("judged_punches", "memory_altered", "update judged_punches set badge = '17'"),
    (
        "judged_punches",
        "memory_altered",
        "insert into judged_punches select * from judged_punches limit 1",
    ),
    (
        "judged_punches",
        "memory_altered",
        "insert into judged_punches select gen_random_uuid(), employee, true_at, site, kind, \
         false from judged_punches",
    ),
    ("judged_punches", "memory_altered", "update judged_punches set employee = null"),
    ("judged_again", "memory_altered", "insert into judged_again values (gen_random_uuid())"),
    ("judged_devices", "memory_altered", "delete from judged_devices"),
    ("judged_devices", "memory_altered", "update judged_devices set highest = highest + 1"),
    ("judged_devices", "memory_altered", "update judged_devices set digest = sha256(digest)"),
    ("judged_devices", "memory_altered", "update judged_devices set gaps = '{}'"),
    (
        "judged_devices",
        "memory_altered",
        "insert into judged_devices values (gen_random_uuid(), 3, sha256('x'), '{}')",
    ),
    ("followers", "place_altered", "delete from followers"),
    ("followers", "place_altered", "update followers set position = position + 100"),
    ("followers", "memory_altered", "update followers set position = 5"),
    ("followers", "place_altered", "insert into followers values ('more', 1)"),
    (
        "ledger_head",
        "head_altered",
        "update ledger_head set recorded_at = recorded_at + interval '1 day'",
    ),
    ("ledger_head", "misplaced", "update ledger_head set position = position - 1"),
    ("ledger_head", "missing", "update ledger_head set position = position + 1"),
    ("deployment", "deployment_altered", "update deployment set org = gen_random_uuid()"),
    ("deployment", "deployment_altered", "delete from deployment"),
    ("events", "missing", "delete from events where position = 7"),
    ("events", "leaf_mismatch", "update events set metadata = '{}' where position = 7"),
    (
        "events",
        "misplaced",
        "insert into events select 'site', 'x', 1, event_type, event_version, payload, metadata, \
         position + 900, recorded_at, leaf_hash from events where position = 7",
    ),
];

#[tokio::test]
async fn every_edit_of_what_proves_or_follows_is_a_finding_of_its_own() {
    let scene = lived_in().await;
    let (codes, report) = found(&scene).await;
    assert!(codes.is_empty(), "{report}");
    for (table, code, edit) in EDITS {
        let keep = format!("create schema kept; create table kept.one as table {table}");
        scene.tamper(&format!("{keep}; {edit}")).await;
        let (codes, report) = found(&scene).await;
        assert!(codes.contains(*code), "{edit}: {report}");
        let back = format!(
            "delete from {table}; insert into {table} overriding system value \
             select * from kept.one; drop schema kept cascade"
        );
        scene.tamper(&back).await;
    }
    let (codes, report) = found(&scene).await;
    assert!(codes.is_empty(), "{report}");
    let edited: BTreeSet<&str> = EDITS.iter().map(|(table, ..)| *table).collect();
    let compared = TABLES.iter().filter(|table| table.class != Class::Neither);
    assert_eq!(edited, compared.map(|table| table.name).collect(), "tables that are compared");
    scene.close().await;
}

#[tokio::test]
async fn an_erased_note_is_no_finding_and_what_proves_nothing_is_not_looked_at() {
    let scene = lived_in().await;
    scene
        .tamper(
            "delete from notes; delete from device_directory; update operator_keys set name = ''; \
             update pairing_codes set used_at = null; delete from device_reports",
        )
        .await;
    let (codes, report) = found(&scene).await;
    assert!(codes.is_empty(), "{report}");
    scene.close().await;
}

#[tokio::test]
async fn a_place_moved_on_leaves_punches_unjudged() {
    let mut scene = lived_in().await;
    scene.punches(2).await;
    let (codes, report) = found(&scene).await;
    assert!(codes.is_empty(), "not judged yet: {report}");
    scene.tamper("update followers set position = (select position from ledger_head)").await;
    let (codes, report) = found(&scene).await;
    assert!(codes.contains("place_altered"), "{report}");
    scene.close().await;
}

#[tokio::test]
async fn a_database_that_forgets_is_verified_all_the_same_and_that_is_a_finding() {
    let scene = lived_in().await;
    let mut superuser = scene.database.owner_options().connect().await.unwrap();
    let name: String =
        sqlx::query_scalar("select current_database()").fetch_one(&mut superuser).await.unwrap();
    for (edit, code) in [
        (format!("alter database {name} set synchronous_commit = off"), "setting_changed"),
        (
            format!("alter database {name} reset all; grant delete on notes to public"),
            "right_granted",
        ),
        (
            "revoke delete on notes from public; alter table events disable trigger user"
                .to_owned(),
            "guard_altered",
        ),
    ] {
        sqlx::raw_sql(&edit).execute(&mut superuser).await.unwrap();
        let (codes, report) = found(&scene).await;
        assert_eq!(codes, BTreeSet::from([code.to_owned()]), "{report}");
    }
    superuser.close().await.unwrap();
    scene.close().await;
}
