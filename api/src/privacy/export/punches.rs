//! The punches, the newest first, with where each stands and why; and the days that they come to.

use std::collections::HashMap;

use jiff::{ToSpan as _, civil::Date, tz::TimeZone};
use punchtrail_domain::{AggregateType, explanation::Explanation, timecard::Timecard};
use punchtrail_infra::people::directory;
use punchtrail_projections::{
    engine::page::Order,
    explanations::{EXPLAIN_BATCH_MAX, explain_many_to},
    punches::{
        PunchView,
        timecards::{self, RANGE_DAYS_MAX},
        timeline::{self, Filter, Key},
    },
};
use punchtrail_protocol::{DeviceId, EmployeeId, PunchId, SiteId};
use serde::Serialize;

use super::{
    Export, ExportError, PAGE,
    archive::{Archive, Spool},
    page,
};

/// A punch, with names and in words.
#[derive(Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    pub punch: PunchView,
    pub site_name: Option<String>,
    pub device_name: Option<String>,
    /// Whether it counts.
    pub counts: bool,
    /// Why it stands so.
    pub explanation: Vec<String>,
}

/// The heading of `punches.csv`.
const PUNCH_COLUMNS: [&str; 11] = [
    "punch",
    "kind",
    "captured_at",
    "effective_at",
    "standing",
    "counts",
    "reasons",
    "site",
    "site_name",
    "device_name",
    "explanation",
];
/// The heading of `timecards.csv`.
const CARD_COLUMNS: [&str; 9] =
    ["day", "kind", "from", "to", "elapsed_s", "counted_as", "from_punch", "to_punch", "tz"];

impl Export<'_> {
    pub(super) async fn punches(
        &self,
        archive: &mut Archive,
        events: &mut Spool,
        page: &mut page::Writing,
        employee: EmployeeId,
    ) -> Result<(), ExportError> {
        let (mut json, mut table) = (Spool::new()?, Spool::new()?);
        let mut cards = Cards::new(employee).await?;
        table.write(&row(PUNCH_COLUMNS.map(str::to_owned))).await?;
        json.write(b"[").await?;
        let filter = Filter { employee: Some(employee), ..Filter::default() };
        let (mut after, mut joint): (Option<Key>, &[u8]) = (None, b"\n");
        loop {
            let pool = &self.pools.reader;
            let found = timeline::list(pool, &filter, Order::NewestFirst, after, PAGE).await?;
            after = found.rows.last().map(Key::from);
            let ids: Vec<String> = found.rows.iter().map(|row| row.punch.to_string()).collect();
            self.stream(events, AggregateType::Punch, &ids).await?;
            for told in self.told(employee, found.rows).await? {
                json.write(joint).await?;
                json.write(&serde_json::to_vec(&told)?).await?;
                joint = b",\n";
                table.write(&row(columns(&told))).await?;
                cards.reach(self, &told.punch).await?;
                page.punch(&told).await?;
            }
            if !found.more {
                break;
            }
        }
        json.write(b"\n]\n").await?;
        archive.add_spool("punches.json", json).await?;
        archive.add_spool("punches.csv", table).await?;
        Ok(archive.add_spool("timecards.csv", cards.table).await?)
    }

    /// With names and explanations, in which nobody else is named.
    async fn told(
        &self,
        employee: EmployeeId,
        rows: Vec<PunchView>,
    ) -> Result<Vec<Told>, ExportError> {
        let pool = &self.pools.reader;
        let sites: Vec<SiteId> = rows.iter().map(|row| row.site).collect();
        let devices: Vec<DeviceId> = rows.iter().map(|row| row.device).collect();
        let sites = directory::site_names(pool, &sites).await?;
        let devices = directory::device_names(pool, &devices).await?;
        let mut explanations: HashMap<PunchId, Explanation> = HashMap::new();
        let ids: Vec<PunchId> = rows.iter().map(|row| row.punch).collect();
        for ids in ids.chunks(EXPLAIN_BATCH_MAX) {
            for (punch, explained) in ids.iter().zip(explain_many_to(pool, employee, ids).await?) {
                explanations.extend(explained?.map(|explained| (*punch, explained)));
            }
        }
        let told = |punch: PunchView| {
            let explained = explanations.remove(&punch.punch);
            Told {
                site_name: sites.get(&punch.site).cloned(),
                device_name: devices.get(&punch.device).cloned(),
                counts: explained.as_ref().is_some_and(|explained| explained.counts),
                explanation: explained.map(|explained| explained.sentences).unwrap_or_default(),
                punch,
            }
        };
        Ok(rows.into_iter().map(told).collect())
    }
}

fn columns(told: &Told) -> [String; 11] {
    let Told { punch, site_name, device_name, counts, explanation } = told;
    [
        punch.punch.to_string(),
        punch.kind.as_str().to_owned(),
        punch.captured_at.to_string(),
        punch.effective_at.to_string(),
        punch.standing.as_str().to_owned(),
        counts.to_string(),
        punch.reasons.join(" "),
        punch.site.to_string(),
        site_name.clone().unwrap_or_default(),
        device_name.clone().unwrap_or_default(),
        explanation.join(" "),
    ]
}

/// A line of a table. A cell that a spreadsheet would take for a formula begins with `'`.
fn row<const N: usize>(cells: [String; N]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let cells = cells.map(|cell| match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}"),
        false => cell,
    });
    // Writing to memory can't fail.
    let _ = writer.write_record(cells);
    writer.into_inner().unwrap_or_default()
}

/// Cards of the days that punches reach back to: only where there are some, however far apart.
struct Cards {
    employee: EmployeeId,
    table: Spool,
    /// The earliest day that was made.
    made: Option<Date>,
}

impl Cards {
    async fn new(employee: EmployeeId) -> Result<Self, ExportError> {
        let mut table = Spool::new()?;
        table.write(&row(CARD_COLUMNS.map(str::to_owned))).await?;
        Ok(Self { employee, table, made: None })
    }

    /// Makes the cards around a punch, unless they were.
    async fn reach(&mut self, export: &Export<'_>, punch: &PunchView) -> Result<(), ExportError> {
        // A business day may begin and end a day off the date in UTC.
        let day = punch.effective_at.timestamp().to_zoned(TimeZone::UTC).date();
        let around = |days: i32| day.saturating_add(days.days());
        if self.made.is_some_and(|made| made <= around(-2)) {
            return Ok(());
        }
        let last = around(2).min(self.made.map_or(Date::MAX, |made| made.saturating_sub(1.day())));
        let first = last.saturating_sub((RANGE_DAYS_MAX - 1).days());
        let pool = &export.pools.reader;
        let cards = timecards::of_employee(pool, self.employee, first, last).await?;
        for card in cards.iter().rev() {
            self.write(card).await?;
        }
        self.made = Some(first);
        Ok(())
    }

    async fn write(&mut self, card: &Timecard) -> Result<(), ExportError> {
        let day = card.day.to_string();
        let code = |value: serde_json::Result<serde_json::Value>| {
            value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        for segment in &card.segments {
            let (from, to) = (&segment.from, &segment.to);
            let kind = code(serde_json::to_value(segment.kind));
            let counted = code(serde_json::to_value(segment.counted_as));
            let cells = [
                day.clone(),
                kind,
                from.at.to_string(),
                to.at.to_string(),
                segment.elapsed_s.to_string(),
                counted,
                from.punch.to_string(),
                to.punch.to_string(),
                from.tz.clone(),
            ];
            self.table.write(&row(cells)).await?;
        }
        for lone in &card.unmatched {
            let (kind, none) = (code(serde_json::to_value(lone.code)), String::new());
            let counted = code(serde_json::to_value(lone.standing));
            let (at, punch) = (lone.mark.at.to_string(), lone.mark.punch.to_string());
            let cells = [
                day.clone(),
                kind,
                at,
                none.clone(),
                none.clone(),
                counted,
                punch,
                none,
                lone.mark.tz.clone(),
            ];
            self.table.write(&row(cells)).await?;
        }
        Ok(())
    }
}
