//! Verifying the whole ledger: whether what stands in it is what was written.
//!
//! Positions are dense from 1, times never go back, each aggregate's events are numbered one by
//! one; every row has the hash stored with it, and all hashes together have the roots that the
//! signed checkpoints outside the database give them; every capture is signed by the key its device
//! enrolled with; bytes kept beside the ledger have the digests that events name; the devices'
//! chains belong to the events.
//!
//! Whoever may alter the database can make the first half agree again by recomputing hashes. The
//! checkpoints and the devices' signatures are what they can't make, so without checkpoints a
//! verification says so.
//!
//! Reads a page at a time and keeps nothing of it, so memory stays flat however long the ledger is.
//! Doesn't stop at the first finding, writes nothing, and works beside a server that appends: it
//! verifies up to the head as it found it. Gaps and forks of devices are facts about devices,
//! listed and no findings.

mod beside;
pub mod checkpoint;
mod claims;
mod report;
mod rows;
mod signatures;
mod walk;

use sqlx::PgPool;

pub use claims::{Claims, ClaimsError};
pub use report::{
    CheckpointsRead, DEVICE_NOTES_MAX, DeviceFork, DeviceGap, EpochRead, FINDINGS_MAX, Finding,
    FindingCode, Report,
};

use report::Findings;
use rows::Extent;
use walk::Walk;

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
}

/// Verifies the ledger up to its head. The pool must be allowed to select from every table.
///
/// # Errors
/// When it can't be carried through; whatever is wrong with the ledger is in the report.
pub async fn audit(
    pool: &PgPool,
    claims: Claims,
    progress: &(dyn Fn(AuditStep) + Sync),
) -> Result<Report, AuditError> {
    let extent = rows::extent(pool).await?;
    let mut findings = Findings::default();
    check_extent(extent, &mut findings);
    let (comparison, mut notes) = claims.comparison(&mut findings);
    let mut walk = Walk::new(findings, comparison);
    read_all(pool, extent, &mut walk, progress).await?;
    walk.end(extent.head).await?;
    progress(AuditStep::Sequences);
    check_sequences(pool, extent.head, &mut walk.findings).await?;
    beside::stray_links(pool, extent.head, walk.links, &mut walk.findings).await?;
    beside::altered_keys(pool, &walk.keys, &mut walk.findings).await?;
    if walk.events != extent.rows_up_to_head {
        let what = format!(
            "the table holds {} rows up to the head, its index by position {}: the index is \
             damaged",
            extent.rows_up_to_head, walk.events
        );
        walk.findings.add(Finding::aside(FindingCode::Misplaced, what));
    }
    if walk.unreadable > 0 {
        notes.push(format!(
            "{} event(s) are of a kind that this program doesn't know; their hashes were compared, \
             what they say was not. Was the ledger written by a newer version?",
            walk.unreadable
        ));
    }
    Ok(report(walk, extent.head, notes))
}

fn check_extent(extent: Extent, findings: &mut Findings) {
    let Extent { head, last, .. } = extent;
    if last > head {
        findings.add(Finding::within(
            (head + 1, last),
            FindingCode::Misplaced,
            format!("events stand at positions up to {last}, beyond the head at {head}"),
        ));
    }
}

/// The next page is fetched while one is checked.
async fn read_all(
    pool: &PgPool,
    extent: Extent,
    walk: &mut Walk,
    progress: &(dyn Fn(AuditStep) + Sync),
) -> Result<(), AuditError> {
    let head = extent.head;
    let mut after = 0;
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

async fn check_sequences(
    pool: &PgPool,
    head: u64,
    findings: &mut Findings,
) -> Result<(), AuditError> {
    for broken in rows::broken_sequences(pool, head, FINDINGS_MAX).await? {
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

fn report(walk: Walk, head: u64, notes: Vec<String>) -> Report {
    let Walk { mut findings, comparison, .. } = walk;
    let checkpoints = comparison.finish(head, &mut findings);
    let mut gaps: Vec<DeviceGap> = Vec::new();
    let mut devices_more = walk.forks_more;
    for (device, state) in walk.devices {
        for gap in state.gaps() {
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
        notes,
    }
}
