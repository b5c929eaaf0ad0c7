//! What surrounds punches, for many of them in one statement and one round trip: names, zones,
//! devices' reports, facts about their numbers, quarantined items.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use punchtrail_domain::{
    aggregate::Stored,
    device::Gap,
    dispute::DisputeEvent,
    employee::EmployeeEvent,
    explanation::{
        Account, Backlog, ChainMark, Context, DisputeMark, DoubtedAfter, MissingNumbers, Names,
        OnCard, Place, Quarantined,
    },
    site::{SiteEvent, SiteRules},
};
use punchtrail_infra::{ledger::ReadError, postgres::Pool};
use punchtrail_protocol::{DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time};
use serde::de::DeserializeOwned;
use sqlx::{Row, postgres::PgRow, types::Json};
use uuid::Uuid;

/// Everything that some punches' explanations need beside their events.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub names: Names,
    rules: HashMap<SiteId, SiteRules>,
    reports: HashMap<DeviceId, Backlog>,
    noted: HashSet<DeviceId>,
    quarantined: HashMap<Digest, Quarantined>,
    gaps: HashMap<DeviceId, Vec<MissingNumbers>>,
    disputes: HashMap<PunchId, Vec<DisputeMark>>,
    marks: HashMap<(DeviceId, u64), Vec<ChainMark>>,
    on_cards: HashMap<PunchId, OnCard>,
    doubted_after: HashMap<PunchId, DoubtedAfter>,
}

/// A list that the statement made; none when it found nothing.
fn list<T>(row: &PgRow, column: &str) -> Result<Vec<T>, sqlx::Error>
where
    T: DeserializeOwned + Send + Unpin + 'static,
{
    let list: Option<Json<Vec<T>>> = row.try_get(column)?;
    Ok(list.map(|Json(list)| list).unwrap_or_default())
}

fn stored<'a>(
    position: i64,
    event_type: &'a str,
    event_version: &'a str,
    payload: &'a str,
) -> Stored<'a> {
    Stored { position: Position::from_db(position), event_type, event_version, payload }
}

fn place(position: i64, recorded_ms: i64) -> Place {
    let recorded_at = Time::from_millis(recorded_ms);
    Place { position: Position::from_db(position), recorded_at }
}

/// When whoever has no name any more was erased.
fn erased(row: &PgRow) -> Result<BTreeMap<EmployeeId, Time>, ReadError> {
    type ErasedRow = (EmployeeId, i64, String, String, String);
    let mut erased = BTreeMap::new();
    for (employee, position, kind, version, payload) in list::<ErasedRow>(row, "erased")? {
        if let EmployeeEvent::Erased { at } = stored(position, &kind, &version, &payload).read()? {
            erased.insert(employee, at);
        }
    }
    Ok(erased)
}

/// A device as the statement lists it: id, name, reported at, waiting, oldest, last number made,
/// and up to which number all are held; and whether anything was noted about its numbers.
type DeviceRow =
    (DeviceId, Option<String>, Option<i64>, Option<i64>, Option<i64>, Option<i64>, i64, bool);

fn report(row: &DeviceRow) -> Option<Backlog> {
    let (_, _, reported, waiting, oldest, made_through, held_through, _) = row;
    Some(Backlog {
        reported_at: Time::from_millis((*reported)?),
        waiting: (*waiting)?.cast_unsigned(),
        oldest: oldest.map(Time::from_millis),
        made_through: (*made_through)?.cast_unsigned(),
        held_through: held_through.cast_unsigned(),
    })
}

/// What is to be looked up of what surrounds some punches.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub employees: BTreeSet<EmployeeId>,
    pub devices: BTreeSet<DeviceId>,
    pub sites: BTreeSet<SiteId>,
    pub keys: BTreeSet<Uuid>,
    pub quarantined: BTreeSet<Digest>,
    pub notes: BTreeSet<Digest>,
    /// Numbers of devices about which something may have been noted.
    pub numbers: BTreeSet<(DeviceId, u64)>,
}

impl Wanted {
    /// Everything that these punches' explanations need.
    pub fn of(accounts: &[&Account]) -> Self {
        let numbered = |a: &&Account| Some((a.device()?, a.seq()?));
        Self {
            employees: accounts.iter().flat_map(|a| a.people()).collect(),
            devices: accounts.iter().filter_map(|a| a.device()).collect(),
            sites: accounts.iter().flat_map(|a| a.sites()).collect(),
            keys: accounts.iter().flat_map(|a| a.keys()).collect(),
            quarantined: accounts.iter().filter_map(|a| a.quarantine()).collect(),
            notes: accounts.iter().flat_map(|a| a.notes()).collect(),
            numbers: accounts.iter().filter_map(numbered).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.employees.is_empty()
            && self.devices.is_empty()
            && self.sites.is_empty()
            && self.keys.is_empty()
            && self.quarantined.is_empty()
            && self.notes.is_empty()
            && self.numbers.is_empty()
    }
}

impl Surroundings {
    /// Reads what is wanted, in one statement; in none when nothing is.
    pub async fn read_from(pool: &Pool, wanted: &Wanted) -> Result<Self, ReadError> {
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        let texts: Vec<String> = wanted.sites.iter().map(ToString::to_string).collect();
        let items: Vec<String> = wanted.quarantined.iter().map(ToString::to_string).collect();
        let (devices, seqs): (Vec<Uuid>, Vec<i64>) =
            wanted.numbers.iter().map(|(device, seq)| (device.uuid(), seq.cast_signed())).unzip();
        let row = sqlx::query(include_str!("context.sql"))
            .bind(wanted.employees.iter().map(|id| id.uuid()).collect::<Vec<_>>())
            .bind(wanted.devices.iter().map(|id| id.uuid()).collect::<Vec<_>>())
            .bind(wanted.sites.iter().map(|id| id.uuid()).collect::<Vec<_>>())
            .bind(texts)
            .bind(wanted.keys.iter().copied().collect::<Vec<_>>())
            .bind(items)
            .bind(devices)
            .bind(seqs)
            .bind(wanted.notes.iter().map(ToString::to_string).collect::<Vec<_>>())
            .fetch_one(pool)
            .await?;
        Self::read(&row)
    }

    /// Adds what was read elsewhere.
    pub fn add(&mut self, other: Self) {
        self.names.employees.extend(other.names.employees);
        self.names.devices.extend(other.names.devices);
        self.names.sites.extend(other.names.sites);
        self.names.keys.extend(other.names.keys);
        self.names.notes.extend(other.names.notes);
        self.names.erased.extend(other.names.erased);
        self.rules.extend(other.rules);
        self.reports.extend(other.reports);
        self.noted.extend(other.noted);
        self.quarantined.extend(other.quarantined);
        self.gaps.extend(other.gaps);
        self.marks.extend(other.marks);
    }

    /// The slowly changing part of it that is wanted: names, zones, reports.
    pub fn part(&self, wanted: &Wanted) -> Self {
        fn some<K: Copy + Ord, V: Clone>(
            from: &BTreeMap<K, V>,
            of: &BTreeSet<K>,
        ) -> BTreeMap<K, V> {
            of.iter().filter_map(|id| Some((*id, from.get(id)?.clone()))).collect()
        }
        let names = Names {
            employees: some(&self.names.employees, &wanted.employees),
            devices: some(&self.names.devices, &wanted.devices),
            sites: some(&self.names.sites, &wanted.sites),
            keys: some(&self.names.keys, &wanted.keys),
            notes: BTreeMap::new(),
            erased: some(&self.names.erased, &wanted.employees),
        };
        let mut part = Self { names, ..Self::default() };
        for site in &wanted.sites {
            part.rules.extend(self.rules.get(site).map(|rules| (*site, rules.clone())));
        }
        for device in &wanted.devices {
            part.reports.extend(self.reports.get(device).map(|report| (*device, *report)));
        }
        part
    }

    /// Takes over about which devices' numbers something was noted.
    pub fn note(&mut self, other: &Self) {
        self.noted.extend(&other.noted);
    }

    /// Whether anything was ever noted about a device's numbers.
    pub fn is_noted(&self, device: DeviceId) -> bool {
        self.noted.contains(&device)
    }

    fn read(row: &PgRow) -> Result<Self, ReadError> {
        let mut found = Self::default();
        let employees: BTreeMap<EmployeeId, String> = list(row, "employees")?.into_iter().collect();
        let devices: Vec<DeviceRow> = list(row, "devices")?;
        let named = devices.iter().filter_map(|row| Some((row.0, row.1.clone()?))).collect();
        found.names = Names {
            employees,
            devices: named,
            sites: list(row, "sites")?.into_iter().collect(),
            keys: list(row, "keys")?.into_iter().collect(),
            notes: list(row, "notes")?.into_iter().collect(),
            erased: erased(row)?,
        };
        found.noted = devices.iter().filter(|row| row.7).map(|row| row.0).collect();
        found.reports = devices.iter().filter_map(|row| Some((row.0, report(row)?))).collect();
        type ZoneRow = (SiteId, i64, String, String, String);
        for (site, position, kind, version, payload) in list::<ZoneRow>(row, "zones")? {
            let event: SiteEvent = stored(position, &kind, &version, &payload).read()?;
            found.rules.entry(site).or_default().evolve(&event);
        }
        type ItemRow = (Digest, i64, i64, String, String, String);
        for (item, recorded_ms, position, kind, version, payload) in
            list::<ItemRow>(row, "quarantined")?
        {
            let event = stored(position, &kind, &version, &payload).read()?;
            let quarantined = Quarantined::of(&event, place(position, recorded_ms));
            found.quarantined.extend(quarantined.map(|quarantined| (item, quarantined)));
        }
        type GapRow = (DeviceId, u64, u64, i64, i64, Option<i64>, Option<i64>);
        for (device, from, to, noticed, noticed_ms, came, came_ms) in list::<GapRow>(row, "gaps")? {
            found.gaps.entry(device).or_default().push(MissingNumbers {
                gap: Gap { from, to },
                noticed: place(noticed, noticed_ms),
                came: came.zip(came_ms).map(|(position, ms)| place(position, ms)),
            });
        }
        type MarkRow = (DeviceId, u64, i64, i64, String, String, String);
        for (device, seq, recorded_ms, position, kind, version, payload) in
            list::<MarkRow>(row, "marks")?
        {
            let event = stored(position, &kind, &version, &payload).read()?;
            let mark = ChainMark { place: place(position, recorded_ms), event };
            found.marks.entry((device, seq)).or_default().push(mark);
        }
        Ok(found)
    }

    /// Takes in what happened to disputes about punches.
    pub fn disputed(&mut self, marks: Vec<DisputeMark>) {
        let mut about = HashMap::new();
        for mark in marks {
            if let DisputeEvent::Opened { subject, .. } = mark.event {
                about.insert(mark.dispute, subject.about.punch());
            }
            // A dispute's first event comes first.
            if let Some(punch) = about.get(&mark.dispute).copied().flatten() {
                self.disputes.entry(punch).or_default().push(mark);
            }
        }
    }

    /// Takes in what cards say of punches.
    pub fn on_cards(&mut self, said: HashMap<PunchId, OnCard>) {
        self.on_cards.extend(said);
    }

    /// Takes in which later punches are doubted because of some.
    pub fn doubted_after(&mut self, said: HashMap<PunchId, DoubtedAfter>) {
        self.doubted_after.extend(said);
    }

    /// What of it concerns one punch.
    pub fn around(&self, account: &Account) -> Context {
        let (device, punch) = (account.device(), account.punch());
        let marks =
            account.seq().zip(device).and_then(|(seq, device)| self.marks.get(&(device, seq)));
        let rules = account.sites().first().and_then(|site| self.rules.get(site));
        Context {
            rules: rules.cloned().unwrap_or_default(),
            gaps: device.and_then(|device| self.gaps.get(&device)).cloned().unwrap_or_default(),
            marks: marks.cloned().unwrap_or_default(),
            quarantined: account.quarantine().and_then(|item| self.quarantined.get(&item).copied()),
            disputes: self.disputes.get(&punch).cloned().unwrap_or_default(),
            on_card: self.on_cards.get(&punch).copied(),
            doubted_after: self.doubted_after.get(&punch).copied(),
            report: device.and_then(|device| self.reports.get(&device)).copied(),
        }
    }
}
