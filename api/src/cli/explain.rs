//! A punch explained from the ledger alone, so that the answer is there while no server runs and no
//! read model is up to date. Names come from the directories, a device's last report from its table.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff_sqlx::Timestamp;
use punchtrail_domain::{
    AggregateType, Event, Recorded,
    device::{DeviceEvent, Gap},
    explanation::{
        Account, Backlog, ChainMark, Context, Explanation, MissingNumbers, Names, Place,
        Quarantined,
    },
    quarantine::QuarantineEvent,
    site::SiteEvent,
};
use punchtrail_infra::people::directory;
use punchtrail_protocol::{DeviceId, Position, SiteId, Time};
use serde::Serialize;
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use super::{answer::Answer, source::Opened};

#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    /// Everything up to this position was taken into account.
    as_of: Position,
}

/// Explains the punch whose events these are.
///
/// # Errors
/// When the database is out of reach, or an event can't be read by this program.
pub(super) async fn punch(opened: &Opened, events: &[Recorded]) -> anyhow::Result<Answer> {
    let as_of = opened.ledger.head().await?;
    let account = Account::of(events)?.ok_or_else(|| anyhow::anyhow!("the punch has no events"))?;
    let context = context(opened, &account).await?;
    let names = names(&opened.pools.writer, &account).await?;
    let explanation = account.told(&context, &names);
    let mut text = explanation.sentences.join("\n");
    if let Some(report) = &explanation.device_report {
        text.push_str("\n\n");
        text.push_str(&report.sentence);
    }
    text.push_str(&format!("\n\n(From the ledger up to position {as_of}.)"));
    Ok(Answer::new(&Explained { explanation, as_of }, text))
}

async fn context(opened: &Opened, account: &Account) -> anyhow::Result<Context> {
    let feed = opened.ledger.feed();
    let mut context = Context {
        report: report(&opened.pools.writer, account.device()).await?,
        ..Context::default()
    };
    for event in feed.streams(AggregateType::Device, &[account.device().to_string()]).await? {
        if let Event::Device(_, happened) = event.event()? {
            note(&mut context, happened, place(&event));
        }
    }
    // The first site is the punch's own.
    if let Some(site) = account.sites().first() {
        let events = feed.streams(AggregateType::Site, &[site.to_string()]).await?;
        context.zone = events.iter().find_map(zone);
    }
    if let Some(item) = account.quarantine() {
        let events = feed.streams(AggregateType::Quarantine, &[item.to_string()]).await?;
        context.quarantined = events.iter().find_map(quarantined);
    }
    Ok(context)
}

fn place(event: &Recorded) -> Place {
    Place { position: event.position, recorded_at: event.recorded_at.into() }
}

fn zone(event: &Recorded) -> Option<TimeZone> {
    match event.event() {
        Ok(Event::Site(_, SiteEvent::Registered { tz })) => TimeZone::get(&tz).ok(),
        _ => None,
    }
}

fn quarantined(event: &Recorded) -> Option<Quarantined> {
    match event.event() {
        Ok(Event::Quarantine(_, QuarantineEvent::Quarantined { code, received_at, .. })) => {
            Some(Quarantined { place: place(event), code, received_at })
        }
        _ => None,
    }
}

/// Takes in what an event of the device says of its numbers.
fn note(context: &mut Context, event: DeviceEvent, place: Place) {
    match event {
        DeviceEvent::SequenceGapOpened { gap } => {
            context.gaps.push(MissingNumbers { gap, noticed: place, came: None });
        }
        DeviceEvent::SequenceGapClosed { gap } => {
            context.gaps = std::mem::take(&mut context.gaps)
                .into_iter()
                .flat_map(|missing| cut(missing, gap, place))
                .collect();
        }
        DeviceEvent::LinkBroken { .. } | DeviceEvent::ForkDetected { .. } => {
            context.marks.push(ChainMark { place, event });
        }
        _ => {}
    }
}

/// A run of missing numbers, cut where some of them came.
fn cut(missing: MissingNumbers, came: Gap, place: Place) -> Vec<MissingNumbers> {
    let Gap { from, to } = missing.gap;
    let (first, last) = (from.max(came.from), to.min(came.to));
    if missing.came.is_some() || first > last {
        return vec![missing];
    }
    let run = |from: u64, to: u64, came| MissingNumbers {
        gap: Gap { from, to },
        noticed: missing.noticed,
        came,
    };
    let mut runs = Vec::with_capacity(3);
    if from < first {
        runs.push(run(from, first - 1, None));
    }
    runs.push(run(first, last, Some(place)));
    if last < to {
        runs.push(run(last + 1, to, None));
    }
    runs
}

async fn report(pool: &PgPool, device: DeviceId) -> Result<Option<Backlog>, sqlx::Error> {
    sqlx::query(
        "select reported_at, outbox, oldest, seq, coalesce(acked_through, 0) as held_through \
         from device_reports left join device_progress using (device) where device = $1",
    )
    .bind(device.uuid())
    .try_map(|row: PgRow| {
        let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        let oldest: Option<Timestamp> = row.try_get("oldest")?;
        Ok(Backlog {
            reported_at: Time::from(row.try_get::<Timestamp, _>("reported_at")?.to_jiff()),
            waiting: number("outbox")?,
            oldest: oldest.map(|at| at.to_jiff().into()),
            made_through: number("seq")?,
            held_through: number("held_through")?,
        })
    })
    .fetch_optional(pool)
    .await
}

async fn names(pool: &PgPool, account: &Account) -> Result<Names, sqlx::Error> {
    let employees: Vec<_> = account.employee().into_iter().collect();
    let employees = directory::employee_names(pool, &employees).await?.into_iter().collect();
    let devices = pairs(
        pool,
        "select device, name from device_directory where device = any($1)",
        vec![account.device().uuid()],
    );
    let sites = pairs(
        pool,
        "select site, name from site_directory where site = any($1)",
        account.sites().into_iter().map(SiteId::uuid).collect(),
    );
    let keys = pairs(pool, "select id, name from operator_keys where id = any($1)", account.keys());
    Ok(Names { employees, devices: devices.await?, sites: sites.await?, keys: keys.await? })
}

async fn pairs<Id: From<Uuid> + Ord>(
    pool: &PgPool,
    statement: &'static str,
    ids: Vec<Uuid>,
) -> Result<BTreeMap<Id, String>, sqlx::Error> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(statement).bind(ids).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(id, name)| (Id::from(id), name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> Place {
        Place { position: Position(position), recorded_at: Time::from_millis(0) }
    }

    #[test]
    fn missing_numbers_are_cut_where_some_came() {
        let mut context = Context::default();
        let gap = |from, to| Gap { from, to };
        note(&mut context, DeviceEvent::SequenceGapOpened { gap: gap(3, 9) }, at(1));
        note(&mut context, DeviceEvent::SequenceGapClosed { gap: gap(5, 6) }, at(2));
        note(&mut context, DeviceEvent::SequenceGapClosed { gap: gap(3, 4) }, at(3));
        let runs: Vec<_> = context
            .gaps
            .iter()
            .map(|run| (run.gap.from, run.gap.to, run.came.map(|place| place.position.0)))
            .collect();
        assert_eq!(runs, [(3, 4, Some(3)), (5, 6, Some(2)), (7, 9, None)]);
    }
}
