//! Importing a roster: many employees at once, and none when a row is faulty.
//!
//! A row means the person with its `external_id`; without one, the person who holds its badge and
//! bears its name; who isn't found is new. So an import never makes one person into another: a name
//! changes only for somebody found by an id, and a badge that somebody else holds is refused unless
//! it is said when it changed hands. What changes is an event that says which fields, never their
//! values; the values go beside the ledger in the same transaction. Everything is checked before
//! anything is hashed, and everything is hashed before anything is written. More than the ledger
//! takes at once is written in parts, in which who hands on a badge and who takes it are together;
//! should one not be written, the same file again brings the rest. An import never removes anybody
//! and ends no assignment and no badge that isn't handed on: a file with a few rows is no statement
//! about the others.

mod badge;
mod damage;
mod directory;
mod existing;
mod file;
mod parts;
mod pins;
mod plan;
mod report;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

pub use file::{
    EXTERNAL_ID_CHARS_MAX, FAULTS_MAX, NAME_CHARS_MAX, PIN_DIGITS_MAX, PIN_DIGITS_MIN, Pin,
    ROSTER_BYTES_MAX, ROSTER_ROWS_MAX, Roster, RosterRow, parse,
};
pub use pins::{hash as hash_pin, verify as verify_pin};

pub use report::{CHANGES_MAX, Imported, RowChange, RowFault};

use super::moment::Moment;
use crate::ledger::{Append, AppendError, Ledger, Metadata, ReadError};
use existing::Existing;
use parts::{Part, Plan};
use plan::Draft;

/// How often the import is worked out anew when something else keeps changing the same employees.
const TRIES_MAX: u32 = 4;

/// What goes for all rows of a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Only say what would be.
    pub dry_run: bool,
    /// From when on the people work at their sites; none: since ever, or as it stands.
    pub from: Option<Moment>,
    /// When badges that somebody else holds changed hands; none: they didn't, and are refused.
    pub reissue: Option<Moment>,
    /// Since when people who had left are back; none: only those whose row says so.
    pub returned: Option<Moment>,
    /// The most PINs that a file may bring; none: as many as it has rows.
    pub pins_max: Option<usize>,
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
         badge,name,pin,site and optionally external_id and returned, in any order"
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
    /// PINs take their time.
    #[error(
        "the roster brings {pins} PINs, and at most {most} are taken in this way; nothing was \
         imported. Bring them in several files, or with `employee import` on the server"
    )]
    TooManyPins { pins: usize, most: usize },
    /// Badges go round among more people than can be written at once.
    #[error(
        "{chain} people hand on their badges from one to the next, more than can be written at \
         once; nothing was imported. Give some of them new badges first"
    )]
    Entangled {
        /// How many people.
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

/// Hears how many PINs have been checked or hashed, of how many.
pub type HashProgress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Imports a roster file; a dry run only says what is wrong with it and what would change.
///
/// # Errors
/// See [`ImportError`]; nothing was written then, but for [`ImportError::Partly`] and an append
/// whose answer was lost ([`AppendError::Unavailable`]): importing the same file again is always
/// safe. A dry run tells of faulty rows in what it found.
pub async fn import(
    ledger: &Ledger,
    file: &[u8],
    options: &Options,
    metadata: &Metadata,
    progress: HashProgress,
) -> Result<Imported, ImportError> {
    let mut told = Imported { dry_run: options.dry_run, ..Imported::default() };
    let (mut tries, mut first) = (1, true);
    let tried = loop {
        let roster = file::parse(file)?;
        match attempt(ledger, roster, options, metadata, &progress, (&mut told, first)).await {
            Err(ImportError::Append(error)) if tries < TRIES_MAX && lost_a_race(&error) => {
                tries += 1;
                first = told.imported == 0;
            }
            other => break other,
        }
    };
    match tried {
        Err(ImportError::Append(error)) if told.imported > 0 => {
            Err(ImportError::Partly { written: told.imported, error })
        }
        Err(other) => Err(other),
        Ok(()) => Ok(told),
    }
}

/// One person, as a row of a roster has them.
#[derive(Debug)]
pub struct OneRow<'a> {
    pub external_id: &'a str,
    pub name: &'a str,
    /// A name or an id.
    pub site: &'a str,
    pub badge: Option<&'a str>,
    pub pin: Option<Pin>,
}

/// The same of one person with an id of another system.
///
/// # Errors
/// See [`import`].
pub async fn one(
    ledger: &Ledger,
    row: OneRow<'_>,
    options: &Options,
    metadata: &Metadata,
) -> Result<Imported, ImportError> {
    let OneRow { external_id, name, site, badge, pin } = row;
    let cells: [(&str, &[u8]); 5] = [
        ("badge", badge.unwrap_or_default().as_bytes()),
        ("name", name.as_bytes()),
        ("pin", pin.as_ref().map_or(b"", Pin::as_bytes)),
        ("site", site.as_bytes()),
        (file::EXTERNAL_ID, external_id.as_bytes()),
    ];
    let in_memory = |error: std::io::Error| ImportError::Header(error.to_string());
    let mut file = csv::Writer::from_writer(Vec::new());
    file.write_record(cells.map(|(name, _)| name)).map_err(|error| in_memory(error.into()))?;
    file.write_record(cells.map(|(_, cell)| cell)).map_err(|error| in_memory(error.into()))?;
    let file = file.into_inner().map_err(|error| in_memory(error.into_error()))?;
    import(ledger, &file, options, metadata, Arc::new(|_, _| {})).await
}

/// Somebody changed the same employees, or took the same badge or id, after they were read.
fn lost_a_race(error: &AppendError) -> bool {
    match error {
        AppendError::Stale | AppendError::Side(sqlx::Error::RowNotFound) => true,
        AppendError::Side(sqlx::Error::Database(error)) => error.is_unique_violation(),
        _ => false,
    }
}

async fn attempt(
    ledger: &Ledger,
    roster: file::Roster,
    options: &Options,
    metadata: &Metadata,
    progress: &HashProgress,
    (told, first): (&mut Imported, bool),
) -> Result<(), ImportError> {
    let existing = Existing::read(ledger, &roster.rows).await?;
    let file::Roster { rows, faults, warnings } = roster;
    let mut draft = Draft::new(&rows, &existing, options, ledger.now());
    draft.faults.extend(faults);
    draft.warnings.extend(warnings);
    (told.rows, told.position) = (rows.len() as u64, ledger.head().await?.0);
    if !options.dry_run {
        std::mem::take(&mut draft.faults).none()?;
    }
    let wanted = draft.pins();
    let (all, heard) = (wanted.len(), Arc::clone(progress));
    if let Some(most) = options.pins_max.filter(|most| all > *most) {
        return Err(ImportError::TooManyPins { pins: all, most });
    }
    let hashed = pins::hash_changed(wanted, Arc::new(move |done| heard(done, all))).await?;
    told.doubt(std::mem::take(&mut draft.warnings), std::mem::take(&mut draft.faults));
    let Plan { parts, changes, unchanged } = draft.finish(hashed)?;
    // What an attempt that went half through has said of its rows stays said.
    if first {
        told.say(changes, unchanged);
    }
    for Part { streams, entries, moves, created, updated } in parts {
        if !options.dry_run {
            let side = Some(directory::write(entries, moves));
            let append = Append { streams, metadata: metadata.clone(), side };
            told.position = ledger.append(append).await?.last.0;
        }
        told.created += created;
        told.updated += updated;
        told.imported += created + updated;
    }
    Ok(())
}
