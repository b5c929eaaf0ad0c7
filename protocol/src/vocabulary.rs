//! The words that device and server share for what becomes of a punch: where it stands, why it was
//! referred to a person, why an item could not be taken as one.

use serde::{Deserialize, Serialize};

/// Where a punch stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownStanding, parse_err_fn = UnknownStanding::of)]
pub enum Standing {
    /// In the ledger, not yet judged. Counts provisionally.
    #[default]
    Recorded,
    Accepted,
    /// Waits for a person. Counts provisionally.
    Referred,
    Rejected,
    Voided,
}

impl Standing {
    /// The standing as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the punch counts, at least provisionally.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Recorded | Self::Accepted | Self::Referred)
    }
}

/// A text that names no standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a standing is one of `recorded`, `accepted`, `referred`, `rejected`, `voided`")]
pub struct UnknownStanding;

impl UnknownStanding {
    fn of(_: &str) -> Self {
        Self
    }
}

/// Why a punch was referred to a person: the code of what was found doubtful about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    NearDuplicate,
    ClockSuspect,
    InFuture,
    Fork,
    UnknownBadge,
    UnknownEmployee,
    DepartedWorker,
    RevokedDevice,
    BeyondLookback,
    TwoSites,
    /// The badge by which the device knew the worker was somebody else's by then.
    OtherHolder,
    /// The worker wasn't assigned to the site then.
    Visitor,
    /// A punch of the opposite kind came seconds before.
    OppositeKind,
    /// The picture was good and was not recognised.
    FaceMismatch,
    /// No picture was good enough to compare.
    FaceUnclear,
    /// No picture came in time.
    PhotoMissing,
    /// The check could not be made in time, or everyone is sent to a person.
    FaceUnchecked,
}

impl Reason {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why an item can't be taken as a punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum QuarantineCode {
    /// The capture is larger than a capture may be.
    TooLarge,
    /// Capture or signature is not base64url without padding.
    BadEncoding,
    /// The signature does not verify under the key of the device that sent it.
    BadSignature,
    /// The JSON or a field breaks a rule.
    BadCapture,
    /// The format version is not known here.
    UnknownVersion,
    /// The capture names another device than the one that sent it.
    WrongDevice,
    /// The capture names another organisation, or a site the device never served.
    WrongSite,
    /// Another capture stands under the punch's id.
    Conflict,
}

impl QuarantineCode {
    /// Whether what was found wrong was found in bytes that the device had signed.
    pub const fn is_signed(self) -> bool {
        match self {
            Self::TooLarge | Self::BadEncoding | Self::BadSignature => false,
            Self::BadCapture
            | Self::UnknownVersion
            | Self::WrongDevice
            | Self::WrongSite
            | Self::Conflict => true,
        }
    }

    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
