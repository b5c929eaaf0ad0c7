//! The roster as a file: CSV (RFC 4180) in, rows that keep every rule out.
//!
//! Reads the whole file before it says anything, so that one look shows every faulty row. Never
//! repeats a PIN or a name in what it says.

use std::collections::HashMap;

use punchtrail_protocol::{capture::BADGE_CHARS_MAX, spelling::normal};

use super::{ImportError, RowFault};

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

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
const COLUMNS: [&str; 5] = ["badge", "name", "pin", "site", "external_id"];
const OPTIONAL: &str = "external_id";

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
    /// The row as a spreadsheet numbers it: the header is 1.
    pub row: u64,
    pub badge: Option<String>,
    pub name: String,
    pub pin: Option<Pin>,
    /// The site, a name or an id.
    pub site: String,
    /// The id in another system.
    pub external_id: Option<String>,
}

/// Reads a roster.
///
/// # Errors
/// When it is too large, its header isn't a roster's, or any row breaks a rule.
pub fn parse(bytes: &[u8]) -> Result<Vec<RosterRow>, ImportError> {
    if bytes.len() > ROSTER_BYTES_MAX {
        return Err(ImportError::TooLarge { bytes: bytes.len() });
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut records = reader.byte_records();
    let header = match records.next() {
        Some(Ok(header)) => Header::read(&header)?,
        Some(Err(_)) | None => return Err(ImportError::Header("the file is empty".to_owned())),
    };
    let mut rows = Vec::new();
    let mut faults = Faults::default();
    for (record, row) in records.zip(2..) {
        let Ok(record) = record else {
            faults.add(row, "the row can't be read as CSV".to_owned());
            continue;
        };
        if rows.len() >= ROSTER_ROWS_MAX {
            return Err(ImportError::TooManyRows);
        }
        match header.row(row, &record) {
            Ok(read) => rows.push(read),
            Err(what) => faults.add(row, what),
        }
    }
    find_doubles(&rows, &mut faults);
    faults.none_or(rows)
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
            if record.len() == 1 && name.contains(';') {
                return wrong("the columns are parted by `;`; save the file with commas".into());
            }
            let Some(column) = COLUMNS.iter().position(|known| *known == name) else {
                return wrong(format!("column {} is none of a roster's", index + 1));
            };
            if at[column].replace(index).is_some() {
                return wrong(format!("column `{name}` is there twice"));
            }
        }
        let missing = COLUMNS.iter().zip(at).find(|(name, at)| at.is_none() && **name != OPTIONAL);
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
        let badge = text("badge", badge, BADGE_CHARS_MAX)?;
        let external_id = text(OPTIONAL, external_id, EXTERNAL_ID_CHARS_MAX)?;
        if badge.is_none() && external_id.is_none() {
            return Err("it has neither `badge` nor `external_id`".to_owned());
        }
        let name = text("name", name, NAME_CHARS_MAX)?.ok_or("`name` is empty")?;
        let pin = if pin.is_empty() { None } else { Some(Pin::new(pin)?) };
        if site.is_empty() {
            return Err("`site` is empty".to_owned());
        }
        Ok(RosterRow { row, badge, name, pin, site: normal(site), external_id })
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
    let columns = [("badge", badge), (OPTIONAL, external_id)];
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

    pub(super) fn none_or<T>(mut self, value: T) -> Result<T, ImportError> {
        if self.kept.is_empty() {
            return Ok(value);
        }
        self.kept.sort_by_key(|fault| fault.row);
        Err(ImportError::Rows { faults: self.kept, more: self.more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(u64, String)> {
        match parse(text.as_bytes()) {
            Err(ImportError::Rows { faults, .. }) => {
                faults.into_iter().map(|fault| (fault.row, fault.what)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn columns_come_in_any_order_after_a_byte_order_mark() {
        let text = "\u{feff}site,external_id,pin,Name,badge\r\nMill,E-1,0042,\"Öz, Ada\",17\r\n";
        let rows = parse(text.as_bytes()).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].row, rows[0].name.as_str()), (2, "Öz, Ada"));
        assert_eq!(rows[0].badge.as_deref(), Some("17"));
        assert_eq!(rows[0].pin, Some(Pin("0042".into())));
        assert_eq!(rows[0].external_id.as_deref(), Some("E-1"));
    }

    #[test]
    fn a_badge_has_one_spelling() {
        let rows = parse("badge,name,pin,site\nE\u{301}-1,Zoe\u{308},,Mu\u{308}hle\n".as_bytes());
        let rows = rows.unwrap();
        assert_eq!(rows[0].badge.as_deref(), Some("\u{c9}-1"));
        assert_eq!((rows[0].name.as_str(), rows[0].site.as_str()), ("Zo\u{eb}", "M\u{fc}hle"));
        let found = faults("badge,name,pin,site\nE\u{301},Ada,,Mill\n\u{c9},Eve,,Mill\n");
        assert_eq!(found[0].1, "`badge` stands in row 2 already");
    }

    #[test]
    fn empty_cells_are_nothing() {
        let rows = parse(b"badge,name,pin,site\n17,Ada,,Mill\n").unwrap();
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
        let rows = parse(b"badge,name,pin,site\n1,\"Ada \"\"A\"\" B\",,Mill\n").unwrap();
        assert_eq!(rows[0].name, "Ada \"A\" B");
        assert_eq!(faults("badge,name,pin,site\n1,\"Ada\nB\",,Mill\n2,C,1,Mill\n")[1].0, 3);
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
        assert!(header("badge;name;pin;site\n").contains("commas"));
        assert_eq!(header(""), "the file is empty");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_a_rows_fault() {
        let mut text = b"badge,name,pin,site\n1,J".to_vec();
        text.extend_from_slice(b"\xfcrgen,,Mill\n2,Ada,,Mill\n");
        assert!(matches!(parse(&text), Err(ImportError::Rows { faults, .. })
            if faults.len() == 1 && faults[0].row == 2 && faults[0].what == "`name` is not UTF-8"));
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
