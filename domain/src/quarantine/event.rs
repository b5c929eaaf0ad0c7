//! What can happen to a quarantined item.

use serde::{Deserialize, Serialize};

use crate::{DeviceId, Digest, PunchId, Time};

/// Why an item can't be taken as a punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
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
}

impl QuarantineCode {
    /// The code as the wire and the tables write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::BadEncoding => "bad_encoding",
            Self::BadSignature => "bad_signature",
            Self::BadCapture => "bad_capture",
            Self::UnknownVersion => "unknown_version",
            Self::WrongDevice => "wrong_device",
            Self::WrongSite => "wrong_site",
        }
    }
}

/// An event of a quarantined item. Past tense, versioned, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum QuarantineEvent {
    /// The item was received and kept.
    Quarantined {
        /// Why it can't be taken as a punch.
        code: QuarantineCode,
        /// The device that sent it.
        device: DeviceId,
        /// The punch id, if it could be read.
        punch: Option<PunchId>,
        /// The sequence number, if it could be read from bytes that the device signed.
        seq: Option<u64>,
        /// When, by the server's clock.
        received_at: Time,
    },
    /// A person took it in as a punch.
    AdmittedAsPunch {
        /// That punch.
        punch: PunchId,
    },
    /// A person found that it is no punch.
    Dismissed {
        /// Digest of the person's note, salted.
        note: Option<Digest>,
    },
}
