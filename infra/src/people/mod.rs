//! People beside the ledger: the directory with their names, and the import of a site's roster.

pub mod directory;
pub mod import;
