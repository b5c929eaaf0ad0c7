//! Webhooks on a real database and a real receiver: what is told, when it is tried, and what
//! becomes of it. The clock is the test's own.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use punchtrail_domain::{
    employee::{Employee, EmployeeCommand},
    punch::Clock,
};
use punchtrail_infra::{
    access::trail::Doer,
    adjudicator::Adjudicator,
    follower::Step,
    ledger::Metadata,
    testing::world::{NOON_MS, World},
    webhooks::{
        address::{Egress, Lookup},
        deliverer::{Deliverer, Now},
        endpoints::{self, Because, Described, Endpoint, Start},
        events::{self, Asked, Teller},
        log::{self, DeliveryState},
        queue::{self, Room},
        redelivery,
        schedule::{TRIES_MAX, WAITS_S},
        secrets::Keeper,
        sending::Sender,
        summaries,
    },
};
use punchtrail_protocol::{Position, Time};
use punchtrail_testkit::{PATIENCE, Receiver, Reply, eventually};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A world with a clock of its own, and what delivers in it.
struct Hooks {
    world: World,
    keeper: Keeper,
    seconds: Arc<AtomicI64>,
    news: Arc<Notify>,
    _dir: tempfile::TempDir,
}

impl Hooks {
    async fn new() -> Self {
        let (world, dir) = (World::new().await, tempfile::tempdir().unwrap());
        let keeper = Keeper::of(&dir.path().join("webhooks.key")).await.unwrap();
        // Ahead of the ledger's, which goes on: what is told is due by this one.
        let seconds = Arc::new(AtomicI64::new(Timestamp::now().as_second() + 3_600));
        Self { world, keeper, seconds, news: Arc::default(), _dir: dir }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.seconds.load(Ordering::SeqCst)).unwrap()
    }

    fn wait(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn deliverer(&self) -> Deliverer {
        let seconds = Arc::clone(&self.seconds);
        let now: Now =
            Arc::new(move || Timestamp::from_second(seconds.load(Ordering::SeqCst)).unwrap());
        let sender = Sender::new(Egress::new(Vec::new(), true)).unwrap();
        let pool = self.world.ledger.pool().clone();
        Deliverer::new(pool, self.keeper.clone(), sender, (Uuid::new_v4(), now), self.news.clone())
    }

    async fn endpoint(&self, url: &str, start: Start) -> Uuid {
        self.described(described(url), start).await
    }

    async fn described(&self, described: Described, start: Start) -> Uuid {
        let (pool, at) = (self.world.ledger.pool(), (start, self.now()));
        let doer = Doer::command_line();
        endpoints::make(pool, &self.keeper, &described, at, &doer).await.unwrap().0
    }

    async fn one(&self, id: Uuid) -> Endpoint {
        endpoints::one(self.world.ledger.pool(), id).await.unwrap().unwrap()
    }

    /// Everything is judged, and told.
    async fn told(&self) {
        let mut adjudicator = Adjudicator::new(self.world.ledger.clone());
        while adjudicator.step().await.unwrap().is_some() {}
        let teller = Teller::new(self.world.ledger.clone(), self.news.clone());
        while !matches!(teller.tell().await.unwrap(), Step::AtHead(_)) {}
    }

    /// Punches of so many people who weren't there before: nothing of them is doubtful.
    async fn punches(&self, count: usize) {
        let mut kiosk = self.world.device().await;
        kiosk.clock = Clock::Known { offset_ms: 0 };
        let mut items = Vec::new();
        for _ in 0..count {
            let employee = self.world.hire().await;
            let capture = kiosk.capture_with(|capture| {
                capture.employee = Some(employee);
                capture.captured_at = Time::from_millis(NOON_MS);
            });
            items.push(kiosk.item(&capture));
        }
        self.world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    }

    async fn events(&self) -> Vec<Value> {
        let asked = Asked { limit: 1_000, ..Asked::default() };
        let told = events::after(&self.world.pools.reader, &asked).await.unwrap();
        told.iter().map(|event| serde_json::from_str(&event.body).unwrap()).collect()
    }

    async fn close(self) {
        self.world.close().await;
    }
}

fn described(url: &str) -> Described {
    Described {
        name: "payroll".into(),
        url: url.into(),
        types: Some(vec!["punch.accepted".into()]),
        sites: None,
        contact: Some("payroll@example.com".into()),
    }
}

fn of_type<'a>(events: &'a [Value], event_type: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == event_type).map(|event| &event["data"]).collect()
}

#[tokio::test]
async fn the_ledger_is_told_once_and_clean() {
    let hooks = Hooks::new().await;
    hooks.punches(3).await;
    hooks.told().await;
    let first = hooks.events().await;
    let accepted = of_type(&first, "punch.accepted");
    assert_eq!(of_type(&first, "punch.recorded").len(), 3);
    assert_eq!(of_type(&first, "employee.changed")[0]["change"], "registered");
    for punch in &accepted {
        assert_eq!(punch["standing"], "accepted");
        assert_eq!(punch["basis"], "policy");
        assert!(punch["external_id"].is_null());
        assert_eq!(punch["site"], hooks.world.site.to_string());
        for field in ["position", "punch", "kind", "captured_at", "effective_at"] {
            assert!(!punch[field].is_null(), "{field}: {punch}");
        }
        assert!(punch["position"].as_u64() < Some(1_000));
    }
    // A place that is lost is found again: nothing is told twice.
    let positions: Vec<_> = first.iter().map(|event| event["data"]["position"].clone()).collect();
    let mut sorted = positions.clone();
    sorted.sort_by_key(|position| position.as_u64());
    sorted.dedup();
    assert_eq!(sorted, positions);
    hooks.told().await;
    assert_eq!(hooks.events().await, first);
    let place = events::place(&hooks.world.pools.reader).await.unwrap();
    assert_eq!(place, hooks.world.ledger.head().await.unwrap());
    hooks.close().await;
}

#[tokio::test]
async fn a_duplicate_makes_no_event_and_a_near_duplicate_is_never_accepted_by_itself() {
    let hooks = Hooks::new().await;
    let employee = hooks.world.hire().await;
    let mut kiosk = hooks.world.device().await;
    kiosk.clock = Clock::Known { offset_ms: 0 };
    let mut capture = |at_ms| {
        kiosk.capture_with(|capture| {
            capture.employee = Some(employee);
            capture.captured_at = Time::from_millis(at_ms);
        })
    };
    let captures = [capture(NOON_MS - 20_000), capture(NOON_MS)];
    for _ in 0..3 {
        let items = captures.iter().map(|capture| kiosk.item(capture)).collect();
        hooks.world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
        hooks.told().await;
    }
    let events = hooks.events().await;
    assert_eq!(of_type(&events, "punch.recorded").len(), 2);
    assert_eq!(of_type(&events, "punch.accepted").len(), 1);
    let referred = of_type(&events, "punch.referred");
    assert_eq!(referred.len(), 1);
    assert_eq!(referred[0]["reasons"], serde_json::json!(["near_duplicate"]));
    assert_eq!(referred[0]["punch"], captures[1].punch.to_string());
    hooks.close().await;
}

#[tokio::test]
async fn the_id_of_somebody_who_is_erased_is_taken_out_of_what_was_told() {
    let hooks = Hooks::new().await;
    let (employee, pool) = (hooks.world.hire().await, hooks.world.ledger.pool());
    let id = r#"P "17" \ ü"#;
    sqlx::query(
        "insert into employee_directory (employee, name, external_id) values ($1, 'A', $2)",
    )
    .bind(employee.uuid())
    .bind(id)
    .execute(pool)
    .await
    .unwrap();
    hooks.told().await;
    let told = |events: &[Value]| {
        let mut of = of_type(events, "employee.changed").into_iter();
        of.find(|one| one["employee"] == employee.to_string()).unwrap()["external_id"].clone()
    };
    assert_eq!(told(&hooks.events().await), id);
    let at = Time::from(hooks.now());
    let ledger = &hooks.world.ledger;
    ledger
        .execute::<Employee>(
            &employee.to_string(),
            EmployeeCommand::Erase { at },
            &Metadata::default(),
        )
        .await
        .unwrap();
    hooks.told().await;
    assert_eq!(told(&hooks.events().await), Value::Null);
    hooks.close().await;
}

#[tokio::test]
async fn receivers_that_hang_hold_up_nobody() {
    let hooks = Hooks::new().await;
    let (well, hangs) = (
        Receiver::taking().await.unwrap(),
        Receiver::answering(|_, _| Reply::Hangs).await.unwrap(),
    );
    for nth in 0..60 {
        let receiver = if nth < 3 { &well } else { &hangs };
        hooks.endpoint(&receiver.url(), Start::Now).await;
    }
    hooks.punches(30).await;
    hooks.told().await;
    let stop = CancellationToken::new();
    let delivering = tokio::spawn(hooks.deliverer().run(None, stop.clone()));
    eventually("all that can be delivered", PATIENCE, async || {
        Ok((well.count() == 90).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(hangs.count(), 57, "one each, and still under way");
    stop.cancel();
    delivering.await.unwrap();
    // What was under way goes back in line, as if it had not been tried.
    let leased: i64 =
        sqlx::query_scalar("select count(*) from webhook_deliveries where leased_by is not null")
            .fetch_one(hooks.world.ledger.pool())
            .await
            .unwrap();
    assert_eq!(leased, 0);
    hooks.close().await;
}

/// Says where every name leads to: to this very machine.
struct Rebound;

impl Lookup for Rebound {
    fn look_up<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_by_now_is_not_connected_to() {
    let hooks = Hooks::new().await;
    let pool = hooks.world.ledger.pool();
    let receiver = Receiver::taking().await.unwrap();
    let endpoint = hooks.endpoint(&receiver.url(), Start::Now).await;
    redelivery::test(pool, endpoint, hooks.now()).await.unwrap();
    let room = Room { most: 1, each: 1, of: Vec::new() };
    let at = (Uuid::new_v4(), hooks.now());
    let mut leased = queue::lease(pool, &hooks.keeper, at, &room).await.unwrap().remove(0);
    let sender = Sender::new(Egress::default().looking_up_by(Arc::new(Rebound))).unwrap();
    leased.url = format!("https://hooks.example:{}/", receiver.address().port());
    let answer = sender.send(&leased, hooks.now()).await;
    assert!(answer.error.as_ref().unwrap().starts_with("address_refused: "), "{answer:?}");
    leased.url = format!("https://{}/", receiver.address());
    let answer = sender.send(&leased, hooks.now()).await;
    assert!(answer.error.as_ref().unwrap().starts_with("address_refused: "), "{answer:?}");
    assert_eq!(receiver.count(), 0);
    hooks.close().await;
}

#[tokio::test]
async fn eighty_seven_hours_of_failure_are_seven_tries() {
    let hooks = Hooks::new().await;
    let receiver = Receiver::answering(|_, _| Reply::status(500)).await.unwrap();
    let endpoint = hooks.endpoint(&receiver.url(), Start::Now).await;
    hooks.punches(1).await;
    hooks.told().await;
    let mut deliverer = hooks.deliverer();
    let began = hooks.now();
    assert_eq!(deliverer.round().await.unwrap(), 1);
    for (tries, wait_s) in (1..).zip(WAITS_S) {
        let (of, ..) = delivery(&hooks, endpoint).await;
        assert_eq!((of.state, of.tries), (DeliveryState::Pending, tries));
        let due = of.due_at.unwrap().timestamp();
        let waits = due.duration_since(hooks.now()).as_secs();
        assert!((wait_s..=wait_s + wait_s / 10 + 1).contains(&waits), "{tries}: {waits}");
        hooks.wait(wait_s - 1);
        assert_eq!(deliverer.round().await.unwrap(), 0, "never earlier");
        hooks.wait(wait_s / 10 + 2);
        assert_eq!(deliverer.round().await.unwrap(), 1);
    }
    let (of, body, tries) = delivery(&hooks, endpoint).await;
    assert_eq!((of.state, of.tries, of.due_at), (DeliveryState::Failed, TRIES_MAX, None));
    assert!(hooks.now().duration_since(began) >= SignedDuration::from_mins(86 * 60 + 36));
    assert_eq!(tries.len(), 7);
    assert!(tries.iter().all(|one| one.status == Some(500) && one.url == receiver.url()));
    let received = receiver.received();
    assert_eq!(received.len(), 7);
    for one in &received {
        assert_eq!((&one.id, Some(&one.body)), (&received[0].id, body.as_ref()), "the same");
    }
    assert!(received.windows(2).all(|two| two[0].timestamp < two[1].timestamp));
    hooks.wait(1_000_000);
    assert_eq!(deliverer.round().await.unwrap(), 0, "it is over");
    // Nothing but failures for days, but of one delivery alone.
    assert_eq!(hooks.one(endpoint).await.disabled, None);
    hooks.punches(4).await;
    hooks.told().await;
    deliverer.round().await.unwrap();
    let disabled = hooks.one(endpoint).await.disabled.unwrap();
    assert_eq!(disabled.1, Because::Failing);
    hooks.close().await;
}

async fn delivery(hooks: &Hooks, endpoint: Uuid) -> (log::Delivery, Option<String>, Vec<log::Try>) {
    let pool = hooks.world.ledger.pool();
    let all = log::deliveries(pool, endpoint, None, None, 10).await.unwrap();
    log::one(pool, endpoint, all.last().unwrap().id).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_a_receiver_answers_is_understood() {
    let hooks = Hooks::new().await;
    let date = "retry-after: Fri, 31 Dec 2100 23:59:59 GMT".to_owned();
    let wanders = vec!["location: http://127.0.0.1:1/".to_owned()];
    let cases: [(&str, Reply, Option<u16>, &str); 9] = [
        ("redirect", Reply::Status(301, wanders, String::new()), Some(301), "redirect"),
        ("late", Reply::Status(429, vec![date], String::new()), Some(429), "status: 429"),
        ("garbage", Reply::Garbage, None, ""),
        ("hangs up", Reply::HangsUp, None, ""),
        ("not found", Reply::Status(404, vec![], "\0\u{1f980}".repeat(9_000)), Some(404), "status"),
        ("hangs", Reply::Hangs, None, "timeout"),
        ("drips", Reply::Drips, Some(200), ""),
        ("floods", Reply::Floods, Some(200), ""),
        ("no content", Reply::status(204), Some(204), ""),
    ];
    let mut receivers = Vec::new();
    for (name, reply, ..) in &cases {
        let reply = reply.clone();
        let receiver = Receiver::answering(move |_, _| reply.clone()).await.unwrap();
        let described = Described { name: (*name).into(), ..described(&receiver.url()) };
        receivers.push((hooks.described(described, Start::Now).await, receiver));
    }
    let gone = Receiver::answering(|_, _| Reply::status(410)).await.unwrap();
    let gone_is = hooks.endpoint(&gone.url(), Start::Now).await;
    // Nobody listens there any more.
    let left = Receiver::taking().await.unwrap().url();
    let nobody = hooks.endpoint(&left, Start::Now).await;
    hooks.punches(1).await;
    hooks.told().await;
    hooks.deliverer().round().await.unwrap();
    for ((name, _, status, error), (endpoint, receiver)) in cases.iter().zip(&receivers) {
        let (of, _, tries) = delivery(&hooks, *endpoint).await;
        let [one] = &tries[..] else { panic!("{name}: {tries:?}") };
        assert_eq!((one.status, receiver.count()), (*status, 1), "{name}: {one:?}");
        let is_taken = status.is_some_and(|status| status < 300);
        assert_eq!(of.state == DeliveryState::Delivered, is_taken, "{name}");
        assert!(is_taken || one.error.as_ref().unwrap().contains(error), "{name}: {one:?}");
        assert!(one.answer.as_ref().is_none_or(|answer| answer.len() <= 4 << 10), "{name}");
        if *name == "late" {
            let waits = of.due_at.unwrap().timestamp().duration_since(hooks.now()).as_secs();
            assert_eq!(waits, WAITS_S[1], "no further than to the next step");
        }
    }
    assert_eq!(hooks.one(gone_is).await.disabled.unwrap().1, Because::Gone);
    let (_, _, tries) = delivery(&hooks, nobody).await;
    assert!(tries[0].error.as_ref().unwrap().starts_with("connection: "), "{tries:?}");
    hooks.close().await;
}

#[tokio::test]
async fn a_lease_that_runs_out_is_sent_again_and_one_in_force_is_not() {
    let hooks = Hooks::new().await;
    let receiver = Receiver::taking().await.unwrap();
    hooks.endpoint(&receiver.url(), Start::Now).await;
    hooks.punches(5).await;
    hooks.told().await;
    let pool = hooks.world.ledger.pool();
    let (dead, room) = (Uuid::new_v4(), Room { most: 3, each: 10, of: Vec::new() });
    let at = (dead, hooks.now());
    let leased = queue::lease(pool, &hooks.keeper, at, &room).await.unwrap();
    assert_eq!(leased.len(), 3);
    // It dies between the delivery and its record.
    let sender = Sender::new(Egress::new(Vec::new(), true)).unwrap();
    assert!(sender.send(&leased[0], hooks.now()).await.is_success());
    let (mut one, mut other) = (hooks.deliverer(), hooks.deliverer());
    let (first, second) = tokio::join!(one.round(), other.round());
    assert_eq!(first.unwrap() + second.unwrap(), 2, "each once");
    assert_eq!(receiver.count(), 3);
    hooks.wait(queue::LEASE.as_secs() + 1);
    assert_eq!(one.round().await.unwrap(), 3);
    let received = receiver.received();
    let twice: Vec<_> = received.iter().filter(|one| one.id == leased[0].event).collect();
    assert_eq!(twice.len(), 2);
    assert_eq!(twice[0].body, twice[1].body);
    // What a node had that is no more is given back at once.
    hooks.punches(1).await;
    hooks.told().await;
    let room = Room { most: 3, each: 10, of: Vec::new() };
    let taken = queue::lease(pool, &hooks.keeper, (dead, hooks.now()), &room).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(one.round().await.unwrap(), 0);
    assert_eq!(queue::give_back(pool, dead).await.unwrap(), 1);
    assert_eq!(one.round().await.unwrap(), 1);
    hooks.close().await;
}

#[tokio::test]
async fn an_endpoint_begins_anywhere_and_is_told_again_what_is_asked_for() {
    let hooks = Hooks::new().await;
    let pool = hooks.world.ledger.pool();
    hooks.punches(4).await;
    hooks.told().await;
    let receiver = Receiver::taking().await.unwrap();
    let now = hooks.endpoint(&receiver.url(), Start::Now).await;
    let all = hooks.endpoint(&receiver.url(), Start::After(Position::START)).await;
    while redelivery::step(pool, hooks.now()).await.unwrap().is_some() {}
    let mut deliverer = hooks.deliverer();
    let accepted = of_type(&hooks.events().await, "punch.accepted").len();
    assert_eq!(deliverer.round().await.unwrap(), accepted);
    assert_eq!(hooks.one(now).await.succeeded_at, None);
    let beyond = Start::After(hooks.world.ledger.head().await.unwrap().plus(1));
    let (of, at) = (described("http://127.0.0.1:9/"), (beyond, hooks.now()));
    assert!(endpoints::make(pool, &hooks.keeper, &of, at, &Doer::default()).await.is_err());

    let ids = |received: &[punchtrail_testkit::Received]| {
        let mut ids: Vec<_> =
            received.iter().map(|one| (one.id.clone(), one.body.clone())).collect();
        ids.sort();
        ids
    };
    let first = ids(&receiver.received());
    let ever = (Timestamp::UNIX_EPOCH.into(), (hooks.now() + SignedDuration::from_hours(1)).into());
    redelivery::of_time(pool, all, ever, false, hooks.now()).await.unwrap().unwrap();
    while redelivery::step(pool, hooks.now()).await.unwrap().is_some() {}
    assert_eq!(deliverer.round().await.unwrap(), 0, "all of it came");
    redelivery::of_time(pool, all, ever, true, hooks.now()).await.unwrap().unwrap();
    while redelivery::step(pool, hooks.now()).await.unwrap().is_some() {}
    assert_eq!(deliverer.round().await.unwrap(), accepted);
    assert_eq!(ids(&receiver.received()[accepted..]), first, "the same ids and bodies");
    let jobs = redelivery::of_endpoint(pool, all, 10).await.unwrap();
    assert_eq!(
        jobs.iter().map(|job| job.count).collect::<Vec<_>>(),
        [accepted as u64, 0, accepted as u64]
    );
    assert!(jobs.iter().all(|job| job.finished_at.is_some()));

    let test = redelivery::test(pool, all, hooks.now()).await.unwrap();
    assert_eq!(deliverer.round().await.unwrap(), 1);
    assert!(receiver.received().last().unwrap().body.contains("webhook.test"));
    assert!(redelivery::of_one(pool, all, test, hooks.now()).await.unwrap());
    assert!(!redelivery::of_one(pool, now, test, hooks.now()).await.unwrap(), "another's");
    assert_eq!(deliverer.round().await.unwrap(), 1);

    // What happens while it is disabled is told when it is enabled.
    let doer = Doer::command_line();
    endpoints::disable(pool, all, hooks.now(), &doer).await.unwrap();
    hooks.punches(2).await;
    hooks.told().await;
    let missed = of_type(&hooks.events().await, "punch.accepted").len() - accepted;
    assert_eq!(deliverer.round().await.unwrap(), missed, "the other's alone");
    endpoints::enable(pool, all, true, hooks.now(), &doer).await.unwrap();
    while redelivery::step(pool, hooks.now()).await.unwrap().is_some() {}
    assert_eq!(deliverer.round().await.unwrap(), missed);

    endpoints::remove(pool, all, hooks.now(), &doer).await.unwrap();
    assert_eq!(endpoints::one(pool, all).await.unwrap(), None);
    log::sweep(pool, hooks.now()).await.unwrap();
    let left: i64 =
        sqlx::query_scalar("select count(*) from webhook_deliveries where endpoint = $1")
            .bind(all)
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(left, 0);
    hooks.wait(31 * 86_400);
    log::sweep(pool, hooks.now()).await.unwrap();
    assert!(log::deliveries(pool, now, None, None, 10).await.unwrap().is_empty(), "30 days");
    assert!(!hooks.events().await.is_empty(), "what was told stays");
    hooks.close().await;
}

#[tokio::test]
async fn two_secrets_sign_while_one_follows_the_other() {
    let hooks = Hooks::new().await;
    let pool = hooks.world.ledger.pool();
    let receiver = Receiver::taking().await.unwrap();
    let endpoint = hooks.endpoint(&receiver.url(), Start::Now).await;
    let mut deliverer = hooks.deliverer();
    let mut signatures = Vec::new();
    for wait_s in [0, 10, 3_700] {
        if wait_s == 10 {
            let times = (hooks.now(), SignedDuration::from_hours(1));
            let doer = Doer::command_line();
            endpoints::rotate(pool, &hooks.keeper, endpoint, times, &doer).await.unwrap();
        }
        hooks.wait(wait_s);
        redelivery::test(pool, endpoint, hooks.now()).await.unwrap();
        assert_eq!(deliverer.round().await.unwrap(), 1);
        let signed = receiver.received().last().unwrap().signature.clone();
        signatures.push(signed.split(' ').count());
    }
    assert_eq!(signatures, [1, 2, 1]);
    let kept: Vec<Vec<u8>> =
        sqlx::query_scalar("select sealed from webhook_secrets").fetch_all(pool).await.unwrap();
    assert!(kept.iter().all(|sealed| sealed.len() > 48));
    // Another key opens none of it, and takes nothing in hand.
    let dir = tempfile::tempdir().unwrap();
    let stranger = Keeper::of(&dir.path().join("key")).await.unwrap();
    redelivery::test(pool, endpoint, hooks.now()).await.unwrap();
    let room = Room { most: 3, each: 10, of: Vec::new() };
    let at = (Uuid::new_v4(), hooks.now());
    assert!(queue::lease(pool, &stranger, at, &room).await.unwrap().is_empty());
    hooks.close().await;
}

#[tokio::test]
async fn a_contact_is_written_once_an_hour() {
    let hooks = Hooks::new().await;
    let pool = hooks.world.ledger.pool();
    let receiver = Receiver::answering(|_, _| Reply::status(500)).await.unwrap();
    let endpoint = hooks.endpoint(&receiver.url(), Start::Now).await;
    hooks.punches(3).await;
    hooks.told().await;
    let mut deliverer = hooks.deliverer();
    deliverer.round().await.unwrap();
    assert_eq!(summaries::look(pool, hooks.now()).await.unwrap(), 0, "a short outage is none");
    hooks.wait(3_700);
    assert_eq!(summaries::look(pool, hooks.now()).await.unwrap(), 1);
    assert_eq!(summaries::look(pool, hooks.now()).await.unwrap(), 0);
    for wait_s in WAITS_S {
        hooks.wait(wait_s + wait_s / 10 + 2);
        deliverer.round().await.unwrap();
    }
    assert_eq!(summaries::look(pool, hooks.now()).await.unwrap(), 1);
    assert_eq!(summaries::look(pool, hooks.now()).await.unwrap(), 0);
    let mails: Vec<(String, String, String)> =
        sqlx::query_as("select recipient, subject, body from mails order by id")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(mails.len(), 2);
    assert!(mails.iter().all(|mail| mail.0 == "payroll@example.com"));
    assert!(mails[1].2.contains("deliveries failed for good"), "{}", mails[1].2);
    assert!(mails[1].2.contains(&endpoint.to_string()));
    hooks.close().await;
}
