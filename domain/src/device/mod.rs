//! The device: enrolled with a key, assigned to sites, its sequence watched for gaps and forks,
//! told what to do.
//!
//! What a device reports of itself (how many punches wait) is current state in a table of its own,
//! not an event; what its captures prove about it (a missing number, a number used twice) is.

mod chain;
mod command;
mod commands;
mod error;
mod event;
mod gap;

use punchtrail_protocol::{OrgId, SiteId, Time, signing::PublicKey};
use serde::{Deserialize, Serialize};

pub use chain::{Chain, GAPS_MAX, Seen};
pub use command::DeviceCommand;
pub use commands::{
    COMMANDS_REMEMBERED_MAX, COMMANDS_WAITING_MAX, Commands, FORGETTING_WAITING_MAX, Instruction,
};
pub use error::DeviceError;
pub use event::DeviceEvent;
pub use gap::{Cut, Gap, without};

use crate::aggregate::aggregate;

/// A device as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    org: Option<OrgId>,
    key: Option<PublicKey>,
    sites: Vec<SiteId>,
    gaps: Vec<Gap>,
    forks: u64,
    conflicts: u64,
    revoked_at: Option<Time>,
    commands: Commands,
}

impl Device {
    /// The enrolled key.
    pub fn key(&self) -> Option<&PublicKey> {
        self.key.as_ref()
    }
    /// Every site it was ever assigned to, the present one last.
    pub fn sites(&self) -> &[SiteId] {
        &self.sites
    }
    /// When it was revoked, if it was.
    pub fn revoked_at(&self) -> Option<Time> {
        self.revoked_at
    }
    /// The sequence numbers that are missing, in order.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }
    /// How many forks were found.
    pub fn forks(&self) -> u64 {
        self.forks
    }

    /// Of how many punches it used the id again.
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// What it was told to do, and what became of that.
    pub const fn commands(&self) -> &Commands {
        &self.commands
    }

    /// What follows from `command`.
    ///
    /// # Errors
    /// When the device doesn't exist yet or exists already, or what it was told doesn't allow it.
    pub fn decide(&self, command: DeviceCommand) -> Result<Vec<DeviceEvent>, DeviceError> {
        if let DeviceCommand::Enroll { org, site, key, app } = command {
            return match self.org {
                Some(_) => Err(DeviceError::Exists),
                None => Ok(vec![
                    DeviceEvent::Registered { org },
                    DeviceEvent::Enrolled { key, app },
                    DeviceEvent::SiteAssigned { site },
                ]),
            };
        }
        if self.org.is_none() {
            return Err(DeviceError::Unknown);
        }
        Ok(match command {
            DeviceCommand::Enroll { .. } => Vec::new(),
            DeviceCommand::AssignSite { site } if self.sites.last() == Some(&site) => Vec::new(),
            DeviceCommand::AssignSite { site } => vec![DeviceEvent::SiteAssigned { site }],
            DeviceCommand::Revoke { .. } if self.revoked_at.is_some() => Vec::new(),
            DeviceCommand::Revoke { at } => vec![DeviceEvent::Revoked { at }],
            DeviceCommand::Observe { events } => events,
            DeviceCommand::Issue { command, .. } if self.commands.knows(command) => Vec::new(),
            DeviceCommand::Issue { .. } if self.revoked_at.is_some() => {
                return Err(DeviceError::Revoked);
            }
            DeviceCommand::Issue { command, instruction, expires_at } => {
                self.commands.issue(command, instruction, expires_at)?
            }
            DeviceCommand::Finish { command, status, note } => {
                self.commands.finish(command, status, note)?
            }
            DeviceCommand::Expire { command, at } => self.commands.expire(command, at),
            DeviceCommand::Cancel { command } => self.commands.cancel(command)?,
        })
    }

    fn evolve(&mut self, event: DeviceEvent) {
        self.commands.evolve(&event);
        match event {
            DeviceEvent::Registered { org } => self.org = Some(org),
            DeviceEvent::Enrolled { key, .. } => self.key = Some(key),
            DeviceEvent::SiteAssigned { site } => {
                self.sites.retain(|known| *known != site);
                self.sites.push(site);
            }
            DeviceEvent::SequenceGapOpened { gap } => {
                self.gaps.push(gap);
                self.gaps.sort_unstable();
            }
            DeviceEvent::SequenceGapClosed { gap } => self.gaps = without(&self.gaps, gap),
            DeviceEvent::LinkBroken { .. } => {}
            DeviceEvent::ForkDetected { .. } => self.forks += 1,
            DeviceEvent::ConflictDetected { .. } => self.conflicts += 1,
            DeviceEvent::Revoked { at } => self.revoked_at = Some(at),
            DeviceEvent::CommandIssued { .. }
            | DeviceEvent::CommandFinished { .. }
            | DeviceEvent::CommandExpired { .. }
            | DeviceEvent::CommandCancelled { .. } => {}
        }
    }
}

aggregate!(Device, DeviceCommand, DeviceEvent, DeviceError, {
    Registered, Enrolled, SiteAssigned, SequenceGapOpened, SequenceGapClosed, LinkBroken,
    ForkDetected, ConflictDetected, Revoked, CommandIssued, CommandFinished, CommandExpired,
    CommandCancelled,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_comes_back_to_a_site_without_losing_the_others() {
        let mut device = Device::default();
        let [a, b] = [SiteId(uuid::Uuid::from_u128(1)), SiteId(uuid::Uuid::from_u128(2))];
        for site in [a, b, a] {
            device.evolve(DeviceEvent::SiteAssigned { site });
        }
        assert_eq!(device.sites(), [b, a]);
    }
}
