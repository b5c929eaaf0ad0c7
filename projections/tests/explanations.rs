//! Explanations on a real ledger: what the events, the devices' numbers and their last reports say,
//! and that it can be asked for one at a time or many at once.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use punchtrail_domain::{
    device::Gap,
    explanation::{
        ChainFact, Decision, Explanation, Step, What,
        absence::{Absence, ConclusionCode, Holds},
    },
    log::recorded::Actor,
    punch::{PunchCommand, RejectionReason},
    quarantine::item_digest,
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    devices::reports,
    follower::{Followers, Node},
    ledger::DeliveryItem,
    people::directory::{self, EmployeeEntry},
    rulings::{self, Admission, Author},
    testing::world::{Kiosk, NOON_MS, World},
};
use punchtrail_projections::{
    engine::{Generation, Projection, Projections},
    explanations::{self, ChainFacts, Explanations},
    punches::timeline::Timeline,
    rulings::{disputes::Disputes, quarantine::QuarantinedItems},
};
use punchtrail_protocol::{
    BootId, DeviceId, Digest, EmployeeId, Position, PunchId, Time, capture::PunchKind,
    vocabulary::Standing, wire::Heartbeat,
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

    /// By the read model, which says what the ledger alone would say.
    async fn explain(&self, punch: PunchId) -> Explanation {
        let explained = explanations::explain(&self.world.pools.reader, punch).await.unwrap();
        let alone = explanations::explain_from_ledger(self.world.ledger.pool(), punch).await;
        assert_eq!(explained, alone.unwrap());
        explained.unwrap()
    }

    async fn absence(&self, day: &str) -> Absence {
        let (pool, employee) = (&self.world.pools.reader, self.world.employee);
        explanations::explain_absence(pool, employee, day.parse().unwrap()).await.unwrap().unwrap()
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
        tokio::spawn(async move { (punch, reader.explain(punch).await.unwrap()) })
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
    let none =
        explanations::explain_absence(&told.world.pools.reader, stranger, day.parse().unwrap());
    assert_eq!(none.await.unwrap(), None);
    told.close().await;
}
