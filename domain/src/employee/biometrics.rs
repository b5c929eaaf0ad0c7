//! What an employee agreed to about their face, and which photos stand to compare with.

use punchtrail_protocol::{Digest, Time};
use serde::{Deserialize, Serialize};

use super::EmployeeEvent;
use crate::erasure::Erasure;

/// The most reference photos of one person.
pub const REFERENCES_MAX: usize = 8;

/// Consent and reference photos, as the events make them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Biometrics {
    consent: Option<Time>,
    references: Vec<Digest>,
    /// What was taken up to then is erased, also what comes later, and why.
    erased: Option<(Time, Erasure)>,
}

impl Biometrics {
    /// When they agreed; none if they didn't, or no longer do.
    pub const fn consent(&self) -> Option<Time> {
        self.consent
    }

    /// The reference photos, the newest last.
    pub fn references(&self) -> &[Digest] {
        &self.references
    }

    /// When everything was erased last.
    pub fn erased_at(&self) -> Option<Time> {
        self.erased.map(|(at, _)| at)
    }

    /// Why what was taken then is erased; none if it isn't.
    pub fn erases(&self, taken_at: Time) -> Option<Erasure> {
        self.erased.filter(|(at, _)| taken_at <= *at).map(|(_, because)| because)
    }

    /// Whether something is kept that departure asks to erase.
    pub const fn is_kept(&self) -> bool {
        self.consent.is_some() || !self.references.is_empty()
    }

    /// Whether a picture taken from now on may be compared, and with something.
    pub const fn is_comparable(&self) -> bool {
        self.consent.is_some() && !self.references.is_empty()
    }

    /// Whether a picture taken then may be compared, and with something.
    pub fn compares(&self, taken_at: Time) -> bool {
        self.consent.is_some_and(|given_at| given_at <= taken_at) && self.is_comparable()
    }

    /// Takes an event of the employee.
    pub fn evolve(&mut self, event: &EmployeeEvent) {
        match event {
            EmployeeEvent::BiometricConsentGiven { given_at, .. } => {
                self.consent = Some(*given_at);
            }
            EmployeeEvent::BiometricConsentWithdrawn { .. } => self.consent = None,
            EmployeeEvent::ReferencePhotoEnrolled { photo, .. } => {
                self.references.retain(|held| held != photo);
                self.references.push(*photo);
            }
            EmployeeEvent::ReferencePhotoRemoved { photo } => {
                self.references.retain(|held| held != photo);
            }
            EmployeeEvent::BiometricsErased { because, at } => {
                self.references.clear();
                self.erased = Some((*at, *because));
            }
            EmployeeEvent::Erased { .. } => {
                self.consent = None;
                self.references.clear();
            }
            EmployeeEvent::Registered {}
            | EmployeeEvent::AssignedToSite { .. }
            | EmployeeEvent::UnassignedFromSite { .. }
            | EmployeeEvent::DirectoryChanged { .. }
            | EmployeeEvent::Departed { .. }
            | EmployeeEvent::DepartureCancelled {}
            | EmployeeEvent::Returned { .. }
            | EmployeeEvent::BadgeIssued { .. }
            | EmployeeEvent::BadgeEnded { .. }
            | EmployeeEvent::LegalHoldPlaced { .. }
            | EmployeeEvent::LegalHoldLifted { .. } => {}
        }
    }
}
