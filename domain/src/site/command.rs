//! What may be asked of a site.

use crate::policy::Policy;

/// A command to a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteCommand {
    Register { tz: String },
    ChangePolicy { policy: Policy },
}
