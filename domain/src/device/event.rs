//! What can happen to a device.

use punchtrail_protocol::{Digest, OrgId, PunchId, SiteId, Time, signing::PublicKey};
use serde::{Deserialize, Serialize};

use super::Gap;

/// An event of a device. Past tense, versioned, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DeviceEvent {
    /// The device became known; its name stands beside the ledger.
    Registered {
        /// The organisation it belongs to.
        org: OrgId,
    },
    /// The device proved that it holds the private half of this key.
    Enrolled {
        /// The key that signs its captures.
        key: PublicKey,
        /// Program and version that enrolled.
        app: String,
    },
    /// The device serves this site from now on, and still delivers for earlier ones.
    SiteAssigned { site: SiteId },
    /// A capture came whose number is beyond the next: the ones between are missing.
    SequenceGapOpened { gap: Gap },
    /// Missing numbers came after all.
    SequenceGapClosed { gap: Gap },
    /// A capture names another predecessor than the one that is held.
    LinkBroken {
        seq: u64,
        named: Digest,
        /// The digest of the predecessor that is held.
        held: Digest,
    },
    /// Two captures came under one number: a copied key, a restored image, or a lie.
    ForkDetected {
        seq: u64,
        /// The punch that came first under it; none if that item was quarantined.
        first: Option<PunchId>,
        /// The punch that came later; none if that item was quarantined.
        second: Option<PunchId>,
    },
    /// Another capture came under the id of a punch: a copied key, a restored image, or a lie.
    /// Noted once a punch, however many come; each is in quarantine.
    ConflictDetected {
        /// The punch that came first under it.
        punch: PunchId,
    },
    /// The device's access ended. What it still holds may be delivered, and is referred.
    Revoked { at: Time },
}
