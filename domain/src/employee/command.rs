//! What may be asked of an employee.

use punchtrail_protocol::{Digest, SiteId, Time};

use super::{BadgeEnd, DirectoryField, Supervised};
use crate::erasure::Erasure;

/// A command to an employee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmployeeCommand {
    /// Make known, at a first site.
    Register {
        site: SiteId,
        /// The directory's entries that are given.
        fields: Vec<DirectoryField>,
    },
    /// Let work at another site, too.
    AssignToSite {
        site: SiteId,
        /// Since when; none: since ever.
        from: Option<Time>,
    },
    UnassignFromSite {
        site: SiteId,
        until: Time,
    },
    /// Note which entries of the directory change.
    ChangeDirectory {
        fields: Vec<DirectoryField>,
    },
    /// Note that the employee leaves, or, if they left, that it was at another time. Their badges
    /// end with it.
    Depart {
        at: Time,
    },
    /// Note that the employee didn't leave after all. The badges that ended with it are held again,
    /// those that somebody else holds by now left out.
    CancelDeparture {
        free: Vec<Digest>,
    },
    /// Note that the employee comes back.
    Return {
        at: Time,
    },
    /// Note that the employee holds a badge.
    IssueBadge {
        /// SHA-256 of a salt and the badge's number.
        holding: Digest,
        from: Time,
    },
    /// Note that the employee no longer holds it, or since another time.
    EndBadge {
        holding: Digest,
        until: Time,
        because: BadgeEnd,
    },
    /// Note that they agree that their face is compared.
    GiveConsent(Consent),
    /// Note that they no longer agree.
    WithdrawConsent {
        at: Time,
    },
    /// Take photos to compare with, with the consent that was given with them, if any.
    EnrolReferences {
        consent: Option<Consent>,
        photos: Vec<Digest>,
        place: Supervised,
    },
    RemoveReference {
        photo: Digest,
    },
    /// Note that everything of their face is erased.
    EraseBiometrics {
        because: Erasure,
        at: Time,
    },
    /// Note that their data must be kept for a court or an authority.
    PlaceHold {
        /// Digest of the note that says for what.
        note: Option<Digest>,
        at: Time,
    },
    /// Note that one such reason is over.
    LiftHold {
        /// Digest of the note that says why.
        note: Option<Digest>,
        at: Time,
    },
    /// Note that everything that can be erased of them is.
    Erase {
        at: Time,
    },
}

/// That a person agrees that their face is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The version of the notice that they read.
    pub notice: String,
    /// The language in which they read it, as a tag of BCP 47.
    pub language: String,
    /// When they agreed.
    pub given_at: Time,
    pub place: Supervised,
}
