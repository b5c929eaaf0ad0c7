//! The device: enrolled with a key, assigned to sites, its sequence watched for gaps and forks.
//!
//! What a device reports of itself (how many punches wait) is current state in a table of its own, not
//! an event; what its captures prove about it (a missing number, a number used twice) is.

mod chain;
mod command;
mod error;
mod event;

use punchtrail_protocol::{OrgId, SiteId, Time, signing::PublicKey};
use serde::{Deserialize, Serialize};

pub use chain::{Chain, Seen};
pub use command::DeviceCommand;
pub use error::DeviceError;
pub use event::DeviceEvent;

use crate::aggregate::aggregate;

/// A device as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    org: Option<OrgId>,
    key: Option<PublicKey>,
    sites: Vec<SiteId>,
    gaps: Vec<Gap>,
    forks: u64,
    revoked_at: Option<Time>,
}

/// A run of sequence numbers that never came: from and to, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// The first missing number.
    pub from: u64,
    /// The last missing number.
    pub to: u64,
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

    /// What follows from `command`.
    ///
    /// # Errors
    /// When the device doesn't exist yet, or exists already.
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
        })
    }

    fn evolve(&mut self, event: DeviceEvent) {
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
            DeviceEvent::Revoked { at } => self.revoked_at = Some(at),
        }
    }
}

/// The open gaps once the numbers of `closed` have come.
pub fn without(open: &[Gap], closed: Gap) -> Vec<Gap> {
    let mut left = Vec::with_capacity(open.len() + 1);
    for gap in open {
        if closed.to < gap.from || gap.to < closed.from {
            left.push(*gap);
            continue;
        }
        if gap.from < closed.from {
            left.push(Gap { from: gap.from, to: closed.from - 1 });
        }
        if closed.to < gap.to {
            left.push(Gap { from: closed.to + 1, to: gap.to });
        }
    }
    left
}

aggregate!(Device, DeviceCommand, DeviceEvent, DeviceError, {
    Registered, Enrolled, SiteAssigned, SequenceGapOpened, SequenceGapClosed, LinkBroken,
    ForkDetected, Revoked,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_closes_from_the_middle_and_from_the_ends() {
        let open = [Gap { from: 3, to: 9 }];
        assert_eq!(
            without(&open, Gap { from: 5, to: 6 }),
            [Gap { from: 3, to: 4 }, Gap { from: 7, to: 9 }]
        );
        assert_eq!(without(&open, Gap { from: 3, to: 3 }), [Gap { from: 4, to: 9 }]);
        assert_eq!(without(&open, Gap { from: 1, to: 20 }), []);
        assert_eq!(without(&open, Gap { from: 10, to: 20 }), open);
    }

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
