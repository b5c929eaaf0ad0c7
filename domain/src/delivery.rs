//! A device's delivery, read: each item in the protocol's order of checks, so that it becomes a
//! capture or goes to quarantine. No item is refused, and nothing is decided that depends on what
//! the ledger holds: duplicates, conflicts and forks are settled there.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_protocol::{
    BootId, DeviceId, Digest, OrgId, PunchId, SiteId, Time,
    capture::{CAPTURE_BYTES_MAX, Capture, CaptureError, CaptureText, Fragment},
    signing::{CAPTURE_TYPE, PublicKey, Signature, from_base64url},
    vocabulary::QuarantineCode,
    wire::BatchItem,
};

/// The longest text that encodes a capture of the largest size, in characters.
const CAPTURE_CHARS_MAX: usize = (CAPTURE_BYTES_MAX * 4).div_ceil(3);

/// What a device's items are held against.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The device that is authenticated.
    pub device: DeviceId,
    pub key: PublicKey,
    /// The organisation whose ledger this is.
    pub org: OrgId,
    /// Every site the device was ever assigned to.
    pub sites: Vec<SiteId>,
}

/// An item that was read.
#[derive(Debug)]
pub struct ReadItem {
    pub raw: BatchItem,
    pub found: Found,
}

/// What an item was found to be.
#[derive(Debug)]
pub enum Found {
    /// A capture of that device.
    Capture {
        text: CaptureText,
        /// The signature over them, found valid.
        signature: Signature,
        said: Said,
    },
    /// Something that can't be taken as a punch.
    Fault {
        code: QuarantineCode,
        detail: String,
        /// What can be read of it all the same.
        fragment: Fragment,
        /// Its place in the device's chain, if it has one.
        held: Held,
        /// The punch that these very bytes are, if the ledger has it.
        known_as: KnownAs,
    },
}

/// What of a capture its answer and its clock rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    pub punch: PunchId,
    pub seq: u64,
    /// Digest of the capture before.
    pub prev: Digest,
    pub boot: BootId,
    pub captured_at: Time,
    /// Milliseconds on the monotonic clock since the boot.
    pub uptime_ms: u64,
}

impl From<&Capture> for Said {
    fn from(capture: &Capture) -> Self {
        let Capture { punch, seq, prev, boot, captured_at, uptime_ms, .. } = *capture;
        Self { punch, seq, prev, boot, captured_at, uptime_ms }
    }
}

/// The number, digest and predecessor of what a device's valid signature covers.
pub type Held = Option<(u64, Digest, Digest)>;

/// The punch that a device's bytes name, and their digest: what was taken once is known again by
/// it, whatever is wrong with the item now.
pub type KnownAs = Option<(PunchId, Digest)>;

/// An item's two texts in binary, its signature not yet checked.
type Decoded = Result<(Vec<u8>, Option<Signature>), (QuarantineCode, &'static str)>;

fn decode(item: &BatchItem) -> Decoded {
    if item.capture.len() > CAPTURE_CHARS_MAX {
        return Err((QuarantineCode::TooLarge, "The capture has more than 4,096 bytes."));
    }
    let bytes = URL_SAFE_NO_PAD.decode(&item.capture).map_err(|_| {
        (QuarantineCode::BadEncoding, "The capture is not base64url without padding.")
    })?;
    if bytes.len() > CAPTURE_BYTES_MAX {
        return Err((QuarantineCode::TooLarge, "The capture has more than 4,096 bytes."));
    }
    Ok((bytes, from_base64url(&item.signature).map(Signature)))
}

impl Rules {
    /// Reads a device's items, in order. Their signatures are checked together; takes as long as
    /// that.
    pub fn read_all(&self, items: Vec<BatchItem>) -> Vec<ReadItem> {
        let decoded: Vec<Decoded> = items.iter().map(decode).collect();
        let signed: Vec<(&[u8], Signature)> = decoded
            .iter()
            .filter_map(|item| {
                item.as_ref().ok().and_then(|(bytes, signature)| Some((&bytes[..], (*signature)?)))
            })
            .collect();
        let mut valid = self.key.verify_all(CAPTURE_TYPE, &signed).into_iter();
        drop(signed);
        items
            .into_iter()
            .zip(decoded)
            .map(|(raw, decoded)| {
                let found = match decoded {
                    Err((code, detail)) => Found::Fault {
                        code,
                        detail: detail.to_owned(),
                        fragment: Fragment::default(),
                        held: None,
                        known_as: None,
                    },
                    Ok((bytes, Some(signature))) if valid.next() == Some(true) => {
                        self.read_signed(bytes, signature)
                    }
                    Ok((bytes, signature)) => self.unsigned(&bytes, signature.is_some()),
                };
                ReadItem { raw, found }
            })
            .collect()
    }

    /// Which punch these bytes are, if the ledger has it. It took them by the rules of its time.
    fn known_as(&self, bytes: &[u8]) -> KnownAs {
        let kept = Capture::parse_kept(bytes).ok().filter(|kept| kept.device == self.device)?;
        Some((kept.punch, Digest::of(bytes)))
    }

    fn unsigned(&self, bytes: &[u8], encoded: bool) -> Found {
        let (code, detail) = if encoded {
            let detail = "The signature does not verify under this device's key.";
            (QuarantineCode::BadSignature, detail)
        } else {
            let detail = "The signature is not 64 bytes in base64url without padding.";
            (QuarantineCode::BadEncoding, detail)
        };
        Found::Fault {
            code,
            detail: detail.to_owned(),
            fragment: Fragment::of(bytes),
            held: None,
            known_as: self.known_as(bytes),
        }
    }

    fn read_signed(&self, bytes: Vec<u8>, signature: Signature) -> Found {
        let fault = |code, detail: String, bytes: &[u8]| {
            let fragment = Fragment::of(bytes);
            let prev = fragment.prev.unwrap_or(Digest::ZERO);
            let held = fragment.seq.map(|seq| (seq, Digest::of(bytes), prev));
            Found::Fault { code, detail, fragment, held, known_as: self.known_as(bytes) }
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let detail = "The capture can't be taken: it is not UTF-8.";
                return fault(QuarantineCode::BadCapture, detail.to_owned(), error.as_bytes());
            }
        };
        let text = match CaptureText::taken(text) {
            Ok(text) => text,
            Err((text, error)) => {
                let code = match &error {
                    CaptureError::TooLarge(_) => QuarantineCode::TooLarge,
                    CaptureError::Bad(_) => QuarantineCode::BadCapture,
                    CaptureError::UnknownVersion(_) => QuarantineCode::UnknownVersion,
                };
                let detail = format!("The capture can't be taken: {error}.");
                return fault(code, detail, text.as_bytes());
            }
        };
        let bytes = text.as_str().as_bytes();
        let capture = match text.capture() {
            Ok(capture) => capture,
            Err(error) => return fault(QuarantineCode::BadCapture, error.to_string(), bytes),
        };
        if capture.device != self.device {
            let detail = "The capture names another device than the one that sent it.";
            return fault(QuarantineCode::WrongDevice, detail.to_owned(), bytes);
        }
        if capture.org != self.org || !self.sites.contains(&capture.site) {
            let detail =
                "The capture names another organisation, or a site that this device never served.";
            return fault(QuarantineCode::WrongSite, detail.to_owned(), bytes);
        }
        let said = capture.into();
        Found::Capture { text, signature, said }
    }
}

impl ReadItem {
    /// Punch id and number, as far as they can be told to the device.
    pub fn named(&self) -> (Option<PunchId>, Option<u64>) {
        match &self.found {
            Found::Capture { said, .. } => (Some(said.punch), Some(said.seq)),
            Found::Fault { fragment, .. } => (fragment.punch, fragment.seq),
        }
    }

    /// Why it can't be taken as a punch, in a sentence; none of a capture.
    pub fn fault(&self) -> Option<&str> {
        match &self.found {
            Found::Capture { .. } => None,
            Found::Fault { detail, .. } => Some(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use punchtrail_protocol::signing::{sign, to_base64url};
    use punchtrail_testkit::EXAMPLE;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn signed(text: &str, key: &SigningKey) -> BatchItem {
        let signature = to_base64url(&sign(key, CAPTURE_TYPE, text.as_bytes()).0);
        BatchItem { capture: to_base64url(text.as_bytes()), signature }
    }

    fn rules() -> Rules {
        let capture = Capture::parse(EXAMPLE.as_bytes()).unwrap();
        Rules {
            device: capture.device,
            key: PublicKey::from(&key()),
            org: capture.org,
            sites: vec![capture.site],
        }
    }

    #[test]
    fn of_several_faults_the_first_in_the_order_of_checks_is_named() {
        use QuarantineCode::*;
        let other = SigningKey::from_bytes(&[8; 32]);
        let elsewhere = EXAMPLE.replacen("000000000002\"", "000000000009\"", 1);
        let foreign = elsewhere.replacen("000000000003\"", "000000000009\"", 1);
        let newer = foreign.replacen(r#""v":1"#, r#""v":2"#, 1);
        let good = signed(EXAMPLE, &key());
        let texts = |capture: &str, signature: &str| BatchItem {
            capture: capture.to_owned(),
            signature: signature.to_owned(),
        };
        let items = [
            (texts(&"!".repeat(CAPTURE_CHARS_MAX + 1), "!"), Some(TooLarge), (false, false)),
            (texts("!", &good.signature), Some(BadEncoding), (false, false)),
            (texts(&good.capture, "!"), Some(BadEncoding), (true, false)),
            (signed(&newer, &other), Some(BadSignature), (true, false)),
            (signed(&newer, &key()), Some(UnknownVersion), (true, true)),
            (signed("{}", &key()), Some(BadCapture), (false, false)),
            (signed(&foreign, &key()), Some(WrongDevice), (true, true)),
            (signed(&elsewhere, &key()), Some(WrongSite), (true, true)),
            (good, None, (true, true)),
        ];
        let read = rules().read_all(items.iter().map(|(item, ..)| item.clone()).collect());
        for (item, (sent, fault, (names, holds))) in read.iter().zip(&items) {
            let (code, held) = match &item.found {
                Found::Capture { .. } => (None, true),
                Found::Fault { code, held, .. } => (Some(*code), held.is_some()),
            };
            assert_eq!((code, held), (*fault, *holds), "{sent:?}");
            assert_eq!(item.named().1.is_some(), *names, "{sent:?}");
            assert_eq!(item.fault().is_some(), fault.is_some(), "{sent:?}");
        }
    }
}
