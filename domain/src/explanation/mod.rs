//! Explanations: *captured? synced? verified? accepted or rejected? by whom, and why?*
//!
//! An explanation is made from a punch's own events and from what the ledger says of its
//! surroundings (the device's numbers, its site's zone), and from nothing else: no clock is read,
//! nothing is looked up, so the same events always give the same explanation. It is data first, a
//! [`Step`] for each thing that happened, with who, when, the evidence and its places in the
//! ledger; the sentences are made from the steps, in `english`, and a name goes in only then, so
//! that no name is ever kept here.
//!
//! What rests on a device's last report instead of on events stands apart, in
//! [`Explanation::device_report`], with a sentence that says so. It must never slip into the rest.

pub mod absence;
mod context;
mod english;
mod on_card;
mod step;
mod story;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind,
    dispute::Settlement, vocabulary::Standing,
};
use serde::Serialize;
use uuid::Uuid;

use crate::{Recorded, aggregate::Undecodable};

pub use context::{Backlog, ChainMark, Context, DisputeMark, MissingNumbers, Quarantined};
pub use on_card::{DoubtedAfter, OnCard};
pub use step::{
    Amendment, ChainFact, Conflict, Decision, Disputed, Doubt, Escalation, NotChecked, Origin,
    Receipt, Step, Verification, What,
};

/// A punch, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    pub punch: PunchId,
    pub standing: Standing,
    /// Whether it counts, at least until a person has ruled. What is nobody's, or may be somebody
    /// else's, counts for nobody.
    pub counts: bool,
    /// Who punched, as far as that is known; null when only a badge was read that was nobody's.
    pub employee: Option<EmployeeId>,
    pub site: SiteId,
    /// The device that delivered it; null for a punch that was added by hand.
    pub device: Option<DeviceId>,
    /// The time that counts: as captured, or as a person amended it.
    pub effective_at: Time,
    pub kind: PunchKind,
    /// What happened: captured, synced, what the device's numbers say, verified, then the rest in
    /// the ledger's order. Always has a step each for captured, verified and decided.
    pub steps: Vec<Step>,
    /// The same in plain sentences, made from events alone.
    pub sentences: Vec<String>,
    /// What the worker's card says of it, if it has no partner there.
    pub on_card: Option<OnCard>,
    /// The worker's next punch, if that is doubted for standing so near this one.
    pub doubted_after: Option<DoubtedAfter>,
    /// What the device last said of itself: a report, not history.
    pub device_report: Option<DeviceReport>,
    /// The newest event that this rests on.
    pub position: Position,
}

/// Where and when something entered the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Place {
    pub position: Position,
    /// When it was recorded, by the server's clock.
    pub recorded_at: Time,
}

impl Place {
    /// An event's.
    pub fn of(recorded: &Recorded) -> Self {
        Self { position: recorded.position, recorded_at: recorded.recorded_at.into() }
    }
}

/// What a device last said of itself. It rests on the device's word, not on events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceReport {
    pub device: DeviceId,
    /// When it said so, by the server's clock.
    pub reported_at: Time,
    /// How many punches waited on it then.
    pub waiting: u64,
    /// The time of the oldest of them, by the device's clock.
    pub oldest: Option<Time>,
    /// The last number it had made.
    pub made_through: u64,
    /// Up to which number the ledger holds every one now.
    pub held_through: u64,
    pub sentence: String,
}

/// Names for the sentences, read beside the ledger at the moment of telling. Whoever has none is
/// spoken of without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub employees: BTreeMap<EmployeeId, String>,
    pub devices: BTreeMap<DeviceId, String>,
    pub sites: BTreeMap<SiteId, String>,
    pub keys: BTreeMap<Uuid, String>,
    /// What people noted, by the digest that events hold of it; none where it was erased.
    pub notes: BTreeMap<Digest, Option<String>>,
    /// When the data of people was erased, of those whose was. Of these there are no names.
    pub erased: BTreeMap<EmployeeId, Time>,
}

/// Why a punch waits for a person, or was rejected, in words for whoever made it; a code that has
/// no words as it is.
pub fn reason_in_words(code: &str) -> String {
    match (code.parse().map(english::disputed::reason), code.parse()) {
        (Ok(words), _) => words.to_owned(),
        (_, Ok(rejected)) => english::punch::rejection(rejected),
        _ => code.to_owned(),
    }
}

/// How a dispute was settled, in words.
pub const fn settlement_in_words(how: Settlement) -> &'static str {
    english::disputed::settled(how)
}

/// Explains the punch whose stream is `events`; none if there are no events.
///
/// # Errors
/// When an event isn't one of a punch, can't be read by this program, or the stream starts with
/// another event than a punch's first.
pub fn explain(
    events: &[Recorded],
    context: &Context,
    names: &Names,
) -> Result<Option<Explanation>, Undecodable> {
    match Account::of(events)? {
        Some(account) => Ok(Some(account.told(context, names))),
        None => Ok(None),
    }
}

/// A punch's events, read: what to ask its surroundings for, before it is told.
#[derive(Debug, Clone)]
pub struct Account(story::Story);

impl Account {
    /// Reads a punch's stream; none if there are no events.
    ///
    /// # Errors
    /// As [`explain`].
    pub fn of(events: &[Recorded]) -> Result<Option<Self>, Undecodable> {
        Ok(story::Story::of(events)?.map(Self))
    }

    /// The punch.
    pub fn punch(&self) -> PunchId {
        self.0.punch
    }
    /// The device; none if none made or sent it.
    pub fn device(&self) -> Option<DeviceId> {
        self.0.device
    }
    /// The device's number for the punch; none if it was admitted.
    pub fn seq(&self) -> Option<u64> {
        self.0.seq
    }
    /// The worker on whose card it stands, with the time and kind that count; none of a punch that
    /// counts for nobody, or not at all.
    pub fn on_card_of(&self) -> Option<(EmployeeId, Time, PunchKind)> {
        let counts = self.0.standing.counts() && !self.0.nobodys;
        let (at, kind) = self.0.effective;
        self.0.employee.filter(|_| counts).map(|employee| (employee, at, kind))
    }
    /// Everybody that the explanation speaks of.
    pub fn people(&self) -> Vec<EmployeeId> {
        self.0.people()
    }
    /// The site, and others that the explanation speaks of.
    pub fn sites(&self) -> Vec<SiteId> {
        self.0.sites()
    }
    /// The quarantined item that the punch was admitted from.
    pub fn quarantine(&self) -> Option<Digest> {
        self.0.quarantine
    }
    /// The operators' keys that had a part in it.
    pub fn keys(&self) -> Vec<Uuid> {
        self.0.keys()
    }

    /// The notes that people left on it.
    pub fn notes(&self) -> Vec<Digest> {
        self.0.steps.iter().filter_map(|step| step.note).collect()
    }

    /// The explanation, amid its surroundings and with names where they are known.
    pub fn told(self, context: &Context, names: &Names) -> Explanation {
        let story = self.0.amid(context);
        let speaker = english::Speaker::of_punch(&story, context, names);
        let beside = (context.on_card, context.doubted_after);
        let sentences = english::punch::sentences(&speaker, &story, beside);
        let device_report = story.device.zip(context.report).map(|(device, report)| DeviceReport {
            device,
            reported_at: report.reported_at,
            waiting: report.waiting,
            oldest: report.oldest,
            made_through: report.made_through,
            held_through: report.held_through,
            sentence: english::report::sentence(&speaker, device, &report),
        });
        Explanation {
            punch: story.punch,
            standing: story.standing,
            counts: story.standing.counts() && !story.nobodys,
            employee: story.employee,
            site: story.site,
            device: story.device,
            effective_at: story.effective.0,
            kind: story.effective.1,
            steps: story.steps,
            sentences,
            on_card: context.on_card,
            doubted_after: context.doubted_after,
            device_report,
            position: story.position,
        }
    }
}
