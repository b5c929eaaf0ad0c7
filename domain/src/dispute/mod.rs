//! The dispute: somebody says that a punch doesn't stand as it should, or that one is missing on a
//! day. It takes nothing out of the count and holds nothing up: what is disputed stands as it stood
//! until a person settles it, and what isn't is untouched.
//!
//! What people wrote stands beside the ledger, bound by salted digests, so that it can be erased.

mod command;
mod error;
mod event;
#[cfg(test)]
mod tests;

use punchtrail_protocol::{
    Digest, PunchId,
    dispute::{About, DisputeState, Settlement},
};
use serde::{Deserialize, Serialize};

pub use command::DisputeCommand;
pub use error::DisputeError;
pub use event::{DeviceEvidence, DisputeEvent, Evidence, ReportKept, Subject};

use crate::aggregate::aggregate;

/// The most answers to one dispute.
pub const ANSWERS_MAX: u32 = 100;
/// How often one dispute may be reopened.
pub const REOPENINGS_MAX: u32 = 20;
/// The most devices, items and unknown badges that evidence lists, of each; what is more is said.
pub const EVIDENCE_LISTED_MAX: usize = 50;
/// The most runs of missing numbers that evidence lists of one device.
pub const EVIDENCE_GAPS_MAX: usize = 5;
/// How often evidence is kept with one dispute.
pub const EVIDENCE_MAX: u32 = 20;

/// A dispute as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dispute {
    opened: Option<(Subject, Option<Digest>)>,
    state: DisputeState,
    answers: u32,
    reopenings: u32,
    gathered: u32,
    evidence: Option<Evidence>,
    settled: Option<(Settlement, Option<PunchId>)>,
}

impl Dispute {
    /// What it is about; none before it was opened.
    pub fn subject(&self) -> Option<&Subject> {
        self.opened.as_ref().map(|(subject, _)| subject)
    }
    /// Digest of the text that it was opened with.
    pub fn note(&self) -> Option<Digest> {
        self.opened.as_ref().and_then(|(_, note)| *note)
    }
    /// Where it stands.
    pub const fn state(&self) -> DisputeState {
        self.state
    }
    /// The evidence that was kept last.
    pub const fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }
    /// How it is settled, and by which other punch; none while it waits.
    pub const fn settled(&self) -> Option<(Settlement, Option<PunchId>)> {
        self.settled
    }

    /// What follows from `command`; no events when nothing is left to do.
    ///
    /// # Errors
    /// When there is no such dispute, or it allows no such thing as it stands.
    pub fn decide(&self, command: DisputeCommand) -> Result<Vec<DisputeEvent>, DisputeError> {
        let Some((subject, _)) = &self.opened else { return Self::open(command) };
        match command {
            DisputeCommand::Open { .. } => Err(DisputeError::Exists),
            DisputeCommand::AddEvidence(evidence) => Ok(self.gathered_anew(evidence)),
            DisputeCommand::Reopen { .. } if self.state.waits() => Err(DisputeError::NotResolved),
            DisputeCommand::Reopen { .. } if self.reopenings >= REOPENINGS_MAX => {
                Err(DisputeError::TooManyReopenings)
            }
            DisputeCommand::Reopen { note } => Ok(vec![DisputeEvent::Reopened { note }]),
            _ if !self.state.waits() => Err(DisputeError::Resolved),
            DisputeCommand::Answer { .. } if self.answers >= ANSWERS_MAX => {
                Err(DisputeError::TooManyAnswers)
            }
            DisputeCommand::Answer { note } => Ok(vec![DisputeEvent::Answered { note }]),
            DisputeCommand::Resolve { how, by_punch, note } => {
                if how.rules_on_the_punch() && matches!(subject.about, About::Day(_)) {
                    return Err(DisputeError::NoPunch);
                }
                if how.is_by_another_punch() != by_punch.is_some() {
                    return Err(DisputeError::ByPunch);
                }
                Ok(vec![DisputeEvent::Resolved { how, by_punch, note }])
            }
        }
    }

    fn open(command: DisputeCommand) -> Result<Vec<DisputeEvent>, DisputeError> {
        match command {
            DisputeCommand::Open { subject, .. } if !subject.cause.fits(subject.about) => {
                Err(DisputeError::CauseDoesNotFit)
            }
            DisputeCommand::Open { subject, note } => {
                Ok(vec![DisputeEvent::Opened { subject, note }])
            }
            _ => Err(DisputeError::Unknown),
        }
    }

    /// What is known of the day is kept when something of it has changed.
    fn gathered_anew(&self, evidence: Evidence) -> Vec<DisputeEvent> {
        let known_through = evidence.known_through;
        let same = self
            .evidence
            .as_ref()
            .is_some_and(|known| Evidence { known_through, ..known.clone() } == evidence);
        let unchanged = same || self.gathered >= EVIDENCE_MAX;
        if unchanged { Vec::new() } else { vec![DisputeEvent::EvidenceAdded { evidence }] }
    }

    fn evolve(&mut self, event: DisputeEvent) {
        match event {
            DisputeEvent::Opened { subject, note } => self.opened = Some((subject, note)),
            DisputeEvent::EvidenceAdded { evidence } => {
                self.gathered += 1;
                self.evidence = Some(evidence);
            }
            DisputeEvent::Answered { .. } => {
                self.answers += 1;
                self.state = DisputeState::Answered;
            }
            DisputeEvent::Resolved { how, by_punch, .. } => {
                self.state = DisputeState::Resolved;
                self.settled = Some((how, by_punch));
            }
            DisputeEvent::Reopened { .. } => {
                self.reopenings += 1;
                self.state = DisputeState::Reopened;
                self.settled = None;
            }
        }
    }
}

aggregate!(Dispute, DisputeCommand, DisputeEvent, DisputeError, {
    Opened, EvidenceAdded, Answered, Resolved, Reopened,
});
