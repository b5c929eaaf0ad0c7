//! What may be asked of an employee.

use punchtrail_protocol::{SiteId, Time};

use super::DirectoryField;

/// A command to an employee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmployeeCommand {
    /// Make known, at a first site.
    Register {
        /// The site.
        site: SiteId,
        /// The directory's entries that are given.
        fields: Vec<DirectoryField>,
    },
    /// Let work at another site, too.
    AssignToSite {
        /// The site.
        site: SiteId,
    },
    /// End the work at a site.
    UnassignFromSite {
        /// The site.
        site: SiteId,
    },
    /// Note which entries of the directory change.
    ChangeDirectory {
        /// Which.
        fields: Vec<DirectoryField>,
    },
    /// Note that the employee leaves.
    Depart {
        /// When.
        at: Time,
    },
}
