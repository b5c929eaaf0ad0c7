//! The text that a device signed, as events hold it: read at most once, wherever it is passed on
//! to.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Capture, CaptureError};
use crate::Digest;

/// The text that a device signed. Cheap to clone; what it says and its digest are worked out when
/// first asked for, and shared by all clones. They come from the text alone, so they can't disagree
/// with it.
#[derive(Clone)]
pub struct CaptureText(Arc<Kept>);

struct Kept {
    text: String,
    digest: OnceLock<Digest>,
    capture: OnceLock<Result<Capture, CaptureError>>,
}

impl CaptureText {
    /// The text, character by character.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> Digest {
        *self.0.digest.get_or_init(|| Digest::of(self.0.text.as_bytes()))
    }

    /// Takes a text that has just come in, by every rule.
    ///
    /// # Errors
    /// Gives the text back with the rule or field at fault; see [`Capture::parse`].
    pub fn taken(text: String) -> Result<Self, (String, CaptureError)> {
        match Capture::parse(text.as_bytes()) {
            Ok(capture) => {
                let capture = OnceLock::from(Ok(capture));
                Ok(Self(Arc::new(Kept { text, digest: OnceLock::new(), capture })))
            }
            Err(error) => Err((text, error)),
        }
    }

    /// What it says, also if it would no longer be taken; see [`Capture::parse_kept`].
    ///
    /// # Errors
    /// When it never was a capture.
    pub fn capture(&self) -> Result<&Capture, &CaptureError> {
        self.0.capture.get_or_init(|| Capture::parse_kept(self.0.text.as_bytes())).as_ref()
    }
}

impl From<String> for CaptureText {
    fn from(text: String) -> Self {
        Self(Arc::new(Kept { text, digest: OnceLock::new(), capture: OnceLock::new() }))
    }
}

impl From<&str> for CaptureText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq for CaptureText {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for CaptureText {}

impl fmt::Debug for CaptureText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.text, f)
    }
}

impl Serialize for CaptureText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.text)
    }
}

impl<'de> Deserialize<'de> for CaptureText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for CaptureText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CaptureText".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use punchtrail_testkit::EXAMPLE;

    use super::*;

    #[test]
    fn it_is_written_as_the_very_text_and_read_once_for_all_clones() {
        let text = CaptureText::from(EXAMPLE);
        let other = text.clone();
        assert!(std::ptr::eq(text.capture().unwrap(), other.capture().unwrap()));
        assert_eq!(text.capture(), Capture::parse(EXAMPLE.as_bytes()).as_ref());
        assert_eq!(text.digest(), Digest::of(EXAMPLE.as_bytes()));
        let written = serde_json::to_string(&text).unwrap();
        assert_eq!(written, serde_json::to_string(EXAMPLE).unwrap());
        assert_eq!(serde_json::from_str::<CaptureText>(&written).unwrap(), text);
    }

    #[test]
    fn what_is_no_capture_stays_text() {
        let text = CaptureText::from("{}");
        assert!(text.capture().is_err());
        assert_eq!(text.as_str(), "{}");
    }
}
