//! Why an employee refuses a command.

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
}
