//! Who is written together, in how many appends, and what is said of it.

use std::collections::HashMap;

use punchtrail_domain::employee::{DirectoryField, EmployeeEvent};
use punchtrail_protocol::EmployeeId;

use super::{ImportError, plan::Work, report::RowChange};
use crate::{
    ledger::{CALLER_EVENTS_MAX, StreamAppend},
    people::{badges::rows::Moves, directory::EmployeeEntry as Entry, staff},
};

/// An import ready to be appended, a part after the other.
#[derive(Default)]
pub(super) struct Plan {
    pub parts: Vec<Part>,
    pub changes: Vec<RowChange>,
    /// Rows that change nothing.
    pub unchanged: u64,
}

/// Employees that are written together.
#[derive(Default)]
pub(super) struct Part {
    pub streams: Vec<StreamAppend>,
    pub entries: Vec<Entry>,
    pub moves: Moves,
    pub created: u64,
    pub updated: u64,
}

impl Part {
    fn take(&mut self, work: Work, events: &[EmployeeEvent]) {
        let Work { employee, sequence, before, after, fresh, .. } = work;
        match sequence {
            0 => self.created += 1,
            _ => self.updated += 1,
        }
        self.streams.push(StreamAppend::of(employee, sequence, events));
        self.moves.take(employee, events, fresh);
        if after.is_some() && after != before {
            self.entries.extend(after);
        }
    }
}

/// Parts of no more events than one append may bring; who hands on a badge and who takes it are in
/// one, or it would be two people's for a while, or nobody's.
pub(super) fn plan(work: Vec<Work>, dry_run: bool) -> Result<Plan, ImportError> {
    let mut plan = Plan::default();
    let groups = together(&work);
    let events: Vec<Vec<EmployeeEvent>> = work.iter().map(events_of).collect();
    for (work, events) in work.iter().zip(&events) {
        plan.tell(work, events.is_empty(), dry_run);
    }
    let mut work: Vec<_> = work.into_iter().map(Some).collect();
    let (mut part, mut in_part) = (Part::default(), 0);
    for group in groups {
        let size: usize = group.iter().map(|at| events[*at].len()).sum();
        if size > CALLER_EVENTS_MAX {
            return Err(ImportError::Entangled { chain: group.len() });
        }
        if in_part + size > CALLER_EVENTS_MAX {
            plan.parts.push(std::mem::take(&mut part));
            in_part = 0;
        }
        for at in group.into_iter().filter(|at| !events[*at].is_empty()) {
            if let Some(work) = work[at].take() {
                part.take(work, &events[at]);
            }
        }
        in_part += size;
    }
    if in_part > 0 {
        plan.parts.push(part);
    }
    Ok(plan)
}

impl Plan {
    fn tell(&mut self, work: &Work, is_unchanged: bool, dry_run: bool) {
        let Some(row) = work.row else { return };
        if is_unchanged {
            self.unchanged += 1;
            return;
        }
        let name = work.before.as_ref().or(work.after.as_ref()).map(|entry| entry.name.clone());
        let unwritten = dry_run && work.sequence == 0;
        self.changes.push(RowChange {
            row,
            employee: (!unwritten).then_some(work.employee),
            name: name.unwrap_or_default(),
            what: work.what.clone(),
        });
    }
}

/// The directory's change stands in front of what rests on somebody's being known.
fn events_of(work: &Work) -> Vec<EmployeeEvent> {
    let fields = match &work.after {
        Some(after) => changed_fields(work.before.as_ref(), after),
        None => Vec::new(),
    };
    let first = match work.begins {
        Some((site, from)) => staff::registered(site, fields, from),
        None if fields.is_empty() => Vec::new(),
        None => vec![EmployeeEvent::DirectoryChanged { fields }],
    };
    first.into_iter().chain(work.events.iter().cloned()).collect()
}

fn changed_fields(before: Option<&Entry>, after: &Entry) -> Vec<DirectoryField> {
    let was = |of: fn(&Entry) -> Option<&String>| before.and_then(of);
    [
        (DirectoryField::Name, was(|e| Some(&e.name)) != Some(&after.name)),
        (DirectoryField::Pin, was(|e| e.pin_phc.as_ref()) != after.pin_phc.as_ref()),
        (DirectoryField::ExternalId, was(|e| e.external_id.as_ref()) != after.external_id.as_ref()),
    ]
    .into_iter()
    .filter_map(|(field, changed)| changed.then_some(field))
    .collect()
}

/// The numbers of the work, those together between whom badges go, in the order of the file.
fn together(work: &[Work]) -> Vec<Vec<usize>> {
    let number: HashMap<EmployeeId, usize> =
        work.iter().enumerate().map(|(n, work)| (work.employee, n)).collect();
    let mut links: Vec<Vec<usize>> = vec![Vec::new(); work.len()];
    for (n, work) in work.iter().enumerate() {
        if let Some(other) = work.with.and_then(|other| number.get(&other)) {
            links[n].push(*other);
            links[*other].push(n);
        }
    }
    let mut seen = vec![false; work.len()];
    let mut groups = Vec::new();
    for first in 0..work.len() {
        let (mut group, mut next) = (Vec::new(), vec![first]);
        while let Some(n) = next.pop() {
            if !std::mem::replace(&mut seen[n], true) {
                group.push(n);
                next.extend(&links[n]);
            }
        }
        if !group.is_empty() {
            groups.push(group);
        }
    }
    groups
}
