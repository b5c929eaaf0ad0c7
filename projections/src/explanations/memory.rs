//! What surrounds punches changes slowly, and many explanations share it: names, and what devices
//! last reported. It is remembered for [`REMEMBERED_MS`] and then forgotten as a whole, so
//! a change, and an erasure, reaches every explanation that much later at the latest. The punches'
//! own events, their sites' zones, and what was noted about a device's numbers, are read each time.

use std::time::{Duration, Instant};

use punchtrail_domain::explanation::Account;
use punchtrail_infra::{ledger::ReadError, postgres::Pool};

use super::context::{Surroundings, Wanted};

/// How long it is remembered, in milliseconds.
pub const REMEMBERED_MS: u64 = 1_000;
/// How many people's names are remembered within that time.
const PEOPLE_MAX: usize = 10_000;

/// What was looked up a moment ago.
#[derive(Debug)]
pub(super) struct Memory {
    since: Instant,
    /// What was asked for, found or not.
    asked: Wanted,
    found: Surroundings,
}

impl Memory {
    /// Nothing is remembered yet.
    pub fn new() -> Self {
        Self { since: Instant::now(), asked: Wanted::default(), found: Surroundings::default() }
    }

    /// What surrounds these punches; one statement.
    pub async fn around(
        &mut self,
        pool: &Pool,
        accounts: &[&Account],
    ) -> Result<Surroundings, ReadError> {
        let now = Instant::now();
        let stale = now.duration_since(self.since) >= Duration::from_millis(REMEMBERED_MS);
        if stale || self.asked.employees.len() > PEOPLE_MAX {
            *self = Self { since: now, ..Self::new() };
        }
        let wanted = Wanted::of(accounts);
        let fresh = Surroundings::read_from(pool, &self.missing(&wanted)).await?;
        self.asked.employees.extend(&wanted.employees);
        self.asked.devices.extend(&wanted.devices);
        self.asked.keys.extend(&wanted.keys);
        self.found.add(fresh.part(&wanted));
        let mut around = self.found.part(&wanted);
        self.found.note(&fresh);
        around.add(fresh);
        Ok(around)
    }

    fn missing(&self, wanted: &Wanted) -> Wanted {
        Wanted {
            employees: &wanted.employees - &self.asked.employees,
            devices: &wanted.devices - &self.asked.devices,
            // A zone that was changed tells other times at once.
            sites: wanted.sites.clone(),
            keys: &wanted.keys - &self.asked.keys,
            quarantined: wanted.quarantined.clone(),
            // What was erased is gone at once.
            notes: wanted.notes.clone(),
            numbers: wanted
                .numbers
                .iter()
                .filter(|(device, _)| {
                    !self.asked.devices.contains(device) || self.found.is_noted(*device)
                })
                .copied()
                .collect(),
        }
    }
}
