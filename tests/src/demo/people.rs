//! The right person, in the demo: a badge that nobody had finds its person, and a card that is
//! issued again leaves its old holder's name and hours alone.

use std::fs;

use anyhow::Context;
use jiff::tz::TimeZone;
use punchtrail_testkit::PATIENCE;
use serde_json::Value;

use super::{
    acts::Memory,
    cast::{SITES, Script, Tag, UNKNOWN_BADGE},
    check::Verdict,
    screen::Screen,
    stage::Stage,
};

/// Whose the badge turns out to be that nobody had.
const NEWCOMER: &str = "Mira Castell";
/// Who gets somebody else's card.
const NEXT_HOLDER: &str = "Tom Averill";

/// Plays it.
///
/// # Errors
/// When something goes otherwise than it must.
pub async fn play(
    screen: &mut Screen,
    stage: &Stage,
    script: &Script,
    memory: &Memory,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    screen.chapter(
        "The right person, the right hours",
        "A badge is not a person: who held it when the punch was made is who punched, whenever \
         that becomes known.",
    );
    let before = verdict.promises.len();
    find(screen, stage, script, memory, verdict).await?;
    issue_again(screen, stage, script, verdict).await?;
    super::judged(screen, &verdict.promises[before..]);
    Ok(())
}

/// The badge that nobody had is issued for the day on which it was read.
async fn find(
    screen: &Screen,
    stage: &Stage,
    script: &Script,
    memory: &Memory,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let id = memory.punches.get(&Tag::UnknownBadge).context("the punch of an unknown badge")?;
    let first_day = script.days.0.to_string();
    let add = ["employee", "add", "--name", NEWCOMER, "--site", SITES[1].0];
    let add = [&add[..], &["--badge", UNKNOWN_BADGE, "--from", &first_day]].concat();
    let added = stage.cli.json(&add).await?;
    stage.operator.settled(true, PATIENCE).await?;
    let punch = stage.operator.get(&format!("/v1/punches/{id}")).await?;
    verdict.hold(
        punch["employee"] == added["employee"] && punch["standing"] == "accepted",
        "A punch by a badge that nobody had finds its person once the badge is issued for that \
         day.",
        format!("the punch is {punch}, added was {added}"),
    );
    let explanation = stage.operator.get(&format!("/v1/punches/{id}/explanation")).await?;
    screen.quote(
        &format!("Badge {UNKNOWN_BADGE} is issued to {NEWCOMER}, from {first_day} on"),
        &super::tell::texts(&explanation["sentences"]),
    );
    Ok(())
}

/// A roster gives somebody's card to somebody else: refused as it is, and taken with the day on
/// which it changed hands.
async fn issue_again(
    screen: &Screen,
    stage: &Stage,
    script: &Script,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let worker = script.protagonist();
    let people = stage.operator.employees().await?;
    let employee = people.get(&worker.badge).context("the protagonist's badge")?.to_owned();
    let (before, name_before) = worked(stage, script, &employee).await?;
    let roster = stage.server.installation().data.path().join("next-holder.csv");
    let row = format!("badge,name,pin,site\n{},{NEXT_HOLDER},,{}\n", worker.badge, SITES[0].0);
    fs::write(&roster, row)?;
    let roster = roster.to_str().context("a path in UTF-8")?;
    let refused = stage.cli.run(&["employee", "import", roster]).await?;
    let today = jiff::Timestamp::now().to_zoned(TimeZone::get(SITES[0].1)?).date().to_string();
    stage.cli.json(&["employee", "import", roster, "--reissue", &today]).await?;
    stage.operator.settled(true, PATIENCE).await?;
    let (after, name_after) = worked(stage, script, &employee).await?;
    verdict.hold(
        refused.code != 0 && before == after && name_before == name_after && !before.is_null(),
        format!(
            "Card {} changes hands: the roster is refused without a word of when, and {} keeps \
             name and hours.",
            worker.badge, worker.name
        ),
        format!("refused with {}; {before} became {after}, {name_after}", refused.code),
    );
    screen.done(&format!(
        "card {} is {NEXT_HOLDER}'s from today on; {}'s hours until yesterday are as they were",
        worker.badge, worker.name
    ));
    Ok(())
}

/// A person's cards of the days before today, and their name.
async fn worked(stage: &Stage, script: &Script, employee: &str) -> anyhow::Result<(Value, Value)> {
    let (from, to) = script.days;
    let path = format!("/v1/timecards?employee={employee}&from={from}&to={to}");
    let page = stage.operator.get(&path).await?;
    let person = &page["data"][0];
    Ok((person["cards"].clone(), person["employee_name"].clone()))
}
