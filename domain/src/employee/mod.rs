//! The employee: an opaque id in the ledger. Name, badge and PIN live in the directory beside it,
//! so that they can be erased; events say which fields changed, never their values.

mod biometrics;
mod command;
mod error;
mod event;

use punchtrail_protocol::{Digest, SiteId, Time};
use serde::{Deserialize, Serialize};

pub use biometrics::{Biometrics, REFERENCES_MAX};
pub use command::{Consent, EmployeeCommand};
pub use error::EmployeeError;
pub use event::{DirectoryField, EmployeeEvent, Supervised};

use crate::{aggregate::aggregate, erasure::Erasure};

/// An employee as the events make one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Employee {
    registered: bool,
    sites: Vec<SiteId>,
    departed_at: Option<Time>,
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
    /// The sites where the employee works now.
    pub fn sites(&self) -> &[SiteId] {
        &self.sites
    }
    /// When the employee left, if so.
    pub fn departed_at(&self) -> Option<Time> {
        self.departed_at
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
                EmployeeEvent::AssignedToSite { site },
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
        match command {
            EmployeeCommand::AssignToSite { site } if self.sites.contains(&site) => Ok(Vec::new()),
            EmployeeCommand::AssignToSite { .. } if self.departed_at.is_some() => {
                Err(EmployeeError::Departed)
            }
            EmployeeCommand::AssignToSite { site } => {
                Ok(vec![EmployeeEvent::AssignedToSite { site }])
            }
            EmployeeCommand::UnassignFromSite { site } if self.sites.contains(&site) => {
                Ok(vec![EmployeeEvent::UnassignedFromSite { site }])
            }
            EmployeeCommand::UnassignFromSite { .. } => Ok(Vec::new()),
            EmployeeCommand::ChangeDirectory { fields } if fields.is_empty() => Ok(Vec::new()),
            EmployeeCommand::ChangeDirectory { fields } => {
                Ok(vec![EmployeeEvent::DirectoryChanged { fields }])
            }
            EmployeeCommand::Depart { .. } if self.departed_at.is_some() => Ok(Vec::new()),
            EmployeeCommand::Depart { at } => Ok(vec![EmployeeEvent::Departed { at }]),
            EmployeeCommand::GiveConsent(_)
            | EmployeeCommand::EnrolReferences { consent: Some(_), .. }
                if self.departed_at.is_some() =>
            {
                Err(EmployeeError::Departed)
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
        match event {
            EmployeeEvent::Registered {} => self.registered = true,
            EmployeeEvent::AssignedToSite { site } => self.sites.push(site),
            EmployeeEvent::UnassignedFromSite { site } => self.sites.retain(|at| *at != site),
            EmployeeEvent::DirectoryChanged { .. } => {}
            EmployeeEvent::Departed { at } => self.departed_at = Some(at),
            EmployeeEvent::BiometricConsentGiven { .. }
            | EmployeeEvent::BiometricConsentWithdrawn { .. }
            | EmployeeEvent::ReferencePhotoEnrolled { .. }
            | EmployeeEvent::ReferencePhotoRemoved { .. }
            | EmployeeEvent::BiometricsErased { .. } => {}
            EmployeeEvent::LegalHoldPlaced { .. } => self.holds = self.holds.saturating_add(1),
            EmployeeEvent::LegalHoldLifted { .. } => self.holds = self.holds.saturating_sub(1),
            EmployeeEvent::Erased { at } => {
                self.sites.clear();
                self.erased_at = Some(at);
            }
        }
    }
}

fn given(consent: Consent) -> EmployeeEvent {
    let Consent { notice, language, given_at, place } = consent;
    EmployeeEvent::BiometricConsentGiven { notice, language, given_at, place }
}

aggregate!(Employee, EmployeeCommand, EmployeeEvent, EmployeeError, {
    Registered, AssignedToSite, UnassignedFromSite, DirectoryChanged, Departed,
    BiometricConsentGiven, BiometricConsentWithdrawn, ReferencePhotoEnrolled,
    ReferencePhotoRemoved, BiometricsErased, LegalHoldPlaced, LegalHoldLifted, Erased,
});
