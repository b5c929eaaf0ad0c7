//! What may be asked of a site.

use crate::policy::Policy;

/// A command to a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteCommand {
    /// Make it known.
    Register {
        /// Its IANA time zone.
        tz: String,
    },
    /// Judge by another policy.
    ChangePolicy {
        /// The whole policy.
        policy: Policy,
    },
}
