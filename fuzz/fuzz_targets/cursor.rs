//! Cursors and seals that come back: none is taken that wasn't given out, whatever it is bound to,
//! and each that was is read as it was made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchtrail_api::{ask::cursor, seal};
use punchtrail_infra::access::deployment::Deployment;
use punchtrail_protocol::OrgId;

const DEPLOYMENT: Deployment = Deployment { org: OrgId::NIL, cursor_key: [7; 32] };
/// A cursor has at most 256 characters, of which 16 bytes are the seal's.
const PLACE_BYTES_MAX: usize = 256 * 3 / 4 - 16;

fuzz_target!(|bytes: &[u8]| {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    if let Ok(text) = str::from_utf8(bytes) {
        if let Ok(read) = cursor::open(text) {
            assert!(read.prove(&DEPLOYMENT, &[b"list"]).is_err(), "a cursor was guessed");
            assert_eq!(read.claimed_number().is_ok(), read.claimed().len() == 8);
        }
        assert_eq!(seal::open(&DEPLOYMENT, "purpose", text), None, "a seal was guessed");
    }
    let sealed = seal::seal(&DEPLOYMENT, "purpose", bytes);
    assert_eq!(seal::open(&DEPLOYMENT, "purpose", &sealed).as_deref(), Some(bytes));
    assert_eq!(seal::open(&DEPLOYMENT, "purposes", &sealed), None);
    if rest.len() > PLACE_BYTES_MAX {
        return;
    }
    let given = cursor::seal(&DEPLOYMENT, &[b"list", first], rest);
    let read = cursor::open(&given).expect("what was given out is a cursor");
    assert_eq!(read.prove(&DEPLOYMENT, &[b"list", first]).ok(), Some(rest));
    assert!(read.prove(&DEPLOYMENT, &[b"list"]).is_err());
    let joined = [b"list", first].concat();
    assert!(read.prove(&DEPLOYMENT, &[&joined]).is_err());
    let mut longer = first.to_vec();
    longer.push(0);
    assert!(read.prove(&DEPLOYMENT, &[b"list", &longer]).is_err());
});
