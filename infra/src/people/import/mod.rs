//! Importing a roster: many employees at once, and none when a row is faulty.
//!
//! A row finds its employee by `external_id`, else by badge; who isn't found is new. What changes
//! is an event that says which fields, never their values; the values go into the directory in the
//! same transaction. Everything is checked before anything is hashed, and everything is hashed
//! before anything is written. More than the ledger takes at once is written in parts, in which
//! who hands on a badge and who takes it are together; should one not be written, the same file
//! again brings the rest. An import never removes anybody and never ends an assignment: a file
//! with a few rows is no statement about the others.

mod directory;
mod file;
mod pins;
mod plan;

use std::sync::Arc;

pub use file::{
    EXTERNAL_ID_CHARS_MAX, FAULTS_MAX, NAME_CHARS_MAX, PIN_DIGITS_MAX, PIN_DIGITS_MIN, Pin,
    ROSTER_BYTES_MAX, ROSTER_ROWS_MAX, RosterRow, parse,
};
pub use pins::{hash as hash_pin, verify as verify_pin};

use crate::ledger::{Append, AppendError, Ledger, Metadata, ReadError};
pub use plan::PART_EMPLOYEES_MAX;
use plan::{Draft, Existing, Part};

/// How often the import is worked out anew when something else keeps changing the same employees.
const TRIES_MAX: u32 = 4;

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RowFault {
    /// The row as a spreadsheet numbers it: the header is 1.
    pub row: u64,
    /// What is wrong, without names or PINs.
    pub what: String,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(
        "the roster has {bytes} bytes, more than {ROSTER_BYTES_MAX}; nothing was imported. Split \
         it into several files"
    )]
    TooLarge { bytes: usize },
    /// The file has too many rows.
    #[error(
        "the roster has more than {ROSTER_ROWS_MAX} rows; nothing was imported. Split it into \
         several files"
    )]
    TooManyRows,
    /// The first row isn't a roster's header.
    #[error(
        "the roster's header is wrong: {0}; nothing was imported. It must be \
         badge,name,pin,site and optionally external_id, in any order"
    )]
    Header(String),
    #[error(
        "the roster has {} faulty row(s); nothing was imported. Mend them and import the whole \
         file again", faults.len() as u64 + more
    )]
    Rows {
        /// The first [`FAULTS_MAX`], in order.
        faults: Vec<RowFault>,
        more: u64,
    },
    /// Badges go round among more people than can be written at once.
    #[error(
        "{chain} rows hand on their badges from one to the next, more than {PART_EMPLOYEES_MAX}; \
         nothing was imported. Give some of them new badges first"
    )]
    Entangled {
        /// How many rows.
        chain: usize,
    },
    /// A part was not written, after others.
    #[error(
        "the import broke off: {written} employees were written, the others were not. Import the \
         same file again, which leaves those as they are"
    )]
    Partly {
        written: u64,
        #[source]
        error: AppendError,
    },
    /// Argon2 failed: no memory, no randomness.
    #[error("a PIN could not be hashed; nothing was imported. Is the machine out of memory?")]
    Hash,
    /// The process is going down.
    #[error("the import was stopped before anything was written")]
    Stopped,
    /// The database can't be read.
    #[error("the database can't be read; nothing was imported")]
    Database(#[from] sqlx::Error),
    /// What stands in the ledger of the employees can't be read.
    #[error("nothing was imported: {0}")]
    Ledger(#[from] ReadError),
    #[error("nothing was imported: {0}")]
    Append(#[from] AppendError),
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Imported {
    /// Employees written: new and changed ones.
    pub imported: u64,
    pub created: u64,
    /// Employees of whom something changed.
    pub updated: u64,
    /// Employees who stood like that already.
    pub unchanged: u64,
    pub rows: u64,
    /// The ledger's head afterwards.
    pub position: u64,
}

/// Hears how many PINs have been checked or hashed, of how many.
pub type HashProgress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Imports a roster file.
///
/// # Errors
/// See [`ImportError`]; nothing was written then, but for [`ImportError::Partly`] and an append
/// whose answer was lost ([`AppendError::Unavailable`]): importing the same file again is always
/// safe.
pub async fn import(
    ledger: &Ledger,
    file: &[u8],
    metadata: &Metadata,
    progress: HashProgress,
) -> Result<Imported, ImportError> {
    let rows = Arc::new(parse(file)?);
    let (mut tries, mut written) = (1, Imported::default());
    let tried = loop {
        match attempt(ledger, &rows, metadata, &progress, &mut written).await {
            Err(ImportError::Append(error)) if tries < TRIES_MAX && lost_a_race(&error) => {
                tries += 1;
            }
            other => break other,
        }
    };
    match tried {
        Err(ImportError::Append(error)) if written.imported > 0 => {
            Err(ImportError::Partly { written: written.imported, error })
        }
        Err(other) => Err(other),
        Ok(()) => Ok(Imported { unchanged: written.rows - written.imported, ..written }),
    }
}

/// Somebody changed the same employees, or took the same badge, after they were read.
fn lost_a_race(error: &AppendError) -> bool {
    match error {
        AppendError::Stale => true,
        AppendError::Side(sqlx::Error::Database(error)) => error.is_unique_violation(),
        _ => false,
    }
}

async fn attempt(
    ledger: &Ledger,
    rows: &[RosterRow],
    metadata: &Metadata,
    progress: &HashProgress,
    written: &mut Imported,
) -> Result<(), ImportError> {
    let existing = Existing::read(ledger, rows).await?;
    let draft = Draft::new(rows, &existing)?;
    let wanted = draft.pins();
    let (all, heard) = (wanted.len(), Arc::clone(progress));
    let hashed = pins::hash_changed(wanted, Arc::new(move |done| heard(done, all))).await?;
    let plan = draft.finish(hashed);
    (written.rows, written.position) = (rows.len() as u64, ledger.head().await?.0);
    for Part { streams, entries, created, updated } in plan.parts {
        let side = Some(directory::write(entries));
        let append = Append { streams, metadata: metadata.clone(), side };
        written.position = ledger.append(append).await?.last.0;
        written.created += created;
        written.updated += updated;
        written.imported += created + updated;
    }
    Ok(())
}
