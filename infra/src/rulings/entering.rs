//! Punches that people add: nobody made them at a device, and that is written on them for ever.
//! Their ids are made by whoever adds them, so that the same sent again is the same.

use punchtrail_domain::{
    AggregateType, Event,
    punch::{Punch, PunchCommand, PunchError, PunchEvent, RulingReason},
};
use punchtrail_protocol::{EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind};

use super::{Author, Fault, RuleError, TRIES_MAX, decided, notes};
use crate::ledger::{
    self, Append, AppendError, ExecuteError, Ledger, Loaded, ReadError, StreamAppend,
};

/// A punch that a person adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entering {
    pub punch: PunchId,
    pub employee: EmployeeId,
    pub site: SiteId,
    pub kind: PunchKind,
    pub at: Time,
    pub reason: RulingReason,
}

impl Entering {
    pub(super) fn command(self, author: &Author) -> PunchCommand {
        let Self { employee, site, kind, at, reason, .. } = self;
        PunchCommand::Enter { employee, site, kind, at, reason, note: author.note_digest() }
    }
}

/// An entered punch that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    /// Whether it is in the ledger only now.
    pub is_new: bool,
    /// Position of the last event that it was entered by.
    pub position: Position,
    /// The sequence of that event.
    pub sequence: u64,
}

/// Adds a punch. The same again, whoever sends it, changes nothing and is answered alike.
///
/// # Errors
/// When it is the author's own, another punch stands under its id, it can't be meant, or the ledger
/// did not take it.
pub async fn enter(
    ledger: &Ledger,
    entering: Entering,
    author: &Author,
) -> Result<Entered, RuleError<PunchError>> {
    if !entering.punch.is_v7() {
        return Err(Fault::NotV7.into());
    }
    author.may_rule_on(Some(entering.employee))?;
    for _ in 0..TRIES_MAX {
        if let Some(entered) = stands(ledger, entering, author).await? {
            return Ok(entered);
        }
        let (new, command) = (Loaded::<Punch>::default(), entering.command(author));
        let (events, mut streams) =
            decided(ledger, author, (entering.punch, &new), command).await?;
        streams.push(StreamAppend::of(entering.punch, 0, &events));
        let append = Append { streams, metadata: author.metadata(), side: author.side() };
        match ledger.append(append).await {
            Ok(appended) => {
                let (position, sequence) = (appended.last, events.len() as u64);
                return Ok(Entered { is_new: true, position, sequence });
            }
            Err(AppendError::Stale) => {}
            Err(error) => return Err(ExecuteError::Append(error).into()),
        }
    }
    Err(ExecuteError::Append(AppendError::Stale).into())
}

/// The entered punch that stands under the id, if it is the same in every field. A note that was
/// erased is taken for the same.
async fn stands(
    ledger: &Ledger,
    entering: Entering,
    author: &Author,
) -> Result<Option<Entered>, RuleError<PunchError>> {
    let id = [entering.punch.to_string()];
    let recorded = ledger::streams(ledger.pool(), AggregateType::Punch, &id).await;
    let recorded = recorded.map_err(ExecuteError::Load)?;
    let Some(first) = recorded.first() else { return Ok(None) };
    let Event::Punch(punch, event) = first.event().map_err(ReadError::from)? else {
        return Ok(None);
    };
    let PunchEvent::Entered { employee, site, kind, at, reason, note } = event else {
        return Err(RuleError::Stands(what(&event)));
    };
    let held = Entering { punch, employee, site, kind, at, reason };
    let kept = notes::kept(ledger.pool(), &note.into_iter().collect::<Vec<_>>()).await;
    let kept = kept.map_err(ReadError::from)?;
    let kept = note.map(|note| kept.get(&note).map(|note| note.body.as_str()));
    let same_note = match (kept, author.note.as_ref()) {
        (None, said) => said.is_none(),
        (Some(None), _) => true,
        (Some(Some(kept)), said) => said.is_some_and(|said| said.body() == kept),
    };
    if held != entering || !same_note {
        return Err(RuleError::Stands(what(&event)));
    }
    // It is entered by one append, and accepted by that.
    let last = recorded.get(1).unwrap_or(first);
    Ok(Some(Entered { is_new: false, position: last.position, sequence: last.sequence }))
}

/// What stands under an id, in words.
fn what(first: &PunchEvent) -> String {
    let of = |employee: &EmployeeId| format!("of the employee {employee}");
    match first {
        PunchEvent::Captured { capture, .. } => match capture.capture() {
            Ok(read) => format!(
                "the device {} captured an `{}` at {}, {}",
                read.device,
                read.kind.as_str(),
                read.captured_at,
                read.employee.as_ref().map_or_else(|| "by an unknown badge".to_owned(), of)
            ),
            Err(_) => "a device captured it".to_owned(),
        },
        PunchEvent::Entered { employee, site, kind, at, .. } => format!(
            "a person added an `{}` at {at}, {}, at the site {site}, or with another reason or note",
            kind.as_str(),
            of(employee)
        ),
        PunchEvent::Admitted { employee, kind, captured_at, .. } => format!(
            "an `{}` at {captured_at}, {}, was admitted from quarantine",
            kind.as_str(),
            of(employee)
        ),
        _ => "it came another way".to_owned(),
    }
}
