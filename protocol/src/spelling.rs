//! One spelling of what is compared: a badge, the name of a site. One reader, keyboard or
//! spreadsheet writes `é` as one character and another as two (Unicode's normal forms C and D).

use unicode_normalization::UnicodeNormalization;

/// The text in Unicode's normal form C (UAX 15), in which such texts are kept and compared.
pub fn normal(text: &str) -> String {
    text.nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one() {
        assert_eq!(normal("cafe\u{301}-17"), "caf\u{e9}-17");
        assert_eq!(normal("caf\u{e9}-17"), "caf\u{e9}-17");
        assert_ne!(normal("cafe-17"), normal("caf\u{e9}-17"));
    }
}
