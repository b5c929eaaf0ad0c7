//! PINs of people, set and taken back; and people who are asked for another, since a device that
//! held the hash of theirs is in nobody knows whose hands.

use punchtrail_domain::employee::{DirectoryField, EmployeeCommand};
use punchtrail_protocol::EmployeeId;
use uuid::Uuid;

use super::{
    change::{Changed, Entry, change},
    error::PeopleError,
    import::{Pin, hash_pin, verify_pin},
};
use crate::{
    ledger::{self, Ledger, Metadata, SideWrite},
    postgres::Pool,
};

/// Hashes a PIN, which takes a core for some 20 ms.
pub(super) async fn hashed(pin: Pin) -> Result<String, PeopleError> {
    let hashed = tokio::task::spawn_blocking(move || hash_pin(&pin)).await;
    hashed.map_err(|_| PeopleError::Hash)?.map_err(|_| PeopleError::Hash)
}

/// Sets a person's PIN, or takes it back; whoever was asked for another isn't any more. The one that
/// they have stays as it is.
///
/// # Errors
/// When there is no such person, or the ledger doesn't take it.
pub async fn set(
    ledger: &Ledger,
    employee: EmployeeId,
    pin: Option<Pin>,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    let kept: Option<Option<String>> =
        sqlx::query_scalar("select pin_phc from employee_directory where employee = $1")
            .bind(employee.uuid())
            .fetch_optional(ledger.pool())
            .await?;
    let kept = kept.flatten();
    let same = match (pin.clone(), kept) {
        (Some(pin), Some(phc)) => tokio::task::spawn_blocking(move || verify_pin(&pin, &phc))
            .await
            .map_err(|_| PeopleError::Hash)?,
        (pin, kept) => pin.is_none() && kept.is_none(),
    };
    let phc = match pin {
        Some(pin) if !same => Some(hashed(pin).await?),
        _ => None,
    };
    change(ledger, (employee, &[]), Some(Entry::Pin(phc)), metadata, |draft| {
        // Also of nobody it says that there is none.
        let command = EmployeeCommand::ChangeDirectory { fields: vec![DirectoryField::Pin] };
        let events = draft.now.decide(command)?;
        if !same {
            draft.take(events);
        }
        Ok(())
    })
    .await
}

/// Asks people for another PIN, as far as they have one.
///
/// # Errors
/// When the database is out of reach.
pub async fn ask_for_others(writer: &Pool, people: &[EmployeeId]) -> Result<(), sqlx::Error> {
    let people: Vec<Uuid> = people.iter().map(|employee| employee.uuid()).collect();
    let ask = SideWrite::new(move |connection| {
        let people = people.clone();
        Box::pin(async move {
            sqlx::query(
                "update employee_directory \
                 set pin_renewal_asked_at = coalesce(pin_renewal_asked_at, now()) \
                 where employee = any($1) and pin_phc is not null",
            )
            .bind(people)
            .execute(connection)
            .await
            .map(drop)
        })
    });
    ledger::beside(writer, ask).await
}
