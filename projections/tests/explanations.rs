//! Explanations on a real ledger: what the events, the devices' numbers and their last reports say,
//! and that it can be asked for one at a time or many at once.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use punchtrail_domain::{
    device::Gap,
    explanation::{
        ChainFact, Decision, Explanation, Step, What,
        absence::{Absence, BadgeTie, ConclusionCode, Holds},
    },
    log::recorded::Actor,
    punch::{Anomaly, Punch, PunchCommand, RejectionReason},
    quarantine::item_digest,
    site::{Site, SiteCommand},
    timecard::UnmatchedCode,
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    devices::reports,
    follower::{Followers, Node},
    ledger::{DeliveryItem, Metadata},
    people::directory::{self, EmployeeEntry},
    rulings::{self, Admission, Author},
    testing::world::{Kiosk, NOON_MS, World},
};
use punchtrail_projections::{
    engine::{Generation, Projection, Projections},
    explanations::{self, ChainFacts, Explanations},
    punches::{timecards::Timecards, timeline::Timeline},
    rulings::{disputes::Disputes, quarantine::QuarantinedItems},
    sites::Sites,
};
use punchtrail_protocol::{
    BootId, DeviceId, Digest, EmployeeId, Position, PunchId, Time,
    capture::PunchKind,
    vocabulary::{Reason, Standing},
    wire::Heartbeat,
};
use punchtrail_testkit::PATIENCE;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A world whose read models follow.
struct Told {
    world: World,
    models: Projections,
    followers: Followers,
    adjudicator: Adjudicator,
}

impl Told {
    async fn new() -> Self {
        let world = World::new().await;
        let models: Vec<std::sync::Arc<dyn Projection>> = vec![
            Arc::new(ChainFacts),
            Arc::new(Timeline),
            Arc::new(Timecards),
            Arc::new(Sites),
            Arc::new(QuarantinedItems),
            Arc::new(Disputes),
        ];
        let followers = Followers::new(&world.ledger, Node::anywhere(), &CancellationToken::new());
        let (pool, feed) = (world.pools.reader.clone(), world.ledger.feed());
        let models = Projections::start(models, pool, feed, &followers).await.unwrap();
        let adjudicator = Adjudicator::new(world.ledger.clone());
        let told = Self { world, models, followers, adjudicator };
        told.name_everything().await;
        told
    }

    async fn name_everything(&self) {
        let mut connection = self.world.pools.writer.acquire().await.unwrap();
        let entry = EmployeeEntry {
            employee: self.world.employee,
            name: "Maria Ortiz".to_owned(),
            pin_phc: None,
            external_id: None,
        };
        directory::put_employee(&mut connection, &entry).await.unwrap();
        directory::put_site(&mut connection, self.world.site, "Harbour Café").await.unwrap();
    }

    async fn kiosk(&self, name: &str) -> Kiosk {
        let kiosk = self.world.device().await;
        let mut connection = self.world.pools.writer.acquire().await.unwrap();
        directory::put_device(&mut connection, kiosk.id, name).await.unwrap();
        sqlx::query("insert into device_sites (device, site) values ($1, $2)")
            .bind(kiosk.id.uuid())
            .bind(self.world.site.uuid())
            .execute(&mut *connection)
            .await
            .unwrap();
        kiosk
    }

    async fn deliver(&self, kiosk: &Kiosk, items: Vec<DeliveryItem>) {
        self.world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    }

    /// Everything that is in the ledger now is judged, and in the read models.
    async fn settle(&mut self) {
        while self.adjudicator.step().await.unwrap().is_some() {}
        let head = self.world.ledger.head().await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        let models = explanations::RESTS_ON;
        let waited = self.models.wait_for(&models, head, deadline).await;
        assert_eq!(waited, Ok(()), "{:?}", self.followers.status());
    }

    /// By the read models, which say what the ledger alone would say, and what stands on the card.
    async fn explain(&self, punch: PunchId) -> Explanation {
        let explained = explanations::explain(&self.world.pools.reader, punch).await.unwrap();
        let alone = explanations::explain_from_ledger(self.world.ledger.pool(), punch).await;
        let (explained, alone) = (explained.unwrap(), alone.unwrap().unwrap());
        assert_eq!((alone.on_card, alone.doubted_after), (None, None));
        let beside = |said: &String| !alone.sentences.contains(said);
        let more = explained.sentences.iter().filter(|said| beside(said)).count();
        let beside = usize::from(explained.on_card.is_some());
        assert_eq!(more, beside + usize::from(explained.doubted_after.is_some()));
        assert_eq!(explained.steps, alone.steps);
        assert_eq!(explained.device_report, alone.device_report);
        explained
    }

    async fn command(&self, punch: PunchId, command: PunchCommand) {
        let ledger = &self.world.ledger;
        ledger.execute::<Punch>(&punch.to_string(), command, &Metadata::default()).await.unwrap();
    }

    async fn absence(&self, day: &str) -> Absence {
        let (pool, employee) = (&self.world.pools.reader, self.world.employee);
        explanations::explain_absence(pool, (employee, true), day.parse().unwrap())
            .await
            .unwrap()
            .unwrap()
    }

    async fn report(
        &self,
        device: DeviceId,
        at: Time,
        waiting: u64,
        oldest: Option<Time>,
        seq: u64,
    ) {
        let heartbeat = Heartbeat {
            outbox: waiting,
            photos: 0,
            oldest,
            seq,
            clock: at,
            boot: BootId::NIL,
            uptime_ms: 1_000,
            app: "test/1".to_owned(),
            anchor: None,
        };
        let nowhere = Position::START;
        let writer = &self.world.pools.writer;
        reports::record(writer, device, at, &heartbeat, nowhere).await.unwrap();
    }

    async fn close(self) {
        self.followers.stop().await;
        self.world.close().await;
    }
}

fn author(actor: Actor) -> Author {
    Author { actor, employee: None, request: None, note: None }
}

fn chain(explanation: &Explanation) -> Vec<&ChainFact> {
    let fact = |step: &'_ Step| matches!(step.what, What::Chain(_));
    let steps = explanation.steps.iter().filter(|step| fact(step));
    steps
        .filter_map(|step| if let What::Chain(fact) = &step.what { Some(fact) } else { None })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_punch_is_explained_with_names_for_as_long_as_they_are_known() {
    let mut told = Told::new().await;
    let mut kiosk = told.kiosk("Front door").await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    told.deliver(&kiosk, vec![kiosk.item(&capture)]).await;
    let before = told.explain(capture.punch).await;
    assert_eq!(before.standing, Standing::Recorded);
    assert!(matches!(
        before.steps.last().map(|step| &step.what),
        Some(What::Decided(Decision::Pending {}))
    ));

    told.settle().await;
    let key = Uuid::now_v7();
    sqlx::query(
        "insert into operator_keys (id, key_hash, name) values ($1, '\\x00', 'Front office')",
    )
    .bind(key)
    .execute(&told.world.pools.writer)
    .await
    .unwrap();
    rulings::rule(&told.world.ledger, capture.punch, &author(Actor::Key(key)), None, |note| {
        PunchCommand::Reject { reason: RejectionReason::NotPresent, note }
    })
    .await
    .unwrap();
    told.report(kiosk.id, Time::from_millis(NOON_MS + 60_000), 0, None, 1).await;

    let explained = told.explain(capture.punch).await;
    assert_eq!((explained.standing, explained.counts), (Standing::Rejected, false));
    assert_eq!(explained.position, told.world.ledger.head().await.unwrap());
    let sentences = explained.sentences.join("\n");
    for said in
        ["Maria Ortiz clocked in", "Harbour Café", "“Front door”", "“Front office” rejected"]
    {
        assert!(sentences.contains(said), "{said}: {sentences}");
    }
    let report = explained.device_report.clone().unwrap();
    assert!(report.sentence.starts_with("By its last report"), "{}", report.sentence);
    assert_eq!(explained, told.explain(capture.punch).await);

    sqlx::query("delete from employee_directory").execute(&told.world.pools.writer).await.unwrap();
    let erased = told.explain(capture.punch).await;
    assert!(!serde_json::to_string(&erased).unwrap().contains("Maria"));
    assert_eq!(erased.steps, explained.steps);
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_device_s_numbers_say_is_quoted_and_changes_nothing() {
    let mut told = Told::new().await;
    let mut kiosk = told.kiosk("Front door").await;
    let captures: Vec<_> = (1..7)
        .map(|n| kiosk.capture(PunchKind::In, NOON_MS - 86_400_000 + n * 3_600_000))
        .collect();
    let mut forked = kiosk.clone();
    let other = forked.capture_with(|capture| {
        capture.seq = 1;
        capture.prev = Digest::ZERO;
    });
    told.deliver(&kiosk, vec![kiosk.item(&captures[0]), kiosk.item(&captures[5])]).await;
    told.settle().await;

    let last = told.explain(captures[5].punch).await;
    let missing = |from, to, came_at| ChainFact::Missing { gap: Gap { from, to }, came_at };
    assert_eq!(chain(&last), [&missing(2, 5, None)]);
    assert_eq!(last.standing, Standing::Accepted);
    assert!(last.sentences.iter().any(|said| said.starts_with("Numbers 2 to 5 of the device")));

    told.deliver(&kiosk, vec![kiosk.item(&captures[2]), forked.item(&other)]).await;
    told.settle().await;
    let late = told.explain(captures[2].punch).await;
    assert!(
        matches!(
            chain(&late)[..],
            [
                ChainFact::Missing { gap: Gap { from: 2, to: 2 }, came_at: None },
                ChainFact::Missing { gap: Gap { from: 3, to: 3 }, came_at: Some(_) },
                ChainFact::Missing { gap: Gap { from: 4, to: 5 }, came_at: None },
            ]
        ),
        "{:?}",
        chain(&late)
    );
    let first = told.explain(captures[0].punch).await;
    let fork =
        ChainFact::Fork { seq: 1, first: Some(captures[0].punch), second: Some(other.punch) };
    assert!(chain(&first).contains(&&fork), "{:?}", chain(&first));
    assert_eq!(told.explain(other.punch).await.standing, Standing::Referred);
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_facts_don_t_depend_on_how_events_were_batched() {
    let mut told = Told::new().await;
    for _ in 0..3 {
        let mut kiosk = told.kiosk("door").await;
        let captures: Vec<_> = (0..24).map(|n| kiosk.capture(PunchKind::In, NOON_MS + n)).collect();
        for step in [7, 5, 3, 1] {
            let items = captures.iter().step_by(step).map(|capture| kiosk.item(capture)).collect();
            told.deliver(&kiosk, items).await;
            told.settle().await;
        }
    }
    let events = told.world.ledger.feed().read(Position::START, 10_000).await.unwrap();
    let mut tables = Vec::new();
    for (generation, batch) in [(101, events.len()), (102, 1), (103, 7)] {
        let generation = Generation::new(generation);
        let mut tx = told.world.pools.reader.begin().await.unwrap();
        sqlx::raw_sql(&ChainFacts.create_sql(&generation)).execute(&mut *tx).await.unwrap();
        for events in events.chunks(batch) {
            ChainFacts.apply(&mut tx, &generation, events).await.unwrap();
        }
        let gaps = generation.table("explanation_gaps");
        let rows: Vec<String> = sqlx::query_scalar(&format!(
            "select row(g.*)::text from {gaps} g order by device, from_seq"
        ))
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        drop(tx);
        tables.push(rows);
    }
    assert!(tables[0].len() > 30, "{}", tables[0].len());
    assert_eq!(tables[0], tables[1]);
    assert_eq!(tables[0], tables[2]);
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_punch_admitted_from_quarantine_says_where_it_came_from() {
    let mut told = Told::new().await;
    let kiosk = told.kiosk("Front door").await;
    told.deliver(&kiosk, vec![kiosk.garbage("not base64")]).await;
    told.settle().await;
    let item: Digest = item_digest(kiosk.id, b"not base64", b"x");
    let admission = Admission {
        employee: told.world.employee,
        site: told.world.site,
        kind: PunchKind::Out,
        captured_at: Time::from_millis(NOON_MS),
    };
    let (punch, _) =
        rulings::admit(&told.world.ledger, item, admission, &author(Actor::CommandLine))
            .await
            .unwrap();
    told.settle().await;
    let explained = told.explain(punch).await;
    assert_eq!(explained.standing, Standing::Accepted);
    let sentences = explained.sentences.join("\n");
    assert!(sentences.contains("The operator of the server entered this punch"), "{sentences}");
    assert!(sentences.contains("because it was garbled"), "{sentences}");
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_at_once_each_get_their_own_answer() {
    let mut told = Told::new().await;
    let mut kiosk = told.kiosk("Front door").await;
    let captures: Vec<_> = (0..200).map(|n| kiosk.capture(PunchKind::In, NOON_MS + n)).collect();
    told.deliver(&kiosk, captures.iter().map(|capture| kiosk.item(capture)).collect()).await;
    told.settle().await;
    let reader =
        Explanations::start(told.world.pools.reader.clone(), told.world.ledger.supervisor());
    let unknown = PunchId(Uuid::now_v7());
    let asked = captures.iter().map(|capture| capture.punch).chain([unknown]);
    let answers = futures::future::join_all(asked.map(|punch| {
        let reader = reader.clone();
        tokio::spawn(async move { (punch, reader.explain(punch, true).await.unwrap()) })
    }))
    .await;
    for answer in answers {
        let (punch, explained) = answer.unwrap();
        assert_eq!(
            explained.as_ref().map(|explained| explained.punch),
            Some(punch).filter(|p| *p != unknown)
        );
        assert_eq!(
            explained,
            explanations::explain(&told.world.pools.reader, punch).await.unwrap()
        );
    }
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_says_which_devices_still_hold_punches_and_which_numbers_are_missing() {
    let mut told = Told::new().await;
    let mut front = told.kiosk("Front door").await;
    let back = told.kiosk("Back door").await;
    let captures: Vec<_> =
        (0..4).map(|n| front.capture(PunchKind::In, NOON_MS + n * 3_600_000)).collect();
    told.deliver(&front, vec![front.item(&captures[0]), front.item(&captures[3])]).await;
    told.settle().await;
    let day = captures[0].captured_at.timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = day.to_string();

    let silent = told.absence(&day).await;
    assert_eq!(silent.punches.len(), 2);
    assert_eq!(silent.devices.len(), 2);
    assert_eq!(silent.conclusion.code, ConclusionCode::NumbersMissing);
    let missing: Vec<_> = silent.devices.iter().flat_map(|device| &device.missing).collect();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].gap, Gap { from: 2, to: 3 });
    assert_eq!(missing[0].after, Some(captures[0].captured_at));
    assert_eq!(missing[0].before, Some(captures[3].captured_at));
    assert!(silent.sentences.iter().any(|said| said.contains("numbers 2 to 3 are missing")));

    let later = Time::from_millis(NOON_MS + 3 * 86_400_000);
    told.report(front.id, later, 2, Some(captures[1].captured_at), 4).await;
    told.report(back.id, later, 0, None, 0).await;
    let held = told.absence(&day).await;
    assert_eq!(held.conclusion.code, ConclusionCode::OnTheWay);
    let holds = |id| held.devices.iter().find(|device| device.device == id).map(|d| d.holds);
    assert_eq!((holds(front.id), holds(back.id)), (Some(Holds::Punches), Some(Holds::Nothing)));

    told.deliver(&front, vec![front.item(&captures[1]), front.item(&captures[2])]).await;
    told.settle().await;
    let delivered = told.absence(&day).await;
    assert_eq!(delivered.conclusion.code, ConclusionCode::NothingOnTheWay);
    assert_eq!(delivered.punches.len(), 4);

    let stranger = EmployeeId(Uuid::now_v7());
    let none = explanations::explain_absence(
        &told.world.pools.reader,
        (stranger, true),
        day.parse().unwrap(),
    );
    assert_eq!(none.await.unwrap(), None);
    told.close().await;
}

/// The business day of a time in Berlin.
fn day_of(at: Time) -> String {
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    at.timestamp().to_zoned(zone).date().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_held_the_badge_is_told_of_it_on_their_day_and_nobody_else_is_named_to_a_worker() {
    let mut told = Told::new().await;
    let mut kiosk = told.kiosk("Front door").await;
    let ben = told.world.hire().await;
    let mut connection = told.world.pools.writer.acquire().await.unwrap();
    let entry = EmployeeEntry {
        employee: ben,
        name: "Ben Okafor".to_owned(),
        pin_phc: None,
        external_id: None,
    };
    directory::put_employee(&mut connection, &entry).await.unwrap();
    drop(connection);
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    told.deliver(&kiosk, vec![kiosk.item(&capture)]).await;
    told.settle().await;
    let doubt = Anomaly::OtherHolder { holder: Some(ben) };
    let revised = PunchCommand::Revise { person: vec![doubt], beside: Vec::new(), verify_by: None };
    told.command(capture.punch, revised).await;
    told.settle().await;

    let waits = told.explain(capture.punch).await;
    assert_eq!((waits.counts, waits.on_card), (false, None));
    let day = day_of(capture.captured_at);
    let mine = told.absence(&day).await;
    assert!(mine.punches[0].nobodys, "{mine:?}");
    assert!(mine.sentences[0].contains("who made it is in doubt"), "{mine:?}");
    assert_eq!(mine.doubted, []);
    let theirs =
        explanations::explain_absence(&told.world.pools.reader, (ben, true), day.parse().unwrap());
    let theirs = theirs.await.unwrap().unwrap();
    assert_eq!((theirs.punches.len(), theirs.doubted_count), (0, 1));
    assert_eq!(theirs.doubted[0].punch, capture.punch);
    let said = theirs.sentences.join("\n");
    assert!(said.contains("by a badge that Ben Okafor held by then"), "{said}");
    assert!(!said.contains("Maria"), "{said}");

    let assigned = PunchCommand::Assign { employee: ben, reason: None, note: None };
    told.command(capture.punch, assigned).await;
    told.settle().await;
    let explained = told.explain(capture.punch).await;
    assert_eq!((explained.counts, explained.employee), (true, Some(ben)));
    let said = explained.sentences.join("\n");
    assert!(said.contains("that Ben Okafor made it and not Maria Ortiz"), "{said}");
    let reader = &told.world.pools.reader;
    for (to, shown, hidden) in [(ben, "Ben", "Maria"), (told.world.employee, "Maria", "Ben")] {
        let mut told_to =
            explanations::explain_many_to(reader, to, &[capture.punch]).await.unwrap();
        let said = told_to.pop().unwrap().unwrap().unwrap().sentences.join("\n");
        assert!(said.contains(shown) && !said.contains(hidden), "{said}");
    }
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_badge_of_another_time_is_told_wherever_it_was_read() {
    let mut told = Told::new().await;
    let mut kiosk = told.kiosk("Front door").await;
    let read = kiosk.capture_with(|capture| {
        (capture.employee, capture.badge) = (None, Some("777".to_owned()));
        capture.captured_at = Time::from_millis(NOON_MS);
    });
    told.deliver(&kiosk, vec![kiosk.item(&read)]).await;
    told.settle().await;
    let day = day_of(read.captured_at);
    let nobody = told.absence(&day).await;
    assert_eq!(nobody.unknown_badges_count, 1);
    assert_eq!(nobody.unknown_badges[0].tie, BadgeTie::Here);
    assert_eq!(nobody.unknown_badges[0].punch, read.punch);

    // Who holds the number from later on, and who held it before.
    let elsewhere = told.world.hire().await;
    for (employee, from, until) in
        [(told.world.employee, "1 day", None::<&str>), (elsewhere, "-3 days", Some("-1 day"))]
    {
        sqlx::query(
            "insert into badge_holdings (holding, employee, number, salt, held_from, held_until) \
             select sha256(convert_to($1::text, 'UTF8')), $1, '777', '\\x00', $2 + $3::interval, \
             $2 + $4::interval",
        )
        .bind(employee.uuid())
        .bind(jiff_sqlx::ToSqlx::to_sqlx(read.captured_at.timestamp()))
        .bind(from)
        .bind(until)
        .execute(&told.world.pools.writer)
        .await
        .unwrap();
    }
    let later = told.absence(&day).await;
    assert_eq!(later.unknown_badges[0].tie, BadgeTie::HeldOtherwise);
    let said = later.sentences.join("\n");
    assert!(said.contains("It counts for nobody until it is known who made it."), "{said}");
    assert!(!serde_json::to_string(&later).unwrap().contains("777"), "the number stays");
    assert!(later.conclusion.sentence.ends_with("what waits for a person here."));
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_days_off_is_told_on_both_days() {
    let mut told = Told::new().await;
    let mut kiosk = told.kiosk("Front door").await;
    let shown = kiosk.capture(PunchKind::In, NOON_MS);
    told.deliver(&kiosk, vec![kiosk.item(&shown)]).await;
    told.settle().await;
    let truly = Time::from_millis(NOON_MS - 3 * 86_400_000);
    sqlx::query("update judged_punches set true_at = $2 where punch = $1")
        .bind(shown.punch.uuid())
        .bind(jiff_sqlx::ToSqlx::to_sqlx(truly.timestamp()))
        .execute(&told.world.pools.writer)
        .await
        .unwrap();
    for (at, of_this_day) in [(shown.captured_at, false), (truly, true)] {
        let absence = told.absence(&day_of(at)).await;
        assert_eq!(absence.wrong_clocks_count, 1, "{absence:?}");
        let clock = absence.wrong_clocks[0];
        assert_eq!((clock.punch, clock.of_this_day), (shown.punch, of_this_day));
        assert_eq!((clock.shown_at, clock.true_at), (shown.captured_at, truly));
    }
    let amended = PunchCommand::Amend {
        effective_at: Some(truly.plus_millis(60_000)),
        kind: None,
        reason: None,
        note: None,
    };
    told.command(shown.punch, amended).await;
    told.settle().await;
    assert_eq!(told.absence(&day_of(truly)).await.wrong_clocks, [], "a person has put it right");
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_punch_says_what_its_card_says_of_it() {
    let mut told = Told::new().await;
    let mut kiosk = told.kiosk("Front door").await;
    let hours = |hours: i64| NOON_MS + hours * 3_600_000;
    let alone = kiosk.capture(PunchKind::Out, hours(0));
    let opening = kiosk.capture(PunchKind::In, hours(1));
    told.deliver(&kiosk, vec![kiosk.item(&alone), kiosk.item(&opening)]).await;
    told.settle().await;
    let code = |explained: &Explanation| explained.on_card.map(|card| card.code);
    let out = told.explain(alone.punch).await;
    assert_eq!(code(&out), Some(UnmatchedCode::OutWithoutIn));
    let open = told.explain(opening.punch).await;
    assert_eq!(code(&open), Some(UnmatchedCode::InWithoutOut));
    assert!(open.on_card.unwrap().may_pair_until.is_some());
    let said = open.sentences.join("\n");
    assert!(said.contains("the shift may still be closed by one until"), "{said}");

    let closing = kiosk.capture(PunchKind::Out, hours(9));
    told.deliver(&kiosk, vec![kiosk.item(&closing)]).await;
    told.settle().await;
    for punch in [opening.punch, closing.punch] {
        assert_eq!(told.explain(punch).await.on_card, None);
    }
    let again = kiosk.capture(PunchKind::Out, hours(9) + 10_000);
    told.deliver(&kiosk, vec![kiosk.item(&again)]).await;
    told.settle().await;
    let earlier = told.explain(closing.punch).await;
    let after = earlier.doubted_after.unwrap();
    assert_eq!((after.punch, after.apart_ms), (again.punch, 10_000));
    assert_eq!(after.reason, Reason::NearDuplicate);
    // Many at once, of days far apart, say what each says alone.
    let punches = [alone.punch, opening.punch, closing.punch, again.punch];
    let many = explanations::explain_many(&told.world.pools.reader, &punches).await.unwrap();
    for (punch, one) in punches.iter().zip(many) {
        assert_eq!(one.unwrap().unwrap(), told.explain(*punch).await);
    }
    told.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_was_changed_tells_the_next_asker() {
    let mut told = Told::new().await;
    let mut kiosk = told.kiosk("Front door").await;
    let capture = kiosk.capture(PunchKind::In, NOON_MS);
    told.deliver(&kiosk, vec![kiosk.item(&capture)]).await;
    told.settle().await;
    let reader =
        Explanations::start(told.world.pools.reader.clone(), told.world.ledger.supervisor());
    let before = reader.explain(capture.punch, true).await.unwrap().unwrap();
    let command = SiteCommand::ChangeZone { tz: "Asia/Kathmandu".to_owned(), from: None };
    let (ledger, site) = (&told.world.ledger, told.world.site.to_string());
    ledger.execute::<Site>(&site, command, &Metadata::default()).await.unwrap();
    let after = reader.explain(capture.punch, true).await.unwrap().unwrap();
    assert_ne!(before.sentences[0], after.sentences[0], "not the zone of a moment ago");
    assert_eq!(after.sentences[0], told.explain(capture.punch).await.sentences[0]);
    told.close().await;
}
