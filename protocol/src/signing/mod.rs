//! Signatures over captures: Ed25519 (RFC 8032) over DSSE's pre-authentication encoding, by the key
//! a device enrolled.
//!
//! A single signature is checked strictly (no small-order points, no malleable encodings). Many at
//! once are checked as a batch, which is several times cheaper (`batch`); a batch that fails is
//! halved until the bad ones are found, and what decides in the end about a single one is the
//! strict check.

mod batch;

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature as Ed25519, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use batch::Claim;

/// DSSE type of a capture.
pub const CAPTURE_TYPE: &str = "application/vnd.punchtrail.capture.v1+json";
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
    /// Not 32 bytes in base64url without padding, or not a point on the curve.
    #[error("not an Ed25519 public key in base64url without padding")]
    Invalid,
    /// A key under which many texts verify.
    #[error("the public key is of small order and proves nothing; make a new key")]
    SmallOrder,
}

/// A signature that doesn't verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify under the device's key")]
pub struct BadSignature;

impl PublicKey {
    /// Takes a key's 32 bytes.
    ///
    /// # Errors
    /// When they are no point on the curve, or one of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
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

    /// Checks strictly that `signature` signs `body` as `kind`.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn verify(
        &self,
        kind: &str,
        body: &[u8],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        let signed = pre_authentication_encoding(kind, body);
        self.0.verify_strict(&signed, &Ed25519::from_bytes(&signature.0)).map_err(|_| BadSignature)
    }

    /// Checks many at once; `false` stands where a signature doesn't verify. In a batch, one that
    /// is strictly wrong may pass if whoever holds the private key made it so on purpose.
    pub fn verify_all(&self, kind: &str, items: &[(&[u8], Signature)]) -> Vec<bool> {
        self.check_all(kind, items, &|n, _| {
            let (body, signature) = &items[n];
            self.verify(kind, body, signature).is_ok()
        })
    }

    /// Checks many that were taken before; `false` stands where no batch could have let a signature
    /// pass. One alone has to hold times the cofactor only (RFC 8032, section 5.1.7): otherwise the
    /// holder of a key could make signatures that pass in one batch and fail in the next, and a
    /// ledger look tampered with that nobody touched.
    pub fn audit_all(&self, kind: &str, items: &[(&[u8], Signature)]) -> Vec<bool> {
        self.check_all(kind, items, &|_, claim| claim.holds_times_cofactor(&self.0))
    }

    fn check_all(
        &self,
        kind: &str,
        items: &[(&[u8], Signature)],
        alone: &impl Fn(usize, &Claim) -> bool,
    ) -> Vec<bool> {
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
        bisect(&self.0, &claims, &mut valid, alone);
        valid
    }
}

/// Halves a failing batch; one alone is checked by `alone`.
fn bisect(
    key: &VerifyingKey,
    claims: &[(usize, Claim)],
    valid: &mut [bool],
    alone: &impl Fn(usize, &Claim) -> bool,
) {
    match claims {
        [] => {}
        [(n, claim)] => valid[*n] = alone(*n, claim),
        _ if batch::all_hold(key, claims.iter().map(|(_, claim)| claim)) => {
            claims.iter().for_each(|(n, _)| valid[*n] = true);
        }
        _ => {
            let (left, right) = claims.split_at(claims.len() / 2);
            bisect(key, left, valid, alone);
            bisect(key, right, valid, alone);
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
    |b: [u8; 32]| PublicKey::from_bytes(&b).ok(),
    PublicKey::to_bytes
);

#[cfg(test)]
mod tests {
    use curve25519_dalek::{
        Scalar,
        constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
    };
    use sha2::{Digest as _, Sha512};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn the_encoding_is_dsse_version_1() {
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn a_signature_holds_for_one_text_one_type_and_one_key() {
        let signature = sign(&key(1), CAPTURE_TYPE, b"body");
        let public = PublicKey::from(&key(1));
        assert_eq!(public.verify(CAPTURE_TYPE, b"body", &signature), Ok(()));
        assert_eq!(public.verify(CAPTURE_TYPE, b"bodY", &signature), Err(BadSignature));
        assert_eq!(public.verify(ENROLMENT_TYPE, b"body", &signature), Err(BadSignature));
        assert_eq!(
            PublicKey::from(&key(2)).verify(CAPTURE_TYPE, b"body", &signature),
            Err(BadSignature)
        );
    }

    #[test]
    fn a_batch_names_exactly_the_bad_ones() {
        let bodies: Vec<Vec<u8>> = (0..37u8).map(|n| vec![n; 20]).collect();
        let mut items: Vec<(&[u8], Signature)> =
            bodies.iter().map(|b| (b.as_slice(), sign(&key(1), CAPTURE_TYPE, b))).collect();
        for bad in [0, 17, 36] {
            items[bad].1.0[3] ^= 1;
        }
        let valid = PublicKey::from(&key(1)).verify_all(CAPTURE_TYPE, &items);
        let found: Vec<_> = (0..37).filter(|&n| !valid[n]).collect();
        assert_eq!(found, [0, 17, 36]);
    }

    #[test]
    fn a_batch_agrees_with_the_strict_check() {
        let bodies: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; usize::from(n) * 7]).collect();
        for spoilt in 0..40 {
            let mut items: Vec<(&[u8], Signature)> =
                bodies.iter().map(|b| (b.as_slice(), sign(&key(1), CAPTURE_TYPE, b))).collect();
            match spoilt % 5 {
                0 => items[spoilt].0 = b"other",
                1 => items[spoilt].1.0[40] ^= 4,
                2 => items[spoilt].1 = sign(&key(2), CAPTURE_TYPE, items[spoilt].0),
                3 => items[spoilt].1 = sign(&key(1), ENROLMENT_TYPE, items[spoilt].0),
                _ => items[spoilt].1.0[32..].copy_from_slice(&[0xff; 32]),
            }
            let public = PublicKey::from(&key(1));
            let alone: Vec<bool> = items
                .iter()
                .map(|(body, signature)| public.verify(CAPTURE_TYPE, body, signature).is_ok())
                .collect();
            assert_eq!(alone.iter().filter(|valid| !**valid).count(), 1, "{spoilt}");
            assert_eq!(public.verify_all(CAPTURE_TYPE, &items), alone, "{spoilt}");
        }
    }

    /// Two faults that cancel in a plain sum must not in the weighted one.
    #[test]
    fn faults_that_cancel_are_found() {
        let bodies = [b"a".as_slice(), b"b".as_slice()];
        let mut items = bodies.map(|body| (body, sign(&key(1), CAPTURE_TYPE, body)));
        let scalar = |signature: &Signature| {
            let bytes = std::array::from_fn(|n| signature.0[32 + n]);
            Scalar::from_canonical_bytes(bytes).unwrap()
        };
        let shifted = [scalar(&items[0].1) + Scalar::ONE, scalar(&items[1].1) - Scalar::ONE];
        for (item, s) in items.iter_mut().zip(shifted) {
            item.1.0[32..].copy_from_slice(s.as_bytes());
        }
        assert_eq!(PublicKey::from(&key(1)).verify_all(CAPTURE_TYPE, &items), [false, false]);
    }

    /// With a point of order eight added to R, which only the holder of the key can do, a signature
    /// holds in some batches and not in others. An audit lets it pass in all of them.
    #[test]
    fn an_audit_passes_whatever_a_batch_can() {
        let (key, body) = (key(1), b"a".as_slice());
        let torsion = EIGHT_TORSION[1];
        let mut found = [false; 2];
        for nonce in 1..=64_u64 {
            let r = ((Scalar::from(nonce) * ED25519_BASEPOINT_POINT) + torsion).compress();
            let hash = Sha512::new()
                .chain_update(r.as_bytes())
                .chain_update(key.verifying_key().as_bytes())
                .chain_update(pre_authentication_encoding(CAPTURE_TYPE, body))
                .finalize();
            let h = Scalar::from_bytes_mod_order_wide(&hash.into());
            let s = Scalar::from(nonce) + h * key.to_scalar();
            let mut odd = Signature([0; 64]);
            odd.0[..32].copy_from_slice(r.as_bytes());
            odd.0[32..].copy_from_slice(s.as_bytes());
            let public = PublicKey::from(&key);
            assert_eq!(public.verify(CAPTURE_TYPE, body, &odd), Err(BadSignature));
            let items = [(body, odd), (body, sign(&key, CAPTURE_TYPE, body))];
            assert_eq!(public.audit_all(CAPTURE_TYPE, &items), [true; 2]);
            found[usize::from(public.verify_all(CAPTURE_TYPE, &items)[0])] = true;
        }
        assert_eq!(found, [true; 2], "some batches let it pass and others don't");
        let forged = [(b"b".as_slice(), sign(&key, CAPTURE_TYPE, body))];
        assert_eq!(PublicKey::from(&key).audit_all(CAPTURE_TYPE, &forged), [false]);
    }

    #[test]
    fn small_order_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::SmallOrder));
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(KeyError::SmallOrder));
    }
}
