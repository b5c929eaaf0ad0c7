//! Why a dispute refuses a command.

use super::{ANSWERS_MAX, REOPENINGS_MAX};

/// A command that a dispute refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DisputeError {
    #[error("there is no such dispute")]
    Unknown,
    /// It was opened already, with something else in it.
    #[error(
        "another dispute stands under this id; it stays as it was, and nothing of this one was \
         kept. Open this one under an id of its own"
    )]
    Exists,
    #[error("the cause doesn't fit: a missing punch is about a day, a wrong one about a punch")]
    CauseDoesNotFit,
    #[error("the dispute is resolved; reopen it first")]
    Resolved,
    #[error("the dispute isn't resolved, so there is nothing to reopen")]
    NotResolved,
    #[error(
        "the dispute is about a day; it is settled by a punch that was added or reassigned, or \
         dismissed"
    )]
    NoPunch,
    #[error("only an added or a reassigned punch is named, and then it has to be")]
    ByPunch,
    #[error("a dispute is answered, settled and taken up again with a word why")]
    NoNote,
    #[error("the dispute has {ANSWERS_MAX} answers already; resolve it")]
    TooManyAnswers,
    #[error("the dispute was reopened {REOPENINGS_MAX} times already; open a new one")]
    TooManyReopenings,
}
