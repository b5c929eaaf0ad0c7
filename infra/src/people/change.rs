//! A change of people as one append: load, decide, write with what stands beside the ledger; again
//! when another came first.

use std::sync::Arc;

use cqrs_es::Aggregate as _;
use punchtrail_domain::employee::{Employee, EmployeeError, EmployeeEvent};
use punchtrail_protocol::{Digest, EmployeeId, Position};
use sqlx::PgConnection;

use super::{
    badges::rows::{self, Fresh, HoldingRow, Moves},
    directory::{self, EmployeeEntry},
    error::{Holder, PeopleError},
};
use crate::ledger::{Append, AppendError, Ledger, Loaded, Metadata, SideWrite, StreamAppend};

/// How often a change is decided anew when other appends keep coming first.
pub(super) const TRIES_MAX: u32 = 8;

/// A person as they stand, and what they come to.
pub(super) struct Draft {
    pub employee: EmployeeId,
    pub now: Employee,
    sequence: u64,
    position: Position,
    /// Every badge that they held or hold.
    pub badges: Vec<HoldingRow>,
    /// Everybody's holdings of these badges, and of those that it is about, the earliest first.
    pub of_numbers: Vec<HoldingRow>,
    pub events: Vec<EmployeeEvent>,
    pub fresh: Vec<Fresh>,
}

impl Draft {
    /// Somebody as they stand, for something about these badges.
    pub(super) async fn load(
        ledger: &Ledger,
        employee: EmployeeId,
        about: &[String],
    ) -> Result<Self, PeopleError> {
        let Loaded { aggregate: mut now, sequence, position } =
            ledger.load::<Employee>(&employee.to_string()).await?;
        let badges = rows::of_employee(ledger.pool(), employee).await?;
        now.remember_badges(undated(&badges));
        let numbers = badges.iter().map(|row| &row.number).chain(about);
        let numbers: Vec<String> = numbers.cloned().collect();
        let of_numbers = rows::of_numbers(ledger.pool(), &numbers).await?;
        let (position, events, fresh) = (position.unwrap_or_default(), vec![], vec![]);
        Ok(Self { employee, now, sequence, position, badges, of_numbers, events, fresh })
    }

    /// Takes what was decided.
    pub(super) fn take(&mut self, events: Vec<EmployeeEvent>) {
        events.iter().cloned().for_each(|event| self.now.apply(event));
        self.events.extend(events);
    }
}

/// Why a draft is refused.
pub(super) enum No {
    /// Somebody holds the badge.
    Held(HoldingRow),
    Other(PeopleError),
}

impl From<EmployeeError> for No {
    fn from(error: EmployeeError) -> Self {
        Self::Other(error.into())
    }
}

impl No {
    /// The refusal, with the holder's name.
    pub(super) async fn told(self, ledger: &Ledger) -> PeopleError {
        let HoldingRow { employee, number, from, until, .. } = match self {
            Self::Held(row) => row,
            Self::Other(error) => return error,
        };
        let name = match directory::employee_names(ledger.pool(), &[employee]).await {
            Ok(mut names) => names.remove(&employee),
            Err(error) => return error.into(),
        };
        let holder = Holder { employee: Some(employee), name, from, until };
        PeopleError::Held { number, holder: Box::new(holder) }
    }
}

/// The holdings that no event says the beginning of.
pub(super) fn undated(badges: &[HoldingRow]) -> impl Iterator<Item = Digest> {
    badges.iter().filter(|held| held.from.is_none()).map(|held| held.holding)
}

/// A change that was made, or that stood already.
#[derive(Debug, Clone)]
pub struct Changed {
    pub employee: EmployeeId,
    /// The person afterwards.
    pub now: Employee,
    pub position: Position,
    /// Whether something was written.
    pub is_new: bool,
}

/// What is written of the directory with it.
#[derive(Clone)]
pub(super) enum Entry {
    Whole(EmployeeEntry),
    Name(String),
    /// A PIN's hash, or that there is none.
    Pin(Option<String>),
}

impl Entry {
    async fn write(
        &self,
        connection: &mut PgConnection,
        employee: EmployeeId,
    ) -> Result<(), sqlx::Error> {
        match self {
            Self::Whole(entry) => directory::put_employee(connection, entry).await,
            Self::Name(name) => directory::put_name(connection, employee, name).await,
            Self::Pin(phc) => directory::put_pin(connection, employee, phc.as_deref()).await,
        }
    }
}

/// Appends what the drafts came to, all or nothing; none when something came first.
pub(super) async fn append(
    ledger: &Ledger,
    drafts: Vec<Draft>,
    entry: Option<Entry>,
    metadata: &Metadata,
) -> Result<Option<Changed>, PeopleError> {
    let mut moves = Moves::default();
    let mut streams = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        moves.take(draft.employee, &draft.events, draft.fresh.iter().cloned());
        streams.push(StreamAppend::of(draft.employee, draft.sequence, &draft.events));
    }
    let Some(Draft { employee, now, position, .. }) = drafts.into_iter().next() else {
        return Ok(None);
    };
    if streams.iter().all(|stream| stream.events.is_empty()) {
        return Ok(Some(Changed { employee, now, position, is_new: false }));
    }
    let beside = Arc::new((moves, entry));
    let side = SideWrite::new(move |connection| {
        let beside = Arc::clone(&beside);
        Box::pin(async move {
            let (moves, entry) = &*beside;
            if let Some(entry) = entry {
                entry.write(connection, employee).await?;
            }
            moves.write(connection).await
        })
    });
    let append = Append { streams, metadata: metadata.clone(), side: Some(side) };
    match ledger.append(append).await {
        Ok(appended) => Ok(Some(Changed { employee, now, position: appended.last, is_new: true })),
        // Somebody changed them, or took the badge, after they were read.
        Err(AppendError::Stale | AppendError::Side(sqlx::Error::RowNotFound)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Changes one person, for something about these badges: `decide` says what follows for them as
/// they stand.
pub(super) async fn change(
    ledger: &Ledger,
    (employee, about): (EmployeeId, &[String]),
    entry: Option<Entry>,
    metadata: &Metadata,
    decide: impl Fn(&mut Draft) -> Result<(), No>,
) -> Result<Changed, PeopleError> {
    for _ in 0..TRIES_MAX {
        let mut draft = Draft::load(ledger, employee, about).await?;
        if let Err(no) = decide(&mut draft) {
            return Err(no.told(ledger).await);
        }
        if let Some(changed) = append(ledger, vec![draft], entry.clone(), metadata).await? {
            return Ok(changed);
        }
    }
    Err(AppendError::Stale.into())
}
