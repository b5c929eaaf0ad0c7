//! A dispute whatever is asked of it, in whatever order.

use proptest::prelude::*;
use punchtrail_protocol::{
    EmployeeId, Position, SiteId,
    dispute::{DisputeCause, DisputeState},
};

use super::*;

fn about(day: bool) -> About {
    let date = "2026-11-21".parse();
    if day { About::Day(date.unwrap()) } else { About::Punch(PunchId::NIL) }
}

fn evidence(punches: u32) -> Evidence {
    Evidence {
        day: "2026-11-21".parse().unwrap(),
        punches,
        quarantined: Vec::new(),
        unknown_badges: Vec::new(),
        devices: Vec::new(),
        more: false,
        known_through: Position(u64::from(punches)),
    }
}

fn commands() -> impl Strategy<Value = DisputeCommand> {
    let cause = prop::sample::select(<DisputeCause as strum::VariantArray>::VARIANTS);
    let how = prop::sample::select(<Settlement as strum::VariantArray>::VARIANTS);
    let (site, employee) = (SiteId::NIL, EmployeeId::NIL);
    prop_oneof![
        (cause, any::<bool>(), any::<Option<u8>>()).prop_map(move |(cause, day, note)| {
            let subject = Subject { site, employee, about: about(day), cause };
            DisputeCommand::Open { subject, note: note.map(|n| Digest::of(&[n])) }
        }),
        (0u32..3).prop_map(|punches| DisputeCommand::AddEvidence(evidence(punches))),
        any::<u8>().prop_map(|n| DisputeCommand::Answer { note: Digest::of(&[n]) }),
        (how, any::<bool>()).prop_map(|(how, named)| DisputeCommand::Resolve {
            how,
            by_punch: named.then_some(PunchId::NIL),
            note: Digest::ZERO,
        }),
        Just(DisputeCommand::Reopen { note: Digest::ZERO }),
    ]
}

proptest! {
    #[test]
    fn it_is_opened_once_settled_by_somebody_and_never_stuck(
        asked in prop::collection::vec(commands(), 0..60),
    ) {
        let mut dispute = Dispute::default();
        for command in asked {
            let before = dispute.clone();
            let decided = dispute.decide(command.clone());
            prop_assert_eq!(&decided, &before.decide(command.clone()), "the same twice");
            let Ok(events) = decided else { continue };
            for event in events {
                let text = serde_json::to_string(&event).unwrap();
                let read: DisputeEvent = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(&read, &event);
                dispute.evolve(event);
            }
            match (before.subject(), dispute.subject()) {
                (Some(was), is) => prop_assert_eq!(Some(was), is, "what it is about stands"),
                (None, Some(is)) => prop_assert!(is.cause.fits(is.about)),
                (None, None) => prop_assert_eq!(&dispute, &Dispute::default()),
            }
            prop_assert_eq!(dispute.note(), before.note().or(dispute.note()));
            let resolved = dispute.state() == DisputeState::Resolved;
            prop_assert_eq!(resolved, dispute.settled().is_some());
            if let (Some((how, by)), Some(subject)) = (dispute.settled(), dispute.subject()) {
                prop_assert_eq!(how.is_by_another_punch(), by.is_some());
                prop_assert!(subject.about.punch().is_some() || !how.rules_on_the_punch());
            }
        }
        if dispute.subject().is_some() && dispute.state().waits() {
            let dismiss = DisputeCommand::Resolve {
                how: Settlement::Dismiss, by_punch: None, note: Digest::ZERO,
            };
            prop_assert_eq!(dispute.decide(dismiss).map(|events| events.len()), Ok(1));
        }
    }
}

#[test]
fn evidence_that_says_the_same_is_kept_once() {
    let subject = Subject {
        site: SiteId::NIL,
        employee: EmployeeId::NIL,
        about: about(true),
        cause: DisputeCause::MissingPunch,
    };
    let mut dispute = Dispute::default();
    dispute.evolve(DisputeEvent::Opened { subject, note: None });
    dispute.evolve(DisputeEvent::EvidenceAdded { evidence: evidence(1) });
    let later = Evidence { known_through: Position(99), ..evidence(1) };
    assert_eq!(dispute.decide(DisputeCommand::AddEvidence(later)), Ok(vec![]));
    assert_eq!(dispute.decide(DisputeCommand::AddEvidence(evidence(2))).map(|e| e.len()), Ok(1));
}

#[test]
fn answers_and_reopenings_are_bounded() {
    let subject = Subject {
        site: SiteId::NIL,
        employee: EmployeeId::NIL,
        about: about(false),
        cause: DisputeCause::Other,
    };
    let mut dispute = Dispute::default();
    dispute.evolve(DisputeEvent::Opened { subject, note: None });
    let answer = DisputeCommand::Answer { note: Digest::ZERO };
    for _ in 0..ANSWERS_MAX {
        let events = dispute.decide(answer.clone()).unwrap();
        events.into_iter().for_each(|event| dispute.evolve(event));
    }
    assert_eq!(dispute.decide(answer), Err(DisputeError::TooManyAnswers));
    let (how, by_punch, note) = (Settlement::Dismiss, None, Digest::ZERO);
    for _ in 0..REOPENINGS_MAX {
        dispute.evolve(DisputeEvent::Resolved { how, by_punch, note });
        let events = dispute.decide(DisputeCommand::Reopen { note }).unwrap();
        events.into_iter().for_each(|event| dispute.evolve(event));
    }
    dispute.evolve(DisputeEvent::Resolved { how, by_punch, note });
    let reopened = dispute.decide(DisputeCommand::Reopen { note });
    assert_eq!(reopened, Err(DisputeError::TooManyReopenings));
}
