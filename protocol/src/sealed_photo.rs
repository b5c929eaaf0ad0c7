//! Photos that wait, sealed to the server: who carries a device off finds none.
//!
//! A sealed box of NaCl (libsodium's `crypto_box_seal`): a key pair made for this one photo, whose
//! secret half is gone when the box is shut, agrees on a key with the server's (X25519), and the
//! photo is encrypted and authenticated under it (XSalsa20-Poly1305, nonce the BLAKE2b of both
//! public keys). Only the server's secret key opens it; who sealed it is not proved by it, but by
//! the photo's digest in the signed record.

use std::{fmt, str::FromStr};

use crypto_box::{PublicKey, SecretKey, aead::OsRng};
use curve25519_dalek::MontgomeryPoint;

use crate::signing::{from_base64url, to_base64url};

/// The media type of a sealed photo.
pub const SEALED_PHOTO_TYPE: &str = "application/vnd.punchtrail.sealed-photo.v1";
/// How much larger a sealed photo is, in bytes: the photo's own public key, and the tag.
pub const SEALED_PHOTO_OVERHEAD_BYTES: usize = 48;

/// The server's X25519 public key to which photos are sealed; never one of small order, whose boxes
/// anybody could open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PhotoKey([u8; 32]);

/// The secret key that opens what was sealed to its [`PhotoKey`].
#[derive(Clone)]
pub struct PhotoSecret(SecretKey);

/// A text that is no key that photos are sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an X25519 public key, of 32 bytes in base64url without padding and not of small order"
)]
pub struct InvalidPhotoKey;

/// Why there is no photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealedPhotoError {
    /// More than can be encrypted, far beyond any photo.
    #[error("the photo can't be sealed")]
    NotSealed,
    /// Sealed to another key, cut off or altered; a sealed box doesn't tell which.
    #[error("the sealed photo does not open under this key")]
    NotOpened,
}

impl PhotoKey {
    /// Takes a key's 32 bytes.
    ///
    /// # Errors
    /// When the key is of small order, or spelled with its unused bit set.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, InvalidPhotoKey> {
        // With a point of small order every agreement ends at zero.
        let agreed = MontgomeryPoint(bytes).mul_clamped([1; 32]);
        let taken = bytes[31] & 0x80 == 0 && agreed.to_bytes() != [0; 32];
        taken.then_some(Self(bytes)).ok_or(InvalidPhotoKey)
    }

    /// The key's 32 bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl FromStr for PhotoKey {
    type Err = InvalidPhotoKey;
    fn from_str(text: &str) -> Result<Self, InvalidPhotoKey> {
        Self::from_bytes(from_base64url(text).ok_or(InvalidPhotoKey)?)
    }
}

impl fmt::Display for PhotoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_base64url(&self.0))
    }
}

impl fmt::Debug for PhotoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PhotoSecret {
    /// A new one, from the system's randomness.
    pub fn generate() -> Self {
        Self(SecretKey::generate(&mut OsRng))
    }

    /// One that was kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SecretKey::from_bytes(bytes))
    }

    /// Its 32 bytes, to be kept where nobody else can read them.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The key that photos for it are sealed to.
    pub fn key(&self) -> PhotoKey {
        PhotoKey(self.0.public_key().to_bytes())
    }
}

impl fmt::Debug for PhotoSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhotoSecret(…)")
    }
}

/// Seals a photo to `key`. The same photo twice gives two boxes that nobody can tell to be of one.
///
/// # Errors
/// [`SealedPhotoError::NotSealed`] beyond what can be encrypted.
pub fn seal(key: &PhotoKey, photo: &[u8]) -> Result<Vec<u8>, SealedPhotoError> {
    let sealed = PublicKey::from_bytes(key.0).seal(&mut OsRng, photo);
    sealed.map_err(|_| SealedPhotoError::NotSealed)
}

/// Opens what was sealed to `secret`'s key.
///
/// # Errors
/// [`SealedPhotoError::NotOpened`] when it wasn't, or isn't whole.
pub fn open(secret: &PhotoSecret, sealed: &[u8]) -> Result<Vec<u8>, SealedPhotoError> {
    secret.0.unseal(sealed).map_err(|_| SealedPhotoError::NotOpened)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: &[u8] = b"\xff\xd8\xffa face that nobody else is to see";

    #[test]
    fn the_server_opens_what_was_sealed_to_it_and_nobody_else_does() {
        let (secret, other) = (PhotoSecret::generate(), PhotoSecret::generate());
        let sealed = seal(&secret.key(), PHOTO).unwrap();
        assert_eq!(sealed.len(), PHOTO.len() + SEALED_PHOTO_OVERHEAD_BYTES);
        assert!(!sealed.windows(8).any(|run| PHOTO.windows(8).any(|plain| plain == run)));
        assert_ne!(sealed, seal(&secret.key(), PHOTO).unwrap());
        let kept = PhotoSecret::from_bytes(secret.to_bytes());
        assert_eq!(open(&kept, &sealed).unwrap(), PHOTO);
        assert_eq!(open(&other, &sealed), Err(SealedPhotoError::NotOpened));
        assert!(!format!("{secret:?}").contains(char::is_numeric));
    }

    #[test]
    fn a_box_of_another_implementation_opens() {
        // Made by crypto_box_seal of libsodium 1.0.18 for the secret key of 32 ones.
        let sealed = hex::decode(concat!(
            "fc05dd517e617150502d1866053fa8b2bcc5955a938d46d019949462",
            "0e667b2e66ae229538822e4581d2a048f616f34d723674db59c5c6",
        ));
        let sealed = sealed.unwrap();
        let secret = PhotoSecret::from_bytes([1; 32]);
        assert_eq!(open(&secret, &sealed).unwrap(), b"a frame");
    }

    #[test]
    fn what_is_cut_off_or_altered_does_not_open() {
        let secret = PhotoSecret::generate();
        let sealed = seal(&secret.key(), PHOTO).unwrap();
        for len in (0..SEALED_PHOTO_OVERHEAD_BYTES + 1).chain([sealed.len() - 1]) {
            assert!(open(&secret, &sealed[..len]).is_err(), "{len} bytes");
        }
        for at in [0, 31, 32, 47, 48, sealed.len() - 1] {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(open(&secret, &altered).is_err(), "byte {at}");
        }
        assert!(open(&secret, &[&sealed[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_key_has_one_spelling() {
        let key = PhotoSecret::generate().key();
        let text = key.to_string();
        assert_eq!((text.len(), text.parse()), (43, Ok(key)));
        for wrong in [
            "",
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
            &text.replace(|c: char| c.is_ascii_lowercase(), "+"),
        ] {
            assert_eq!(wrong.parse::<PhotoKey>(), Err(InvalidPhotoKey), "{wrong}");
        }
        let mut unused = key.to_bytes();
        unused[31] |= 0x80;
        assert_eq!(PhotoKey::from_bytes(unused), Err(InvalidPhotoKey));
    }

    #[test]
    fn a_key_whose_boxes_anybody_could_open_is_none() {
        let mut one = [0; 32];
        one[0] = 1;
        let mut of_order_eight = [0; 32];
        hex::decode_to_slice(
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            &mut of_order_eight,
        )
        .unwrap();
        for weak in [[0; 32], one, of_order_eight] {
            assert_eq!(PhotoKey::from_bytes(weak), Err(InvalidPhotoKey));
        }
    }
}
