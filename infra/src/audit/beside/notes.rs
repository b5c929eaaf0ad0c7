//! Notes of people, and of devices. An event holds a salted digest of a note, and its metadata who
//! wrote it; the note may be gone, erased with its salt, but not another one.

use std::collections::HashMap;

use punchtrail_protocol::Digest;
use sqlx::PgConnection;

use crate::{postgres::Pool, rulings::notes};

use super::super::report::{Finding, FindingCode, Findings};

/// A note that an event names.
#[derive(Debug)]
pub(in crate::audit) struct NamedNote {
    pub position: u64,
    pub digest: Digest,
    /// Who caused the event, as its metadata says.
    pub actor: Option<String>,
}

impl NamedNote {
    /// That the event at `position` names, by its digest and who caused the event.
    pub(in crate::audit) fn of(position: u64, (digest, actor): (Digest, Option<String>)) -> Self {
        Self { position, digest, actor }
    }
}

/// Compares the notes that are there with what names them; how many are gone.
pub(super) async fn check(
    pool: &Pool,
    named: &[NamedNote],
    findings: &mut Findings,
) -> Result<u64, sqlx::Error> {
    if named.is_empty() {
        return Ok(0);
    }
    let digests: Vec<&[u8]> = named.iter().map(|note| note.digest.0.as_slice()).collect();
    let rows: Vec<(Vec<u8>, Vec<u8>, String, String)> =
        sqlx::query_as("select digest, salt, author, body from notes where digest = any($1)")
            .bind(digests)
            .fetch_all(pool)
            .await?;
    let kept: HashMap<_, _> = rows.into_iter().map(|(id, s, a, b)| (id, (s, a, b))).collect();
    let mut gone = 0;
    for NamedNote { position, digest, actor } in named {
        let Some((salt, author, body)) = kept.get(digest.0.as_slice()) else {
            gone += 1;
            continue;
        };
        let what = if notes::digest(salt, body) != *digest {
            "the note that it names was altered: it has another digest"
        } else if actor.as_ref() != Some(author) {
            "the note that it names is said to be by somebody else than who caused the event"
        } else {
            continue;
        };
        findings.add(Finding::at(*position, FindingCode::NoteAltered, what));
    }
    Ok(gone)
}

/// Notes that no event names: a note that was altered together with its digest is one of these.
pub(in crate::audit) async fn strays(
    snapshot: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let strays: i64 = sqlx::query_scalar(
        "select count(*) from notes where not exists (select from events \
         where event_type in ('Accepted', 'Rejected', 'Amended', 'Voided', 'Admitted', \
             'Dismissed', 'CommandIssued', 'CommandFinished', 'Opened', 'Answered', 'Resolved', \
             'Reopened', 'LegalHoldPlaced', 'LegalHoldLifted', 'Entered', 'Identified', \
             'Reassigned', 'ShiftJoined', 'ShiftParted') \
         and coalesce(payload -> event_type ->> 'note', \
             payload #>> '{CommandIssued,instruction,show_message,note}') \
             = encode(notes.digest, 'hex'))",
    )
    .fetch_one(snapshot)
    .await?;
    if strays > 0 {
        findings.add(Finding::aside(
            FindingCode::NoteAltered,
            format!("{strays} note(s) are there that no event names"),
        ));
    }
    Ok(())
}
