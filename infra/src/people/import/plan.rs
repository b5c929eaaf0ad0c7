//! What an import would do, worked out in memory: who each row means, what changes of whom, and
//! which rows can't be. What happens to badges is `badge`'s, who is written together is `parts`'.

use std::collections::{HashMap, hash_map::Entry as Place};

use cqrs_es::Aggregate as _;
use punchtrail_domain::employee::{Employee, EmployeeCommand, EmployeeEvent};
use punchtrail_protocol::{
    EmployeeId, SiteId, Time,
    spelling::{name_key, same_name},
};
use uuid::Uuid;

use super::{
    ImportError, Options, RosterRow,
    damage::without_zeros,
    existing::Existing,
    file::Faults,
    parts::{self, Plan},
    pins::Wanted,
};
use crate::people::{
    badges::rows::{Fresh, HoldingRow},
    directory::EmployeeEntry as Entry,
};

/// A person of whom something changes, or may.
#[derive(Clone, Default)]
pub(super) struct Work {
    pub employee: EmployeeId,
    pub sequence: u64,
    pub before: Option<Entry>,
    /// What the directory has afterwards; none of somebody who only gives a badge up.
    pub after: Option<Entry>,
    /// Where somebody new works, and since when.
    pub begins: Option<(SiteId, Option<Time>)>,
    /// As the events so far make them.
    pub now: Employee,
    pub events: Vec<EmployeeEvent>,
    pub fresh: Vec<Fresh>,
    /// The row that means them, and what it changes, in words.
    pub row: Option<u64>,
    pub what: Vec<String>,
    /// Whether the row brings a PIN.
    pub has_pin: bool,
    /// Whose badge they get: they are written together.
    pub with: Option<EmployeeId>,
}

impl Work {
    pub(super) fn take(&mut self, events: Vec<EmployeeEvent>) {
        events.iter().cloned().for_each(|event| self.now.apply(event));
        self.events.extend(events);
    }
}

/// An import before its PINs are hashed.
pub(super) struct Draft<'a> {
    pub(super) existing: &'a Existing,
    pub(super) options: &'a Options,
    pub(super) now: Time,
    pub(super) work: Vec<Work>,
    /// Where each person's work stands.
    pub(super) of: HashMap<EmployeeId, usize>,
    /// The rows that each badge, without its zeros, stands in at each site.
    pub(super) near: HashMap<(SiteId, &'a str), (u64, &'a str)>,
    /// Whom each external id means.
    externals: HashMap<&'a str, EmployeeId>,
    /// The names that rows give people by their ids, wherever those rows stand.
    renamed: HashMap<EmployeeId, &'a str>,
    rows: &'a [RosterRow],
    pub(super) faults: Faults,
    pub(super) warnings: Faults,
}

/// Whom a row means.
enum Whom {
    Known(EmployeeId),
    New,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        rows: &'a [RosterRow],
        existing: &'a Existing,
        options: &'a Options,
        now: Time,
    ) -> Self {
        let entries = existing.entries.values();
        let externals: HashMap<&str, EmployeeId> = entries
            .filter_map(|entry| Some((entry.external_id.as_deref()?, entry.employee)))
            .collect();
        let by_id = |row: &'a RosterRow| {
            Some((*externals.get(row.external_id.as_deref()?)?, row.name.as_str()))
        };
        let mut draft = Self {
            existing,
            options,
            now,
            work: Vec::new(),
            of: HashMap::new(),
            near: HashMap::new(),
            renamed: rows.iter().filter_map(by_id).collect(),
            externals,
            rows,
            faults: Faults::default(),
            warnings: Faults::default(),
        };
        for row in rows {
            let taken = draft.whom(row).and_then(|whom| draft.row(row, whom));
            if let Err(what) = taken {
                draft.faults.add(row.row, what);
            }
        }
        draft
    }

    /// By external id; else who holds the badge and bears the name, or did until they left.
    fn whom(&self, row: &RosterRow) -> Result<Whom, String> {
        let external = row.external_id.as_deref();
        if let Some(employee) = external.and_then(|id| self.externals.get(id)) {
            return Ok(Whom::Known(*employee));
        }
        let Some(badge) = row.badge.as_deref() else { return Ok(Whom::New) };
        let of_number = self.existing.of_number(badge);
        let going_on: Vec<&HoldingRow> = of_number.filter(|it| it.goes_on(self.now)).collect();
        if let Some(held) = going_on.iter().find(|held| self.is_meant(row, held.employee)) {
            return Ok(Whom::Known(held.employee));
        }
        let last = self.existing.of_number(badge).max_by_key(|held| held.until);
        let last = last.filter(|held| going_on.is_empty() && self.is_meant(row, held.employee));
        match last {
            None => Ok(Whom::New),
            Some(held) if self.left(held.employee).is_some() => Ok(Whom::Known(held.employee)),
            Some(held) => Err(format!(
                "badge {badge} was {}'s until {}; a new person of that name would be made. Issue \
                 it to them again with `employee badge issue`, or give this row an external_id",
                row.name,
                held.until.unwrap_or_default(),
            )),
        }
    }

    /// Whether a row may mean who holds its badge: it bears the name, or the one that another row
    /// gives them, and no ids tell them apart.
    fn is_meant(&self, row: &RosterRow, employee: EmployeeId) -> bool {
        let Some(entry) = self.existing.entries.get(&employee) else { return false };
        let another = row.external_id.is_some() && entry.external_id.is_some();
        let renamed = self.renamed.get(&employee).is_some_and(|name| same_name(name, &row.name));
        !another && (renamed || same_name(&entry.name, &row.name))
    }

    /// When somebody left, if they are gone by now.
    pub(super) fn left(&self, employee: EmployeeId) -> Option<Time> {
        let known = self.existing.employees.get(&employee)?;
        known.aggregate.employment().departed_at().filter(|left| *left <= self.now)
    }

    fn row(&mut self, row: &'a RosterRow, whom: Whom) -> Result<(), String> {
        let site = self
            .existing
            .site(&row.site)
            .ok_or("`site` is neither the name nor the id of a site; `site list` shows them")?;
        let rules = self.existing.rules.get(&site).cloned().unwrap_or_default();
        let from = self.options.from.map(|from| from.begins(&rules));
        let mut work = match whom {
            Whom::Known(employee) => self.known(row, employee)?,
            Whom::New => self.newcomer(row, site, from),
        };
        let mut since = from;
        if let Some(left) = self.left(work.employee) {
            let back = row.returned.or(self.options.returned).map(|back| back.begins(&rules));
            let back = back.ok_or_else(|| {
                format!(
                    "{} left at {left}, and nothing says that they came back: say since when in a \
                     column `returned`, with `--return DAY`, or with `employee return`",
                    work.before.as_ref().map_or("the employee", |entry| &entry.name),
                )
            })?;
            let returned = work.now.decide(EmployeeCommand::Return { at: back });
            work.take(returned.map_err(|refused| refused.to_string())?);
            work.what.push(format!("comes back at {back}"));
            since = since.or(Some(back));
        }
        if work.begins.is_none() {
            self.assign(&mut work, row, site, from)?;
        }
        self.directory(&mut work, row);
        let gives_up = match &row.badge {
            Some(badge) => self.badge(&mut work, (row, badge), (site, &rules), since)?,
            None => None,
        };
        self.add(row, site, work, gives_up);
        Ok(())
    }

    fn known(&self, row: &RosterRow, employee: EmployeeId) -> Result<Work, String> {
        // They may have given a badge up to another row.
        let work = self.work_of(employee);
        match work.row {
            Some(earlier) => Err(format!("it means the same employee as row {earlier}")),
            None => Ok(Work { row: Some(row.row), ..work }),
        }
    }

    /// Somebody known, as they stand or as the rows so far make them.
    pub(super) fn work_of(&self, employee: EmployeeId) -> Work {
        if let Some(at) = self.of.get(&employee) {
            return self.work[*at].clone();
        }
        let loaded = self.existing.employees.get(&employee);
        let before = self.existing.entries.get(&employee).cloned();
        let sequence = loaded.map_or(0, |loaded| loaded.sequence);
        let now = loaded.map(|loaded| loaded.aggregate.clone()).unwrap_or_default();
        Work { employee, now, sequence, before, ..Work::default() }
    }

    fn newcomer(&mut self, row: &RosterRow, site: SiteId, from: Option<Time>) -> Work {
        self.warn_of_namesakes(row, site);
        let employee = EmployeeId(Uuid::now_v7());
        let mut work = Work { employee, ..Work::default() };
        for event in crate::people::staff::registered(site, vec![], from) {
            work.now.apply(event);
        }
        work.begins = Some((site, from));
        work.row = Some(row.row);
        let since = from.map(|from| format!(" from {from}")).unwrap_or_default();
        work.what.push(format!("new, works at {}{since}", row.site));
        work
    }

    fn warn_of_namesakes(&mut self, row: &RosterRow, site: SiteId) {
        for employee in self.existing.named.get(&name_key(&row.name)).into_iter().flatten() {
            let Some(known) = self.existing.employees.get(employee) else { continue };
            let works = known.aggregate.assignments().open().any(|at| at == site);
            let what = match self.left(*employee) {
                Some(left) => format!(
                    "somebody of that name left at {left}; a new person is made. If they came \
                     back, use their badge or external_id, and `returned` or `employee return`"
                ),
                None if works => "somebody of that name works at that site already, with another \
                     badge; a new person is made. If it is one person, issue the second badge \
                     with `employee badge issue`"
                    .to_owned(),
                None => continue,
            };
            self.warnings.add(row.row, what);
        }
    }

    /// An assignment that stands is left, unless it is said when it began; one that ended doesn't
    /// begin again unsaid.
    fn assign(
        &self,
        work: &mut Work,
        row: &RosterRow,
        site: SiteId,
        from: Option<Time>,
    ) -> Result<(), String> {
        let latest = work.now.assignments().latest(site).copied();
        let goes_on = |until: Option<Time>| until.is_none_or(|until| until > self.now);
        match latest {
            Some(latest) if from.is_none() && goes_on(latest.until) => return Ok(()),
            Some(latest) if from.is_none() => {
                return Err(format!(
                    "they no longer work at {} since {}; say with `--from DAY` from when they do \
                     again",
                    row.site,
                    latest.until.unwrap_or_default(),
                ));
            }
            _ => {}
        }
        let command = EmployeeCommand::AssignToSite { site, from };
        let events = work.now.decide(command).map_err(|refused| refused.to_string())?;
        if !events.is_empty() {
            let since = from.map(|from| format!(" from {from}")).unwrap_or_default();
            work.what.push(format!("works at {}{since}", row.site));
        }
        work.take(events);
        Ok(())
    }

    /// What the directory has of them afterwards. An empty cell leaves what is there, and a name
    /// changes only where an id says who is meant.
    fn directory(&self, work: &mut Work, row: &RosterRow) {
        let before = work.before.as_ref();
        let by_id = row.external_id.is_some()
            && before.is_none_or(|entry| entry.external_id == row.external_id);
        let name = match before {
            Some(entry) if !by_id => entry.name.clone(),
            _ => row.name.clone(),
        };
        let mut what = Vec::new();
        if let Some(entry) = before.filter(|entry| entry.name != name) {
            what.push(format!("renamed from {} to {name}", entry.name));
        }
        let had = before.and_then(|entry| entry.external_id.clone());
        let external_id = row.external_id.clone().or_else(|| had.clone());
        if let (Some(id), Some(_)) = (external_id.as_ref().filter(|_| had != external_id), before) {
            what.push(format!("external id {id}"));
        }
        let pin_phc = before.and_then(|entry| entry.pin_phc.clone());
        work.after = Some(Entry { employee: work.employee, name, pin_phc, external_id });
        work.what.extend(what);
        work.has_pin = row.pin.is_some();
    }

    fn add(&mut self, row: &'a RosterRow, site: SiteId, work: Work, gives_up: Option<Work>) {
        if let Some(badge) = row.badge.as_deref() {
            self.near.entry((site, without_zeros(badge))).or_insert((row.row, badge));
        }
        for work in [Some(work), gives_up].into_iter().flatten() {
            match self.of.entry(work.employee) {
                Place::Occupied(at) => self.work[*at.get()] = work,
                Place::Vacant(at) => {
                    at.insert(self.work.len());
                    self.work.push(work);
                }
            }
        }
    }

    /// The PINs that the rows bring, in the order of the work.
    pub(super) fn pins(&self) -> Vec<Wanted> {
        let by_row: HashMap<u64, &RosterRow> = self.rows.iter().map(|row| (row.row, row)).collect();
        let with_pin = self.work.iter().filter(|work| work.has_pin);
        with_pin
            .filter_map(|work| {
                let pin = by_row.get(&work.row?)?.pin.clone()?;
                let kept = work.before.as_ref().and_then(|entry| entry.pin_phc.clone());
                Some(Wanted { pin, kept })
            })
            .collect()
    }

    /// `hashed` stands for [`Self::pins`], in order; none where the PIN is unchanged.
    pub(super) fn finish(mut self, hashed: Vec<Option<String>>) -> Result<Plan, ImportError> {
        let with_pin = self.work.iter_mut().filter(|work| work.has_pin);
        for (work, phc) in with_pin.zip(hashed) {
            if let (Some(after), Some(phc)) = (&mut work.after, phc) {
                after.pin_phc = Some(phc);
                if work.before.is_some() {
                    work.what.push("another PIN".to_owned());
                }
            }
        }
        parts::plan(self.work, self.options.dry_run)
    }
}
