//! What can happen to a site.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// An event of a site. Past tense, versioned, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SiteEvent {
    /// The site became known; its name stands beside the ledger.
    Registered { tz: String },
    /// Punches are judged by this policy from here on.
    PolicyChanged { policy: Policy },
}

impl SiteEvent {
    /// The zone that it names; none when it names none, or none that is known here.
    pub fn zone(&self) -> Option<TimeZone> {
        match self {
            Self::Registered { tz } => TimeZone::get(tz).ok(),
            Self::PolicyChanged { .. } => None,
        }
    }
}
