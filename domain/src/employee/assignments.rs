//! At which sites a person works, and when: several at once, each from a day until a day.

use punchtrail_protocol::{SiteId, Time};
use serde::{Deserialize, Serialize};

use super::EmployeeEvent;

/// That a person works at a site, from then until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub site: SiteId,
    /// None: since ever.
    pub from: Option<Time>,
    pub until: Option<Time>,
}

impl Assignment {
    fn holds_at(&self, at: Time) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// The assignments of a person, those that ended included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Assignments(Vec<Assignment>);

impl Assignments {
    /// All of them.
    pub fn all(&self) -> &[Assignment] {
        &self.0
    }

    /// The latest assignment to a site.
    pub fn latest(&self, site: SiteId) -> Option<&Assignment> {
        self.0.iter().rev().find(|at| at.site == site)
    }

    /// The sites where the person works with no end in sight.
    pub fn open(&self) -> impl Iterator<Item = SiteId> {
        self.0.iter().filter(|at| at.until.is_none()).map(|at| at.site)
    }

    /// Whether the person worked at the site then.
    pub fn holds_at(&self, site: SiteId, at: Time) -> bool {
        self.0.iter().any(|assignment| assignment.site == site && assignment.holds_at(at))
    }

    /// Takes an event of the person.
    pub fn evolve(&mut self, event: &EmployeeEvent) {
        match event {
            EmployeeEvent::AssignedToSite { site, from } => {
                let open = |at: &&mut Assignment| at.site == *site && at.until.is_none();
                match self.0.iter_mut().rev().find(open) {
                    Some(assignment) => assignment.from = *from,
                    None => self.0.push(Assignment { site: *site, from: *from, until: None }),
                }
            }
            EmployeeEvent::UnassignedFromSite { site, until: Some(until) } => {
                if let Some(assignment) = self.0.iter_mut().rev().find(|at| at.site == *site) {
                    assignment.until = Some(*until);
                }
            }
            // Before assignments were dated, one that ended was none.
            EmployeeEvent::UnassignedFromSite { site, until: None } => {
                self.0.retain(|at| at.site != *site);
            }
            EmployeeEvent::Erased { .. } => self.0.clear(),
            _ => {}
        }
    }
}
