//! The employee: an opaque id in the ledger. Name, badge and PIN live in the directory beside it,
//! so that they can be erased; events say which fields changed, never their values.

mod command;
mod error;
mod event;

use punchtrail_protocol::{SiteId, Time};
use serde::{Deserialize, Serialize};

pub use command::EmployeeCommand;
pub use error::EmployeeError;
pub use event::{DirectoryField, EmployeeEvent};

use crate::aggregate::aggregate;

/// An employee as the events make one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Employee {
    registered: bool,
    sites: Vec<SiteId>,
    departed_at: Option<Time>,
}

impl Employee {
    /// Whether the employee is known.
    pub fn is_registered(&self) -> bool {
        self.registered
    }
    /// The sites where the employee works now.
    pub fn sites(&self) -> &[SiteId] {
        &self.sites
    }
    /// When the employee left, if so.
    pub fn departed_at(&self) -> Option<Time> {
        self.departed_at
    }

    /// What follows from `command`; no events when nothing changes.
    ///
    /// # Errors
    /// When the employee doesn't exist yet, exists already, or has left.
    pub fn decide(&self, command: EmployeeCommand) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        match command {
            EmployeeCommand::Register { .. } if self.registered => Err(EmployeeError::Exists),
            EmployeeCommand::Register { site, fields } => Ok(vec![
                EmployeeEvent::Registered {},
                EmployeeEvent::DirectoryChanged { fields },
                EmployeeEvent::AssignedToSite { site },
            ]),
            _ if !self.registered => Err(EmployeeError::Unknown),
            EmployeeCommand::AssignToSite { site } if self.sites.contains(&site) => Ok(Vec::new()),
            EmployeeCommand::AssignToSite { .. } if self.departed_at.is_some() => {
                Err(EmployeeError::Departed)
            }
            EmployeeCommand::AssignToSite { site } => {
                Ok(vec![EmployeeEvent::AssignedToSite { site }])
            }
            EmployeeCommand::UnassignFromSite { site } if self.sites.contains(&site) => {
                Ok(vec![EmployeeEvent::UnassignedFromSite { site }])
            }
            EmployeeCommand::UnassignFromSite { .. } => Ok(Vec::new()),
            EmployeeCommand::ChangeDirectory { fields } if fields.is_empty() => Ok(Vec::new()),
            EmployeeCommand::ChangeDirectory { fields } => {
                Ok(vec![EmployeeEvent::DirectoryChanged { fields }])
            }
            EmployeeCommand::Depart { .. } if self.departed_at.is_some() => Ok(Vec::new()),
            EmployeeCommand::Depart { at } => Ok(vec![EmployeeEvent::Departed { at }]),
        }
    }

    fn evolve(&mut self, event: EmployeeEvent) {
        match event {
            EmployeeEvent::Registered {} => self.registered = true,
            EmployeeEvent::AssignedToSite { site } => self.sites.push(site),
            EmployeeEvent::UnassignedFromSite { site } => self.sites.retain(|at| *at != site),
            EmployeeEvent::DirectoryChanged { .. } => {}
            EmployeeEvent::Departed { at } => self.departed_at = Some(at),
        }
    }
}

aggregate!(Employee, EmployeeCommand, EmployeeEvent, EmployeeError, {
    Registered, AssignedToSite, UnassignedFromSite, DirectoryChanged, Departed,
});
