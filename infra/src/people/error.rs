//! Why something about a person was not done.

use punchtrail_domain::employee::EmployeeError;
use punchtrail_protocol::{EmployeeId, Time, capture::BADGE_CHARS_MAX};

use crate::ledger::{AppendError, ExecuteError, ReadError};

/// Why a change of a person, their badges or their sites was not made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The person refuses it.
    #[error("{0}")]
    Refused(#[from] EmployeeError),
    /// A badge has one holder at a time.
    #[error(
        "badge {number} is held by {} {}; nothing was changed. End that first (returned or lost), \
         choose another time, or say that the badge changed hands and when",
        .holder.whom(), .holder.when()
    )]
    Held { number: String, holder: Box<Holder> },
    /// They never held it.
    #[error(
        "the employee never held badge {number}; nothing was changed. The list of their badges \
         says which they hold"
    )]
    NoSuchBadge { number: String },
    /// A number can't be a badge's.
    #[error(
        "a badge has 1 to {BADGE_CHARS_MAX} characters and no control character; nothing was \
         changed"
    )]
    Number,
    /// A name can't be one.
    #[error("a name has 1 to {0} characters and no control character; nothing was changed")]
    Name(usize),
    /// The id of another system is too long, or somebody else's.
    #[error(
        "the external id has more than {0} characters, a control character, or is another \
         employee's; nothing was changed"
    )]
    ExternalId(usize),
    /// There is no such site.
    #[error("there is no such site; nothing was changed")]
    NoSuchSite,
    /// Argon2 failed: no memory, no randomness.
    #[error("a PIN could not be hashed; nothing was changed. Is the machine out of memory?")]
    Hash,
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Load(#[from] ReadError),
    #[error("the database is out of reach; nothing was changed")]
    Database(#[from] sqlx::Error),
}

impl From<ExecuteError<EmployeeError>> for PeopleError {
    fn from(error: ExecuteError<EmployeeError>) -> Self {
        match error {
            ExecuteError::Refused(error) => Self::Refused(error),
            ExecuteError::Append(error) => Self::Append(error),
            ExecuteError::Load(error) => Self::Load(error),
        }
    }
}

/// Who holds a badge that somebody else was to hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Holder {
    /// None for whoever may not know of them.
    pub employee: Option<EmployeeId>,
    /// None when the directory has no name of theirs, too.
    pub name: Option<String>,
    pub from: Option<Time>,
    pub until: Option<Time>,
}

impl Holder {
    /// Who it is, in words.
    pub fn whom(&self) -> String {
        match (&self.name, self.employee) {
            (Some(name), _) => name.clone(),
            (None, Some(employee)) => format!("employee {employee}"),
            (None, None) => "somebody else".to_owned(),
        }
    }

    /// Since when and until when, in words.
    pub fn when(&self) -> String {
        let from = self.from.filter(|from| *from > Time::default());
        match (from, self.until) {
            (None, None) => "since ever".to_owned(),
            (Some(from), None) => format!("since {from}"),
            (None, Some(until)) => format!("until {until}"),
            (Some(from), Some(until)) => format!("from {from} until {until}"),
        }
    }
}

impl std::fmt::Debug for Holder {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holder").field("employee", &self.employee).finish_non_exhaustive()
    }
}
