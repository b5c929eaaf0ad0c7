//! What the adjudicator knows besides the punches: devices, sites and employees as of its place.
//! They are few, so they are kept in memory, folded from the ledger a page at a time; after a
//! failure they are folded anew.

use std::collections::{BTreeMap, HashMap};

use punchtrail_domain::{
    AggregateType, Event,
    device::{Chain, DeviceEvent, Gap},
    employee::{Assignments, Badges, Biometrics, EmployeeEvent, Employment},
    epoch::Anchor,
    policy::{
        Policy,
        judging::{Doubted, NEIGHBOURS_MAX, Neighbour, Person},
    },
    site::SiteRules,
};
use punchtrail_protocol::{DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time};
use sqlx::{Row, postgres::PgRow};

use crate::{ledger::Feed, postgres::Pool};

use super::AdjudicatorError;

/// Devices, sites and employees as of a place in the ledger.
#[derive(Debug, Default)]
pub(super) struct Register {
    at: Anchor,
    revoked: HashMap<DeviceId, Time>,
    sites: HashMap<SiteId, SiteRules>,
    default_policy: Policy,
    employees: HashMap<EmployeeId, Known>,
}

/// What is known of an employee.
#[derive(Debug, Default)]
struct Known {
    employment: Employment,
    assignments: Assignments,
    badges: Badges,
    biometrics: Biometrics,
}

impl Known {
    fn evolve(&mut self, event: &EmployeeEvent) {
        self.employment.evolve(event);
        self.assignments.evolve(event);
        self.badges.evolve(event);
        self.biometrics.evolve(event);
    }
}

impl Register {
    /// Knows what stands up to `place`: nothing to do but after a start, a failure, when another
    /// node judged meanwhile, or when the database went back.
    pub(super) async fn catch_up(
        &mut self,
        feed: &Feed,
        place: Anchor,
    ) -> Result<(), AdjudicatorError> {
        if self.at == place {
            return Ok(());
        }
        *self = Self::default();
        for kind in [AggregateType::Device, AggregateType::Site, AggregateType::Employee] {
            feed.of_type(kind, place.position, |recorded| {
                self.take(&recorded.event()?);
                Ok(())
            })
            .await?;
        }
        self.at = place;
        Ok(())
    }

    /// Moves on to `place`; everything up to it was given to [`Self::take`].
    pub(super) fn moved_to(&mut self, place: Anchor) {
        self.at = place;
    }

    pub(super) fn take(&mut self, event: &Event) {
        match event {
            Event::Device(device, DeviceEvent::Revoked { at }) => {
                self.revoked.insert(*device, *at);
            }
            Event::Site(site, event) => self.sites.entry(*site).or_default().evolve(event),
            Event::Employee(employee, event) => {
                self.employees.entry(*employee).or_default().evolve(event);
            }
            _ => {}
        }
    }

    /// The policy that held at the site then.
    pub(super) fn policy(&self, site: SiteId, at: Time) -> &Policy {
        self.sites.get(&site).map_or(&self.default_policy, |rules| rules.policy_at(at))
    }

    /// How far around any punch neighbours can matter, in milliseconds.
    pub(super) fn neighbourhood_ms(&self) -> i64 {
        let policies = self.sites.values().flat_map(SiteRules::policies);
        let largest = policies.map(|dated| dated.value.neighbourhood_ms()).max();
        largest.unwrap_or(0).max(self.default_policy.neighbourhood_ms())
    }

    pub(super) fn is_revoked(&self, device: DeviceId) -> bool {
        self.revoked.contains_key(&device)
    }

    pub(super) fn person(&self, employee: Option<EmployeeId>, site: SiteId, at: Time) -> Person {
        match employee.map(|employee| self.employees.get(&employee)) {
            None => Person::BadgeOnly,
            Some(None) => Person::Unknown,
            Some(Some(known)) => Person::Known {
                departed_at: known.employment.departed_before(at),
                other_holder: None,
                assigned: known.assignments.holds_at(site, at),
            },
        }
    }

    /// Whether a picture of theirs that was taken then may be compared, and with something.
    pub(super) fn compares(&self, employee: Option<EmployeeId>, taken_at: Time) -> bool {
        let known = employee.and_then(|employee| self.employees.get(&employee));
        known.is_some_and(|known| known.biometrics.compares(taken_at))
    }
}

/// A person's punches in the order of their capture.
pub(super) type Captured = BTreeMap<(Time, PunchId), Neighbour>;

/// The punches walked before that stand beside these, within so long: of each side the nearest
/// [`NEIGHBOURS_MAX`].
pub(super) async fn neighbours(
    pool: &Pool,
    wanted: &[(EmployeeId, Time, PunchId)],
    around_ms: i64,
) -> Result<HashMap<EmployeeId, Captured>, AdjudicatorError> {
    let mut found: HashMap<EmployeeId, Captured> = HashMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let people: Vec<_> = wanted.iter().map(|(employee, ..)| employee.uuid()).collect();
    let at: Vec<i64> = wanted.iter().map(|(_, at, _)| at.millis()).collect();
    let punches: Vec<_> = wanted.iter().map(|(.., punch)| punch.uuid()).collect();
    let side = |within: &str, order: &str| {
        format!(
            "(select * from judged_punches where employee = want.employee and not is_out \
             and {within} order by true_at {order}, punch {order} limit $5)"
        )
    };
    let statement = format!(
        "select distinct judged.punch, judged.employee, \
         (extract(epoch from true_at) * 1000)::bigint as true_ms, site, kind, \
         near_duplicate, two_sites from (select employee, punch, \
             timestamptz 'epoch' + at_ms * interval '1 millisecond' as at, \
             $4 * interval '1 millisecond' as around \
             from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as w (employee, at_ms, punch)) want \
         cross join lateral ({} union all {}) judged",
        side("true_at between at - around and at and (true_at, punch) < (at, want.punch)", "desc"),
        side("true_at between at and at + around and (true_at, punch) > (at, want.punch)", "asc"),
    );
    let rows = sqlx::query(&statement)
        .bind(people)
        .bind(at)
        .bind(punches)
        .bind(around_ms)
        .bind(NEIGHBOURS_MAX as i64)
        .fetch_all(pool)
        .await?;
    for row in rows {
        let employee = EmployeeId(row.try_get("employee")?);
        let kind = row.try_get::<&str, _>("kind")?.parse();
        let neighbour = Neighbour {
            punch: PunchId(row.try_get("punch")?),
            site: SiteId(row.try_get("site")?),
            kind: kind.map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            true_at: Time::from_millis(row.try_get("true_ms")?),
            out: false,
            doubted: Doubted {
                near_duplicate: row.try_get("near_duplicate")?,
                two_sites: row.try_get("two_sites")?,
                opposite_kind: false,
            },
        };
        let captured = found.entry(employee).or_default();
        captured.insert((neighbour.true_at, neighbour.punch), neighbour);
    }
    Ok(found)
}

/// How far these devices' chains were walked.
pub(super) async fn chains(
    pool: &Pool,
    devices: &[DeviceId],
) -> Result<HashMap<DeviceId, Chain>, sqlx::Error> {
    let ids: Vec<_> = devices.iter().map(|device| device.uuid()).collect();
    let rows = sqlx::query(
        "select device, highest, digest, gaps from judged_devices where device = any($1)",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let highest = row.try_get::<i64, _>("highest")?.cast_unsigned();
            let digest = digest(row.try_get("digest")?)?;
            let chain = Chain { highest, digest, gaps: gaps(row)? };
            Ok((DeviceId(row.try_get("device")?), chain))
        })
        .collect()
}

/// The gaps that a row of `judged_devices` tells of.
pub(crate) fn gaps(row: &PgRow) -> Result<Vec<Gap>, sqlx::Error> {
    let ends: Vec<i64> = row.try_get("gaps")?;
    let gap = |ends: &[i64]| Gap { from: ends[0].cast_unsigned(), to: ends[1].cast_unsigned() };
    Ok(ends.chunks_exact(2).map(gap).collect())
}

/// A capture held in a device's chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub seq: u64,
    pub digest: Digest,
    pub prev: Digest,
    pub punch: Option<PunchId>,
}

/// The captures of a device that came before a position, under numbers from one to another.
pub(super) async fn held(
    pool: &Pool,
    device: DeviceId,
    (from, to): (u64, u64),
    before: Position,
) -> Result<Vec<Held>, sqlx::Error> {
    let rows = sqlx::query(
        "select seq, digest, prev, punch from device_chain \
         where device = $1 and seq between $2 and $3 and position < $4 order by position",
    )
    .bind(device.uuid())
    .bind(from.cast_signed())
    .bind(to.cast_signed())
    .bind(before.to_db())
    .fetch_all(pool)
    .await?;
    rows.iter().map(held_row).collect()
}

/// The capture whose event stands at that position.
pub(super) async fn held_at(
    pool: &Pool,
    device: DeviceId,
    position: Position,
) -> Result<Option<Held>, sqlx::Error> {
    let row = sqlx::query(
        "select seq, digest, prev, punch from device_chain where device = $1 and position = $2",
    )
    .bind(device.uuid())
    .bind(position.to_db())
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(held_row).transpose()
}

fn held_row(row: &PgRow) -> Result<Held, sqlx::Error> {
    Ok(Held {
        seq: row.try_get::<i64, _>("seq")?.cast_unsigned(),
        digest: digest(row.try_get("digest")?)?,
        prev: digest(row.try_get("prev")?)?,
        punch: row.try_get::<Option<uuid::Uuid>, _>("punch")?.map(PunchId),
    })
}

fn digest(bytes: &[u8]) -> Result<Digest, sqlx::Error> {
    bytes.try_into().map(Digest).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
