//! What can happen to an epoch.

use punchtrail_protocol::{EpochId, Position};
use serde::{Deserialize, Serialize};

/// An event of an epoch. Past tense, versioned, never edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum EpochEvent {
    /// The database had gone back, and it was noticed. What had stood after `after` is gone, and
    /// its positions were or will be given out again.
    Opened {
        /// Up to where the histories agree; 0 when that isn't known.
        #[cfg_attr(feature = "schema", schemars(with = "u64"))]
        after: Position,
        /// The epoch that the database was in, which ends here.
        ends: EpochId,
        /// The epoch of what is gone, if that is another one, whose beginning is gone with it.
        lost: Option<EpochId>,
        /// The highest position that whoever noticed remembers of what is gone.
        #[cfg_attr(feature = "schema", schemars(with = "u64"))]
        seen: Position,
        noticed_by: NoticedBy,
    },
}

/// Who noticed that the database had gone back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum NoticedBy {
    /// A node, by what it remembered of the ledger, or because an older copy was put back by it.
    Node,
    /// A device, by what the server had told it under its own seal.
    Device,
}
