//! One spelling of what is compared: a badge, the name of a site or a person. One reader, keyboard
//! or spreadsheet writes `é` as one character and another as two (Unicode's normal forms C and D),
//! and one person types a name with its accents where another doesn't.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// The text in Unicode's normal form C (UAX 15), in which such texts are kept and compared.
pub fn normal(text: &str) -> String {
    text.nfc().collect()
}

/// The text in lower case and without accents, as names are looked for: Unicode's compatibility
/// decomposition, marks dropped, and the letters that don't decompose, like `ø`, by hand. Where
/// vowels are marks they are kept, and syllables of Korean stay whole: taken apart, one would be
/// the start of others.
pub fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    for c in text.nfkd().filter(|c| !is_accent(*c)).flat_map(char::to_lowercase) {
        match c {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' | 'ð' => folded.push('d'),
            'ħ' => folded.push('h'),
            'ı' => folded.push('i'),
            // What lower-casing a dotted capital leaves.
            c if is_accent(c) => {}
            c => folded.push(c),
        }
    }
    match folded.contains(|c| matches!(c, '\u{1100}'..='\u{11ff}')) {
        true => folded.nfc().collect(),
        false => folded,
    }
}

/// Whether a mark only shades the letter it stands on. From Devanagari on, the signs that Unicode
/// counts as alphabetic are vowels.
fn is_accent(c: char) -> bool {
    is_combining_mark(c) && !(c >= '\u{900}' && c.is_alphabetic())
}

/// Whether two spellings are of one name: case, accents and spaces make no difference.
pub fn same_name(one: &str, other: &str) -> bool {
    name_key(one) == name_key(other)
}

/// What is the same for all spellings of a name.
pub fn name_key(name: &str) -> String {
    folded(name).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_name_however_it_is_spelled() {
        for (one, other) in [
            ("José  García", "jose garcia"),
            (" Öz,\u{a0}Ada", "OZ, ada"),
            ("Søren Ørsted", "SOREN ORSTED"),
        ] {
            assert!(same_name(one, other), "{one} {other}");
        }
        assert!(!same_name("Worker A", "Worker B"));
        assert!(!same_name("Ann Alee", "Anna Lee"));
    }

    #[test]
    fn both_spellings_are_one() {
        assert_eq!(normal("cafe\u{301}-17"), "caf\u{e9}-17");
        assert_eq!(normal("caf\u{e9}-17"), "caf\u{e9}-17");
        assert_ne!(normal("cafe-17"), normal("caf\u{e9}-17"));
    }
}
