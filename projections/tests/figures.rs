//! What the figures say of what happened, week by week.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests; the waits are whole hours")]

mod common;

use std::collections::BTreeMap;

use common::{World, execute, rebuild, settle, start};
use punchtrail_domain::{
    AggregateType,
    dispute::{DisputeEvent, Subject},
    punch::{
        Check, Comparison, Failing, Floors, Miss, Missing, Provider, Punch, PunchCommand,
        PunchEvent, RejectionReason, Verdict,
    },
};
use punchtrail_infra::{adjudicator::Adjudicator, ledger::Metadata};
use punchtrail_projections::figures::{self, FiguresView, SiteWeeks, Weeks};
use punchtrail_protocol::{
    Digest, DisputeId, PunchId, SiteId, Time,
    capture::PunchKind,
    dispute::{About, Day, DisputeCause, Settlement},
};
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;

async fn shown(world: &World, site: Option<SiteId>, from: &str, to: &str) -> FiguresView {
    let newest = figures::newest(&world.pools.reader, site).await.unwrap();
    let day = |text: &str| Some(text.parse::<Day>().unwrap());
    let weeks = Weeks::of(day(from), day(to), newest).unwrap();
    figures::figures(&world.pools.reader, site, weeks).await.unwrap()
}

/// An event of a dispute as the ledger would have it that was recorded then.
async fn recorded(world: &World, dispute: DisputeId, sequence: i64, at: &str, event: DisputeEvent) {
    use punchtrail_domain::StoredEvent as _;
    let mut owner = world.pools.owner.acquire().await.unwrap();
    sqlx::query(
        "with head as (update ledger_head set position = position + 1 returning position) \
         insert into events select 'dispute', $1, $2, $3, '1', $4::json, \
             '{\"actor\":\"command_line\"}'::json, position, $5::text::timestamptz, sha256('') \
         from head",
    )
    .bind(dispute.to_string())
    .bind(sequence)
    .bind(event.name())
    .bind(serde_json::to_string(&event).unwrap())
    .bind(at)
    .execute(&mut *owner)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn disputes_count_when_they_are_opened_settled_and_taken_up_again() {
    let world = World::new().await;
    let note = Digest::ZERO;
    let how = Settlement::Dismiss;
    let opened = |cause, about| DisputeEvent::Opened {
        subject: Subject { site: world.site, employee: world.employee, about, cause },
        note: None,
    };
    let missing = || opened(DisputeCause::MissingPunch, About::Day("2026-11-16".parse().unwrap()));
    let wrong = || opened(DisputeCause::WrongTime, About::Punch(PunchId(Uuid::now_v7())));
    let resolved = || DisputeEvent::Resolved { how, by_punch: None, note };
    let [a, b, c, d] = [(); 4].map(|()| DisputeId(Uuid::now_v7()));
    // In Berlin the week begins an hour before it does in UTC.
    for (dispute, sequence, at, event) in [
        (a, 1, "2026-11-15T22:59:00Z", missing()),
        (b, 1, "2026-11-15T23:00:00Z", missing()),
        (c, 1, "2026-11-16T10:00:00Z", wrong()),
        (d, 1, "2026-11-16T11:00:00Z", missing()),
        (b, 2, "2026-11-16T23:00:00Z", resolved()),
        (c, 2, "2026-11-17T10:00:00Z", DisputeEvent::Answered { note }),
        (d, 2, "2026-11-17T21:00:00Z", resolved()),
        (b, 3, "2026-11-23T10:00:00Z", DisputeEvent::Reopened { note }),
        (b, 4, "2026-11-23T12:00:00Z", resolved()),
    ] {
        recorded(&world, dispute, sequence, at, event).await;
    }
    let running = start(&world).await;
    settle(&world, &running).await;
    running.stop().await;
    let view = shown(&world, Some(world.site), "2026-11-15", "2026-11-23").await;
    let weeks: Vec<_> = view
        .weeks
        .iter()
        .map(|week| {
            let of = &week.figures.disputes;
            let hours = (of.median_hours, of.p90_hours);
            (week.week.as_str(), (of.opened, of.resolved, of.reopened), hours)
        })
        .collect();
    let waited = (Some(29.0), Some(33.0));
    assert_eq!(
        weeks,
        [
            ("2026-W46", (1, 0, 0), (None, None)),
            // One waited 24 hours, one 34.
            ("2026-W47", (3, 2, 0), waited),
            ("2026-W48", (0, 1, 1), (Some(2.0), Some(2.0))),
        ]
    );
    assert_eq!(
        (view.from.to_string(), view.to.to_string()),
        ("2026-11-09".into(), "2026-11-29".into())
    );
    assert_eq!(view.total.disputes.median_hours, Some(24.0));
    assert_eq!(view.total.disputes.settled, BTreeMap::from([("dismiss".to_owned(), 3)]));
    let causes: Vec<_> = view
        .causes
        .iter()
        .map(|cause| (cause.figures.cause, cause.figures.opened, cause.waiting))
        .collect();
    let most = (DisputeCause::MissingPunch, 3, 1);
    assert_eq!(causes, [most, (DisputeCause::WrongTime, 1, 1)]);
    let all = shown(&world, None, "2026-11-15", "2026-11-23").await;
    assert_eq!((&all.weeks, &all.total, &all.causes), (&view.weeks, &view.total, &view.causes));
    assert_eq!((all.sites.len(), all.sites[0].site), (1, world.site));
    assert_eq!((all.sites[0].disputes_opened, all.sites[0].disputes_resolved), (4, 3));
    let elsewhere = shown(&world, Some(SiteId::NIL), "2026-11-15", "2026-11-23").await;
    assert_eq!((elsewhere.total.disputes.opened, elsewhere.causes.len()), (0, 0));
    world.close().await;
}

async fn judge(world: &World) {
    let mut adjudicator = Adjudicator::new(world.ledger.clone());
    while adjudicator.step().await.unwrap().is_some() {}
}

/// Punches that came late by some, referred, ruled, checked.
#[tokio::test(flavor = "multi_thread")]
async fn referred_punches_count_with_their_rulings_and_checks_by_what_they_came_to() {
    let world = World::new().await;
    let mut kiosk = world.device().await;
    let received_ms = kiosk.received_at.millis();
    let mut items = Vec::new();
    let mut punches = Vec::new();
    let late_ms = [500, 4_000, 2 * HOUR_MS, 90 * HOUR_MS, 20 * 24 * HOUR_MS, 1_000, 1_000];
    for late_ms in late_ms {
        let capture = kiosk.capture_with(|capture| {
            capture.kind = PunchKind::In;
            capture.captured_at = Time::from_millis(received_ms - late_ms);
            (capture.employee, capture.badge) = (None, Some("unknown".to_owned()));
            capture.photo = Some(Digest::of(&late_ms.to_be_bytes()));
        });
        punches.push(capture.punch.to_string());
        items.push(kiosk.item(&capture));
    }
    world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    judge(&world).await;
    let accept = PunchCommand::Accept { note: None, reason: None };
    let amend = PunchCommand::Amend {
        effective_at: None,
        kind: Some(PunchKind::Out),
        note: None,
        reason: None,
    };
    let reject = PunchCommand::Reject { reason: RejectionReason::Other, note: None };
    let void = PunchCommand::Void { note: None, reason: None };
    for (punch, ruling) in [
        (0, accept.clone()),
        (1, amend),
        (2, reject),
        (3, void),
        // Ruled once more: it waits no longer, so this is none of a referral.
        (2, accept),
    ] {
        execute::<Punch>(&world, &punches[punch], ruling).await;
    }
    verify(&world, &punches[4..7], &late_ms[4..7]).await;

    let running = start(&world).await;
    settle(&world, &running).await;
    running.stop().await;
    let today = figures::newest(&world.pools.reader, Some(world.site)).await.unwrap().to_string();
    let view = shown(&world, Some(world.site), &today, &today).await;
    let Some(week) = view.weeks.first().map(|week| &week.figures) else { panic!("{view:?}") };
    assert_eq!(week.captured, 7);
    let buckets: Vec<_> =
        week.sync_delay.buckets.iter().map(|b| (b.at_most_s, b.punches)).collect();
    let expected = [(Some(1), 3), (Some(5), 1), (Some(14_400), 1), (Some(604_800), 1), (None, 1)];
    assert_eq!(buckets, expected);
    assert_eq!((week.sync_delay.median_at_most_s, week.sync_delay.p90_at_most_s), (Some(5), None));
    let of = |counts: &[(&str, u64)]| -> BTreeMap<String, u64> {
        counts.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
    };
    assert_eq!(week.referrals.referred, 7);
    assert_eq!(week.referrals.reasons["unknown_badge"], 7);
    let ruled = of(&[("accepted", 1), ("amended", 1), ("rejected", 1), ("voided", 1)]);
    assert_eq!(week.referrals.ruled, ruled);
    assert_eq!(week.referrals.ruled_by_reason["unknown_badge"], ruled);
    assert_eq!(week.verification.matched, of(&[("local", 1)]));
    assert_eq!(week.verification.missed["rekognition"], of(&[("no_face", 1)]));
    assert_eq!(week.verification.unchecked, of(&[("throttled", 1)]));

    // However the events are cut into batches.
    let live = common::dump(&world.pools.reader, &(std::sync::Arc::new(SiteWeeks) as _)).await;
    assert!(live.len() > 15, "{live:?}");
    for batch_events in [1, 2, 3, 7] {
        rebuild(&world, &SiteWeeks, batch_events).await;
        let rebuilt =
            common::dump(&world.pools.reader, &(std::sync::Arc::new(SiteWeeks) as _)).await;
        assert_eq!(rebuilt, live, "{batch_events} events a batch");
    }
    world.close().await;
}

/// A match, a miss, and no verdict.
async fn verify(world: &World, punches: &[String], late_ms: &[i64]) {
    let check = |place: usize, provider| Check {
        attempt: 0,
        photo: Digest::of(&late_ms[place].to_be_bytes()),
        provider,
        model: "m/1".to_owned(),
        quality: None,
        floors: Floors { brightness_min: 1, brightness_max: 99, sharpness_min: 1, face_px_min: 1 },
    };
    let comparison = Comparison { reference: Digest::ZERO, similarity: 9_900, threshold: 9_000 };
    let failing = Failing { miss: Miss::NoFace, guidance: Vec::new() };
    let matched = Verdict::Match { check: check(0, Provider::Local), comparison };
    let missed =
        Verdict::Miss { check: check(1, Provider::Rekognition), failing, comparison: None };
    let commands = [
        PunchCommand::Verify { verdict: matched },
        PunchCommand::Verify { verdict: missed },
        PunchCommand::GiveUp { missing: Missing::Throttled },
    ];
    for (punch, command) in punches.iter().zip(commands) {
        let request = PunchEvent::VerificationRequested { due_at: Time::from_millis(0) };
        let payload = serde_json::to_string(&request).unwrap();
        let kind = AggregateType::Punch;
        requested(world, kind, punch, &payload).await;
        let done = world.ledger.execute::<Punch>(punch, command, &Metadata::default()).await;
        assert!(done.is_ok(), "{:?}", done.err());
    }
}

/// A verdict was asked for, as a policy that checks faces would have it.
async fn requested(world: &World, kind: AggregateType, punch: &str, payload: &str) {
    let mut owner = world.pools.owner.acquire().await.unwrap();
    sqlx::query(
        "with head as (update ledger_head set position = position + 1 returning position) \
         insert into events select $1, $2, (select max(sequence) + 1 from events \
             where aggregate_type = $1 and aggregate_id = $2), 'VerificationRequested', '1', \
             $3::json, '{\"actor\":\"policy\"}'::json, position, clock_timestamp(), sha256('') \
         from head",
    )
    .bind(kind.as_str())
    .bind(punch)
    .bind(payload)
    .execute(&mut *owner)
    .await
    .unwrap();
}
