//! What holds of every explanation, whatever the events.

use proptest::prelude::*;
use punchtrail_protocol::{
    attachment::Attachment,
    capture::PunchKind,
    guidance::Guidance,
    vocabulary::{Reason, Standing},
};

use super::*;
use crate::{
    erasure::Erasure,
    explanation::step::Verification,
    punch::{
        Check, Comparison, Failing, Floors, Ground, Miss, Missing, Provider, Quality,
        RejectionReason,
    },
};

fn check() -> Check {
    Check {
        attempt: 0,
        photo: Digest::of(b"photo"),
        provider: Provider::Local,
        model: "yunet+sface".to_owned(),
        quality: Some(Quality { brightness: 50, sharpness: 60, face_px: 200 }),
        floors: Floors {
            brightness_min: 16,
            brightness_max: 75,
            sharpness_min: 12,
            face_px_min: 80,
        },
    }
}

fn comparison() -> Comparison {
    Comparison { reference: Digest::of(b"reference"), similarity: 3_100, threshold: 4_000 }
}

fn retake() -> String {
    let taken = Attachment {
        v: 1,
        punch: PUNCH.parse().unwrap(),
        device: device(),
        photo: Digest::of(b"retake"),
        attempt: 1,
        taken_at: at("08:00:00.000"),
        app: "kiosk/1.0".to_owned(),
    };
    String::from_utf8(taken.to_bytes()).unwrap()
}

/// One of each event that may follow the first two; a new one doesn't compile without being added.
fn every_event() -> Vec<PunchEvent> {
    let later = vec![
        PunchEvent::ConflictingCaptureReceived {
            digest: Digest::of(b"x"),
            device: device(),
            received_at: at("11:00:00.000"),
        },
        PunchEvent::AnomalyFlagged { anomaly: Anomaly::RevokedDevice },
        PunchEvent::ReferredForReview { reasons: vec![Reason::RevokedDevice] },
        PunchEvent::Accepted { basis: Basis::Policy, note: None, reason: None },
        PunchEvent::Accepted { basis: Basis::Verification, note: None, reason: None },
        PunchEvent::Accepted { basis: Basis::Manager, note: note(), reason: None },
        PunchEvent::Rejected { reason: RejectionReason::WrongPerson, note: note() },
        PunchEvent::Amended {
            effective_at: at("07:00:00.000"),
            kind: PunchKind::Out,
            note: None,
            reason: None,
        },
        PunchEvent::Voided { note: None, reason: None },
        PunchEvent::Reinstated {},
        PunchEvent::Identified {
            employee: employee(),
            ground: Ground::Badge { holding: Digest::of(b"17"), issued: Some(Position(9)) },
            note: None,
        },
        PunchEvent::Reassigned { employee: employee(), reason: None, note: note() },
        PunchEvent::ShiftJoined { out: other_punch(), note: None },
        PunchEvent::ShiftParted { note: note() },
        PunchEvent::AnomalyWithdrawn { anomaly: Anomaly::RevokedDevice },
        PunchEvent::ReferralLifted {},
        PunchEvent::ReviewEscalated { due_at: at("13:00:00.000") },
        PunchEvent::VerificationRequested { due_at: at("13:00:00.000") },
        PunchEvent::PhotoReceived {
            photo: Digest::of(b"photo"),
            attempt: 0,
            received_at: at("11:00:00.000"),
        },
        PunchEvent::PhotoRetaken {
            record: retake(),
            signature: Signature([0; 64]),
            received_at: at("11:00:00.000"),
        },
        PunchEvent::VerificationSucceeded { check: check(), comparison: comparison() },
        PunchEvent::VerificationFailed {
            check: check(),
            failing: Failing { miss: Miss::Mismatch, guidance: vec![Guidance::ManagerWillLook] },
            comparison: Some(comparison()),
        },
        PunchEvent::VerificationUnavailable { missing: Missing::Unreachable },
        PunchEvent::PhotoErased {
            photo: Digest::of(b"photo"),
            because: Erasure::ConsentWithdrawn,
            at: at("11:00:00.000"),
        },
    ];
    for event in &later {
        match event {
            PunchEvent::Captured { .. }
            | PunchEvent::Synced { .. }
            | PunchEvent::Entered { .. }
            | PunchEvent::Admitted { .. } => {
                unreachable!("these come first")
            }
            PunchEvent::ConflictingCaptureReceived { .. }
            | PunchEvent::AnomalyFlagged { .. }
            | PunchEvent::ReferredForReview { .. }
            | PunchEvent::Accepted { .. }
            | PunchEvent::Rejected { .. }
            | PunchEvent::Amended { .. }
            | PunchEvent::Voided { .. }
            | PunchEvent::Reinstated {}
            | PunchEvent::Identified { .. }
            | PunchEvent::Reassigned { .. }
            | PunchEvent::ShiftJoined { .. }
            | PunchEvent::ShiftParted { .. }
            | PunchEvent::AnomalyWithdrawn { .. }
            | PunchEvent::ReferralLifted {}
            | PunchEvent::ReviewEscalated { .. }
            | PunchEvent::VerificationRequested { .. }
            | PunchEvent::PhotoReceived { .. }
            | PunchEvent::PhotoRetaken { .. }
            | PunchEvent::VerificationSucceeded { .. }
            | PunchEvent::VerificationFailed { .. }
            | PunchEvent::VerificationUnavailable { .. }
            | PunchEvent::PhotoErased { .. } => {}
        }
    }
    later
}

fn has(explanation: &Explanation, step: fn(&What) -> bool) -> bool {
    explanation.steps.iter().any(|found| step(&found.what))
}

proptest! {
    #[test]
    fn whatever_happens_the_four_questions_are_answered_and_every_position_is_quoted(
        picks in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4), 0..12),
        anomalies in prop::collection::vec(prop::sample::select(every_anomaly()), 0..4),
    ) {
        let actors = [Actor::Policy, key(), Actor::CommandLine, Actor::Device(device())];
        let mut stream = Stream::offline();
        if !anomalies.is_empty() {
            stream = stream.referred("09:10:06.000", anomalies);
        }
        let later = every_event();
        for (pick, actor) in picks {
            let actor = actors[usize::from(actor)].clone();
            stream = stream.then("12:00:00.000", actor, pick.get(&later).clone());
        }
        let explained = stream.explained(&context());
        prop_assert!(has(&explained, |what| matches!(what, What::Captured(_))));
        prop_assert!(has(&explained, |what| matches!(what, What::Synced(_))));
        prop_assert!(has(&explained, |what| matches!(what, What::Verified(_))));
        let ruled = stream.0.iter().any(|recorded| matches!(
            recorded.event_type.as_str(), "Accepted" | "Rejected" | "Voided" | "ReferredForReview"
        ));
        let waits = has(&explained, |what| {
            matches!(what, What::Verified(Verification::Requested { waits: true, .. }))
        });
        prop_assert!(waits || has(&explained, |what| matches!(what, What::Decided(_))));
        prop_assert_eq!(
            has(&explained, |what| matches!(what, What::Decided(Decision::Pending {}))),
            explained.standing == Standing::Recorded && !waits
        );
        prop_assert!(ruled || explained.standing == Standing::Recorded);
        let mut quoted: Vec<u64> =
            explained.steps.iter().flat_map(|step| step.positions.iter().map(|at| at.0)).collect();
        quoted.sort_unstable();
        let every: Vec<u64> = stream.0.iter().map(|recorded| recorded.position.0).collect();
        prop_assert_eq!(quoted, every, "each event stands in one step");
        prop_assert!(explained.sentences.iter().all(|said| said.ends_with('.')));
        prop_assert!(explained.sentences.iter().all(|said| !said.contains("  ")));
        prop_assert_eq!(explained, stream.explained(&context()));
    }
}

#[test]
fn the_order_in_which_facts_are_brought_changes_nothing() {
    let gap = |from| MissingNumbers {
        gap: Gap { from, to: from },
        noticed: place(101 + from, "09:10:06.000"),
        came: None,
    };
    let (mut here, mut there) = (context(), context());
    here.gaps = vec![gap(1), gap(2)];
    there.gaps = vec![gap(2), gap(1)];
    let stream = Stream::offline().accepted();
    assert_eq!(stream.explained(&here), stream.explained(&there));
}

#[test]
fn names_are_in_the_sentences_and_nowhere_else() {
    let mut explained = Stream::offline().accepted().explained(&context());
    assert!(explained.sentences[0].contains("Maria Ortiz"));
    explained.sentences.clear();
    let json = serde_json::to_string(&explained).unwrap();
    assert!(!json.contains("Maria") && !json.contains("Harbour") && !json.contains("Front"));
}

#[test]
fn a_stream_that_can_not_be_read_is_an_error_and_an_empty_one_is_no_punch() {
    assert_eq!(explain(&[], &context(), &names()), Ok(None));
    let mut torn = Stream::offline().accepted().0;
    torn.remove(0);
    let error = explain(&torn, &context(), &names()).unwrap_err();
    assert_eq!(error.position, Position(101));
    let mut newer = Stream::offline().0;
    newer[1].event_version = "9".to_owned();
    assert_eq!(explain(&newer, &context(), &names()).unwrap_err().position, Position(101));
}
