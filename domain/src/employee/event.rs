//! What can happen to an employee.

use serde::{Deserialize, Serialize};

use punchtrail_protocol::{SiteId, Time};

/// A field of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DirectoryField {
    Badge,
    Name,
    Pin,
    /// The id in another system.
    ExternalId,
}

/// An event of an employee. Past tense, versioned, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum EmployeeEvent {
    /// The employee became known.
    Registered {},
    /// The employee works at this site, too.
    AssignedToSite {
        site: SiteId,
    },
    /// The employee no longer works at this site.
    UnassignedFromSite {
        site: SiteId,
    },
    /// Entries of the directory changed; the values stand beside the ledger.
    DirectoryChanged {
        fields: Vec<DirectoryField>,
    },
    Departed {
        at: Time,
    },
}
