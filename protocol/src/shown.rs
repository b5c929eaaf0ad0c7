//! Text from outside as it may be shown: on a terminal, in a table, in a log.
//!
//! A name, a badge or a server's sentence is whatever somebody typed or sent. Written to a terminal
//! as it is, it could move the cursor, change the title, hide what follows or turn its direction
//! round, so that a line says what nobody wrote. So everything that isn't seen itself but changes
//! what is seen stands as a visible escape, `\u{1b}`; letters of all scripts, their marks and emoji
//! stay. What is kept, signed, compared or given out as JSON is never this, but the text itself.

use std::fmt;

use unicode_normalization::char::is_combining_mark;

/// Marks on one letter that are shown; real writing needs fewer.
pub const MARKS_MAX: usize = 6;
/// Tags after a black flag, which make it the flag of a region: five letters and an end.
const FLAG_TAGS_MAX: usize = 6;
const TOO_MANY_MARKS: usize = MARKS_MAX + 1;
const BLACK_FLAG: char = '\u{1f3f4}';
const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
const KEYCAP: char = '\u{20e3}';

/// A text from outside, as it may be shown. Width and fill of a format apply to what is shown.
///
/// ```
/// use punchtrail_protocol::shown::Shown;
///
/// assert_eq!(Shown::new("Zoë\u{1b}[2J 王").to_string(), "Zoë\\u{1b}[2J 王");
/// assert_eq!(Shown::new("a very long name").within(6).to_string(), "a ver…");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    text: &'a str,
    chars_max: usize,
}

impl<'a> Shown<'a> {
    /// The whole of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, chars_max: usize::MAX }
    }

    /// At most `chars_max` characters as they are shown, the last of them `…` if that isn't all. A
    /// letter and its marks are one; an escape is as many as it is long.
    #[must_use]
    pub fn within(self, chars_max: usize) -> Self {
        Self { chars_max, ..self }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&shown(self.text, self.chars_max))
    }
}

/// JSON as it may be shown: what has no look of its own stands as JSON's own escape, so that
/// whoever reads the JSON gets the very same values.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if invisible(c) && !is_joiner(c) && !is_selector(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn shown(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    // Where `…` goes if there is too much, and how much is shown.
    let (mut cut, mut chars) = (0, 0);
    let (mut base, mut marks, mut tags) = (None, 0, None);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if base.is_some() && is_combining_mark(c) && !invisible(c) {
            marks += 1;
            match marks {
                1..=MARKS_MAX => out.push(c),
                TOO_MANY_MARKS => out.push('…'),
                _ => {}
            }
            continue;
        }
        tags = match (c, tags) {
            (BLACK_FLAG, _) => Some(0),
            ('\u{e0020}'..='\u{e007f}', Some(seen)) if seen < FLAG_TAGS_MAX => Some(seen + 1),
            _ => None,
        };
        let flag = tags.is_some_and(|seen| seen > 0);
        if flag || base.is_some_and(|base| joins(base, c, rest.peek().copied())) {
            out.push(c);
            continue;
        }
        // A mark without a letter would go onto whatever stands before this text.
        let escaped = invisible(c) || is_combining_mark(c);
        let width = if escaped { c.escape_unicode().len() } else { 1 };
        if chars < chars_max {
            cut = out.len();
        }
        if width > chars_max - chars {
            out.truncate(cut);
            out.extend((chars_max > 0).then_some('…'));
            return out;
        }
        match escaped {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
        (chars, marks) = (chars + width, 0);
        if !is_skin_tone(c) {
            base = Some(if escaped { '}' } else { c });
        }
    }
    out
}

/// Whether a character is not seen itself, but changes how others are: controls, directions,
/// breaks, and what Unicode lets a display leave out (Default_Ignorable_Code_Point).
fn invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether `c`, not seen itself, is part of how `base` is written: joiners within a word of a
/// script that has them and between emoji, and selectors of a form that `base` has.
fn joins(base: char, c: char, next: Option<char>) -> bool {
    if is_joiner(c) {
        let within = |is: fn(char) -> bool| is(base) && next.is_some_and(is);
        return within(has_joiners) || c == ZERO_WIDTH_JOINER && within(is_emoji);
    }
    match c {
        '\u{fe0e}' | '\u{fe0f}' => is_emoji(base) || next == Some(KEYCAP),
        '\u{fe00}'..='\u{fe02}' | '\u{e0100}'..='\u{e01ef}' => is_ideograph(base),
        '\u{180b}'..='\u{180d}' | '\u{180f}' => matches!(base, '\u{1820}'..='\u{18aa}'),
        _ => false,
    }
}

fn is_joiner(c: char) -> bool {
    matches!(c, ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER)
}

fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

fn is_skin_tone(c: char) -> bool {
    matches!(c, '\u{1f3fb}'..='\u{1f3ff}')
}

/// Arabic and its kin, the scripts of India and those that came from them.
fn has_joiners(c: char) -> bool {
    matches!(c,
        '\u{620}'..='\u{8ff}' | '\u{900}'..='\u{dff}' | '\u{f00}'..='\u{109f}'
        | '\u{1780}'..='\u{17d3}' | '\u{1820}'..='\u{18aa}' | '\u{1a20}'..='\u{1c4f}'
        | '\u{a880}'..='\u{a9df}')
}

fn is_emoji(c: char) -> bool {
    matches!(c,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}'
        | '\u{2190}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}'
        | '\u{1f000}'..='\u{1faff}')
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> String {
        Shown::new(text).to_string()
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in [
            "Zoë Šimůnková",
            "Zoe\u{308} Nguye\u{302}\u{303}n",
            "王小明",
            "葛\u{e0100}飾 辻\u{e0101}",
            "أحمد بن محمد",
            "می\u{200c}خواهم",
            "क\u{94d}\u{200d}ष श\u{94d}री",
            "ภาษาไทย น้ำ",
            "👩\u{200d}🔧 👍🏽 👩🏽\u{200d}🔬 ❤\u{fe0f} 1\u{fe0f}\u{20e3} 🇩🇪",
            "🏳\u{fe0f}\u{200d}🌈",
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "O'Brien-Smith (Tor 3) C:\\door €5",
            "",
        ] {
            assert_eq!(all(text), text);
        }
    }

    #[test]
    fn what_would_deceive_is_seen() {
        for (text, seen) in [
            ("\u{1b}[2J\u{1b}]0;root\u{7}", "\\u{1b}[2J\\u{1b}]0;root\\u{7}"),
            ("a\u{8}b\rc\nd\te\0", "a\\u{8}b\\u{d}c\\u{a}d\\u{9}e\\u{0}"),
            ("\u{9b}31m\u{85}\u{7f}", "\\u{9b}31m\\u{85}\\u{7f}"),
            ("a\u{202e}cba\u{202c}", "a\\u{202e}cba\\u{202c}"),
            ("\u{2066}x\u{2069}\u{200f}\u{61c}", "\\u{2066}x\\u{2069}\\u{200f}\\u{61c}"),
            ("a\u{2028}b\u{2029}c", "a\\u{2028}b\\u{2029}c"),
            ("A\u{200b}da\u{feff}\u{ad}\u{2060}", "A\\u{200b}da\\u{feff}\\u{ad}\\u{2060}"),
            ("Ad\u{200d}a B\u{200c}en", "Ad\\u{200d}a B\\u{200c}en"),
            ("A\u{fe0f}da", "A\\u{fe0f}da"),
            ("A\u{e0041}\u{e0042}", "A\\u{e0041}\\u{e0042}"),
            ("\u{3164}\u{ffa0}\u{115f}", "\\u{3164}\\u{ffa0}\\u{115f}"),
            ("\u{301}a", "\\u{301}a"),
            ("\u{200d}", "\\u{200d}"),
        ] {
            assert_eq!(all(text), seen, "{text:?}");
        }
    }

    #[test]
    fn no_more_marks_than_writing_needs() {
        let piled = format!("Z{}o", "\u{336}".repeat(10_000));
        assert_eq!(all(&piled), format!("Z{}…o", "\u{336}".repeat(MARKS_MAX)));
    }

    #[test]
    fn no_more_than_asked_for() {
        let within = |text: &str, chars| Shown::new(text).within(chars).to_string();
        assert_eq!(within("Ada", 3), "Ada");
        assert_eq!(within("Adam", 3), "Ad…");
        assert_eq!(within("Ado\u{308}m", 3), "Ad…");
        assert_eq!(within("Ado\u{308}", 3), "Ado\u{308}");
        assert_eq!(within("ab\u{1b}", 8), "ab\\u{1b}");
        assert_eq!(within("ab\u{1b}", 7), "ab…", "an escape is shown whole or not at all");
        assert_eq!(within("x", 0), "");
        assert_eq!(within(&"x".repeat(10_000), 1), "…");
        assert_eq!(format!("{:<5}|{:>4}", Shown::new("Zoë"), Shown::new("x")), "Zoë  |   x");
    }

    #[test]
    fn json_stays_exact() {
        let text = "\"a\u{1b}\u{9b}\u{202e}\u{e0041}👩\u{200d}🔧❤\u{fe0f}";
        let line = json(&serde_json::to_string(text).unwrap());
        assert!(!line.chars().any(|c| matches!(c, '\u{1b}' | '\u{9b}' | '\u{202e}')), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    proptest! {
        #[test]
        fn nothing_that_deceives_is_ever_left(text in any::<String>(), chars in 0usize..40) {
            for seen in [all(&text), Shown::new(&text).within(chars).to_string()] {
                let deceives = |c: char| invisible(c) && !is_joiner(c) && !is_selector(c)
                    && !matches!(c, '\u{180b}'..='\u{180f}' | '\u{e0020}'..='\u{e007f}');
                prop_assert!(!seen.chars().any(deceives), "{seen:?}");
            }
            let bounded = Shown::new(&text).within(chars).to_string();
            let letters = bounded.chars().filter(|c| !is_combining_mark(*c)).count();
            prop_assert!(letters <= 12 * (chars + 1));
            prop_assert_eq!(all(&all(&text)), all(&text), "shown once or twice, it is the same");
            let exact = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&json(&exact)).unwrap(), text);
        }
    }
}
