//! What rows come to, worked out in memory; and that whatever they say, nobody's hours change name.

#![allow(clippy::unwrap_used, reason = "in a test that is the failure")]

use std::collections::BTreeMap;

use cqrs_es::Aggregate as _;
use proptest::prelude::*;
use punchtrail_domain::{
    employee::{BadgeEnd, Employee, EmployeeCommand, EmployeeEvent},
    site::SiteEvent,
};
use punchtrail_protocol::{EmployeeId, SiteId, Time, spelling::same_name};
use uuid::Uuid;

use super::{Options, RowFault, existing::Existing, file, parts::Plan, plan::Draft};
use crate::{
    ledger::Loaded,
    people::{
        badges::rows::{Fresh, HoldingRow},
        directory::EmployeeEntry as Entry,
        moment::Moment,
        staff::departed,
    },
};

const DAY_MS: i64 = 86_400_000;
const SITES: [(&str, SiteId); 2] =
    [("Mill", SiteId(Uuid::from_u128(1))), ("Hill", SiteId(Uuid::from_u128(2)))];

fn day(number: i64) -> Time {
    Time::from_millis(number * DAY_MS)
}

const NOW_DAY: i64 = 20_000;

/// A directory with its ledger, as it would stand.
#[derive(Clone, Default)]
struct World {
    entries: BTreeMap<EmployeeId, Entry>,
    people: BTreeMap<EmployeeId, Employee>,
    holdings: Vec<HoldingRow>,
}

impl World {
    fn take(&mut self, employee: EmployeeId, events: &[EmployeeEvent], fresh: &[(Fresh, String)]) {
        let person = self.people.entry(employee).or_default();
        for event in events {
            person.apply(event.clone());
            match event {
                EmployeeEvent::BadgeIssued { holding, from } => {
                    let known = self.holdings.iter_mut().find(|row| row.holding == *holding);
                    if let Some(row) = known {
                        row.until = None;
                        continue;
                    }
                    let number = fresh.iter().find(|(fresh, _)| fresh.holding == *holding);
                    let number = number.unwrap().1.clone();
                    let (holding, from, until) = (*holding, Some(*from), None);
                    self.holdings.push(HoldingRow { holding, employee, number, from, until });
                }
                EmployeeEvent::BadgeEnded { holding, until, .. } => {
                    let row = self.holdings.iter_mut().find(|row| row.holding == *holding);
                    row.unwrap().until = Some(*until);
                }
                _ => {}
            }
        }
        self.holdings.sort_by_key(|row| row.from);
    }

    fn hire(&mut self, name: &str, site: SiteId, badge: Option<&str>, external_id: Option<&str>) {
        let employee = EmployeeId(Uuid::from_u128(self.entries.len() as u128 + 10));
        let mut events = crate::people::staff::registered(site, vec![], None);
        let fresh: Vec<_> = badge.map(|it| (Fresh::of(it), it.to_owned())).into_iter().collect();
        events.extend(fresh.iter().map(|(fresh, _)| {
            let (holding, from) = (fresh.holding, Time::default());
            EmployeeEvent::BadgeIssued { holding, from }
        }));
        self.take(employee, &events, &fresh);
        let (name, external_id) = (name.to_owned(), external_id.map(str::to_owned));
        self.entries.insert(employee, Entry { employee, name, pin_phc: None, external_id });
    }

    fn command(&mut self, employee: EmployeeId, command: EmployeeCommand) {
        let events = self.people[&employee].decide(command).unwrap_or_default();
        self.take(employee, &events, &[]);
    }

    fn depart(&mut self, employee: EmployeeId, at: Time) {
        let of_numbers = &self.holdings;
        let badges: Vec<HoldingRow> =
            of_numbers.iter().filter(|row| row.employee == employee).cloned().collect();
        let events = departed(&self.people[&employee], (&badges, of_numbers), at);
        self.take(employee, &events.unwrap_or_default(), &[]);
    }

    fn existing(&self) -> Existing {
        let mut existing = Existing::default();
        for (name, site) in SITES {
            existing.sites.insert(name.to_owned(), site);
            let rules = existing.rules.entry(site).or_default();
            rules.evolve(&SiteEvent::Registered { tz: "UTC".to_owned() });
        }
        for row in &self.holdings {
            existing.holds(row.clone());
            existing.badges.entry(row.employee).or_default().push(row.clone());
        }
        for (employee, entry) in &self.entries {
            existing.entries.insert(*employee, entry.clone());
            let key = punchtrail_protocol::spelling::name_key(&entry.name);
            existing.named.entry(key).or_default().push(*employee);
            let aggregate = self.people[employee].clone();
            existing.knows(*employee, Loaded { aggregate, sequence: 3, position: None });
        }
        existing
    }

    /// Imports a file if it has no fault; what is wrong with it, and what is strange.
    fn import(&mut self, text: &str, options: &Options) -> (Vec<RowFault>, Vec<RowFault>) {
        let roster = file::parse(text.as_bytes()).unwrap();
        let existing = self.existing();
        let mut draft = Draft::new(&roster.rows, &existing, options, day(NOW_DAY));
        draft.faults.extend(roster.faults);
        draft.warnings.extend(roster.warnings);
        let (faults, _) = std::mem::take(&mut draft.faults).into_parts();
        let (warnings, _) = std::mem::take(&mut draft.warnings).into_parts();
        if !faults.is_empty() {
            return (faults, warnings);
        }
        let work = draft.work.clone();
        let Plan { parts, .. } = draft.finish(Vec::new()).unwrap();
        for stream in parts.iter().flat_map(|part| &part.streams) {
            let employee: EmployeeId = stream.aggregate_id.parse().unwrap();
            let events: Vec<EmployeeEvent> = stream
                .events
                .iter()
                .map(|event| serde_json::from_str(&event.payload).unwrap())
                .collect();
            let of = work.iter().find(|work| work.employee == employee).unwrap();
            let number = |fresh: &Fresh| {
                let row = roster.rows.iter().find(|row| Some(row.row) == of.row).unwrap();
                (fresh.clone(), row.badge.clone().unwrap())
            };
            let fresh: Vec<_> = of.fresh.iter().map(number).collect();
            self.take(employee, &events, &fresh);
        }
        for entry in parts.into_iter().flat_map(|part| part.entries) {
            self.entries.insert(entry.employee, entry);
        }
        (faults, warnings)
    }

    fn holder(&self, number: &str, at: Time) -> Option<EmployeeId> {
        let held = self.holdings.iter().filter(|row| {
            let begun = row.from.is_none_or(|from| from <= at);
            row.number == number && begun && row.goes_on(at)
        });
        let held: Vec<_> = held.collect();
        assert!(held.len() < 2, "badge {number} is two people's at {at}");
        held.first().map(|row| row.employee)
    }

    fn named(&self, name: &str) -> Vec<EmployeeId> {
        let named = self.entries.values().filter(|entry| same_name(&entry.name, name));
        named.map(|entry| entry.employee).collect()
    }
}

const HEAD: &str = "badge,name,pin,site,external_id,returned\n";

fn lines(faults: &[RowFault]) -> Vec<u64> {
    faults.iter().map(|fault| fault.row).collect()
}

fn imported(world: &mut World, rows: &str, options: &Options) -> (Vec<RowFault>, Vec<RowFault>) {
    world.import(&format!("{HEAD}{rows}"), options)
}

#[test]
fn a_row_is_who_holds_the_badge_and_bears_the_name() {
    let mut world = World::default();
    world.hire("José García", SITES[0].1, Some("17"), None);
    let (faults, _) = imported(&mut world, "17,JOSE  garcia,,Mill,,\n", &Options::default());
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(world.entries.len(), 1);
    assert_eq!(world.entries.values().next().unwrap().name, "José García");
    let (faults, _) = imported(&mut world, "17,Eve,,Hill,,\n", &Options::default());
    assert!(faults[0].what.contains("José García"), "{faults:?}");
    let (faults, _) = imported(&mut world, "17,Eve,,Hill,E-9,\n", &Options::default());
    assert_eq!(lines(&faults), [2], "an id of one's own makes no badge free");
}

#[test]
fn a_badge_that_changed_hands_stays_the_first_ones_before_that() {
    let mut world = World::default();
    world.hire("Ada", SITES[0].1, Some("17"), None);
    let reissue = Options { reissue: Some(Moment::At(day(100))), ..Options::default() };
    let (faults, _) = imported(&mut world, "17,Bo,,Mill,,\n", &reissue);
    assert!(faults.is_empty(), "{faults:?}");
    let (ada, bo) = (world.named("Ada")[0], world.named("Bo")[0]);
    assert_eq!(world.holder("17", day(99)), Some(ada));
    assert_eq!(world.holder("17", day(100)), Some(bo));
    let ended = world.people[&ada].badges().all()[0].because;
    assert_eq!(ended, Some(BadgeEnd::Reissued));
    let before = world.holdings.len();
    let (faults, _) = imported(&mut world, "17,Bo,,Mill,,\n", &reissue);
    assert!(faults.is_empty() && world.holdings.len() == before, "again is nothing");
}

#[test]
fn badges_that_swap_owners_are_one_change() {
    let mut world = World::default();
    world.hire("Ada", SITES[0].1, Some("17"), Some("E-1"));
    world.hire("Bo", SITES[0].1, Some("18"), Some("E-2"));
    let rows = "18,Ada,,Mill,E-1,\n17,Bo,,Mill,E-2,\n";
    let (faults, _) = imported(&mut world, rows, &Options::default());
    assert_eq!(lines(&faults), [2, 3]);
    let reissue = Options { reissue: Some(Moment::At(day(100))), ..Options::default() };
    let (faults, _) = imported(&mut world, rows, &reissue);
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(world.holder("17", day(200)), Some(world.named("Bo")[0]));
    assert_eq!(world.holder("18", day(200)), Some(world.named("Ada")[0]));
}

#[test]
fn a_leavers_badge_is_free_and_the_leaver_needs_a_word_to_come_back() {
    let mut world = World::default();
    world.hire("Ada", SITES[0].1, Some("17"), None);
    let ada = world.named("Ada")[0];
    world.depart(ada, day(100));
    let (faults, _) = imported(&mut world, "17,Ada,,Mill,,\n", &Options::default());
    assert_eq!(lines(&faults), [2]);
    let mut back = world.clone();
    let (faults, _) = imported(&mut back, "17,Ada,,Mill,,1970-06-01\n", &Options::default());
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(back.holder("17", day(152)), Some(ada));
    assert_eq!(back.holder("17", day(150)), None);
    let (faults, _) = imported(&mut world, "17,Bo,,Mill,,\n", &Options::default());
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(world.holder("17", day(99)), Some(ada));
    assert_eq!(world.holder("17", day(100)), Some(world.named("Bo")[0]));
    let (faults, warnings) = imported(&mut world, "88,Ada,,Mill,,\n", &Options::default());
    assert!(faults.is_empty() && warnings[0].what.contains("left"), "{warnings:?}");
}

#[test]
fn lost_zeros_are_refused_at_that_site_and_of_that_person() {
    let mut world = World::default();
    world.hire("Ada", SITES[0].1, Some("0071"), None);
    world.hire("Bo", SITES[1].1, Some("0072"), Some("E-2"));
    for (rows, wrong) in [
        ("71,Ada,,Mill,,\n", vec![2]),
        ("00071,Cy,,Mill,,\n", vec![2]),
        ("71,Cy,,Hill,,\n", vec![]),
        ("72,Bo,,Mill,E-2,\n", vec![2]),
        ("081,Di,,Mill,,\n81,Ed,,Mill,,\n", vec![3]),
        ("0071,Ada,,Mill,,\n71,Ed,,Mill,,\n", vec![3]),
    ] {
        let (faults, _) = imported(&mut world.clone(), rows, &Options::default());
        assert_eq!(lines(&faults), wrong, "{rows}: {faults:?}");
    }
}

#[test]
fn only_an_id_renames_and_only_its_own_person() {
    let mut world = World::default();
    world.hire("Ada", SITES[0].1, Some("17"), Some("E-1"));
    let (faults, _) = imported(&mut world, "17,Ada Lovelace,,Mill,E-1,\n", &Options::default());
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(world.named("Ada Lovelace").len(), 1);
    let rows = "17,Ada Lovelace,,Mill,,\n20,Ada Lovelace,,Mill,E-1,\n";
    let (faults, _) = imported(&mut world, rows, &Options::default());
    assert_eq!(lines(&faults), [3]);
    assert!(faults[0].what.contains("row 2"), "{faults:?}");
}

#[test]
fn a_row_means_whom_another_row_renames_the_same_the_first_time_and_again() {
    let mut world = World::default();
    world.hire("Ada", SITES[0].1, Some("17"), Some("E-1"));
    let later = Options { reissue: Some(Moment::At(day(NOW_DAY + 1))), ..Options::default() };
    for rows in [",Bo,,Mill,E-1,\n17,Bo,,Mill,,\n", "17,Bo,,Mill,,\n,Bo,,Mill,E-1,\n"] {
        let (faults, _) = imported(&mut world.clone(), rows, &later);
        assert_eq!(lines(&faults), [3], "{rows}");
        assert!(faults[0].what.contains("same employee as row 2"), "{faults:?}");
    }
}

#[test]
fn an_assignment_begins_as_said_and_again_only_when_said() {
    let mut world = World::default();
    world.hire("Ada", SITES[0].1, Some("17"), None);
    let ada = world.named("Ada")[0];
    let from = Options { from: Some(Moment::At(day(50))), ..Options::default() };
    let (faults, _) = imported(&mut world, "17,Ada,,Hill,,\n", &from);
    assert!(faults.is_empty(), "{faults:?}");
    let works = |world: &World, at| world.people[&ada].assignments().holds_at(SITES[1].1, at);
    assert!(works(&world, day(50)) && !works(&world, day(49)));
    let (faults, _) = imported(&mut world, "17,Ada,,Hill,,\n", &Options::default());
    assert!(faults.is_empty() && !works(&world, day(49)), "as it stands");
    let command = EmployeeCommand::UnassignFromSite { site: SITES[1].1, until: day(60) };
    world.command(ada, command);
    let (faults, _) = imported(&mut world, "17,Ada,,Hill,,\n", &Options::default());
    assert_eq!(lines(&faults), [2]);
    let again = Options { from: Some(Moment::At(day(70))), ..Options::default() };
    assert!(imported(&mut world, "17,Ada,,Hill,,\n", &again).0.is_empty());
    assert!(works(&world, day(55)) && !works(&world, day(65)) && works(&world, day(75)));
}

/// One row of a random file: badge, name, site, external id, whether they are back.
type Row = (u8, u8, bool, u8, bool);

fn random_row((badge, name, site, external, back): Row) -> String {
    let badge = match badge {
        0 => String::new(),
        1..=3 => format!("0{badge}"),
        _ => badge.to_string(),
    };
    let name = ["Ada", "ADA", "Bo", "Cy", "Dé", "De"][usize::from(name)];
    let external = if external == 0 { String::new() } else { format!("E-{external}") };
    let back = if back { "2024-01-01" } else { "" };
    format!("{badge},{name},,{},{external},{back}\n", if site { "Mill" } else { "Hill" })
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0_u8..7, 0_u8..6, any::<bool>(), 0_u8..4, any::<bool>());
    prop::collection::vec(row, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whoever punched with a badge is who punched with it, whatever is imported, in whatever
    /// order; and bears the same name, unless a row with their id gives them another.
    #[test]
    fn nobodys_hours_change_name(
        files in prop::collection::vec((rows(), prop::option::of(1_i64..30_000)), 1..5),
        leaves in prop::collection::vec((0_usize..8, 1_i64..30_000), 0..4),
    ) {
        let mut world = World::default();
        let mut leaves = leaves.into_iter();
        for (rows, reissue) in files {
            let rows: String = rows.into_iter().map(random_row).collect();
            let at = reissue.map(day);
            let reissue = at.map(Moment::At);
            let before = world.clone();
            let options = Options { reissue, ..Options::default() };
            let (faults, _) = imported(&mut world, &rows, &options);
            for number in 1..7 {
                for number in [format!("0{number}"), number.to_string()] {
                    for at_day in (0..30_000).step_by(997) {
                        let held = before.holder(&number, day(at_day));
                        let holds = world.holder(&number, day(at_day));
                        let handed_on = at.is_some_and(|at| at <= day(at_day));
                        prop_assert!(
                            held.is_none() || holds == held || handed_on,
                            "badge {number} on day {at_day} after {rows}"
                        );
                    }
                }
            }
            for (employee, entry) in &before.entries {
                let now = &world.entries[employee];
                prop_assert!(entry.external_id.is_none() || now.external_id == entry.external_id);
                let renamed = entry.external_id.as_ref().is_some_and(|id| rows.contains(&**id));
                prop_assert!(now.name == entry.name || renamed, "{rows}");
            }
            if faults.is_empty() {
                let once = world.clone();
                let (faults, _) = imported(&mut world, &rows, &options);
                prop_assert!(faults.is_empty(), "again: {faults:?} {rows}");
                prop_assert_eq!(once.entries.len(), world.entries.len());
                prop_assert_eq!(once.holdings.len(), world.holdings.len());
            }
            if let Some((nth, left)) = leaves.next()
                && let Some(employee) = world.entries.keys().nth(nth).copied()
            {
                world.depart(employee, day(left));
            }
        }
    }
}
