//! Cursors: opaque, and authenticated with the deployment's key, so that nobody makes one up and
//! none is taken where it was not given out.
//!
//! A cursor carries a place and is bound to a scope that it does not carry: the route and whatever
//! else must be as it was, the site for one, or the hash of the event at the place. Where that has
//! changed, the cursor is refused.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_infra::access::deployment::Deployment;

use crate::{
    problem::{Code, Refusal},
    seal::{self, TAG_BYTES},
};

/// No cursor of ours is longer.
pub const CURSOR_CHARS_MAX: usize = 256;

/// The cursor for `place` within `scope`.
pub fn seal(deployment: &Deployment, scope: &[&[u8]], place: &[u8]) -> String {
    let mut bytes = tag(deployment, scope, place).to_vec();
    bytes.extend_from_slice(place);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place of a cursor, not yet known to be of any scope.
#[derive(Debug)]
pub struct Unproven {
    bytes: Vec<u8>,
}

/// Reads a cursor's place; [`Unproven::prove`] has to follow.
///
/// # Errors
/// When it can't be a cursor.
pub fn open(cursor: &str) -> Result<Unproven, Refusal> {
    if cursor.len() > CURSOR_CHARS_MAX {
        return Err(invalid());
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    if bytes.len() < TAG_BYTES { Err(invalid()) } else { Ok(Unproven { bytes }) }
}

impl Unproven {
    /// The place that it claims.
    pub fn claimed(&self) -> &[u8] {
        &self.bytes[TAG_BYTES..]
    }

    /// The place that it claims, when that is a number.
    ///
    /// # Errors
    /// When it isn't.
    pub fn claimed_number(&self) -> Result<u64, Refusal> {
        self.claimed().try_into().map(u64::from_be_bytes).map_err(|_| invalid())
    }

    /// The place, when the cursor was given out by this deployment for this scope.
    ///
    /// # Errors
    /// When it wasn't.
    pub fn prove(&self, deployment: &Deployment, scope: &[&[u8]]) -> Result<&[u8], Refusal> {
        use subtle::ConstantTimeEq;
        let expected = tag(deployment, scope, self.claimed());
        let good = bool::from(expected.ct_eq(&self.bytes[..TAG_BYTES]));
        if good { Ok(self.claimed()) } else { Err(invalid()) }
    }
}

fn tag(deployment: &Deployment, scope: &[&[u8]], place: &[u8]) -> [u8; TAG_BYTES] {
    let parts = [b"punchtrail.cursor.v1".as_slice()].into_iter();
    seal::tag(deployment, parts.chain(scope.iter().copied()).chain([place]))
}

/// The refusal of a cursor.
pub fn invalid() -> Refusal {
    Refusal::new(
        Code::CursorInvalid,
        "The cursor was not given out here, was altered, or is from before the ledger was \
         restored. Start over without one.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchtrail_protocol::OrgId;

    const DEPLOYMENT: Deployment = Deployment { org: OrgId::NIL, cursor_key: [7; 32] };

    #[test]
    fn a_cursor_is_good_where_it_was_given_out_and_nowhere_else() {
        let cursor = seal(&DEPLOYMENT, &[b"feed", b"site"], b"place");
        let read = open(&cursor).unwrap();
        assert_eq!(read.prove(&DEPLOYMENT, &[b"feed", b"site"]).unwrap(), b"place");
        assert!(read.prove(&DEPLOYMENT, &[b"feeds", b"ite"]).is_err());
        let other = Deployment { cursor_key: [8; 32], ..DEPLOYMENT };
        assert!(read.prove(&other, &[b"feed", b"site"]).is_err());
    }

    #[test]
    fn an_altered_cursor_is_refused() {
        let cursor = seal(&DEPLOYMENT, &[b"feed"], &5u64.to_be_bytes());
        for at in 0..cursor.len() {
            let mut altered = cursor.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            let taken = open(&altered)
                .and_then(|read| read.prove(&DEPLOYMENT, &[b"feed"]).map(<[u8]>::to_vec));
            assert!(taken.is_err(), "{altered}");
        }
        for garbage in ["", "A", "§", &"A".repeat(1_000)] {
            assert!(open(garbage).is_err());
        }
    }
}
