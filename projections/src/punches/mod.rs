//! Punches: every one with where it stands, what a site's devices are told, what a day comes to,
//! which photos they name.

mod batch;
pub mod photos;
pub mod preview;
pub(crate) mod row;
pub mod site_feed;
pub mod timecards;
pub mod timeline;

pub use row::PunchView;
