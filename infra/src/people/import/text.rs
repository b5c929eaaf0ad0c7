//! A roster's bytes as text: whichever encoding and separator a spreadsheet saved it with, and the
//! line of the file at which something stands.

use std::borrow::Cow;

use super::ImportError;

const UTF_8: &[u8] = b"\xEF\xBB\xBF";
const UTF_16_LE: &[u8] = b"\xFF\xFE";
const UTF_16_BE: &[u8] = b"\xFE\xFF";
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// The bytes in UTF-8, without a byte-order mark. What is UTF-16 is told by its mark, or by its
/// first letter.
pub(super) fn decoded(bytes: &[u8]) -> Result<Cow<'_, [u8]>, ImportError> {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units = pairs.iter().map(|pair| unit(*pair));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        let whole = text.ok().filter(|_| rest.is_empty());
        let what = "the file begins like UTF-16 and isn't; save it as CSV in UTF-8";
        whole.map(|text| Cow::Owned(text.into_bytes())).ok_or(ImportError::Header(what.into()))
    };
    match bytes {
        _ if bytes.starts_with(UTF_8) => Ok(Cow::Borrowed(&bytes[UTF_8.len()..])),
        _ if bytes.starts_with(UTF_16_LE) => utf_16(&bytes[2..], u16::from_le_bytes),
        _ if bytes.starts_with(UTF_16_BE) => utf_16(&bytes[2..], u16::from_be_bytes),
        [first, 0, ..] if first.is_ascii() && *first != 0 => utf_16(bytes, u16::from_le_bytes),
        [0, second, ..] if second.is_ascii() && *second != 0 => utf_16(bytes, u16::from_be_bytes),
        _ => Ok(Cow::Borrowed(bytes)),
    }
}

/// What parts the cells: as a first line `sep=;` says, which some spreadsheets write, else what
/// there is most of outside quotes in the header. And where the header begins.
pub(super) fn separator(text: &[u8]) -> (u8, usize) {
    let begins = text.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    let line = |from: usize| {
        let rest = &text[from..];
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        &rest[..end.unwrap_or(rest.len())]
    };
    let first = line(begins);
    if let [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', separator] = first
        && SEPARATORS.contains(separator)
    {
        return (*separator, begins + first.len());
    }
    let mut counts = [0_usize; SEPARATORS.len()];
    let mut quoted = false;
    for byte in first {
        quoted ^= *byte == b'"';
        if let Some(at) = SEPARATORS.iter().position(|one| one == byte).filter(|_| !quoted) {
            counts[at] += 1;
        }
    }
    let most = (0..SEPARATORS.len()).rev().max_by_key(|at| counts[*at]).unwrap_or(0);
    (SEPARATORS[most], begins)
}

/// Counts the lines of a file on the way through it.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// The line of what is read from there on: blank lines in front of it are passed. `from` never
    /// goes back.
    pub(super) fn line(&mut self, from: usize) -> u64 {
        let is_end = |byte: u8| matches!(byte, b'\r' | b'\n');
        while let Some(&byte) = self.text.get(self.at) {
            if self.at >= from && !is_end(byte) {
                break;
            }
            let of_two = byte == b'\r' && self.text.get(self.at + 1) == Some(&b'\n');
            self.line += u64::from(is_end(byte) && !of_two);
            self.at += 1;
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_the_same_text() {
        let text = "badge;name\r\n17;Jörg\r\n";
        let units: Vec<u16> = text.encode_utf16().collect();
        let le: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let be: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let with = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        for bytes in [
            text.as_bytes().to_vec(),
            with(UTF_8, text.as_bytes()),
            with(UTF_16_LE, &le),
            with(UTF_16_BE, &be),
            le.clone(),
            be.clone(),
        ] {
            assert_eq!(decoded(&bytes).unwrap(), text.as_bytes());
        }
        assert!(decoded(&with(UTF_16_LE, &le[1..])).is_err());
        assert!(decoded(b"\xFF\xFE\x00\xD8").is_err(), "half a pair");
    }

    #[test]
    fn the_separator_is_the_headers() {
        assert_eq!(separator(b"badge,name,pin\n1;2;3;4;5"), (b',', 0));
        assert_eq!(separator(b"badge;\"na,,,me\";pin"), (b';', 0));
        assert_eq!(separator(b"\r\nbadge\tname"), (b'\t', 2));
        assert_eq!(separator(b"sep=;\r\nbadge,name"), (b';', 5));
        assert_eq!(separator(b"badge"), (b',', 0));
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        let text = b"a\n\n\"b\nb\"\r\n\r\nc\rd";
        let mut lines = Lines::of(text);
        let at = |what: &[u8]| text.windows(what.len()).position(|window| window == what).unwrap();
        assert_eq!(lines.line(0), 1);
        assert_eq!(lines.line(1), 3, "from the end of the line before");
        assert_eq!(lines.line(at(b"\r\n\r\n")), 6);
        assert_eq!(lines.line(at(b"d")), 7);
    }
}
