//! What people rule on punches and quarantined items. Their notes are kept beside the ledger in the
//! same transaction, and an item that is admitted becomes a punch in one append or not at all.
//!
//! Whatever a ruling rests on beside its punch (the person it is given to, the other end of a
//! shift) is held to what was seen of it, in the same append.

pub mod disputes;
mod entering;
pub mod notes;
mod persons;
pub mod quarantine;
mod rests;
mod shifts;

use cqrs_es::Aggregate as _;
use jiff::civil::Date;
use punchtrail_domain::{
    AggregateType,
    log::recorded::Actor,
    punch::{Punch, PunchCommand, PunchError, PunchEvent},
    quarantine::{Quarantine, QuarantineCommand, QuarantineError, admitted_as, bytes_of},
};
use punchtrail_protocol::{
    Digest, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind, shown::Shown,
};

pub use entering::{Entered, Entering, enter};
pub use persons::{ASSIGNED_TOGETHER_MAX, Assigned, Assigning, Left, assign_many};
pub use rests::Fault;
pub use shifts::{SHIFT_JOINED_MAX, fits};

use crate::{
    access::keys,
    ledger::{
        Append, AppendError, ExecuteError, Ledger, Loaded, Metadata, ReadError, SideWrite,
        StreamAppend,
    },
    rulings::notes::Note,
};

/// How often an admission is decided anew when other appends keep coming first.
const TRIES_MAX: u32 = 8;

/// The events that people rule by.
const RULINGS: [&str; 8] = [
    "Accepted",
    "Rejected",
    "Amended",
    "Voided",
    "Identified",
    "Reassigned",
    "ShiftJoined",
    "ShiftParted",
];

/// Who rules or says something, by what request, and what they noted.
#[derive(Debug, Clone)]
pub struct Author {
    pub actor: Actor,
    /// Who of the workers it is, if it is one.
    pub employee: Option<EmployeeId>,
    pub request: Option<String>,
    pub note: Option<Note>,
}

impl Author {
    /// Who does something without a request.
    pub(crate) const fn of(actor: Actor) -> Self {
        Self { actor, employee: None, request: None, note: None }
    }

    /// Whoever sits at the server's own command line.
    pub fn of_command_line(note: Option<Note>) -> Self {
        Self { note, ..Self::of(Actor::CommandLine) }
    }

    /// That they aren't to rule on what concerns themselves.
    ///
    /// # Errors
    /// When they are.
    pub fn may_rule_on<E: std::error::Error>(
        &self,
        concerned: Option<EmployeeId>,
    ) -> Result<(), RuleError<E>> {
        match self.employee.is_some() && self.employee == concerned {
            true => Err(RuleError::Own),
            false => Ok(()),
        }
    }

    pub(crate) fn metadata(&self) -> Metadata {
        let metadata = Metadata::new(self.actor.clone());
        match &self.request {
            Some(request) => metadata.with_request(request),
            None => metadata,
        }
    }

    pub(crate) fn note_digest(&self) -> Option<Digest> {
        self.note.as_ref().map(Note::digest)
    }

    pub(crate) fn side(&self) -> Option<SideWrite> {
        let (note, actor) = (self.note.clone()?, self.actor.clone());
        Some(SideWrite::new(move |connection| {
            let (note, actor) = (note.clone(), actor.clone());
            Box::pin(async move { note.insert(connection, &actor).await })
        }))
    }
}

/// A ruling that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruled {
    /// Where it stands in the ledger.
    pub position: Position,
    /// The punch's newest sequence, for the next ruling.
    pub sequence: u64,
    /// The business days that the punch lay on before it and lies on now, at its site: two where a
    /// new time is another day's.
    pub days: Vec<Date>,
}

/// Why a ruling was not made.
#[derive(Debug, thiserror::Error)]
pub enum RuleError<E: std::error::Error + 'static> {
    /// Nobody rules on their own.
    #[error(
        "this is about yourself, and nobody rules on their own; nothing was changed. Ask somebody \
         else who may rule"
    )]
    Own,
    /// Somebody ruled since the caller looked.
    #[error(
        "{by} ruled on it at {at}, after you had looked; nothing was changed. Look again, and rule \
         anew if need be"
    )]
    AlreadyRuled { by: String, at: Time, sequence: u64 },
    /// Something is known now that was not when the caller looked.
    #[error(
        "something came to be known of the punch after you had looked; nothing was changed. Look \
         again, then rule"
    )]
    Changed { sequence: u64 },
    /// Something that it names isn't there, or can't be meant.
    #[error(transparent)]
    AtFault(Fault),
    /// Another punch stands under the id of one that was to be entered.
    #[error(
        "another punch stands under this id: {0}. Nothing was changed; make a new id for another \
         punch"
    )]
    Stands(String),
    #[error(transparent)]
    Ledger(#[from] ExecuteError<E>),
}

/// Rules on a punch; `command` is given the note's digest. With an `expected` sequence only if the
/// punch has no newer event.
///
/// # Errors
/// When the punch allows no such ruling, or not by this author, or not any more, or the ledger did
/// not take it.
pub async fn rule(
    ledger: &Ledger,
    punch: PunchId,
    author: &Author,
    expected: Option<u64>,
    command: impl Fn(Option<Digest>) -> PunchCommand,
) -> Result<Ruled, RuleError<PunchError>> {
    let id = punch.to_string();
    for _ in 0..TRIES_MAX {
        let loaded = ledger.load::<Punch>(&id).await.map_err(ExecuteError::Load)?;
        let sequence = loaded.sequence;
        rests::concerned(author, &loaded.aggregate)?;
        let exists = loaded.aggregate.origin().is_some();
        if expected.is_some_and(|expected| expected != sequence) && exists {
            return Err(outdated(ledger, &id, expected.unwrap_or_default(), sequence).await?);
        }
        let command = command(author.note_digest());
        let (events, mut streams) = decided(ledger, author, (punch, &loaded), command).await?;
        let mut after = loaded.aggregate.clone();
        events.iter().cloned().for_each(|event| after.apply(event));
        let days = rests::days(ledger, &[&loaded.aggregate, &after]).await?;
        streams.push(StreamAppend::of(&id, sequence, &events));
        let append = Append { streams, metadata: author.metadata(), side: author.side() };
        match ledger.append(append).await {
            Ok(appended) => {
                let sequence = sequence + events.len() as u64;
                return Ok(Ruled { position: appended.last, sequence, days });
            }
            Err(AppendError::Stale) => {}
            Err(error) => return Err(ExecuteError::Append(error).into()),
        }
    }
    Err(ExecuteError::Append(AppendError::Stale).into())
}

/// What a ruling comes to, and what must not change meanwhile.
pub(super) async fn decided(
    ledger: &Ledger,
    author: &Author,
    (punch, loaded): (PunchId, &Loaded<Punch>),
    command: PunchCommand,
) -> Result<(Vec<PunchEvent>, Vec<StreamAppend>), RuleError<PunchError>> {
    let held = rests::held(ledger, author, (punch, &loaded.aggregate), &command).await?;
    let events = loaded.aggregate.decide(command).map_err(ExecuteError::Refused)?;
    Ok((events, held))
}

/// What came since somebody looked, who expected another sequence.
async fn outdated(
    ledger: &Ledger,
    punch: &str,
    expected: u64,
    sequence: u64,
) -> Result<RuleError<PunchError>, ExecuteError<PunchError>> {
    let id = [punch.to_owned()];
    let events = ledger.feed().streams(AggregateType::Punch, &id).await;
    let events = events.map_err(ExecuteError::Load)?;
    let ruled = events.iter().rev().take_while(|event| event.sequence > expected).find(|event| {
        let is_ruling = RULINGS.contains(&event.event_type.as_str());
        is_ruling && event.actor().is_some_and(|actor| actor.is_a_person())
    });
    let Some(ruled) = ruled else { return Ok(RuleError::Changed { sequence }) };
    let by = match ruled.actor() {
        Some(Actor::Key(id) | Actor::User(id)) => {
            let names = keys::operator_names(ledger.pool(), &[id]).await;
            let names = names.map_err(|error| ExecuteError::Load(error.into()))?;
            names.get(&id).map_or_else(|| "somebody".to_owned(), |n| format!("“{}”", Shown::new(n)))
        }
        _ => "the operator of the server".to_owned(),
    };
    Ok(RuleError::AlreadyRuled { by, at: ruled.recorded_at.into(), sequence })
}

/// Finds that a quarantined item is no punch.
///
/// # Errors
/// When the item is settled already, or the ledger did not take it.
pub async fn dismiss(
    ledger: &Ledger,
    item: Digest,
    author: &Author,
) -> Result<Position, ExecuteError<QuarantineError>> {
    ledger
        .execute_with::<Quarantine>(
            &item.to_string(),
            QuarantineCommand::Dismiss { note: author.note_digest() },
            &author.metadata(),
            || author.side(),
        )
        .await
        .map(|executed| executed.position)
}

/// What a person found in a quarantined item.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    pub employee: EmployeeId,
    pub site: SiteId,
    pub kind: PunchKind,
    pub captured_at: Time,
}

/// Takes a quarantined item in as a punch: the punch and where it stands in the ledger.
///
/// # Errors
/// When the item is settled already, is in the ledger as a punch, or the ledger did not take it.
pub async fn admit(
    ledger: &Ledger,
    item: Digest,
    admission: Admission,
    author: &Author,
) -> Result<(PunchId, Position), RuleError<QuarantineError>> {
    author.may_rule_on(Some(admission.employee))?;
    rests::has_come(ledger, "captured_at", admission.captured_at).map_err(RuleError::AtFault)?;
    for _ in 0..TRIES_MAX {
        let found = Found::load(ledger, item).await.map_err(ExecuteError::Load)?;
        let append = found.admitting(item, admission, author)?;
        match ledger.append(append).await {
            Ok(appended) => return Ok((found.punch, appended.last)),
            Err(AppendError::Stale) => {}
            Err(error) => return Err(ExecuteError::Append(error).into()),
        }
    }
    Err(ExecuteError::Append(AppendError::Stale).into())
}

/// The punch that an item is already, and the position of its last event; none when it can be
/// admitted, or there is no such item.
///
/// # Errors
/// See [`ReadError`].
pub async fn stands(
    ledger: &Ledger,
    item: Digest,
) -> Result<Option<(PunchId, Position)>, ReadError> {
    Ok(Found::load(ledger, item).await?.stands())
}

/// A quarantined item, and the punches that it may be already.
struct Found {
    item: Loaded<Quarantine>,
    digest: Digest,
    /// The punch that it becomes when it is admitted.
    punch: PunchId,
    admitted: Loaded<Punch>,
    named: Option<(PunchId, Loaded<Punch>)>,
}

impl Found {
    async fn load(ledger: &Ledger, id: Digest) -> Result<Self, ReadError> {
        let item = ledger.load::<Quarantine>(&id.to_string()).await?;
        let raw = quarantine::raw(ledger.pool(), id).await?;
        let digest = raw.map_or(id, |raw| Digest::of(&bytes_of(&raw.capture)));
        let punch = admitted_as(digest);
        let admitted = ledger.load::<Punch>(&punch.to_string()).await?;
        let named = match item.aggregate.names() {
            Some(named) => Some((named, ledger.load::<Punch>(&named.to_string()).await?)),
            None => None,
        };
        Ok(Self { item, digest, punch, admitted, named })
    }

    /// The same bytes are the same punch. So are others under its id, unless the device signed
    /// them: then it says that they are another.
    fn stands(&self) -> Option<(PunchId, Position)> {
        if self.item.aggregate.admitted_as().is_none()
            && let Some(position) = self.admitted.position
        {
            return Some((self.punch, position));
        }
        let (named, punch) = self.named.as_ref()?;
        let (code, ..) = self.item.aggregate.item()?;
        let same = punch.aggregate.digest() == Some(self.digest) || !code.is_signed();
        same.then_some(*named).zip(punch.position)
    }

    fn admitting(
        &self,
        item: Digest,
        admission: Admission,
        author: &Author,
    ) -> Result<Append, ExecuteError<QuarantineError>> {
        let command = QuarantineCommand::AdmitAsPunch { punch: self.punch, stands: self.stands() };
        let settled = self.item.aggregate.decide(command).map_err(ExecuteError::Refused)?;
        let (_, device, _) =
            self.item.aggregate.item().ok_or(ExecuteError::Refused(QuarantineError::Unknown))?;
        let Admission { employee, site, kind, captured_at } = admission;
        let note = author.note_digest();
        let command = PunchCommand::Admit {
            quarantine: item,
            employee,
            site,
            kind,
            captured_at,
            device,
            note,
        };
        // A new punch refuses nothing.
        let punched = Punch::default().decide(command).unwrap_or_default();
        let mut streams = vec![
            StreamAppend::of(item, self.item.sequence, &settled),
            StreamAppend::of(self.punch, 0, &punched),
        ];
        // What it names must not have come meanwhile.
        let unchanged = |(named, punch): &(PunchId, Loaded<Punch>)| {
            StreamAppend::of::<PunchEvent>(named, punch.sequence, &[])
        };
        streams.extend(self.named.as_ref().map(unchanged));
        Ok(Append { streams, metadata: author.metadata(), side: author.side() })
    }
}
