//! Who appears in the demo, and what they do: two bakeries, their people, and a week of shifts.
//!
//! Everything is decided by the seed and the day, before anything is punched, so that a run can be
//! repeated and what comes out can be held against what was meant.

use std::fmt::Write as _;

use anyhow::Context;
use jiff::{ToSpan, Zoned, civil::Date, tz::TimeZone};
use punchtrail_protocol::capture::PunchKind;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A site: name and zone.
pub const SITES: [(&str, &str); 2] =
    [("Hamburg bakery", "Europe/Berlin"), ("Boston bakery", "America/New_York")];

/// A device at a door: name, site, and whether the people of that door work at night.
pub const DOORS: [(&str, usize, bool); 4] = [
    ("Hamburg shop door", 0, false),
    ("Hamburg yard door", 0, true),
    ("Boston shop door", 1, false),
    ("Boston yard door", 1, true),
];

/// The door whose clock is wrong today.
pub const FAST_DOOR: usize = 3;
/// By how much, in seconds.
pub const FAST_BY_S: i64 = 3 * 3_600;
/// A badge that nobody has.
pub const UNKNOWN_BADGE: &str = "7731";

/// People, six a door.
const NAMES: [&str; 24] = [
    "Aylin Kaya",
    "Jonas Petersen",
    "Marta Kowalska",
    "Ömer Yıldız",
    "Lena Brandt",
    "Paul Hoffmann",
    "Nguyễn Thị Mai",
    "Sören Lund",
    "Fatou Diallo",
    "Katarína Nováková",
    "Emil Schröder",
    "Ines Carvalho",
    "Maya Johnson",
    "Carlos Ramírez",
    "Grace Okafor",
    "Liam O’Brien",
    "Priya Nair",
    "Noah Williams",
    "Sofia Rossi",
    "Daniel Kim",
    "Amara Mensah",
    "Ethan Clarke",
    "Yuki Tanaka",
    "Rosa Delgado",
];
/// How many people share a door.
const PEOPLE_PER_DOOR: usize = NAMES.len() / DOORS.len();
/// The PIN of those who have one.
const PIN: &str = "4711";
/// How far a punch strays from the shift's hour, in seconds either way.
const STRAY_S: i64 = 600;
/// Between the two taps of a double tap, in seconds.
const SECOND_TAP_S: i64 = 4;
/// How many people of each door come in today.
const TODAY_PER_DOOR: usize = 3;

/// A worker.
#[derive(Debug, Clone)]
pub struct Worker {
    pub badge: String,
    pub name: &'static str,
    pub pin: Option<&'static str>,
    /// The door that the worker uses.
    pub door: usize,
}

/// What a punch is remembered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// Nothing special, made offline.
    Plain,
    DoubleTap,
    UnknownBadge,
    /// By the clock that is three hours fast.
    FastClock,
    /// Admitted from quarantine.
    Admitted,
}

impl Tag {
    /// As a sentence's subject.
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Plain => "An ordinary punch",
            Self::DoubleTap => "The second tap of a double tap",
            Self::UnknownBadge => "A punch by a badge that nobody has",
            Self::FastClock => "A punch by a clock three hours fast",
            Self::Admitted => "The nonsense that a manager admitted",
        }
    }
}

/// A punch that will be made.
#[derive(Debug, Clone)]
pub struct Planned {
    pub badge: String,
    pub kind: PunchKind,
    pub pin: Option<&'static str>,
    /// When, on an earlier day; none for today, now, by the device's clock.
    pub at: Option<Zoned>,
    /// What it is remembered for.
    pub tag: Option<Tag>,
}

/// What will happen.
#[derive(Debug)]
pub struct Script {
    pub workers: Vec<Worker>,
    /// A door's punches each, in the order they are made.
    pub doors: Vec<Vec<Planned>>,
    /// The first and the last day on which shifts begin.
    pub days: (Date, Date),
}

impl Script {
    /// Writes the script of `days` days, the last of which is two days before `now`.
    ///
    /// # Errors
    /// When a zone isn't known.
    pub fn write(seed: u64, days: u32, now: &jiff::Timestamp) -> anyhow::Result<Self> {
        let mut dice = StdRng::seed_from_u64(seed);
        let workers: Vec<Worker> = NAMES.into_iter().enumerate().map(worker).collect();
        let last = now.to_zoned(TimeZone::UTC).date().checked_sub(2.days())?;
        let first = last.checked_sub((i64::from(days) - 1).days())?;
        let mut doors = Vec::new();
        for door in 0..DOORS.len() {
            let people: Vec<&Worker> = workers.iter().filter(|w| w.door == door).collect();
            doors.push(punches(door, &people, first, days, &mut dice)?);
        }
        Ok(Self { workers, doors, days: (first, last) })
    }

    /// The roster as the operator imports it.
    pub fn roster(&self) -> String {
        let mut csv = "badge,name,pin,site\n".to_owned();
        for worker in &self.workers {
            let site = SITES[DOORS[worker.door].1].0;
            // Writing to a string can't fail.
            let _ = writeln!(
                csv,
                "{},{},{},{site}",
                worker.badge,
                worker.name,
                worker.pin.unwrap_or_default()
            );
        }
        csv
    }

    /// How many punches there are.
    pub fn punches(&self) -> usize {
        self.doors.iter().map(Vec::len).sum()
    }

    /// The one who comes to the broken kiosk today.
    pub fn at_the_broken_kiosk(&self) -> &Worker {
        &self.workers[PEOPLE_PER_DOOR - 1]
    }

    /// The one whose day is asked for while it is under way, and whose timecard is shown.
    pub fn protagonist(&self) -> &Worker {
        &self.workers[0]
    }
}

fn worker((index, name): (usize, &'static str)) -> Worker {
    let door = index / PEOPLE_PER_DOOR;
    let badge = format!("{}{:02}", DOORS[door].1 + 1, index % (2 * PEOPLE_PER_DOOR) + 1);
    Worker { badge, name, pin: (index % 3 == 1).then_some(PIN), door }
}

/// A shift, in hours after the midnight on which its day begins.
const DAY_SHIFT: [(PunchKind, f64); 4] = [
    (PunchKind::In, 8.0),
    (PunchKind::BreakStart, 12.0),
    (PunchKind::BreakEnd, 12.75),
    (PunchKind::Out, 16.75),
];
const NIGHT_SHIFT: [(PunchKind, f64); 4] = [
    (PunchKind::In, 22.0),
    (PunchKind::BreakStart, 25.5),
    (PunchKind::BreakEnd, 26.0),
    (PunchKind::Out, 30.0),
];

fn punches(
    door: usize,
    people: &[&Worker],
    first: Date,
    days: u32,
    dice: &mut StdRng,
) -> anyhow::Result<Vec<Planned>> {
    let (_, site, at_night) = DOORS[door];
    let zone = TimeZone::get(SITES[site].1)?;
    let shift = if at_night { NIGHT_SHIFT } else { DAY_SHIFT };
    let mut planned = Vec::new();
    for day in 0..days {
        let midnight = first.checked_add(i64::from(day).days())?.to_zoned(zone.clone())?;
        for worker in people {
            for (kind, hour) in shift {
                let stray = dice.random_range(-STRAY_S..=STRAY_S);
                let after_s = (hour * 3_600.0) as i64 + stray;
                let at = Some(midnight.checked_add(after_s.seconds())?);
                let badge = worker.badge.clone();
                planned.push(Planned { badge, kind, pin: worker.pin, at, tag: None });
            }
        }
    }
    add_incidents(door, days, &mut planned)?;
    planned.sort_by(|a, b| a.at.cmp(&b.at));
    let fast = door == FAST_DOOR;
    for (index, worker) in people.iter().take(TODAY_PER_DOOR).enumerate() {
        planned.push(Planned {
            badge: worker.badge.clone(),
            kind: PunchKind::In,
            pin: None,
            at: None,
            tag: (fast && index == 0).then_some(Tag::FastClock),
        });
    }
    Ok(planned)
}

/// What goes wrong at a door, as it does.
fn add_incidents(door: usize, days: u32, planned: &mut Vec<Planned>) -> anyhow::Result<()> {
    let first_of = |planned: &[Planned], kind, day: u32| {
        let mut of_kind = planned.iter().enumerate().filter(move |(_, p)| p.kind == kind);
        of_kind.nth(day as usize * PEOPLE_PER_DOOR).map(|(index, _)| index)
    };
    match door {
        0 => {
            let arrival = first_of(planned, PunchKind::In, days / 2).context("a shift")?;
            let mut again = planned[arrival].clone();
            again.at = again.at.map(|at| at.checked_add(SECOND_TAP_S.seconds())).transpose()?;
            again.tag = Some(Tag::DoubleTap);
            planned.push(again);
            let leaving = first_of(planned, PunchKind::Out, 0).context("a shift")?;
            planned[leaving].tag = Some(Tag::Plain);
        }
        2 => {
            let beside = first_of(planned, PunchKind::In, 0).context("a shift")?;
            let mut stranger = planned[beside].clone();
            stranger.at = stranger.at.map(|at| at.checked_add(90.seconds())).transpose()?;
            (stranger.badge, stranger.pin) = (UNKNOWN_BADGE.to_owned(), None);
            stranger.tag = Some(Tag::UnknownBadge);
            planned.push(stranger);
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(seed: u64) -> Script {
        Script::write(seed, 5, &"2026-11-22T03:00:00Z".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_same_seed_is_the_same_week_in_order_of_time() {
        let (one, same, other) = (script(1), script(1), script(2));
        assert_eq!(format!("{:?}", one.doors), format!("{:?}", same.doors));
        assert_ne!(format!("{:?}", one.doors), format!("{:?}", other.doors));
        for door in &one.doors {
            let week: Vec<_> = door.iter().filter_map(|planned| planned.at.as_ref()).collect();
            assert!(week.is_sorted());
            assert!(*week[week.len() - 1] < "2026-11-22T03:00:00Z[UTC]".parse::<Zoned>().unwrap());
        }
        assert_eq!(one.punches(), 4 * (6 * 5 * 4 + 3) + 2);
    }

    #[test]
    fn everybody_has_a_badge_of_their_own_and_the_roster_names_them() {
        let script = script(1);
        let badges: std::collections::HashSet<_> =
            script.workers.iter().map(|w| w.badge.as_str()).collect();
        assert_eq!(badges.len(), 24);
        assert!(!badges.contains(UNKNOWN_BADGE));
        assert_eq!(script.roster().lines().count(), 25);
        assert!(script.roster().contains("101,Aylin Kaya,,Hamburg bakery"));
    }
}
