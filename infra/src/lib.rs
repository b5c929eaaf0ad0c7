//! How a punch is kept and reached: the database it lies in, and what is built on it.

pub mod access;
pub mod adjudicator;
pub mod audit;
pub mod devices;
pub mod follower;
pub mod ledger;
pub mod people;
pub mod photos;
pub mod postgres;
pub mod rulings;
pub mod sites;
pub mod supervision;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
