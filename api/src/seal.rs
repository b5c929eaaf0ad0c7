//! Seals: what is given out and comes back, known again by the deployment's key, so that nobody
//! makes it up or alters it. A seal says for what it was given out, and is good for nothing else.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use punchtrail_infra::access::deployment::Deployment;
use punchtrail_protocol::sealed_photo::PhotoSecret;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Half of HMAC-SHA256: a forger has one try in 2^128.
pub const TAG_BYTES: usize = 16;

/// A tag over these parts, the first of which names what it is for.
pub fn tag<'a>(
    deployment: &Deployment,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> [u8; TAG_BYTES] {
    // A key of any length is a key for HMAC (RFC 2104); ours has 32 bytes.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&deployment.cursor_key) else {
        return [0; TAG_BYTES];
    };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&mac.finalize().into_bytes()[..TAG_BYTES]);
    tag
}

/// The secret key that opens photos which devices sealed to this deployment: the same on all its
/// nodes, and for ever.
pub fn photo_secret(deployment: &Deployment) -> PhotoSecret {
    let mut secret = [0; 32];
    for (half, part) in secret.chunks_exact_mut(TAG_BYTES).zip([b"first".as_slice(), b"second"]) {
        half.copy_from_slice(&tag(deployment, [b"punchtrail.photo-key.v1".as_slice(), part]));
    }
    PhotoSecret::from_bytes(secret)
}

/// The content under its seal, as text.
pub fn seal(deployment: &Deployment, purpose: &str, content: &[u8]) -> String {
    let mut bytes = tag(deployment, [purpose.as_bytes(), content]).to_vec();
    bytes.extend_from_slice(content);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The content of what was sealed here for this purpose; none of anything else.
pub fn open(deployment: &Deployment, purpose: &str, sealed: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
    let (given, content) = bytes.split_at_checked(TAG_BYTES)?;
    let expected = tag(deployment, [purpose.as_bytes(), content]);
    bool::from(expected.ct_eq(given)).then(|| content.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchtrail_protocol::OrgId;

    const DEPLOYMENT: Deployment = Deployment { org: OrgId::NIL, cursor_key: [7; 32] };

    #[test]
    fn only_what_was_sealed_here_and_for_this_is_opened() {
        let sealed = seal(&DEPLOYMENT, "a", b"content");
        assert_eq!(open(&DEPLOYMENT, "a", &sealed).as_deref(), Some(b"content".as_slice()));
        assert_eq!(open(&DEPLOYMENT, "b", &sealed), None);
        let other = Deployment { cursor_key: [8; 32], ..DEPLOYMENT };
        assert_eq!(open(&other, "a", &sealed), None);
        for garbage in ["", "A", "\u{a7}", &sealed[..10], &sealed.to_lowercase()] {
            assert_eq!(open(&DEPLOYMENT, "a", garbage), None, "{garbage}");
        }
    }
}
