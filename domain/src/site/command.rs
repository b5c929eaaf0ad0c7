//! What may be asked of a site.

use jiff::civil::Date;

use crate::policy::Policy;

/// A command to a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteCommand {
    Register {
        tz: String,
    },
    ChangePolicy {
        policy: Policy,
        /// The first business day that it holds on; none: since ever.
        from: Option<Date>,
    },
    ChangeZone {
        tz: String,
        /// The first day that it holds on; none: the zone was wrong from the beginning.
        from: Option<Date>,
    },
}
