//! What a row makes of its badge: held already, free, somebody else's, or damaged.

use punchtrail_domain::{
    employee::{BadgeEnd, EmployeeCommand},
    site::SiteRules,
};
use punchtrail_protocol::{EmployeeId, SiteId, Time};

use super::{
    RosterRow,
    damage::without_zeros,
    plan::{Draft, Work},
};
use crate::people::{
    badges::rows::{Fresh, HoldingRow},
    error::Holder,
};

impl Draft<'_> {
    fn name_of(&self, employee: EmployeeId) -> String {
        let entry = self.existing.entries.get(&employee);
        entry.map_or_else(|| format!("employee {employee}"), |entry| entry.name.clone())
    }

    /// Adds to a person's work that they hold the row's badge; whoever gives it up for that.
    pub(super) fn badge(
        &mut self,
        work: &mut Work,
        (row, number): (&RosterRow, &str),
        (site, rules): (SiteId, &SiteRules),
        since: Option<Time>,
    ) -> Result<Option<Work>, String> {
        let mut held = self.existing.of_number(number).filter(|held| held.goes_on(self.now));
        if held.any(|held| held.employee == work.employee) {
            return Ok(None);
        }
        let at = since.unwrap_or(self.now).max(self.now);
        let holder = self.existing.of_number(number).find(|held| held.goes_on(at)).cloned();
        self.warn_of_others(work, row);
        let Some(held) = holder else {
            self.look_at_zeros(work.employee, number, site)?;
            let free = self.existing.of_number(number).filter_map(|held| held.until).max();
            let from = since.unwrap_or_default().max(free.unwrap_or_default());
            give(work, number, from)?;
            let since = (from > Time::default()).then(|| format!(" from {from}"));
            work.what.push(format!("badge {number}{}", since.unwrap_or_default()));
            return Ok(None);
        };
        let name = self.name_of(held.employee);
        let holds = |held: &HoldingRow| {
            let HoldingRow { employee, from, until, .. } = held.clone();
            Holder { employee: Some(employee), name: None, from, until }.when()
        };
        let Some(reissue) = self.options.reissue else {
            return Err(format!(
                "badge {number} is held by {name} {}; if it changed hands, say when with \
                 `--reissue DAY`, else give this row another badge",
                holds(&held)
            ));
        };
        let at = reissue.begins(rules);
        let later = self.existing.of_number(number).filter(|held| held.goes_on(at)).last();
        let later = later.filter(|later| later.holding != held.holding || held.from >= Some(at));
        if let Some(later) = later {
            return Err(format!(
                "badge {number} is held by {} {}, so it can't have changed hands at {at}",
                self.name_of(later.employee),
                holds(later)
            ));
        }
        let mut gives_up = self.work_of(held.employee);
        // One that ends before that anyhow is left to end.
        if held.goes_on(at) {
            let (holding, because) = (held.holding, BadgeEnd::Reissued);
            let end = EmployeeCommand::EndBadge { holding, until: at, because };
            let ended = gives_up.now.decide(end).map_err(|refused| refused.to_string())?;
            gives_up.take(ended);
            gives_up.what.push(format!("gives up badge {number} at {at}"));
        }
        give(work, number, at)?;
        work.what.push(format!("badge {number} from {at}, until then {name}'s"));
        work.with = Some(held.employee);
        Ok(Some(gives_up))
    }

    /// A badge more: an import takes none away.
    fn warn_of_others(&mut self, work: &Work, row: &RosterRow) {
        let held = self.existing.badges.get(&work.employee).into_iter().flatten();
        let others: Vec<&str> =
            held.filter(|held| held.until.is_none()).map(|held| held.number.as_str()).collect();
        if self.left(work.employee).is_none() && !others.is_empty() {
            let what = format!(
                "they go on holding badge {}; if this row's replaces it, end that with `employee \
                 badge return` or `lost`",
                others.join(", ")
            );
            self.warnings.add(row.row, what);
        }
    }

    /// A badge that is known, of that person or at that site, but for its leading zeros.
    fn look_at_zeros(
        &self,
        employee: EmployeeId,
        number: &str,
        site: SiteId,
    ) -> Result<(), String> {
        let told = |other: &str, whose: String| {
            Err(format!(
                "badge {number} differs from badge {other} {whose} by leading zeros alone, which a \
                 spreadsheet drops; format the column as text. If it is another badge, issue it \
                 with `employee badge issue`"
            ))
        };
        if let Some((row, other)) = self.near.get(&(site, without_zeros(number)))
            && *other != number
        {
            return told(other, format!("in row {row}"));
        }
        if self.existing.of_number(number).next().is_some() {
            return Ok(());
        }
        let works = |employee: EmployeeId| {
            let known = self.existing.employees.get(&employee);
            known.is_some_and(|known| {
                known.aggregate.assignments().all().iter().any(|at| at.site == site)
            })
        };
        let mut near = self.existing.near(number).iter().filter(|held| held.is_any());
        match near.find(|held| held.employee == employee || works(held.employee)) {
            Some(held) => told(&held.number, format!("of {}", self.name_of(held.employee))),
            None => Ok(()),
        }
    }
}

fn give(work: &mut Work, number: &str, from: Time) -> Result<(), String> {
    let fresh = Fresh::of(number);
    let command = EmployeeCommand::IssueBadge { holding: fresh.holding, from };
    let issued = work.now.decide(command).map_err(|refused| refused.to_string())?;
    work.take(issued);
    work.fresh.push(fresh);
    Ok(())
}
