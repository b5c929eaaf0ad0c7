//! A small world for tests of the ledger: a site, people, devices that make captures.

#![allow(clippy::unwrap_used, reason = "for tests only")]

use ed25519_dalek::SigningKey;
use punchtrail_domain::{
    AggregateType,
    device::{Device, DeviceCommand},
    employee::{Employee, EmployeeCommand},
    log::recorded::Actor,
    punch::Clock,
    site::{Site, SiteCommand},
};
use punchtrail_protocol::{
    DeviceId, EmployeeId, OrgId, Position, SiteId, Time,
    capture::{Capture, PunchKind},
    signing::PublicKey,
    vocabulary::QuarantineCode,
    wire::BatchItem,
};
use punchtrail_testkit::{Chain, text};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::TestDatabase;
use crate::{
    ledger::{Delivery, DeliveryItem, Ledger, Metadata, QuarantineRoom},
    postgres::Pools,
};

pub const NOON_MS: i64 = 1_790_000_000_000;

pub struct World {
    pub database: TestDatabase,
    pub pools: Pools,
    pub ledger: Ledger,
    pub site: SiteId,
    pub employee: EmployeeId,
}

impl World {
    pub async fn new() -> Self {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let ledger = Ledger::open(pools.writer.clone()).await.unwrap();
        let site = SiteId(Uuid::new_v4());
        let tz = "Europe/Berlin".to_owned();
        ledger
            .execute::<Site>(&site.to_string(), SiteCommand::Register { tz }, &Metadata::default())
            .await
            .unwrap();
        let mut world =
            Self { database, pools, ledger, site, employee: EmployeeId(Uuid::new_v4()) };
        world.employee = world.hire().await;
        world
    }

    pub async fn hire(&self) -> EmployeeId {
        let employee = EmployeeId(Uuid::new_v4());
        let command = EmployeeCommand::Register { site: self.site, fields: vec![] };
        self.ledger
            .execute::<Employee>(&employee.to_string(), command, &Metadata::default())
            .await
            .unwrap();
        employee
    }

    pub async fn device(&self) -> Kiosk {
        let key = SigningKey::from_bytes(&rand::random());
        let mut chain = Chain::new(OrgId::NIL, self.site, DeviceId(Uuid::new_v4()), key);
        chain.next.employee = Some(self.employee);
        chain.next.captured_at = Time::from_millis(NOON_MS);
        let kiosk = Kiosk::new(chain);
        let command = DeviceCommand::Enroll {
            org: OrgId::NIL,
            site: self.site,
            key: PublicKey::from(&kiosk.chain.key),
            app: "test/1".into(),
        };
        self.ledger
            .execute::<Device>(&kiosk.id.to_string(), command, &Metadata::default())
            .await
            .unwrap();
        kiosk
    }

    /// What a newer program could have written: an event of version 2, by hand and unhashed. Its
    /// number in its stream is the next, or the one given.
    pub async fn record_of_a_newer_version(
        &self,
        kind: AggregateType,
        id: &str,
        event_type: &str,
        payload: &str,
        sequence: Option<i64>,
    ) -> Position {
        let mut owner = PgConnection::connect(self.database.url()).await.unwrap();
        let position: i64 = sqlx::query_scalar(
            "with head as (update ledger_head set position = position + 1 returning position) \
             insert into events select $1, $2, \
                 coalesce($5, (select max(sequence) + 1 from events where aggregate_type = $1 \
                               and aggregate_id = $2), 1), \
                 $3, '2', $4::json, '{\"actor\":\"policy\"}'::json, position, clock_timestamp(), \
                 sha256('') from head returning position",
        )
        .bind(kind.as_str())
        .bind(id)
        .bind(event_type)
        .bind(payload)
        .bind(sequence)
        .fetch_one(&mut owner)
        .await
        .unwrap();
        owner.close().await.unwrap();
        Position::from_db(position)
    }

    pub async fn close(self) {
        self.ledger.close().await;
        self.pools.close().await;
        self.database.close().await;
    }
}

/// A device's captures, and what the server makes of what it sends.
#[derive(Clone)]
pub struct Kiosk {
    pub id: DeviceId,
    pub chain: Chain,
    /// When all of it arrives.
    pub received_at: Time,
    /// What is known of its clock.
    pub clock: Clock,
}

impl Kiosk {
    pub fn new(chain: Chain) -> Self {
        let received_at = Time::from_millis(NOON_MS + 1_000);
        Self { id: chain.next.device, chain, received_at, clock: Clock::Unknown }
    }

    pub fn capture(&mut self, kind: PunchKind, at_ms: i64) -> Capture {
        self.capture_with(|capture| {
            capture.kind = kind;
            capture.captured_at = Time::from_millis(at_ms);
        })
    }

    /// So many more, each `step_ms` after the one before; the last was at `at_ms`, and then is
    /// again.
    pub fn captures(&mut self, count: usize, at_ms: &mut i64, step_ms: i64) -> Vec<Capture> {
        let next = |_| {
            *at_ms += step_ms;
            self.capture(PunchKind::In, *at_ms)
        };
        (0..count).map(next).collect()
    }

    /// The next capture of the chain, after `change`.
    pub fn capture_with(&mut self, change: impl FnOnce(&mut Capture)) -> Capture {
        self.chain.capture_with(change)
    }

    pub fn item(&self, capture: &Capture) -> DeliveryItem {
        let text = text(capture);
        DeliveryItem::capture(
            self.chain.item(capture),
            text.clone(),
            self.chain.sign(text.as_bytes()),
            capture.punch,
            capture.seq,
            capture.prev,
            self.id,
            self.received_at,
            self.clock,
        )
    }

    pub fn garbage(&self, text: &str) -> DeliveryItem {
        let raw = BatchItem { capture: text.into(), signature: "x".into() };
        DeliveryItem::quarantine(raw, QuarantineCode::BadEncoding, None, None, None)
    }

    pub fn delivery(&self, items: Vec<DeliveryItem>) -> Delivery {
        Delivery {
            room: QuarantineRoom::OF_DEVICE,
            device: self.id,
            received_at: self.received_at,
            metadata: Metadata::new(Actor::Device(self.id)),
            items,
        }
    }
}
