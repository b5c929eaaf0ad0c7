use punchtrail_protocol::wire::DevicePolicy;
use uuid::Uuid;

use super::*;

const ROLL: f64 = 0.5;

fn unreachable() -> CallError {
    CallError::Unreachable("refused".to_owned())
}

fn later(at: Instant, ms: u64) -> Instant {
    at + Duration::from_millis(ms)
}

fn heard(reported: bool, roster_differs: bool) -> Heard {
    Heard { reported, roster_differs, next_batch_after_ms: 0 }
}

/// A lane that has just reconnected.
fn connected(policy: &DevicePolicy, now: Instant) -> Lane {
    let mut lane = Lane::new(DeviceId(Uuid::from_u128(7)), policy, 60_000, now, now);
    let none = Need::default();
    assert_eq!(lane.next(none, policy, Pace::Steady, now), Next::Do(Errand::Heartbeat));
    lane.heartbeat_answered(heard(true, false), policy, 0.0, now);
    lane
}

#[test]
fn after_a_reconnect_a_heartbeat_comes_first_and_deliveries_are_spread() {
    let (policy, now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    let need = Need { waiting: 5, attachments: 0, disputes: 0, photos: 1 };
    let start = later(now, reconnect_ms(DeviceId(Uuid::from_u128(7)), 60));
    assert_eq!(lane.next(need, &policy, Pace::Steady, now), Next::Wait(start));
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Do(Errand::Batch(200)));
    assert_eq!(lane.next(need, &policy, Pace::Steady, start), Next::Do(Errand::Batch(200)));

    let retry = lane.failed(Errand::Batch(200), &unreachable(), ROLL, start);
    assert!(retry >= later(start, TRY_FLOOR_MS));
    for pace in [Pace::Steady, Pace::Asked] {
        assert_eq!(lane.next(need, &policy, pace, start), Next::Wait(retry));
        assert_eq!(lane.next(need, &policy, pace, retry), Next::Do(Errand::Heartbeat));
    }
}

#[test]
fn a_heartbeats_answer_can_ask_for_a_pause_longer_than_the_spread() {
    let (policy, now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    let need = Need { waiting: 5, attachments: 0, disputes: 0, photos: 0 };
    let paused = |next_batch_after_ms| Heard { next_batch_after_ms, ..heard(true, false) };
    let (place, sooner) = (later(now, 90_000), later(now, 100));
    lane.heartbeat_answered(paused(90_000), &policy, 0.0, now);
    lane.heartbeat_answered(paused(0), &policy, 0.0, sooner);
    let start = later(now, reconnect_ms(DeviceId(Uuid::from_u128(7)), 60));
    assert_eq!(lane.next(need, &policy, Pace::Steady, start), Next::Wait(place));
    assert_eq!(lane.next(need, &policy, Pace::Asked, start), Next::Wait(place));
    assert_eq!(lane.next(need, &policy, Pace::Steady, place), Next::Do(Errand::Batch(200)));
}

#[test]
fn a_backlog_drains_at_the_policys_rate_and_photos_come_last() {
    let policy =
        DevicePolicy { reconnect_spread_s: 0, heartbeat_s: 86_400, ..DevicePolicy::default() };
    let start = Instant::now();
    let mut lane = connected(&policy, start);
    let (mut waiting, mut now, mut calls) = (1_000u64, start, 0);
    while waiting > 0 {
        match lane.next(
            Need { waiting, attachments: 0, disputes: 0, photos: 3 },
            &policy,
            Pace::Steady,
            now,
        ) {
            Next::Do(Errand::Batch(items)) => {
                let sent = (items as u64).min(waiting);
                waiting -= sent;
                calls += 1;
                lane.batch_answered(sent as usize, 20, 0, &policy, now);
            }
            Next::Do(other) => panic!("{other:?} while punches wait"),
            Next::Wait(at) => {
                assert!(at > now);
                now = at;
            }
        }
    }
    // 200 at once, 800 at 120 a minute: 400 s, in slices of thirty.
    let took_s = (now - start).as_secs();
    assert!((399..=402).contains(&took_s), "{took_s} s");
    assert!(calls <= 28, "{calls} calls");
    let photos = lane.next(
        Need { waiting: 0, attachments: 0, disputes: 0, photos: 3 },
        &policy,
        Pace::Asked,
        now,
    );
    assert_eq!(photos, Next::Do(Errand::Photo));
}

#[test]
fn busy_is_contact_and_its_wait_is_kept_whoever_asks() {
    let (policy, now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    let busy = CallError::Busy {
        code: "busy".to_owned(),
        detail: String::new(),
        retry_after: Some(Duration::from_secs(20)),
    };
    let retry = lane.failed(Errand::Batch(200), &busy, ROLL, now);
    assert!(lane.in_contact());
    assert!(retry >= later(now, 20_000));
    let need = Need { waiting: 1, attachments: 0, disputes: 0, photos: 0 };
    assert_eq!(lane.next(need, &policy, Pace::Asked, later(now, 19_999)), Next::Wait(retry));
}

#[test]
fn a_refused_batch_is_halved_down_to_one_and_grows_back() {
    let (policy, mut now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    let need = Need { waiting: 1_000, attachments: 0, disputes: 0, photos: 0 };
    let mut sizes = Vec::new();
    loop {
        let Next::Do(Errand::Batch(items)) = lane.next(need, &policy, Pace::Asked, now) else {
            panic!("no batch")
        };
        sizes.push(items);
        if !lane.split(items, now) {
            break;
        }
        assert!(matches!(lane.next(need, &policy, Pace::Asked, now), Next::Wait(_)));
        now = later(now, TRY_FLOOR_MS);
    }
    assert_eq!(sizes, [200, 100, 50, 25, 12, 6, 3, 1]);
    lane.batch_answered(1, 20, 0, &policy, now);
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Do(Errand::Batch(2)));
}

#[test]
fn the_servers_pause_between_batches_holds() {
    let (policy, now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    lane.batch_answered(1, 20, 5_000, &policy, now);
    let need = Need { waiting: 1, attachments: 0, disputes: 0, photos: 0 };
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Wait(later(now, 5_000)));
}

#[test]
fn when_all_is_delivered_the_server_hears_so_once() {
    let (policy, now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    let none = Need::default();
    let floor = later(now, HEARTBEAT_FLOOR_MS);
    assert_eq!(lane.next(none, &policy, Pace::Steady, now), Next::Wait(floor));
    assert_eq!(lane.next(none, &policy, Pace::Steady, floor), Next::Do(Errand::Heartbeat));
    lane.heartbeat_answered(heard(false, false), &policy, 0.0, floor);
    assert_eq!(lane.next(none, &policy, Pace::Steady, floor), Next::Wait(later(floor, 300_000)));
}

#[test]
fn a_new_roster_is_walked_before_anything_is_delivered() {
    let (policy, now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    lane.heartbeat_answered(heard(true, true), &policy, 0.0, now);
    let need = Need { waiting: 1, attachments: 0, disputes: 0, photos: 0 };
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Do(Errand::Walk));
    lane.walk_refused(later(now, 9_000));
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Do(Errand::Batch(200)));
    lane.walked(&policy, now);
    assert_eq!(
        lane.next(need, &policy, Pace::Asked, later(now, 9_000)),
        Next::Do(Errand::Batch(200))
    );
}

#[test]
fn a_walk_is_spread_like_deliveries_unless_somebody_waits_for_it() {
    let (policy, now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    lane.heartbeat_answered(heard(false, true), &policy, 0.0, now);
    let start = later(now, reconnect_ms(DeviceId(Uuid::from_u128(7)), 60));
    let none = Need::default();
    assert_eq!(lane.next(none, &policy, Pace::Steady, now), Next::Wait(start));
    assert_eq!(lane.next(none, &policy, Pace::Steady, start), Next::Do(Errand::Walk));
    assert_eq!(lane.next(none, &policy, Pace::Asked, now), Next::Do(Errand::Walk));
}

#[test]
fn batches_shrink_with_slow_answers_and_grow_with_quick_ones() {
    let (policy, now) = (DevicePolicy::default(), Instant::now());
    let mut lane = connected(&policy, now);
    let need = Need { waiting: 1_000, attachments: 0, disputes: 0, photos: 0 };
    let size = |lane: &mut Lane| match lane.next(need, &policy, Pace::Asked, now) {
        Next::Do(Errand::Batch(items)) => items,
        other => panic!("{other:?}"),
    };
    let mut sizes = vec![size(&mut lane)];
    for took_ms in [BATCH_SLOW_MS + 1, BATCH_SLOW_MS + 1, BATCH_SLOW_MS, BATCH_QUICK_MS, 0, 0, 0] {
        let items = size(&mut lane);
        lane.batch_answered(items, took_ms, 0, &policy, now);
        sizes.push(size(&mut lane));
    }
    assert_eq!(sizes, [200, 100, 50, 50, 100, 200, 200, 200]);
    for expected in [100, 50, 25, 12, 6, 3, 1, 1] {
        let items = size(&mut lane);
        lane.batch_unanswered(items, 20);
        assert_eq!(size(&mut lane), items, "a line that breaks at once isn't slow");
        lane.batch_unanswered(items, 30_000);
        assert_eq!(size(&mut lane), expected);
    }
}

#[test]
fn attachments_go_before_photos_and_one_that_fails_gives_a_photo_its_turn() {
    let policy =
        DevicePolicy { reconnect_spread_s: 0, heartbeat_s: 86_400, ..DevicePolicy::default() };
    let mut now = Instant::now();
    let mut lane = connected(&policy, now);
    let need = Need { waiting: 0, attachments: 2, disputes: 0, photos: 2 };
    let punch_too = Need { waiting: 1, ..need };
    let batch = lane.next(punch_too, &policy, Pace::Asked, now);
    assert!(matches!(batch, Next::Do(Errand::Batch(_))), "{batch:?}");
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Do(Errand::Attachment));
    lane.attachment_answered(now);
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Do(Errand::Attachment));
    let again_at = lane.attachment_refused(ROLL, now);
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Do(Errand::Photo));
    let photo_at = lane.photo_refused(1.0, now);
    let soonest = again_at.min(photo_at);
    assert_eq!(lane.next(need, &policy, Pace::Asked, now), Next::Wait(soonest));
    // When both may go again, neither keeps the other from it, however often both fail.
    let mut went = Vec::new();
    for _ in 0..6 {
        now = later(now, 120_000);
        let Next::Do(errand) = lane.next(need, &policy, Pace::Asked, now) else {
            panic!("nothing")
        };
        went.push(errand);
        match errand {
            Errand::Attachment => lane.attachment_refused(ROLL, now),
            _ => lane.photo_refused(ROLL, now),
        };
    }
    let pair = [Errand::Attachment, Errand::Photo];
    assert_eq!(went, [pair, pair, pair].concat());
}
