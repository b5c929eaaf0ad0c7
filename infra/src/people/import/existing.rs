//! What stands already, as far as the rows of a file can touch it. Read before anything is decided;
//! whatever changes meanwhile turns the append away.

use std::collections::{HashMap, HashSet};

use punchtrail_domain::{
    employee::Employee,
    site::{Site, SiteRules},
};
use punchtrail_protocol::{EmployeeId, SiteId, spelling::name_key};
use uuid::Uuid;

use super::{ImportError, RosterRow, damage::without_zeros, directory};
use crate::{
    ledger::{Ledger, Loaded, load},
    people::{
        badges::rows::{self, HoldingRow},
        change::undated,
        directory::EmployeeEntry as Entry,
    },
};

/// How many employees are loaded at a time.
const LOAD_EMPLOYEES_MAX: usize = 5_000;

/// What stands already.
#[derive(Default)]
pub(super) struct Existing {
    pub sites: HashMap<String, SiteId>,
    pub rules: HashMap<SiteId, SiteRules>,
    pub entries: HashMap<EmployeeId, Entry>,
    /// Holdings by the badge's number without its leading zeros, the earliest first.
    pub holdings: HashMap<String, Vec<HoldingRow>>,
    /// Holdings by who held them.
    pub badges: HashMap<EmployeeId, Vec<HoldingRow>>,
    pub employees: HashMap<EmployeeId, Loaded<Employee>>,
    /// People by their name, however it is spelled.
    pub named: HashMap<String, Vec<EmployeeId>>,
}

impl Existing {
    pub(super) async fn read(ledger: &Ledger, rows: &[RosterRow]) -> Result<Self, ImportError> {
        let pool = ledger.pool();
        let mut existing = Self { sites: directory::sites(pool).await?, ..Self::default() };
        existing.read_rules(ledger, rows).await?;
        let numbers: Vec<&str> =
            rows.iter().filter_map(|row| row.badge.as_deref()).map(without_zeros).collect();
        for row in rows::but_for_zeros(pool, &numbers).await? {
            existing.holds(row);
        }
        let mut people: HashSet<EmployeeId> =
            existing.holdings.values().flatten().map(|row| row.employee).collect();
        let keys: HashSet<String> = rows.iter().map(|row| name_key(&row.name)).collect();
        for (employee, name) in directory::names(pool).await? {
            let key = name_key(&name);
            if keys.contains(&key) {
                existing.named.entry(key).or_default().push(employee);
                people.insert(employee);
            }
        }
        let ids: Vec<Uuid> = people.iter().map(|employee| employee.uuid()).collect();
        for entry in directory::entries(pool, &ids, rows).await? {
            people.insert(entry.employee);
            existing.entries.insert(entry.employee, entry);
        }
        existing.read_people(ledger, people.into_iter().collect()).await?;
        Ok(existing)
    }

    async fn read_rules(&mut self, ledger: &Ledger, rows: &[RosterRow]) -> Result<(), ImportError> {
        let named: HashSet<SiteId> = rows.iter().filter_map(|row| self.site(&row.site)).collect();
        let ids: Vec<String> = named.iter().map(ToString::to_string).collect();
        for (id, site) in load::<Site>(ledger.pool(), &ids).await? {
            if let Ok(id) = id.parse() {
                self.rules.insert(id, site.aggregate.rules().clone());
            }
        }
        Ok(())
    }

    async fn read_people(
        &mut self,
        ledger: &Ledger,
        people: Vec<EmployeeId>,
    ) -> Result<(), ImportError> {
        for chunk in people.chunks(LOAD_EMPLOYEES_MAX) {
            let ids: Vec<Uuid> = chunk.iter().map(|employee| employee.uuid()).collect();
            for row in rows::of_employees(ledger.pool(), &ids).await? {
                self.badges.entry(row.employee).or_default().push(row);
            }
            let ids: Vec<String> = chunk.iter().map(ToString::to_string).collect();
            for (id, loaded) in load::<Employee>(ledger.pool(), &ids).await? {
                if let Ok(id) = id.parse() {
                    self.knows(id, loaded);
                }
            }
        }
        Ok(())
    }

    pub(super) fn holds(&mut self, row: HoldingRow) {
        let key = without_zeros(&row.number).to_owned();
        self.holdings.entry(key).or_default().push(row);
    }

    pub(super) fn knows(&mut self, employee: EmployeeId, mut loaded: Loaded<Employee>) {
        let badges = self.badges.get(&employee).map_or(&[][..], Vec::as_slice);
        loaded.aggregate.remember_badges(undated(badges));
        self.employees.insert(employee, loaded);
    }

    pub(super) fn site(&self, text: &str) -> Option<SiteId> {
        let by_id = || {
            let id: SiteId = text.parse().ok()?;
            self.sites.values().find(|site| **site == id).copied()
        };
        self.sites.get(text).copied().or_else(by_id)
    }

    /// The holdings of that badge and of those that differ from it by leading zeros.
    pub(super) fn near(&self, number: &str) -> &[HoldingRow] {
        self.holdings.get(without_zeros(number)).map_or(&[], Vec::as_slice)
    }

    /// Every time that the badge was held.
    pub(super) fn of_number<'a>(
        &'a self,
        number: &'a str,
    ) -> impl Iterator<Item = &'a HoldingRow> + 'a {
        self.near(number).iter().filter(move |row| row.number == number && row.is_any())
    }
}
