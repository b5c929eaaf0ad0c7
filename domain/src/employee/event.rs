//! What can happen to an employee.

use serde::{Deserialize, Serialize};

use punchtrail_protocol::{DeviceId, Digest, SiteId, Time};

use super::BadgeEnd;
use crate::erasure::Erasure;

/// A field of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DirectoryField {
    Badge,
    Name,
    Pin,
    /// The id in another system.
    ExternalId,
    /// Whether a head covering is expected on their pictures.
    HeadCovering,
}

impl DirectoryField {
    /// Whether devices are told of it: never of ids of other systems, nor of what is expected on
    /// pictures.
    pub const fn is_told_to_devices(self) -> bool {
        matches!(self, Self::Badge | Self::Name | Self::Pin)
    }
}

/// An event of an employee. Past tense, versioned, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum EmployeeEvent {
    /// The employee became known.
    Registered {},
    /// The employee works at this site, too.
    AssignedToSite {
        site: SiteId,
        /// Since when; since ever where none is said. Since version 2. Said again of an assignment
        /// that stands, it corrects when it began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Time>,
    },
    /// The employee no longer works at this site.
    UnassignedFromSite {
        site: SiteId,
        /// Since when. Since version 2; in the first, as if they never had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Time>,
    },
    /// Entries of the directory changed; the values stand beside the ledger.
    DirectoryChanged {
        fields: Vec<DirectoryField>,
    },
    /// The employee left, or leaves; said again while they are gone, it corrects when.
    Departed {
        at: Time,
    },
    /// The employee didn't leave after all.
    DepartureCancelled {},
    /// The employee came back.
    Returned {
        at: Time,
    },
    /// The employee holds a badge; its number stands beside the ledger. Said again of a holding
    /// that ended, it didn't end after all.
    BadgeIssued {
        /// SHA-256 of a salt and the badge's number: what this time of holding it is named by.
        holding: Digest,
        from: Time,
    },
    /// The employee no longer holds the badge; said again, it corrects since when.
    BadgeEnded {
        holding: Digest,
        until: Time,
        because: BadgeEnd,
    },
    /// The employee agreed that their face is compared.
    BiometricConsentGiven {
        /// The version of the notice that they read.
        notice: String,
        /// The language in which they read it, as a tag of BCP 47.
        language: String,
        /// When they agreed.
        given_at: Time,
        place: Supervised,
    },
    /// They no longer agree. What was kept of their face is erased.
    BiometricConsentWithdrawn {
        at: Time,
    },
    /// A photo to compare with was taken.
    ReferencePhotoEnrolled {
        photo: Digest,
        place: Supervised,
    },
    ReferencePhotoRemoved {
        photo: Digest,
    },
    /// Reference photos, and what was made of them, were erased, and those of their punches are.
    BiometricsErased {
        because: Erasure,
        at: Time,
    },
    /// Their data must be kept for a court or an authority, whatever else would let it go. Each
    /// stands until one is lifted.
    LegalHoldPlaced {
        /// Digest of the note that says for what, salted; the note stands beside the ledger.
        note: Option<Digest>,
        at: Time,
    },
    /// One of the reasons is over.
    LegalHoldLifted {
        /// Digest of the note that says why, salted.
        note: Option<Digest>,
        at: Time,
    },
    /// Everything that stood beside the ledger of them was erased: the directory's entry, notes
    /// about them, and what was kept of their face. Their punches stand, under an id that says
    /// nothing.
    Erased {
        at: Time,
    },
}

/// Where a person agreed, or a reference photo was taken; somebody with the right looked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "at")]
pub enum Supervised {
    Office,
    Kiosk { device: DeviceId },
}
