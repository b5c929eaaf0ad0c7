//! What the worker's other punches make of one: whether it has a partner on the card, and whether
//! the next one is doubted because of it. Both follow from events, of this punch and of those.

use jiff::civil::Date;
use punchtrail_protocol::{PunchId, Time, capture::PunchKind, vocabulary::Reason};
use serde::Serialize;

use crate::timecard::{Timecard, UnmatchedCode};

/// A punch without its partner, as it stands on the worker's card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OnCard {
    /// The business day of the card, `YYYY-MM-DD`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Date))]
    pub day: Date,
    /// What is missing or too much.
    pub code: UnmatchedCode,
    /// Until then a partner may still come; null if a later punch has ruled that out.
    pub may_pair_until: Option<Time>,
}

impl OnCard {
    /// What these cards, all of one worker, say of a punch; none if it has its partner there.
    pub fn of(punch: PunchId, cards: &[Timecard]) -> Option<Self> {
        let found = cards.iter().find_map(|card| {
            let unmatched = card.unmatched.iter().find(|one| one.mark.punch == punch)?;
            Some((card.day, unmatched))
        });
        let (day, unmatched) = found?;
        Some(Self { day, code: unmatched.code, may_pair_until: unmatched.may_pair_until })
    }
}

/// A later punch of the same worker that is doubted for standing so near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DoubtedAfter {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub punch: PunchId,
    pub kind: PunchKind,
    /// How much later, in milliseconds.
    pub apart_ms: i64,
    /// `near_duplicate` or `opposite_kind`.
    pub reason: Reason,
}
