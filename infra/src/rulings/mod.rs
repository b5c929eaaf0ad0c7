//! What people rule on punches and quarantined items. Their notes are kept beside the ledger in the
//! same transaction, and an item that is admitted becomes a punch in one append or not at all.

pub mod notes;
pub mod quarantine;

use punchtrail_domain::{
    log::recorded::Actor,
    punch::{Punch, PunchCommand, PunchError},
    quarantine::{Quarantine, QuarantineCommand, QuarantineError},
};
use punchtrail_protocol::{
    Digest, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind,
};
use uuid::Uuid;

use crate::{
    ledger::{
        Append, AppendError, ExecuteError, Ledger, Loaded, Metadata, SideWrite, StreamAppend,
    },
    rulings::notes::Note,
};

/// How often an admission is decided anew when other appends keep coming first.
const TRIES_MAX: u32 = 8;

/// Who rules, by what request, and what they noted.
#[derive(Debug, Clone)]
pub struct Author {
    pub actor: Actor,
    pub request: Option<String>,
    pub note: Option<Note>,
}

impl Author {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::new(self.actor.clone());
        match &self.request {
            Some(request) => metadata.with_request(request),
            None => metadata,
        }
    }

    fn note_digest(&self) -> Option<Digest> {
        self.note.as_ref().map(Note::digest)
    }

    fn side(&self) -> Option<SideWrite> {
        let (note, actor) = (self.note.clone()?, self.actor.clone());
        Some(SideWrite::new(move |connection| {
            let (note, actor) = (note.clone(), actor.clone());
            Box::pin(async move { note.insert(connection, &actor).await })
        }))
    }
}

/// Rules on a punch; `command` is given the note's digest.
///
/// # Errors
/// When the punch allows no such ruling, or the ledger did not take it.
pub async fn rule(
    ledger: &Ledger,
    punch: PunchId,
    author: &Author,
    command: impl Fn(Option<Digest>) -> PunchCommand,
) -> Result<Position, ExecuteError<PunchError>> {
    ledger
        .execute_with::<Punch>(
            &punch.to_string(),
            command(author.note_digest()),
            &author.metadata(),
            || author.side(),
        )
        .await
        .map(|executed| executed.position)
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
/// When the item is settled already, or the ledger did not take it.
pub async fn admit(
    ledger: &Ledger,
    item: Digest,
    admission: Admission,
    author: &Author,
) -> Result<(PunchId, Position), ExecuteError<QuarantineError>> {
    let punch = PunchId(Uuid::now_v7());
    for _ in 0..TRIES_MAX {
        let loaded =
            ledger.load::<Quarantine>(&item.to_string()).await.map_err(ExecuteError::Load)?;
        let append = admitting(&loaded, item, punch, admission, author)?;
        match ledger.append(append).await {
            Ok(appended) => return Ok((punch, appended.last)),
            Err(AppendError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(AppendError::Stale.into())
}

fn admitting(
    loaded: &Loaded<Quarantine>,
    item: Digest,
    punch: PunchId,
    admission: Admission,
    author: &Author,
) -> Result<Append, ExecuteError<QuarantineError>> {
    let settled = loaded
        .aggregate
        .decide(QuarantineCommand::AdmitAsPunch { punch })
        .map_err(ExecuteError::Refused)?;
    let (_, device, _) =
        loaded.aggregate.item().ok_or(ExecuteError::Refused(QuarantineError::Unknown))?;
    let Admission { employee, site, kind, captured_at } = admission;
    let note = author.note_digest();
    let command =
        PunchCommand::Admit { quarantine: item, employee, site, kind, captured_at, device, note };
    // A new punch refuses nothing.
    let punched = Punch::default().decide(command).unwrap_or_default();
    let streams = vec![
        StreamAppend::of(item, loaded.sequence, &settled),
        StreamAppend::of(punch, 0, &punched),
    ];
    Ok(Append { streams, metadata: author.metadata(), side: author.side() })
}
