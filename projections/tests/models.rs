//! What each read model answers, on a real ledger.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;

use common::{Kiosk, NOON_MS, World, execute, judge, settle, start};
use jiff::civil::Date;
use punchtrail_domain::{
    device::{Device, DeviceCommand, Gap},
    dispute::{Dispute, DisputeCommand, Subject},
    employee::{DirectoryField, Employee, EmployeeCommand},
    policy::Policy,
    punch::{Anomaly, Clock, Punch, PunchCommand, RejectionReason, RulingReason},
    quarantine::{Quarantine, QuarantineCommand, item_digest},
    site::{Site, SiteCommand},
};
use punchtrail_projections::{
    devices,
    engine::Order,
    people::{employees, roster},
    punches::{
        site_feed, timecards,
        timeline::{self, Filter, Key},
    },
    rulings::{disputes, quarantine},
    sites,
};
use punchtrail_protocol::{
    Digest, DisputeId, EmployeeId, Position, PunchId, SiteId, Time,
    capture::{Capture, PunchKind},
    dispute::{About, DisputeCause, DisputeState, Settlement},
    vocabulary::Standing,
};
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;

async fn deliver(world: &World, kiosk: &Kiosk, captures: &[&Capture]) {
    let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
    world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    judge(world).await;
}

async fn rule(world: &World, punch: PunchId, command: PunchCommand) {
    execute::<Punch>(world, &punch.to_string(), command).await;
}

async fn name(world: &World, employee: EmployeeId, name: &str, badge: &str) {
    sqlx::query("insert into employee_directory (employee, name) values ($1, $2)")
        .bind(employee.uuid())
        .bind(name)
        .execute(&world.pools.writer)
        .await
        .unwrap();
    // As one that was held before holdings were dated.
    sqlx::query(
        "insert into badge_holdings (holding, employee, number, salt, held_from) \
         values (sha256(convert_to($2, 'UTF8')), $1, $2, '', '-infinity')",
    )
    .bind(employee.uuid())
    .bind(badge)
    .execute(&world.pools.writer)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeline_shows_where_each_punch_stands_and_why() {
    let world = World::new().await;
    let running = start(&world).await;
    let mut kiosk = world.device().await;
    let made: Vec<Capture> =
        (0..5).map(|n| kiosk.capture(PunchKind::In, NOON_MS - (5 - n) * HOUR_MS)).collect();
    deliver(&world, &kiosk, &made.iter().collect::<Vec<_>>()).await;
    let unknown = kiosk.capture_with(|capture| {
        capture.captured_at = Time::from_millis(NOON_MS);
        capture.employee = None;
        capture.badge = Some("B-9".to_owned());
    });
    deliver(&world, &kiosk, &[&unknown]).await;
    rule(
        &world,
        made[1].punch,
        PunchCommand::Reject { reason: RejectionReason::NotPresent, note: None },
    )
    .await;
    let later = Time::from_millis(NOON_MS + HOUR_MS);
    let amend = PunchCommand::Amend {
        effective_at: Some(later),
        kind: Some(PunchKind::Out),
        note: None,
        reason: None,
    };
    rule(&world, made[2].punch, amend).await;
    settle(&world, &running).await;

    let pool = &world.pools.reader;
    let one = |punch| async move { timeline::one(pool, punch).await.unwrap().unwrap() };
    assert_eq!(one(made[0].punch).await.standing, Standing::Accepted);
    let rejected = one(made[1].punch).await;
    assert_eq!(
        (rejected.standing, rejected.reasons),
        (Standing::Rejected, vec!["not_present".into()])
    );
    let amended = one(made[2].punch).await;
    assert_eq!((amended.kind, amended.effective_at), (PunchKind::Out, later));
    assert_eq!(amended.captured_at, made[2].captured_at, "the capture stands");
    let referred = one(unknown.punch).await;
    assert_eq!((referred.standing, referred.employee), (Standing::Referred, None));
    assert_eq!(referred.reasons, ["unknown_badge"]);
    assert!(timeline::one(pool, PunchId::NIL).await.unwrap().is_none());

    let all = walk(&world, Filter::default(), Order::NewestFirst).await;
    let expected =
        [made[2].punch, unknown.punch, made[4].punch, made[3].punch, made[1].punch, made[0].punch];
    assert_eq!(all, expected);
    let mut backwards = walk(&world, Filter::default(), Order::OldestFirst).await;
    backwards.reverse();
    assert_eq!(backwards, all);
    let asked = [
        (Filter { employee: Some(world.employee), ..Filter::default() }, 5),
        (Filter { employee: Some(EmployeeId::NIL), ..Filter::default() }, 0),
        (Filter { site: Some(world.site), ..Filter::default() }, 6),
        (Filter { device: Some(kiosk.id), ..Filter::default() }, 6),
        (Filter { standing: Some(Standing::Referred), ..Filter::default() }, 1),
        (Filter { standing: Some(Standing::Accepted), ..Filter::default() }, 4),
        (
            Filter {
                from: Some(made[3].captured_at),
                to: Some(unknown.captured_at),
                ..Filter::default()
            },
            2,
        ),
    ];
    for (filter, count) in asked {
        assert_eq!(walk(&world, filter, Order::NewestFirst).await.len(), count, "{filter:?}");
    }
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doubts_add_up_until_a_person_rules_whatever_the_batches() {
    let world = World::new().await;
    let running = start(&world).await;
    let mut kiosk = world.device().await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS - HOUR_MS);
    deliver(&world, &kiosk, &[&capture]).await;
    let doubt = |anomaly| PunchCommand::Judge { anomalies: vec![anomaly], verify_by: None };
    let fork = Anomaly::Fork { seq: 1, other: None };
    let story = [
        (doubt(Anomaly::RevokedDevice), vec!["revoked_device"]),
        (doubt(fork), vec!["fork", "revoked_device"]),
        (PunchCommand::Accept { note: None, reason: None }, vec![]),
        (doubt(Anomaly::UnknownEmployee), vec!["unknown_employee"]),
    ];
    for (command, expected) in story {
        rule(&world, capture.punch, command).await;
        settle(&world, &running).await;
        let row = timeline::one(&world.pools.reader, capture.punch).await.unwrap().unwrap();
        assert_eq!(row.reasons, expected);
    }
    running.stop().await;
    common::rebuild_all(&world).await;
    let row = timeline::one(&world.pools.reader, capture.punch).await.unwrap().unwrap();
    assert_eq!(row.reasons, ["unknown_employee"], "all in one batch");
    world.close().await;
}

/// The whole list, two rows a page.
async fn walk(world: &World, filter: Filter<'_>, order: Order) -> Vec<PunchId> {
    let (mut punches, mut after) = (Vec::new(), None);
    loop {
        let page = timeline::list(&world.pools.reader, &filter, order, after, 2).await.unwrap();
        punches.extend(page.rows.iter().map(|row| row.punch));
        after = page.rows.last().map(Key::from);
        if !page.more {
            return punches;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sites_feed_gives_each_punch_at_its_latest_change() {
    let world = World::new().await;
    let running = start(&world).await;
    let mut kiosk = world.device().await;
    let before = world.ledger.head().await.unwrap();
    let a = kiosk.capture(PunchKind::In, NOON_MS - 9 * HOUR_MS);
    let b = kiosk.capture(PunchKind::Out, NOON_MS - HOUR_MS);
    deliver(&world, &kiosk, &[&a, &b]).await;
    settle(&world, &running).await;
    let pool = &world.pools.reader;
    let first = site_feed::after(pool, world.site, Position::START, 1).await.unwrap();
    assert!(first.more);
    let seen = first.rows[0].position;
    let next = site_feed::after(pool, world.site, seen, 10).await.unwrap();
    assert_eq!((next.rows.len(), next.more), (1, false));
    let punches = BTreeSet::from([first.rows[0].punch, next.rows[0].punch]);
    assert_eq!(punches, BTreeSet::from([a.punch, b.punch]));

    // What changes comes again, behind everything.
    rule(&world, first.rows[0].punch, PunchCommand::Void { note: None, reason: None }).await;
    settle(&world, &running).await;
    let news = site_feed::after(pool, world.site, next.rows[0].position, 10).await.unwrap();
    assert_eq!(news.rows.len(), 1);
    assert_eq!(news.rows[0].punch, first.rows[0].punch);
    assert_eq!(news.rows[0].standing, Standing::Voided);
    assert_eq!(news.rows[0].position, world.ledger.head().await.unwrap());
    assert_eq!(site_feed::after(pool, SiteId::NIL, Position::START, 10).await.unwrap().rows, []);

    // A look-back begins before the first event of its time.
    let times: Vec<i64> = sqlx::query_scalar(
        "select (extract(epoch from recorded_at) * 1000000)::bigint from events order by position",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for (place, at_us) in times.iter().enumerate() {
        let since = Time::from(jiff::Timestamp::from_microsecond(*at_us).unwrap());
        let expected = times.iter().filter(|us| **us < since.millis() * 1_000).count() as u64;
        assert_eq!(site_feed::look_back(pool, since).await.unwrap(), Position(expected), "{place}");
    }
    let never = Time::from_millis(0);
    assert_eq!(site_feed::look_back(pool, never).await.unwrap(), Position::START);
    let future = Time::from_millis(i64::MAX / 4_000_000);
    assert_eq!(
        site_feed::look_back(pool, future).await.unwrap(),
        world.ledger.head().await.unwrap()
    );
    assert!(before < seen);
    running.stop().await;
    world.close().await;
}

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn timecards_pair_over_midnight_and_follow_rulings() {
    let world = World::new().await;
    let running = start(&world).await;
    let mut kiosk = world.device().await;
    let at = |text: &str| text.parse::<Time>().unwrap().millis();
    let evening = kiosk.capture(PunchKind::In, at("2026-09-10T20:00:00.000Z"));
    let morning = kiosk.capture(PunchKind::Out, at("2026-09-11T04:00:00.000Z"));
    let next = kiosk.capture(PunchKind::In, at("2026-09-11T20:00:00.000Z"));
    deliver(&world, &kiosk, &[&evening, &morning, &next]).await;
    settle(&world, &running).await;
    let pool = &world.pools.reader;
    let (tenth, eleventh) = (day("2026-09-10"), day("2026-09-11"));
    let cards = timecards::of_employee(pool, world.employee, tenth, tenth).await.unwrap();
    assert_eq!(cards.len(), 1);
    assert_eq!(cards[0].totals.worked_accepted_s, 8 * 3_600);
    assert_eq!(cards[0].segments[0].from.tz, "Europe/Berlin");
    let cards = timecards::of_employee(pool, world.employee, eleventh, eleventh).await.unwrap();
    assert_eq!((cards.len(), cards[0].unmatched.len()), (1, 1), "only the shift that began then");

    // A rejected punch no longer counts.
    let reject = PunchCommand::Reject { reason: RejectionReason::Other, note: None };
    rule(&world, morning.punch, reject).await;
    settle(&world, &running).await;
    let cards = timecards::of_employee(pool, world.employee, tenth, eleventh).await.unwrap();
    assert!(cards.iter().all(|card| card.segments.is_empty()), "{cards:?}");

    // For payroll: everybody who punched at the site, a page at a time.
    let colleague = world.hire().await;
    let mut more = Vec::new();
    for (kind, time) in
        [(PunchKind::In, "2026-09-10T06:00:00.000Z"), (PunchKind::Out, "2026-09-10T14:00:00.000Z")]
    {
        more.push(kiosk.capture_with(|capture| {
            capture.employee = Some(colleague);
            capture.kind = kind;
            capture.captured_at = time.parse().unwrap();
        }));
    }
    deliver(&world, &kiosk, &more.iter().collect::<Vec<_>>()).await;
    settle(&world, &running).await;
    let mut people = BTreeSet::new();
    let mut after = None;
    loop {
        let page = timecards::of_site(pool, world.site, tenth, tenth, after, 1).await.unwrap();
        people.extend(page.rows.iter().map(|person| (person.employee, person.cards.len())));
        after = page.rows.last().map(|person| person.employee);
        if !page.more {
            break;
        }
    }
    assert_eq!(people, BTreeSet::from([(world.employee, 1), (colleague, 1)]));
    let nobody = timecards::of_site(pool, SiteId::NIL, tenth, tenth, None, 10).await.unwrap();
    assert_eq!(nobody.rows, []);

    // Days start at five since ever: half past four is still the day before.
    let late = kiosk.capture_with(|capture| {
        capture.employee = Some(colleague);
        capture.captured_at = "2026-09-12T02:30:00.000Z".parse().unwrap();
    });
    deliver(&world, &kiosk, &[&late]).await;
    settle(&world, &running).await;
    let cards = timecards::of_employee(pool, colleague, eleventh, eleventh).await.unwrap();
    assert_eq!(cards, []);
    let policy = Policy { day_starts_min: 300, ..Policy::default() };
    execute::<Site>(
        &world,
        &world.site.to_string(),
        SiteCommand::ChangePolicy { policy, from: None },
    )
    .await;
    settle(&world, &running).await;
    let cards = timecards::of_employee(pool, colleague, eleventh, eleventh).await.unwrap();
    assert_eq!(cards.len(), 1);
    let backwards = timecards::of_employee(pool, colleague, eleventh, tenth).await;
    assert!(matches!(backwards, Err(timecards::TimecardsError::Range)));
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_somebody_elses_is_on_nobodys_card_until_that_is_ruled_on() {
    let world = World::new().await;
    let running = start(&world).await;
    let mut kiosk = world.device().await;
    let colleague = world.hire().await;
    let at = |text: &str| text.parse::<Time>().unwrap().millis();
    let shift = [
        kiosk.capture(PunchKind::In, at("2026-09-10T06:00:00.000Z")),
        kiosk.capture(PunchKind::Out, at("2026-09-10T14:00:00.000Z")),
    ];
    deliver(&world, &kiosk, &shift.iter().collect::<Vec<_>>()).await;
    judge(&world).await;
    let pool = &world.pools.reader;
    let tenth = day("2026-09-10");
    let hours = async |employee| {
        settle(&world, &running).await;
        let cards = timecards::of_employee(pool, employee, tenth, tenth).await.unwrap();
        cards.first().map(|card| card.totals.worked_accepted_s / 3_600)
    };
    assert_eq!(hours(world.employee).await, Some(8));
    let doubt = Anomaly::OtherHolder { holder: Some(colleague) };
    for capture in &shift {
        let judged = PunchCommand::Judge { anomalies: vec![doubt.clone()], verify_by: None };
        rule(&world, capture.punch, judged).await;
    }
    assert_eq!([hours(world.employee).await, hours(colleague).await], [None, None]);
    // Who it turns out to have been.
    for capture in &shift {
        let assign = PunchCommand::Assign { employee: colleague, reason: None, note: None };
        rule(&world, capture.punch, assign).await;
    }
    assert_eq!([hours(world.employee).await, hours(colleague).await], [None, Some(8)]);
    let of_site = timecards::of_site(pool, world.site, tenth, tenth, None, 10).await.unwrap();
    let found: Vec<_> = of_site.rows.iter().filter(|person| !person.cards.is_empty()).collect();
    assert_eq!((found.len(), found[0].employee), (1, colleague));
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_led_by_any_time_stops_no_model() {
    let world = World::new().await;
    let running = start(&world).await;
    let mut kiosk = world.device().await;
    for offset_ms in [i64::MAX, i64::MIN, 300_000_000_000_000, -300_000_000_000_000, 2_001] {
        kiosk.clock = Clock::Known { offset_ms };
        let captures =
            [0, 1].map(|days| kiosk.capture(PunchKind::In, NOON_MS + days * 24 * HOUR_MS));
        let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
        world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    }
    settle(&world, &running).await;
    let models = punchtrail_projections::all();
    let model = models.iter().find(|model| model.name() == timecards::NAME).unwrap();
    let live = common::dump(&world.pools.reader, model).await;
    // The clock is known only after the capture: one event at a time, and two.
    for batch_events in [1, 2] {
        common::rebuild(&world, model.as_ref(), batch_events).await;
        assert_eq!(common::dump(&world.pools.reader, model).await, live);
    }
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_punch_has_no_device_and_a_joined_shift_reaches_over_days() {
    let world = World::new().await;
    let running = start(&world).await;
    let mut kiosk = world.device().await;
    let at = |text: &str| text.parse::<Time>().unwrap();
    let start_ms = at("2026-09-10T06:00:00.000Z").millis();
    let first = kiosk.capture(PunchKind::In, start_ms);
    deliver(&world, &kiosk, &[&first]).await;
    judge(&world).await;
    let out = PunchId(Uuid::now_v7());
    let enter = PunchCommand::Enter {
        employee: world.employee,
        site: world.site,
        kind: PunchKind::Out,
        at: at("2026-09-12T12:00:00.000Z"),
        reason: RulingReason::Forgotten,
        note: None,
    };
    rule(&world, out, enter).await;
    settle(&world, &running).await;
    let pool = &world.pools.reader;
    let shown = timeline::one(pool, out).await.unwrap().unwrap();
    assert_eq!((shown.device, shown.entered), (None, true));
    let captured = timeline::one(pool, first.punch).await.unwrap().unwrap();
    assert_eq!((captured.device, captured.entered), (Some(kiosk.id), false));
    let cards = async |from: &str, to: &str| {
        settle(&world, &running).await;
        timecards::of_employee(pool, world.employee, day(from), day(to)).await.unwrap()
    };
    assert_eq!(cards("2026-09-12", "2026-09-12").await[0].unmatched.len(), 1);
    rule(&world, first.punch, PunchCommand::JoinShift { out, note: None }).await;
    // Each from its own end, however short a stretch is read.
    let joined = cards("2026-09-10", "2026-09-10").await;
    assert_eq!(joined[0].totals.worked_accepted_s, 54 * 3_600);
    assert!(joined[0].segments[0].to.entered && !joined[0].segments[0].from.entered);
    assert_eq!(cards("2026-09-12", "2026-09-12").await, []);
    rule(&world, first.punch, PunchCommand::PartShift { note: None }).await;
    assert_eq!(cards("2026-09-10", "2026-09-12").await.len(), 2);
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roster_says_who_works_where_and_when_it_changed() {
    let world = World::new().await;
    let running = start(&world).await;
    let pool = &world.pools.reader;
    let colleague = world.hire().await;
    name(&world, world.employee, "José García", "B-1").await;
    name(&world, colleague, "Anna Müller", "B-2").await;
    let mut kiosk = world.device().await;
    settle(&world, &running).await;
    let version = || async { roster::version(pool, world.site).await.unwrap() };
    let last_kind = || async {
        let page = roster::manifest(pool, world.site, None, 10).await.unwrap().people;
        page.rows.iter().find(|row| row.employee == world.employee).unwrap().last_kind
    };
    let before = version().await;
    assert_eq!(last_kind().await, None);

    // Punches change the last kind, as it counts, and not the version.
    let a = kiosk.capture(PunchKind::In, NOON_MS - 9 * HOUR_MS);
    let b = kiosk.capture(PunchKind::Out, NOON_MS - HOUR_MS);
    deliver(&world, &kiosk, &[&b, &a]).await;
    settle(&world, &running).await;
    assert_eq!(last_kind().await, Some(PunchKind::Out));
    rule(&world, b.punch, PunchCommand::Void { note: None, reason: None }).await;
    settle(&world, &running).await;
    assert_eq!(last_kind().await, Some(PunchKind::In));
    let amend = PunchCommand::Amend {
        effective_at: None,
        kind: Some(PunchKind::BreakEnd),
        note: None,
        reason: None,
    };
    rule(&world, a.punch, amend).await;
    settle(&world, &running).await;
    assert_eq!(last_kind().await, Some(PunchKind::BreakEnd));
    assert_eq!(version().await, before);

    // People, their entries and the policy change the version; ids of other systems don't.
    let id = colleague.to_string();
    let mut seen = before;
    let changes = [
        (EmployeeCommand::ChangeDirectory { fields: vec![DirectoryField::ExternalId] }, false),
        (EmployeeCommand::ChangeDirectory { fields: vec![DirectoryField::Pin] }, true),
        (EmployeeCommand::UnassignFromSite { site: world.site, until: Time::default() }, true),
        (EmployeeCommand::AssignToSite { site: world.site, from: None }, true),
        (EmployeeCommand::Depart { at: Time::from_millis(NOON_MS - HOUR_MS) }, true),
    ];
    for (command, moves) in changes {
        execute::<Employee>(&world, &id, command.clone()).await;
        settle(&world, &running).await;
        let now = version().await;
        assert_eq!(now != seen, moves, "{command:?}");
        seen = now;
    }
    let policy = Policy { photos: true, ..Policy::default() };
    execute::<Site>(
        &world,
        &world.site.to_string(),
        SiteCommand::ChangePolicy { policy, from: None },
    )
    .await;
    settle(&world, &running).await;
    assert_ne!(version().await, seen);
    let now = world.ledger.now();
    let row = sites::one(pool, world.site, now).await.unwrap().unwrap();
    assert!(row.policy.photos);
    assert_eq!(sites::list(pool, None, None, 10, now).await.unwrap().rows, [row]);

    let shown = employees::one(pool, colleague).await.unwrap().unwrap();
    assert_eq!(shown.name.as_deref(), Some("Anna Müller"));
    assert_eq!(shown.departed_at, Some(Time::from_millis(NOON_MS - HOUR_MS)));
    let page = employees::list(pool, (Some(world.site), None), None, 1).await.unwrap();
    assert!(page.more, "who left is still listed, with that time");
    let rest = employees::list(pool, (Some(world.site), None), Some(page.rows[0].employee), 1)
        .await
        .unwrap();
    assert_eq!((rest.rows.len(), rest.more), (1, false));
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_stays_on_the_manifest_until_then() {
    let world = World::new().await;
    let running = start(&world).await;
    let pool = &world.pools.reader;
    name(&world, world.employee, "José García", "B-1").await;
    let next_year = Time::from(jiff::Timestamp::now()).plus_millis(365 * 24 * HOUR_MS);
    let depart = EmployeeCommand::Depart { at: next_year };
    execute::<Employee>(&world, &world.employee.to_string(), depart).await;
    settle(&world, &running).await;
    assert_eq!(roster::manifest(pool, world.site, None, 10).await.unwrap().people.rows.len(), 1);
    let gone = world.hire().await;
    name(&world, gone, "Anna Müller", "B-2").await;
    let depart = EmployeeCommand::Depart { at: Time::from_millis(0) };
    execute::<Employee>(&world, &gone.to_string(), depart).await;
    settle(&world, &running).await;
    let page = roster::manifest(pool, world.site, None, 10).await.unwrap().people;
    assert_eq!(page.rows.len(), 1);
    assert_eq!(page.rows[0].employee, world.employee);
    assert_eq!(roster::search(pool, world.site, "anna").await.unwrap().len(), 0);
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_found_despite_accents_and_a_typo_best_first() {
    let world = World::new().await;
    let running = start(&world).await;
    let pool = &world.pools.reader;
    let people = ["Anna Müller", "Hanna Mueller", "Ana Mulder", "José García"];
    let mut ids = Vec::new();
    for (place, person) in people.iter().enumerate() {
        let hired = world.hire().await;
        name(&world, hired, person, &format!("B-{place}")).await;
        ids.push(hired);
    }
    settle(&world, &running).await;
    let found = async |typed: &str| -> Vec<EmployeeId> {
        let rows = roster::search(pool, world.site, typed).await.unwrap();
        rows.iter().map(|row| row.employee).collect()
    };
    assert_eq!(found("anna").await, [ids[0], ids[1], ids[2]], "exact, then inside, then a typo");
    assert_eq!(found("jose garica").await, [ids[3]]);
    assert_eq!(found("b-2").await[0], ids[2]);
    assert_eq!(found("zzz").await, []);
    // Most names fit this, and 20 are given.
    for n in 0..30 {
        let hired = world.hire().await;
        name(&world, hired, &format!("Anton {n}"), &format!("C-{n}")).await;
    }
    settle(&world, &running).await;
    assert_eq!(found("an").await.len(), employees::FOUND_MAX);
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_show_what_came_and_what_is_missing() {
    let world = World::new().await;
    let running = start(&world).await;
    let pool = &world.pools.reader;
    let mut kiosk = world.device().await;
    let made: Vec<Capture> =
        (0..6).map(|n| kiosk.capture(PunchKind::In, NOON_MS - (9 - n) * HOUR_MS)).collect();
    deliver(&world, &kiosk, &[&made[0], &made[5]]).await;
    settle(&world, &running).await;
    let shown = || async { devices::one(pool, kiosk.id).await.unwrap().unwrap() };
    let row = shown().await;
    assert_eq!((row.punches, row.last_seq, row.acked_through, row.missing), (2, 6, 1, 4));
    assert_eq!(row.gaps, [Gap { from: 2, to: 5 }]);
    assert_eq!(row.report, None, "it has said nothing of itself");
    assert!(row.enrolled_at.is_some() && row.last_synced_at.is_some());

    deliver(&world, &kiosk, &[&made[2]]).await;
    settle(&world, &running).await;
    assert_eq!(shown().await.gaps, [Gap { from: 2, to: 2 }, Gap { from: 4, to: 5 }]);
    deliver(&world, &kiosk, &[&made[1], &made[3], &made[4]]).await;
    let id = kiosk.id.to_string();
    let elsewhere = SiteId(Uuid::new_v4());
    execute::<Device>(&world, &id, DeviceCommand::AssignSite { site: elsewhere }).await;
    execute::<Device>(&world, &id, DeviceCommand::Revoke { at: Time::from_millis(NOON_MS) }).await;
    settle(&world, &running).await;
    let row = shown().await;
    assert_eq!((row.gaps.len(), row.missing, row.acked_through), (0, 0, 6));
    assert_eq!(row.site, Some(elsewhere));
    assert_eq!(row.sites.len(), 2);
    assert_eq!(row.revoked_at, Some(Time::from_millis(NOON_MS)));
    for site in [None, Some(world.site), Some(elsewhere)] {
        assert_eq!(
            devices::list(pool, (site, None), None, 5).await.unwrap().rows.len(),
            1,
            "{site:?}"
        );
    }
    assert_eq!(devices::list(pool, (Some(SiteId::NIL), None), None, 5).await.unwrap().rows, []);
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_items_wait_until_a_person_settles_them() {
    let world = World::new().await;
    let running = start(&world).await;
    let pool = &world.pools.reader;
    let kiosk = world.device().await;
    let items = vec![kiosk.garbage("!1"), kiosk.garbage("!2"), kiosk.garbage("!3")];
    world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    let ids: Vec<_> = ["!1", "!2", "!3"]
        .iter()
        .map(|text| item_digest(kiosk.id, text.as_bytes(), b"x"))
        .collect();
    execute::<Quarantine>(&world, &ids[0].to_string(), QuarantineCommand::Dismiss { note: None })
        .await;
    let punch = PunchId(Uuid::now_v7());
    let admit = QuarantineCommand::AdmitAsPunch { punch, stands: None };
    execute::<Quarantine>(&world, &ids[1].to_string(), admit).await;
    settle(&world, &running).await;
    use quarantine::ItemState::{Admitted, Dismissed, Waiting};
    let states = async |state| -> Vec<_> {
        let filter = quarantine::Filter { state, ..quarantine::Filter::default() };
        let page = quarantine::list(pool, &filter, Order::OldestFirst, None, 10).await.unwrap();
        page.rows.iter().map(|row| (row.item, row.state, row.admitted_as)).collect()
    };
    assert_eq!(states(Some(Waiting)).await, [(ids[2], Waiting, None)]);
    let all = [(ids[0], Dismissed, None), (ids[1], Admitted, Some(punch)), (ids[2], Waiting, None)];
    assert_eq!(states(None).await, all);
    let all = quarantine::Filter::default();
    let first = quarantine::list(pool, &all, Order::NewestFirst, None, 2).await.unwrap();
    assert!(first.more);
    let after = Some(first.rows[1].position);
    let rest = quarantine::list(pool, &all, Order::NewestFirst, after, 2).await.unwrap();
    assert_eq!(rest.rows[0].item, ids[0]);
    let one = quarantine::one(pool, ids[1]).await.unwrap().unwrap();
    assert_eq!((one.code.as_str(), one.device), ("bad_encoding", kiosk.id));
    running.stop().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_waits_until_it_is_settled_and_waits_again_when_it_is_taken_up() {
    let world = World::new().await;
    let running = start(&world).await;
    let pool = &world.pools.reader;
    let (site, employee, note) = (world.site, world.employee, Digest::ZERO);
    let punch = PunchId(Uuid::now_v7());
    let day = "2026-09-21".parse().unwrap();
    let ids = [DisputeId(Uuid::now_v7()), DisputeId(Uuid::now_v7())];
    for (id, about, cause) in [
        (ids[0], About::Punch(punch), DisputeCause::NotMine),
        (ids[1], About::Day(day), DisputeCause::MissingPunch),
    ] {
        let subject = Subject { site, employee, about, cause };
        let open = DisputeCommand::Open { subject, note: None };
        execute::<Dispute>(&world, &id.to_string(), open).await;
    }
    let change = async |id: DisputeId, command| {
        execute::<Dispute>(&world, &id.to_string(), command).await;
        settle(&world, &running).await;
        disputes::one(pool, id).await.unwrap().unwrap()
    };
    let answered = change(ids[0], DisputeCommand::Answer { note }).await;
    assert_eq!((answered.state, answered.answers), (DisputeState::Answered, 1));
    let (how, by_punch) = (Settlement::Reassign, Some(punch));
    let resolved = change(ids[0], DisputeCommand::Resolve { how, by_punch, note }).await;
    assert_eq!((resolved.state, resolved.how), (DisputeState::Resolved, Some(how)));
    assert_eq!((resolved.by_punch, resolved.sequence), (by_punch, 3));
    assert_eq!(resolved.resolved_by.as_deref(), Some("command_line"));
    let reopened = change(ids[0], DisputeCommand::Reopen { note }).await;
    assert_eq!(
        (reopened.state, reopened.how, reopened.resolved_at),
        (DisputeState::Reopened, None, None)
    );

    let list = async |filter: disputes::Filter<'_>, after| -> Vec<DisputeId> {
        let page = disputes::list(pool, &filter, after, 10).await.unwrap();
        page.rows.iter().map(|row| row.dispute).collect()
    };
    let all = disputes::Filter::default();
    assert_eq!(list(all, None).await, ids);
    assert_eq!(list(all, Some(reopened.position)).await, [ids[1]]);
    for (filter, found) in [
        (disputes::Filter { state: Some(DisputeState::Open), ..all }, &ids[1..]),
        (disputes::Filter { cause: Some(DisputeCause::NotMine), ..all }, &ids[..1]),
        (disputes::Filter { site: Some(SiteId::NIL), ..all }, &[]),
        (disputes::Filter { employee: Some(employee), ..all }, &ids[..]),
    ] {
        assert_eq!(list(filter, None).await, found, "{filter:?}");
    }
    assert_eq!(disputes::about_punches(pool, &[punch], 5).await.unwrap(), ids[..1]);
    let of_day = disputes::of_day(pool, employee, day, &[], 5).await.unwrap();
    assert_eq!(of_day[0].dispute, ids[1]);
    let device = punchtrail_protocol::DeviceId::NIL;
    assert_eq!(disputes::waiting(pool, employee, device).await.unwrap(), (2, 0));
    running.stop().await;
    world.close().await;
}
