//! What may be asked of a device.

use punchtrail_protocol::{OrgId, SiteId, Time, signing::PublicKey};

use super::DeviceEvent;

/// A command to a device.
#[expect(clippy::large_enum_variant, reason = "commands are few and short-lived")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceCommand {
    /// Make it known, with a key whose possession was proven.
    Enroll {
        org: OrgId,
        site: SiteId,
        key: PublicKey,
        app: String,
    },
    /// Let it serve another site.
    AssignSite {
        site: SiteId,
    },
    /// Note what the adjudicator saw in its sequence.
    Observe {
        /// Gaps, broken links, forks and conflicts, in the order they were seen.
        events: Vec<DeviceEvent>,
    },
    Revoke {
        at: Time,
    },
}
