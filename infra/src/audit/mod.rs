//! Verifying the whole ledger: whether what stands in it is what was written, and whether what
//! stands beside it follows from it.
//!
//! Positions are dense from 1, times never go back, each aggregate's events are numbered one by
//! one; every row has the hash stored with it, and all hashes together have the roots that the
//! signed checkpoints outside the database give them; every capture is signed by the key its device
//! enrolled with; bytes, notes and badges beside it have the digests that events name; chains,
//! access, sites, progress, the adjudicator's memory and its place are what the events make them;
//! and what guards the ledger inside the database is as the migrations made it.
//!
//! Whoever may alter the database can make the first half agree again by recomputing hashes. The
//! checkpoints and the devices' signatures are what they can't make, so without checkpoints a
//! verification says so. Which table is which stands in [`tables`].
//!
//! Reads a page at a time and keeps nothing of it, so memory stays flat however long the ledger is.
//! Doesn't stop at the first finding, writes nothing, and works beside a server that appends: it
//! walks up to the head, and compares what is kept beside the ledger in one snapshot at the end.
//! Gaps and forks of devices are facts about devices, listed and no findings.

mod beside;
pub mod checkpoint;
mod claims;
mod devices;
mod guards;
mod memory;
mod report;
mod rows;
mod signatures;
pub mod tables;
mod walk;

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    follower,
    ledger::judged_through,
    postgres::{Pool, Transaction, within},
};

pub use claims::{Claims, ClaimsError};
pub use report::{
    CheckpointsRead, DEVICE_NOTES_MAX, DeviceFork, DeviceGap, EpochRead, FINDINGS_MAX, Finding,
    FindingCode, ModelCompared, Report,
};

use report::Findings;
use walk::{Erased, StepBack, Walk};

/// The longest time that what is kept beside the ledger may take to be compared: a large one sorts
/// all its events once.
const COMPARE_MAX: Duration = Duration::from_secs(8 * 3_600);

/// Why a verification could not be carried through. It says nothing about the ledger.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The database can't be read.
    #[error("the ledger can't be read to its end; nothing is known about it")]
    Database(#[from] sqlx::Error),
    /// The process is going down.
    #[error("the verification was stopped; nothing is known about the ledger")]
    Stopped,
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditStep {
    /// This many events of this many were read.
    Read { events: u64, of: u64 },
    /// The numbers of all aggregates' events are compared, in one statement.
    Sequences,
    /// What is kept beside the ledger is compared.
    Beside,
}

/// Verifies the ledger up to its head. The pool must be allowed to select from every table.
///
/// # Errors
/// When it can't be carried through; whatever is wrong with the ledger is in the report.
pub async fn audit(
    pool: &Pool,
    claims: Claims,
    progress: &(dyn Fn(AuditStep) + Sync),
) -> Result<Report, AuditError> {
    let mut findings = Findings::default();
    let (comparison, mut notes) = claims.comparison(&mut findings);
    let mut walk = Walk::new(findings, comparison);
    let (mut from, mut head) = (0, rows::head(pool).await?);
    // What came meanwhile is walked, too, so that the snapshot is soon up with it.
    while head > from {
        read(pool, (from, head), &mut walk, progress).await?;
        from = head;
        head = rows::head(pool).await?.max(from);
        if head - from < rows::PAGE_POSITIONS {
            break;
        }
    }
    let head = within(COMPARE_MAX, async {
        let mut snapshot = snapshot(pool).await?;
        let extent = rows::extent(&mut snapshot).await?;
        let head = extent.head;
        read(pool, (from, head), &mut walk, progress).await?;
        walk.end(head).await?;
        check_extent(extent, &mut walk);
        progress(AuditStep::Sequences);
        check_sequences(&mut snapshot, head, &mut walk.findings).await?;
        progress(AuditStep::Beside);
        check_beside(&mut snapshot, head, &mut walk).await?;
        guards::check(&mut snapshot, &mut walk.findings).await?;
        Ok::<_, AuditError>(head)
    })
    .await?;
    if walk.unreadable > 0 {
        notes.push(format!(
            "{} event(s) are of a kind that this program doesn't know; their hashes were compared, \
             what they say was not. Was the ledger written by a newer version?",
            walk.unreadable
        ));
    }
    Ok(report(walk, head, notes))
}

/// One view of the whole database, however much is written meanwhile.
async fn snapshot(pool: &Pool) -> Result<Transaction, sqlx::Error> {
    let mut snapshot = pool.begin().await?;
    sqlx::raw_sql(
        "set transaction isolation level repeatable read, read only; \
         set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0; \
         set local enable_seqscan = on; set local work_mem = '64MB'",
    )
    .execute(&mut *snapshot)
    .await?;
    Ok(snapshot)
}

fn check_extent(extent: rows::Extent, walk: &mut Walk) {
    let rows::Extent { head, recorded_at_us, epoch, last, rows_up_to_head } = extent;
    if let Some(step) = walk.steps_back.last()
        && step.epoch != epoch
    {
        let what = format!("the head is in another epoch ({epoch}) than this event began");
        walk.findings.add(Finding::at(step.position, FindingCode::HeadAltered, what));
    }
    if last > head {
        walk.findings.add(Finding::within(
            (head + 1, last),
            FindingCode::Misplaced,
            format!("events stand at positions up to {last}, beyond the head at {head}"),
        ));
    }
    if walk.events != rows_up_to_head {
        let what = format!(
            "the table holds {rows_up_to_head} rows up to the head, its index by position {}: the \
             index is damaged",
            walk.events
        );
        walk.findings.add(Finding::aside(FindingCode::Misplaced, what));
    }
    if walk.last == head && head > 0 && walk.last_recorded_us != recorded_at_us {
        let what = "the head says that this event was recorded at another time than it says itself";
        walk.findings.add(Finding::at(head, FindingCode::HeadAltered, what));
    }
}

/// The next page is fetched while one is checked.
async fn read(
    pool: &Pool,
    (from, head): (u64, u64),
    walk: &mut Walk,
    progress: &(dyn Fn(AuditStep) + Sync),
) -> Result<(), AuditError> {
    let mut after = from;
    let mut rows = rows::page(pool, after, head).await?;
    while after < head {
        let next = after.saturating_add(rows::PAGE_POSITIONS).min(head);
        let (checked, fetched) = tokio::join!(walk.page(pool, rows), rows::page(pool, next, head));
        checked?;
        rows = fetched?;
        after = next;
        progress(AuditStep::Read { events: after, of: head });
    }
    Ok(())
}

/// What is kept beside the ledger, as a whole.
async fn check_beside(
    snapshot: &mut PgConnection,
    head: u64,
    walk: &mut Walk,
) -> Result<(), AuditError> {
    let findings = &mut walk.findings;
    beside::strays(snapshot, walk.links, findings).await?;
    walk.badges.check(snapshot, findings).await?;
    devices::deployment(snapshot, &walk.orgs, findings).await?;
    devices::access(snapshot, &walk.devices, findings).await?;
    devices::sites(snapshot, &walk.devices, findings).await?;
    let place = check_place(snapshot, head, findings).await?;
    memory::check_whole(snapshot, place, findings).await?;
    devices::chains(snapshot, &walk.devices, place, findings).await?;
    Ok(())
}

/// The place of the adjudicator, which is the only follower whose place stands beside the ledger.
async fn check_place(
    snapshot: &mut PgConnection,
    head: u64,
    findings: &mut Findings,
) -> Result<u64, AuditError> {
    let mut places: std::collections::BTreeMap<String, i64> =
        sqlx::query_as("select name, position from followers")
            .fetch_all(&mut *snapshot)
            .await?
            .into_iter()
            .collect();
    let stands = judged_through(snapshot).await.is_ok_and(|place| place.stands);
    let mut wrong = |what| findings.add(Finding::aside(FindingCode::PlaceAltered, what));
    let place = places.remove(crate::adjudicator::NAME).map(i64::cast_unsigned);
    match place {
        None => wrong("the adjudicator's place is gone".to_owned()),
        Some(place) if place > head => {
            wrong(format!("the adjudicator's place is {place}, beyond the head at {head}"));
        }
        Some(place) if !stands => {
            wrong(format!("the adjudicator's place is at another event than stands at {place}"));
        }
        Some(_) => {}
    }
    for (name, place) in places {
        let kept = follower::place::KEPT.contains(&name.as_str());
        if kept && place.cast_unsigned() > head {
            wrong(format!("the place of `{name}` is {place}, beyond the head at {head}"));
        } else if !kept {
            wrong(format!("there is a place of `{name}`, which is no follower"));
        }
    }
    Ok(place.unwrap_or_default())
}

async fn check_sequences(
    snapshot: &mut PgConnection,
    head: u64,
    findings: &mut Findings,
) -> Result<(), AuditError> {
    for broken in rows::broken_sequences(snapshot, head, FINDINGS_MAX).await? {
        let what = if broken.position <= broken.previous_position {
            format!(
                "it is number {} of its aggregate and stands in front of number {}, at position {}",
                broken.sequence, broken.previous, broken.previous_position
            )
        } else {
            format!(
                "it is number {} of its aggregate, and the one before it is number {}",
                broken.sequence, broken.previous
            )
        };
        findings.add(Finding::at(broken.position, FindingCode::SequenceBroken, what));
    }
    Ok(())
}

/// What is gone by right, in words.
fn erased(erased: Erased) -> Vec<String> {
    let Erased { pictures, faces, people, notes } = erased;
    let mut told = Vec::new();
    if pictures + faces > 0 {
        told.push(format!(
            "The bytes of {pictures} pictures of punches were erased, and what was kept of a face \
             {faces} times; the ledger says of each when and why."
        ));
    }
    if people + notes > 0 {
        told.push(format!(
            "{people} people were erased, with what stood beside the ledger of them; the ledger \
             says when. {notes} notes that events name are gone; of those that are left each is \
             the one that its event names."
        ));
    }
    told
}

fn report(walk: Walk, head: u64, mut notes: Vec<String>) -> Report {
    let Walk { mut findings, comparison, steps_back, .. } = walk;
    let checkpoints = comparison.finish(head, &steps_back, &mut findings);
    notes.extend(steps_back.iter().map(|StepBack { position, after, seen, .. }| {
        format!(
            "At position {position} the ledger says that its database had gone back: what stood \
             after {after} and up to {seen} at least was lost."
        )
    }));
    notes.extend(erased(walk.erased));
    let mut gaps: Vec<DeviceGap> = Vec::new();
    let mut devices_more = walk.forks_more;
    for (device, known) in walk.devices {
        for gap in known.device.gaps() {
            if gaps.len() < DEVICE_NOTES_MAX {
                gaps.push(DeviceGap { device, gap: *gap });
            } else {
                devices_more += 1;
            }
        }
    }
    let intact = findings.is_empty();
    let (findings, findings_more) = findings.into_parts();
    Report {
        intact,
        first_bad: report::first_bad(&findings),
        findings,
        findings_more,
        events: walk.events,
        head,
        root: walk.stored.root(),
        signatures: walk.signatures,
        checkpoints,
        gaps,
        forks: walk.forks,
        devices_more,
        models: Vec::new(),
        notes,
    }
}
