//! Consent and reference photos: what is asked of an employee, with the codes by which photos are
//! taken at a kiosk while somebody with the right looks on.

use punchtrail_domain::{
    employee::{Employee, EmployeeCommand, EmployeeError},
    log::recorded::Actor,
};
use punchtrail_protocol::{DeviceId, EmployeeId};

use crate::{
    access::codes::{self, Issued},
    ledger::{AppendError, ExecuteError, Executed, Ledger, Metadata, SideWrite},
    postgres::Pool,
};

/// What such a code is kept for.
const REFERENCE: &[u8] = b"punchtrail.reference.v1";

/// Makes a code for a person's reference photos: single use, ten minutes.
///
/// # Errors
/// When the database is out of reach.
pub async fn make_code(writer: &Pool, employee: EmployeeId) -> Result<Issued, sqlx::Error> {
    let insert =
        "insert into reference_codes (code_hash, employee, expires_at) values ($1, $2, $3)";
    codes::make(writer, REFERENCE, insert, employee.uuid()).await
}

/// Forgets codes that nobody could use for a day.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget_codes(writer: &Pool) -> Result<(), sqlx::Error> {
    sqlx::query("delete from reference_codes where expires_at < now() - interval '1 day'")
        .execute(writer)
        .await
        .map(drop)
}

/// Why reference photos were not taken at a kiosk. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The code is wrong, used, expired, or another person's.
    #[error("the code is wrong, used or expired")]
    CodeInvalid,
    /// The ledger did not take it.
    #[error(transparent)]
    Ledger(#[from] ExecuteError<EmployeeError>),
    /// The database is out of reach.
    #[error("the database is out of reach")]
    Database(#[from] sqlx::Error),
}

/// Whether a code opens that person's reference photos now.
///
/// # Errors
/// When the database is out of reach.
pub async fn opens(
    writer: &Pool,
    letters: &str,
    employee: EmployeeId,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from reference_codes where code_hash = $1 and employee = $2 \
         and expires_at > now())",
    )
    .bind(codes::digest(REFERENCE, letters).0.as_slice())
    .bind(employee.uuid())
    .fetch_one(writer)
    .await
}

/// Takes consent and reference photos as a kiosk brought them; the code is used up with it.
///
/// # Errors
/// See [`EnrolError`].
pub async fn enrol_at_kiosk(
    ledger: &Ledger,
    device: DeviceId,
    employee: EmployeeId,
    letters: &str,
    command: EmployeeCommand,
) -> Result<Executed<Employee>, EnrolError> {
    if !opens(ledger.pool(), letters, employee).await? {
        return Err(EnrolError::CodeInvalid);
    }
    let code = codes::digest(REFERENCE, letters);
    let side = || {
        Some(SideWrite::new(move |connection| {
            Box::pin(async move {
                let used = sqlx::query(
                    "delete from reference_codes where code_hash = $1 and employee = $2 \
                     and expires_at > now()",
                )
                .bind(code.0.as_slice())
                .bind(employee.uuid())
                .execute(connection)
                .await?;
                if used.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
            })
        }))
    };
    let metadata = Metadata::new(Actor::Device(device));
    let id = employee.to_string();
    match ledger.execute_with::<Employee>(&id, command, &metadata, side).await {
        // Another used it first.
        Err(ExecuteError::Append(AppendError::Side(sqlx::Error::RowNotFound))) => {
            Err(EnrolError::CodeInvalid)
        }
        done => Ok(done?),
    }
}

/// Whether a head covering is expected on a person's pictures.
///
/// # Errors
/// When the database is out of reach.
pub async fn covers_head(reader: &Pool, employee: EmployeeId) -> Result<bool, sqlx::Error> {
    let covers: Option<bool> =
        sqlx::query_scalar("select head_covering from employee_directory where employee = $1")
            .bind(employee.uuid())
            .fetch_optional(reader)
            .await?;
    Ok(covers.unwrap_or_default())
}

/// Says whether a head covering is expected on a person's pictures. The ledger only knows that the
/// entry changed.
///
/// # Errors
/// When there is no such person, or the ledger doesn't take it.
pub async fn expect_covered_head(
    ledger: &Ledger,
    employee: EmployeeId,
    expected: bool,
    metadata: &Metadata,
) -> Result<Executed<Employee>, ExecuteError<EmployeeError>> {
    let fields = vec![punchtrail_domain::employee::DirectoryField::HeadCovering];
    let side = || {
        Some(SideWrite::new(move |connection| {
            Box::pin(async move {
                sqlx::query("update employee_directory set head_covering = $2 where employee = $1")
                    .bind(employee.uuid())
                    .bind(expected)
                    .execute(connection)
                    .await
                    .map(drop)
            })
        }))
    };
    let command = EmployeeCommand::ChangeDirectory { fields };
    ledger.execute_with::<Employee>(&employee.to_string(), command, metadata, side).await
}
