//! What an error of the database means to whoever asked it something.

pub use sqlx::Error as DatabaseError;

/// What an error of the database means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is out of reach, or can't now: asking again may help.
    Passing,
    /// A value came that Postgres can't hold.
    Value,
    /// The statement or what it found is wrong, and will be.
    Lasting,
}

/// SQLSTATE classes (PostgreSQL manual, appendix A) that pass: connection, rollback, resources,
/// intervention, system error.
const PASSING_CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
const LOCK_NOT_AVAILABLE: &str = "55P03";
const READ_ONLY: &str = "25006";
/// Values that Postgres can't hold.
const DATA_EXCEPTION: &str = "22";

impl Trouble {
    /// What this error means.
    pub fn of(error: &DatabaseError) -> Self {
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
        let passing = match error {
            DatabaseError::Io(_)
            | DatabaseError::Tls(_)
            | DatabaseError::Protocol(_)
            | DatabaseError::PoolTimedOut
            | DatabaseError::PoolClosed
            | DatabaseError::WorkerCrashed
            | DatabaseError::Configuration(_) => true,
            _ => {
                PASSING_CLASSES.iter().any(|class| code.starts_with(class))
                    || [LOCK_NOT_AVAILABLE, READ_ONLY].contains(&code.as_ref())
            }
        };
        if passing {
            Self::Passing
        } else if code.starts_with(DATA_EXCEPTION) {
            Self::Value
        } else {
            Self::Lasting
        }
    }
}
