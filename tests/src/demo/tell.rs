//! The demo's answers, as a manager would read them: six explanations and a timecard.

use anyhow::Context;
use jiff::{civil::Date, tz::TimeZone};
use punchtrail_protocol::Time;
use serde_json::Value;

use super::{
    acts::Memory,
    cast::{SITES, Script, Tag},
    screen::Screen,
    stage::Stage,
};

const SECONDS_PER_MINUTE: u64 = 60;

/// The six.
///
/// # Errors
/// When one can't be read.
pub async fn explanations(screen: &Screen, stage: &Stage, memory: &Memory) -> anyhow::Result<()> {
    for (title, tag) in [
        ("An ordinary punch, made while the network was gone", Tag::Plain),
        ("A double tap", Tag::DoubleTap),
        ("A badge that nobody has", Tag::UnknownBadge),
        ("A device three hours fast", Tag::FastClock),
        ("Nonsense from a broken device, admitted by a manager", Tag::Admitted),
    ] {
        let id = memory.punches.get(&tag).with_context(|| format!("no punch for {tag:?}"))?;
        let explanation = stage.operator.get(&format!("/v1/punches/{id}/explanation")).await?;
        screen.quote(title, &texts(&explanation["sentences"]));
    }
    let absence = memory.absence.as_ref().context("the missing day was not asked for")?;
    let mut told = texts(&absence["sentences"]);
    let devices = absence["devices"].as_array().into_iter().flatten();
    told.extend(devices.filter_map(|device| device["report"].as_str().map(str::to_owned)));
    told.extend(absence["conclusion"]["sentence"].as_str().map(str::to_owned));
    screen.quote("Asked in the middle: “where are my punches of that day?”", &told);
    Ok(())
}

/// Sentences, as texts.
pub(super) fn texts(sentences: &Value) -> Vec<String> {
    let sentences = sentences.as_array().into_iter().flatten();
    sentences.filter_map(|sentence| sentence.as_str().map(str::to_owned)).collect()
}

/// The protagonist's week.
///
/// # Errors
/// When it can't be read.
pub async fn timecard(screen: &Screen, stage: &Stage, script: &Script) -> anyhow::Result<()> {
    let worker = script.protagonist();
    let people = stage.operator.employees().await?;
    let employee = people.get(&worker.badge).context("the protagonist's badge")?;
    let zone = TimeZone::get(SITES[0].1)?;
    let today = jiff::Timestamp::now().to_zoned(zone.clone()).date();
    let path = format!("/v1/timecards?employee={employee}&from={}&to={today}", script.days.0);
    let page = stage.operator.get(&path).await?;
    let cards = page["data"][0]["cards"].as_array().context("a person's cards")?;
    let rows: Vec<Vec<String>> =
        cards.iter().map(|card| row(card, &zone)).collect::<anyhow::Result<_>>()?;
    screen.prose(&format!("{}, by GET /v1/timecards?employee=…&from=…&to=…", worker.name));
    screen.table(&["day", "first", "last", "worked", "doubtful", "breaks", "not paired"], &rows);
    Ok(())
}

fn row(card: &Value, zone: &TimeZone) -> anyhow::Result<Vec<String>> {
    let day: Date = card["day"].as_str().context("a card has a day")?.parse()?;
    let segments = card["segments"].as_array().cloned().unwrap_or_default();
    let clock = |segment: Option<&Value>, end: &str| -> anyhow::Result<String> {
        let Some(at) = segment.and_then(|segment| segment[end]["at"].as_str()) else {
            return Ok("-".to_owned());
        };
        let at: Time = at.parse()?;
        Ok(at.timestamp().to_zoned(zone.clone()).strftime("%H:%M").to_string())
    };
    let unmatched: Vec<String> = card["unmatched"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|punch| punch["code"].as_str().map(|code| code.replace('_', " ")))
        .collect();
    let totals = &card["totals"];
    Ok(vec![
        day.strftime("%a %-d %b").to_string(),
        clock(segments.first(), "from")?,
        clock(segments.last(), "to")?,
        hours(&totals["worked_accepted_s"]),
        doubtful(totals),
        hours(&totals["break_s"]),
        if unmatched.is_empty() { "-".to_owned() } else { unmatched.join(", ") },
    ])
}

/// What the doubtful punches would add, and take.
fn doubtful(totals: &Value) -> String {
    let (added, taken) = (&totals["worked_provisional_s"], &totals["provisional_taken_s"]);
    match (added.as_u64().unwrap_or_default(), taken.as_u64().unwrap_or_default()) {
        (_, 0) => hours(added),
        (0, _) => format!("-{}", hours(taken)),
        _ => format!("{} -{}", hours(added), hours(taken)),
    }
}

fn hours(seconds: &Value) -> String {
    match seconds.as_u64().unwrap_or_default() / SECONDS_PER_MINUTE {
        0 => "-".to_owned(),
        minutes => format!("{}:{:02}", minutes / 60, minutes % 60),
    }
}
