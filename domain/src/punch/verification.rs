//! What a check of a picture came to: by whom it was made, with what, how close it was, and what
//! was asked for. A verdict is advice: none of these rejects a punch.

use punchtrail_protocol::{Digest, guidance::Guidance, vocabulary::Reason};
use serde::{Deserialize, Serialize};

/// Who looks at a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Provider {
    /// Amazon Rekognition.
    Rekognition,
    /// The models on the server's own CPU.
    Local,
    /// A person: every picture is referred.
    Review,
}

impl Provider {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A check of one picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// Which picture of the punch: 0 for the capture's own frame.
    pub attempt: u32,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub photo: Digest,
    pub provider: Provider,
    /// The provider's model with its version.
    pub model: String,
    /// What was measured of the face; none where none was found.
    pub quality: Option<Quality>,
    /// The floors of the site's policy then.
    pub floors: Floors,
}

/// What was measured of a face, on its provider's own scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quality {
    /// 0 to 100.
    pub brightness: u8,
    /// 0 to 100.
    pub sharpness: u8,
    /// The face's width, in pixels.
    pub face_px: u32,
}

/// What a face must have to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Floors {
    /// 0 to 100.
    pub brightness_min: u8,
    /// 0 to 100.
    pub brightness_max: u8,
    /// 0 to 100.
    pub sharpness_min: u8,
    /// In pixels.
    pub face_px_min: u32,
}

/// A comparison with a reference photo. Similarities in ten-thousandths: 9,912 is 99.12 % of
/// Rekognition, or a cosine of 0.9912 of the local model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Comparison {
    /// The reference photo that it came closest to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reference: Digest,
    /// How close, from 0 to 10,000.
    pub similarity: u32,
    /// From where on it is a match, by the site's policy then.
    pub threshold: u32,
}

/// Why a check did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failing {
    pub miss: Miss,
    /// What the worker was asked to do, the first thing first.
    pub guidance: Vec<Guidance>,
}

/// What kind of miss it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Miss {
    /// No face is on the picture.
    NoFace,
    /// More than one person is on it, equally near.
    SeveralFaces,
    /// A face that can't be compared: too small, dark, bright, blurred, turned away or covered.
    Unclear,
    /// A good picture, less alike than the threshold.
    Mismatch,
    /// Not a picture that can be read.
    Unreadable,
}

impl Miss {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What the punch is referred for.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Mismatch => Reason::FaceMismatch,
            Self::NoFace | Self::SeveralFaces | Self::Unclear | Self::Unreadable => {
                Reason::FaceUnclear
            }
        }
    }
}

/// Why there is no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Missing {
    /// No picture came in time.
    Photo,
    /// The site sends everyone to a person.
    SentToReview,
    /// Nobody was in reach who could check, until the time was over.
    Unreachable,
    /// Whoever checks took no more for so long, until the time was over.
    Throttled,
    /// Whoever checks refused to: access, configuration.
    Refused,
    /// Consent or references ended before the check.
    NothingToCompare,
    /// The picture was erased before the check.
    PhotoErased,
}

impl Missing {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What the punch is referred for.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Photo => Reason::PhotoMissing,
            _ => Reason::FaceUnchecked,
        }
    }
}
