//! What a batch of events does to devices: one row a device, however many punches it brought.

use std::{collections::HashMap, sync::Arc};

use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    AggregateType, Event,
    device::{DeviceEvent, Gap, without},
    punch::PunchEvent,
    quarantine::QuarantineEvent,
};
use punchtrail_infra::ledger::Entry;
use punchtrail_protocol::{DeviceId, Position, SiteId, Time};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::engine::{Generation, ProjectionError};

/// Punch events that say something of a device; others are passed over before they are decoded.
const OF_PUNCHES: [&str; 2] = ["Captured", "Synced"];

#[derive(Debug, Default)]
struct Changed {
    site: Option<SiteId>,
    app: Option<String>,
    enrolled_at: Option<Time>,
    revoked_at: Option<Time>,
    punches: i64,
    quarantined: i64,
    forks: i64,
    conflicts: i64,
    broken_links: i64,
    last_seq: u64,
    last_synced_at: Option<Time>,
    position: Position,
    /// Every site assigned in the batch.
    sites: Vec<SiteId>,
    /// Gaps opened (true) and closed (false), in order.
    gaps: Vec<(bool, Gap)>,
}

pub(super) async fn apply(
    tx: &mut PgConnection,
    generation: &Generation,
    events: &[Arc<Entry>],
) -> Result<(), ProjectionError> {
    let changed = fold(events)?;
    if changed.is_empty() {
        return Ok(());
    }
    write_devices(tx, &generation.table("devices"), &changed).await?;
    write_sites(tx, &generation.table("devices_sites"), &changed).await?;
    write_gaps(tx, &generation.table("devices_gaps"), &changed).await
}

fn fold(events: &[Arc<Entry>]) -> Result<HashMap<DeviceId, Changed>, ProjectionError> {
    let mut devices: HashMap<DeviceId, Changed> = HashMap::new();
    for entry in events {
        let recorded = &entry.recorded;
        let device = match recorded.aggregate_type {
            AggregateType::Punch if OF_PUNCHES.contains(&recorded.event_type.as_str()) => {
                fold_punch(&mut devices, entry)?
            }
            AggregateType::Device => fold_device(&mut devices, entry)?,
            AggregateType::Quarantine => fold_quarantine(&mut devices, entry)?,
            _ => None,
        };
        if let Some(device) = device {
            devices.entry(device).or_default().position = recorded.position;
        }
    }
    Ok(devices)
}

fn fold_punch(
    devices: &mut HashMap<DeviceId, Changed>,
    entry: &Entry,
) -> Result<Option<DeviceId>, ProjectionError> {
    match entry.event()? {
        Event::Punch(_, PunchEvent::Captured { .. }) => {
            let capture = entry.capture().ok_or_else(|| {
                ProjectionError::inconsistent(entry.recorded.position, "its capture can't be read")
            })?;
            let changed = devices.entry(capture.device).or_default();
            changed.punches += 1;
            changed.last_seq = changed.last_seq.max(capture.seq);
            Ok(Some(capture.device))
        }
        Event::Punch(_, PunchEvent::Synced { device, received_at, .. }) => {
            let changed = devices.entry(*device).or_default();
            changed.last_synced_at = changed.last_synced_at.max(Some(*received_at));
            Ok(Some(*device))
        }
        _ => Ok(None),
    }
}

fn fold_device(
    devices: &mut HashMap<DeviceId, Changed>,
    entry: &Entry,
) -> Result<Option<DeviceId>, ProjectionError> {
    let Event::Device(device, event) = entry.event()? else { return Ok(None) };
    let changed = devices.entry(*device).or_default();
    match event {
        DeviceEvent::Registered { .. } => {}
        DeviceEvent::Enrolled { app, .. } => {
            changed.app = Some(app.clone());
            changed.enrolled_at = Some(entry.recorded.recorded_at.into());
        }
        DeviceEvent::SiteAssigned { site } => {
            changed.site = Some(*site);
            changed.sites.push(*site);
        }
        DeviceEvent::SequenceGapOpened { gap } => changed.gaps.push((true, *gap)),
        DeviceEvent::SequenceGapClosed { gap } => changed.gaps.push((false, *gap)),
        DeviceEvent::LinkBroken { .. } => changed.broken_links += 1,
        DeviceEvent::ForkDetected { .. } => changed.forks += 1,
        DeviceEvent::ConflictDetected { .. } => changed.conflicts += 1,
        DeviceEvent::Revoked { at } => changed.revoked_at = Some(*at),
        // A model of their own holds them.
        DeviceEvent::CommandIssued { .. }
        | DeviceEvent::CommandFinished { .. }
        | DeviceEvent::CommandExpired { .. }
        | DeviceEvent::CommandCancelled { .. } => {}
    }
    Ok(Some(*device))
}

fn fold_quarantine(
    devices: &mut HashMap<DeviceId, Changed>,
    entry: &Entry,
) -> Result<Option<DeviceId>, ProjectionError> {
    match entry.event()? {
        Event::Quarantine(_, QuarantineEvent::Quarantined { device, seq, .. }) => {
            let changed = devices.entry(*device).or_default();
            changed.quarantined += 1;
            changed.last_seq = changed.last_seq.max(seq.unwrap_or(0));
            Ok(Some(*device))
        }
        _ => Ok(None),
    }
}

async fn write_devices(
    tx: &mut PgConnection,
    table: &str,
    changed: &HashMap<DeviceId, Changed>,
) -> Result<(), ProjectionError> {
    let column = |of: fn(&Changed) -> i64| changed.values().map(of).collect::<Vec<i64>>();
    let times = |of: fn(&Changed) -> Option<Time>| {
        changed.values().map(|c| of(c).map(|at| at.timestamp().to_sqlx())).collect::<Vec<_>>()
    };
    let statement = format!(
        "insert into {table} as held (device, site, app, enrolled_at, revoked_at, punches, \
             quarantined, forks, conflicts, broken_links, last_seq, last_synced_at, position) \
         select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], \
             $5::timestamptz[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], \
             $10::bigint[], $11::bigint[], $12::timestamptz[], $13::bigint[]) \
         on conflict (device) do update set \
             site = coalesce(excluded.site, held.site), \
             app = coalesce(excluded.app, held.app), \
             enrolled_at = coalesce(excluded.enrolled_at, held.enrolled_at), \
             revoked_at = coalesce(excluded.revoked_at, held.revoked_at), \
             punches = held.punches + excluded.punches, \
             quarantined = held.quarantined + excluded.quarantined, \
             forks = held.forks + excluded.forks, \
             conflicts = held.conflicts + excluded.conflicts, \
             broken_links = held.broken_links + excluded.broken_links, \
             last_seq = greatest(held.last_seq, excluded.last_seq), \
             last_synced_at = greatest(held.last_synced_at, excluded.last_synced_at), \
             position = excluded.position"
    );
    sqlx::query(&statement)
        .bind(changed.keys().map(|device| device.uuid()).collect::<Vec<Uuid>>())
        .bind(changed.values().map(|c| c.site.map(SiteId::uuid)).collect::<Vec<_>>())
        .bind(changed.values().map(|c| c.app.as_deref()).collect::<Vec<_>>())
        .bind(times(|c| c.enrolled_at))
        .bind(times(|c| c.revoked_at))
        .bind(column(|c| c.punches))
        .bind(column(|c| c.quarantined))
        .bind(column(|c| c.forks))
        .bind(column(|c| c.conflicts))
        .bind(column(|c| c.broken_links))
        .bind(column(|c| c.last_seq.cast_signed()))
        .bind(times(|c| c.last_synced_at))
        .bind(column(|c| c.position.to_db()))
        .execute(tx)
        .await?;
    Ok(())
}

async fn write_sites(
    tx: &mut PgConnection,
    table: &str,
    changed: &HashMap<DeviceId, Changed>,
) -> Result<(), ProjectionError> {
    let pairs = changed.iter().flat_map(|(device, changed)| {
        changed.sites.iter().map(|site| (site.uuid(), device.uuid()))
    });
    let (sites, devices): (Vec<Uuid>, Vec<Uuid>) = pairs.unzip();
    if sites.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "insert into {table} (site, device) select * from unnest($1::uuid[], $2::uuid[]) \
         on conflict do nothing"
    );
    sqlx::query(&statement).bind(sites).bind(devices).execute(tx).await?;
    Ok(())
}

/// Gaps split and shrink, so those of a device are taken out, worked on and put back.
async fn write_gaps(
    tx: &mut PgConnection,
    table: &str,
    changed: &HashMap<DeviceId, Changed>,
) -> Result<(), ProjectionError> {
    let concerned: Vec<Uuid> = changed
        .iter()
        .filter(|(_, changed)| !changed.gaps.is_empty())
        .map(|(device, _)| device.uuid())
        .collect();
    if concerned.is_empty() {
        return Ok(());
    }
    let take = format!("delete from {table} where device = any($1) returning device, first, last");
    let rows: Vec<(Uuid, i64, i64)> =
        sqlx::query_as(&take).bind(&concerned).fetch_all(&mut *tx).await?;
    let mut open: HashMap<Uuid, Vec<Gap>> = HashMap::new();
    for (device, first, last) in rows {
        let gap = Gap { from: first.cast_unsigned(), to: last.cast_unsigned() };
        open.entry(device).or_default().push(gap);
    }
    let (mut devices, mut firsts, mut lasts) = (vec![], vec![], vec![]);
    for device in concerned {
        let mut gaps = open.remove(&device).unwrap_or_default();
        for (opened, gap) in changed.get(&DeviceId(device)).into_iter().flat_map(|c| &c.gaps) {
            if *opened {
                gaps.push(*gap);
            } else {
                gaps = without(&gaps, *gap);
            }
        }
        for gap in gaps {
            devices.push(device);
            firsts.push(gap.from.cast_signed());
            lasts.push(gap.to.cast_signed());
        }
    }
    let put = format!(
        "insert into {table} (device, first, last) \
         select * from unnest($1::uuid[], $2::bigint[], $3::bigint[])"
    );
    sqlx::query(&put).bind(devices).bind(firsts).bind(lasts).execute(tx).await?;
    Ok(())
}
