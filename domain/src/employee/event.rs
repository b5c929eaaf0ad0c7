//! What can happen to an employee.

use serde::{Deserialize, Serialize};

use punchtrail_protocol::{SiteId, Time};

/// A field of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DirectoryField {
    /// The badge's number.
    Badge,
    /// The name.
    Name,
    /// The PIN.
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
        /// The site.
        site: SiteId,
    },
    /// The employee no longer works at this site.
    UnassignedFromSite {
        /// The site.
        site: SiteId,
    },
    /// Entries of the directory changed; the values stand beside the ledger.
    DirectoryChanged {
        /// Which.
        fields: Vec<DirectoryField>,
    },
    /// The employee left.
    Departed {
        /// When.
        at: Time,
    },
}
