//! Whose punches many are at once: those that wait with a badge nobody knew. They are given to a
//! person in bounded appends, each punch at the sequence that was seen of it; so whoever was cut off
//! sends the same again, and what is done stays done.

use std::collections::BTreeMap;

use punchtrail_domain::punch::{Punch, PunchCommand, PunchError, RulingReason};
use punchtrail_protocol::{EmployeeId, Position, PunchId};

use super::{Author, RuleError, TRIES_MAX, notes::Note, rests};
use crate::ledger::{
    Append, AppendError, CALLER_EVENTS_MAX, ExecuteError, Ledger, Loaded, SideWrite, StreamAppend,
    load,
};

/// The most punches that one append gives to a person.
pub const ASSIGNED_TOGETHER_MAX: usize = 500;
/// The most events that one of them makes: who it is, two doubts taken back, that it is accepted.
const EVENTS_OF_ONE_MAX: usize = 8;
const _: () = assert!(ASSIGNED_TOGETHER_MAX * EVENTS_OF_ONE_MAX < CALLER_EVENTS_MAX);

/// Whom they are given to, and why.
#[derive(Debug, Clone)]
pub struct Assigning {
    pub employee: EmployeeId,
    pub reason: Option<RulingReason>,
    /// The text of a note on each; no two events share one note.
    pub note: Option<String>,
    /// Up to where the caller has looked: what changed since stays as it is.
    pub as_of: Option<Position>,
}

/// What became of them.
#[derive(Debug, Clone, Default)]
pub struct Assigned {
    /// How many are theirs by this.
    pub assigned: usize,
    /// How many were theirs already.
    pub already: usize,
    /// Those that were left as they are.
    pub left: Vec<(PunchId, Left)>,
    /// Where the last of it stands in the ledger.
    pub position: Option<Position>,
}

/// Why one was left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is somebody's by now.
    Somebodys,
    /// A person took it out of the count.
    Out,
    /// Something came to be known of it after the caller had looked.
    Changed,
}

impl Assigned {
    /// Adds what became of others.
    pub fn add(&mut self, other: Self) {
        self.assigned += other.assigned;
        self.already += other.already;
        self.left.extend(other.left);
        self.position = self.position.max(other.position);
    }
}

/// Gives punches of nobody to a person, in one append; at most [`ASSIGNED_TOGETHER_MAX`] of them.
/// Of the author, `note` is left aside for that of `assigning`.
///
/// # Errors
/// When it is the author's own, the person is unknown or erased, or the ledger did not take it.
pub async fn assign_many(
    ledger: &Ledger,
    punches: &[PunchId],
    assigning: &Assigning,
    author: &Author,
) -> Result<Assigned, RuleError<PunchError>> {
    author.may_rule_on(Some(assigning.employee))?;
    let (punches, _) = punches.split_at(punches.len().min(ASSIGNED_TOGETHER_MAX));
    let ids: Vec<String> = punches.iter().map(PunchId::to_string).collect();
    for _ in 0..TRIES_MAX {
        let person = rests::person(ledger, assigning.employee).await?;
        let loaded = load::<Punch>(ledger.pool(), &ids).await?;
        let (mut done, mut streams, written) = decided(punches, &loaded, assigning);
        if done.assigned == 0 {
            return Ok(done);
        }
        streams.push(person);
        let side = side(written, author);
        let append = Append { streams, metadata: author.metadata(), side };
        match ledger.append(append).await {
            Ok(appended) => {
                done.position = Some(appended.last);
                return Ok(done);
            }
            Err(AppendError::Stale) => {}
            Err(error) => return Err(ExecuteError::Append(error).into()),
        }
    }
    Err(ExecuteError::Append(AppendError::Stale).into())
}

/// What each comes to as it stands, and the notes on those that are given away.
fn decided(
    punches: &[PunchId],
    loaded: &BTreeMap<String, Loaded<Punch>>,
    assigning: &Assigning,
) -> (Assigned, Vec<StreamAppend>, Vec<Note>) {
    let (mut done, mut streams, mut written) = (Assigned::default(), Vec::new(), Vec::new());
    let Assigning { employee, reason, note, as_of } = assigning;
    for punch in punches {
        let id = punch.to_string();
        let Some(Loaded { aggregate, sequence, position }) = loaded.get(&id) else { continue };
        let changed = as_of.is_some_and(|seen| position.is_some_and(|last| last > seen));
        let left = match aggregate.employee() {
            Some(whose) if whose == *employee => {
                done.already += 1;
                continue;
            }
            Some(_) => Some(Left::Somebodys),
            None if !aggregate.standing().counts() => Some(Left::Out),
            None => changed.then_some(Left::Changed),
        };
        if let Some(left) = left {
            done.left.push((*punch, left));
            continue;
        }
        let note = note.clone().map(Note::new);
        let digest = note.as_ref().map(Note::digest);
        let command = PunchCommand::Assign { employee: *employee, reason: *reason, note: digest };
        // Refused only for a punch that is theirs or doesn't exist.
        let events = aggregate.decide(command).unwrap_or_default();
        streams.push(StreamAppend::of(id, *sequence, &events));
        written.extend(note);
        done.assigned += 1;
    }
    (done, streams, written)
}

fn side(written: Vec<Note>, author: &Author) -> Option<SideWrite> {
    if written.is_empty() {
        return None;
    }
    let actor = author.actor.clone();
    Some(SideWrite::new(move |connection| {
        let (written, actor) = (written.clone(), actor.clone());
        Box::pin(async move { Note::insert_all(&written, connection, &actor).await })
    }))
}
