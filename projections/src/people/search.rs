//! Finding a person by what somebody typed: tolerant of case, accents and one typo.
//!
//! Text is folded (Unicode compatibility decomposition, marks dropped, lower case, and the
//! letters that don't decompose, like `ø`, by hand) and compared word by word. One typo is an
//! edit of the optimal string alignment distance: a letter too much, missing, other, or two
//! swapped. In scripts without spaces, and of syllables, any part of a name is a word, of one
//! character too, and a space within the name may be left out. Pure, and quick enough for every
//! person of a large site at each keystroke.

use punchtrail_protocol::spelling::folded as fold;

/// Words shorter than this, in characters, must fit without a typo: one edit would make them any
/// word.
const TYPO_CHARS_MIN: usize = 3;
/// The same where a character is a syllable or a word: a name of three with one other is another's.
const TYPO_SYLLABLES_MIN: usize = 4;
/// The most words of a query that count; a name has rarely more.
const QUERY_WORDS_MAX: usize = 8;

/// How well a person fits: lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fit(u32);

const EXACT: u32 = 0;
const STARTS: u32 = 1;
const INSIDE: u32 = 2;
const TYPO: u32 = 4;
const TYPO_STARTS: u32 = 5;

/// What somebody typed, ready to be compared.
#[derive(Debug)]
pub(crate) struct Query {
    whole: String,
    words: Vec<Vec<char>>,
}

impl Query {
    /// Folds what was typed; none if nothing is left of it.
    pub(crate) fn new(typed: &str) -> Option<Self> {
        let whole = fold(typed);
        let words: Vec<Vec<char>> =
            words(&whole).take(QUERY_WORDS_MAX).map(|word| word.chars().collect()).collect();
        (!words.is_empty()).then_some(Self { whole, words })
    }

    /// How well a person of that name and those badges fits; none if not at all. Every word typed
    /// must fit a word of the name, or a badge.
    pub(crate) fn fit(&self, name: &str, badges: &[String]) -> Option<Fit> {
        let badges: Vec<String> = badges.iter().map(|badge| fold(badge)).collect();
        if badges.iter().any(|badge| badge.trim() == self.whole.trim()) {
            return Some(Fit(EXACT));
        }
        let name = fold(name);
        let mut known: Vec<Vec<char>> = words(&name).map(|word| word.chars().collect()).collect();
        if known.len() > 1 && name.contains(stands_alone) {
            known.push(known.concat());
        }
        known.extend(badges.iter().map(|badge| badge.trim().chars().collect::<Vec<char>>()));
        self.words
            .iter()
            .map(|typed| known.iter().filter_map(|word| word_fit(typed, word)).min())
            .try_fold(0, |sum, fit| Some(sum + fit?))
            .map(Fit)
    }
}

fn words(folded: &str) -> impl Iterator<Item = &str> {
    folded.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn word_fit(typed: &[char], word: &[char]) -> Option<u32> {
    if word.starts_with(typed) {
        return Some(if word.len() == typed.len() { EXACT } else { STARTS });
    }
    let syllables = typed.iter().all(|c| stands_alone(*c));
    let inside = || word.windows(typed.len()).any(|window| window == typed);
    if (syllables || typed.len() >= TYPO_CHARS_MIN) && inside() {
        return Some(INSIDE);
    }
    if typed.len() < if syllables { TYPO_SYLLABLES_MIN } else { TYPO_CHARS_MIN } {
        return None;
    }
    if within_one_edit(typed, word) {
        return Some(TYPO);
    }
    // The word may not be typed to its end yet.
    let starts = typed.len() - 1..=typed.len() + 1;
    let fits =
        starts.filter_map(|length| word.get(..length)).any(|start| within_one_edit(typed, start));
    fits.then_some(TYPO_STARTS)
}

/// Whether one word becomes the other by at most one letter inserted, removed, replaced, or two
/// neighbours swapped.
fn within_one_edit(a: &[char], b: &[char]) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if long.len() - short.len() > 1 {
        return false;
    }
    let same = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    let (short, long) = (&short[same..], &long[same..]);
    match (short, long) {
        (_, []) => true,
        (short, [_, rest @ ..]) if short.len() == rest.len() => short == rest,
        ([x, y, short @ ..], [v, w, long @ ..]) if x == w && y == v && short == long => true,
        ([_, short @ ..], [_, long @ ..]) => short == long,
        ([], _) => false,
    }
}

/// Whether a character is of a script that is written without spaces, or is a syllable: any part of
/// a name in it, of one character too, is something that people type.
fn stands_alone(c: char) -> bool {
    matches!(c,
        // Thai, Lao, Tibetan; Burmese; Korean; Khmer.
        '\u{e00}'..='\u{fff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}'
        | '\u{1780}'..='\u{17ff}'
        // Ideographs in short, kana, Bopomofo, Korean letters, kana again.
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{31ff}'
        // Ideographs and Yi; Burmese again; Korean.
        | '\u{3400}'..='\u{a4cf}' | '\u{aa60}'..='\u{aa7f}' | '\u{ac00}'..='\u{d7ff}'
        // Ideographs for compatibility, and those beyond the first plane.
        | '\u{f900}'..='\u{faff}' | '\u{1b000}'..='\u{1b16f}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(typed: &str, name: &str) -> Option<u32> {
        Query::new(typed)
            .and_then(|query| query.fit(name, &["17".to_owned(), "B-1042".to_owned()]))
            .map(|fit| fit.0)
    }

    #[test]
    fn case_and_accents_make_no_difference() {
        for (typed, name) in [
            ("jose", "José García"),
            ("GARCIA", "José García"),
            ("ĞÜL", "gul"),
            ("soren", "Søren Ørsted"),
            ("STRASSE", "Anna Straße"),
            ("lukasz", "Łukasz"),
            ("istanbul", "İSTANBUL"),
            ("мария", "МАРИЯ"),
        ] {
            assert_eq!(fit(typed, name), Some(EXACT), "{typed} in {name}");
        }
    }

    #[test]
    fn one_typo_is_forgiven_and_two_are_not() {
        for typed in ["mueler", "muellr", "muxller", "muellerr", "meuller", "nueller"] {
            assert_eq!(fit(typed, "Anna Mueller"), Some(TYPO), "{typed}");
        }
        for typed in ["muler", "nuellre", "xueller2"] {
            assert_eq!(fit(typed, "Anna Mueller"), None, "{typed}");
        }
        assert_eq!(fit("mulle", "Anna Mueller"), Some(TYPO_STARTS), "not typed to its end");
    }

    #[test]
    fn better_fits_come_first() {
        let fits = [
            fit("anna", "Anna B"),
            fit("ann", "Anna B"),
            fit("nna", "Anna B"),
            fit("amna", "Anna B"),
        ];
        assert!(fits.windows(2).all(|pair| pair[0] < pair[1]), "{fits:?}");
    }

    #[test]
    fn every_word_typed_must_fit() {
        assert!(fit("anna mueller", "Mueller, Anna").is_some());
        assert_eq!(fit("anna schmidt", "Mueller, Anna"), None);
    }

    #[test]
    fn short_words_need_to_start_one() {
        assert_eq!(fit("mu", "Anna Mueller"), Some(STARTS));
        assert_eq!(fit("nm", "Anna Mueller"), None);
    }

    #[test]
    fn a_badge_is_found_whole_and_by_its_start() {
        assert_eq!(fit("b-1042", "Anna"), Some(EXACT));
        assert!(fit("1042", "Anna").is_some());
        assert_eq!(Query::new("b1").and_then(|query| query.fit("Anna", &[])), None);
    }

    #[test]
    fn any_part_of_a_name_is_found_where_words_have_no_spaces() {
        for (typed, name) in [
            ("明", "王小明"),
            ("小", "王小明"),
            ("小明", "王小明"),
            ("王小明", "王 小明"),
            ("王 明", "王小明"),
            ("太郎", "山田 太郎"),
            ("山田太郎", "山田　太郎"),
            ("ろう", "やまだ たろう"),
            ("タロ", "ﾔﾏﾀﾞ ﾀﾛｳ"),
            ("スミス", "マイケル・スミス"),
            ("マイケルスミス", "マイケル・スミス"),
            ("수", "김민수"),
            ("민", "김민수"),
            ("ชัย", "สมชัย"),
            ("ช", "สมชัย"),
            ("𠮷", "𠮷野家"),
            ("野", "𠮷野家"),
            ("髙", "髙橋"),
            ("さ", "佐々木 さくら"),
            ("々", "佐々木"),
        ] {
            assert!(fit(typed, name).is_some(), "{typed} in {name}");
        }
        for (typed, name) in [
            ("明大", "王小明"),
            ("王大明", "王小明"),
            ("가", "강민수"),
            ("미", "김민수"),
            ("จ", "สมชัย"),
            ("m", "王小明"),
            ("in", "Kim Min"),
        ] {
            assert_eq!(fit(typed, name), None, "{typed} in {name}");
        }
        assert!(fit("王", "王小明") < fit("明", "王小明"), "a start before a part");
        assert_eq!(fit("मीना", "मीना कुमारी"), Some(EXACT));
        assert_eq!(fit("मन", "मीना"), None, "vowels count");
    }

    #[test]
    fn nothing_typed_finds_nothing() {
        assert!(Query::new("  - ").is_none());
    }

    #[test]
    fn edits_are_counted_at_both_ends() {
        let near = |a: &str, b: &str| {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            within_one_edit(&a, &b) && within_one_edit(&b, &a)
        };
        for (a, b) in [
            ("", "a"),
            ("abc", "abc"),
            ("abc", "bac"),
            ("abc", "acb"),
            ("abc", "bc"),
            ("abc", "abcd"),
        ] {
            assert!(near(a, b), "{a} {b}");
        }
        for (a, b) in [("", "ab"), ("abc", "cba"), ("abcd", "badc"), ("abc", "bcd")] {
            assert!(!near(a, b), "{a} {b}");
        }
    }
}
