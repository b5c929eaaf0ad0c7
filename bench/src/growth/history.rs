//! Years of punches at forty sites, written as the ledger, the adjudicator and the devices' chains
//! would have them: each device's people punch in the morning and in the evening, it delivers
//! twenty punches at a time, and all of them are accepted.

use anyhow::{Context, ensure};
use ed25519_dalek::SigningKey;
use punchtrail_domain::{
    AggregateType, StoredEvent,
    log::{leaf::Leaf, recorded::Actor},
    punch::{Basis, Clock, PunchEvent},
};
use punchtrail_infra::{
    access::deployment::Deployment,
    devices::enrolment::{self, Enrolment},
    ledger::{Ledger, Metadata},
    people::import,
    postgres::{
        Pools,
        copy::{Copying, Row, Rows},
    },
    sites,
};
use punchtrail_protocol::{
    BootId, DeviceId, Digest, EmployeeId, OrgId, Position, PunchId, SiteId, Time,
    capture::{Capture, PunchKind},
    signing::{PublicKey, Signature},
};
use punchtrail_testkit::{Chain, text};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::load::numbered;

const SITES: usize = 40;
const DEVICES_PER_SITE: usize = 5;
const PEOPLE_PER_DEVICE: usize = 20;
const PEOPLE_PER_SITE: usize = DEVICES_PER_SITE * PEOPLE_PER_DEVICE;
const DEVICES: usize = SITES * DEVICES_PER_SITE;
/// Captured, synced, accepted.
const EVENTS_PER_PUNCH: u64 = 3;
/// Every device's people once.
const EVENTS_PER_ROUND: u64 = (DEVICES * PEOPLE_PER_DEVICE) as u64 * EVENTS_PER_PUNCH;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// Between two people at one door.
const APART_MS: i64 = 20_000;
/// Where the measurements' own punches begin, in days ago: within the look-back, so that they are
/// accepted, too. Each round of theirs is an hour later, and there are some four hundred.
const MEASURED_DAYS_AGO: i64 = 25;

/// A device, its people, and how often they have punched.
pub struct Door {
    pub device: DeviceId,
    pub site: SiteId,
    pub token: String,
    pub people: Vec<EmployeeId>,
    chain: Chain,
    /// Its place among the devices: its punches are numbered by it.
    number: usize,
    rounds: u64,
    /// How many of them were the measurements'.
    measured: u64,
}

/// A capture that was signed.
pub struct Signed {
    pub capture: Capture,
    pub text: String,
    pub signature: Signature,
}

/// When punches were recorded, by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calendar {
    /// Today, whenever they were captured: a day each day.
    Today,
    /// When they were captured, a day's punches so many days after the ones before.
    AsCaptured { days_apart: i64 },
}

impl Calendar {
    const fn days_apart(self) -> i64 {
        match self {
            Self::Today => 1,
            Self::AsCaptured { days_apart } => days_apart,
        }
    }
}

/// A ledger that grows.
pub struct History {
    pub doors: Vec<Door>,
    calendar: Calendar,
    /// The day on which the first punches were captured.
    start: Time,
}

impl Door {
    /// Everybody's next punch, in the morning of the next day or in its evening.
    fn round(&mut self, start: Time, calendar: Calendar) -> Vec<Signed> {
        let out = (self.rounds - self.measured) % 2 == 1;
        self.punches(self.next(start, calendar), out)
    }

    /// When that is.
    fn next(&self, start: Time, calendar: Calendar) -> Time {
        let half_days = self.rounds - self.measured;
        let (day, out) = ((half_days / 2) as i64, half_days % 2 == 1);
        let hour = if out { 16 } else { 7 };
        start.plus_millis(day * calendar.days_apart() * DAY_MS + hour * HOUR_MS)
    }

    /// Everybody's next punch for a measurement.
    pub fn measured_round(&mut self) -> Vec<Signed> {
        let begins = today().plus_millis(self.measured as i64 * HOUR_MS);
        let out = self.measured % 2 == 1;
        self.measured += 1;
        self.punches(begins.plus_millis(-MEASURED_DAYS_AGO * DAY_MS), out)
    }

    fn punches(&mut self, begins: Time, out: bool) -> Vec<Signed> {
        let first = (self.rounds * DEVICES as u64 + self.number as u64) * PEOPLE_PER_DEVICE as u64;
        self.rounds += 1;
        let (people, chain) = (&self.people, &mut self.chain);
        let signed = people.iter().zip(0..).map(|(employee, n)| {
            let capture = chain.capture_with(|capture| {
                capture.punch = numbered(first + n);
                capture.employee = Some(*employee);
                capture.kind = if out { PunchKind::Out } else { PunchKind::In };
                capture.captured_at = begins.plus_millis(n as i64 * APART_MS);
                capture.uptime_ms = capture.seq * 1_000;
            });
            let text = text(&capture);
            let signature = chain.sign(text.as_bytes());
            Signed { capture, text, signature }
        });
        signed.collect()
    }
}

impl History {
    /// Sites, people and devices, by the usual ways; `events_max` says how long ago the first punch
    /// has to be, so that none lies in the future.
    pub async fn begin(pools: &Pools, events_max: u64, calendar: Calendar) -> anyhow::Result<Self> {
        let ledger = Ledger::open(pools.writer.clone()).await?;
        let org = Deployment::open(&pools.writer).await?.org;
        let by = Metadata::default();
        let mut roster = String::from("badge,name,pin,site\n");
        let mut places = Vec::new();
        for n in 0..SITES {
            let site = SiteId(Uuid::now_v7());
            sites::add(&ledger, site, &format!("Site {n}"), "Europe/Berlin".into(), &by).await?;
            for person in 0..PEOPLE_PER_SITE {
                let badge = n * PEOPLE_PER_SITE + person;
                roster.push_str(&format!("b{badge:06},Worker {badge},,{site}\n"));
            }
            places.push(site);
        }
        let told = std::sync::Arc::new(|_, _| {});
        import::import(&ledger, roster.as_bytes(), &import::Options::default(), &by, told).await?;
        let people: Vec<Uuid> =
            sqlx::query_scalar("select employee from badge_holdings order by number")
                .fetch_all(&pools.writer)
                .await?;
        ensure!(people.len() == SITES * PEOPLE_PER_SITE, "everybody was hired");
        let mut doors = Vec::new();
        for (number, people) in people.chunks(PEOPLE_PER_DEVICE).enumerate() {
            let site = places[number / DEVICES_PER_SITE];
            let people = people.iter().map(|id| EmployeeId(*id)).collect();
            doors.push(enroll(&ledger, org, site, number, people).await?);
        }
        ledger.close().await;
        let punched = (events_max / EVENTS_PER_ROUND / 2) as i64 * calendar.days_apart();
        let days = punched + MEASURED_DAYS_AGO + 2;
        Ok(Self { doors, calendar, start: today().plus_millis(-days * DAY_MS) })
    }

    /// A punch of those written so far: the same for the same turn.
    pub fn punch(&self, turn: usize) -> PunchId {
        // A prime's steps, so that neighbours aren't read one after the other.
        let rounds = self.doors.iter().map(|door| door.rounds).min().unwrap_or(1).max(1);
        let written = rounds as usize * DEVICES * PEOPLE_PER_DEVICE;
        numbered((turn * 1_000_003 % written) as u64)
    }

    /// The last days on which everybody has punched: a month, in dates.
    pub fn month(&self) -> anyhow::Result<(String, String)> {
        let half_days = self.doors.iter().map(|door| door.rounds - door.measured);
        let rounds = half_days.min().unwrap_or(0);
        let last = self.start.plus_millis((rounds / 2) as i64 * DAY_MS);
        let date = |time: Time| -> anyhow::Result<String> {
            let at = jiff::Timestamp::from_millisecond(time.millis())?;
            Ok(at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string())
        };
        Ok((date(last.plus_millis(-30 * DAY_MS))?, date(last)?))
    }

    /// Writes whole rounds until the ledger has that many events, and gives how many were written.
    /// No server may run meanwhile.
    pub async fn write_up_to(&mut self, owner: &PgPool, events: u64) -> anyhow::Result<u64> {
        let head: i64 =
            sqlx::query_scalar("select position from ledger_head").fetch_one(owner).await?;
        let (first, mut head) = (head.cast_unsigned(), head.cast_unsigned());
        let mut connection = owner.acquire().await?;
        sqlx::query("set synchronous_commit = off").execute(&mut *connection).await?;
        let mut next = self.prepare(head)?;
        while head < events {
            let stretch = next;
            head += EVENTS_PER_ROUND;
            // The next round is signed while this one is written.
            let (written, prepared) = tokio::join!(stretch.write(&mut connection), async {
                tokio::task::block_in_place(|| match head < events {
                    true => self.prepare(head),
                    false => Ok(Stretch::default()),
                })
            });
            written?;
            next = prepared?;
        }
        self.stand_at(&mut connection, head).await?;
        drop(connection);
        Ok(head - first)
    }

    /// Everybody's next punch and what the ledger would hold of it, by two threads.
    fn prepare(&mut self, head: u64) -> anyhow::Result<Stretch> {
        let (start, calendar) = (self.start, self.calendar);
        let recorded_us = match calendar {
            Calendar::Today => jiff::Timestamp::now().as_microsecond(),
            Calendar::AsCaptured { .. } => {
                let next = self.doors.first().context("a door")?.next(start, calendar);
                next.plus_millis(HOUR_MS).timestamp().as_microsecond()
            }
        };
        let half = self.doors.len().div_ceil(2);
        let each = PEOPLE_PER_DEVICE as u64 * EVENTS_PER_PUNCH;
        let parts = std::thread::scope(|scope| {
            let parts = self.doors.chunks_mut(half).enumerate().map(|(part, doors)| {
                scope.spawn(move || {
                    let mut stretch = Stretch { recorded_us, ..Stretch::default() };
                    for (n, door) in doors.iter_mut().enumerate() {
                        stretch.delivered(
                            door,
                            (start, calendar),
                            head + (part * half + n) as u64 * each,
                        )?;
                    }
                    anyhow::Ok(stretch)
                })
            });
            let parts: Vec<_> = parts.collect();
            parts.into_iter().map(|part| part.join()).collect::<Vec<_>>()
        });
        let mut whole = Stretch { recorded_us, ..Stretch::default() };
        for part in parts {
            let part = part.ok().context("a thread that signs")??;
            whole.events.extend(part.events);
            whole.held.extend(part.held);
        }
        Ok(whole)
    }

    /// Moves the head, the adjudicator and what is remembered of each device to where the rows are.
    async fn stand_at(&self, connection: &mut PgConnection, head: u64) -> anyhow::Result<()> {
        sqlx::query("update ledger_head set position = $1, recorded_at = clock_timestamp()")
            .bind(Position(head).to_db())
            .execute(&mut *connection)
            .await?;
        sqlx::query("update followers set position = $1 where name = 'adjudicator'")
            .bind(Position(head).to_db())
            .execute(&mut *connection)
            .await?;
        for door in &self.doors {
            let (seq, device) = (door.chain.seq().cast_signed(), door.device.uuid());
            sqlx::query(
                "insert into device_progress values ($1, $2, $2, 0) on conflict (device) \
                 do update set acked_through = $2, highest = $2",
            )
            .bind(device)
            .bind(seq)
            .execute(&mut *connection)
            .await?;
            sqlx::query(
                "insert into judged_devices values ($1, $2, $3, '{}') on conflict (device) \
                 do update set highest = $2, digest = $3, gaps = '{}'",
            )
            .bind(device)
            .bind(seq)
            .bind(door.chain.next.prev.0.as_slice())
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

async fn enroll(
    ledger: &Ledger,
    org: OrgId,
    site: SiteId,
    number: usize,
    people: Vec<EmployeeId>,
) -> anyhow::Result<Door> {
    let code = enrolment::make_code(ledger.pool(), site).await?;
    let key = SigningKey::from_bytes(&rand::random());
    let enrolment = Enrolment {
        code: code.shown().replace('-', ""),
        name: format!("Door {number}"),
        key: PublicKey::from(&key),
        app: "punchtrail-bench/1".into(),
    };
    let enrolled = enrolment::enroll(ledger, org, enrolment).await?;
    let device = enrolled.device;
    let mut chain = Chain::new(org, site, device, key);
    chain.next.boot = BootId::NIL;
    chain.next.app = "punchtrail-bench/1".into();
    let token = enrolled.token.reveal().to_owned();
    Ok(Door { device, site, token, people, chain, number, rounds: 0, measured: 0 })
}

fn today() -> Time {
    Time::from_millis(Time::from(jiff::Timestamp::now()).millis() / DAY_MS * DAY_MS)
}

/// Rows of one round.
#[derive(Default)]
struct Stretch {
    recorded_us: i64,
    events: Vec<EventRow>,
    held: Vec<(Capture, Digest, u64)>,
}

struct EventRow {
    punch: String,
    sequence: u64,
    event: &'static str,
    version: &'static str,
    payload: String,
    metadata: String,
    position: u64,
    leaf: Digest,
}

impl Stretch {
    /// A device's delivery at a place in the ledger, and that it was judged at once.
    fn delivered(
        &mut self,
        door: &mut Door,
        (start, calendar): (Time, Calendar),
        head: u64,
    ) -> anyhow::Result<()> {
        let by_device = Metadata::new(Actor::Device(door.device))
            .with_request(Uuid::now_v7().to_string())
            .to_text();
        let by_policy = Metadata::new(Actor::Policy).to_text();
        let (signed, device) = (door.round(start, calendar), door.device);
        let judged = head + 2 * signed.len() as u64;
        for (n, Signed { capture, text, signature }) in (0..).zip(signed) {
            let punch = capture.punch.to_string();
            let position = head + 2 * n + 1;
            let received_at = capture.captured_at.plus_millis(1_000);
            let digest = Digest::of(text.as_bytes());
            let captured = PunchEvent::Captured { capture: text.into(), signature };
            let synced = PunchEvent::Synced { device, received_at, clock: Clock::Unknown };
            let accepted = PunchEvent::Accepted { basis: Basis::Policy, note: None, reason: None };
            self.push(&punch, 1, &captured, &by_device, position)?;
            self.push(&punch, 2, &synced, &by_device, position + 1)?;
            self.push(&punch, 3, &accepted, &by_policy, judged + n + 1)?;
            self.held.push((capture, digest, position));
        }
        Ok(())
    }

    fn push(
        &mut self,
        punch: &str,
        sequence: u64,
        event: &PunchEvent,
        metadata: &str,
        position: u64,
    ) -> anyhow::Result<()> {
        let payload = serde_json::to_string(event)?;
        let leaf = Leaf {
            position,
            recorded_at_us: self.recorded_us,
            aggregate_type: AggregateType::Punch.as_str(),
            aggregate_id: punch,
            sequence,
            event_type: event.name(),
            event_version: event.version(),
            payload: &payload,
            metadata,
        };
        let leaf = leaf.hash()?;
        self.events.push(EventRow {
            punch: punch.to_owned(),
            sequence,
            event: event.name(),
            version: event.version(),
            payload,
            metadata: metadata.to_owned(),
            position,
            leaf,
        });
        Ok(())
    }

    async fn write(self, connection: &mut PgConnection) -> anyhow::Result<()> {
        let statement = "copy events (aggregate_type, aggregate_id, sequence, event_type, \
             event_version, payload, metadata, position, recorded_at, leaf_hash) from stdin \
             (format binary)";
        let mut rows = Copying::begin(connection, statement, 10).await?;
        for event in &self.events {
            let row: &mut Row<'_> = &mut rows.row().await?;
            row.text(AggregateType::Punch.as_str())
                .text(&event.punch)
                .bigint(event.sequence.cast_signed())
                .text(event.event)
                .text(event.version)
                .text(&event.payload)
                .text(&event.metadata)
                .position(Position(event.position))
                .timestamp_us(self.recorded_us)
                .digest(&event.leaf);
        }
        rows.finish().await?;
        let (mut chains, mut judged) = (Rows::new(6), Rows::new(6));
        for (capture, digest, position) in &self.held {
            chains
                .row()
                .uuid(capture.device.uuid())
                .bigint(capture.seq.cast_signed())
                .digest(digest)
                .digest(&capture.prev)
                .uuid(capture.punch.uuid())
                .position(Position(*position));
            judged
                .row()
                .uuid(capture.punch.uuid())
                .uuid(capture.employee.context("a person's punch")?.uuid())
                .timestamp_us(capture.captured_at.millis() * 1_000)
                .uuid(capture.site.uuid())
                .text(capture.kind.as_str())
                .boolean(false);
        }
        let statement = "copy device_chain (device, seq, digest, prev, punch, position) from \
             stdin (format binary)";
        chains.copy_into(connection, statement).await?;
        let statement = "copy judged_punches (punch, employee, captured_at, site, kind, voided) \
             from stdin (format binary)";
        Ok(judged.copy_into(connection, statement).await?)
    }
}
