//! What can happen to a site.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// An event of a site. Past tense, versioned, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SiteEvent {
    /// The site became known; its name stands beside the ledger.
    Registered { tz: String },
    /// Punches are judged and paired by this policy.
    PolicyChanged {
        policy: Policy,
        /// From which business day on, `YYYY-MM-DD`; since ever where none is said. Since version
        /// 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
        from: Option<Date>,
    },
    /// The site's days are counted in this zone.
    ZoneChanged {
        tz: String,
        /// From which day on, `YYYY-MM-DD`; where none is said, the zone before was wrong from the
        /// beginning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
        from: Option<Date>,
    },
}
