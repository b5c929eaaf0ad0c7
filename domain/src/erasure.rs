//! Why something of a person was erased. What is erased stands beside the ledger; that it was, and
//! why, stands in it.

use serde::{Deserialize, Serialize};

/// Why pictures of a person, and what was made of them, were erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Erasure {
    /// A person with the right asked for it.
    Requested,
    /// The person withdrew their consent.
    ConsentWithdrawn,
    /// The time was over that the site keeps them after somebody left.
    Departed,
    /// The time was over that the site keeps pictures.
    RetentionOver,
}

impl Erasure {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
