//! What people rule on punches and quarantined items. Their notes are kept beside the ledger in the
//! same transaction, and an item that is admitted becomes a punch in one append or not at all.

pub mod notes;
pub mod quarantine;

use punchtrail_domain::{
    log::recorded::Actor,
    punch::{Punch, PunchCommand, PunchError, PunchEvent},
    quarantine::{Quarantine, QuarantineCommand, QuarantineError, admitted_as, bytes_of},
};
use punchtrail_protocol::{
    Digest, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind,
};

use crate::{
    ledger::{
        Append, AppendError, ExecuteError, Ledger, Loaded, Metadata, ReadError, SideWrite,
        StreamAppend,
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
/// When the item is settled already, is in the ledger as a punch, or the ledger did not take it.
pub async fn admit(
    ledger: &Ledger,
    item: Digest,
    admission: Admission,
    author: &Author,
) -> Result<(PunchId, Position), ExecuteError<QuarantineError>> {
    for _ in 0..TRIES_MAX {
        let found = Found::load(ledger, item).await.map_err(ExecuteError::Load)?;
        let append = found.admitting(item, admission, author)?;
        match ledger.append(append).await {
            Ok(appended) => return Ok((found.punch, appended.last)),
            Err(AppendError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(AppendError::Stale.into())
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
