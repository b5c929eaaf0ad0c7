//! The site: where people work, and the policy that judges what is punched there.

mod command;
mod error;
mod event;
mod rules;

use serde::{Deserialize, Serialize};

pub use command::SiteCommand;
pub use error::SiteError;
pub use event::SiteEvent;
pub use rules::{Dated, SiteRules};

use crate::aggregate::aggregate;

/// A site as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Site {
    rules: SiteRules,
}

impl Site {
    /// Its zone and policy, each from its day on.
    pub const fn rules(&self) -> &SiteRules {
        &self.rules
    }

    /// What follows from `command`.
    ///
    /// # Errors
    /// When the site doesn't exist yet, exists already, its zone isn't known, or the policy is out
    /// of range.
    pub fn decide(&self, command: SiteCommand) -> Result<Vec<SiteEvent>, SiteError> {
        match command {
            SiteCommand::Register { .. } if self.rules.is_registered() => Err(SiteError::Exists),
            SiteCommand::Register { tz } => Ok(vec![SiteEvent::Registered { tz: known(tz)? }]),
            _ if !self.rules.is_registered() => Err(SiteError::Unknown),
            SiteCommand::ChangePolicy { policy, from } => {
                policy.check().map_err(SiteError::Policy)?;
                let set = self.rules.policies().iter().find(|set| set.day == from);
                let holds = match (set, from) {
                    (Some(set), _) => &set.value,
                    (None, Some(day)) => self.rules.policy_on(day),
                    (None, None) => self.rules.default_policy(),
                };
                let same = *holds == policy;
                let changed = SiteEvent::PolicyChanged { policy, from };
                Ok(if same { Vec::new() } else { vec![changed] })
            }
            SiteCommand::ChangeZone { tz, from } => {
                let tz = known(tz)?;
                let set = self.rules.zones().iter().find(|set| set.day == from);
                let holds = set.map(|set| &*set.value);
                let holds = holds.or_else(|| self.rules.zone_on(from?));
                let same = holds == Some(&tz);
                let changed = SiteEvent::ZoneChanged { tz, from };
                Ok(if same { Vec::new() } else { vec![changed] })
            }
        }
    }

    fn evolve(&mut self, event: SiteEvent) {
        self.rules.evolve(&event);
    }
}

fn known(tz: String) -> Result<String, SiteError> {
    match jiff::tz::TimeZone::get(&tz) {
        Ok(_) => Ok(tz),
        Err(_) => Err(SiteError::UnknownZone(tz)),
    }
}

aggregate!(Site, SiteCommand, SiteEvent, SiteError, {
    Registered, PolicyChanged, ZoneChanged,
}, second { PolicyChanged });
