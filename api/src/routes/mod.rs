//! One file a group of routes; every handler authorises, calls, answers. The table is
//! [`crate::router`].

pub mod device;
pub mod office;
pub mod operations;

use punchtrail_infra::people::Changed;
use punchtrail_protocol::Position;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ask::limits::NOTE_CHARS_MAX, problem::Refusal};

/// Answer to a write: give `position` to a read as `Punchtrail-After` to read what was written.
#[derive(Debug, Serialize, ToSchema)]
pub struct Written {
    /// Where it stands in the ledger.
    pub position: Position,
}

impl From<Changed> for Written {
    fn from(changed: Changed) -> Self {
        Self { position: changed.position }
    }
}

/// A body that is only a note.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NoteBody {
    /// A note for whoever reads the explanation; at most 2,000 characters.
    pub note: Option<String>,
}

/// Checks a note's length.
///
/// # Errors
/// When it is too long.
pub fn note_of(note: Option<String>) -> Result<Option<String>, Refusal> {
    match note {
        Some(text) if text.chars().count() > NOTE_CHARS_MAX => Err(Refusal::field(
            "/note",
            "invalid_value",
            format!("A note has at most {NOTE_CHARS_MAX} characters."),
        )),
        note => Ok(note),
    }
}
