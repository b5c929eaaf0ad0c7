//! A batch's body from a device: read as the server reads it. Every item is answered; alone it is
//! what it is among the others; and what is taken is a capture of this device under a signature
//! that holds.
#![no_main]

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use punchtrail_domain::delivery::{Found, ReadItem, Rules};
use punchtrail_protocol::{
    DeviceId, OrgId, SiteId,
    signing::{CAPTURE_TYPE, PublicKey, sign, to_base64url},
    strict_json,
    wire::{BATCH_ITEMS_MAX, BatchItem, BatchRequest},
};

/// The key, organisation, site and device of the captures in the corpus.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let id = |n: u128| uuid(0x5f0c_7a52_0000_4000_8000_0000_0000_0000 + n);
    Rules {
        device: id(3).parse::<DeviceId>().expect("a device"),
        key: PublicKey::from(&*KEY),
        org: id(1).parse::<OrgId>().expect("an organisation"),
        sites: vec![id(2).parse::<SiteId>().expect("a site")],
    }
});

fn uuid(n: u128) -> String {
    let hex = format!("{n:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn said(item: &ReadItem) -> String {
    format!("{:?}", item.found)
}

fn check(items: Vec<BatchItem>) {
    let alone: Vec<String> = items
        .iter()
        .flat_map(|item| RULES.read_all(vec![item.clone()]))
        .map(|i| said(&i))
        .collect();
    let read = RULES.read_all(items.clone());
    assert_eq!(read.len(), items.len());
    for ((item, alone), sent) in read.iter().zip(alone).zip(&items) {
        assert_eq!(said(item), alone);
        assert_eq!((&item.raw.capture, &item.raw.signature), (&sent.capture, &sent.signature));
        let Found::Capture { text, signature, said } = &item.found else {
            assert!(item.fault().is_some());
            continue;
        };
        let capture = text.capture().expect("what is taken can be read");
        assert_eq!((capture.device, capture.org), (RULES.device, RULES.org));
        assert!(RULES.sites.contains(&capture.site));
        assert_eq!((said.punch, said.seq), (capture.punch, capture.seq));
        let signed = RULES.key.verify(CAPTURE_TYPE, text.as_str().as_bytes(), signature);
        assert_eq!(signed, Ok(()));
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(batch) = strict_json::parse::<BatchRequest>(bytes)
        && batch.punches.len() <= BATCH_ITEMS_MAX
    {
        check(batch.punches);
    }
    // The same bytes as a device's capture, since nobody guesses a signature.
    let signature = to_base64url(&sign(&KEY, CAPTURE_TYPE, bytes).0);
    check(vec![BatchItem { capture: to_base64url(bytes), signature }]);
});
