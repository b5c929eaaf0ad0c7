//! Which badges a person held, and when. The ledger names each time that somebody holds a badge by
//! a salted digest of the badge's number, which stands beside it and can be erased.

use punchtrail_protocol::{Digest, Time};
use serde::{Deserialize, Serialize};

use super::EmployeeEvent;

/// The most badges that a person holds at once.
pub const BADGES_MAX: usize = 100;

/// Why somebody no longer holds a badge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum BadgeEnd {
    /// They gave it back.
    Returned,
    Lost,
    /// They left.
    Departed,
    /// It was issued to somebody else.
    Reissued,
}

impl BadgeEnd {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What names a time of holding a badge: SHA-256 of a salt of its own and the badge's number.
pub fn holding(salt: &[u8], number: &str) -> Digest {
    Digest::of(&[salt, number.as_bytes()].concat())
}

/// That a person holds a badge, from then until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// SHA-256 of its salt and the badge's number.
    pub holding: Digest,
    /// None for a badge that was held before holdings were dated: since ever.
    pub from: Option<Time>,
    pub until: Option<Time>,
    pub because: Option<BadgeEnd>,
}

impl Holding {
    /// Whether the badge is held then.
    pub fn is_held_at(&self, at: Time) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// The badges of a person, those that they gave back included, in the order of their issue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Badges(Vec<Holding>);

impl Badges {
    /// Every time that the person held or holds a badge.
    pub fn all(&self) -> &[Holding] {
        &self.0
    }

    /// One of them.
    pub fn get(&self, holding: Digest) -> Option<&Holding> {
        self.0.iter().find(|held| held.holding == holding)
    }

    /// The badges that the person holds with no end in sight.
    pub fn held(&self) -> impl Iterator<Item = &Holding> {
        self.0.iter().filter(|held| held.until.is_none())
    }

    /// Whether any badge is held then.
    pub fn any_at(&self, at: Time) -> bool {
        self.0.iter().any(|held| held.is_held_at(at))
    }

    /// From when on a judgement may differ after that event; none when it is about nothing else.
    pub fn changes_from(&self, event: &EmployeeEvent) -> Option<Time> {
        match event {
            EmployeeEvent::BadgeIssued { from, .. } => Some(*from),
            EmployeeEvent::BadgeEnded { holding, until, .. } => {
                let before = self.get(*holding).and_then(|held| held.until);
                Some(before.map_or(*until, |before| before.min(*until)))
            }
            _ => None,
        }
    }

    /// Takes in a badge that was held before holdings were dated: no event says since when, and it
    /// is held until one says otherwise.
    pub fn remember(&mut self, holding: Digest) {
        if self.get(holding).is_none() {
            self.0.push(Holding { holding, from: None, until: None, because: None });
        }
    }

    /// Takes an event of the person.
    pub fn evolve(&mut self, event: &EmployeeEvent) {
        match event {
            EmployeeEvent::BadgeIssued { holding, from } => {
                self.0.retain(|held| held.holding != *holding);
                let (holding, from) = (*holding, Some(*from));
                self.0.push(Holding { holding, from, until: None, because: None });
            }
            EmployeeEvent::BadgeEnded { holding, until, because } => {
                let (until, because) = (Some(*until), Some(*because));
                match self.0.iter_mut().find(|held| held.holding == *holding) {
                    Some(held) => (held.until, held.because) = (until, because),
                    // Held since before holdings were dated.
                    None => {
                        let holding = *holding;
                        self.0.push(Holding { holding, from: None, until, because });
                    }
                }
            }
            EmployeeEvent::Erased { .. } => self.0.clear(),
            _ => {}
        }
    }
}
