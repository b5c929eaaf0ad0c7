//! Every number that a device writes, at the ends of what can be written: what is taken is in its
//! range, and nothing that is said of it overflows. A build for tests checks overflow, as the
//! release build does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

use ed25519_dalek::SigningKey;
use jiff::{civil::Weekday, tz::TimeZone};
use proptest::prelude::*;
use punchtrail_domain::{
    AggregateType, Recorded, StoredEvent,
    delivery::{Found, Rules},
    device::Chain,
    explanation::{Context, Names, explain},
    policy::{
        Policy,
        judging::{Doubted, Facts, Neighbour, Person, judge},
    },
    punch::{Clock, PunchEvent},
    site::SiteEvent,
    timecard::{
        self, CountedAs, TimecardPolicy, TimecardPunch, business_day, day_bounds, days_touched,
        punches_needed, timecards, totals_by_week,
    },
};
use punchtrail_protocol::{
    Digest, Position, PunchId, SiteId, Time,
    capture::{Capture, INTEGER_LIMIT, UTC_OFFSET_S_MAX},
    signing::{CAPTURE_TYPE, PublicKey, Signature, sign, to_base64url},
    vocabulary::QuarantineCode,
    wire::BatchItem,
};
use punchtrail_testkit::{EXAMPLE, NUMBERS, TIMES, with_fields};

const ZONES: &[&str] =
    &["UTC", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"];

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// What a server makes of a signed text.
fn read(text: &str) -> Found {
    let example = Capture::parse(EXAMPLE.as_bytes()).unwrap();
    let rules = Rules {
        device: example.device,
        key: PublicKey::from(&key()),
        org: example.org,
        sites: vec![example.site],
    };
    let signature = sign(&key(), CAPTURE_TYPE, text.as_bytes()).to_string();
    let item = BatchItem { capture: to_base64url(text.as_bytes()), signature };
    rules.read_all(vec![item]).remove(0).found
}

fn in_range(capture: &Capture) -> bool {
    capture.v == 1
        && (-UTC_OFFSET_S_MAX..=UTC_OFFSET_S_MAX).contains(&capture.utc_offset_s)
        && (1..INTEGER_LIMIT).contains(&capture.seq)
        && capture.uptime_ms < INTEGER_LIMIT
}

fn recorded(sequence: u64, event: &PunchEvent) -> Recorded {
    Recorded {
        position: Position(sequence),
        recorded_at: jiff::Timestamp::UNIX_EPOCH,
        aggregate_type: AggregateType::Punch,
        aggregate_id: "0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e".to_owned(),
        sequence,
        event_type: event.name().to_owned(),
        event_version: "1".to_owned(),
        payload: serde_json::to_string(event).unwrap(),
        metadata: "{}".to_owned(),
    }
}

/// Judges a capture that the ledger holds, and explains it.
fn follow(text: &str, capture: &Capture, received_at: Time, clock: Clock, zone: &TimeZone) {
    let mut chain = Chain::default();
    for seq in [1, capture.seq, capture.seq.saturating_add(1), u64::MAX] {
        chain.walk(seq, Digest::ZERO, Digest::ZERO);
    }
    let facts = Facts {
        punch: capture.punch,
        site: capture.site,
        kind: capture.kind,
        captured_at: capture.captured_at,
        true_at: clock.true_time(capture.captured_at),
        received_at,
        clock_offset_ms: clock.offset_ms(),
        person: Person::Known {
            departed_at: Some(received_at),
            other_holder: Some(None),
            assigned: false,
        },
        compares: true,
        device_revoked: true,
        fork: Some((capture.seq, None)),
    };
    let policy = Policy::default();
    let neighbour = Neighbour {
        punch: PunchId::NIL,
        site: SiteId::NIL,
        kind: capture.kind,
        true_at: received_at,
        out: false,
        doubted: Doubted::default(),
    };
    let doubts = judge(|_, _| &policy, &facts, &[neighbour]).own;
    let mut events = vec![
        PunchEvent::Captured { capture: text.into(), signature: Signature([0; 64]) },
        PunchEvent::Synced { device: capture.device, received_at, clock },
    ];
    events.extend(doubts.into_iter().map(|anomaly| PunchEvent::AnomalyFlagged { anomaly }));
    let stream: Vec<Recorded> =
        (1..).zip(&events).map(|(sequence, event)| recorded(sequence, event)).collect();
    for tz in [None, zone.iana_name()] {
        let mut context = Context::default();
        if let Some(tz) = tz {
            context.rules.evolve(&SiteEvent::Registered { tz: tz.to_owned() });
        }
        let explained = explain(&stream, &context, &Names::default()).unwrap().unwrap();
        assert!(!explained.sentences.is_empty());
    }
}

/// Makes the timecards of a capture and of another punch.
fn pair(capture: &Capture, other_at: Time, zone: &TimeZone) {
    let policy = TimecardPolicy {
        shift_max_s: u32::MAX,
        near_duplicate_s: u32::MAX,
        ..TimecardPolicy::new(zone.clone())
    };
    let policy = timecard::Rules::always(policy);
    let at = |effective_at| TimecardPunch {
        punch: capture.punch,
        kind: capture.kind,
        effective_at,
        lead_ms: None,
        standing: CountedAs::Provisional,
        site: capture.site,
        tz: capture.tz.clone(),
        joined: None,
        entered: false,
    };
    let cards = timecards(&[at(capture.captured_at), at(other_at)], |_| &policy);
    assert!(totals_by_week(&cards, Weekday::Monday).len() <= cards.len());
    let (first, last) = days_touched(capture.captured_at, &policy);
    let (from, until) = punches_needed(first, last, &policy);
    assert!(first <= last && from <= until);
    assert!((first..=last).contains(&business_day(capture.captured_at, &policy)));
    for card in cards {
        let (start, end) = day_bounds(card.day, &policy);
        assert!(start <= end);
    }
}

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(values)
}

fn zone() -> impl Strategy<Value = TimeZone> {
    one_of(ZONES).prop_map(|name| TimeZone::get(name).unwrap())
}

fn clock() -> impl Strategy<Value = Clock> {
    let ends = vec![i64::MIN, -(1 << 53), i64::from(i32::MIN), -1, 0, 1, 1 << 53, i64::MAX];
    let offset = prop_oneof![prop::sample::select(ends), any::<i64>()];
    prop_oneof![Just(Clock::Unknown), offset.prop_map(|offset_ms| Clock::Known { offset_ms })]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn numbers_and_times_at_their_ends_are_taken_in_range_and_overflow_nothing(
        v in prop_oneof![4 => Just("1"), 1 => one_of(NUMBERS)],
        seq in one_of(NUMBERS),
        utc_offset_s in one_of(NUMBERS),
        uptime_ms in one_of(NUMBERS),
        captured_at in one_of(TIMES),
        received_at in one_of(TIMES),
        clock in clock(),
        zone in zone(),
    ) {
        let captured_at = format!("\"{captured_at}\"");
        let text = with_fields(EXAMPLE, &[
            ("v", v),
            ("seq", seq),
            ("utc_offset_s", utc_offset_s),
            ("uptime_ms", uptime_ms),
            ("captured_at", &captured_at),
        ]);
        match read(&text) {
            Found::Capture { text, .. } => prop_assert!(in_range(text.capture().unwrap())),
            Found::Fault { code, .. } => prop_assert!(
                matches!(code, QuarantineCode::BadCapture | QuarantineCode::UnknownVersion)
            ),
        }
        // A ledger may hold what an earlier server took, or what somebody wrote into it.
        if let Ok(kept) = Capture::parse_kept(text.as_bytes()) {
            let received_at = received_at.parse().unwrap_or(Time::from_millis(i64::MAX));
            follow(&text, &kept, received_at, clock, &zone);
            pair(&kept, received_at, &zone);
        }
    }
}

/// Each field alone: exactly what the page says is taken.
#[test]
fn each_number_has_its_range() {
    let taken = |field: &str| -> Vec<&str> {
        let good = |value: &&&str| {
            matches!(read(&with_fields(EXAMPLE, &[(field, value)])), Found::Capture { .. })
        };
        NUMBERS.iter().filter(good).copied().collect()
    };
    assert_eq!(taken("v"), ["1"]);
    assert_eq!(taken("utc_offset_s"), ["-93599", "-1", "0", "1", "2", "255", "256", "93599"]);
    let large = ["93599", "93600", "2147483647", "2147483648", "4294967296", "9007199254740991"];
    assert_eq!(taken("seq"), [&["1", "2", "255", "256"][..], &large].concat());
    assert_eq!(taken("uptime_ms"), [&["0", "1", "2", "255", "256"][..], &large].concat());
}
