//! Why an employee refuses a command.

use super::{BADGES_MAX, REFERENCES_MAX};

/// A command that an employee refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmployeeError {
    /// There is no such employee.
    #[error("there is no such employee")]
    Unknown,
    #[error("this employee exists already")]
    Exists,
    /// Nothing is given to who left.
    #[error(
        "the employee has left; nothing was changed. Record that they came back, or that they \
         didn't leave"
    )]
    Departed,
    #[error("the employee hasn't left; nothing was changed")]
    NotDeparted,
    /// Who comes back has left before.
    #[error("nobody comes back before they left; nothing was changed")]
    ReturnBeforeDeparture,
    /// Who left again came back before.
    #[error("the employee came back after that; nothing was changed. They leave after they came")]
    DepartureBeforeReturn,
    /// An end lies before its beginning.
    #[error("that is before it began; nothing was changed")]
    EndsBeforeItBegan,
    /// There is room for so many.
    #[error("the employee holds {BADGES_MAX} badges already; end one first")]
    TooManyBadges,
    /// No face is compared without consent.
    #[error("the employee has not agreed that their face is compared; record their consent first")]
    NoConsent,
    /// There is room for so many.
    #[error("the employee has {REFERENCES_MAX} reference photos already; remove one first")]
    TooManyReferences,
    #[error("the employee has no such reference photo")]
    NoSuchReference,
    #[error("no legal hold stands for this employee")]
    NoHold,
    /// Nothing is erased of whom a court or an authority asks about.
    #[error("a legal hold stands for this employee; nothing was erased. Lift it first")]
    Held,
    #[error("the employee's data was erased; nothing more can be recorded of them")]
    Erased,
}
