//! Typed ids. Each is a UUID (RFC 9562), written lower-case with hyphens and nothing else: a second
//! spelling of one id would be a second key.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// A text that is not a UUID in the one spelling that is taken: 36 characters, lower-case, hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID in lower-case with hyphens")]
pub struct InvalidId;

fn parse(text: &str) -> Result<Uuid, InvalidId> {
    let canonical = text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase());
    if !canonical {
        return Err(InvalidId);
    }
    Uuid::try_parse(text).map_err(|_| InvalidId)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The nil id, which names nothing.
            pub const NIL: Self = Self(Uuid::nil());
            /// The id as a bare UUID, for a database column.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(IdVisitor).map(Self)
            }
        }
    )+};
}

struct IdVisitor;

impl serde::de::Visitor<'_> for IdVisitor {
    type Value = Uuid;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID in lower-case with hyphens")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Uuid, E> {
        parse(text).map_err(E::custom)
    }
}

ids! {
    /// A punch; a UUIDv7 made by the device at capture, and its idempotency key for ever.
    PunchId,
    /// A device that captures punches.
    DeviceId,
    /// A place where people work.
    SiteId,
    /// A person who works.
    EmployeeId,
    /// The organisation whose ledger this is.
    OrgId,
    /// One boot of a device: within it, its monotonic clock runs on.
    BootId,
    /// A stretch of the ledger's history that nothing was taken back from.
    EpochId,
    /// A command to a device; a UUIDv7 made by the server, on which a device acts once.
    CommandId,
    /// A dispute; a UUIDv7 made by whoever opens it, and its idempotency key for ever.
    DisputeId,
}

/// Whether an id is a UUID of version 7 and the RFC's variant, as whoever is offline must make it.
fn is_v7(id: Uuid) -> bool {
    id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122
}

impl DisputeId {
    /// Whether the id is a UUID of version 7 and the RFC's variant.
    pub fn is_v7(self) -> bool {
        is_v7(self.0)
    }
}

impl PunchId {
    /// Whether the id is a UUID of version 7 and the RFC's variant, as a device must make it.
    pub fn is_v7(self) -> bool {
        is_v7(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let text = "0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e";
        assert_eq!(text.parse::<PunchId>().unwrap().to_string(), text);
        for other in [
            "0190B5A2-7F3E-7C1A-9D2E-3F4A5B6C7D8E",
            "0190b5a27f3e7c1a9d2e3f4a5b6c7d8e",
            "{0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e}",
            "",
        ] {
            assert_eq!(other.parse::<PunchId>(), Err(InvalidId), "{other}");
        }
    }

    #[test]
    fn version_seven_is_told_from_the_rest() {
        assert!("0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e".parse::<PunchId>().unwrap().is_v7());
        assert!(!PunchId(Uuid::new_v4()).is_v7());
        assert!(!PunchId::NIL.is_v7());
    }
}
