//! The way of a picture, from the ledger to a verdict in it.
//!
//! ```text
//! photo comes ─▶ arrivals ─▶ ledger ─▶ feeder ─▶ queue ─▶ checks ─▶ ledger ─▶ adjudicator
//!                                                deadlines ─▶ ledger
//!                                     ledger ─▶ verdicts ─▶ the worker at the door
//!                                     ledger ─▶ erasures ─▶ photos gone ─▶ ledger
//! ```
//!
//! Each of these may do its work twice, or another node before it: what decides is the punch, which
//! takes one verdict on each picture. None of them can reject a punch.

pub mod arrivals;
pub mod broke;
pub mod checks;
pub mod deadlines;
pub mod erasures;
pub mod feeder;
pub mod pictures;
pub mod references;
pub mod start;
pub mod verdicts;
