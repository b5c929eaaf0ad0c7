//! What is known of when, by whose clock, and of who made a punch, in words.

use insta::assert_snapshot;
use punchtrail_protocol::{capture::PunchKind, vocabulary::Reason};

use super::*;
use crate::{
    dispute::DisputeEvent,
    explanation::on_card::{DoubtedAfter, OnCard},
    punch::{Ground, RulingReason},
    timecard::UnmatchedCode,
};

const UNKNOWN: [(&str, &str); 2] = [
    ("\"employee\":\"5f0c7a52-0000-4000-8000-000000000004\"", "\"employee\":null"),
    ("\"badge\":null", "\"badge\":\"777\""),
];
const RIGHT: Clock = Clock::Known { offset_ms: 0 };

fn of_zone(tz: &str) -> Context {
    let mut context = Context::default();
    context.rules.evolve(&SiteEvent::Registered { tz: tz.to_owned() });
    context
}

fn found(ground: Ground) -> PunchEvent {
    PunchEvent::Identified { employee: ben(), ground, note: None }
}

fn by_badge() -> Ground {
    Ground::Badge { holding: Digest::of(b"17"), issued: Some(Position(9)) }
}

fn withdrawn(anomaly: Anomaly) -> PunchEvent {
    PunchEvent::AnomalyWithdrawn { anomaly }
}

fn accepted(basis: Basis) -> PunchEvent {
    PunchEvent::Accepted { basis, note: None, reason: None }
}

fn from(explained: &Explanation, index: usize) -> String {
    explained.sentences[index..].join("\n").replace(OTHER, "…")
}

#[test]
fn the_hour_that_comes_twice_says_which_wherever_a_time_is_told() {
    let replaced = [
        ("2026-11-21T08:59:03.120Z", "2026-11-01T05:45:00.000Z"),
        ("\"utc_offset_s\":3600", "\"utc_offset_s\":-14400"),
    ];
    let amended = PunchEvent::Amended {
        effective_at: time("2026-11-01T06:35:00.000Z"),
        kind: PunchKind::In,
        note: None,
        reason: None,
    };
    let mut stream = Stream::synced("09:10:05.000", RIGHT, &replaced).accepted().then(
        "10:00:00.000",
        key(),
        amended,
    );
    for (recorded, clock) in
        stream.0.iter_mut().zip(["05:45:01", "05:45:01", "05:45:02", "06:40:00"])
    {
        recorded.recorded_at = format!("2026-11-01T{clock}Z").parse().unwrap();
    }
    let synced = PunchEvent::Synced {
        device: device(),
        received_at: time("2026-11-01T05:45:01.000Z"),
        clock: RIGHT,
    };
    stream.0[1].payload = serde_json::to_string(&synced).unwrap();
    let mut context = of_zone("America/New_York");
    context.disputes.push(DisputeMark {
        place: Place { position: Position(300), recorded_at: time("2026-11-01T06:50:00.000Z") },
        actor: Some(key()),
        dispute: "0190b5a2-2222-7c1a-9d2e-3f4a5b6c7d8e".parse().unwrap(),
        event: DisputeEvent::Answered { note: Digest::of(b"answer") },
    });
    assert_snapshot!(from(&stream.explained(&context), 0), @r#"
    Maria Ortiz clocked in on Sunday, 1 November 2026, at 01:45:00 EDT, at Harbour Café, on “Front door”, by badge (its punch number 1).
    The server was out of reach then, so the device kept it. It reached the server at 01:45:01 EDT, at once.
    The device's clock was right.
    The badge told who punched; no picture was to be compared.
    The site's rules found nothing doubtful, so it was accepted at 01:45:02 EDT.
    “Front office” corrected it at 01:40:00 EST, to 01:35:00 EST instead of 01:45:00 EDT. What the device captured stays as it was.
    It counts.
    “Front office” answered at 01:50:00 EST.
    "#);
}

#[test]
fn a_correction_across_midnight_tells_both_days() {
    let to = |at: &str| PunchEvent::Amended {
        effective_at: time(at),
        kind: PunchKind::In,
        note: None,
        reason: None,
    };
    let stream =
        Stream::offline().accepted().then("12:00:00.000", key(), to("2026-11-20T22:30:00.000Z"));
    assert_snapshot!(stream.explained(&context()).sentences[5], @"“Front office” corrected it at \
        13:00:00, to 20 November 2026 23:30:00 instead of 21 November 2026 09:59:03. What the \
        device captured stays as it was.");
}

#[test]
fn a_right_clock_that_showed_another_zone_s_time_is_explained_in_one_breath() {
    let said = |known, offset: &str, index: usize| {
        let replaced = [("\"utc_offset_s\":3600", offset)];
        let told = Stream::synced("09:10:05.000", known, &replaced).explained(&context());
        told.sentences[index].clone()
    };
    let fast = Clock::Known { offset_ms: 3_600_000 };
    let told = [
        said(RIGHT, "\"utc_offset_s\":0", 2),
        said(RIGHT, "\"utc_offset_s\":-36000", 2),
        said(RIGHT, "\"utc_offset_s\":20700", 2),
        said(Clock::Unknown, "\"utc_offset_s\":0", 2),
        said(fast, "\"utc_offset_s\":0", 1),
        said(Clock::Known { offset_ms: 1_900 }, "\"utc_offset_s\":3600", 2),
        said(Clock::Known { offset_ms: -2_100 }, "\"utc_offset_s\":3600", 1),
    ];
    assert_snapshot!(told.join("\n"), @r#"
    The device's clock was right; its screen showed 08:59:03, UTC, where the site had 09:59:03.
    The device's clock was right; its screen showed 20 November 2026 22:59:03, UTC-10, where the site had 09:59:03.
    The device's clock was right; its screen showed 14:44:03, UTC+5:45, where the site had 09:59:03.
    The device's clock could not be checked; its screen showed 08:59:03, UTC, which is 09:59:03 where the site is.
    The device's clock was 1 hour ahead, and its screen showed 08:59:03, UTC; by the server's clock the punch was made at 08:59:03.
    The device's clock was right.
    The device's clock was 2 seconds behind; by the server's clock the punch was made at 09:59:05.
    "#);
}

#[test]
fn what_told_who_punched_is_said_where_no_picture_was_to_be_compared() {
    let told = ["badge", "pin", "qr", "search", "terminal"].map(|by| {
        let by = format!("\"{by}\",\"photo\"");
        let replaced = [("\"badge\",\"photo\"", by.as_str())];
        let explained = Stream::synced("09:10:05.000", RIGHT, &replaced).explained(&context());
        explained.sentences[3].clone()
    });
    assert_snapshot!(told.join("\n"), @r#"
    The badge told who punched; no picture was to be compared.
    A PIN confirmed who punched; no picture was to be compared.
    The QR code told who punched; no picture was to be compared.
    Who punched was chosen from the list of names; no picture was to be compared.
    The terminal told who punched; no picture was to be compared.
    "#);
}

#[test]
fn a_badge_that_was_nobody_s_finds_its_person() {
    let stream = Stream::synced("09:10:05.000", RIGHT, &UNKNOWN)
        .referred("09:10:07.000", [Anomaly::UnknownBadge]);
    let waits = stream.explained(&context());
    assert_eq!((waits.counts, waits.employee), (false, None));
    assert!(waits.sentences.last().unwrap().starts_with("It counts for nobody until then."));
    let stream = stream
        .then("12:00:00.000", Actor::Policy, found(by_badge()))
        .then("12:00:00.000", Actor::Policy, withdrawn(Anomaly::UnknownBadge))
        .then("12:00:00.000", Actor::Policy, PunchEvent::ReferralLifted {})
        .then("12:00:00.000", Actor::Policy, accepted(Basis::Policy));
    let explained = stream.explained(&context());
    assert_eq!((explained.counts, explained.employee), (true, Some(ben())));
    assert_snapshot!(from(&explained, 0), @r#"
    Somebody with an unknown badge clocked in on Saturday, 21 November 2026, at 09:59:03, at Harbour Café, on “Front door” (its punch number 1).
    The server was out of reach then, so the device kept it. It reached the server at 10:10:05, 11 minutes later.
    The device's clock was right.
    No picture was to be compared.
    The device did not know the badge, so this one was put before a manager.
    The badge that was read was Ben Okafor's at that time, so at 13:00:00 the punch was found to be theirs.
    So it is known whose the badge was, and that doubt is gone.
    The site's rules found nothing doubtful, so it was accepted at 13:00:00.
    It counts.
    "#);
    let mut erased = names();
    erased.employees.clear();
    let nameless = explain(&stream.0, &context(), &erased).unwrap().unwrap();
    assert_snapshot!(nameless.sentences[5], @"The badge that was read was one person's at that \
        time, so at 13:00:00 the punch was found to be theirs.");
}

#[test]
fn accepted_and_still_nobody_s() {
    let stream = Stream::synced("09:10:05.000", RIGHT, &UNKNOWN)
        .referred("09:10:07.000", [Anomaly::UnknownBadge])
        .then("12:00:00.000", key(), accepted(Basis::Manager));
    let explained = stream.explained(&context());
    assert!(!explained.counts);
    assert_snapshot!(from(&explained, 5), @r#"
    “Front office” accepted it at 13:00:00.
    It counts for nobody until it is known who made it: the badge's holder, or whom a manager names.
    "#);
}

#[test]
fn a_badge_that_had_changed_hands_and_a_reassignment_name_both() {
    let doubt = Anomaly::OtherHolder { holder: Some(ben()) };
    let stream = Stream::offline().referred("09:10:07.000", [doubt.clone()]);
    let waits = stream.explained(&context());
    assert!(!waits.counts);
    assert_snapshot!(from(&waits, 4), @r#"
    The badge by which the device knew Maria Ortiz was Ben Okafor's by then, and who made it is in doubt, so this one waits for a manager.
    It counts for nobody until then.
    "#);
    let reassigned = PunchEvent::Reassigned {
        employee: ben(),
        reason: Some(RulingReason::WrongPerson),
        note: None,
    };
    let stream = stream
        .then("12:00:00.000", key(), reassigned)
        .then("12:00:00.000", key(), withdrawn(doubt))
        .then("12:00:00.000", key(), accepted(Basis::Manager));
    let people = Account::of(&stream.0).unwrap().unwrap().people();
    assert!(people.contains(&employee()) && people.contains(&ben()), "{people:?}");
    let explained = stream.explained(&context());
    assert_eq!((explained.counts, explained.employee), (true, Some(ben())));
    assert!(explained.sentences[0].starts_with("Maria Ortiz clocked in"), "as it was captured");
    assert_snapshot!(from(&explained, 4), @r#"
    The badge by which the device knew Maria Ortiz was Ben Okafor's by then, and who made it is in doubt, so this one was put before a manager.
    “Front office” found at 13:00:00 that Ben Okafor made it and not Maria Ortiz, as somebody else made it.
    That the badge was somebody else's by then is no longer a doubt, as the punch is known to be Ben Okafor's.
    “Front office” accepted it at 13:00:00.
    It counts.
    "#);
}

#[test]
fn every_doubt_that_is_taken_back_says_why_where_that_is_known() {
    let told = every_anomaly().into_iter().map(|anomaly| {
        let stream = Stream::offline()
            .referred("09:10:07.000", [anomaly.clone()])
            .then("12:00:00.000", Actor::Policy, withdrawn(anomaly))
            .then("12:00:00.000", Actor::Policy, PunchEvent::ReferralLifted {})
            .then("12:00:00.000", Actor::Policy, accepted(Basis::Policy));
        stream.explained(&context()).sentences[5].replace(OTHER, "…")
    });
    let told: Vec<String> = told.collect();
    assert_snapshot!(told.join("\n"), @r#"
    That it repeats punch … is no longer a doubt, as the other punch no longer stands beside it: it was taken out of the count, or is known to be of another time or person.
    That the device's clock was off is no longer a doubt.
    That it was of a time still to come is no longer a doubt.
    That the device had used its number 1 before is no longer a doubt.
    So it is known whose the badge was, and that doubt is gone.
    The server knows the worker now, so that doubt is gone.
    That the worker had left by then is no longer a doubt, as the day on which they left was corrected.
    That the device's access had been ended is no longer a doubt.
    That it came very late is no longer a doubt.
    That it was made too soon after punch … at another site is no longer a doubt, as the other punch no longer stands beside it: it was taken out of the count, or is known to be of another time or person.
    That the badge was somebody else's by then is no longer a doubt, as who held the badge then was corrected.
    That the worker was not assigned to this site then is no longer a doubt, as it is known now that they were.
    That it may be the same reading as punch … is no longer a doubt, as the other punch no longer stands beside it: it was taken out of the count, or is known to be of another time or person.
    "#);
}

#[test]
fn added_by_hand_and_joined() {
    let entered = PunchEvent::Entered {
        employee: employee(),
        site: site(),
        kind: PunchKind::In,
        at: at("07:00:00.000"),
        reason: RulingReason::Forgotten,
        note: note(),
    };
    let amended = PunchEvent::Amended {
        effective_at: at("07:05:00.000"),
        kind: PunchKind::In,
        note: None,
        reason: None,
    };
    let joined = PunchEvent::ShiftJoined { out: other_punch(), note: None };
    let stream = Stream::default()
        .then("12:00:00.000", key(), entered)
        .then("12:00:00.000", key(), accepted(Basis::Manager))
        .then("12:30:00.000", key(), joined)
        .then("13:00:00.000", key(), PunchEvent::ShiftParted { note: None })
        .then("13:30:00.000", key(), amended);
    let explained = stream.explained(&context());
    assert_eq!(explained.device, None);
    assert_eq!(explained.device_report, None);
    assert_snapshot!(from(&explained, 0), @r#"
    “Front office” added this punch by hand at 13:00:00, as the worker didn't punch: Maria Ortiz clocked in on Saturday, 21 November 2026, at 08:00:00, at Harbour Café. No device made it. There is a note on it.
    A person said who punched; no picture was to be compared.
    “Front office” accepted it at 13:00:00.
    “Front office” joined it at 13:30:00 with punch … to one shift, however long.
    “Front office” undid at 14:00:00 that it was joined with another punch.
    “Front office” corrected it at 14:30:00, to 08:05:00 instead of 08:00:00. What was entered at first stays beside it.
    It counts.
    "#);
}

#[test]
fn a_punch_without_its_partner_says_so_as_the_card_does() {
    use UnmatchedCode::{
        BreakNotEnded, BreakNotStarted, BreakWithoutShift, DoubleIn, InWithoutOut, OutWithoutIn,
    };
    let until = Some(time("2026-11-22T00:59:03.000Z"));
    let codes = [
        (InWithoutOut, None),
        (InWithoutOut, until),
        (OutWithoutIn, None),
        (BreakWithoutShift, None),
        (BreakNotEnded, None),
        (BreakNotEnded, Some(at("18:00:00.000"))),
        (BreakNotStarted, None),
        (DoubleIn, None),
    ];
    let told = codes.map(|(code, may_pair_until)| {
        let day = "2026-11-21".parse().unwrap();
        let on_card = Some(OnCard { day, code, may_pair_until });
        let explained = Stream::offline().accepted().explained(&Context { on_card, ..context() });
        assert_eq!(explained.on_card, on_card);
        explained.sentences[6].clone()
    });
    assert_snapshot!(told.join("\n"), @r#"
    On the card it has no partner: no clocking out followed it in time.
    On the card it has no partner so far: no clocking out has followed it; the shift may still be closed by one until 22 November 2026 01:59:03.
    On the card it has no partner: no shift was open for it to close.
    On the card it has no partner: no shift was open then.
    On the card it has no partner: the break has no end of its own.
    On the card it has no partner so far: the break has not ended; it may still be ended until 19:00:00.
    On the card it has no partner: no break had begun.
    On the card it repeats the clocking in just before; the first one counts there.
    "#);
}

#[test]
fn the_earlier_of_one_reading_taken_twice_tells_of_the_later() {
    let after = |kind, reason, apart_ms| {
        let doubted_after = Some(DoubtedAfter { punch: other_punch(), kind, apart_ms, reason });
        let explained =
            Stream::offline().accepted().explained(&Context { doubted_after, ..context() });
        explained.sentences[6].replace(OTHER, "…")
    };
    assert_snapshot!(after(PunchKind::Out, Reason::OppositeKind, 4_000), @"The clocking out \
        4 seconds later (punch …) waits for a manager: perhaps one reading was taken twice.");
    assert_snapshot!(after(PunchKind::In, Reason::NearDuplicate, 0), @"The clocking in at the \
        same moment (punch …) waits for a manager: it may repeat this one.");
}
