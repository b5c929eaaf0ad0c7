//! What surrounds punches, for many of them in one statement and one round trip: names, zones, devices'
//! reports, facts about their numbers, quarantined items.

use std::collections::{BTreeMap, HashMap};

use jiff::tz::TimeZone;
use punchtrail_domain::{
    DeviceId, Digest, EmployeeId, Position, SiteId, Time,
    device::{DeviceEvent, Gap},
    explanation::{
        Account, ChainMark, Context, LastReport, MissingNumbers, Names, Place, Quarantined,
    },
    quarantine::QuarantineEvent,
    site::SiteEvent,
};
use serde::de::DeserializeOwned;
use sqlx::{PgPool, Row, postgres::PgRow, types::Json};
use uuid::Uuid;

/// Everything that some punches' explanations need beside their events.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub names: Names,
    zones: HashMap<SiteId, TimeZone>,
    reports: HashMap<DeviceId, LastReport>,
    quarantined: HashMap<Digest, Quarantined>,
    gaps: HashMap<DeviceId, Vec<MissingNumbers>>,
    marks: HashMap<(DeviceId, u64), Vec<ChainMark>>,
}

/// A list that the statement made; none when it found nothing.
fn list<T>(row: &PgRow, column: &str) -> Result<Vec<T>, sqlx::Error>
where
    T: DeserializeOwned + Send + Unpin + 'static,
{
    let list: Option<Json<Vec<T>>> = row.try_get(column)?;
    Ok(list.map(|Json(list)| list).unwrap_or_default())
}

fn place(position: i64, recorded_ms: i64) -> Place {
    let recorded_at = Time::from_millis(recorded_ms);
    Place { position: Position::from_db(position), recorded_at }
}

/// A device as the statement lists it: id, name, reported at, waiting, oldest, last number made, and up
/// to which number all are held.
type DeviceRow =
    (DeviceId, Option<String>, Option<i64>, Option<i64>, Option<i64>, Option<i64>, i64);

fn report(row: &DeviceRow) -> Option<LastReport> {
    let (_, _, reported, waiting, oldest, made_through, held_through) = row;
    Some(LastReport {
        reported_at: Time::from_millis((*reported)?),
        waiting: (*waiting)?.cast_unsigned(),
        oldest: oldest.map(Time::from_millis),
        made_through: (*made_through)?.cast_unsigned(),
        held_through: held_through.cast_unsigned(),
    })
}

impl Surroundings {
    /// Reads them.
    pub async fn of(pool: &PgPool, accounts: &[&Account]) -> Result<Self, sqlx::Error> {
        let unique = |mut ids: Vec<Uuid>| {
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let sites = unique(accounts.iter().flat_map(|a| a.sites()).map(SiteId::uuid).collect());
        let site_texts: Vec<String> = sites.iter().map(Uuid::to_string).collect();
        let numbered = accounts.iter().filter_map(|a| a.seq().map(|seq| (a.device().uuid(), seq)));
        let (devices, seqs): (Vec<Uuid>, Vec<i64>) =
            numbered.map(|(device, seq)| (device, seq.cast_signed())).unzip();
        let items: Vec<String> =
            accounts.iter().filter_map(|a| a.quarantine()).map(|item| item.to_string()).collect();
        let row = sqlx::query(include_str!("context.sql"))
            .bind(unique(
                accounts.iter().filter_map(|a| a.employee()).map(EmployeeId::uuid).collect(),
            ))
            .bind(unique(accounts.iter().map(|a| a.device().uuid()).collect()))
            .bind(sites)
            .bind(site_texts)
            .bind(unique(accounts.iter().flat_map(|a| a.keys()).collect()))
            .bind(items)
            .bind(devices)
            .bind(seqs)
            .fetch_one(pool)
            .await?;
        Self::read(&row)
    }

    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let mut found = Self::default();
        let employees: BTreeMap<EmployeeId, String> = list(row, "employees")?.into_iter().collect();
        let devices: Vec<DeviceRow> = list(row, "devices")?;
        let named = devices.iter().filter_map(|row| Some((row.0, row.1.clone()?))).collect();
        found.names = Names {
            employees,
            devices: named,
            sites: list(row, "sites")?.into_iter().collect(),
            keys: list(row, "keys")?.into_iter().collect(),
        };
        found.reports = devices.iter().filter_map(|row| Some((row.0, report(row)?))).collect();
        let zones: Vec<(SiteId, SiteEvent)> = list(row, "zones")?;
        found.zones =
            zones.into_iter().filter_map(|(site, event)| Some((site, zone(&event)?))).collect();
        let items: Vec<(Digest, i64, i64, QuarantineEvent)> = list(row, "quarantined")?;
        for (item, position, recorded_ms, event) in items {
            if let QuarantineEvent::Quarantined { code, received_at, .. } = event {
                let place = place(position, recorded_ms);
                found.quarantined.insert(item, Quarantined { place, code, received_at });
            }
        }
        type GapRow = (DeviceId, u64, u64, i64, i64, Option<i64>, Option<i64>);
        for (device, from, to, noticed, noticed_ms, came, came_ms) in list::<GapRow>(row, "gaps")? {
            found.gaps.entry(device).or_default().push(MissingNumbers {
                gap: Gap { from, to },
                noticed: place(noticed, noticed_ms),
                came: came.zip(came_ms).map(|(position, ms)| place(position, ms)),
            });
        }
        type MarkRow = (DeviceId, u64, i64, i64, String);
        for (device, seq, position, recorded_ms, payload) in list::<MarkRow>(row, "marks")? {
            let event: DeviceEvent = serde_json::from_str(&payload)
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            let mark = ChainMark { place: place(position, recorded_ms), event };
            found.marks.entry((device, seq)).or_default().push(mark);
        }
        Ok(found)
    }

    /// What of it concerns one punch.
    pub fn around(&self, account: &Account) -> Context {
        let device = account.device();
        let marks = account.seq().and_then(|seq| self.marks.get(&(device, seq)));
        let zone = account.sites().first().and_then(|site| self.zones.get(site));
        Context {
            zone: zone.cloned(),
            gaps: self.gaps.get(&device).cloned().unwrap_or_default(),
            marks: marks.cloned().unwrap_or_default(),
            quarantined: account.quarantine().and_then(|item| self.quarantined.get(&item).copied()),
            report: self.reports.get(&device).copied(),
        }
    }
}

/// The zone that a site's first event names.
fn zone(event: &SiteEvent) -> Option<TimeZone> {
    match event {
        SiteEvent::Registered { tz } => TimeZone::get(tz).ok(),
        SiteEvent::PolicyChanged { .. } => None,
    }
}
