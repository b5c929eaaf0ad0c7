//! What can happen to a device.

use punchtrail_protocol::{
    CommandId, Digest, OrgId, PunchId, SiteId, Time, command::CommandStatus, signing::PublicKey,
};
use serde::{Deserialize, Serialize};

use super::{Gap, Instruction};

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
    /// The device is to do something, until then.
    CommandIssued { command: CommandId, instruction: Instruction, expires_at: Time },
    /// The device said what became of a command, whether in time or late.
    CommandFinished {
        command: CommandId,
        status: CommandStatus,
        /// Digest of what it said of it in words, which stands beside the ledger.
        note: Option<Digest>,
    },
    /// A command's time was over, and nothing had been heard of it.
    CommandExpired { command: CommandId },
    /// Somebody took a command back before anything was heard of it.
    CommandCancelled { command: CommandId },
}
