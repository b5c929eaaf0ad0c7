//! The employee: an opaque id in the ledger. Name, PIN and the numbers of badges live in the
//! directory beside it, so that they can be erased; events say which fields changed, never their
//! values, and name a badge by a salted digest.

mod assignments;
mod badges;
mod biometrics;
mod command;
mod employment;
mod error;
mod event;
#[cfg(test)]
mod tests;

use punchtrail_protocol::{Digest, SiteId, Time};
use serde::{Deserialize, Serialize};

pub use assignments::{Assignment, Assignments};
pub use badges::{BADGES_MAX, BadgeEnd, Badges, Holding, holding};
pub use biometrics::{Biometrics, REFERENCES_MAX};
pub use command::{Consent, EmployeeCommand};
pub use employment::Employment;
pub use error::EmployeeError;
pub use event::{DirectoryField, EmployeeEvent, Supervised};

use crate::{aggregate::aggregate, erasure::Erasure};

/// An employee as the events make one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Employee {
    registered: bool,
    assignments: Assignments,
    employment: Employment,
    badges: Badges,
    biometrics: Biometrics,
    /// Legal holds that stand.
    holds: u32,
    erased_at: Option<Time>,
}

impl Employee {
    /// Whether the employee is known.
    pub fn is_registered(&self) -> bool {
        self.registered
    }
    /// Where the employee works, and when.
    pub const fn assignments(&self) -> &Assignments {
        &self.assignments
    }
    /// When the employee worked here.
    pub const fn employment(&self) -> &Employment {
        &self.employment
    }
    /// The badges that the employee held, and when.
    pub const fn badges(&self) -> &Badges {
        &self.badges
    }
    /// Takes in badges that stand beside the ledger since before holdings were dated.
    pub fn remember_badges(&mut self, holdings: impl IntoIterator<Item = Digest>) {
        holdings.into_iter().for_each(|holding| self.badges.remember(holding));
    }

    /// How many legal holds stand.
    pub const fn holds(&self) -> u32 {
        self.holds
    }
    /// When everything that can be erased of them was, if so.
    pub const fn erased_at(&self) -> Option<Time> {
        self.erased_at
    }

    /// What they agreed to about their face, and the photos to compare with.
    pub const fn biometrics(&self) -> &Biometrics {
        &self.biometrics
    }

    /// What follows from `command`; no events when nothing changes.
    ///
    /// # Errors
    /// When the employee doesn't exist yet, exists already, has left, hasn't agreed, is held, or
    /// was erased.
    pub fn decide(&self, command: EmployeeCommand) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        match command {
            EmployeeCommand::Register { .. } if self.registered => Err(EmployeeError::Exists),
            EmployeeCommand::Register { site, fields } => Ok(vec![
                EmployeeEvent::Registered {},
                EmployeeEvent::DirectoryChanged { fields },
                EmployeeEvent::AssignedToSite { site, from: None },
            ]),
            _ if !self.registered => Err(EmployeeError::Unknown),
            EmployeeCommand::EraseBiometrics { because, at } => {
                Ok(vec![EmployeeEvent::BiometricsErased { because, at }])
            }
            EmployeeCommand::Erase { at } => self.erase(at),
            EmployeeCommand::PlaceHold { .. } | EmployeeCommand::LiftHold { .. } => {
                self.hold(command)
            }
            _ if self.erased_at.is_some() => Err(EmployeeError::Erased),
            command => self.change(command),
        }
    }

    /// What follows for somebody who is known and not erased.
    fn change(&self, command: EmployeeCommand) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        let gone = self.employment.departed_at();
        match command {
            EmployeeCommand::AssignToSite { .. }
            | EmployeeCommand::GiveConsent(_)
            | EmployeeCommand::EnrolReferences { consent: Some(_), .. }
                if gone.is_some() =>
            {
                Err(EmployeeError::Departed)
            }
            EmployeeCommand::AssignToSite { site, from } => Ok(self.assign(site, from)),
            EmployeeCommand::UnassignFromSite { site, until } => self.unassign(site, until),
            EmployeeCommand::ChangeDirectory { fields } if fields.is_empty() => Ok(Vec::new()),
            EmployeeCommand::ChangeDirectory { fields } => {
                Ok(vec![EmployeeEvent::DirectoryChanged { fields }])
            }
            EmployeeCommand::Depart { at } => self.depart(at),
            EmployeeCommand::CancelDeparture { free } => self.cancel_departure(&free),
            EmployeeCommand::Return { at } => match gone {
                None => Err(EmployeeError::NotDeparted),
                Some(left) if at < left => Err(EmployeeError::ReturnBeforeDeparture),
                Some(_) => Ok(vec![EmployeeEvent::Returned { at }]),
            },
            EmployeeCommand::IssueBadge { holding, from } => self.issue(holding, from),
            EmployeeCommand::EndBadge { holding, until, because } => {
                self.end_badge(holding, until, because)
            }
            EmployeeCommand::GiveConsent(consent) => Ok(vec![given(consent)]),
            EmployeeCommand::WithdrawConsent { at } => {
                let withdrawn = EmployeeEvent::BiometricConsentWithdrawn { at };
                Ok(self.biometrics.consent().map(|_| withdrawn).into_iter().collect())
            }
            EmployeeCommand::EnrolReferences { consent, photos, place } => {
                self.enrol(consent, photos, place)
            }
            EmployeeCommand::RemoveReference { photo } => {
                if !self.biometrics.references().contains(&photo) {
                    return Err(EmployeeError::NoSuchReference);
                }
                Ok(vec![EmployeeEvent::ReferencePhotoRemoved { photo }])
            }
            // Decided before.
            EmployeeCommand::Register { .. }
            | EmployeeCommand::EraseBiometrics { .. }
            | EmployeeCommand::PlaceHold { .. }
            | EmployeeCommand::LiftHold { .. }
            | EmployeeCommand::Erase { .. } => Ok(Vec::new()),
        }
    }

    /// One that stands is left, unless it is to have begun earlier.
    fn assign(&self, site: SiteId, from: Option<Time>) -> Vec<EmployeeEvent> {
        let latest = self.assignments.latest(site);
        let stands = latest.filter(|at| at.until.is_none()).is_some_and(|at| at.from <= from);
        if stands { Vec::new() } else { vec![EmployeeEvent::AssignedToSite { site, from }] }
    }

    fn unassign(&self, site: SiteId, until: Time) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        let Some(latest) = self.assignments.latest(site) else { return Ok(Vec::new()) };
        if latest.from.is_some_and(|from| until < from) {
            return Err(EmployeeError::EndsBeforeItBegan);
        }
        let ended = EmployeeEvent::UnassignedFromSite { site, until: Some(until) };
        Ok(if latest.until == Some(until) { Vec::new() } else { vec![ended] })
    }

    /// The badges that are held end with it, and those that ended with it before.
    fn depart(&self, at: Time) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        let before = self.employment.departed_at();
        if before == Some(at) {
            return Ok(Vec::new());
        }
        if self.employment.returned_at().is_some_and(|returned_at| at <= returned_at) {
            return Err(EmployeeError::DepartureBeforeReturn);
        }
        let ends = self.badges.all().iter().filter(|held| {
            let departed = held.because == Some(BadgeEnd::Departed);
            let by_it = before.is_some() && held.until >= before;
            held.until.is_none() || departed && (by_it || held.until > Some(at))
        });
        let ended = ends.map(|held| EmployeeEvent::BadgeEnded {
            holding: held.holding,
            until: held.from.map_or(at, |from| from.max(at)),
            because: BadgeEnd::Departed,
        });
        Ok([EmployeeEvent::Departed { at }].into_iter().chain(ended).collect())
    }

    fn cancel_departure(&self, free: &[Digest]) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        let left = self.employment.departed_at().ok_or(EmployeeError::NotDeparted)?;
        let held_again = self.badges.all().iter().filter_map(|held| {
            let by_it = held.because == Some(BadgeEnd::Departed) && held.until >= Some(left);
            let (holding, from) = (held.holding, held.from.unwrap_or_default());
            (by_it && free.contains(&holding))
                .then_some(EmployeeEvent::BadgeIssued { holding, from })
        });
        Ok([EmployeeEvent::DepartureCancelled {}].into_iter().chain(held_again).collect())
    }

    fn issue(&self, holding: Digest, from: Time) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        if self.employment.departed_at().is_some_and(|left| left <= from) {
            return Err(EmployeeError::Departed);
        }
        if self.badges.get(holding).is_some() {
            return Ok(Vec::new());
        }
        if self.badges.held().count() >= BADGES_MAX {
            return Err(EmployeeError::TooManyBadges);
        }
        // Who is to leave holds it until then.
        let because = BadgeEnd::Departed;
        let left = self.employment.departed_at();
        let ended = left.map(|until| EmployeeEvent::BadgeEnded { holding, until, because });
        Ok([EmployeeEvent::BadgeIssued { holding, from }].into_iter().chain(ended).collect())
    }

    fn end_badge(
        &self,
        holding: Digest,
        until: Time,
        because: BadgeEnd,
    ) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        let ended = EmployeeEvent::BadgeEnded { holding, until, because };
        match self.badges.get(holding) {
            Some(held) if held.from.is_some_and(|from| until < from) => {
                Err(EmployeeError::EndsBeforeItBegan)
            }
            Some(held) if held.until == Some(until) => Ok(Vec::new()),
            // One that was held before holdings were dated isn't known here yet.
            Some(_) | None => Ok(vec![ended]),
        }
    }

    fn hold(&self, command: EmployeeCommand) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        match command {
            _ if self.erased_at.is_some() => Err(EmployeeError::Erased),
            EmployeeCommand::PlaceHold { note, at } => {
                Ok(vec![EmployeeEvent::LegalHoldPlaced { note, at }])
            }
            EmployeeCommand::LiftHold { .. } if self.holds == 0 => Err(EmployeeError::NoHold),
            EmployeeCommand::LiftHold { note, at } => {
                Ok(vec![EmployeeEvent::LegalHoldLifted { note, at }])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Nothing happens to somebody who is erased already.
    fn erase(&self, at: Time) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        if self.erased_at.is_some() {
            return Ok(Vec::new());
        }
        if self.holds > 0 {
            return Err(EmployeeError::Held);
        }
        let because = Erasure::Requested;
        Ok(vec![EmployeeEvent::BiometricsErased { because, at }, EmployeeEvent::Erased { at }])
    }

    fn enrol(
        &self,
        consent: Option<Consent>,
        mut photos: Vec<Digest>,
        place: Supervised,
    ) -> Result<Vec<EmployeeEvent>, EmployeeError> {
        if consent.is_none() && self.biometrics.consent().is_none() {
            return Err(EmployeeError::NoConsent);
        }
        let held = self.biometrics.references();
        photos.sort_unstable();
        photos.dedup();
        photos.retain(|photo| !held.contains(photo));
        if held.len() + photos.len() > REFERENCES_MAX {
            return Err(EmployeeError::TooManyReferences);
        }
        let enrolled = |photo| EmployeeEvent::ReferencePhotoEnrolled { photo, place };
        Ok(consent.map(given).into_iter().chain(photos.into_iter().map(enrolled)).collect())
    }

    fn evolve(&mut self, event: EmployeeEvent) {
        self.biometrics.evolve(&event);
        self.assignments.evolve(&event);
        self.employment.evolve(&event);
        self.badges.evolve(&event);
        match event {
            EmployeeEvent::Registered {} => self.registered = true,
            EmployeeEvent::LegalHoldPlaced { .. } => self.holds = self.holds.saturating_add(1),
            EmployeeEvent::LegalHoldLifted { .. } => self.holds = self.holds.saturating_sub(1),
            EmployeeEvent::Erased { at } => self.erased_at = Some(at),
            EmployeeEvent::AssignedToSite { .. }
            | EmployeeEvent::UnassignedFromSite { .. }
            | EmployeeEvent::DirectoryChanged { .. }
            | EmployeeEvent::Departed { .. }
            | EmployeeEvent::DepartureCancelled {}
            | EmployeeEvent::Returned { .. }
            | EmployeeEvent::BadgeIssued { .. }
            | EmployeeEvent::BadgeEnded { .. }
            | EmployeeEvent::BiometricConsentGiven { .. }
            | EmployeeEvent::BiometricConsentWithdrawn { .. }
            | EmployeeEvent::ReferencePhotoEnrolled { .. }
            | EmployeeEvent::ReferencePhotoRemoved { .. }
            | EmployeeEvent::BiometricsErased { .. } => {}
        }
    }
}

fn given(consent: Consent) -> EmployeeEvent {
    let Consent { notice, language, given_at, place } = consent;
    EmployeeEvent::BiometricConsentGiven { notice, language, given_at, place }
}

aggregate!(Employee, EmployeeCommand, EmployeeEvent, EmployeeError, {
    Registered, AssignedToSite, UnassignedFromSite, DirectoryChanged, Departed,
    DepartureCancelled, Returned, BadgeIssued, BadgeEnded,
    BiometricConsentGiven, BiometricConsentWithdrawn, ReferencePhotoEnrolled,
    ReferencePhotoRemoved, BiometricsErased, LegalHoldPlaced, LegalHoldLifted, Erased,
}, second { AssignedToSite, UnassignedFromSite });
