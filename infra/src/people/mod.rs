//! People beside the ledger: the directory with their names, and the import of a site's roster, and
//! what is asked of them about their faces.

pub mod directory;
pub mod faces;
pub mod import;
