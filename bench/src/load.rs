//! Punches to measure with: made, signed and serialised before any clock runs.

use ed25519_dalek::SigningKey;
use punchtrail_domain::{
    AggregateType,
    punch::{Basis, Clock, PunchEvent},
};
use punchtrail_infra::ledger::{NewEvent, StreamAppend};
use punchtrail_protocol::{
    BootId, DeviceId, Digest, EmployeeId, OrgId, PunchId, SiteId, Time, capture::PunchKind,
    signing::Signature,
};
use punchtrail_testkit::{Chain, text};
use uuid::Uuid;

/// A day's worth of seconds between a worker's punches keeps them from being near-duplicates.
const APART_MS: i64 = 900_000;

/// A device that makes captures.
pub struct Kiosk {
    /// The people who punch at it, in turn.
    people: Vec<EmployeeId>,
    start: Time,
    chain: Chain,
    numbered_from: Option<u64>,
}

/// The punch of a number: an id that a script can make, too.
pub fn numbered(number: u64) -> PunchId {
    PunchId(Uuid::from_u128(0x0190_b5a2_0000_7000_8000_0000_0000_0000 + u128::from(number)))
}

/// A capture, signed.
pub struct Signed {
    pub punch: PunchId,
    pub text: String,
    pub signature: Signature,
}

impl Kiosk {
    /// A device of `people`, who punch from `start` on.
    pub fn new(mut chain: Chain, people: Vec<EmployeeId>, start: Time) -> Self {
        chain.next.boot = BootId::NIL;
        chain.next.app = "punchtrail-bench/1".into();
        Self { people, start, chain, numbered_from: None }
    }

    /// A device that nobody enrolled, for rows that don't look at who sent a punch.
    pub fn unknown(people: usize) -> Self {
        let people = (0..people).map(|_| EmployeeId(Uuid::new_v4())).collect();
        let key = SigningKey::from_bytes(&rand::random());
        let (site, device) = (SiteId(Uuid::new_v4()), DeviceId(Uuid::new_v4()));
        let start = Time::from_millis(1_790_000_000_000);
        Self::new(Chain::new(OrgId::NIL, site, device, key), people, start)
    }

    /// Makes punches whose ids are numbers, from this one on.
    #[must_use]
    pub fn numbered_from(mut self, number: u64) -> Self {
        self.numbered_from = Some(number);
        self
    }

    /// Where it stands.
    pub fn site(&self) -> SiteId {
        self.chain.next.site
    }

    /// Its id.
    pub fn device(&self) -> DeviceId {
        self.chain.next.device
    }

    /// The number of the last punch.
    pub fn seq(&self) -> u64 {
        self.chain.seq()
    }

    /// The next punch.
    pub fn punch(&mut self) -> Signed {
        self.punch_with(None)
    }

    /// The next punch, whose first frame has this digest.
    pub fn punch_with(&mut self, photo: Option<Digest>) -> Signed {
        let made = self.seq();
        let turn = made as usize;
        let (who, round) = (turn % self.people.len(), (turn / self.people.len()) as i64);
        let capture = self.chain.capture_with(|capture| {
            if let Some(first) = self.numbered_from {
                capture.punch = numbered(first + made);
            }
            capture.employee = Some(self.people[who]);
            capture.kind = if round % 2 == 0 { PunchKind::In } else { PunchKind::Out };
            capture.captured_at = self.start.plus_millis(round * APART_MS + who as i64);
            capture.uptime_ms = capture.seq;
            capture.photo = photo;
        });
        let text = text(&capture);
        Signed { punch: capture.punch, signature: self.chain.sign(text.as_bytes()), text }
    }
}

/// The events that every punch of every row has in all: captured, synced, accepted.
pub fn events(signed: &Signed, device: DeviceId) -> [PunchEvent; 3] {
    [
        PunchEvent::Captured { capture: signed.text.as_str().into(), signature: signed.signature },
        PunchEvent::Synced {
            device,
            received_at: Time::from_millis(1_790_000_000_000),
            clock: Clock::Unknown,
        },
        PunchEvent::Accepted { basis: Basis::Policy, note: None, reason: None },
    ]
}

/// A punch's whole stream, ready for the ledger.
pub fn stream(kiosk: &mut Kiosk) -> StreamAppend {
    let signed = kiosk.punch();
    StreamAppend {
        aggregate_type: AggregateType::Punch,
        aggregate_id: signed.punch.to_string(),
        expected: 0,
        events: events(&signed, kiosk.device()).iter().map(NewEvent::of).collect(),
    }
}
