//! What a worker is told after a picture that can't be used: one thing to do about it, as a stable
//! code, with its text in the languages that are known here.
//!
//! A face is advice. Nothing here says that somebody isn't who they say they are.

use serde::{Deserialize, Serialize};

/// One thing that the worker can do, or that will be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Guidance {
    /// No face was found, or it is turned away.
    LookAtCamera,
    /// More than one face is as near as the other.
    OnePerson,
    /// The face is too small.
    ComeCloser,
    /// The face is too dark.
    MoreLight,
    /// The light is behind the worker, or too strong.
    LightBehind,
    /// The picture is blurred.
    HoldStill,
    /// Eyes or forehead are covered.
    TakeOffCapOrGlasses,
    /// Mouth or nose are covered.
    UncoverFace,
    /// The picture is good and was not recognised. Nothing is left to do for the worker.
    ManagerWillLook,
}

/// A language that guidance is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    #[default]
    English,
    Spanish,
    German,
}

impl Language {
    /// The language of a tag of BCP 47; English for one that isn't known here.
    pub fn of(tag: &str) -> Self {
        match tag.split('-').next().map(str::to_ascii_lowercase).as_deref() {
            Some("es" | "spa") => Self::Spanish,
            Some("de" | "deu") => Self::German,
            _ => Self::English,
        }
    }
}

impl Guidance {
    /// The code as the wire and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the worker can do something about it, so that another picture may help.
    pub const fn can_be_followed(self) -> bool {
        !matches!(self, Self::ManagerWillLook)
    }

    /// What the worker is told.
    pub const fn text(self, language: Language) -> &'static str {
        match language {
            Language::English => match self {
                Self::LookAtCamera => "Look at the camera",
                Self::OnePerson => "One person at a time",
                Self::ComeCloser => "Come closer",
                Self::MoreLight => "More light, please: turn towards it",
                Self::LightBehind => "The light is behind you: turn around",
                Self::HoldStill => "Hold still",
                Self::TakeOffCapOrGlasses => "Take off cap or sunglasses",
                Self::UncoverFace => "Uncover your face",
                Self::ManagerWillLook => "Your punch counts; a manager will look at the picture",
            },
            Language::Spanish => match self {
                Self::LookAtCamera => "Mira a la cámara",
                Self::OnePerson => "Solo una persona a la vez",
                Self::ComeCloser => "Acércate más",
                Self::MoreLight => "Falta luz: gírate hacia ella",
                Self::LightBehind => "La luz está detrás de ti: date la vuelta",
                Self::HoldStill => "No te muevas",
                Self::TakeOffCapOrGlasses => "Quítate la gorra o las gafas de sol",
                Self::UncoverFace => "Descubre tu cara",
                Self::ManagerWillLook => "Tu fichaje cuenta; un responsable mirará la foto",
            },
            Language::German => match self {
                Self::LookAtCamera => "Schau in die Kamera",
                Self::OnePerson => "Bitte nur eine Person",
                Self::ComeCloser => "Komm näher",
                Self::MoreLight => "Mehr Licht, bitte: dreh dich zum Licht",
                Self::LightBehind => "Das Licht ist hinter dir: dreh dich um",
                Self::HoldStill => "Halt still",
                Self::TakeOffCapOrGlasses => "Nimm Mütze oder Sonnenbrille ab",
                Self::UncoverFace => "Mach dein Gesicht frei",
                Self::ManagerWillLook => {
                    "Deine Buchung zählt; jemand Verantwortliches sieht sich das Bild an"
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn each_has_a_text_of_its_own_in_each_language() {
        for language in [Language::English, Language::Spanish, Language::German] {
            let mut texts: Vec<_> = Guidance::VARIANTS.iter().map(|g| g.text(language)).collect();
            texts.sort_unstable();
            texts.dedup();
            assert_eq!(texts.len(), Guidance::VARIANTS.len(), "{language:?}");
        }
    }

    #[test]
    fn a_tag_finds_its_language_and_an_unknown_one_is_english() {
        assert_eq!(Language::of("es-419"), Language::Spanish);
        assert_eq!(Language::of("DE-at"), Language::German);
        assert_eq!(Language::of("tr"), Language::English);
        assert_eq!(Guidance::LookAtCamera.as_str(), "look_at_camera");
    }
}
