//! How a punch is kept and reached: the database it lies in, and what is built on it.

pub mod ledger;
pub mod postgres;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
