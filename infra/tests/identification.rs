//! A punch finds its person, and what comes late is judged as if it had come in time: badges that
//! are issued, change hands or end, departures that are entered late, corrected or taken back, and
//! rulings on what a doubt rested on.

#![allow(clippy::unwrap_used, reason = "tests")]

use punchtrail_domain::{
    employee::{BadgeEnd, Employee, EmployeeCommand},
    policy::Policy,
    punch::{Anomaly, Clock, Punch, PunchCommand, RejectionReason},
    site::{Site, SiteCommand},
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    ledger::{DeliveryItem, Metadata},
    testing::world::{Kiosk, NOON_MS, World},
};
use punchtrail_protocol::{
    Digest, EmployeeId, PunchId, SiteId, Time,
    capture::{Capture, IdentifiedBy, PunchKind},
    vocabulary::Standing,
};
use punchtrail_testkit::text;
use uuid::Uuid;

const HOUR_MS: i64 = 3_600_000;

fn at(ms: i64) -> Time {
    Time::from_millis(NOON_MS + ms)
}

/// A world whose adjudicator is asked by hand.
struct Stage(World);

impl Stage {
    async fn new() -> Self {
        Self(World::new().await)
    }

    async fn settle(&self) {
        let mut adjudicator = Adjudicator::new(self.0.ledger.clone());
        while adjudicator.step().await.unwrap().is_some() {}
    }

    async fn tell(&self, employee: EmployeeId, command: EmployeeCommand) {
        let id = employee.to_string();
        let ledger = &self.0.ledger;
        ledger.execute::<Employee>(&id, command, &Metadata::default()).await.unwrap();
    }

    async fn rule(&self, punch: PunchId, command: PunchCommand) {
        let (id, ledger) = (punch.to_string(), &self.0.ledger);
        ledger.execute::<Punch>(&id, command, &Metadata::default()).await.unwrap();
    }

    /// Somebody holds a badge from then on.
    async fn issue(&self, employee: EmployeeId, number: &str, from: Time) -> Digest {
        let salt = Uuid::new_v4().as_bytes().to_vec();
        let holding = Digest::of(&[&salt, number.as_bytes()].concat());
        let row = "insert into badge_holdings values ($1, $2, $3, $4, now())";
        sqlx::query(row)
            .bind(holding.0.as_slice())
            .bind(employee.uuid())
            .bind(number)
            .bind(salt)
            .execute(&self.0.pools.writer)
            .await
            .unwrap();
        self.tell(employee, EmployeeCommand::IssueBadge { holding, from }).await;
        holding
    }

    async fn deliver(&self, kiosk: &Kiosk, captures: &[Capture], clock: Clock) {
        let item = |capture: &Capture| {
            let text = text(capture);
            let signature = kiosk.chain.sign(text.as_bytes());
            let (punch, seq, prev) = (capture.punch, capture.seq, capture.prev);
            let raw = kiosk.chain.item(capture);
            let received_at = kiosk.received_at;
            DeliveryItem::capture(
                raw,
                text,
                signature,
                punch,
                seq,
                prev,
                kiosk.id,
                received_at,
                clock,
            )
        };
        let items = captures.iter().map(item).collect();
        self.0.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    }

    async fn punch(&self, capture: &Capture) -> Punch {
        self.0.ledger.load::<Punch>(&capture.punch.to_string()).await.unwrap().aggregate
    }

    async fn stands(&self, capture: &Capture) -> (Standing, Vec<Anomaly>) {
        let punch = self.punch(capture).await;
        (punch.standing(), punch.anomalies().to_vec())
    }

    async fn close(self) {
        self.0.close().await;
    }
}

fn by_badge(kiosk: &mut Kiosk, number: &str, kind: PunchKind, ms: i64) -> Capture {
    kiosk.capture_with(|capture| {
        (capture.employee, capture.badge) = (None, Some(number.to_owned()));
        capture.identified_by = IdentifiedBy::Badge;
        (capture.kind, capture.captured_at) = (kind, at(ms));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_punch_of_an_unknown_badge_finds_its_person_at_whichever_sites_door() {
    let stage = Stage::new().await;
    let mut kiosk = stage.0.device().await;
    kiosk.chain.next.site = SiteId(Uuid::new_v4());
    let early = by_badge(&mut kiosk, "777", PunchKind::Out, -9 * HOUR_MS);
    let waits = by_badge(&mut kiosk, "777", PunchKind::In, -4 * HOUR_MS);
    stage.deliver(&kiosk, &[early.clone(), waits.clone()], Clock::Unknown).await;
    stage.settle().await;
    assert_eq!(stage.stands(&waits).await, (Standing::Referred, vec![Anomaly::UnknownBadge]));
    let holder = stage.0.hire().await;
    stage.issue(holder, "777", at(-5 * HOUR_MS)).await;
    stage.settle().await;
    assert_eq!(stage.stands(&waits).await, (Standing::Accepted, vec![]));
    assert_eq!(stage.punch(&waits).await.employee(), Some(holder));
    let early = stage.punch(&early).await;
    assert_eq!((early.employee(), early.standing()), (None, Standing::Referred), "before it was");
    let next = by_badge(&mut kiosk, "777", PunchKind::Out, -HOUR_MS);
    stage.deliver(&kiosk, std::slice::from_ref(&next), Clock::Unknown).await;
    stage.settle().await;
    let next = stage.punch(&next).await;
    assert_eq!((next.employee(), next.standing()), (Some(holder), Standing::Accepted));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_badge_that_was_not_exactly_ones_identifies_nobody_until_it_is() {
    let stage = Stage::new().await;
    let mut kiosk = stage.0.device().await;
    let (first, second) = (stage.0.hire().await, stage.0.hire().await);
    let held = stage.issue(first, "17", at(-9 * HOUR_MS)).await;
    stage.issue(second, "17", at(-5 * HOUR_MS)).await;
    let punched = by_badge(&mut kiosk, "17", PunchKind::In, -4 * HOUR_MS);
    stage.deliver(&kiosk, std::slice::from_ref(&punched), Clock::Unknown).await;
    stage.settle().await;
    assert_eq!(stage.punch(&punched).await.employee(), None);
    let (until, because) = (at(-5 * HOUR_MS), BadgeEnd::Reissued);
    stage.tell(first, EmployeeCommand::EndBadge { holding: held, until, because }).await;
    stage.settle().await;
    let punched = stage.punch(&punched).await;
    assert_eq!((punched.employee(), punched.standing()), (Some(second), Standing::Accepted));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departure_entered_late_refers_what_came_after_and_a_correction_takes_that_back() {
    let stage = Stage::new().await;
    let (mut kiosk, who) = (stage.0.device().await, stage.0.employee);
    let came = kiosk.capture(PunchKind::In, NOON_MS - 9 * HOUR_MS);
    let left = kiosk.capture(PunchKind::Out, NOON_MS - HOUR_MS);
    stage.deliver(&kiosk, &[came.clone(), left.clone()], Clock::Unknown).await;
    stage.settle().await;
    assert_eq!(stage.stands(&left).await.0, Standing::Accepted);
    let departed_at = at(-5 * HOUR_MS);
    stage.tell(who, EmployeeCommand::Depart { at: departed_at }).await;
    stage.settle().await;
    assert_eq!(stage.stands(&came).await, (Standing::Accepted, vec![]));
    let doubt = vec![Anomaly::DepartedWorker { departed_at }];
    assert_eq!(stage.stands(&left).await, (Standing::Referred, doubt));
    stage.tell(who, EmployeeCommand::Depart { at: at(0) }).await;
    stage.settle().await;
    assert_eq!(stage.stands(&left).await, (Standing::Accepted, vec![]));
    stage.tell(who, EmployeeCommand::Depart { at: departed_at }).await;
    stage.tell(who, EmployeeCommand::Return { at: at(-4 * HOUR_MS) }).await;
    stage.settle().await;
    assert_eq!(stage.stands(&left).await, (Standing::Accepted, vec![]), "they were back");
    stage.tell(who, EmployeeCommand::Depart { at: at(-2 * HOUR_MS) }).await;
    stage.settle().await;
    assert_eq!(stage.stands(&left).await.0, Standing::Referred);
    stage.tell(who, EmployeeCommand::CancelDeparture { free: vec![] }).await;
    stage.settle().await;
    assert_eq!(stage.stands(&left).await, (Standing::Accepted, vec![]));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_doubt_rests_on_a_punch_that_is_out_of_the_count() {
    let stage = Stage::new().await;
    let mut kiosk = stage.0.device().await;
    let first = kiosk.capture(PunchKind::In, NOON_MS - 60_000);
    let second = kiosk.capture(PunchKind::In, NOON_MS - 30_000);
    stage.deliver(&kiosk, &[first.clone(), second.clone()], Clock::Unknown).await;
    stage.settle().await;
    let doubt = vec![Anomaly::NearDuplicate { of: first.punch, apart_ms: 30_000 }];
    assert_eq!(stage.stands(&second).await, (Standing::Referred, doubt.clone()));
    let reject = PunchCommand::Reject { reason: RejectionReason::Other, note: None };
    stage.rule(first.punch, reject).await;
    stage.settle().await;
    assert_eq!(stage.stands(&second).await, (Standing::Accepted, vec![]));
    stage.rule(first.punch, PunchCommand::Accept { reason: None, note: None }).await;
    stage.settle().await;
    assert_eq!(stage.stands(&second).await, (Standing::Referred, doubt), "it counts again");
    stage.rule(first.punch, PunchCommand::Void { reason: None, note: None }).await;
    let late = kiosk.capture(PunchKind::In, NOON_MS - 45_000);
    stage.deliver(&kiosk, std::slice::from_ref(&late), Clock::Unknown).await;
    stage.settle().await;
    let doubt = vec![Anomaly::NearDuplicate { of: late.punch, apart_ms: 15_000 }];
    assert_eq!(stage.stands(&second).await, (Standing::Referred, doubt));
    assert_eq!(stage.stands(&late).await, (Standing::Accepted, vec![]));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_badge_that_changed_hands_behind_a_kiosks_back_is_doubted_and_nobodys() {
    let stage = Stage::new().await;
    let (mut kiosk, before) = (stage.0.device().await, stage.0.employee);
    let after = stage.0.hire().await;
    let held = stage.issue(before, "17", at(-50 * HOUR_MS)).await;
    let punched = kiosk.capture_with(|capture| {
        capture.identified_by = IdentifiedBy::Badge;
        (capture.kind, capture.captured_at) = (PunchKind::In, at(-HOUR_MS));
    });
    stage.deliver(&kiosk, std::slice::from_ref(&punched), Clock::Unknown).await;
    stage.settle().await;
    assert_eq!(stage.stands(&punched).await.0, Standing::Accepted);
    let (until, because) = (at(-2 * HOUR_MS), BadgeEnd::Lost);
    stage.tell(before, EmployeeCommand::EndBadge { holding: held, until, because }).await;
    // They have another by then, so that only what the kiosk couldn't know speaks against them.
    stage.issue(before, "18", until).await;
    stage.settle().await;
    assert_eq!(stage.stands(&punched).await, (Standing::Accepted, vec![]));
    stage.issue(after, "17", until).await;
    stage.settle().await;
    let doubt = vec![Anomaly::OtherHolder { holder: Some(after) }];
    assert_eq!(stage.stands(&punched).await, (Standing::Referred, doubt));
    assert!(stage.punch(&punched).await.is_nobodys());
    let assign = PunchCommand::Assign { employee: after, reason: None, note: None };
    stage.rule(punched.punch, assign).await;
    stage.settle().await;
    assert_eq!(stage.stands(&punched).await, (Standing::Accepted, vec![]));
    assert_eq!(stage.punch(&punched).await.employee(), Some(after));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_stand_where_they_truly_were_made() {
    let stage = Stage::new().await;
    let (mut right, mut fast) = (stage.0.device().await, stage.0.device().await);
    let first = right.capture(PunchKind::In, NOON_MS - HOUR_MS);
    let double = fast.capture(PunchKind::In, NOON_MS - HOUR_MS + 110_000);
    stage.deliver(&right, std::slice::from_ref(&first), Clock::Known { offset_ms: 40 }).await;
    let offset_ms = 100_000;
    stage.deliver(&fast, std::slice::from_ref(&double), Clock::Known { offset_ms }).await;
    stage.settle().await;
    let doubt = vec![Anomaly::NearDuplicate { of: first.punch, apart_ms: 10_000 }];
    assert_eq!(stage.stands(&double).await, (Standing::Referred, doubt));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_is_referred_where_the_site_asks_until_they_are_assigned_there() {
    let stage = Stage::new().await;
    let mut kiosk = stage.0.device().await;
    let other = SiteId(Uuid::new_v4());
    let tz = "Europe/Berlin".to_owned();
    let policy = Policy { refer_visitors: true, ..Policy::default() };
    for command in [SiteCommand::Register { tz }, SiteCommand::ChangePolicy { policy, from: None }]
    {
        let (id, ledger) = (other.to_string(), &stage.0.ledger);
        ledger.execute::<Site>(&id, command, &Metadata::default()).await.unwrap();
    }
    kiosk.chain.next.site = other;
    let visit = kiosk.capture(PunchKind::In, NOON_MS - HOUR_MS);
    stage.deliver(&kiosk, std::slice::from_ref(&visit), Clock::Unknown).await;
    stage.settle().await;
    assert_eq!(stage.stands(&visit).await, (Standing::Referred, vec![Anomaly::Visitor]));
    let from = Some(at(-2 * HOUR_MS));
    stage.tell(stage.0.employee, EmployeeCommand::AssignToSite { site: other, from }).await;
    stage.settle().await;
    assert_eq!(stage.stands(&visit).await, (Standing::Accepted, vec![]));
    stage.close().await;
}

/// However many wait with one badge, each is somebody's once it is issued, a part at a time.
#[tokio::test(flavor = "multi_thread")]
async fn many_punches_of_one_badge_find_their_person_at_once() {
    const PUNCHES: i64 = 10_000;
    let stage = Stage::new().await;
    let mut kiosk = stage.0.device().await;
    let waiting: Vec<Capture> = (0..PUNCHES)
        .map(|n| {
            let kind = if n % 2 == 0 { PunchKind::In } else { PunchKind::Out };
            by_badge(&mut kiosk, "777", kind, (n - PUNCHES) * HOUR_MS / 4)
        })
        .collect();
    for some in waiting.chunks(400) {
        stage.deliver(&kiosk, some, Clock::Unknown).await;
    }
    stage.settle().await;
    let holder = stage.0.hire().await;
    stage.issue(holder, "777", at(-PUNCHES * HOUR_MS)).await;
    stage.settle().await;
    let (identified, left): (i64, i64) = sqlx::query_as(
        "select (select count(*) from events where event_type = 'Identified'), \
         (select count(*) from judged_again)",
    )
    .fetch_one(&stage.0.pools.writer)
    .await
    .unwrap();
    assert_eq!((identified, left), (PUNCHES, 0));
    stage.close().await;
}
