//! People beside the ledger: the directory with their names, the badges that they hold and held,
//! who is taken on, leaves and comes back, the import of a site's roster, what is asked of them
//! about their faces, what may not be erased of them, and its erasure.

pub mod badges;
mod change;
pub mod directory;
pub mod erasure;
mod error;
pub mod faces;
pub mod holds;
pub mod import;
pub mod moment;
pub mod pins;
pub mod staff;

pub use change::Changed;
pub use error::{Holder, PeopleError};
