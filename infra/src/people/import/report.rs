//! What an import says of a file: what is wrong with it, what is strange, and what changes, by
//! name.

use punchtrail_protocol::EmployeeId;
use serde::Serialize;

use super::file::Faults;

/// How many changed people are described; more are counted.
pub const CHANGES_MAX: usize = 1_000;

/// What is wrong with one row, or strange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowFault {
    /// The line of the file at which it begins: the header's is 1, blank ones count.
    pub row: u64,
    /// What is wrong, without PINs.
    pub what: String,
}

/// What a row changes.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowChange {
    /// The line of the file at which it begins.
    pub row: u64,
    /// Null for somebody new of whom a dry run only tells.
    pub employee: Option<EmployeeId>,
    /// Their name before it; of somebody new, their name.
    pub name: String,
    /// Each change, in words.
    pub what: Vec<String>,
}

impl std::fmt::Debug for RowChange {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowChange").field("row", &self.row).finish_non_exhaustive()
    }
}

/// What an import did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Imported {
    /// Whether nothing was written, and this is what would be.
    pub dry_run: bool,
    /// Employees written: new and changed ones.
    pub imported: u64,
    pub created: u64,
    /// Employees of whom something changed, those included who held a badge before.
    pub updated: u64,
    /// Rows whose employees stood like that already.
    pub unchanged: u64,
    pub rows: u64,
    /// The ledger's head afterwards.
    pub position: u64,
    /// What changes, by name, in the order of the file; the first 1,000.
    pub changes: Vec<RowChange>,
    pub changes_more: u64,
    /// What is strange and may be right, in the order of the file; the first 100.
    pub warnings: Vec<RowFault>,
    pub warnings_more: u64,
    /// What is wrong, in the order of the file; the first 100. Only a dry run tells of them here:
    /// an import with one is refused.
    pub faults: Vec<RowFault>,
    pub faults_more: u64,
}

impl Imported {
    /// Takes what is told of rows, and how many of them change nothing.
    pub(super) fn say(&mut self, mut told: Vec<RowChange>, unchanged: u64) {
        told.sort_by_key(|change| change.row);
        self.changes_more = told.len().saturating_sub(CHANGES_MAX) as u64;
        told.truncate(CHANGES_MAX);
        (self.changes, self.unchanged) = (told, unchanged);
    }

    /// Takes what is strange and what is wrong.
    pub(super) fn doubt(&mut self, warnings: Faults, faults: Faults) {
        (self.warnings, self.warnings_more) = warnings.into_parts();
        (self.faults, self.faults_more) = faults.into_parts();
    }
}
