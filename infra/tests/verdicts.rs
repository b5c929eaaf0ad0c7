//! Verdicts depend on the ledger's order alone: whatever happened, in whatever stretches it is
//! walked, by however many adjudicators one after the other, and whether what they appended comes
//! between what they walk, each punch gets the same events, and so does each device.
//!
//! `PROPTEST_CASES=500 cargo test -p punchtrail-infra --test verdicts` tries more.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use punchtrail_domain::{
    Event,
    device::{Device, DeviceCommand, DeviceEvent},
    employee::{BadgeEnd, Employee, EmployeeCommand},
    policy::Policy,
    punch::{Basis, Clock, Ground, Punch, PunchCommand, PunchEvent, RejectionReason},
    quarantine::{Quarantine, QuarantineCommand, item_digest},
    site::{Site, SiteCommand},
};
use punchtrail_infra::{
    adjudicator::Adjudicator,
    ledger::{Append, DeliveryItem, Metadata, StreamAppend},
    testing::world::{Kiosk, NOON_MS, World},
};
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, OrgId, Position, PunchId, SiteId, Time,
    capture::{Capture, PunchKind},
    signing::PublicKey,
    vocabulary::QuarantineCode,
};
use punchtrail_testkit::{Chain, text};
use uuid::Uuid;

const PEOPLE: u8 = 4;
const SITES: u8 = 3;
const KIOSKS: u8 = 3;
const BADGES: u8 = 2;
/// The default of `./dev test`; a case judges its ledger four times.
const CASES: u32 = 5;

/// One thing that happens. Who and which are numbers, so that a script is the same in any world.
#[derive(Debug, Clone)]
enum Act {
    Deliver {
        kiosk: u8,
        taps: Vec<Tap>,
    },
    /// One person's punches, a second or so after each other: more than there are neighbours.
    Burst {
        kiosk: u8,
        person: u8,
        at_s: i64,
        count: usize,
        step_ms: i64,
    },
    /// Other bytes under an earlier punch's id.
    Conflict {
        kiosk: u8,
        of: usize,
        numbered: Numbered,
    },
    /// An item that is kept aside; with its number, if its signature was good.
    Quarantine {
        kiosk: u8,
        at_s: i64,
        numbered: Option<Numbered>,
    },
    Admit {
        item: usize,
        person: u8,
        site: u8,
        at_s: i64,
    },
    Rule {
        punch: usize,
        ruling: Ruling,
    },
    Policy {
        site: u8,
        refer_visitors: bool,
        near_duplicate_s: u32,
        travel_s: u32,
        lookback_s: u32,
        clock_s: u32,
    },
    Hire {
        person: u8,
        site: u8,
    },
    Move {
        person: u8,
        to: u8,
        from: u8,
    },
    /// A badge is issued; of one number two may overlap.
    Issue {
        person: u8,
        badge: u8,
        from_s: i64,
    },
    EndBadge {
        person: u8,
        badge: u8,
        until_s: i64,
    },
    Depart {
        person: u8,
        at_s: i64,
    },
    Return {
        person: u8,
        at_s: i64,
    },
    CancelDeparture {
        person: u8,
    },
    /// A person says whose punch it is.
    Assign {
        punch: usize,
        person: u8,
    },
    Reassign {
        kiosk: u8,
        site: u8,
    },
    Revoke {
        kiosk: u8,
    },
}

#[derive(Debug, Clone, Copy)]
struct Tap {
    /// Beyond the people there are: a badge that nobody knows.
    person: u8,
    site: u8,
    out: bool,
    at_s: i64,
    clock_s: Option<i64>,
    numbered: Numbered,
}

/// A capture's number, as its device's chain has it.
#[derive(Debug, Clone, Copy)]
enum Numbered {
    Next,
    Ahead(u64),
    /// One of the last: a fork, or what was missing.
    Before(u64),
    /// The next, naming another predecessor.
    Astray,
}

#[derive(Debug, Clone, Copy)]
enum Ruling {
    Accept,
    Reject,
    Amend,
    Void,
}

fn numbered() -> impl Strategy<Value = Numbered> {
    prop_oneof![
        8 => Just(Numbered::Next),
        1 => (1u64..4).prop_map(Numbered::Ahead),
        2 => (0u64..6).prop_map(Numbered::Before),
        1 => Just(Numbered::Astray),
    ]
}

fn tap() -> impl Strategy<Value = Tap> {
    let clock_s = prop_oneof![3 => Just(None), 1 => (-200i64..200).prop_map(Some)];
    (0..=PEOPLE, 0..SITES, any::<bool>(), 0i64..900, clock_s, numbered()).prop_map(
        |(person, site, out, at_s, clock_s, numbered)| Tap {
            person,
            site,
            out,
            at_s,
            clock_s,
            numbered,
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let (kiosk, person, site) = (0..KIOSKS, 0..PEOPLE, 0..SITES);
    let ruling = prop_oneof![
        1 => Just(Ruling::Accept),
        1 => Just(Ruling::Reject),
        1 => Just(Ruling::Amend),
        3 => Just(Ruling::Void),
    ];
    let times = |off: u32| prop_oneof![Just(0u32), 1..off];
    prop_oneof![
        12 => (kiosk.clone(), vec(tap(), 1..8))
            .prop_map(|(kiosk, taps)| Act::Deliver { kiosk, taps }),
        1 => (kiosk.clone(), person.clone(), 0i64..900, 90usize..130, 0i64..1_500).prop_map(
            |(kiosk, person, at_s, count, step_ms)| Act::Burst {
                kiosk, person, at_s, count, step_ms,
            }
        ),
        2 => (kiosk.clone(), any::<usize>(), numbered())
            .prop_map(|(kiosk, of, numbered)| Act::Conflict { kiosk, of, numbered }),
        3 => (kiosk.clone(), 0i64..900, proptest::option::of(numbered()))
            .prop_map(|(kiosk, at_s, numbered)| Act::Quarantine { kiosk, at_s, numbered }),
        3 => (any::<usize>(), person.clone(), site.clone(), 0i64..900)
            .prop_map(|(item, person, site, at_s)| Act::Admit { item, person, site, at_s }),
        5 => (any::<usize>(), ruling).prop_map(|(punch, ruling)| Act::Rule { punch, ruling }),
        4 => (site.clone(), any::<bool>(), times(400), times(900), 3_600u32..4_500, 1u32..200)
            .prop_map(
                |(site, refer_visitors, near_duplicate_s, travel_s, lookback_s, clock_s)| {
                    Act::Policy {
                        site, refer_visitors, near_duplicate_s, travel_s, lookback_s, clock_s,
                    }
                }
            ),
        2 => (person.clone(), site.clone())
            .prop_map(|(person, site)| Act::Hire { person, site }),
        2 => (person.clone(), site.clone(), site.clone())
            .prop_map(|(person, to, from)| Act::Move { person, to, from }),
        4 => (person.clone(), 0..BADGES, 0i64..900)
            .prop_map(|(person, badge, from_s)| Act::Issue { person, badge, from_s }),
        3 => (person.clone(), 0..BADGES, 0i64..900)
            .prop_map(|(person, badge, until_s)| Act::EndBadge { person, badge, until_s }),
        3 => (person.clone(), 0i64..900).prop_map(|(person, at_s)| Act::Depart { person, at_s }),
        1 => (person.clone(), 0i64..900).prop_map(|(person, at_s)| Act::Return { person, at_s }),
        1 => person.clone().prop_map(|person| Act::CancelDeparture { person }),
        3 => (any::<usize>(), person).prop_map(|(punch, person)| Act::Assign { punch, person }),
        1 => (kiosk.clone(), site).prop_map(|(kiosk, site)| Act::Reassign { kiosk, site }),
        1 => kiosk.prop_map(|kiosk| Act::Revoke { kiosk }),
    ]
}

fn person(n: u8) -> EmployeeId {
    EmployeeId(Uuid::from_u128(0xE000 + u128::from(n)))
}

fn site(n: u8) -> SiteId {
    SiteId(Uuid::from_u128(0x5000 + u128::from(n)))
}

/// What the ledger names it by that a person holds a badge.
fn holding(person: u8, badge: u8) -> Digest {
    Digest::of(&[person, badge])
}

fn at(at_s: i64) -> Time {
    Time::from_millis(NOON_MS - 3_600_000 + at_s * 1_000)
}

/// How a ledger is judged.
#[derive(Debug, Clone)]
struct Way {
    /// The most events of each walk, one after the other and then again.
    walks: Vec<u32>,
    /// Whether to judge after each act, one after the other and then again; all that is there or
    /// one walk of it. At the end the rest is judged.
    between: Vec<Option<Judged>>,
    /// A walk that has found more events than that ends.
    found_max: usize,
    /// Whether each walk is another adjudicator's, which knows nothing yet.
    forgetful: bool,
}

#[derive(Debug, Clone, Copy)]
enum Judged {
    All,
    OneWalk,
}

fn way() -> impl Strategy<Value = Way> {
    let judged = prop_oneof![Just(None), Just(Some(Judged::All)), Just(Some(Judged::OneWalk))];
    (vec(2u32..40, 1..6), vec(judged, 1..6), 0usize..30, any::<bool>()).prop_map(
        |(walks, between, found_max, forgetful)| Way { walks, between, found_max, forgetful },
    )
}

impl Way {
    fn at_the_end(walks: &[u32]) -> Self {
        Self { walks: walks.to_vec(), between: vec![None], found_max: usize::MAX, forgetful: false }
    }

    fn waits(&self) -> bool {
        self.between.iter().all(Option::is_none)
    }
}

/// A world in which a script is played.
struct Stage {
    world: World,
    kiosks: Vec<Kiosk>,
    punches: Vec<PunchId>,
    items: Vec<Digest>,
    /// Punches that a person ruled on.
    ruled: BTreeSet<PunchId>,
    /// Who was issued which badge.
    issued: BTreeSet<(u8, u8)>,
}

impl Stage {
    async fn new() -> Self {
        let world = World::new().await;
        let mut stage = Self {
            world,
            kiosks: Vec::new(),
            punches: Vec::new(),
            items: Vec::new(),
            ruled: BTreeSet::new(),
            issued: BTreeSet::new(),
        };
        for n in 0..SITES {
            let register = SiteCommand::Register { tz: "Europe/Berlin".into() };
            stage.execute::<Site>(site(n), register).await;
        }
        for n in 0..KIOSKS {
            let key = SigningKey::from_bytes(&[n + 1; 32]);
            let device = DeviceId(Uuid::from_u128(0xD000 + u128::from(n)));
            let kiosk = Kiosk::new(Chain::new(OrgId::NIL, site(n % SITES), device, key));
            let key = PublicKey::from(&kiosk.chain.key);
            let enroll =
                DeviceCommand::Enroll { org: OrgId::NIL, site: site(0), key, app: "t/1".into() };
            stage.execute::<Device>(device, enroll).await;
            stage.kiosks.push(kiosk);
        }
        // The others are strangers until somebody hires them.
        for n in 0..PEOPLE / 2 {
            let register = EmployeeCommand::Register { site: site(0), fields: vec![] };
            stage.execute::<Employee>(person(n), register).await;
        }
        stage
    }

    /// A command that may be refused: then nothing happens.
    async fn execute<A>(&self, id: impl ToString, command: A::Command)
    where
        A: cqrs_es::Aggregate<Services = (), Event: punchtrail_domain::StoredEvent>,
        A::Command: Clone,
    {
        use punchtrail_infra::ledger::ExecuteError;
        let executed =
            self.world.ledger.execute::<A>(&id.to_string(), command, &Metadata::default()).await;
        match executed {
            Ok(_) | Err(ExecuteError::Refused(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// The next capture of a kiosk, a new punch unless `change` says which.
    fn capture(
        &mut self,
        kiosk: u8,
        numbered: Numbered,
        change: impl FnOnce(&mut Capture),
    ) -> Capture {
        let id = 0x0190_0000_0000_7000_8000_0000_0000_0000 + self.punches.len() as u128;
        let kiosk = &mut self.kiosks[usize::from(kiosk)];
        let last = kiosk.chain.seq();
        let mut aside = kiosk.chain.clone();
        let chain = match numbered {
            Numbered::Before(_) => &mut aside,
            _ => &mut kiosk.chain,
        };
        chain.capture_with(|capture| {
            capture.punch = PunchId(Uuid::from_u128(id));
            match numbered {
                Numbered::Next => {}
                Numbered::Ahead(by) => capture.seq += by,
                Numbered::Before(by) => capture.seq = last.saturating_sub(by).max(1),
                Numbered::Astray => capture.prev = Digest::of(b"another past"),
            }
            change(capture);
        })
    }

    fn item(&self, kiosk: u8, capture: &Capture, clock: Clock) -> DeliveryItem {
        let kiosk = &self.kiosks[usize::from(kiosk)];
        let text = text(capture);
        let signature = kiosk.chain.sign(text.as_bytes());
        DeliveryItem::capture(
            kiosk.chain.item(capture),
            text,
            signature,
            capture.punch,
            capture.seq,
            capture.prev,
            kiosk.id,
            kiosk.received_at,
            clock,
        )
    }

    async fn deliver(&self, kiosk: u8, items: Vec<DeliveryItem>) {
        let delivery = self.kiosks[usize::from(kiosk)].delivery(items);
        self.world.ledger.deliver(delivery).await.unwrap();
    }

    async fn play(&mut self, act: &Act) {
        match act.clone() {
            Act::Deliver { kiosk, taps } => {
                let mut items = Vec::new();
                for tap in taps {
                    let capture = self.capture(kiosk, tap.numbered, |capture| {
                        capture.employee = (tap.person < PEOPLE).then(|| person(tap.person));
                        capture.badge =
                            (tap.person == PEOPLE).then(|| format!("B{}", tap.at_s % 2));
                        capture.offline = tap.at_s % 3 == 0;
                        capture.site = site(tap.site);
                        capture.kind = if tap.out { PunchKind::Out } else { PunchKind::In };
                        capture.captured_at = at(tap.at_s);
                    });
                    self.punches.push(capture.punch);
                    let clock = tap.clock_s.map_or(Clock::Unknown, |offset_s| Clock::Known {
                        offset_ms: offset_s * 1_000,
                    });
                    items.push(self.item(kiosk, &capture, clock));
                }
                self.deliver(kiosk, items).await;
            }
            Act::Burst { kiosk, person: who, at_s, count, step_ms } => {
                let mut items = Vec::new();
                for n in 0..count {
                    // From both ends, so that what comes later was captured in between.
                    let n = if n % 2 == 0 { n } else { count - n } as i64;
                    let capture = self.capture(kiosk, Numbered::Next, |capture| {
                        capture.employee = Some(person(who));
                        capture.captured_at = Time::from_millis(at(at_s).millis() + n * step_ms);
                    });
                    self.punches.push(capture.punch);
                    items.push(self.item(kiosk, &capture, Clock::Unknown));
                }
                self.deliver(kiosk, items).await;
            }
            Act::Conflict { kiosk, of, numbered } => {
                let Some(punch) = of.checked_rem(self.punches.len()) else { return };
                let punch = self.punches[punch];
                let capture = self.capture(kiosk, numbered, |capture| capture.punch = punch);
                let items = vec![self.item(kiosk, &capture, Clock::Unknown)];
                self.deliver(kiosk, items).await;
            }
            Act::Quarantine { kiosk, at_s, numbered } => {
                let mut capture =
                    self.capture(kiosk, numbered.unwrap_or(Numbered::Before(0)), |capture| {
                        capture.captured_at = at(at_s);
                    });
                // Its id is nobody's, so that the next capture may have it.
                capture.punch = PunchId(Uuid::from_u128(self.items.len() as u128));
                let device = &self.kiosks[usize::from(kiosk)];
                let raw = device.chain.item(&capture);
                let digest =
                    item_digest(device.id, raw.capture.as_bytes(), raw.signature.as_bytes());
                let held =
                    numbered.map(|_| (capture.seq, Digest::of(&capture.to_bytes()), capture.prev));
                let item =
                    DeliveryItem::quarantine(raw, QuarantineCode::BadEncoding, None, held, None);
                self.items.push(digest);
                self.deliver(kiosk, vec![item]).await;
            }
            Act::Admit { item, person: who, site: place, at_s } => {
                let Some(item) = item.checked_rem(self.items.len()) else { return };
                let item = self.items[item];
                let loaded = self.world.ledger.load::<Quarantine>(&item.to_string()).await.unwrap();
                let punch = PunchId(Uuid::from_u128(0xAD00 + self.punches.len() as u128));
                let command = QuarantineCommand::AdmitAsPunch { punch, stands: None };
                let Ok(settled) = loaded.aggregate.decide(command) else { return };
                let admit = PunchCommand::Admit {
                    quarantine: item,
                    employee: person(who),
                    site: site(place),
                    kind: PunchKind::In,
                    captured_at: at(at_s),
                    device: self.kiosks[0].id,
                    note: None,
                };
                let admitted = Punch::default().decide(admit).unwrap();
                let streams = vec![
                    StreamAppend::of(item, loaded.sequence, &settled),
                    StreamAppend::of(punch, 0, &admitted),
                ];
                self.world.ledger.append(Append { streams, ..Append::default() }).await.unwrap();
                self.punches.push(punch);
            }
            Act::Rule { punch, ruling } => {
                let Some(punch) = punch.checked_rem(self.punches.len()) else { return };
                let punch = self.punches[punch];
                let command = match ruling {
                    Ruling::Accept => PunchCommand::Accept { note: None, reason: None },
                    Ruling::Reject => {
                        PunchCommand::Reject { reason: RejectionReason::Other, note: None }
                    }
                    Ruling::Amend => PunchCommand::Amend {
                        effective_at: Some(at(1)),
                        kind: Some(PunchKind::Out),
                        note: None,
                        reason: None,
                    },
                    Ruling::Void => PunchCommand::Void { note: None, reason: None },
                };
                self.ruled.insert(punch);
                self.execute::<Punch>(punch, command).await;
            }
            Act::Policy {
                site: place,
                refer_visitors,
                near_duplicate_s,
                travel_s,
                lookback_s,
                clock_s,
            } => {
                let policy = Policy {
                    refer_visitors,
                    near_duplicate_s,
                    travel_s,
                    lookback_s,
                    clock_suspect_s: clock_s,
                    ..Policy::default()
                };
                let change = SiteCommand::ChangePolicy { policy, from: None };
                self.execute::<Site>(site(place), change).await;
            }
            Act::Hire { person: who, site: place } => {
                let register = EmployeeCommand::Register { site: site(place), fields: vec![] };
                self.execute::<Employee>(person(who), register).await;
            }
            Act::Move { person: who, to, from } => {
                let assign = EmployeeCommand::AssignToSite { site: site(to), from: None };
                self.execute::<Employee>(person(who), assign).await;
                let unassign =
                    EmployeeCommand::UnassignFromSite { site: site(from), until: at(450) };
                self.execute::<Employee>(person(who), unassign).await;
            }
            Act::Issue { person: who, badge, from_s } => {
                let holding = holding(who, badge);
                let row = sqlx::query(
                    "insert into badge_holdings values ($1, $2, $3, '', now()) \
                     on conflict do nothing",
                );
                row.bind(holding.0.as_slice())
                    .bind(person(who).uuid())
                    .bind(format!("B{badge}"))
                    .execute(&self.world.pools.writer)
                    .await
                    .unwrap();
                self.issued.insert((who, badge));
                let issue = EmployeeCommand::IssueBadge { holding, from: at(from_s) };
                self.execute::<Employee>(person(who), issue).await;
            }
            Act::EndBadge { person: who, badge, until_s } => {
                if !self.issued.contains(&(who, badge)) {
                    return;
                }
                let (holding, until) = (holding(who, badge), at(until_s));
                let because = BadgeEnd::Returned;
                let end = EmployeeCommand::EndBadge { holding, until, because };
                self.execute::<Employee>(person(who), end).await;
            }
            Act::Return { person: who, at_s } => {
                let back = EmployeeCommand::Return { at: at(at_s) };
                self.execute::<Employee>(person(who), back).await;
            }
            Act::CancelDeparture { person: who } => {
                let free = (0..BADGES).map(|badge| holding(who, badge)).collect();
                let cancel = EmployeeCommand::CancelDeparture { free };
                self.execute::<Employee>(person(who), cancel).await;
            }
            Act::Assign { punch, person: who } => {
                let Some(punch) = punch.checked_rem(self.punches.len()) else { return };
                let punch = self.punches[punch];
                let assign =
                    PunchCommand::Assign { employee: person(who), reason: None, note: None };
                self.ruled.insert(punch);
                self.execute::<Punch>(punch, assign).await;
            }
            Act::Depart { person: who, at_s } => {
                let depart = EmployeeCommand::Depart { at: at(at_s) };
                self.execute::<Employee>(person(who), depart).await;
            }
            Act::Reassign { kiosk, site: place } => {
                let device = self.kiosks[usize::from(kiosk)].id;
                let assign = DeviceCommand::AssignSite { site: site(place) };
                self.execute::<Device>(device, assign).await;
            }
            Act::Revoke { kiosk } => {
                let device = self.kiosks[usize::from(kiosk)].id;
                let revoke = DeviceCommand::Revoke { at: at(0) };
                self.execute::<Device>(device, revoke).await;
            }
        }
    }

    async fn close(self) {
        self.world.close().await;
    }
}

/// What was found of each punch and each device, in the ledger's order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdicts {
    punches: BTreeMap<PunchId, Vec<PunchEvent>>,
    devices: BTreeMap<DeviceId, Vec<DeviceEvent>>,
}

impl Verdicts {
    async fn read(stage: &Stage) -> Self {
        let (feed, mut place, mut found) =
            (stage.world.ledger.feed(), Position::START, Self::default());
        loop {
            let entries = feed.read(place, 1_000).await.unwrap();
            let Some(last) = entries.last() else { return found };
            place = last.position();
            for entry in entries {
                match entry.event().unwrap().clone() {
                    Event::Punch(
                        punch,
                        event @ (PunchEvent::AnomalyFlagged { .. }
                        | PunchEvent::AnomalyWithdrawn { .. }
                        | PunchEvent::ReferralLifted {}
                        | PunchEvent::ReferredForReview { .. }
                        | PunchEvent::Accepted { basis: Basis::Policy, .. }),
                    ) => found.punches.entry(punch).or_default().push(event),
                    // Where it stands that they hold it is another position in each ledger.
                    Event::Punch(
                        punch,
                        PunchEvent::Identified {
                            employee,
                            ground: Ground::Badge { holding, .. },
                            note,
                        },
                    ) => {
                        let ground = Ground::Badge { holding, issued: None };
                        let identified = PunchEvent::Identified { employee, ground, note };
                        found.punches.entry(punch).or_default().push(identified);
                    }
                    Event::Device(
                        device,
                        event @ (DeviceEvent::SequenceGapOpened { .. }
                        | DeviceEvent::SequenceGapClosed { .. }
                        | DeviceEvent::LinkBroken { .. }
                        | DeviceEvent::ForkDetected { .. }),
                    ) => found.devices.entry(device).or_default().push(event),
                    _ => {}
                }
            }
        }
    }

    /// What differs: of each punch and device both.
    fn differences(&self, other: &Self) -> Vec<String> {
        fn of<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
            one: &BTreeMap<K, V>,
            other: &BTreeMap<K, V>,
        ) -> Vec<String> {
            let keys: BTreeSet<&K> = one.keys().chain(other.keys()).collect();
            let differ = keys.into_iter().filter(|key| one.get(key) != other.get(key));
            differ
                .map(|key| format!("{key:?}: {:?}\nand {:?}", one.get(key), other.get(key)))
                .collect()
        }
        [of(&self.punches, &other.punches), of(&self.devices, &other.devices)].concat()
    }

    /// A ruling that came first leaves nothing to be ruled by policy, and one that says whose the
    /// punch is takes back what doubted that; what is doubtful of it in the end is the same.
    fn doubts_of(mut self, ruled: &BTreeSet<PunchId>) -> Self {
        for punch in ruled {
            let Some(events) = self.punches.get_mut(punch) else { continue };
            let mut doubts = Vec::new();
            for event in events.drain(..) {
                match event {
                    PunchEvent::AnomalyFlagged { anomaly } => doubts.push(anomaly),
                    PunchEvent::AnomalyWithdrawn { anomaly } => {
                        doubts.retain(|held| *held != anomaly);
                    }
                    _ => {}
                }
            }
            doubts.sort_by_key(|anomaly| format!("{anomaly:?}"));
            let flagged = |anomaly| PunchEvent::AnomalyFlagged { anomaly };
            *events = doubts.into_iter().map(flagged).collect();
        }
        self.punches.retain(|_, events| !events.is_empty());
        self
    }
}

async fn judge(script: &[Act], way: &Way) -> (Verdicts, BTreeSet<PunchId>) {
    let mut stage = Stage::new().await;
    let ledger = stage.world.ledger.clone();
    let new = || Adjudicator::new(ledger.clone());
    let (mut adjudicator, mut walks) = (new(), way.walks.iter().cycle());
    let mut between = way.between.iter().cycle();
    for act in script.iter().map(Some).chain([None]) {
        let judged = match act {
            Some(act) => {
                stage.play(act).await;
                *between.next().unwrap()
            }
            None => Some(Judged::All),
        };
        while let Some(judged) = judged {
            if way.forgetful {
                adjudicator = new();
            }
            adjudicator = adjudicator
                .with_walk_events_max(*walks.next().unwrap())
                .with_judged_events_max(way.found_max);
            let moved = adjudicator.step().await.unwrap().is_some();
            if !moved || matches!(judged, Judged::OneWalk) {
                break;
            }
        }
    }
    let (found, ruled) = (Verdicts::read(&stage).await, std::mem::take(&mut stage.ruled));
    stage.close().await;
    (found, ruled)
}

fn same(one: &Verdicts, other: &Verdicts, when: &str) -> Result<(), TestCaseError> {
    let differences = one.differences(other);
    prop_assert!(differences.is_empty(), "{}: {}", when, differences.join("\n"));
    Ok(())
}

#[test]
fn verdicts_depend_on_the_ledgers_order_alone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cases = std::env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    });
    let script = (vec(act(), 1..40), way(), vec(2u32..40, 1..6));
    runner
        .run(&script, |(script, way, walks)| {
            runtime.block_on(async {
                let (whole, ruled) = judge(&script, &Way::at_the_end(&[100_000])).await;
                let (one_by_one, _) = judge(&script, &Way::at_the_end(&[2])).await;
                same(&whole, &one_by_one, "in the shortest walks")?;
                let (cut, _) = judge(&script, &Way::at_the_end(&walks)).await;
                same(&whole, &cut, "in walks of some lengths")?;
                let (meanwhile, _) = judge(&script, &way).await;
                if way.waits() {
                    same(&whole, &meanwhile, "by several")
                } else {
                    let (whole, meanwhile) = (whole.doubts_of(&ruled), meanwhile.doubts_of(&ruled));
                    same(&whole, &meanwhile, "judged while it goes on")
                }
            })
        })
        .unwrap();
}

/// Found by the above: a person says whose a punch is, and a neighbour's policy changes after it.
#[test]
fn a_neighbour_is_looked_at_by_the_policy_of_then() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let policy = |travel_s| Act::Policy {
        site: 0,
        refer_visitors: false,
        near_duplicate_s: 0,
        travel_s,
        lookback_s: 4_000,
        clock_s: 100,
    };
    let tap = |person, site, at_s| Tap {
        person,
        site,
        out: false,
        at_s,
        clock_s: None,
        numbered: Numbered::Next,
    };
    let taps = vec![tap(3, 0, 790), tap(0, 2, 738)];
    let script = [
        policy(0),
        Act::Deliver { kiosk: 0, taps },
        Act::Assign { punch: 1, person: 3 },
        policy(816),
    ];
    runtime.block_on(async {
        let (whole, ruled) = judge(&script, &Way::at_the_end(&[100_000])).await;
        let each = Way { between: vec![Some(Judged::All)], ..Way::at_the_end(&[100_000]) };
        let (meanwhile, _) = judge(&script, &each).await;
        let (whole, meanwhile) = (whole.doubts_of(&ruled), meanwhile.doubts_of(&ruled));
        same(&whole, &meanwhile, "judged while it goes on").unwrap();
    });
}
