//! People beside the ledger: the directory with their names, the import of a site's roster, what is
//! asked of them about their faces, what may not be erased of them, and its erasure.

pub mod directory;
pub mod erasure;
pub mod faces;
pub mod holds;
pub mod import;
