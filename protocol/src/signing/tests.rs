use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
    edwards::CompressedEdwardsY,
    traits::IsIdentity,
};
use proptest::{prelude::*, sample::Index};
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
fn a_batch_agrees_with_the_single_check() {
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

/// A signature as only the holder of a private key can make it, with points of small order added to
/// R and to the key, and a multiple of the group's order to s.
#[derive(Debug, Clone)]
struct Odd {
    nonce: u64,
    of_r: usize,
    of_key: usize,
    order_added: bool,
    spoilt: bool,
}

impl Odd {
    fn key(of_key: usize) -> PublicKey {
        let point = key(1).verifying_key().to_edwards() + EIGHT_TORSION[of_key];
        PublicKey::kept(point.compress().as_bytes()).unwrap()
    }

    fn signature(&self, body: &[u8]) -> Signature {
        let r = Scalar::from(self.nonce) * ED25519_BASEPOINT_POINT + EIGHT_TORSION[self.of_r];
        let r = r.compress();
        let h = Scalar::from_bytes_mod_order_wide(
            &Sha512::new()
                .chain_update(r.as_bytes())
                .chain_update(Self::key(self.of_key).to_bytes())
                .chain_update(pre_authentication_encoding(CAPTURE_TYPE, body))
                .finalize()
                .into(),
        );
        let mut s = (Scalar::from(self.nonce) + h * key(1).to_scalar()).to_bytes();
        s[0] ^= u8::from(self.spoilt);
        if self.order_added {
            s = plus_order(s);
        }
        Signature([*r.as_bytes(), s].concat().try_into().unwrap())
    }

    /// What the rule says, told from how it was made.
    fn holds(&self) -> bool {
        self.nonce != 0 && !self.order_added && !self.spoilt
    }
}

/// s + L, for an s below L.
fn plus_order(s: [u8; 32]) -> [u8; 32] {
    let order_less_one = (-Scalar::ONE).to_bytes();
    let mut carry = 1_u16;
    std::array::from_fn(|n| {
        carry += u16::from(s[n]) + u16::from(order_less_one[n]);
        let byte = (carry & 0xff) as u8;
        carry >>= 8;
        byte
    })
}

fn odd(of_key: usize) -> impl Strategy<Value = Odd> {
    (0..6_u64, 0..8_usize, prop::bool::weighted(0.1), prop::bool::weighted(0.1)).prop_map(
        move |(nonce, of_r, order_added, spoilt)| Odd { nonce, of_r, of_key, order_added, spoilt },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Alone, in any batch, in any order: one answer, and it is the rule's.
    #[test]
    fn no_company_changes_what_a_signature_is_worth(
        (of_key, odds) in (0..8_usize)
            .prop_flat_map(|of_key| (Just(of_key), prop::collection::vec(odd(of_key), 1..24))),
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..24),
    ) {
        let mut odds = odds;
        for (a, b) in swaps {
            let (a, b) = (a.index(odds.len()), b.index(odds.len()));
            odds.swap(a, b);
        }
        let bodies: Vec<Vec<u8>> = (0..odds.len() as u8).map(|n| vec![n; 9]).collect();
        let items: Vec<(&[u8], Signature)> =
            odds.iter().zip(&bodies).map(|(odd, body)| (&body[..], odd.signature(body))).collect();
        let expected: Vec<bool> = odds.iter().map(Odd::holds).collect();
        let key = Odd::key(of_key);
        prop_assert_eq!(key.verify_all(CAPTURE_TYPE, &items), expected.clone());
        let alone: Vec<bool> = items
            .iter()
            .map(|(body, signature)| key.verify(CAPTURE_TYPE, body, signature).is_ok())
            .collect();
        prop_assert_eq!(alone, expected);
    }
}

#[test]
fn only_the_one_spelling_of_a_point_of_prime_order_is_a_new_key() {
    let honest = key(1).verifying_key().to_edwards();
    for (n, torsion) in EIGHT_TORSION.iter().enumerate() {
        let taken = PublicKey::from_bytes(torsion.compress().as_bytes());
        assert_eq!(taken, Err(KeyError::SmallOrder), "{n}");
        let taken = PublicKey::from_bytes((honest + torsion).compress().as_bytes());
        assert_eq!(taken.err(), (n > 0).then_some(KeyError::MixedOrder), "{n}");
    }
    // All 19 other spellings of a y, with either sign.
    for lowest in PRIME_LOWEST..=0xff {
        for highest in [0x7f, 0xff] {
            let mut other = [0xff; 32];
            (other[0], other[31]) = (lowest, highest);
            assert_eq!(PublicKey::from_bytes(&other), Err(KeyError::Invalid), "{lowest}");
        }
    }
}

const PRIME_LOWEST: u8 = 0xed;

/// A vector of the paper "Taming the many EdDSAs" (table 6c), and what holds of it: why the key is
/// none, why the signature is none whatever it signs, what the equation with the cofactor and the
/// one without say.
struct Case {
    message: &'static str,
    key: &'static str,
    r: &'static str,
    s: &'static str,
    /// Why the key is refused.
    key_error: Option<KeyError>,
    /// Whether R and s are such that a text could make them hold.
    plausible: bool,
    cofactored: bool,
    cofactorless: bool,
}

/// The vectors, from the paper's cases.json. No honest signer makes one of them, and none is taken.
const CASES: [Case; 12] = [
    Case {
        message: "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        key: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        r: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        s: "0000000000000000000000000000000000000000000000000000000000000000",
        key_error: Some(KeyError::SmallOrder),
        plausible: false,
        cofactored: true,
        cofactorless: true,
    },
    Case {
        message: "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        key: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        r: "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        s: "a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        key_error: Some(KeyError::SmallOrder),
        plausible: true,
        cofactored: true,
        cofactorless: true,
    },
    Case {
        message: "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        key: "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        r: "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        s: "8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
        key_error: Some(KeyError::MixedOrder),
        plausible: false,
        cofactored: true,
        cofactorless: true,
    },
    Case {
        message: "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        key: "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        r: "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f",
        s: "87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
        key_error: Some(KeyError::MixedOrder),
        plausible: true,
        cofactored: true,
        cofactorless: true,
    },
    Case {
        message: "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        key: "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        r: "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed512",
        s: "5ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
        key_error: Some(KeyError::MixedOrder),
        plausible: true,
        cofactored: true,
        cofactorless: false,
    },
    Case {
        message: "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        key: "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        r: "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7",
        s: "e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
        key_error: Some(KeyError::MixedOrder),
        plausible: true,
        cofactored: true,
        cofactorless: false,
    },
    Case {
        message: "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        key: "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        r: "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e",
        s: "547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
        key_error: None,
        plausible: false,
        cofactored: true,
        cofactorless: true,
    },
    Case {
        message: "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        key: "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        r: "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa1942",
        s: "7e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
        key_error: None,
        plausible: false,
        cofactored: true,
        cofactorless: true,
    },
    Case {
        message: "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        key: "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        r: "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        s: "03be9678ac102edcd92b0210bb34d7428d12ffc5df5f37e359941266a4e35f0f",
        key_error: Some(KeyError::MixedOrder),
        plausible: false,
        cofactored: false,
        cofactorless: false,
    },
    Case {
        message: "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        key: "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        r: "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        s: "ca8c5b64cd208982aa38d4936621a4775aa233aa0505711d8fdcfdaa943d4908",
        key_error: Some(KeyError::MixedOrder),
        plausible: false,
        cofactored: true,
        cofactorless: true,
    },
    Case {
        message: "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        key: "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        r: "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dc",
        s: "a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        key_error: Some(KeyError::SmallOrder),
        plausible: true,
        cofactored: true,
        cofactorless: false,
    },
    Case {
        message: "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        key: "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        r: "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dc",
        s: "a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        key_error: Some(KeyError::SmallOrder),
        plausible: true,
        cofactored: true,
        cofactorless: true,
    },
];

#[test]
fn the_vectors_of_the_paper_are_refused_each_for_its_reason() {
    let bytes = |hex: &str| -> [u8; 32] { hex::decode(hex).unwrap().try_into().unwrap() };
    for (n, case) in CASES.iter().enumerate() {
        let (message, key) = (hex::decode(case.message).unwrap(), bytes(case.key));
        let (r, s) = (bytes(case.r), bytes(case.s));
        let signature = Signature([r, s].concat().try_into().unwrap());
        assert_eq!(PublicKey::from_bytes(&key).err(), case.key_error, "{n}");
        let point = CompressedEdwardsY(key).decompress().unwrap();
        let plain = VerifyingKey::from_bytes(&key).unwrap();
        let claim = Claim::of(&plain, [b"", &message], &signature);
        assert_eq!(claim.is_some(), case.plausible, "{n}");
        // By the paper's own maths, without the rule.
        let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(&message);
        let h = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        let left = Scalar::from_bytes_mod_order(s) * ED25519_BASEPOINT_POINT;
        let right: EdwardsPoint = CompressedEdwardsY(r).decompress().unwrap() + h * point;
        assert_eq!((left - right).is_small_order(), case.cofactored, "{n}");
        assert_eq!((left - right).is_identity(), case.cofactorless, "{n}");
        if let Some(claim) = claim {
            assert_eq!(claim.holds(&plain), case.cofactored, "{n}");
        }
        assert!(case.key_error.is_some() || !case.plausible, "{n}: it is taken");
    }
}
