//! Why a site refuses a command.

use crate::policy::PolicyError;

/// A command that a site refuses. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    #[error("there is no such site")]
    Unknown,
    #[error("this site exists already")]
    Exists,
    /// Not a zone of the IANA time zone database.
    #[error("`{0}` is not a time zone of the IANA database; one is `Europe/Berlin`")]
    UnknownZone(String),
    /// A value of the policy is out of range.
    #[error(transparent)]
    Policy(PolicyError),
}
