//! Why an employee refuses a command.

use super::REFERENCES_MAX;

/// A command that an employee refuses. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmployeeError {
    /// There is no such employee.
    #[error("there is no such employee")]
    Unknown,
    #[error("this employee exists already")]
    Exists,
    /// Who left can't be assigned.
    #[error("the employee has left and can't be assigned to a site")]
    Departed,
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
