//! A ledger with a history, and what the read models make of it, as text to compare.

#![allow(dead_code, reason = "each test crate uses a part of it")]

pub mod tally;

use std::sync::Arc;

use punchtrail_domain::{
    StoredEvent,
    device::{Device, DeviceCommand, Instruction},
    dispute::{Dispute, DisputeCommand, Evidence, Subject},
    employee::{DirectoryField, Employee, EmployeeCommand},
    policy::Policy,
    punch::{
        Anomaly, Check, Clock, Comparison, Failing, Miss, Missing, Origin, Provider, Punch,
        PunchCommand, RejectionReason, Verdict,
    },
    quarantine::{Quarantine, QuarantineCommand},
    site::{Site, SiteCommand},
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    follower::{self, Followers},
    ledger::Metadata,
    postgres::Pool,
};
use punchtrail_projections::engine::{
    Projection, Projections,
    rebuild::{BATCH_EVENTS_MAX, rebuild_model},
};
use punchtrail_protocol::{
    CommandId, DeviceId, Digest, DisputeId, EmployeeId, Position, PunchId, SiteId, Time,
    capture::PunchKind,
    command::CommandStatus,
    dispute::{About, Day, DisputeCause, Settlement},
};
use punchtrail_testkit::PATIENCE;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use punchtrail_infra::testing::world::{Kiosk, NOON_MS, World};

const HOUR_MS: i64 = 3_600_000;

/// How long a reader waits before a test fails.
pub fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Models that are fed, as one node feeds them.
pub struct Node {
    pub models: Projections,
    pub followers: Followers,
}

impl Node {
    pub async fn of(world: &World, models: Vec<Arc<dyn Projection>>) -> Self {
        let followers =
            Followers::new(&world.ledger, follower::Node::anywhere(), &CancellationToken::new());
        let (pool, feed) = (world.pools.reader.clone(), world.ledger.feed());
        let models = Projections::start(models, pool, feed, &followers).await.unwrap();
        Self { models, followers }
    }

    pub async fn stop(self) {
        self.followers.stop().await;
    }
}

impl std::ops::Deref for Node {
    type Target = Projections;
    fn deref(&self) -> &Projections {
        &self.models
    }
}

/// Starts every model on the world's ledger.
pub async fn start(world: &World) -> Node {
    Node::of(world, punchtrail_projections::all()).await
}

/// Waits until every model stands at the head.
pub async fn settle(world: &World, running: &Projections) {
    let head = world.ledger.head().await.unwrap();
    let models = punchtrail_projections::all();
    let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
    running.wait_for(&names, head, deadline()).await.unwrap();
}

/// Lets the adjudicator judge everything there is.
pub async fn judge(world: &World) {
    let mut adjudicator = Adjudicator::new(world.ledger.clone());
    while adjudicator.step().await.unwrap().is_some() {}
}

/// Rebuilds one model with batches of that many events.
pub async fn rebuild(world: &World, model: &dyn Projection, batch_events: u32) {
    let feed = world.ledger.feed();
    let cancel = CancellationToken::new();
    rebuild_model(&world.pools.reader, &feed, model, &cancel, batch_events, &mut |_, _| {})
        .await
        .unwrap();
}

pub async fn rebuild_all(world: &World) {
    for model in punchtrail_projections::all() {
        rebuild(world, model.as_ref(), BATCH_EVENTS_MAX).await;
    }
}

/// Everything that a model's readers can see.
pub async fn dump(pool: &Pool, model: &Arc<dyn Projection>) -> Vec<String> {
    let mut rows = Vec::new();
    for base in model.tables() {
        let statement =
            format!("select '{base} ' || t::text from read.\"{base}\" t order by t::text");
        let some: Vec<String> = sqlx::query_scalar(&statement).fetch_all(pool).await.unwrap();
        rows.extend(some);
    }
    rows
}

pub async fn dump_all(pool: &Pool) -> Vec<String> {
    let mut rows = Vec::new();
    for model in punchtrail_projections::all() {
        rows.extend(dump(pool, &model).await);
    }
    rows
}

/// A history of punches, rulings, people, devices and policies, the same for the same seed but for
/// the ids. It breaks every rule that a real one may break.
pub struct History {
    pub world: World,
    rng: StdRng,
    people: Vec<EmployeeId>,
    kiosks: Vec<Kiosk>,
    sites: Vec<SiteId>,
    punches: Vec<PunchId>,
    items: Vec<Digest>,
    disputes: Vec<DisputeId>,
    clock_ms: i64,
}

impl History {
    pub async fn new(seed: u64) -> Self {
        let world = World::new().await;
        let other = SiteId(Uuid::new_v4());
        let tz = "America/New_York".to_owned();
        execute::<Site>(&world, &other.to_string(), SiteCommand::Register { tz }).await;
        let mut kiosks = Vec::new();
        for _ in 0..3 {
            kiosks.push(world.device().await);
        }
        let people = vec![world.employee, world.hire().await, world.hire().await];
        Self {
            sites: vec![world.site, other],
            rng: StdRng::seed_from_u64(seed),
            people,
            kiosks,
            punches: Vec::new(),
            items: Vec::new(),
            disputes: Vec::new(),
            clock_ms: NOON_MS,
            world,
        }
    }

    fn one_of<T: Copy>(&mut self, of: impl Fn(&Self) -> &Vec<T>) -> Option<T> {
        let count = of(self).len();
        if count == 0 {
            return None;
        }
        let place = self.rng.random_range(0..count);
        Some(of(self)[place])
    }

    /// Something happens.
    pub async fn step(&mut self) {
        match self.rng.random_range(0..27) {
            0..=8 => self.deliver().await,
            9..=11 => judge(&self.world).await,
            12..=14 => self.rule().await,
            15 | 16 => self.change_people().await,
            17 => self.change_device().await,
            18 => self.change_policy().await,
            19 | 20 => self.dispute().await,
            21 => self.change_dispute().await,
            22..=25 => self.picture().await,
            _ => self.settle_item().await,
        }
    }

    pub async fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step().await;
        }
    }

    async fn deliver(&mut self) {
        let which = self.rng.random_range(0..self.kiosks.len());
        let (fast, slow, mad) = (Some(100_040), Some(-45_300), Some(2_000 * 365 * 24 * HOUR_MS));
        let leads = [None, None, Some(0), Some(1_400), fast, slow, mad];
        let lead_ms = leads[self.rng.random_range(0..leads.len())];
        self.kiosks[which].clock =
            lead_ms.map_or(Clock::Unknown, |offset_ms| Clock::Known { offset_ms });
        let ahead_ms = lead_ms.filter(|lead| lead.abs() < HOUR_MS).unwrap_or_default();
        let mut captures = Vec::new();
        for _ in 0..self.rng.random_range(1..6) {
            self.clock_ms += self.rng.random_range(1_000..4_000_000);
            let (at_ms, employee) = (self.clock_ms, self.one_of(|s| &s.people));
            let unknown = self.rng.random_ratio(1, 10);
            let skip = u64::from(self.rng.random_ratio(1, 8)) * 3;
            let kind = [PunchKind::In, PunchKind::Out, PunchKind::BreakStart, PunchKind::BreakEnd]
                [self.rng.random_range(0..4)];
            let kiosk = &mut self.kiosks[which];
            captures.push(kiosk.capture_with(|capture| {
                capture.kind = kind;
                capture.seq += skip;
                capture.captured_at = Time::from_millis(at_ms + ahead_ms);
                capture.employee = employee.filter(|_| !unknown);
                capture.photo = Some(Digest::of(&at_ms.to_be_bytes()));
                capture.badge = unknown.then(|| "unknown-77".to_owned());
            }));
        }
        let kiosk = &self.kiosks[which];
        let mut items: Vec<_> = captures.iter().map(|capture| kiosk.item(capture)).collect();
        if self.rng.random_ratio(1, 4) {
            let garbage = format!("?{}", self.clock_ms);
            let item = kiosk.garbage(&garbage);
            self.items.push(punchtrail_domain::quarantine::item_digest(
                kiosk.id,
                garbage.as_bytes(),
                b"x",
            ));
            items.push(item);
        }
        if self.rng.random_ratio(1, 5) {
            items.reverse();
        }
        self.punches.extend(captures.iter().map(|capture| capture.punch));
        self.world.ledger.deliver(kiosk.delivery(items)).await.unwrap();
    }

    /// A verdict on a punch's picture is asked for, the picture comes, is checked, or is given up:
    /// whichever, in any order.
    async fn picture(&mut self) {
        let Some(punch) = self.one_of(|s| &s.punches) else { return };
        let id = punch.to_string();
        let Ok(loaded) = self.world.ledger.load::<Punch>(&id).await else { return };
        let Some(picture) = loaded.aggregate.pictures().attempts().get(&0) else { return };
        let (photo, at) = (picture.photo, Time::from_millis(self.clock_ms));
        let check = Check {
            attempt: 0,
            photo,
            provider: Provider::Local,
            model: "test".to_owned(),
            quality: None,
            floors: Policy::default().face_floors(),
        };
        let comparison = Comparison { reference: photo, similarity: 5_000, threshold: 4_000 };
        let failing = Failing { miss: Miss::Mismatch, guidance: Vec::new() };
        let command = match self.rng.random_range(0..7) {
            0..=2 => PunchCommand::Judge { anomalies: Vec::new(), verify_by: Some(at) },
            3 => PunchCommand::ReceivePhoto { photo, received_at: at },
            4 => PunchCommand::Verify { verdict: Verdict::Match { check, comparison } },
            5 => {
                let verdict = Verdict::Miss { check, failing, comparison: Some(comparison) };
                PunchCommand::Verify { verdict }
            }
            _ => PunchCommand::GiveUp { missing: Missing::Photo },
        };
        // Nothing follows where nobody asked for a verdict.
        let metadata = Metadata::default();
        let _ = self.world.ledger.execute::<Punch>(&id, command, &metadata).await;
    }

    /// The people, and all punches.
    pub fn whose(&self) -> (&[EmployeeId], &[PunchId]) {
        (&self.people, &self.punches)
    }

    async fn rule(&mut self) {
        let Some(punch) = self.one_of(|s| &s.punches) else { return };
        let earlier = Time::from_millis(self.clock_ms - 30_000);
        let (other, employee) = (self.one_of(|s| &s.punches), self.one_of(|s| &s.people));
        let loaded = self.world.ledger.load::<Punch>(&punch.to_string()).await.unwrap().aggregate;
        let captured_at = match loaded.origin() {
            Some(Origin::Captured { capture, .. }) => Some(capture.captured_at),
            _ => None,
        };
        let command = match self.rng.random_range(0..10) {
            0 => PunchCommand::Accept { note: None, reason: None },
            1 => PunchCommand::Reject { reason: RejectionReason::WrongTime, note: None },
            2 => PunchCommand::Amend {
                effective_at: Some(earlier),
                kind: None,
                note: None,
                reason: None,
            },
            3 => PunchCommand::Amend {
                effective_at: None,
                kind: Some(PunchKind::Out),
                note: None,
                reason: None,
            },
            4 => PunchCommand::Void { note: None, reason: None },
            // Back to what its clock showed.
            5 => PunchCommand::Amend {
                effective_at: captured_at,
                kind: None,
                note: None,
                reason: None,
            },
            6 => PunchCommand::Assign {
                employee: employee.unwrap_or(EmployeeId::NIL),
                reason: None,
                note: None,
            },
            7 => PunchCommand::JoinShift { out: other.unwrap_or(punch), note: None },
            8 => PunchCommand::PartShift { note: None },
            _ => PunchCommand::Judge {
                anomalies: vec![Anomaly::OtherHolder { holder: employee }],
                verify_by: None,
            },
        };
        // A ruling may be refused: the punch is voided, or stands so already.
        let metadata = Metadata::default();
        let _ = self.world.ledger.execute::<Punch>(&punch.to_string(), command, &metadata).await;
    }

    async fn change_people(&mut self) {
        let (Some(employee), Some(site)) = (self.one_of(|s| &s.people), self.one_of(|s| &s.sites))
        else {
            return;
        };
        let command = match self.rng.random_range(0..6) {
            0 => {
                let hired = self.world.hire().await;
                return self.people.push(hired);
            }
            1 => EmployeeCommand::ChangeDirectory { fields: vec![DirectoryField::Name] },
            2 => EmployeeCommand::ChangeDirectory { fields: vec![DirectoryField::ExternalId] },
            3 => EmployeeCommand::UnassignFromSite { site, until: Time::default() },
            4 => EmployeeCommand::Depart { at: Time::from_millis(self.clock_ms) },
            _ => EmployeeCommand::AssignToSite { site, from: None },
        };
        let metadata = Metadata::default();
        let id = employee.to_string();
        let _ = self.world.ledger.execute::<Employee>(&id, command, &metadata).await;
    }

    /// Something is told to a device, and what became of it.
    async fn command(&mut self, id: &str) {
        let (command, expires_at) = (CommandId(Uuid::now_v7()), Time::from_millis(self.clock_ms));
        let (employee, taken_until) = (self.people[0], expires_at);
        let instruction = match self.rng.random_range(0..3) {
            0 => Instruction::SyncEmployees,
            1 => Instruction::ShowMessage { note: Digest::of(b"text") },
            _ => Instruction::ForgetPhotos { employee, taken_until },
        };
        let issue = DeviceCommand::Issue { command, instruction, expires_at };
        let (status, note) = (CommandStatus::Failed, Some(Digest::of(b"detail")));
        let outcomes = [
            DeviceCommand::Expire { command, at: expires_at },
            DeviceCommand::Cancel { command },
            DeviceCommand::Finish { command, status, note },
        ];
        let metadata = Metadata::default();
        // A revoked device is told nothing more, and what is settled stays so.
        let told = self.world.ledger.execute::<Device>(id, issue, &metadata).await;
        for outcome in outcomes.into_iter().filter(|_| told.is_ok()) {
            if self.rng.random() {
                let _ = self.world.ledger.execute::<Device>(id, outcome, &metadata).await;
            }
        }
    }

    async fn change_device(&mut self) {
        let Some(site) = self.one_of(|s| &s.sites) else { return };
        let which = self.rng.random_range(0..self.kiosks.len());
        let id = self.kiosks[which].id.to_string();
        self.command(&id).await;
        let command = if self.rng.random_ratio(1, 6) {
            DeviceCommand::Revoke { at: Time::from_millis(self.clock_ms) }
        } else {
            DeviceCommand::AssignSite { site }
        };
        execute::<Device>(&self.world, &id, command).await;
    }

    async fn change_policy(&mut self) {
        let Some(site) = self.one_of(|s| &s.sites) else { return };
        let day_starts_min = self.rng.random_range(0..600);
        let shift_max_s = self.rng.random_range(4..30) * 3_600;
        let policy = Policy { day_starts_min, shift_max_s, ..Policy::default() };
        let day = jiff::civil::date(2026, 9, self.rng.random_range(1..30));
        let from = self.rng.random_ratio(2, 3).then_some(day);
        let command = if self.rng.random_ratio(1, 4) {
            let zones = ["Europe/Berlin", "America/New_York", "Pacific/Kiritimati"];
            let tz = zones[self.rng.random_range(0..zones.len())].to_owned();
            SiteCommand::ChangeZone { tz, from }
        } else {
            SiteCommand::ChangePolicy { policy, from }
        };
        execute::<Site>(&self.world, &site.to_string(), command).await;
    }

    async fn dispute(&mut self) {
        let (Some(employee), Some(site)) = (self.one_of(|s| &s.people), self.one_of(|s| &s.sites))
        else {
            return;
        };
        let day = Day::from(jiff::civil::date(2026, 9, self.rng.random_range(1..30)));
        let punch = self.one_of(|s| &s.punches).filter(|_| self.rng.random());
        let (about, cause) = match punch {
            Some(punch) => (About::Punch(punch), DisputeCause::WrongTime),
            None => (About::Day(day), DisputeCause::MissingPunch),
        };
        let (dispute, note) = (DisputeId(Uuid::now_v7()), None);
        let subject = Subject { site, employee, about, cause };
        let open = DisputeCommand::Open { subject, note };
        execute::<Dispute>(&self.world, &dispute.to_string(), open).await;
        self.disputes.push(dispute);
        self.change_dispute().await;
    }

    async fn change_dispute(&mut self) {
        for _ in 0..self.rng.random_range(0..4) {
            let Some(dispute) = self.one_of(|s| &s.disputes) else { return };
            let (note, by) = (Digest::ZERO, PunchId(Uuid::now_v7()));
            let command = match self.rng.random_range(0..5) {
                0 => DisputeCommand::Answer { note },
                1 => DisputeCommand::Reopen { note },
                2 => DisputeCommand::AddEvidence(Evidence {
                    day: jiff::civil::date(2026, 9, 21).into(),
                    punches: self.rng.random_range(0..9),
                    quarantined: Vec::new(),
                    unknown_badges: Vec::new(),
                    devices: Vec::new(),
                    more: false,
                    known_through: Position(1),
                }),
                3 => DisputeCommand::Resolve { how: Settlement::Add, by_punch: Some(by), note },
                _ => DisputeCommand::Resolve { how: Settlement::Dismiss, by_punch: None, note },
            };
            // It may be refused: the dispute is resolved, or isn't.
            let (id, metadata) = (dispute.to_string(), Metadata::default());
            let _ = self.world.ledger.execute::<Dispute>(&id, command, &metadata).await;
        }
    }

    async fn settle_item(&mut self) {
        let Some(item) = self.items.pop() else { return };
        let id = item.to_string();
        if self.rng.random() {
            let command = QuarantineCommand::Dismiss { note: None };
            return execute::<Quarantine>(&self.world, &id, command).await;
        }
        let punch = PunchId(Uuid::now_v7());
        let admit = PunchCommand::Admit {
            quarantine: item,
            employee: self.people[0],
            site: self.world.site,
            kind: PunchKind::In,
            captured_at: Time::from_millis(self.clock_ms),
            device: self.kiosks[0].id,
            note: None,
        };
        execute::<Punch>(&self.world, &punch.to_string(), admit).await;
        execute::<Quarantine>(
            &self.world,
            &id,
            QuarantineCommand::AdmitAsPunch { punch, stands: None },
        )
        .await;
        self.punches.push(punch);
    }

    pub async fn head(&self) -> Position {
        self.world.ledger.head().await.unwrap()
    }

    pub fn device(&self) -> DeviceId {
        self.kiosks[0].id
    }
}

pub async fn execute<A>(world: &World, id: &str, command: A::Command)
where
    A: cqrs_es::Aggregate<Services = (), Event: StoredEvent>,
    A::Command: Clone,
{
    world.ledger.execute::<A>(id, command, &Metadata::default()).await.unwrap();
}
