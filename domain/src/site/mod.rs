//! The site: where people work, and the policy that judges what is punched there.

mod command;
mod error;
mod event;

use serde::{Deserialize, Serialize};

pub use command::SiteCommand;
pub use error::SiteError;
pub use event::SiteEvent;

use crate::{aggregate::aggregate, policy::Policy};

/// A site as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Site {
    tz: Option<String>,
    policy: Policy,
}

impl Site {
    /// Its IANA time zone; none before it was registered.
    pub fn tz(&self) -> Option<&str> {
        self.tz.as_deref()
    }
    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What follows from `command`.
    ///
    /// # Errors
    /// When the site doesn't exist yet, exists already, or the policy is out of range.
    pub fn decide(&self, command: SiteCommand) -> Result<Vec<SiteEvent>, SiteError> {
        match (command, &self.tz) {
            (SiteCommand::Register { .. }, Some(_)) => Err(SiteError::Exists),
            (SiteCommand::Register { tz }, None) => match jiff::tz::TimeZone::get(&tz) {
                Ok(_) => Ok(vec![SiteEvent::Registered { tz }]),
                Err(_) => Err(SiteError::UnknownZone(tz)),
            },
            (SiteCommand::ChangePolicy { .. }, None) => Err(SiteError::Unknown),
            (SiteCommand::ChangePolicy { policy }, Some(_)) => {
                policy.check().map_err(SiteError::Policy)?;
                let event = SiteEvent::PolicyChanged { policy };
                Ok(if policy_of(&event) == Some(&self.policy) { Vec::new() } else { vec![event] })
            }
        }
    }

    fn evolve(&mut self, event: SiteEvent) {
        match event {
            SiteEvent::Registered { tz } => self.tz = Some(tz),
            SiteEvent::PolicyChanged { policy } => self.policy = policy,
        }
    }
}

fn policy_of(event: &SiteEvent) -> Option<&Policy> {
    match event {
        SiteEvent::PolicyChanged { policy } => Some(policy),
        SiteEvent::Registered { .. } => None,
    }
}

aggregate!(Site, SiteCommand, SiteEvent, SiteError, { Registered, PolicyChanged });
