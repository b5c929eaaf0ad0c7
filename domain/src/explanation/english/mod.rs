//! Explanations in English: every word that a person reads, and nothing else. Another language is
//! another module like this one, over the same steps.
//!
//! Written for people at a shop: short, without jargon, and without blame. A device is never said
//! to lie, nor a worker to cheat; a sentence says what is known, how, and what follows.

pub(super) mod absence;
pub(super) mod disputed;
mod doubt;
mod on_card;
pub(super) mod punch;
pub(super) mod report;
mod synced;
mod times;
mod verified;
mod waiting;
mod words;

use jiff::{
    civil::Date,
    tz::{Offset, TimeZone},
};
use punchtrail_protocol::{DeviceId, EmployeeId, SiteId, shown::Shown};

use super::{Context, Names, absence::facts::AbsenceFacts, story::Story};
use crate::{log::recorded::Actor, punch::Basis};

/// How much of a name stands in a sentence.
const NAME_SHOWN_CHARS_MAX: usize = 128;

/// Whoever tells: knows the names, the zone in which times are told, the day and the worker that
/// are spoken of.
#[derive(Clone)]
pub(super) struct Speaker<'a> {
    names: &'a Names,
    zone: TimeZone,
    /// The day on which a time needs no date.
    day: Option<Date>,
    employee: Option<EmployeeId>,
}

impl<'a> Speaker<'a> {
    /// Tells of a punch, in the site's zone, or by the offset that the device's wall clock had.
    pub fn of_punch(story: &Story, context: &Context, names: &'a Names) -> Self {
        let offset = Offset::from_seconds(story.utc_offset_s.unwrap_or_default());
        let zone = context
            .zone(story.captured_at)
            .unwrap_or_else(|| offset.unwrap_or(Offset::UTC).to_time_zone());
        let day = story.captured_at.timestamp().to_zoned(zone.clone()).date();
        Self { names, zone, day: Some(day), employee: story.employee }
    }

    /// The same, speaking of another worker.
    fn speaking_of(self, employee: Option<EmployeeId>) -> Self {
        Self { employee, ..self }
    }

    /// Tells of a worker's day.
    pub fn of_day(facts: &AbsenceFacts, names: &'a Names) -> Self {
        let (zone, day) = (facts.zone.clone(), Some(facts.day));
        Self { names, zone, day, employee: Some(facts.employee) }
    }

    /// The worker, at the start of a sentence.
    fn worker(&self) -> String {
        let known = self.employee.and_then(|employee| self.names.employees.get(&employee));
        known.map_or_else(|| "The worker".to_owned(), |name| shown(name))
    }

    /// Somebody, at the start of a sentence: the worker, or somebody else.
    fn person(&self, employee: EmployeeId) -> String {
        match self.names.employees.get(&employee) {
            Some(name) => shown(name),
            None if self.employee == Some(employee) => "The worker".to_owned(),
            None => "Somebody".to_owned(),
        }
    }

    /// Whether there is a name to call somebody by.
    fn is_named(&self, employee: EmployeeId) -> bool {
        self.names.employees.contains_key(&employee)
    }

    /// Somebody, within a sentence: the worker, or somebody else.
    fn person_within(&self, employee: EmployeeId) -> String {
        match self.names.employees.get(&employee) {
            Some(name) => shown(name),
            None if self.employee == Some(employee) => "the worker".to_owned(),
            None => "somebody else".to_owned(),
        }
    }

    /// The worker, within a sentence.
    fn worker_within(&self) -> String {
        let known = self.employee.and_then(|employee| self.names.employees.get(&employee));
        known.map_or_else(|| "the worker".to_owned(), |name| shown(name))
    }

    /// That there is no name to be had any more, if so.
    fn erased(&self) -> Option<String> {
        let at = self.employee.and_then(|employee| self.names.erased.get(&employee))?;
        let day = at.timestamp().to_zoned(self.zone.clone()).strftime("%-d %B %Y").to_string();
        Some(format!("The worker's name and everything else kept of them was erased on {day}."))
    }

    /// The device, at the start of a sentence.
    fn device(&self, device: DeviceId) -> String {
        self.names.devices.get(&device).map_or_else(|| "The device".to_owned(), |name| quoted(name))
    }

    /// The device, within a sentence.
    fn device_within(&self, device: DeviceId) -> String {
        self.names.devices.get(&device).map_or_else(|| "the device".to_owned(), |name| quoted(name))
    }

    fn site(&self, site: SiteId) -> Option<String> {
        self.names.sites.get(&site).map(|name| shown(name))
    }

    /// Who caused something, at the start of a sentence.
    fn actor(&self, actor: Option<&Actor>) -> String {
        match actor {
            Some(Actor::Key(id)) => match self.names.keys.get(id) {
                Some(name) => quoted(name),
                None => format!("An operator (key {id})"),
            },
            Some(Actor::User(id)) => match self.names.keys.get(id) {
                Some(name) => shown(name),
                None => format!("Somebody whose name was erased (user {id})"),
            },
            Some(Actor::CommandLine) => "The operator of the server".to_owned(),
            Some(Actor::Server) => "The server".to_owned(),
            Some(Actor::Policy) => "The site's rules".to_owned(),
            Some(Actor::Device(device)) => self.device(*device),
            None => "Somebody".to_owned(),
        }
    }
}

/// A name as it may stand in a sentence, whatever somebody typed.
fn shown(name: &str) -> String {
    Shown::new(name).within(NAME_SHOWN_CHARS_MAX).to_string()
}

fn quoted(name: &str) -> String {
    format!("“{}”", shown(name))
}

const fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Policy => "The site's rules found nothing doubtful",
        Basis::Verification => "The identity check succeeded",
        Basis::Manager => "A manager found it right",
    }
}
