//! What a command says: one JSON object or text for people, and an exit code.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use console::Term;
use punchtrail_infra::people::import::ImportError;
use punchtrail_protocol::shown::{self, Shown};
use serde::Serialize;

/// The most of a cell that a table shows, in characters.
const CELL_CHARS_MAX: usize = 80;
/// Between two columns.
const COLUMN_GAP: u16 = 2;
/// The narrowest column of words, so that one can still be read.
const WORDS_MIN: u16 = 10;

/// The command was refused or failed.
pub(super) const EXIT_REFUSED: u8 = 1;
/// The command line was wrong; clap exits with the same.
pub(super) const EXIT_USAGE: u8 = 2;
/// A verification could not be carried through, which says nothing about the ledger.
pub(super) const EXIT_NOT_VERIFIED: u8 = 3;

/// What a command has to say.
#[derive(Debug)]
pub(super) struct Answer {
    json: serde_json::Result<String>,
    text: String,
    note: Option<String>,
    is_exact: bool,
    exit: u8,
}

impl Answer {
    /// The same for programs and for people.
    pub(super) fn new(object: &impl Serialize, text: impl Into<String>) -> Self {
        let json = serde_json::to_string(object);
        Self { json, text: text.into(), note: None, is_exact: false, exit: 0 }
    }

    /// With a word to people beside it, on stderr: the text itself may be kept by a script.
    pub(super) fn noting(mut self, note: impl Into<Option<String>>) -> Self {
        self.note = note.into();
        self
    }

    /// With another exit code than 0.
    pub(super) fn exiting(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// To be printed byte for byte where that isn't a terminal, which would act on some of them.
    pub(super) fn exactly(mut self) -> Self {
        self.is_exact = true;
        self
    }

    /// Nothing is left to be said: it was printed as it came.
    pub(super) fn silent() -> Self {
        let json = Ok(String::new());
        Self { json, text: String::new(), note: None, is_exact: false, exit: 0 }
    }

    pub(super) fn print(self, json: bool) -> ExitCode {
        let is_exact = self.is_exact && !std::io::stdout().is_terminal();
        let printed = match self.json {
            Ok(object) if json && is_exact => write(&object),
            Ok(_) if !json && is_exact => write(&self.text),
            Ok(object) if json && !object.is_empty() => print_json(&object),
            Ok(_) if !json && !self.text.is_empty() => print(&self.text),
            Ok(_) => Ok(()),
            Err(error) => return refused(&anyhow::Error::new(error), json),
        };
        if let Some(note) = self.note.filter(|_| !json) {
            let _ = writeln!(std::io::stderr(), "{}", lines(&note));
        }
        match printed {
            Err(error) if !is_closed(&error) => ExitCode::from(EXIT_REFUSED),
            _ => ExitCode::from(self.exit),
        }
    }
}

/// A refusal that wants an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The command line can't be meant like that.
    #[error("{0}")]
    Usage(String),
    /// A verification could not be carried through.
    #[error("{}", whole(.0))]
    NotVerified(anyhow::Error),
}

#[derive(Serialize)]
struct Refused<'a> {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<&'a [punchtrail_infra::people::import::RowFault]>,
}

/// Says what is wrong with the command line, or helps.
pub(super) fn mistyped(error: &clap::Error) -> ExitCode {
    // Nobody listening is no reason to fail in another way.
    let _ = error.print();
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let object = Refused { error: error.render().to_string(), rows: None };
        let _ = print_json(&serde_json::to_string(&object).unwrap_or_default());
    }
    ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
}

/// Says why a command was refused.
pub(super) fn refused(error: &anyhow::Error, json: bool) -> ExitCode {
    let said = whole(error);
    let mut what = said.clone();
    let rows = match error.downcast_ref::<ImportError>() {
        Some(ImportError::Rows { faults, more }) => {
            for fault in faults {
                let _ = write!(what, "\n  row {}: {}", fault.row, fault.what);
            }
            if *more > 0 {
                let _ = write!(what, "\n  and {more} more");
            }
            Some(faults.as_slice())
        }
        _ => None,
    };
    let _ = writeln!(std::io::stderr(), "error: {}", lines(&what));
    if json {
        let object = Refused { error: said, rows };
        let _ = print_json(&serde_json::to_string(&object).unwrap_or_default());
    }
    ExitCode::from(match error.downcast_ref::<Refusal>() {
        Some(Refusal::Usage(_)) => EXIT_USAGE,
        Some(Refusal::NotVerified(_)) => EXIT_NOT_VERIFIED,
        None => EXIT_REFUSED,
    })
}

/// An error with its causes, each as far as what was said before doesn't say it already.
pub(super) fn whole(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match said.is_empty() {
            true => cause,
            false if said.contains(&cause) => said,
            false => format!("{said}: {cause}"),
        }
    })
}

/// One line or more for people on stdout, at once.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    write(&lines(text))
}

/// The same for programs: objects in JSON.
pub(super) fn print_json(text: &str) -> std::io::Result<()> {
    let objects: Vec<String> = text.lines().map(shown::json).collect();
    write(&objects.join("\n"))
}

/// Whatever somebody typed or sent stands in these lines as it may be shown.
fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| Shown::new(line).to_string()).collect();
    lines.join("\n")
}

fn write(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    out.flush()
}

/// Whether the reader of our stdout has seen enough, as `head` does. That is no failure.
pub(super) fn is_closed(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

/// Rows under a heading, in columns as wide as their widest cell. On a terminal that is narrower,
/// cells of words go on below; one that a person copies, an id for one, stays whole.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = Term::stdout().size_checked().map(|(_, columns)| columns);
    table_within(heading, rows, width.filter(|_| Term::stdout().is_term()))
}

/// The same, or a sentence where there are no rows.
pub(super) fn table_or(heading: &[&str], rows: &[Vec<String>], none: &str) -> String {
    if rows.is_empty() { none.to_owned() } else { table(heading, rows) }
}

fn table_within(heading: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let shown = |cell: &String| Shown::new(cell).within(CELL_CHARS_MAX).to_string();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(heading).add_rows(&rows);
    let is_of_words = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).any(|cell| cell.contains(' '))
    };
    let cells = |column: usize| {
        let below = rows.iter().filter_map(move |row| row.get(column)).map(String::as_str);
        heading.get(column).copied().into_iter().chain(below)
    };
    let mut least = 0_u16;
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, COLUMN_GAP));
        let widest = cells(place).map(console::measure_text_width).max().unwrap_or_default();
        let widest = u16::try_from(widest).unwrap_or(u16::MAX);
        if is_of_words(place) {
            least = widest.min(WORDS_MIN).saturating_add(COLUMN_GAP).saturating_add(least);
        } else {
            column.set_constraint(ColumnConstraint::ContentWidth);
            least = widest.saturating_add(COLUMN_GAP).saturating_add(least);
        }
    }
    match width.filter(|width| least <= *width) {
        Some(width) => table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            vec![vec!["Mühle".to_owned(), "1".to_owned()], vec!["A".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["site", "n"], &rows), "site   n\nMühle  1\nA      2\n");
    }

    #[test]
    fn what_somebody_typed_neither_moves_the_cursor_nor_makes_a_row() {
        let rows = vec![vec!["a\u{1b}[2J\nadmin  1".to_owned(), "1".to_owned()]];
        let shown = table(&["site", "n"], &rows);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(!shown.contains('\u{1b}') && shown.contains("\\u{1b}"), "{shown}");
        assert_eq!(lines("a\u{202e}b\nc"), "a\\u{202e}b\nc");
        let long = vec![vec!["x".repeat(10_000)]];
        assert!(table(&["site"], &long).lines().all(|line| line.chars().count() <= CELL_CHARS_MAX));
    }

    #[test]
    fn on_a_narrow_terminal_words_go_on_below_and_ids_stay_whole() {
        let id = "0193a1b2-0000-7000-8000-000000000001";
        let row = vec![id.to_owned(), "many words that don't fit into one line of it".to_owned()];
        let narrow = table_within(&["punch", "why"], std::slice::from_ref(&row), Some(60));
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        assert!(narrow.contains(id) && narrow.lines().count() > 2, "{narrow}");
        let wide = table_within(&["punch", "why"], &[row], Some(120));
        assert_eq!(wide.lines().count(), 2, "{wide}");
    }

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("refused").context("no database: refused").context("not done");
        assert_eq!(whole(&error), "not done: no database: refused");
    }
}
