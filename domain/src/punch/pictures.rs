//! A punch's pictures: the capture's own frame, retakes, which of them came, and what the checks of
//! them found. Every attempt is kept; there is one verdict on each.

use std::collections::BTreeMap;

use punchtrail_protocol::{
    Digest, Time, attachment::Attachment, guidance::Guidance, signing::Signature,
    vocabulary::Reason, wire::MISSES_MAX,
};
use serde::{Deserialize, Serialize};

use super::{Failing, Missing, PunchError, PunchEvent, Verdict};
use crate::erasure::Erasure;

/// A punch's pictures, by attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pictures {
    attempts: BTreeMap<u32, Picture>,
    verify_by: Option<Time>,
    unavailable: Option<Missing>,
}

/// A picture of a punch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    pub photo: Digest,
    /// The record that came with it; none for the capture's own frame.
    record: Option<String>,
    /// When its bytes came.
    pub received_at: Option<Time>,
    /// What a check of it found: none before one, and no miss for a match.
    pub verdict: Option<Option<Failing>>,
    /// Why and when its bytes were erased.
    pub erased: Option<(Erasure, Time)>,
}

/// What the checks found so far, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    Match,
    Doubt(Reason),
}

impl Picture {
    const fn of(photo: Digest, record: Option<String>) -> Self {
        Self { photo, record, received_at: None, verdict: None, erased: None }
    }

    /// Whether it is there and nobody has looked yet.
    pub const fn awaits_check(&self) -> bool {
        self.received_at.is_some() && self.verdict.is_none() && self.erased.is_none()
    }
}

impl Pictures {
    pub(super) fn of(first: Option<Digest>) -> Self {
        let attempts = first.map(|photo| (0, Picture::of(photo, None))).into_iter().collect();
        Self { attempts, ..Self::default() }
    }

    /// Each picture, by attempt: 0 is the capture's own frame.
    pub const fn attempts(&self) -> &BTreeMap<u32, Picture> {
        &self.attempts
    }

    /// Until when a verdict is, or was, waited for; none where faces aren't checked.
    pub const fn verify_by(&self) -> Option<Time> {
        self.verify_by
    }

    /// Whether a verdict is waited for still.
    pub fn is_waiting(&self) -> bool {
        self.verify_by.is_some() && self.finding().is_none()
    }

    /// Why no verdict could be had, if so.
    pub const fn unavailable(&self) -> Option<Missing> {
        self.unavailable
    }

    /// The newest picture that nobody has looked at yet, of those that came.
    pub fn to_check(&self) -> Option<(u32, &Picture)> {
        let waiting = self.attempts.iter().rev().find(|(_, picture)| picture.awaits_check());
        waiting.filter(|_| !self.has_match()).map(|(attempt, picture)| (*attempt, picture))
    }

    fn has_match(&self) -> bool {
        self.attempts.values().any(|picture| picture.verdict == Some(None))
    }

    fn misses(&self) -> impl DoubleEndedIterator<Item = (u32, &Failing)> {
        self.attempts.iter().filter_map(|(attempt, picture)| {
            picture.verdict.as_ref().and_then(Option::as_ref).map(|failing| (*attempt, failing))
        })
    }

    /// What the device shows the worker: the newest attempt with a verdict, what to do about it,
    /// and whether another picture may help.
    pub fn advice(&self) -> (Option<u32>, Vec<Guidance>, bool) {
        let newest = self.attempts.iter().rev().find_map(|(attempt, picture)| {
            picture.verdict.as_ref().map(|verdict| (*attempt, verdict.as_ref()))
        });
        match newest {
            Some((attempt, Some(failing))) if !self.has_match() => {
                let may_help = (self.misses().count() as u64) < u64::from(MISSES_MAX)
                    && failing.guidance.iter().any(|guidance| guidance.can_be_followed());
                (Some(attempt), failing.guidance.clone(), may_help)
            }
            Some((attempt, _)) => (Some(attempt), Vec::new(), false),
            None => (None, Vec::new(), false),
        }
    }

    pub(super) fn finding(&self) -> Option<Finding> {
        if self.has_match() {
            return Some(Finding::Match);
        }
        let missed = self.misses().next_back().map(|(_, failing)| failing.miss.reason());
        missed.or(self.unavailable.map(Missing::reason)).map(Finding::Doubt)
    }

    pub(super) fn retake(
        &self,
        record: String,
        signature: Signature,
        received_at: Time,
    ) -> Result<Vec<PunchEvent>, PunchError> {
        let read = Attachment::parse_kept(record.as_bytes());
        let attempt = read.map_err(|_| PunchError::Unknown)?.attempt;
        match self.attempts.get(&attempt).map(|picture| picture.record.as_ref()) {
            None => Ok(vec![PunchEvent::PhotoRetaken { record, signature, received_at }]),
            Some(held) if held == Some(&record) => Ok(Vec::new()),
            Some(_) => Err(PunchError::AttemptTaken),
        }
    }

    pub(super) fn receive(&self, photo: Digest, received_at: Time) -> Vec<PunchEvent> {
        self.attempts
            .iter()
            .filter(|(_, picture)| picture.photo == photo && picture.received_at.is_none())
            .map(|(&attempt, _)| PunchEvent::PhotoReceived { photo, attempt, received_at })
            .collect()
    }

    pub(super) fn verify(&self, verdict: Verdict) -> Vec<PunchEvent> {
        let check = verdict.check();
        let awaited = self
            .attempts
            .get(&check.attempt)
            .is_some_and(|picture| picture.photo == check.photo && picture.verdict.is_none());
        if !awaited || self.verify_by.is_none() {
            return Vec::new();
        }
        vec![match verdict {
            Verdict::Match { check, comparison } => {
                PunchEvent::VerificationSucceeded { check, comparison }
            }
            Verdict::Miss { check, failing, comparison } => {
                PunchEvent::VerificationFailed { check, failing, comparison }
            }
        }]
    }

    pub(super) fn give_up(&self, missing: Missing) -> Vec<PunchEvent> {
        let has_verdict = self.attempts.values().any(|picture| picture.verdict.is_some());
        if self.verify_by.is_none() || has_verdict || self.unavailable.is_some() {
            return Vec::new();
        }
        vec![PunchEvent::VerificationUnavailable { missing }]
    }

    pub(super) fn erase(&self, photo: Digest, because: Erasure, at: Time) -> Vec<PunchEvent> {
        let held = |picture: &Picture| picture.photo == photo && picture.erased.is_none();
        let erased = PunchEvent::PhotoErased { photo, because, at };
        if self.attempts.values().any(held) { vec![erased] } else { Vec::new() }
    }

    pub(super) fn evolve(&mut self, event: PunchEvent) {
        match event {
            PunchEvent::VerificationRequested { due_at } => self.verify_by = Some(due_at),
            PunchEvent::PhotoReceived { attempt, received_at, .. } => {
                if let Some(picture) = self.attempts.get_mut(&attempt) {
                    picture.received_at = Some(received_at);
                }
            }
            PunchEvent::PhotoRetaken { record, .. } => {
                if let Ok(read) = Attachment::parse_kept(record.as_bytes()) {
                    let picture = Picture::of(read.photo, Some(record));
                    self.attempts.entry(read.attempt).or_insert(picture);
                }
            }
            PunchEvent::VerificationSucceeded { check, .. } => self.checked(check.attempt, None),
            PunchEvent::VerificationFailed { check, failing, .. } => {
                self.checked(check.attempt, Some(failing));
            }
            PunchEvent::VerificationUnavailable { missing } => self.unavailable = Some(missing),
            PunchEvent::PhotoErased { photo, because, at } => {
                for picture in self.attempts.values_mut().filter(|held| held.photo == photo) {
                    picture.erased = Some((because, at));
                }
            }
            _ => {}
        }
    }

    fn checked(&mut self, attempt: u32, found: Option<Failing>) {
        if let Some(picture) = self.attempts.get_mut(&attempt) {
            picture.verdict = Some(found);
        }
    }
}
