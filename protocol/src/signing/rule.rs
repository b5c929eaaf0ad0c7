//! The rule for a signature (docs/device-protocol.md): the cofactored equation of RFC 8032, section
//! 5.1.7, over canonical encodings, with no R of small order. It is algorithm 2 of K. Chalkias,
//! F. Garillot, V. Nikolaenko, "Taming the many EdDSAs" (2020), which shows that only with the
//! cofactor there is one answer alone and in a batch; R's order is checked besides.
//!
//! Many signatures of one key are checked by one equation (D. J. Bernstein et al., "High-speed
//! high-security signatures", 2011, section 5). A device's batch has one key, so its point is
//! multiplied once however many signatures there are. The library's own batch multiplies a key for
//! each, which is more than half of its work. What is random in the equation is derived from
//! everything that is checked, as the library does it: whoever makes signatures can't know the
//! factors before all of them are fixed.

use curve25519_dalek::{
    EdwardsPoint, Scalar, constants::ED25519_BASEPOINT_POINT, edwards::CompressedEdwardsY,
    traits::VartimeMultiscalarMul,
};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha512};

use super::Signature;

/// What the factors' derivation begins with.
const FACTORS_TAG: &[u8] = b"punchtrail.batch.v1";
/// How many factors of 128 bits one hash gives.
const FACTORS_PER_HASH: usize = 4;
/// The lowest byte of the field's prime 2^255 − 19; all others of it are ones.
const PRIME_LOWEST_BYTE: u8 = 0xed;

/// A signature taken apart; it holds when 8·s·B = 8·R + 8·h·A for the key A.
pub(super) struct Claim {
    r: EdwardsPoint,
    s: Scalar,
    /// SHA-512 of R, A and what is signed (RFC 8032, section 5.1.7); h once reduced.
    hash: [u8; 64],
}

impl Claim {
    /// That `signature` signs the two parts of a text, one after the other; none when no text could
    /// make it hold: its R is no point in its one spelling, or one of small order, or its s is not
    /// reduced.
    pub(super) fn of(key: &VerifyingKey, text: [&[u8]; 2], signature: &Signature) -> Option<Self> {
        let (r, s) = signature.0.split_first_chunk()?;
        let s = Scalar::from_canonical_bytes(s.try_into().ok()?).into_option()?;
        let point = CompressedEdwardsY(*r).decompress().filter(|_| is_canonical(r))?;
        if point.is_small_order() {
            return None;
        }
        let hash = Sha512::new()
            .chain_update(r)
            .chain_update(key.as_bytes())
            .chain_update(text[0])
            .chain_update(text[1])
            .finalize()
            .into();
        Some(Self { r: point, s, hash })
    }

    /// Whether it holds; the equation of [`all_hold`] for one, which needs no factor.
    pub(super) fn holds(&self, key: &VerifyingKey) -> bool {
        let h = Scalar::from_bytes_mod_order_wide(&self.hash);
        let expected =
            EdwardsPoint::vartime_double_scalar_mul_basepoint(&-h, &key.to_edwards(), &self.s);
        (expected - self.r).is_small_order()
    }
}

/// Whether the y of an encoded point is below the field's prime. (The other rule of RFC 8032,
/// section 5.1.3, no sign where x is 0, concerns points of small order only, which are refused.)
pub(super) fn is_canonical(point: &[u8; 32]) -> bool {
    point[0] < PRIME_LOWEST_BYTE
        || point[1..31].iter().any(|byte| *byte != 0xff)
        || point[31] & 0x7f != 0x7f
}

/// Whether all hold: 8·(∑ z·s)·B = 8·∑ z·R + 8·(∑ z·h)·A, with a random factor z for each. What is
/// of small order in a point falls out by the 8 whatever its factor, so no company that a signature
/// is in changes its answer.
pub(super) fn all_hold<'a>(
    key: &VerifyingKey,
    claims: impl Iterator<Item = &'a Claim> + Clone,
) -> bool {
    let factors = factors(claims.clone());
    let (mut of_base, mut of_key) = (Scalar::ZERO, Scalar::ZERO);
    for (claim, z) in claims.clone().zip(&factors) {
        of_base -= z * claim.s;
        of_key += z * Scalar::from_bytes_mod_order_wide(&claim.hash);
    }
    let scalars = factors.iter().copied().chain([of_base, of_key]);
    let points = claims.map(|claim| claim.r).chain([ED25519_BASEPOINT_POINT, key.to_edwards()]);
    EdwardsPoint::vartime_multiscalar_mul(scalars, points).is_small_order()
}

/// A factor of 128 bits for each claim, from all claims together.
fn factors<'a>(claims: impl Iterator<Item = &'a Claim>) -> Vec<Scalar> {
    let mut all = Sha512::new().chain_update(FACTORS_TAG);
    let mut count = 0_usize;
    for claim in claims {
        // The hash covers R, the key and the text.
        all.update(claim.hash);
        all.update(claim.s.as_bytes());
        count += 1;
    }
    let seed = all.finalize();
    (0_u64..count.div_ceil(FACTORS_PER_HASH) as u64)
        .flat_map(|block| {
            let hash: [u8; 64] = Sha512::new()
                .chain_update(seed)
                .chain_update(block.to_be_bytes())
                .finalize()
                .into();
            std::array::from_fn::<_, FACTORS_PER_HASH, _>(|n| {
                let bytes = std::array::from_fn(|at| hash[16 * n + at]);
                Scalar::from(u128::from_le_bytes(bytes))
            })
        })
        .take(count)
        .collect()
}
