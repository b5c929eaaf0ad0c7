//! What is kept of devices beside the ledger: their access, their sites, how far their numbers are
//! held, and how far the adjudicator walked their chains. All of it follows from events and from
//! the chains, which were compared with events before.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;
use punchtrail_domain::device::{Chain, Device, DeviceEvent};
use punchtrail_protocol::{DeviceId, Digest, OrgId};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::report::{Finding, FindingCode, Findings};
use crate::{adjudicator::gaps, ledger::BEYOND_GAP_MAX};

/// A device as its events make it, and what else of them is kept beside the ledger.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub device: Device,
    /// Where it enrolled.
    pub enrolled: Option<u64>,
    /// How many of its items are in quarantine.
    pub quarantined: u64,
}

impl Known {
    pub(super) fn take(&mut self, position: u64, event: DeviceEvent) {
        if matches!(event, DeviceEvent::Enrolled { .. }) {
            self.enrolled = self.enrolled.or(Some(position));
        }
        cqrs_es::Aggregate::apply(&mut self.device, event);
    }
}

/// All devices of the ledger. Grows with their number, not with that of events.
pub(super) type Devices = BTreeMap<DeviceId, Known>;

/// The organisation that devices enrolled for.
pub(super) async fn deployment(
    snapshot: &mut PgConnection,
    orgs: &BTreeSet<OrgId>,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let org: Option<Uuid> =
        sqlx::query_scalar("select org from deployment").fetch_optional(snapshot).await?;
    for enrolled_for in orgs {
        let what = match org {
            None => "the deployment's row, which says so, is gone".to_owned(),
            Some(org) if OrgId(org) != *enrolled_for => format!("the deployment says it is {org}"),
            Some(_) => continue,
        };
        let what = format!("a device enrolled for organisation {enrolled_for}, and {what}");
        findings.add(Finding::aside(FindingCode::DeploymentAltered, what));
    }
    Ok(())
}

/// Access and keys.
pub(super) async fn access(
    snapshot: &mut PgConnection,
    devices: &Devices,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let mut missing: BTreeSet<DeviceId> =
        devices.iter().filter(|(_, known)| known.enrolled.is_some()).map(|(id, _)| *id).collect();
    let mut rows = sqlx::query(
        "select device, public_key, revoked_at is not null as revoked from device_credentials \
         order by device",
    )
    .fetch(snapshot);
    while let Some(row) = rows.try_next().await? {
        let device = DeviceId(row.try_get("device")?);
        let Some(known) = devices.get(&device).filter(|known| known.enrolled.is_some()) else {
            let what = format!("device {device} has access, and never enrolled");
            findings.add(Finding::aside(FindingCode::AccessAltered, what));
            continue;
        };
        missing.remove(&device);
        let (enrolled, key) = (known.enrolled.unwrap_or_default(), known.device.key());
        if key.map(|key| key.to_bytes().to_vec()) != Some(row.try_get("public_key")?) {
            let what = "enrolled with another key than its requests are checked by";
            let what = format!("device {device} {what}");
            findings.add(Finding::at(enrolled, FindingCode::KeyAltered, what));
        }
        let what = match (known.device.revoked_at().is_some(), row.try_get("revoked")?) {
            (true, false) => "was revoked, and has its access all the same",
            (false, true) => "has lost its access, and was never revoked",
            _ => continue,
        };
        let what = format!("device {device} {what}");
        findings.add(Finding::aside(FindingCode::AccessAltered, what));
    }
    for device in missing {
        let what = format!("device {device} enrolled, and its access is gone");
        findings.add(Finding::aside(FindingCode::AccessAltered, what));
    }
    Ok(())
}

/// The sites they may deliver for, in the order in which they were given them.
pub(super) async fn sites(
    snapshot: &mut PgConnection,
    devices: &Devices,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let has_sites = |known: &Known| !known.device.sites().is_empty();
    let mut missing: BTreeSet<DeviceId> =
        devices.iter().filter(|(_, known)| has_sites(known)).map(|(id, _)| *id).collect();
    let mut rows = sqlx::query(
        "select device, array_agg(site order by ordinal) as sites from device_sites \
         group by device order by device",
    )
    .fetch(snapshot);
    while let Some(row) = rows.try_next().await? {
        let device = DeviceId(row.try_get("device")?);
        missing.remove(&device);
        let sites: Vec<Uuid> = row.try_get("sites")?;
        let assigned = devices.get(&device).map(|known| known.device.sites()).unwrap_or_default();
        if !assigned.iter().map(|site| site.uuid()).eq(sites) {
            let what = format!("the sites of device {device} aren't those that it was assigned");
            findings.add(Finding::aside(FindingCode::SitesAltered, what));
        }
    }
    for device in missing {
        let what = format!("the sites that device {device} was assigned are gone");
        findings.add(Finding::aside(FindingCode::SitesAltered, what));
    }
    Ok(())
}

/// A device's chain, as it is walked once more.
#[derive(Debug, Default)]
struct Walked {
    /// Up to where every number is held, and which are beyond that.
    through: u64,
    beyond: BTreeSet<u64>,
    highest: u64,
    /// Those that the adjudicator came by.
    judged: Chain,
}

impl Walked {
    fn take(&mut self, row: &PgRow, place: u64) -> Result<(), sqlx::Error> {
        let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        let (seq, position) = (number("seq")?, number("position")?);
        let (digest, prev) = (digest(row, "digest")?, digest(row, "prev")?);
        self.highest = self.highest.max(seq);
        if seq > self.through {
            self.beyond.insert(seq);
        }
        while self.beyond.remove(&self.through.saturating_add(1)) {
            self.through += 1;
        }
        // The adjudicator passes over conflicting bytes under a number that it came by before.
        let passed_over = row.try_get("conflicts")? && seq <= self.judged.highest;
        if position <= place && !passed_over {
            self.judged.walk(seq, digest, prev);
        }
        Ok(())
    }
}

/// What a device's row of progress says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    acked_through: u64,
    highest: u64,
    quarantined: u64,
}

/// How far numbers are held and chains were walked, from the chains as they stand. One statement,
/// sorted in Postgres, and a device at a time here.
pub(super) async fn chains(
    snapshot: &mut PgConnection,
    devices: &Devices,
    place: u64,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let mut kept = Kept {
        devices,
        progress: progress_rows(snapshot).await?,
        judged: judged_rows(snapshot).await?,
        findings,
    };
    let mut rows = sqlx::query(
        "select device, seq, digest, prev, position, case when punch is not null \
         then exists (select from conflicting_captures where digest = chain.digest) \
         else exists (select from events event where event.position = chain.position \
             and event.aggregate_type = 'quarantine' \
             and event.payload -> 'Quarantined' ->> 'code' = 'conflict') end as conflicts \
         from device_chain chain order by device, position",
    )
    .fetch(snapshot);
    let mut chained = BTreeSet::new();
    let mut current: Option<(DeviceId, Walked)> = None;
    while let Some(row) = rows.try_next().await? {
        let device = DeviceId(row.try_get("device")?);
        if let Some((before, walked)) = current.take_if(|(before, _)| *before != device) {
            kept.compare(before, &walked);
        }
        chained.insert(device);
        let (_, walked) = current.get_or_insert_with(|| (device, Walked::default()));
        walked.take(&row, place)?;
    }
    if let Some((last, walked)) = current {
        kept.compare(last, &walked);
    }
    // Those without a chain: of them something may be kept, or should be.
    let quarantined = devices.iter().filter(|(_, known)| known.quarantined > 0).map(|(id, _)| *id);
    let others: BTreeSet<DeviceId> =
        kept.progress.keys().chain(kept.judged.keys()).copied().chain(quarantined).collect();
    for device in others.difference(&chained) {
        kept.compare(*device, &Walked::default());
    }
    Ok(())
}

/// What is kept of devices' chains, still to be compared.
struct Kept<'a> {
    devices: &'a Devices,
    progress: BTreeMap<DeviceId, Progress>,
    judged: BTreeMap<DeviceId, Chain>,
    findings: &'a mut Findings,
}

impl Kept<'_> {
    fn compare(&mut self, device: DeviceId, walked: &Walked) {
        let known = self.devices.get(&device);
        let shown = Progress {
            acked_through: walked.through,
            highest: walked.highest,
            quarantined: known.map_or(0, |known| known.quarantined),
        };
        let progress = self.progress.remove(&device).unwrap_or_default();
        // A gap closed in front of very many numbers may have been closed by and by.
        let lags = (BEYOND_GAP_MAX..shown.acked_through).contains(&progress.acked_through);
        let acked_through = if lags { shown.acked_through } else { progress.acked_through };
        if shown != (Progress { acked_through, ..progress }) {
            let what = "numbers are said to be held up to another one than its chain shows, or \
                        another count of its items to be in quarantine";
            self.add(device, FindingCode::ProgressAltered, what);
        }
        let judged = self.judged.remove(&device).unwrap_or_default();
        if judged != walked.judged {
            let what = "the adjudicator remembers another chain than it came by";
            self.add(device, FindingCode::MemoryAltered, what);
        }
    }

    fn add(&mut self, device: DeviceId, code: FindingCode, what: &str) {
        self.findings.add(Finding::aside(code, format!("device {device}: {what}")));
    }
}

async fn progress_rows(
    snapshot: &mut PgConnection,
) -> Result<BTreeMap<DeviceId, Progress>, sqlx::Error> {
    sqlx::query("select device, acked_through, highest, quarantined from device_progress")
        .try_map(|row: PgRow| {
            let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
            let progress = Progress {
                acked_through: number("acked_through")?,
                highest: number("highest")?,
                quarantined: number("quarantined")?,
            };
            Ok((DeviceId(row.try_get("device")?), progress))
        })
        .fetch_all(snapshot)
        .await
        .map(|rows| rows.into_iter().collect())
}

async fn judged_rows(
    snapshot: &mut PgConnection,
) -> Result<BTreeMap<DeviceId, Chain>, sqlx::Error> {
    sqlx::query("select device, highest, digest, gaps from judged_devices")
        .try_map(|row: PgRow| {
            let chain = Chain {
                highest: row.try_get::<i64, _>("highest")?.cast_unsigned(),
                digest: digest(&row, "digest")?,
                gaps: gaps(&row)?,
            };
            Ok((DeviceId(row.try_get("device")?), chain))
        })
        .fetch_all(snapshot)
        .await
        .map(|rows| rows.into_iter().collect())
}

/// Bytes of another length are no digest of anything.
fn digest(row: &PgRow, column: &str) -> Result<Digest, sqlx::Error> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(bytes.try_into().map(Digest).unwrap_or_else(|_| Digest::of(bytes)))
}
