//! The roster as a file: CSV (RFC 4180) in, rows that keep every rule out. As spreadsheets save it:
//! parted by commas, semicolons or tabs, in UTF-8 or UTF-16.
//!
//! Reads the whole file before it says anything, so that one look shows every faulty row. Never
//! repeats a PIN in what it says.

use std::collections::HashMap;

use punchtrail_protocol::{
    capture::BADGE_CHARS_MAX,
    spelling::{name_key, normal},
};

use super::{ImportError, RowFault, damage, text};
use crate::people::moment::Moment;

/// The most employees in one file.
pub const ROSTER_ROWS_MAX: usize = 100_000;
/// The largest file, in bytes.
pub const ROSTER_BYTES_MAX: usize = 32 << 20;
/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 128;
/// The longest id of another system, in characters.
pub const EXTERNAL_ID_CHARS_MAX: usize = 64;
/// The fewest digits of a PIN.
pub const PIN_DIGITS_MIN: usize = 4;
/// The most digits of a PIN.
pub const PIN_DIGITS_MAX: usize = 12;
/// How many faulty rows are described; more are counted.
pub const FAULTS_MAX: usize = 100;

const COLUMNS: [&str; 6] = ["badge", "name", "pin", "site", EXTERNAL_ID, RETURNED];
pub(super) const EXTERNAL_ID: &str = "external_id";
const RETURNED: &str = "returned";

/// A PIN in the clear, for as long as it takes to hash it. Its `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(String);

impl Pin {
    /// Takes 4 to 12 digits.
    ///
    /// # Errors
    /// What is wrong, without quoting it.
    pub fn new(digits: &str) -> Result<Self, &'static str> {
        let fits = (PIN_DIGITS_MIN..=PIN_DIGITS_MAX).contains(&digits.len());
        if fits && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(digits.to_owned()))
        } else {
            Err("`pin` has 4 to 12 digits and nothing else, or is empty")
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin(…)")
    }
}

/// One employee of the file. A cell that is empty leaves what the directory has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterRow {
    /// The line of the file at which it begins: the header's is 1, blank ones count.
    pub row: u64,
    pub badge: Option<String>,
    pub name: String,
    pub pin: Option<Pin>,
    /// The site, a name or an id.
    pub site: String,
    /// The id in another system.
    pub external_id: Option<String>,
    /// Since when somebody who had left is back.
    pub returned: Option<Moment>,
}

/// A file as far as it can be read, and what is wrong with the rest.
#[derive(Debug)]
pub struct Roster {
    pub rows: Vec<RosterRow>,
    pub(super) faults: Faults,
    pub(super) warnings: Faults,
}

impl Roster {
    /// The roster, if nothing is wrong with it.
    ///
    /// # Errors
    /// The faulty rows.
    pub fn faultless(self) -> Result<Self, ImportError> {
        let Self { rows, faults, warnings } = self;
        faults.none()?;
        Ok(Self { rows, faults: Faults::default(), warnings })
    }
}

/// Reads a roster.
///
/// # Errors
/// When it is too large or its header isn't a roster's. What is wrong with single rows comes with
/// the others.
pub fn parse(bytes: &[u8]) -> Result<Roster, ImportError> {
    if bytes.len() > ROSTER_BYTES_MAX {
        return Err(ImportError::TooLarge { bytes: bytes.len() });
    }
    let bytes = text::decoded(bytes)?;
    let (separator, begins) = text::separator(&bytes);
    let mut lines = text::Lines::of(&bytes);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .from_reader(&bytes[begins..]);
    let mut records = reader.byte_records();
    let header = match records.next() {
        Some(Ok(header)) => Header::read(&header)?,
        Some(Err(_)) | None => return Err(ImportError::Header("the file is empty".to_owned())),
    };
    let (mut rows, mut faults) = (Vec::new(), Faults::default());
    for record in records.map_while(Result::ok) {
        let byte = record.position().map_or(0, csv::Position::byte);
        let row = lines.line(begins + usize::try_from(byte).unwrap_or(usize::MAX));
        // Spreadsheets save rows that are empty, separators and all.
        if record.iter().all(|cell| cell.trim_ascii().is_empty()) {
            continue;
        }
        if rows.len() >= ROSTER_ROWS_MAX {
            return Err(ImportError::TooManyRows);
        }
        match header.row(row, &record) {
            Ok(read) => rows.push(read),
            Err(what) => faults.add(row, what),
        }
    }
    let mut warnings = Faults::default();
    find_doubles(&rows, &mut faults);
    find_namesakes(&rows, &mut warnings);
    find_shortened(&rows, &mut warnings);
    Ok(Roster { rows, faults, warnings })
}

/// Where each column stands.
struct Header {
    at: [Option<usize>; COLUMNS.len()],
    width: usize,
}

impl Header {
    fn read(record: &csv::ByteRecord) -> Result<Self, ImportError> {
        let wrong = |what: String| Err(ImportError::Header(what));
        let mut at = [None; COLUMNS.len()];
        for (index, cell) in record.iter().enumerate() {
            let name = String::from_utf8_lossy(cell).trim().to_ascii_lowercase();
            let Some(column) = COLUMNS.iter().position(|known| *known == name) else {
                return wrong(format!("column {} is none of a roster's", index + 1));
            };
            if at[column].replace(index).is_some() {
                return wrong(format!("column `{name}` is there twice"));
            }
        }
        let needed = |name: &str| ![EXTERNAL_ID, RETURNED].contains(&name);
        let missing = COLUMNS.iter().zip(at).find(|(name, at)| at.is_none() && needed(name));
        match missing {
            Some((name, _)) => wrong(format!("column `{name}` is missing")),
            None => Ok(Self { at, width: record.len() }),
        }
    }

    fn row(&self, row: u64, record: &csv::ByteRecord) -> Result<RosterRow, String> {
        if record.len() != self.width {
            return Err(format!("it has {} cells, the header has {}", record.len(), self.width));
        }
        let cell = |column: usize| -> Result<&str, String> {
            let bytes = self.at[column].and_then(|at| record.get(at)).unwrap_or_default();
            std::str::from_utf8(bytes)
                .map(str::trim)
                .map_err(|_| format!("`{}` is not UTF-8", COLUMNS[column]))
        };
        let [badge, name, pin, site, external_id] =
            [cell(0)?, cell(1)?, cell(2)?, cell(3)?, cell(4)?];
        let returned = match cell(5)? {
            "" => None,
            typed => Some(typed.parse().map_err(|error| format!("`{RETURNED}`: {error}"))?),
        };
        for (column, cell, damage) in [
            ("badge", badge, damage::of_number(badge)),
            (EXTERNAL_ID, external_id, damage::of_number(external_id)),
            ("name", name, damage::of_text(name)),
        ] {
            if let Some(what) = damage {
                return Err(format!("`{column}` `{cell}` {what}"));
            }
        }
        let badge = text("badge", badge, BADGE_CHARS_MAX)?;
        let external_id = text(EXTERNAL_ID, external_id, EXTERNAL_ID_CHARS_MAX)?;
        if badge.is_none() && external_id.is_none() {
            return Err("it has neither `badge` nor `external_id`".to_owned());
        }
        let name = text("name", name, NAME_CHARS_MAX)?.ok_or("`name` is empty")?;
        let pin = if pin.is_empty() { None } else { Some(Pin::new(pin)?) };
        if site.is_empty() {
            return Err("`site` is empty".to_owned());
        }
        let site = normal(site);
        Ok(RosterRow { row, badge, name, pin, site, external_id, returned })
    }
}

fn text(column: &str, cell: &str, chars_max: usize) -> Result<Option<String>, String> {
    match cell {
        "" => Ok(None),
        _ if cell.chars().count() > chars_max => {
            Err(format!("`{column}` has more than {chars_max} characters"))
        }
        _ if cell.chars().any(char::is_control) => {
            Err(format!("`{column}` has a control character, a line break for one"))
        }
        _ => Ok(Some(normal(cell))),
    }
}

fn find_doubles(rows: &[RosterRow], faults: &mut Faults) {
    type Cell = fn(&RosterRow) -> Option<&String>;
    let badge: Cell = |row| row.badge.as_ref();
    let external_id: Cell = |row| row.external_id.as_ref();
    let columns = [("badge", badge), (EXTERNAL_ID, external_id)];
    for (column, of) in columns {
        let mut first: HashMap<&str, u64> = HashMap::with_capacity(rows.len());
        for row in rows {
            let Some(value) = of(row) else { continue };
            let earlier = *first.entry(value).or_insert(row.row);
            if earlier != row.row {
                faults.add(row.row, format!("`{column}` stands in row {earlier} already"));
            }
        }
    }
}

/// Rows that may be one person's: of one name at one site, and no id tells them apart.
fn find_namesakes(rows: &[RosterRow], warnings: &mut Faults) {
    let mut first: HashMap<(&str, String), u64> = HashMap::with_capacity(rows.len());
    for row in rows.iter().filter(|row| row.external_id.is_none()) {
        let earlier = *first.entry((&row.site, name_key(&row.name))).or_insert(row.row);
        if earlier != row.row {
            let what = format!(
                "`{}` stands in row {earlier} already, with another badge: if it is one person, \
                 take one row out and issue the second badge with `employee badge issue`",
                row.name
            );
            warnings.add(row.row, what);
        }
    }
}

/// Badges that may be a number which a spreadsheet shortened, or may not.
fn find_shortened(rows: &[RosterRow], warnings: &mut Faults) {
    for row in rows {
        if let Some(badge) = row.badge.as_deref().filter(|it| damage::may_be_scientific(it)) {
            let what = "may be a number that a spreadsheet shortened; compare it with the badge";
            warnings.add(row.row, format!("`badge` `{badge}` {what}"));
        }
    }
}

/// Faulty rows, in the order of the file; the first [`FAULTS_MAX`] are kept.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kept: Vec<RowFault>,
    more: u64,
}

impl Faults {
    pub(super) fn add(&mut self, row: u64, what: String) {
        if self.kept.len() < FAULTS_MAX {
            self.kept.push(RowFault { row, what });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.more += other.more;
        other.kept.into_iter().for_each(|fault| self.add(fault.row, fault.what));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// In the order of the file, and how many more there are.
    pub(super) fn into_parts(mut self) -> (Vec<RowFault>, u64) {
        self.kept.sort_by_key(|fault| fault.row);
        (self.kept, self.more)
    }

    pub(super) fn none(self) -> Result<(), ImportError> {
        if self.is_empty() {
            return Ok(());
        }
        let (faults, more) = self.into_parts();
        Err(ImportError::Rows { faults, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(u64, String)> {
        let (faults, _) = parse(text.as_bytes()).unwrap().faults.into_parts();
        faults.into_iter().map(|fault| (fault.row, fault.what)).collect()
    }

    fn rows(text: &[u8]) -> Vec<RosterRow> {
        parse(text).and_then(Roster::faultless).unwrap().rows
    }

    #[test]
    fn columns_come_in_any_order_after_a_byte_order_mark() {
        let text = "\u{feff}site,external_id,pin,Name,badge\r\nMill,E-1,0042,\"Öz, Ada\",17\r\n";
        let rows = rows(text.as_bytes());
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].row, rows[0].name.as_str()), (2, "Öz, Ada"));
        assert_eq!(rows[0].badge.as_deref(), Some("17"));
        assert_eq!(rows[0].pin, Some(Pin("0042".into())));
        assert_eq!(rows[0].external_id.as_deref(), Some("E-1"));
    }

    #[test]
    fn a_badge_has_one_spelling() {
        let rows = rows("badge,name,pin,site\nE\u{301}-1,Zoe\u{308},,Mu\u{308}hle\n".as_bytes());
        assert_eq!(rows[0].badge.as_deref(), Some("\u{c9}-1"));
        assert_eq!((rows[0].name.as_str(), rows[0].site.as_str()), ("Zo\u{eb}", "M\u{fc}hle"));
        let found = faults("badge,name,pin,site\nE\u{301},Ada,,Mill\n\u{c9},Eve,,Mill\n");
        assert_eq!(found[0].1, "`badge` stands in row 2 already");
    }

    #[test]
    fn empty_cells_are_nothing() {
        let rows = rows(b"badge,name,pin,site\n17,Ada,,Mill\n");
        assert_eq!((&rows[0].pin, &rows[0].external_id), (&None, &None));
    }

    #[test]
    fn every_faulty_row_is_named_by_its_number() {
        let text = "badge,name,pin,site\n1,Ada,123,Mill\n2,,1234,Mill\n3,Cem,1234,\n4,Eve\n\
                    ,Dan,1234,Mill\n6,Fay,12a4,Mill\n1,Gus,1234,Mill\n6,Hal,1234,Mill\n\
                    7,Ivy,1234,Mill\n7,Jo,1234,Mill\n";
        let found = faults(text);
        let rows: Vec<u64> = found.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [2, 3, 4, 5, 6, 7, 11]);
        assert_eq!(found[3].1, "it has 2 cells, the header has 4");
        assert_eq!(found[6].1, "`badge` stands in row 10 already");
    }

    #[test]
    fn a_pin_is_never_quoted() {
        let found = faults("badge,name,pin,site\n1,Ada,98765432109876,Mill\n");
        assert!(!found[0].1.contains("9876"));
        assert_eq!(format!("{:?}", Pin::new("9876").unwrap()), "Pin(…)");
    }

    #[test]
    fn quotes_and_line_breaks_follow_the_rfc() {
        let rows = rows(b"badge,name,pin,site\n1,\"Ada \"\"A\"\" B\",,Mill\n");
        assert_eq!(rows[0].name, "Ada \"A\" B");
        assert_eq!(faults("badge,name,pin,site\n1,\"Ada\nB\",,Mill\n2,C,1,Mill\n")[1].0, 4);
    }

    #[test]
    fn another_header_is_refused_in_words() {
        let header = |text: &str| match parse(text.as_bytes()) {
            Err(ImportError::Header(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(header("badge,name,pin\n"), "column `site` is missing");
        assert_eq!(header("badge,name,pin,site,site\n"), "column `site` is there twice");
        assert_eq!(header("badge,name,pin,site,wage\n"), "column 5 is none of a roster's");
        assert_eq!(header(""), "the file is empty");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_a_rows_fault() {
        let mut text = b"badge,name,pin,site\n1,J".to_vec();
        text.extend_from_slice(b"\xfcrgen,,Mill\n2,Ada,,Mill\n");
        let (faults, _) = parse(&text).unwrap().faults.into_parts();
        let fault = RowFault { row: 2, what: "`name` is not UTF-8".to_owned() };
        assert_eq!(faults, [fault]);
    }

    #[test]
    fn a_row_is_named_by_its_line_in_the_file() {
        let blank = "badge,name,pin,site\n1,Ada,,Mill\n\n\n2,,,Mill\n,,,\n3,,,Mill\n";
        assert_eq!(faults(blank).iter().map(|(row, _)| *row).collect::<Vec<_>>(), [5, 7]);
        let crlf = "\r\nsep=;\r\nbadge;name;pin;site\r\n\r\n1;\"A\r\nB\";;Mill\r\n2;;;Mill\r\n";
        assert_eq!(faults(crlf).iter().map(|(row, _)| *row).collect::<Vec<_>>(), [5, 7]);
    }

    #[test]
    fn every_separator_and_encoding_is_read() {
        let text = "badge,name,pin,site,external_id,returned\n17,Jörg,,Mill,E-1,2026-11-20\n";
        let first = rows(text.as_bytes());
        assert!(first[0].returned.is_some());
        for separator in [";", "\t"] {
            let text = text.replace(',', separator);
            assert_eq!(rows(text.as_bytes()), first);
            let units = text.encode_utf16().flat_map(u16::to_le_bytes);
            assert_eq!(rows(&[0xFF, 0xFE].into_iter().chain(units).collect::<Vec<_>>()), first);
        }
    }

    #[test]
    fn what_a_spreadsheet_damaged_is_no_badge() {
        let found = faults(
            "badge;name;pin;site;external_id\n4.01E+12;Ada;;Mill;\n4,01E+12;Bo;;Mill;\n\
             ;Cy;;Mill;1E+05\n#N/A;Di;;Mill;\n4711.0;Ed;;Mill;\n",
        );
        assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert!(found[0].1.contains("4.01E+12"), "{found:?}");
    }

    #[test]
    fn two_rows_of_one_name_are_pointed_out() {
        let text = "badge,name,pin,site,external_id\n1,Ada,,Mill,\n2,ADA,,Mill,\n3,Ada,,Mill,E\n";
        let (warnings, _) = parse(text.as_bytes()).unwrap().warnings.into_parts();
        assert_eq!(warnings.iter().map(|warning| warning.row).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn no_more_rows_than_the_limit() {
        use std::fmt::Write;
        let mut text = String::from("badge,name,pin,site\n");
        for badge in 0..=ROSTER_ROWS_MAX {
            writeln!(text, "{badge},A,,M").unwrap();
        }
        assert!(matches!(parse(text.as_bytes()), Err(ImportError::TooManyRows)));
    }
}
