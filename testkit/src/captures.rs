//! Captures as a device makes them. No other test code writes one out field by field, so what a
//! capture holds is changed here alone.

use ed25519_dalek::SigningKey;
use punchtrail_protocol::{
    DeviceId, Digest, OrgId, PunchId, SiteId,
    capture::Capture,
    signing::{CAPTURE_TYPE, Signature, sign, to_base64url},
    wire::BatchItem,
};
use uuid::Uuid;

/// A capture's bytes: a worker who was on the roster starts work, offline, first of its device.
pub const EXAMPLE: &str = concat!(
    r#"{"v":1,"punch":"0190b5a2-7f3e-7c1a-9d2e-3f4a5b6c7d8e","#,
    r#""org":"5f0c7a52-0000-4000-8000-000000000001","#,
    r#""site":"5f0c7a52-0000-4000-8000-000000000002","#,
    r#""device":"5f0c7a52-0000-4000-8000-000000000003","#,
    r#""employee":"5f0c7a52-0000-4000-8000-000000000004","badge":null,"kind":"in","#,
    r#""captured_at":"2026-11-21T08:59:03.120Z","utc_offset_s":3600,"tz":"Europe/Berlin","seq":1,"#,
    r#""prev":"0000000000000000000000000000000000000000000000000000000000000000","#,
    r#""boot":"5f0c7a52-0000-4000-8000-000000000005","uptime_ms":61000,"identified_by":"badge","#,
    r#""photo":null,"offline":true,"app":"kiosk/1.0"}"#
);

/// A device's captures, each naming the one before, and its key.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The device's key.
    pub key: SigningKey,
    /// What the next capture says unless it is changed: its place in the chain, and otherwise what
    /// all say. Its punch is none yet, each gets a new one.
    pub next: Capture,
}

impl Chain {
    /// No capture yet; the first will be like [`EXAMPLE`], of this device.
    #[expect(clippy::expect_used, reason = "the example is a capture, as a test of protocol holds")]
    pub fn new(org: OrgId, site: SiteId, device: DeviceId, key: SigningKey) -> Self {
        let example = Capture::parse(EXAMPLE.as_bytes()).expect("an example of a capture");
        Self { key, next: Capture { punch: PunchId::NIL, org, site, device, ..example } }
    }

    /// The number of the last capture, 0 before the first.
    pub fn seq(&self) -> u64 {
        self.next.seq - 1
    }

    /// The next capture, a new punch.
    pub fn capture(&mut self) -> Capture {
        self.capture_with(|_| {})
    }

    /// The next capture, a new punch, after `change`. The chain goes on from what it then is, by
    /// number and digest; nothing else of the change is kept.
    pub fn capture_with(&mut self, change: impl FnOnce(&mut Capture)) -> Capture {
        let mut capture = Capture { punch: PunchId(Uuid::now_v7()), ..self.next.clone() };
        change(&mut capture);
        (self.next.seq, self.next.prev) = (capture.seq + 1, Digest::of(&capture.to_bytes()));
        capture
    }

    /// The device's signature of any bytes, as of a capture.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        sign(&self.key, CAPTURE_TYPE, bytes)
    }

    /// Any bytes on the wire, signed as a capture.
    pub fn signed(&self, bytes: &[u8]) -> BatchItem {
        BatchItem { capture: to_base64url(bytes), signature: self.sign(bytes).to_string() }
    }

    /// A capture on the wire.
    pub fn item(&self, capture: &Capture) -> BatchItem {
        self.signed(&capture.to_bytes())
    }
}

/// A capture's text, as it is signed and as events hold it.
#[expect(clippy::expect_used, reason = "JSON is UTF-8")]
pub fn text(capture: &Capture) -> String {
    String::from_utf8(capture.to_bytes()).expect("a capture is JSON, so UTF-8")
}

#[cfg(test)]
mod tests {
    use punchtrail_protocol::signing::{PublicKey, from_base64url};

    use super::*;

    #[test]
    fn each_capture_names_the_one_before_and_is_signed() {
        let (org, site, device) = (OrgId::NIL, SiteId::NIL, DeviceId::NIL);
        let mut chain = Chain::new(org, site, device, SigningKey::from_bytes(&[7; 32]));
        assert_eq!(chain.seq(), 0);
        let first = chain.capture();
        let astray = chain.capture_with(|capture| (capture.seq, capture.offline) = (5, false));
        let last = chain.capture();
        assert_eq!([first.seq, astray.seq, last.seq, chain.seq()], [1, 5, 6, 6]);
        assert_eq!(first.prev, Digest::ZERO);
        assert_eq!(astray.prev, Digest::of(text(&first).as_bytes()));
        assert_eq!(last.prev, Digest::of(text(&astray).as_bytes()));
        assert!(last.offline, "a change is of one capture");
        assert_ne!(first.punch, last.punch);
        for capture in [&first, &astray, &last] {
            assert_eq!(Capture::parse(text(capture).as_bytes()).as_ref(), Ok(capture));
            let item = chain.item(capture);
            let signature = Signature(from_base64url(&item.signature).unwrap());
            let public = PublicKey::from(&chain.key);
            assert_eq!(item.capture, to_base64url(text(capture).as_bytes()));
            assert_eq!(public.verify(CAPTURE_TYPE, text(capture).as_bytes(), &signature), Ok(()));
        }
    }
}
