//! Signatures over captures: Ed25519 (RFC 8032) over DSSE's pre-authentication encoding, by the key
//! a device enrolled.
//!
//! One rule says which hold (`rule`, and docs/device-protocol.md), alone or among any others, when
//! they come in and when the ledger is verified: otherwise the holder of a key could make some that
//! pass in one batch and fail in the next.

mod rule;

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use rule::Claim;

/// DSSE type of a capture.
pub const CAPTURE_TYPE: &str = "application/vnd.punchtrail.capture.v1+json";
/// DSSE type of an attachment: a further picture for a punch.
pub const ATTACHMENT_TYPE: &str = "application/vnd.punchtrail.attachment.v1+json";
/// DSSE type of an enrolment's proof of possession.
pub const ENROLMENT_TYPE: &str = "application/vnd.punchtrail.enrolment.v1";
/// The type of a returning device's proof.
pub const RETURN_TYPE: &str = "application/vnd.punchtrail.return.v1";

/// DSSE v1's pre-authentication encoding of `body` under `kind`; lengths in decimal, of bytes.
pub fn pre_authentication_encoding(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut encoded = before_body(kind, body).into_bytes();
    encoded.extend_from_slice(body);
    encoded
}

/// What the encoding puts before `body`.
fn before_body(kind: &str, body: &[u8]) -> String {
    format!("DSSEv1 {} {kind} {} ", kind.len(), body.len())
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// The public key of a device; never one of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Why bytes are not a key that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in base64url without padding, or not a point on the curve in its one spelling.
    #[error("not an Ed25519 public key in base64url without padding")]
    Invalid,
    /// A key under which many texts verify.
    #[error("the public key is of small order and proves nothing; make a new key")]
    SmallOrder,
    /// A key outside of the group that the base point generates.
    #[error("the public key has a part of small order, which no honest key has; make a new key")]
    MixedOrder,
}

/// A signature that doesn't verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify under the device's key")]
pub struct BadSignature;

impl PublicKey {
    /// Takes a new key's 32 bytes: the one spelling of a point of prime order. Costs as much as
    /// checking a signature, so it is done once, at the enrolment.
    ///
    /// # Errors
    /// When they are no such point.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        if !rule::is_canonical(bytes) {
            return Err(KeyError::Invalid);
        }
        let key = Self::kept(bytes)?;
        if !key.0.to_edwards().is_torsion_free() {
            return Err(KeyError::MixedOrder);
        }
        Ok(key)
    }

    /// Reads a key that was taken before. Keys were once taken with less of a check, and what is in
    /// the ledger is read for ever; what signatures hold under such a key is settled by the same
    /// rule.
    ///
    /// # Errors
    /// When they are no point on the curve, or one of small order.
    pub fn kept(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Invalid)?;
        if key.is_weak() {
            return Err(KeyError::SmallOrder);
        }
        Ok(Self(key))
    }

    /// The key's 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Checks that `signature` signs `body` as `kind`.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn verify(
        &self,
        kind: &str,
        body: &[u8],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        let claim = Claim::of(&self.0, [before_body(kind, body).as_bytes(), body], signature);
        claim.filter(|claim| claim.holds(&self.0)).map(drop).ok_or(BadSignature)
    }

    /// Checks many at once, several times cheaper than one by one; `false` stands where
    /// [`Self::verify`] would refuse.
    pub fn verify_all(&self, kind: &str, items: &[(&[u8], Signature)]) -> Vec<bool> {
        let claims: Vec<(usize, Claim)> = items
            .iter()
            .enumerate()
            .filter_map(|(n, (body, signature))| {
                Some((
                    n,
                    Claim::of(&self.0, [before_body(kind, body).as_bytes(), body], signature)?,
                ))
            })
            .collect();
        let mut valid = vec![false; items.len()];
        bisect(&self.0, &claims, &mut valid);
        valid
    }
}

/// Halves a failing batch until the bad ones are found.
fn bisect(key: &VerifyingKey, claims: &[(usize, Claim)], valid: &mut [bool]) {
    match claims {
        [] => {}
        [(n, claim)] => valid[*n] = claim.holds(key),
        _ if rule::all_hold(key, claims.iter().map(|(_, claim)| claim)) => {
            claims.iter().for_each(|(n, _)| valid[*n] = true);
        }
        _ => {
            let (left, right) = claims.split_at(claims.len() / 2);
            bisect(key, left, valid);
            bisect(key, right, valid);
        }
    }
}

/// Signs `body` as `kind`.
pub fn sign(key: &SigningKey, kind: &str, body: &[u8]) -> Signature {
    Signature(key.sign(&pre_authentication_encoding(kind, body)).to_bytes())
}

impl From<&SigningKey> for PublicKey {
    fn from(key: &SigningKey) -> Self {
        Self(key.verifying_key())
    }
}

/// Bytes from base64url without padding, in its one canonical spelling.
pub fn from_base64url<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Bytes as base64url without padding.
pub fn to_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

macro_rules! as_base64url {
    ($name:ident, $what:literal, $read:expr, $write:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_base64url(&$write(self)))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                from_base64url(&text)
                    .and_then($read)
                    .ok_or_else(|| de::Error::custom(concat!("not ", $what, " in base64url \
                        without padding")))
            }
        }
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$"})
            }
        }
    };
}

as_base64url!(Signature, "an Ed25519 signature", |b| Some(Signature(b)), |s: &Signature| s.0);
as_base64url!(
    PublicKey,
    "an Ed25519 public key",
    |b: [u8; 32]| PublicKey::kept(&b).ok(),
    PublicKey::to_bytes
);

#[cfg(test)]
mod tests;
