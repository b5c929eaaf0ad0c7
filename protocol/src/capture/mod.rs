//! The capture record: what a device writes and signs at the moment of a punch.
//!
//! The device makes its bytes once and nobody ever re-serialises them; what is kept, hashed and
//! verified is the text as signed. This module reads such bytes into a [`Capture`] that can't be
//! wrong and makes them on the device. It never repairs: bytes that break a rule are refused with
//! the field at fault, and whoever called keeps them.

mod text;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use text::CaptureText;

use crate::{BootId, DeviceId, Digest, EmployeeId, OrgId, PunchId, SiteId, Time, strict_json};

/// The largest capture, in bytes.
pub const CAPTURE_BYTES_MAX: usize = 4_096;
/// The longest badge, in characters.
pub const BADGE_CHARS_MAX: usize = 64;
/// The longest program name and version, in characters.
pub const APP_CHARS_MAX: usize = 64;
/// The longest name of a time zone, in characters.
pub const ZONE_CHARS_MAX: usize = 64;
/// Numbers on the wire stay below this, 2^53, so that every JSON parser reads them alike (RFC
/// 7493).
pub const INTEGER_LIMIT: u64 = 1 << 53;
/// The largest offset of a wall clock from UTC, in seconds either way.
pub const UTC_OFFSET_S_MAX: i32 = 93_599;

/// What a punch says: that work or a break starts or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::Display, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownKind, parse_err_fn = UnknownKind::of)]
pub enum PunchKind {
    In,
    Out,
    BreakStart,
    BreakEnd,
}

impl PunchKind {
    /// The kind as the wire writes it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A text that names no kind of punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a kind is one of `in`, `out`, `break_start`, `break_end`")]
pub struct UnknownKind;

impl UnknownKind {
    fn of(_: &str) -> Self {
        Self
    }
}

/// How the device knew who punched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum IdentifiedBy {
    /// A person was chosen, then confirmed by PIN.
    Pin,
    Badge,
    Qr,
    /// A person was searched for and chosen.
    Search,
    /// A third-party terminal said so.
    Terminal,
}

/// A capture, read and found to keep every rule of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    pub v: u8,
    pub punch: PunchId,
    /// The organisation, as given at enrolment.
    pub org: OrgId,
    /// The site, as given at enrolment.
    pub site: SiteId,
    /// The device that made the capture.
    pub device: DeviceId,
    /// Who, if the manifest knew; then `badge` is none.
    #[serde(deserialize_with = "strict_json::null_or")]
    pub employee: Option<EmployeeId>,
    /// An unknown credential as read.
    #[serde(deserialize_with = "strict_json::null_or")]
    pub badge: Option<String>,
    pub kind: PunchKind,
    /// The device's own clock, never corrected.
    pub captured_at: Time,
    /// The wall clock's offset from UTC, in seconds.
    pub utc_offset_s: i32,
    /// The wall clock's IANA time zone.
    pub tz: String,
    /// One more than this device's last capture.
    pub seq: u64,
    /// Digest of the previous capture's bytes; zeros for `seq` 1.
    pub prev: Digest,
    pub boot: BootId,
    /// Milliseconds on the monotonic clock since then.
    pub uptime_ms: u64,
    /// How the device knew who punched.
    pub identified_by: IdentifiedBy,
    /// Digest of the first frame's bytes.
    #[serde(deserialize_with = "strict_json::null_or")]
    pub photo: Option<Digest>,
    /// Whether the server was out of reach.
    pub offline: bool,
    pub app: String,
}

/// The one spelling of a NUL character in JSON, which may also be a backslash and four zeros.
pub(crate) const ESCAPED_NUL: &str = r"\u0000";

/// Why bytes are not a capture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// More than [`CAPTURE_BYTES_MAX`] bytes.
    #[error("a capture has at most {CAPTURE_BYTES_MAX} bytes, this one has {0}")]
    TooLarge(usize),
    /// The JSON or a field breaks a rule.
    #[error("{0}")]
    Bad(String),
    /// A format version that this server doesn't know.
    #[error("capture format version {0} is not known here; version 1 is")]
    UnknownVersion(i64),
}

impl Capture {
    /// Reads the bytes that a device signed.
    ///
    /// # Errors
    /// Names the rule or field at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, CaptureError> {
        if bytes.len() > CAPTURE_BYTES_MAX {
            return Err(CaptureError::TooLarge(bytes.len()));
        }
        let strict =
            || strict_json::check(bytes).map_err(|error| CaptureError::Bad(error.to_string()));
        let text = str::from_utf8(bytes).map_err(|error| CaptureError::Bad(error.to_string()))?;
        // What reads as a capture is strict JSON but for one rule, for none of its fields can be
        // there twice, be passed over or nest deep. So a good capture is read once.
        match read_exactly::<Self>(text) {
            Ok(capture) if !text.contains(ESCAPED_NUL) => capture.checked(),
            Ok(capture) => strict().and_then(|()| capture.checked()),
            Err(error) => strict().and_then(|()| Err(unreadable(bytes, &error))),
        }
    }

    /// Reads bytes that the ledger holds. They were judged when they came, maybe by a server that
    /// took more than [`Self::parse`] does, and what was taken is read for ever: every rule but the
    /// fields' types is passed over, so no number of it is in its range for sure.
    ///
    /// # Errors
    /// When they never were a capture.
    pub fn parse_kept(bytes: &[u8]) -> Result<Self, CaptureError> {
        serde_json::from_slice(bytes).map_err(|error| CaptureError::Bad(error.to_string()))
    }

    fn checked(self) -> Result<Self, CaptureError> {
        if self.v != 1 {
            return Err(CaptureError::UnknownVersion(i64::from(self.v)));
        }
        let fault = match &self {
            c if !c.punch.is_v7() => Some("`punch` is not a UUID of version 7"),
            c if c.employee.is_some() == c.badge.is_some() => {
                Some("exactly one of `employee` and `badge` is null")
            }
            c if c
                .badge
                .as_ref()
                .is_some_and(|b| b.is_empty() || b.chars().count() > BADGE_CHARS_MAX) =>
            {
                Some("`badge` has 1 to 64 characters")
            }
            c if !(-UTC_OFFSET_S_MAX..=UTC_OFFSET_S_MAX).contains(&c.utc_offset_s) => {
                Some("`utc_offset_s` is beyond ±93599")
            }
            c if !zone_is_plausible(&c.tz) => Some("`tz` is not the name of a time zone"),
            c if c.seq == 0 || c.seq >= INTEGER_LIMIT => {
                Some("`seq` is an integer from 1, below 2^53")
            }
            c if c.uptime_ms >= INTEGER_LIMIT => Some("`uptime_ms` is below 2^53"),
            c if c.app.chars().count() > APP_CHARS_MAX => Some("`app` has at most 64 characters"),
            c if c.seq == 1 && c.prev != Digest::ZERO => Some("`prev` is 64 zeros for `seq` 1"),
            _ => None,
        };
        fault.map_or(Ok(self), |rule| Err(CaptureError::Bad(rule.to_owned())))
    }

    /// The bytes to sign, made once on the device.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

pub(crate) fn read_exactly<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = T::deserialize(strict_json::Exact(&mut json))?;
    json.end().map(|()| read)
}

fn zone_is_plausible(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= ZONE_CHARS_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+'))
}

/// Another version may have other fields, so the version is what is said to be wrong then.
fn unreadable(bytes: &[u8], error: &serde_json::Error) -> CaptureError {
    let value = serde_json::from_slice(bytes).unwrap_or_default();
    match lenient_field::<i64>(&value, "v") {
        Some(version) if version != 1 => CaptureError::UnknownVersion(version),
        _ => CaptureError::Bad(error.to_string()),
    }
}

/// What can still be read of bytes that are no capture: enough to answer the device and fill its
/// sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fragment {
    /// The punch id, if a UUID stands there.
    pub punch: Option<PunchId>,
    /// The sequence number, if a valid one stands there.
    pub seq: Option<u64>,
    /// The previous capture's digest, if one stands there.
    pub prev: Option<Digest>,
}

impl Fragment {
    /// Reads what can be read; never fails.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() > CAPTURE_BYTES_MAX || strict_json::check(bytes).is_err() {
            return Self::default();
        }
        let Ok(value) = serde_json::from_slice(bytes) else { return Self::default() };
        Self {
            punch: lenient_field(&value, "punch"),
            seq: lenient_field(&value, "seq").filter(|&seq| seq > 0 && seq < INTEGER_LIMIT),
            prev: lenient_field(&value, "prev"),
        }
    }
}

fn lenient_field<T: DeserializeOwned>(value: &serde_json::Value, name: &str) -> Option<T> {
    serde_json::from_value(value.get(name)?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use punchtrail_testkit::EXAMPLE;

    use super::*;

    #[test]
    fn an_example_is_read_and_made_byte_for_byte() {
        let capture = Capture::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(capture.seq, 1);
        assert_eq!(String::from_utf8(capture.to_bytes()).unwrap(), EXAMPLE);
    }

    #[test]
    fn a_backslash_before_zeros_is_no_nul() {
        let text = EXAMPLE.replacen("kiosk/1.0", r"kiosk\\u0000", 1);
        assert_eq!(Capture::parse(text.as_bytes()).unwrap().app, r"kiosk\u0000");
    }

    fn refused(from: &str, to: &str) -> CaptureError {
        let text = EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, EXAMPLE, "{from}");
        Capture::parse(text.as_bytes()).expect_err(to)
    }

    #[test]
    fn every_broken_rule_is_named() {
        for (from, to) in [
            (r#""seq":1"#, r#""seq":0"#),
            (r#""seq":1"#, r#""seq":-1"#),
            (r#""seq":1"#, r#""seq":1.5"#),
            (r#""seq":1"#, r#""seq":1e3"#),
            (r#""seq":1"#, r#""seq":9007199254740992"#),
            (r#""seq":1"#, r#""seq":99999999999999999999"#),
            (r#""seq":1"#, r#""seq":1.0"#),
            (r#""utc_offset_s":3600"#, r#""utc_offset_s":93600"#),
            (r#""utc_offset_s":3600"#, r#""utc_offset_s":-93600"#),
            (r#""utc_offset_s":3600"#, r#""utc_offset_s":-2147483648"#),
            (r#""utc_offset_s":3600"#, r#""utc_offset_s":-0"#),
            (r#""kind":"in""#, r#""kind":{"in":null}"#),
            (r#""identified_by":"badge""#, r#""identified_by":{"badge":null}"#),
            (r#""seq":1"#, r#""seq":"1""#),
            (r#""seq":1,"#, r#""seq":1,"seq":2,"#),
            (r#""kind":"in""#, r#""kind":"lunch""#),
            (r#""badge":null,"#, ""),
            (r#""badge":null"#, r#""badge":"X1""#),
            (r#""badge":null"#, r#""badge":null,"note":"hi""#),
            (
                r#""captured_at":"2026-11-21T08:59:03.120Z""#,
                r#""captured_at":"2016-12-31T23:59:60.000Z""#,
            ),
            (
                r#""captured_at":"2026-11-21T08:59:03.120Z""#,
                r#""captured_at":"2026-11-21T08:59:03.120""#,
            ),
            (r#""tz":"Europe/Berlin""#, r#""tz":"<b>""#),
            ("7c1a", "4c1a"),
            (r#""prev":"0000"#, r#""prev":"0001"#),
            (r#""offline":true"#, r#""offline":1"#),
            (r#"kiosk/1.0"}"#, r#"kiosk/1.0"} "x""#),
            ("kiosk/1.0", r"kiosk\u0000"),
            ("kiosk/1.0", r"kiosk\ud800"),
            (r#""app""#, r#""tz":"UTC","app""#),
            (r#""app""#, r#""\u0074z":"UTC","app""#),
        ] {
            assert!(matches!(refused(from, to), CaptureError::Bad(_)), "{to}");
        }
        assert_eq!(refused(r#""v":1"#, r#""v":2,"extra":true"#), CaptureError::UnknownVersion(2));
        assert!(matches!(refused("kiosk/1.0", &"k".repeat(5_000)), CaptureError::TooLarge(_)));
    }

    /// The values in the order of the fields, which serde's derived reader takes for the object.
    fn as_array() -> String {
        let object: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
        let read = Capture::parse(EXAMPLE.as_bytes()).unwrap();
        let names = String::from_utf8(read.to_bytes()).unwrap();
        let mut fields: Vec<_> = object.as_object().unwrap().iter().collect();
        fields.sort_by_key(|(name, _)| names.find(&format!("\"{name}\":")));
        serde_json::to_string(&fields.iter().map(|(_, value)| value).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn an_array_is_no_capture_and_one_that_is_kept_is_read_all_the_same() {
        let array = as_array();
        assert!(matches!(Capture::parse(array.as_bytes()), Err(CaptureError::Bad(_))));
        let kept = Capture::parse_kept(array.as_bytes()).unwrap();
        assert_eq!(kept, Capture::parse(EXAMPLE.as_bytes()).unwrap());
        assert_eq!(CaptureText::from(array).capture(), Ok(&kept));
        let far = EXAMPLE.replacen(r#""utc_offset_s":3600"#, r#""utc_offset_s":-2147483648"#, 1);
        assert_eq!(CaptureText::from(far).capture().unwrap().utc_offset_s, i32::MIN);
    }

    #[test]
    fn a_fragment_gives_what_can_be_read() {
        let text = EXAMPLE.replacen(r#""kind":"in""#, r#""kind":"lunch""#, 1);
        assert_eq!(Fragment::of(text.as_bytes()).seq, Some(1));
        assert_eq!(Fragment::of(b"not json"), Fragment::default());
    }
}
