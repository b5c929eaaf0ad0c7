//! What an import would do, worked out in memory: who each row means, what changes of whom, and
//! which rows can't be.

use std::collections::{HashMap, HashSet};

use punchtrail_domain::employee::{DirectoryField, Employee, EmployeeCommand, EmployeeEvent};
use punchtrail_protocol::{EmployeeId, SiteId};
use uuid::Uuid;

use crate::{
    ledger::{CALLER_EVENTS_MAX, Ledger, Loaded, StreamAppend, load},
    people::directory::EmployeeEntry as Entry,
};

use super::{ImportError, RosterRow, directory, file::Faults, pins::Wanted};

/// How many employees are written at once: each is at most three events, and what one append may
/// bring is limited.
pub const PART_EMPLOYEES_MAX: usize = 5_000;
const _: () = assert!(3 * PART_EMPLOYEES_MAX <= CALLER_EVENTS_MAX);
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
    /// The numbers of the changes, those together that hand on a badge from one to the next.
    together: Vec<Vec<usize>>,
}

/// An import ready to be appended, a part after the other.
#[derive(Default)]
pub(super) struct Plan {
    pub parts: Vec<Part>,
}

/// Employees that are written together.
#[derive(Default)]
pub(super) struct Part {
    pub streams: Vec<StreamAppend>,
    pub entries: Vec<Entry>,
    pub created: u64,
    pub updated: u64,
}

impl Part {
    fn employees(&self) -> usize {
        self.streams.len()
    }
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
        let draft = faults.none_or(Self { together: together(&changes, &by_badge), changes })?;
        match draft.together.iter().map(Vec::len).max() {
            Some(chain) if chain > PART_EMPLOYEES_MAX => Err(ImportError::Entangled { chain }),
            _ => Ok(draft),
        }
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
        let mut changes: Vec<_> = self.changes.into_iter().map(Some).collect();
        for change in changes.iter_mut().flatten() {
            if change.row.pin.is_some()
                && let Some(phc) = hashed.next().flatten()
            {
                change.after.pin_phc = Some(phc);
            }
        }
        let mut part = Part::default();
        for numbers in self.together {
            if part.employees() + numbers.len() > PART_EMPLOYEES_MAX {
                plan.parts.push(std::mem::take(&mut part));
            }
            for number in numbers {
                if let Some(change) = changes[number].take() {
                    part.take(change);
                }
            }
        }
        if part.employees() > 0 {
            plan.parts.push(part);
        }
        plan
    }
}

impl Part {
    fn take(&mut self, change: Change<'_>) {
        let Change { site, before, loaded, after, .. } = change;
        let fields = changed_fields(before, &after);
        let employee = loaded.map(|loaded| loaded.aggregate.clone()).unwrap_or_default();
        let commands = if employee.is_registered() {
            vec![
                EmployeeCommand::ChangeDirectory { fields: fields.clone() },
                EmployeeCommand::AssignToSite { site, from: None },
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
            return;
        }
        if employee.is_registered() {
            self.updated += 1;
        } else {
            self.created += 1;
        }
        let sequence = loaded.map_or(0, |loaded| loaded.sequence);
        self.streams.push(StreamAppend::of(after.employee, sequence, &events));
        if !fields.is_empty() {
            self.entries.push(after);
        }
    }
}

/// Who takes a badge is written together with who gives it up, or the badge would be two people's
/// for a while, or nobody's. A badge has one holder and one taker, so they are chains or rings.
fn together(changes: &[Change<'_>], by_badge: &HashMap<&str, &Entry>) -> Vec<Vec<usize>> {
    let number: HashMap<EmployeeId, usize> =
        changes.iter().enumerate().map(|(n, change)| (change.after.employee, n)).collect();
    let holder = |n: usize| {
        let holder = by_badge.get(changes[n].after.badge.as_deref()?)?;
        number.get(&holder.employee).copied().filter(|other| *other != n)
    };
    let taken: HashSet<usize> = (0..changes.len()).filter_map(holder).collect();
    let mut seen = vec![false; changes.len()];
    let mut follow = |first: usize| -> Vec<usize> {
        let (mut chain, mut next) = (Vec::new(), Some(first));
        while let Some(n) = next.filter(|n| !std::mem::replace(&mut seen[*n], true)) {
            chain.push(n);
            next = holder(n);
        }
        chain
    };
    // Chains from their ends, and then what is left: rings.
    let ends = (0..changes.len()).filter(|n| !taken.contains(n));
    let mut found: Vec<Vec<usize>> = ends.map(&mut follow).collect();
    found.extend((0..changes.len()).map(follow).filter(|ring| !ring.is_empty()));
    found
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
            .decide(EmployeeCommand::AssignToSite { site, from: None })
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

    fn counts(plan: &Plan) -> [u64; 2] {
        let sum = |of: fn(&Part) -> u64| plan.parts.iter().map(of).sum();
        [sum(|part| part.created), sum(|part| part.updated)]
    }

    #[test]
    fn new_changed_and_unchanged_are_told_apart() {
        let existing = existing(vec![entry(1, "17", None), entry(2, "18", None)]);
        let text = "badge,name,pin,site\n17,Ada,,Mill\n18,Bo,,Mill\n\
                    19,Cy,,00000000-0000-0000-0000-000000000009\n";
        let plan = plan(text, &existing).unwrap();
        assert_eq!(counts(&plan), [1, 1]);
        assert_eq!(plan.parts[0].streams[0].expected, 3);
        assert_eq!(
            plan.parts[0].streams[0].events[0].payload,
            r#"{"DirectoryChanged":{"fields":["name"]}}"#
        );
        assert_eq!(plan.parts[0].streams[1].expected, 0);
        assert_eq!(plan.parts[0].streams[1].events.len(), 3);
    }

    #[test]
    fn an_external_id_is_stronger_than_a_badge() {
        let existing = existing(vec![entry(1, "17", Some("E-1"))]);
        let plan = plan("badge,name,pin,site,external_id\n20,Ada,,Mill,E-1\n", &existing).unwrap();
        assert_eq!(counts(&plan), [0, 1]);
        assert_eq!(plan.parts[0].entries[0].badge.as_deref(), Some("20"));
    }

    #[test]
    fn a_badge_can_be_handed_on_within_one_file_and_not_otherwise() {
        let existing = existing(vec![entry(1, "17", Some("E-1")), entry(2, "18", Some("E-2"))]);
        let swap = "badge,name,pin,site,external_id\n18,Ada,,Mill,E-1\n17,Ada,,Mill,E-2\n";
        assert_eq!(counts(&plan(swap, &existing).unwrap()), [0, 2]);
        let taken = "badge,name,pin,site,external_id\n17,Eve,,Mill,E-3\n";
        assert_eq!(plan(taken, &existing).err().unwrap()[0].0, 2);
    }

    /// Everybody takes the badge of the next one; the last of each `ring` that of its first.
    fn handed_on(employees: usize, ring: usize) -> Result<Plan, usize> {
        let id = |n: usize| format!("E-{n}");
        let entries =
            (0..employees).map(|n| entry(n as u128 + 1, &n.to_string(), Some(&id(n)))).collect();
        let rows: String = (0..employees)
            .map(|n| {
                let next = if n % ring == ring - 1 { n + 1 - ring } else { n + 1 };
                format!("{next},Ada,,Mill,{}\n", id(n))
            })
            .collect();
        let rows = parse(format!("badge,name,pin,site,external_id\n{rows}").as_bytes()).unwrap();
        let existing = existing(entries);
        match Draft::new(&rows, &existing) {
            Ok(draft) => Ok(draft.finish(Vec::new())),
            Err(ImportError::Entangled { chain }) => Err(chain),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_part_holds_all_between_whom_badges_are_handed_on() {
        let ring = 3_000;
        let plan = handed_on(4 * ring, ring).unwrap();
        assert_eq!(counts(&plan), [0, 4 * ring as u64]);
        let sizes: Vec<_> = plan.parts.iter().map(Part::employees).collect();
        assert_eq!(sizes, [ring; 4], "two rings are more than a part");
        for part in &plan.parts {
            let mut badges: Vec<_> = part.entries.iter().map(|e| e.badge.clone()).collect();
            let mut ids: Vec<_> = part
                .entries
                .iter()
                .map(|e| Some((e.employee.uuid().as_u128() - 1).to_string()))
                .collect();
            badges.sort();
            ids.sort();
            assert_eq!(badges, ids, "its badges were its people's before");
        }
        assert_eq!(handed_on(PART_EMPLOYEES_MAX + 1, PART_EMPLOYEES_MAX + 1).err(), Some(5_001));
        let alone = handed_on(2 * PART_EMPLOYEES_MAX + 1, 1).unwrap();
        assert_eq!(counts(&alone), [0, 0]);
        assert!(alone.parts.is_empty());
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
        assert_eq!(counts(&plan(text, &existing).unwrap()), [0, 0]);
    }
}
