//! What may be asked of an employee.

use punchtrail_protocol::{SiteId, Time};

use super::DirectoryField;

/// A command to an employee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmployeeCommand {
    /// Make known, at a first site.
    Register {
        site: SiteId,
        /// The directory's entries that are given.
        fields: Vec<DirectoryField>,
    },
    /// Let work at another site, too.
    AssignToSite {
        site: SiteId,
    },
    UnassignFromSite {
        site: SiteId,
    },
    /// Note which entries of the directory change.
    ChangeDirectory {
        fields: Vec<DirectoryField>,
    },
    /// Note that the employee leaves.
    Depart {
        at: Time,
    },
}
