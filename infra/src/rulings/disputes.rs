//! Disputes: opened by a worker at a device or by whoever calls for them, answered, settled, taken
//! up again. What people wrote is kept beside the ledger as notes are.
//!
//! A settlement that rules on the punch is one append: the ruling and the dispute's end, or
//! neither. So there is no moment between the two, and nothing to be completed after a crash.

use punchtrail_domain::{
    AggregateType, Event,
    dispute::{Dispute, DisputeCommand, DisputeError, DisputeEvent, Evidence, Subject},
    log::recorded::Actor,
    punch::{Punch, PunchCommand, PunchError, RulingReason},
};
use punchtrail_protocol::{
    Digest, DisputeId, EmployeeId, Position, PunchId, SiteId, Time,
    capture::PunchKind,
    dispute::{Day, DisputeState, Settlement},
};
use sqlx::PgExecutor;

use super::{Author, Fault, RuleError, TRIES_MAX, decided, notes, rests};
use crate::{
    ledger::{self, Append, AppendError, ExecuteError, Ledger, ReadError, StreamAppend},
    postgres::Pool,
};

/// The most disputes about one punch that are looked up.
pub const ABOUT_ONE_MAX: u32 = 20;

/// What is disputed, by whom and where it stands beside: the text is the author's note.
#[derive(Debug, Clone)]
pub struct Opening {
    pub dispute: DisputeId,
    pub subject: Subject,
    /// What is known of the day, if it is about one.
    pub evidence: Option<Evidence>,
}

/// A dispute that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Whether it is in the ledger only now.
    pub is_new: bool,
    /// Position of the event that opened it.
    pub position: Position,
}

/// Opens a dispute. The same again, whoever sends it, changes nothing.
///
/// # Errors
/// When another one stands under its id, or the ledger did not take it.
pub async fn open(
    ledger: &Ledger,
    opening: &Opening,
    text: &str,
    author: &Author,
) -> Result<Opened, ExecuteError<DisputeError>> {
    for _ in 0..TRIES_MAX {
        if let Some(opened) = opened(ledger, opening, text).await? {
            return Ok(opened);
        }
        let open = DisputeCommand::Open { subject: opening.subject, note: author.note_digest() };
        let mut events = Dispute::default().decide(open).map_err(ExecuteError::Refused)?;
        let evidence = opening.evidence.clone();
        events.extend(evidence.map(|evidence| DisputeEvent::EvidenceAdded { evidence }));
        let streams = vec![StreamAppend::of(opening.dispute, 0, &events)];
        let append = Append { streams, metadata: author.metadata(), side: author.side() };
        match ledger.append(append).await {
            Ok(appended) => return Ok(Opened { is_new: true, position: appended.first }),
            Err(AppendError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(AppendError::Stale.into())
}

/// The dispute that stands under the id, if it is the same: subject and text alike. A text that was
/// erased is taken for the same.
///
/// # Errors
/// When another one stands under its id, or the ledger can't be read.
pub async fn opened(
    ledger: &Ledger,
    Opening { dispute, subject, .. }: &Opening,
    text: &str,
) -> Result<Option<Opened>, ExecuteError<DisputeError>> {
    let stands = history(ledger.pool(), &[*dispute]).await.map_err(ExecuteError::Load)?;
    let Some(first) = stands.first() else { return Ok(None) };
    let DisputeEvent::Opened { subject: held, note } = first.event else {
        return Err(ExecuteError::Refused(DisputeError::Exists));
    };
    let same_text = match (note, &first.text) {
        (None, _) => text.is_empty(),
        (Some(_), Some(held)) => held == text,
        (Some(_), None) => true,
    };
    if held != *subject || !same_text {
        return Err(ExecuteError::Refused(DisputeError::Exists));
    }
    Ok(Some(Opened { is_new: false, position: first.position }))
}

/// Something that happened to a dispute.
#[derive(Debug, Clone)]
pub struct Happened {
    pub dispute: DisputeId,
    pub event: DisputeEvent,
    /// What was written with it; none if nothing was, or it was erased.
    pub text: Option<String>,
    pub actor: Option<Actor>,
    /// When it was recorded, by the server's clock.
    pub at: Time,
    pub position: Position,
    /// Its number in the dispute.
    pub sequence: u64,
}

/// What happened to these disputes, each's in order, with what was written.
///
/// # Errors
/// When the database is out of reach, or an event can't be read by this program.
pub async fn history(pool: &Pool, disputes: &[DisputeId]) -> Result<Vec<Happened>, ReadError> {
    let ids: Vec<String> = disputes.iter().map(DisputeId::to_string).collect();
    let mut happened = Vec::new();
    for recorded in ledger::streams(pool, AggregateType::Dispute, &ids).await? {
        if let Event::Dispute(dispute, event) = recorded.event()? {
            happened.push(Happened {
                dispute,
                event,
                text: None,
                actor: recorded.actor(),
                at: recorded.recorded_at.into(),
                position: recorded.position,
                sequence: recorded.sequence,
            });
        }
    }
    let named: Vec<Digest> = happened.iter().filter_map(|one| note_of(&one.event)).collect();
    let kept = notes::kept(pool, &named).await?;
    for one in &mut happened {
        one.text =
            note_of(&one.event).and_then(|note| kept.get(&note).map(|kept| kept.body.clone()));
    }
    Ok(happened)
}

const fn note_of(event: &DisputeEvent) -> Option<Digest> {
    match event {
        DisputeEvent::Opened { note, .. } => *note,
        DisputeEvent::Answered { note }
        | DisputeEvent::Resolved { note, .. }
        | DisputeEvent::Reopened { note } => Some(*note),
        DisputeEvent::EvidenceAdded { .. } => None,
    }
}

/// The disputes about a punch, the earliest first, from the ledger alone: reads how each dispute
/// was opened. The read model knows them by the punch.
///
/// # Errors
/// When the database is out of reach.
pub async fn about_punch(
    executor: impl PgExecutor<'_>,
    punch: PunchId,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select aggregate_id from events where aggregate_type = 'dispute' and sequence = 1 \
         and payload -> 'Opened' -> 'subject' -> 'about' ->> 'punch' = $1 \
         order by position limit $2",
    )
    .bind(punch.to_string())
    .bind(i64::from(ABOUT_ONE_MAX))
    .fetch_all(executor)
    .await
}

/// The disputes that were opened first, from the ledger alone; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn oldest(
    executor: impl PgExecutor<'_>,
    limit: u32,
) -> Result<Vec<DisputeId>, sqlx::Error> {
    let ids: Vec<String> = sqlx::query_scalar(
        "select aggregate_id from events where aggregate_type = 'dispute' and sequence = 1 \
         order by position limit $1",
    )
    .bind(i64::from(limit))
    .fetch_all(executor)
    .await?;
    Ok(ids.into_iter().filter_map(|id| id.parse().ok()).collect())
}

/// Whether a business day has begun at a site.
///
/// # Errors
/// See [`ReadError`].
pub async fn has_begun(ledger: &Ledger, site: SiteId, day: Day) -> Result<bool, ReadError> {
    let now = [ledger.now()];
    let today = rests::business_days(ledger, site, now.into_iter()).await?;
    Ok(today.into_iter().all(|today| day.date() <= today))
}

/// Whether an employee was ever assigned to a site: what happened there may be disputed from there,
/// however late that comes.
///
/// # Errors
/// See [`ReadError`].
pub async fn worked_at(
    ledger: &Ledger,
    employee: EmployeeId,
    site: SiteId,
) -> Result<bool, ReadError> {
    worked_at_one_of(ledger, employee, &[site]).await
}

/// The same of several sites.
///
/// # Errors
/// See [`ReadError`].
pub async fn worked_at_one_of(
    ledger: &Ledger,
    employee: EmployeeId,
    sites: &[SiteId],
) -> Result<bool, ReadError> {
    use punchtrail_domain::employee::EmployeeEvent::AssignedToSite;
    let id = [employee.to_string()];
    for recorded in ledger::streams(ledger.pool(), AggregateType::Employee, &id).await? {
        let event = recorded.event()?;
        if matches!(event, Event::Employee(_, AssignedToSite { site, .. }) if sites.contains(&site))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why a dispute was not changed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The dispute allows no such thing, or the ledger did not take it.
    #[error(transparent)]
    Dispute(#[from] ExecuteError<DisputeError>),
    /// The punch allows no such ruling, or somebody else came first.
    #[error(transparent)]
    Punch(RuleError<PunchError>),
    /// Nobody rules on their own.
    #[error(
        "the dispute is your own, and nobody rules on their own; nothing was changed. Ask somebody \
         else who may rule"
    )]
    Own,
    /// Somebody was there first: the dispute isn't what the caller saw.
    #[error("somebody else changed the dispute at {at}")]
    AlreadyRuled { by: Option<Actor>, at: Time, state: DisputeState },
}

impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> Self {
        Self::Dispute(ExecuteError::Load(error))
    }
}

impl From<RuleError<PunchError>> for ChangeError {
    fn from(error: RuleError<PunchError>) -> Self {
        match error {
            RuleError::Own => Self::Own,
            error => Self::Punch(error),
        }
    }
}

impl From<DisputeError> for ChangeError {
    fn from(error: DisputeError) -> Self {
        Self::Dispute(ExecuteError::Refused(error))
    }
}

/// What is asked of a dispute that stands; the author's note says why.
#[derive(Debug, Clone)]
pub enum Change {
    Answer,
    Reopen,
    Resolve(Resolution),
}

/// How a dispute is settled.
#[derive(Debug, Clone)]
pub struct Resolution {
    pub how: Settlement,
    /// The time that shall count, to amend; that of the punch which is added.
    pub effective_at: Option<Time>,
    /// The kind that shall count, to amend; that of the punch which is added.
    pub kind: Option<PunchKind>,
    /// The punch that settles it, to add or reassign. It is added if `effective_at` and `kind` are
    /// given, and reassigned if `employee` is; else it was before.
    pub by_punch: Option<PunchId>,
    /// Where the punch that is added was made; where the dispute is about unless given.
    pub site: Option<SiteId>,
    /// Whom the punch is given to that is reassigned.
    pub employee: Option<EmployeeId>,
    /// Why the ruling is made.
    pub reason: Option<RulingReason>,
    /// What is known of the day now, if it is about one.
    pub evidence: Option<Evidence>,
}

/// Changes a dispute; `expected` is the number of its events that the caller saw, if that matters.
///
/// # Errors
/// See [`ChangeError`].
pub async fn change(
    ledger: &Ledger,
    dispute: DisputeId,
    change: &Change,
    expected: Option<u64>,
    author: &Author,
) -> Result<Position, ChangeError> {
    let note = author.note_digest().ok_or(DisputeError::NoNote)?;
    for _ in 0..TRIES_MAX {
        let loaded = ledger.load::<Dispute>(&dispute.to_string()).await?;
        let whose = loaded.aggregate.subject().map(|subject| subject.employee);
        if !matches!(change, Change::Reopen)
            && author.employee.is_some_and(|own| whose == Some(own))
        {
            return Err(ChangeError::Own);
        }
        if loaded.sequence > 0 && expected.is_some_and(|expected| expected != loaded.sequence) {
            return Err(already_ruled(ledger, dispute).await?);
        }
        let decided = match change {
            Change::Answer => loaded.aggregate.decide(DisputeCommand::Answer { note }),
            Change::Reopen => loaded.aggregate.decide(DisputeCommand::Reopen { note }),
            Change::Resolve(resolution) => resolved(&loaded.aggregate, resolution, note),
        };
        let events = match decided {
            Err(DisputeError::Resolved) => return Err(already_ruled(ledger, dispute).await?),
            decided => decided?,
        };
        let mut streams = vec![StreamAppend::of(dispute, loaded.sequence, &events)];
        if let Change::Resolve(resolution) = change {
            streams.extend(ruled(ledger, &loaded.aggregate, resolution, author).await?);
        }
        let append = Append { streams, metadata: author.metadata(), side: author.side() };
        match ledger.append(append).await {
            Ok(appended) => return Ok(appended.last),
            Err(AppendError::Stale) => {}
            Err(error) => return Err(ExecuteError::from(error).into()),
        }
    }
    Err(ExecuteError::from(AppendError::Stale).into())
}

fn resolved(
    dispute: &Dispute,
    resolution: &Resolution,
    note: Digest,
) -> Result<Vec<DisputeEvent>, DisputeError> {
    let Resolution { how, by_punch, ref evidence, .. } = *resolution;
    let resolve = DisputeCommand::Resolve { how, by_punch, note };
    let ends = dispute.decide(resolve)?;
    let evidence = evidence.clone().map(DisputeCommand::AddEvidence);
    let mut events = evidence.map_or(Ok(Vec::new()), |gathered| dispute.decide(gathered))?;
    events.extend(ends);
    Ok(events)
}

/// The ruling on a punch, if the settlement is one. A punch that stands so already needs none, and
/// must not change meanwhile.
async fn ruled(
    ledger: &Ledger,
    dispute: &Dispute,
    resolution: &Resolution,
    author: &Author,
) -> Result<Vec<StreamAppend>, ChangeError> {
    let Some(subject) = dispute.subject() else { return Ok(Vec::new()) };
    let about = subject.about.punch();
    let Resolution { how, effective_at, kind, by_punch, employee, reason, .. } = *resolution;
    let note = author.note_digest();
    let ruling = match how {
        Settlement::Amend => {
            about.map(|it| (it, PunchCommand::Amend { effective_at, kind, reason, note }))
        }
        Settlement::Accept => about.map(|it| (it, PunchCommand::Accept { reason, note })),
        Settlement::Void => about.map(|it| (it, PunchCommand::Void { reason, note })),
        Settlement::Reassign => employee
            .zip(by_punch)
            .map(|(employee, it)| (it, PunchCommand::Assign { employee, reason, note })),
        Settlement::Add => effective_at.zip(kind).zip(by_punch).map(|((at, kind), it)| {
            let (employee, site) = (subject.employee, resolution.site.unwrap_or(subject.site));
            let reason = reason.unwrap_or(RulingReason::Forgotten);
            (it, PunchCommand::Enter { employee, site, kind, at, reason, note })
        }),
        Settlement::Dismiss => None,
    };
    let Some((punch, command)) = ruling else {
        return match by_punch {
            Some(named) if ledger.load::<Punch>(&named.to_string()).await?.sequence == 0 => {
                Err(RuleError::from(Fault::NoSuchPunch).into())
            }
            _ => Ok(Vec::new()),
        };
    };
    if matches!(command, PunchCommand::Enter { .. }) && !punch.is_v7() {
        return Err(RuleError::from(Fault::NotV7).into());
    }
    let loaded = ledger.load::<Punch>(&punch.to_string()).await?;
    rests::concerned(author, &loaded.aggregate)?;
    let (events, mut streams) = match decided(ledger, author, (punch, &loaded), command).await {
        Ok(decided) => decided,
        Err(RuleError::Ledger(ExecuteError::Refused(PunchError::Unchanged))) => {
            (Vec::new(), Vec::new())
        }
        Err(error) => return Err(error.into()),
    };
    streams.push(StreamAppend::of(punch, loaded.sequence, &events));
    Ok(streams)
}

/// Who was there first, and when.
async fn already_ruled(ledger: &Ledger, dispute: DisputeId) -> Result<ChangeError, ReadError> {
    let happened = history(ledger.pool(), &[dispute]).await?;
    let by_somebody = |one: &&Happened| !matches!(one.event, DisputeEvent::EvidenceAdded { .. });
    let last = happened.iter().rfind(by_somebody);
    let state = last.map_or(DisputeState::Open, |last| match last.event {
        DisputeEvent::Answered { .. } => DisputeState::Answered,
        DisputeEvent::Resolved { .. } => DisputeState::Resolved,
        DisputeEvent::Reopened { .. } => DisputeState::Reopened,
        DisputeEvent::Opened { .. } | DisputeEvent::EvidenceAdded { .. } => DisputeState::Open,
    });
    Ok(ChangeError::AlreadyRuled {
        by: last.and_then(|last| last.actor.clone()),
        at: last.map_or(Time::from_millis(0), |last| last.at),
        state,
    })
}
