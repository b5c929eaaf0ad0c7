//! What an import would do, worked out in memory: who each row means, what changes of whom, and
//! which rows can't be.

use std::collections::{HashMap, HashSet};

use punchtrail_domain::employee::{DirectoryField, Employee, EmployeeCommand, EmployeeEvent};
use punchtrail_protocol::{EmployeeId, SiteId};
use uuid::Uuid;

use crate::{
    ledger::{Ledger, Loaded, StreamAppend, load},
    people::directory::EmployeeEntry as Entry,
};

use super::{ImportError, Imported, RosterRow, directory, file::Faults, pins::Wanted};

/// How many employees are loaded at a time.
const LOAD_EMPLOYEES_MAX: usize = 5_000;

/// What stands already, as far as the rows can touch it.
#[derive(Default)]
pub(super) struct Existing {
    pub sites: HashMap<String, SiteId>,
    pub entries: Vec<Entry>,
    pub employees: HashMap<EmployeeId, Loaded<Employee>>,
}

impl Existing {
    pub(super) async fn read(ledger: &Ledger, rows: &[RosterRow]) -> Result<Self, ImportError> {
        let sites = directory::sites(ledger.pool()).await?;
        let entries = directory::entries(ledger.pool(), rows).await?;
        let mut employees = HashMap::with_capacity(entries.len());
        for chunk in entries.chunks(LOAD_EMPLOYEES_MAX) {
            let ids: Vec<String> = chunk.iter().map(|entry| entry.employee.to_string()).collect();
            let loaded = load::<Employee>(ledger.pool(), &ids).await?;
            employees.extend(
                loaded.into_iter().filter_map(|(id, loaded)| Some((id.parse().ok()?, loaded))),
            );
        }
        Ok(Self { sites, entries, employees })
    }

    fn site(&self, text: &str) -> Option<SiteId> {
        let by_id = || {
            let id: SiteId = text.parse().ok()?;
            self.sites.values().find(|site| **site == id).copied()
        };
        self.sites.get(text).copied().or_else(by_id)
    }
}

/// One row that can be: whom it means and what it would leave in the directory.
struct Change<'a> {
    row: &'a RosterRow,
    site: SiteId,
    before: Option<&'a Entry>,
    loaded: Option<&'a Loaded<Employee>>,
    after: Entry,
}

/// An import before its PINs are hashed. Every row can be.
pub(super) struct Draft<'a> {
    changes: Vec<Change<'a>>,
}

/// An import ready to be appended.
#[derive(Default)]
pub(super) struct Plan {
    pub streams: Vec<StreamAppend>,
    pub entries: Vec<Entry>,
    pub counts: Imported,
}

impl<'a> Draft<'a> {
    pub(super) fn new(rows: &'a [RosterRow], existing: &'a Existing) -> Result<Self, ImportError> {
        let by_badge: HashMap<&str, &Entry> =
            existing.entries.iter().filter_map(|e| Some((e.badge.as_deref()?, e))).collect();
        let by_external: HashMap<&str, &Entry> =
            existing.entries.iter().filter_map(|e| Some((e.external_id.as_deref()?, e))).collect();
        let mut faults = Faults::default();
        let mut changes = Vec::with_capacity(rows.len());
        let mut meant: HashMap<EmployeeId, u64> = HashMap::with_capacity(rows.len());
        for row in rows {
            let before = whom(row, &by_badge, &by_external);
            if let Some(earlier) = before.and_then(|e| meant.insert(e.employee, row.row)) {
                faults.add(row.row, format!("it means the same employee as row {earlier}"));
            }
            match change(row, before, existing) {
                Ok(change) => changes.push(change),
                Err(what) => faults.add(row.row, what),
            }
        }
        refuse_taken_badges(&changes, &by_badge, &mut faults);
        faults.none_or(Self { changes })
    }

    /// The PINs that the rows bring, in the order of the rows.
    pub(super) fn pins(&self) -> Vec<Wanted> {
        self.changes
            .iter()
            .filter_map(|change| {
                let pin = change.row.pin.clone()?;
                let kept = change.before.and_then(|entry| entry.pin_phc.clone());
                Some(Wanted { pin, kept })
            })
            .collect()
    }

    /// `hashed` stands for [`Self::pins`], in order; none where the PIN is unchanged.
    pub(super) fn finish(self, hashed: Vec<Option<String>>) -> Plan {
        let mut hashed = hashed.into_iter();
        let mut plan = Plan::default();
        plan.counts.rows = self.changes.len() as u64;
        for mut change in self.changes {
            if change.row.pin.is_some()
                && let Some(phc) = hashed.next().flatten()
            {
                change.after.pin_phc = Some(phc);
            }
            plan.take(change);
        }
        plan.counts.imported = plan.counts.created + plan.counts.updated;
        plan
    }
}

impl Plan {
    fn take(&mut self, change: Change<'_>) {
        let Change { site, before, loaded, after, .. } = change;
        let fields = changed_fields(before, &after);
        let employee = loaded.map(|loaded| loaded.aggregate.clone()).unwrap_or_default();
        let commands = if employee.is_registered() {
            vec![
                EmployeeCommand::ChangeDirectory { fields: fields.clone() },
                EmployeeCommand::AssignToSite { site },
            ]
        } else {
            vec![EmployeeCommand::Register { site, fields: fields.clone() }]
        };
        // The draft refused the rows whose commands an employee refuses.
        let events: Vec<EmployeeEvent> = commands
            .into_iter()
            .flat_map(|command| employee.decide(command).unwrap_or_default())
            .collect();
        if events.is_empty() {
            self.counts.unchanged += 1;
            return;
        }
        if employee.is_registered() {
            self.counts.updated += 1;
        } else {
            self.counts.created += 1;
        }
        let sequence = loaded.map_or(0, |loaded| loaded.sequence);
        self.streams.push(StreamAppend::of(after.employee, sequence, &events));
        if !fields.is_empty() {
            self.entries.push(after);
        }
    }
}

/// By external id; else by badge, unless its holder has another external id: then the badge was
/// handed to somebody else.
fn whom<'a>(
    row: &RosterRow,
    by_badge: &HashMap<&str, &'a Entry>,
    by_external: &HashMap<&str, &'a Entry>,
) -> Option<&'a Entry> {
    let external = row.external_id.as_deref();
    external.and_then(|id| by_external.get(id).copied()).or_else(|| {
        let holder = by_badge.get(row.badge.as_deref()?).copied()?;
        let another = external.is_some() && holder.external_id.is_some();
        (!another).then_some(holder)
    })
}

fn change<'a>(
    row: &'a RosterRow,
    before: Option<&'a Entry>,
    existing: &'a Existing,
) -> Result<Change<'a>, String> {
    let site = existing
        .site(&row.site)
        .ok_or("`site` is neither the name nor the id of a site; `site list` shows them")?;
    let loaded = before.and_then(|entry| existing.employees.get(&entry.employee));
    if let Some(loaded) = loaded {
        loaded
            .aggregate
            .decide(EmployeeCommand::AssignToSite { site })
            .map_err(|refused| refused.to_string())?;
    }
    let kept = |given: &Option<String>, of: fn(&Entry) -> &Option<String>| {
        given.clone().or_else(|| before.and_then(|entry| of(entry).clone()))
    };
    let after = Entry {
        employee: before.map_or_else(|| EmployeeId(Uuid::now_v7()), |entry| entry.employee),
        badge: kept(&row.badge, |entry| &entry.badge),
        name: row.name.clone(),
        pin_phc: kept(&None, |entry| &entry.pin_phc),
        external_id: kept(&row.external_id, |entry| &entry.external_id),
    };
    Ok(Change { row, site, before, loaded, after })
}

fn changed_fields(before: Option<&Entry>, after: &Entry) -> Vec<DirectoryField> {
    let was = |of: fn(&Entry) -> Option<&String>| before.and_then(of);
    [
        (DirectoryField::Badge, was(|e| e.badge.as_ref()) != after.badge.as_ref()),
        (DirectoryField::Name, was(|e| Some(&e.name)) != Some(&after.name)),
        (DirectoryField::Pin, was(|e| e.pin_phc.as_ref()) != after.pin_phc.as_ref()),
        (DirectoryField::ExternalId, was(|e| e.external_id.as_ref()) != after.external_id.as_ref()),
    ]
    .into_iter()
    .filter_map(|(field, changed)| changed.then_some(field))
    .collect()
}

/// A badge is one person's: who holds one that a row gives to another must get another one in the
/// same file.
fn refuse_taken_badges(
    changes: &[Change<'_>],
    by_badge: &HashMap<&str, &Entry>,
    faults: &mut Faults,
) {
    let giving_up: HashSet<EmployeeId> = changes
        .iter()
        .filter(|change| change.before.is_some_and(|entry| entry.badge != change.after.badge))
        .map(|change| change.after.employee)
        .collect();
    for change in changes {
        let holder = change.after.badge.as_deref().and_then(|badge| by_badge.get(badge));
        let taken = holder.is_some_and(|holder| {
            holder.employee != change.after.employee && !giving_up.contains(&holder.employee)
        });
        if taken {
            let what = "`badge` belongs to another employee; give that one another badge first";
            faults.add(change.row.row, what.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cqrs_es::Aggregate as _;

    use crate::people::import::parse;

    const SITE: SiteId = SiteId(Uuid::from_u128(9));

    fn entry(id: u128, badge: &str, external_id: Option<&str>) -> Entry {
        Entry {
            employee: EmployeeId(Uuid::from_u128(id)),
            badge: Some(badge.to_owned()),
            name: "Ada".to_owned(),
            pin_phc: None,
            external_id: external_id.map(str::to_owned),
        }
    }

    fn existing(entries: Vec<Entry>) -> Existing {
        let employees = entries
            .iter()
            .map(|entry| {
                let mut aggregate = Employee::default();
                let register = EmployeeCommand::Register { site: SITE, fields: vec![] };
                for event in aggregate.decide(register).unwrap() {
                    aggregate.apply(event);
                }
                (entry.employee, Loaded { aggregate, sequence: 3, position: None })
            })
            .collect();
        Existing { sites: HashMap::from([("Mill".to_owned(), SITE)]), entries, employees }
    }

    fn plan(text: &str, existing: &Existing) -> Result<Plan, Vec<(u64, String)>> {
        let rows = parse(text.as_bytes()).unwrap();
        match Draft::new(&rows, existing) {
            Ok(draft) => Ok(draft.finish(Vec::new())),
            Err(ImportError::Rows { faults, .. }) => {
                Err(faults.into_iter().map(|fault| (fault.row, fault.what)).collect())
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn counts(plan: &Plan) -> [u64; 3] {
        [plan.counts.created, plan.counts.updated, plan.counts.unchanged]
    }

    #[test]
    fn new_changed_and_unchanged_are_told_apart() {
        let existing = existing(vec![entry(1, "17", None), entry(2, "18", None)]);
        let text = "badge,name,pin,site\n17,Ada,,Mill\n18,Bo,,Mill\n\
                    19,Cy,,00000000-0000-0000-0000-000000000009\n";
        let plan = plan(text, &existing).unwrap();
        assert_eq!(counts(&plan), [1, 1, 1]);
        assert_eq!(plan.streams[0].expected, 3);
        assert_eq!(
            plan.streams[0].events[0].payload,
            r#"{"DirectoryChanged":{"fields":["name"]}}"#
        );
        assert_eq!(plan.streams[1].expected, 0);
        assert_eq!(plan.streams[1].events.len(), 3);
    }

    #[test]
    fn an_external_id_is_stronger_than_a_badge() {
        let existing = existing(vec![entry(1, "17", Some("E-1"))]);
        let plan = plan("badge,name,pin,site,external_id\n20,Ada,,Mill,E-1\n", &existing).unwrap();
        assert_eq!(counts(&plan), [0, 1, 0]);
        assert_eq!(plan.entries[0].badge.as_deref(), Some("20"));
    }

    #[test]
    fn a_badge_can_be_handed_on_within_one_file_and_not_otherwise() {
        let existing = existing(vec![entry(1, "17", Some("E-1")), entry(2, "18", Some("E-2"))]);
        let swap = "badge,name,pin,site,external_id\n18,Ada,,Mill,E-1\n17,Ada,,Mill,E-2\n";
        assert_eq!(counts(&plan(swap, &existing).unwrap()), [0, 2, 0]);
        let taken = "badge,name,pin,site,external_id\n17,Eve,,Mill,E-3\n";
        assert_eq!(plan(taken, &existing).err().unwrap()[0].0, 2);
    }

    #[test]
    fn one_employee_under_two_rows_and_an_unknown_site_are_faults() {
        let existing = existing(vec![entry(1, "17", Some("E-1"))]);
        let text =
            "badge,name,pin,site,external_id\n20,Ada,,Mill,E-1\n17,Ada,,Mill,\n21,Bo,,Hill,\n";
        let faults = plan(text, &existing).err().unwrap();
        assert_eq!(faults.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [3, 4]);
        assert!(faults[0].1.contains("row 2"), "{faults:?}");
    }

    #[test]
    fn an_empty_cell_leaves_what_is_there() {
        let existing = existing(vec![entry(1, "17", Some("E-1"))]);
        let text = "badge,name,pin,site,external_id\n,Ada,,Mill,E-1\n";
        assert_eq!(counts(&plan(text, &existing).unwrap()), [0, 0, 1]);
    }
}
