//! Legal holds: a court or an authority asks for somebody's records, so nothing of them is erased
//! on request. Each stands until one is lifted; what they are about is in their notes.

use punchtrail_domain::employee::{Employee, EmployeeCommand, EmployeeError};
use punchtrail_protocol::EmployeeId;

use crate::{
    ledger::{ExecuteError, Executed, Ledger},
    rulings::Author,
};

/// Places a hold, beside those that stand.
///
/// # Errors
/// When there is no such person, they were erased, or the ledger doesn't take it.
pub async fn place(
    ledger: &Ledger,
    employee: EmployeeId,
    author: &Author,
) -> Result<Executed<Employee>, ExecuteError<EmployeeError>> {
    let (note, at) = (author.note_digest(), ledger.now());
    execute(ledger, employee, EmployeeCommand::PlaceHold { note, at }, author).await
}

/// Lifts one of the holds.
///
/// # Errors
/// When none stands, or the ledger doesn't take it.
pub async fn lift(
    ledger: &Ledger,
    employee: EmployeeId,
    author: &Author,
) -> Result<Executed<Employee>, ExecuteError<EmployeeError>> {
    let (note, at) = (author.note_digest(), ledger.now());
    execute(ledger, employee, EmployeeCommand::LiftHold { note, at }, author).await
}

async fn execute(
    ledger: &Ledger,
    employee: EmployeeId,
    command: EmployeeCommand,
    author: &Author,
) -> Result<Executed<Employee>, ExecuteError<EmployeeError>> {
    let (id, metadata) = (employee.to_string(), author.metadata());
    ledger.execute_with::<Employee>(&id, command, &metadata, || author.side()).await
}
