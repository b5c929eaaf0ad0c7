//! What may be asked of a device.

use punchtrail_protocol::{
    CommandId, Digest, OrgId, SiteId, Time, command::CommandStatus, signing::PublicKey,
};

use super::{DeviceEvent, Instruction};

/// A command to a device.
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
    /// Tell it to do something; the same id again changes nothing.
    Issue {
        command: CommandId,
        instruction: Instruction,
        expires_at: Time,
    },
    /// Note what it says became of that. Also what comes late is a fact.
    Finish {
        command: CommandId,
        status: CommandStatus,
        /// Digest of what it says of it in words.
        note: Option<Digest>,
    },
    /// Note that it was undone when its time was over, if it was.
    Expire {
        command: CommandId,
        at: Time,
    },
    /// It shall not do it, if it hasn't.
    Cancel {
        command: CommandId,
    },
}
