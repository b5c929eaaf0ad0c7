//! The site's policy: the values by which punches are captured, delivered and judged, and their
//! ranges. How a punch is judged by them is in [`judging`].

pub mod judging;

use icu_locale_core::LanguageIdentifier;
use isolang::Language;
use punchtrail_protocol::wire::DevicePolicy;
use serde::{Deserialize, Serialize};

use crate::punch::{Floors, Provider};

/// One day in seconds.
const DAY_S: u32 = 86_400;

/// How punches at a site are captured, delivered and judged. Durations are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The most items a device puts into one batch, 1 to 500.
    pub batch_max: u32,
    /// The rate at which a device drains, punches a minute, 1 to 60,000.
    pub punches_per_minute: u32,
    /// Over how long devices spread their first sync after a reconnect, 0 to 3,600.
    pub reconnect_spread_s: u32,
    /// How often a device reports, 5 to 86,400.
    pub heartbeat_s: u32,
    /// How long a device keeps what was acknowledged, 1 day to 1 year.
    pub restore_window_s: u32,
    /// Punches older than this on receipt are referred, 1 hour to 1 year.
    pub lookback_s: u32,
    /// A clock known to be off by more than this is suspect, 1 to 86,400.
    pub clock_suspect_s: u32,
    /// Two punches of one person and kind within this time are near-duplicates, 0 (off) to 3,600.
    pub near_duplicate_s: u32,
    /// Punches of one person at two sites within this time are doubted, 0 (off) to 86,400.
    pub travel_s: u32,
    /// A punch of the opposite kind within this time is doubted as one reading taken twice, 0 (off)
    /// to 600.
    pub opposite_kind_s: u32,
    /// Whether punches of people who aren't assigned to the site are referred.
    pub refer_visitors: bool,
    /// Whether photos are taken of everybody, for people to look at.
    pub photos: bool,
    /// Whether pictures of those who agreed are taken and compared with their reference photos.
    pub faces: bool,
    /// How long a verdict on a picture is waited for after a punch was received, 60 to 604,800.
    pub face_deadline_s: u32,
    /// From which cosine on the local check calls it a match, in ten-thousandths, 1 to 10,000.
    pub face_local_min: u32,
    /// From which similarity on Rekognition's answer is a match, in hundredths of a percent, 1 to
    /// 10,000.
    pub face_rekognition_min: u32,
    /// How bright a face must be to be compared, 0 to 100 on its checker's scale.
    pub face_brightness_min: u32,
    /// How bright it may be, 0 to 100.
    pub face_brightness_max: u32,
    /// How sharp it must be, 0 to 100 on its checker's scale.
    pub face_sharpness_min: u32,
    /// How wide it must be, in pixels, 20 to 1,000.
    pub face_px_min: u32,
    /// For how many days pictures of punches are kept, 1 to 3,660.
    pub photo_retention_days: u32,
    /// How many days after somebody left what is kept of their face is erased, 0 to 1,095.
    pub face_departed_days: u32,
    /// Until when a referred punch should be ruled on before it is escalated, in seconds: 1 hour to
    /// 30 days.
    pub review_deadline_s: u32,
    /// For how many days after a punch its records must be kept, 0 to 3,660; nobody who punched
    /// there can be erased before.
    pub record_retention_days: u32,
    /// The kiosk's languages, the first is the default; 1 to 16, no two alike. Each is a tag of BCP
    /// 47 with a language of ISO 639, and a script and a region if need be: `de`, `pt-BR`,
    /// `zh-Hant-TW`.
    pub languages: Vec<String>,
    /// When the business day starts, in minutes after midnight, 0 to 1,439.
    pub day_starts_min: u32,
    /// The longest plausible shift; one open for longer is unmatched. 1 hour to 48 hours.
    pub shift_max_s: u32,
}

impl Default for Policy {
    fn default() -> Self {
        let told = DevicePolicy::default();
        Self {
            batch_max: told.batch_max,
            punches_per_minute: told.punches_per_minute,
            reconnect_spread_s: told.reconnect_spread_s,
            heartbeat_s: told.heartbeat_s,
            restore_window_s: told.restore_window_s,
            lookback_s: told.lookback_s,
            clock_suspect_s: told.clock_suspect_s,
            near_duplicate_s: told.near_duplicate_s,
            travel_s: 600,
            opposite_kind_s: 10,
            refer_visitors: false,
            photos: told.photos,
            faces: false,
            face_deadline_s: 4 * 3_600,
            face_local_min: 4_000,
            face_rekognition_min: 9_900,
            face_brightness_min: 10,
            face_brightness_max: 90,
            face_sharpness_min: 20,
            face_px_min: 80,
            photo_retention_days: 90,
            face_departed_days: 30,
            review_deadline_s: 3 * DAY_S,
            record_retention_days: 3 * 365,
            languages: told.languages,
            day_starts_min: 0,
            shift_max_s: 16 * 3_600,
        }
    }
}

/// A value of a policy that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is out of its range.
    #[error("`{field}` must be from {min} to {max}")]
    Range { field: &'static str, min: u32, max: u32 },
    /// No language's tag, by its place in the list.
    #[error(
        "`languages` has in place {} no tag of a language like `de` or `pt-BR` (BCP 47, ISO 639)",
        .0 + 1
    )]
    NoLanguage(usize),
    /// A tag that is there twice.
    #[error("`languages` has in place {} a tag that it has before", .0 + 1)]
    LanguageTwice(usize),
}

impl PolicyError {
    /// A JSON pointer (RFC 6901) to the value.
    pub fn pointer(&self) -> String {
        match self {
            Self::Range { field, .. } => format!("/{field}"),
            Self::NoLanguage(place) | Self::LanguageTwice(place) => format!("/languages/{place}"),
        }
    }
}

/// The longest tag: a language, a script and a region.
const TAG_CHARS_MAX: usize = "zho-Hant-419".len();

/// Whether that is the tag of a language: of BCP 47 with a language of ISO 639.
pub fn is_language(tag: &str) -> bool {
    if tag.len() > TAG_CHARS_MAX {
        return false;
    }
    let Ok(read) = LanguageIdentifier::try_from_str(tag) else { return false };
    let language = read.language.as_str();
    let known = match language.len() {
        2 => Language::from_639_1(language),
        3 => Language::from_639_3(language),
        _ => None,
    };
    // ISO 639 has codes for what is none, several or not known.
    let is_one = !["und", "mul", "mis", "zxx"].contains(&language);
    is_one && known.is_some() && read.variants.is_empty() && !tag.contains('_')
}

impl Policy {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// Names the first that isn't, or a language that can't be.
    pub fn check(&self) -> Result<(), PolicyError> {
        let languages = u32::try_from(self.languages.len()).unwrap_or(u32::MAX);
        let ranges = [
            ("batch_max", self.batch_max, 1, 500),
            ("punches_per_minute", self.punches_per_minute, 1, 60_000),
            ("reconnect_spread_s", self.reconnect_spread_s, 0, 3_600),
            ("heartbeat_s", self.heartbeat_s, 5, DAY_S),
            ("restore_window_s", self.restore_window_s, DAY_S, 366 * DAY_S),
            ("lookback_s", self.lookback_s, 3_600, 366 * DAY_S),
            ("clock_suspect_s", self.clock_suspect_s, 1, DAY_S),
            ("near_duplicate_s", self.near_duplicate_s, 0, 3_600),
            ("travel_s", self.travel_s, 0, DAY_S),
            ("opposite_kind_s", self.opposite_kind_s, 0, 600),
            ("face_deadline_s", self.face_deadline_s, 60, 7 * DAY_S),
            ("face_local_min", self.face_local_min, 1, 10_000),
            ("face_rekognition_min", self.face_rekognition_min, 1, 10_000),
            ("face_brightness_min", self.face_brightness_min, 0, 100),
            ("face_brightness_max", self.face_brightness_max, 0, 100),
            ("face_sharpness_min", self.face_sharpness_min, 0, 100),
            ("face_px_min", self.face_px_min, 20, 1_000),
            ("photo_retention_days", self.photo_retention_days, 1, 3_660),
            ("face_departed_days", self.face_departed_days, 0, 1_095),
            ("review_deadline_s", self.review_deadline_s, 3_600, 30 * DAY_S),
            ("record_retention_days", self.record_retention_days, 0, 3_660),
            ("languages", languages, 1, 16),
            ("day_starts_min", self.day_starts_min, 0, 1_439),
            ("shift_max_s", self.shift_max_s, 3_600, 48 * 3_600),
        ];
        match ranges.into_iter().find(|&(_, value, min, max)| value < min || value > max) {
            Some((field, _, min, max)) => Err(PolicyError::Range { field, min, max }),
            None => self.check_languages(),
        }
    }

    fn check_languages(&self) -> Result<(), PolicyError> {
        for (place, tag) in self.languages.iter().enumerate() {
            if !is_language(tag) {
                return Err(PolicyError::NoLanguage(place));
            }
            if self.languages[..place].iter().any(|before| before.eq_ignore_ascii_case(tag)) {
                return Err(PolicyError::LanguageTwice(place));
            }
        }
        Ok(())
    }

    /// Whether photos are taken of somebody whose face may be compared, or may not.
    pub const fn takes_photos_of(&self, is_comparable: bool) -> bool {
        self.photos || (self.faces && is_comparable)
    }

    /// What a face must have to be compared.
    pub fn face_floors(&self) -> Floors {
        let percent = |value: u32| u8::try_from(value).unwrap_or(100);
        Floors {
            brightness_min: percent(self.face_brightness_min),
            brightness_max: percent(self.face_brightness_max),
            sharpness_min: percent(self.face_sharpness_min),
            face_px_min: self.face_px_min,
        }
    }

    /// From which similarity on a provider's answer is a match, in ten-thousandths.
    pub const fn face_threshold(&self, provider: Provider) -> u32 {
        match provider {
            Provider::Rekognition => self.face_rekognition_min,
            Provider::Local => self.face_local_min,
            Provider::Review => u32::MAX,
        }
    }

    /// How far around a punch its neighbours must be known, in milliseconds.
    pub fn neighbourhood_ms(&self) -> i64 {
        let widest_s = self.near_duplicate_s.max(self.travel_s).max(self.opposite_kind_s);
        i64::from(widest_s) * 1_000
    }
}

impl From<&Policy> for DevicePolicy {
    fn from(policy: &Policy) -> Self {
        Self {
            batch_max: policy.batch_max,
            punches_per_minute: policy.punches_per_minute,
            reconnect_spread_s: policy.reconnect_spread_s,
            heartbeat_s: policy.heartbeat_s,
            restore_window_s: policy.restore_window_s,
            lookback_s: policy.lookback_s,
            clock_suspect_s: policy.clock_suspect_s,
            near_duplicate_s: policy.near_duplicate_s,
            photos: policy.photos || policy.faces,
            languages: policy.languages.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_out_of_range_names_its_field() {
        assert_eq!(Policy::default().check(), Ok(()));
        let wrong = Policy { batch_max: 501, ..Policy::default() };
        let refused = PolicyError::Range { field: "batch_max", min: 1, max: 500 };
        assert_eq!(wrong.check(), Err(refused));
    }

    #[test]
    fn languages_are_tags_of_languages() {
        let of = |tags: &[&str]| {
            let languages = tags.iter().map(|tag| (*tag).to_owned()).collect();
            Policy { languages, ..Policy::default() }.check()
        };
        let real = ["de", "pt-BR", "zh-Hant-TW", "es-419", "gsw", "sr-Latn", "DE-at", "kmr"];
        assert_eq!(of(&real), Ok(()));
        for wrong in [
            "",
            " ",
            "x",
            "zz",
            "qqq",
            "english",
            "und",
            "*",
            "de_DE",
            "de-",
            "-de",
            "d e",
            "de\n",
            "de-DE-1996",
            "de-x-private",
            "i-klingon",
            "en-US-u-hc-h12",
            "\u{202e}de",
            "ｄｅ",
            "de-DEUTSCHLAND",
            &"de".repeat(10_000),
        ] {
            assert_eq!(of(&["en", wrong]), Err(PolicyError::NoLanguage(1)), "{wrong:?}");
        }
        assert_eq!(of(&["de", "tr", "DE"]), Err(PolicyError::LanguageTwice(2)));
        assert!(matches!(of(&[]), Err(PolicyError::Range { .. })));
        assert!(matches!(of(&["de"; 17]), Err(PolicyError::Range { .. })));
    }
}
