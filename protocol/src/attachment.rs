//! The attachment: a further picture for a punch that was captured, signed like the capture.
//!
//! The first frame is the capture's own; a retake is another attempt at it. The device makes the
//! bytes once and nobody ever re-serialises them.

use serde::{Deserialize, Serialize};

use crate::{
    DeviceId, Digest, PunchId, Time,
    capture::{APP_CHARS_MAX, ESCAPED_NUL, read_exactly},
    strict_json,
};

/// The largest attachment record, in bytes.
pub const ATTACHMENT_BYTES_MAX: usize = 1_024;
/// The most attempts after the first frame.
pub const ATTEMPTS_MAX: u32 = 20;

/// A retake, read and found to keep every rule of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    pub v: u8,
    pub punch: PunchId,
    /// The device that captured the punch.
    pub device: DeviceId,
    /// Digest of the picture's bytes.
    pub photo: Digest,
    /// 1 for the first after the capture's own frame.
    pub attempt: u32,
    /// The device's own clock.
    pub taken_at: Time,
    pub app: String,
}

/// Why bytes are not an attachment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// More than [`ATTACHMENT_BYTES_MAX`] bytes.
    #[error("an attachment has at most {ATTACHMENT_BYTES_MAX} bytes, this one has {0}")]
    TooLarge(usize),
    /// The JSON or a field breaks a rule.
    #[error("{0}")]
    Bad(String),
}

impl Attachment {
    /// Reads the bytes that a device signed.
    ///
    /// # Errors
    /// Names the rule or field at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttachmentError> {
        if bytes.len() > ATTACHMENT_BYTES_MAX {
            return Err(AttachmentError::TooLarge(bytes.len()));
        }
        let bad = |error: String| AttachmentError::Bad(error);
        strict_json::check(bytes).map_err(|error| bad(error.to_string()))?;
        let text = str::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
        let read: Self = read_exactly(text).map_err(|error| bad(error.to_string()))?;
        let fault = match &read {
            r if r.v != 1 => Some("`v` is 1"),
            r if r.attempt == 0 || r.attempt > ATTEMPTS_MAX => {
                Some("`attempt` is an integer from 1 to 20")
            }
            r if r.app.chars().count() > APP_CHARS_MAX => Some("`app` has at most 64 characters"),
            _ if text.contains(ESCAPED_NUL) => Some("a text has no NUL"),
            _ => None,
        };
        fault.map_or(Ok(read), |rule| Err(bad(rule.to_owned())))
    }

    /// Reads bytes that the ledger holds.
    ///
    /// # Errors
    /// When they never were an attachment.
    pub fn parse_kept(bytes: &[u8]) -> Result<Self, AttachmentError> {
        serde_json::from_slice(bytes).map_err(|error| AttachmentError::Bad(error.to_string()))
    }

    /// The bytes to sign, made once on the device.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = concat!(
        r#"{"v":1,"punch":"0190a5f0-0000-7c1a-8000-000000000001","#,
        r#""device":"0190a5f0-0000-7c1a-8000-000000000002","#,
        r#""photo":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","#,
        r#""attempt":1,"taken_at":"2026-11-21T08:59:09.120Z","app":"kiosk/1.0"}"#
    );

    #[test]
    fn an_example_is_read_and_made_byte_for_byte() {
        let read = Attachment::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(read.attempt, 1);
        assert_eq!(String::from_utf8(read.to_bytes()).unwrap(), EXAMPLE);
        assert_eq!(Attachment::parse_kept(EXAMPLE.as_bytes()), Ok(read));
    }

    #[test]
    fn every_broken_rule_is_named() {
        for (from, to) in [
            (r#""v":1"#, r#""v":2"#),
            (r#""attempt":1"#, r#""attempt":0"#),
            (r#""attempt":1"#, r#""attempt":21"#),
            (r#""attempt":1"#, r#""attempt":1.0"#),
            (r#""attempt":1"#, r#""attempt":1,"attempt":2"#),
            (r#""app""#, r#""note":"x","app""#),
            ("kiosk/1.0", r"kiosk\u0000"),
            (r#""photo":"e3"#, r#""photo":"E3"#),
        ] {
            let text = EXAMPLE.replacen(from, to, 1);
            assert_ne!(text, EXAMPLE, "{from}");
            let refused = Attachment::parse(text.as_bytes());
            assert!(matches!(refused, Err(AttachmentError::Bad(_))), "{to}");
        }
        let long = EXAMPLE.replacen("kiosk", &"k".repeat(2_000), 1);
        assert!(matches!(Attachment::parse(long.as_bytes()), Err(AttachmentError::TooLarge(_))));
    }
}
