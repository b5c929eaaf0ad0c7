//! When a person worked here: they leave, come back, and either may be corrected.

use punchtrail_protocol::Time;
use serde::{Deserialize, Serialize};

use super::EmployeeEvent;

/// The times at which a person did not work here, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Employment {
    away: Vec<Away>,
}

/// From when somebody was gone, and until when; none while they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Away {
    from: Time,
    until: Option<Time>,
}

impl Employment {
    /// When the person left, if they are gone.
    pub fn departed_at(&self) -> Option<Time> {
        self.away.last().filter(|away| away.until.is_none()).map(|away| away.from)
    }

    /// When the person had left, if they were gone then.
    pub fn departed_before(&self, at: Time) -> Option<Time> {
        let gone = |away: &&Away| away.from < at && away.until.is_none_or(|until| at < until);
        self.away.iter().find(gone).map(|away| away.from)
    }

    /// When the person came back last; none if they never did.
    pub fn returned_at(&self) -> Option<Time> {
        self.away.iter().rev().find_map(|away| away.until)
    }

    /// From when on a judgement may differ after that event; none when it is about nothing else.
    pub fn changes_from(&self, event: &EmployeeEvent) -> Option<Time> {
        match event {
            EmployeeEvent::Departed { at } => {
                Some(self.departed_at().map_or(*at, |before| before.min(*at)))
            }
            EmployeeEvent::DepartureCancelled {} | EmployeeEvent::Returned { .. } => {
                self.departed_at()
            }
            _ => None,
        }
    }

    /// Takes an event of the person.
    pub fn evolve(&mut self, event: &EmployeeEvent) {
        match event {
            EmployeeEvent::Departed { at } => {
                self.away.pop_if(|away| away.until.is_none());
                self.away.push(Away { from: *at, until: None });
            }
            EmployeeEvent::DepartureCancelled {} => {
                self.away.pop_if(|away| away.until.is_none());
            }
            EmployeeEvent::Returned { at } => {
                if let Some(away) = self.away.last_mut().filter(|away| away.until.is_none()) {
                    away.until = Some(*at);
                }
            }
            _ => {}
        }
    }
}
