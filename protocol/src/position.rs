//! Places in the ledger.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in the ledger: dense from 1, the only order there is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The position `count` further on; none is beyond the last that there is.
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The position as Postgres keeps it. Those of events stay far below 2^63; of others that
    /// somebody may ask for, all from there on are the same place beyond.
    pub const fn to_db(self) -> i64 {
        if self.0 > i64::MAX.cast_unsigned() { i64::MAX } else { self.0.cast_signed() }
    }

    /// A position that Postgres kept.
    pub const fn from_db(value: i64) -> Self {
        Self(value.cast_unsigned())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
