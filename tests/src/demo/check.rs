//! Reading back over HTTP, and holding the promises against it.
//!
//! What the ledger has is compared with what the devices' own files hold, not with what the demo
//! thinks it did; so a punch that a device lost on its disk would not be excused by the demo's
//! count, nor one that the ledger made up.

use anyhow::Context;
use futures::future::try_join_all;
use reqwest::Method;
use serde_json::Value;

use super::{acts::Memory, cast::Tag, stage::Stage};
use crate::{
    captured::{self, captures},
    file::Kept,
};

/// How many explanations are read at once.
const AT_ONCE: usize = 8;

/// A promise, and whether it was kept.
#[derive(Debug)]
pub struct Promise {
    /// What was promised, for people.
    pub what: String,
    /// What was found wrong; none when it was kept.
    pub broken: Option<String>,
}

/// The promises in the order they were looked at.
#[derive(Debug, Default)]
pub struct Verdict {
    pub promises: Vec<Promise>,
}

impl Verdict {
    /// Holds a promise.
    pub fn hold(&mut self, kept: bool, what: impl Into<String>, otherwise: impl Into<String>) {
        let broken = (!kept).then(|| otherwise.into());
        self.promises.push(Promise { what: what.into(), broken });
    }

    /// Those that were broken.
    pub fn broken(&self) -> Vec<&Promise> {
        self.promises.iter().filter(|promise| promise.broken.is_some()).collect()
    }
}

/// What one device holds against what the ledger has, for the table.
#[derive(Debug)]
pub struct Comparison {
    pub device: String,
    /// Captures in its own file.
    pub on_device: u64,
    /// Of these, in the ledger byte for byte.
    pub in_ledger: u64,
    /// Of these, sent more than once.
    pub sent_again: u64,
    /// Captures in the ledger that its file doesn't hold.
    pub unknown_to_device: u64,
}

/// Compares device by device, and holds every promise against what it finds.
///
/// # Errors
/// When something can't be read.
pub async fn compare(stage: &Stage, verdict: &mut Verdict) -> anyhow::Result<Vec<Comparison>> {
    let events = stage.operator.events().await?;
    dense(&events, verdict);
    let held = captures(&events)?;
    let mut table = Vec::new();
    let mut lost = Vec::new();
    for door in &stage.doors {
        let kept = door.agent.kept().await?;
        let device = door.device.to_string();
        let of_device = held.iter().filter(|captured| captured.device == device).count() as u64;
        let same = |kept: &&Kept| held.iter().any(|c| c.is(kept) && c.device == device);
        let in_ledger = kept.iter().filter(same).count() as u64;
        lost.extend(kept.iter().filter(|kept| !same(kept)).map(|kept| kept.punch.clone()));
        let again = kept.iter().filter(|kept| kept.status.as_deref() == Some("duplicate"));
        table.push(Comparison {
            device: door.agent.name().to_owned(),
            on_device: kept.len() as u64,
            in_ledger,
            sent_again: again.count() as u64,
            unknown_to_device: of_device.saturating_sub(in_ledger),
        });
    }
    let total: u64 = table.iter().map(|row| row.on_device).sum();
    let made: u64 = stage.doors.iter().map(|door| door.punches).sum();
    verdict.hold(
        lost.is_empty() && total == made,
        format!("Nothing is lost: all {made} punches are in the ledger, byte for byte as signed."),
        format!("{made} were confirmed, {total} are on the devices' disks, missing: {lost:?}"),
    );
    let twice = captured::twice(&held);
    let again: u64 = table.iter().map(|row| row.sent_again).sum();
    verdict.hold(
        twice.is_empty() && table.iter().all(|row| row.unknown_to_device == 0),
        format!("A punch counts once: {again} were sent more than once, none is there twice."),
        format!("there more than once: {twice:?}"),
    );
    Ok(table)
}

fn dense(events: &[Value], verdict: &mut Verdict) {
    let hole = captured::hole(events);
    verdict.hold(
        hole.is_none() && !events.is_empty(),
        format!("One order without a hole: positions 1 to {}.", events.len()),
        format!("position {} is missing or twice", hole.unwrap_or(1)),
    );
}

/// Reads every punch and its explanation, twice, and holds the promises about them.
///
/// # Errors
/// When something can't be read.
pub async fn explained(stage: &Stage, verdict: &mut Verdict) -> anyhow::Result<u64> {
    let punches = stage.operator.rows("/v1/punches").await?;
    let silent: Vec<_> = punches
        .iter()
        .filter(|punch| !matches!(punch["standing"].as_str(), Some("accepted" | "referred")))
        .collect();
    let referred = punches.iter().filter(|punch| punch["standing"] == "referred").count();
    verdict.hold(
        silent.is_empty(),
        format!(
            "Nobody is silently rejected: {} punches are accepted, {referred} wait for a manager \
             and count until then.",
            punches.len() - referred
        ),
        format!("rejected, or not judged: {silent:?}"),
    );
    let mut unexplained = Vec::new();
    for some in punches.chunks(AT_ONCE) {
        let answers =
            try_join_all(some.iter().map(|punch| explanation_twice(stage, punch))).await?;
        unexplained.extend(answers.into_iter().flatten());
    }
    verdict.hold(
        unexplained.is_empty(),
        format!(
            "Every answer is explained from events: {} explanations, the same when asked again.",
            punches.len()
        ),
        format!("not explained, or not the same twice: {unexplained:?}"),
    );
    Ok(referred as u64)
}

async fn explanation_twice(stage: &Stage, punch: &Value) -> anyhow::Result<Option<String>> {
    let id = punch["punch"].as_str().context("a punch has an id")?;
    let path = format!("/v1/punches/{id}/explanation");
    let (one, two) = (stage.operator.get(&path).await?, stage.operator.get(&path).await?);
    let told = one["sentences"].as_array().is_some_and(|sentences| sentences.len() >= 3);
    let same = one["sentences"] == two["sentences"] && one["steps"] == two["steps"];
    let agrees = one["standing"] == punch["standing"];
    Ok((!(told && same && agrees)).then(|| id.to_owned()))
}

/// Garbage is kept where a manager sees it, and what was doubted is doubted for its reason.
///
/// # Errors
/// When something can't be read.
pub async fn incidents(
    stage: &Stage,
    memory: &Memory,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let items = stage.operator.rows("/v1/quarantine").await?;
    let mut codes: Vec<_> = items.iter().filter_map(|item| item["code"].as_str()).collect();
    codes.sort_unstable();
    verdict.hold(
        codes == ["bad_capture", "bad_encoding", "bad_signature", "conflict", "too_large"],
        format!("What can't be taken as it came is kept: {} items in quarantine.", codes.len()),
        format!("quarantine holds {codes:?}"),
    );
    for (tag, standing, reason) in [
        (Tag::Plain, "accepted", None),
        (Tag::DoubleTap, "referred", Some("near_duplicate")),
        (Tag::UnknownBadge, "referred", Some("unknown_badge")),
        (Tag::FastClock, "referred", Some("clock_suspect")),
        (Tag::Admitted, "accepted", None),
    ] {
        let id = memory.punches.get(&tag).with_context(|| format!("no punch for {tag:?}"))?;
        let punch = stage.operator.get(&format!("/v1/punches/{id}")).await?;
        let reasons = punch["reasons"].as_array().cloned().unwrap_or_default();
        let judged = punch["standing"] == standing
            && reason.is_none_or(|reason| reasons.iter().any(|found| found == reason));
        verdict.hold(
            judged,
            format!(
                "{} is {standing}{}.",
                tag.shown(),
                reason.map_or(String::new(), |r| format!(" ({r})"))
            ),
            format!("{id} is {} for {reasons:?}", punch["standing"]),
        );
    }
    let absence = memory.absence.as_ref().context("the missing day was not asked for")?;
    verdict.hold(
        absence["conclusion"]["code"] == "on_the_way",
        "A punch that never came is explained, too: which device still held it.",
        format!("the missing day was answered {absence}"),
    );
    Ok(())
}

/// The ledger verifies, from its first event to the signed checkpoint outside the database.
///
/// # Errors
/// When the command can't be run.
pub async fn verified(stage: &Stage, verdict: &mut Verdict) -> anyhow::Result<()> {
    let said = stage.cli.run(&["ledger", "verify"]).await?;
    verdict.hold(
        said.code == 0,
        format!(
            "History can't be changed unnoticed: `ledger verify` finds {} events, {} signatures \
             and {} checkpoints intact.",
            said.json["events"], said.json["signatures"], said.json["checkpoints"]["agreeing"]
        ),
        format!("`ledger verify` exits {}: {} {}", said.code, said.json, said.stderr),
    );
    let (status, ready) = stage.operator.ask(Method::GET, "/readyz", None).await?;
    verdict.hold(
        status.is_success() && ready["ready"] == true,
        "Two kills later, the server is ready and every follower runs.",
        format!("/readyz answers {status}: {ready}"),
    );
    Ok(())
}
