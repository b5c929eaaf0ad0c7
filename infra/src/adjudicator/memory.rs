//! What the adjudicator remembers of punches and of devices' numbers, as its tables have it.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff_sqlx::ToSqlx;

use punchtrail_domain::{
    device::{Chain, Gap},
    policy::judging::{Doubted, NEIGHBOURS_MAX, Neighbour},
};
use punchtrail_protocol::{DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time};
use sqlx::{Row, postgres::PgRow};

use crate::postgres::Pool;

use super::AdjudicatorError;

/// A person's punches in the order in which they were truly made.
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
         near_duplicate, two_sites, opposite_kind from (select employee, punch, \
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
                opposite_kind: row.try_get("opposite_kind")?,
            },
        };
        let captured = found.entry(employee).or_default();
        captured.insert((neighbour.true_at, neighbour.punch), neighbour);
    }
    Ok(found)
}

/// A punch as it is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered {
    pub employee: Option<EmployeeId>,
    pub true_at: Time,
    pub is_out: bool,
}

/// What is remembered of these punches.
pub(super) async fn remembered(
    pool: &Pool,
    punches: &[PunchId],
) -> Result<HashMap<PunchId, Remembered>, sqlx::Error> {
    if punches.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<_> = punches.iter().map(|punch| punch.uuid()).collect();
    let rows = sqlx::query(
        "select punch, employee, (extract(epoch from true_at) * 1000)::bigint as true_ms, is_out \
         from judged_punches where punch = any($1)",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let remembered = Remembered {
                employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
                true_at: Time::from_millis(row.try_get("true_ms")?),
                is_out: row.try_get("is_out")?,
            };
            Ok((PunchId(row.try_get("punch")?), remembered))
        })
        .collect()
}

/// Of these people those who have a punch.
pub(super) async fn who_punched(
    pool: &Pool,
    people: &[EmployeeId],
) -> Result<HashSet<EmployeeId>, sqlx::Error> {
    let ids: Vec<_> = people.iter().map(|employee| employee.uuid()).collect();
    let found: Vec<uuid::Uuid> = sqlx::query_scalar(
        "select employee from unnest($1::uuid[]) as asked (employee) \
         where exists (select from judged_punches judged where judged.employee = asked.employee)",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().map(EmployeeId).collect())
}

/// Of these badges those that punches of nobody wait with.
pub(super) async fn badges_that_wait(
    pool: &Pool,
    numbers: &[String],
) -> Result<HashSet<String>, sqlx::Error> {
    let found: Vec<String> = sqlx::query_scalar(
        "select badge from unnest($1::text[]) as asked (badge) where exists ( \
             select from judged_punches judged where judged.badge = asked.badge \
             and judged.employee is null)",
    )
    .bind(numbers)
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().collect())
}

/// The punches of these people since then, and those of nobody that were made with one of these
/// badges.
pub(super) async fn punches_since(
    pool: &Pool,
    people: &[EmployeeId],
    badges: &[String],
    since: Time,
) -> Result<Vec<PunchId>, sqlx::Error> {
    let ids: Vec<_> = people.iter().map(|employee| employee.uuid()).collect();
    let found: Vec<uuid::Uuid> = sqlx::query_scalar(
        "select punch from judged_punches where employee = any($1) and true_at >= $3 \
         union all select punch from judged_punches \
         where employee is null and badge = any($2) and true_at >= $3",
    )
    .bind(ids)
    .bind(badges)
    .bind(since.timestamp().to_sqlx())
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().map(PunchId).collect())
}

/// The punches that count and stand after these, of the same people, within so long: on which these
/// may cast doubt.
pub(super) async fn doubted_by(
    pool: &Pool,
    punches: &[(EmployeeId, Time, PunchId)],
    around_ms: i64,
) -> Result<Vec<PunchId>, sqlx::Error> {
    if punches.is_empty() {
        return Ok(Vec::new());
    }
    let people: Vec<_> = punches.iter().map(|(employee, ..)| employee.uuid()).collect();
    let at: Vec<i64> = punches.iter().map(|(_, at, _)| at.millis()).collect();
    let ids: Vec<_> = punches.iter().map(|(.., punch)| punch.uuid()).collect();
    let found: Vec<uuid::Uuid> = sqlx::query_scalar(
        "select distinct judged.punch from ( \
             select employee, punch, \
                 timestamptz 'epoch' + at_ms * interval '1 millisecond' as at \
             from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as w (employee, at_ms, punch)) want \
         cross join lateral (select punch from judged_punches \
             where employee = want.employee and not is_out \
             and true_at between at and at + $4 * interval '1 millisecond' \
             and (true_at, punch) > (at, want.punch) \
             order by true_at, punch limit $5) judged",
    )
    .bind(people)
    .bind(at)
    .bind(ids)
    .bind(around_ms)
    .bind(NEIGHBOURS_MAX as i64)
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().map(PunchId).collect())
}

/// Punches that are to be looked at again, at most so many; in the order in which they were made,
/// so that each finds the ones before it looked at.
pub(super) async fn to_look_at_again(
    pool: &Pool,
    most: usize,
) -> Result<Vec<PunchId>, sqlx::Error> {
    let found: Vec<uuid::Uuid> = sqlx::query_scalar(
        "select again.punch from judged_again again \
         left join judged_punches judged on judged.punch = again.punch \
         order by judged.true_at, again.punch limit $1",
    )
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().map(PunchId).collect())
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

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, sqlx::Error> {
    bytes.try_into().map(Digest).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
