//! Punches to measure with: made, signed and serialised before any clock runs.

use ed25519_dalek::SigningKey;
use punchtrail_domain::{
    AggregateType,
    punch::{Basis, Clock, PunchEvent},
};
use punchtrail_infra::ledger::{NewEvent, StreamAppend};
use punchtrail_protocol::{
    BootId, DeviceId, Digest, EmployeeId, OrgId, PunchId, SiteId, Time,
    capture::{Capture, IdentifiedBy, PunchKind},
    signing::{CAPTURE_TYPE, Signature, sign},
};
use uuid::Uuid;

/// A day's worth of seconds between a worker's punches keeps them from being near-duplicates.
const APART_MS: i64 = 900_000;

/// A device that makes captures.
pub struct Kiosk {
    /// Its identity.
    pub org: OrgId,
    /// Where it stands.
    pub site: SiteId,
    /// Its id.
    pub device: DeviceId,
    /// Its key.
    pub key: SigningKey,
    /// The people who punch at it, in turn.
    pub people: Vec<EmployeeId>,
    start: Time,
    seq: u64,
    prev: Digest,
    numbered_from: Option<u64>,
}

/// The punch of a number: an id that a script can make, too.
pub fn numbered(number: u64) -> PunchId {
    PunchId(Uuid::from_u128(0x0190_b5a2_0000_7000_8000_0000_0000_0000 + u128::from(number)))
}

/// A capture, signed.
pub struct Signed {
    /// The punch.
    pub punch: PunchId,
    /// The signed text.
    pub text: String,
    /// The signature.
    pub signature: Signature,
}

impl Kiosk {
    /// A device of `people`, who punch from `start` on.
    pub fn new(
        org: OrgId,
        site: SiteId,
        device: DeviceId,
        key: SigningKey,
        people: Vec<EmployeeId>,
        start: Time,
    ) -> Self {
        let (seq, prev, numbered_from) = (0, Digest::ZERO, None);
        Self { org, site, device, key, people, start, seq, prev, numbered_from }
    }

    /// A device that nobody enrolled, for rows that don't look at who sent a punch.
    pub fn unknown(people: usize) -> Self {
        let people = (0..people).map(|_| EmployeeId(Uuid::new_v4())).collect();
        let key = SigningKey::from_bytes(&rand::random());
        let (site, device) = (SiteId(Uuid::new_v4()), DeviceId(Uuid::new_v4()));
        let start = Time::from_millis(1_790_000_000_000);
        Self::new(OrgId::NIL, site, device, key, people, start)
    }

    /// Makes punches whose ids are numbers, from this one on.
    #[must_use]
    pub fn numbered_from(mut self, number: u64) -> Self {
        self.numbered_from = Some(number);
        self
    }

    /// The number of the last punch.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The next punch.
    pub fn punch(&mut self) -> Signed {
        let turn = self.seq as usize;
        let (who, round) = (turn % self.people.len(), (turn / self.people.len()) as i64);
        self.seq += 1;
        let id = match self.numbered_from {
            Some(first) => numbered(first + self.seq - 1),
            None => PunchId(Uuid::now_v7()),
        };
        let capture = Capture {
            v: 1,
            punch: id,
            org: self.org,
            site: self.site,
            device: self.device,
            employee: Some(self.people[who]),
            badge: None,
            kind: if round % 2 == 0 { PunchKind::In } else { PunchKind::Out },
            captured_at: self.start.plus_millis(round * APART_MS + who as i64),
            utc_offset_s: 3_600,
            tz: "Europe/Berlin".into(),
            seq: self.seq,
            prev: self.prev,
            boot: BootId::NIL,
            uptime_ms: self.seq,
            identified_by: IdentifiedBy::Badge,
            photo: None,
            offline: true,
            app: "punchtrail-bench/1".into(),
        };
        let bytes = capture.to_bytes();
        self.prev = Digest::of(&bytes);
        let signature = sign(&self.key, CAPTURE_TYPE, &bytes);
        let text = String::from_utf8(bytes).unwrap_or_default();
        Signed { punch: capture.punch, text, signature }
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
        PunchEvent::Accepted { basis: Basis::Policy, note: None },
    ]
}

/// A punch's whole stream, ready for the ledger.
pub fn stream(kiosk: &mut Kiosk) -> StreamAppend {
    let signed = kiosk.punch();
    StreamAppend {
        aggregate_type: AggregateType::Punch,
        aggregate_id: signed.punch.to_string(),
        expected: 0,
        events: events(&signed, kiosk.device).iter().map(NewEvent::of).collect(),
    }
}
