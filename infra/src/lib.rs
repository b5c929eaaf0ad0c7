//! How a punch is kept and reached: the database it lies in, and what is built on it.

pub mod adjudicator;
pub mod checkpoint;
pub mod credentials;
pub mod deployment;
pub mod directory;
pub mod enrolment;
pub mod fleet;
pub mod ledger;
pub mod notes;
pub mod photos;
pub mod postgres;
pub mod quarantine;
pub mod reports;
pub mod roster;
pub mod rulings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verify;
