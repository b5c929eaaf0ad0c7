//! What a command says: one JSON object or text for people, and an exit code.

use std::{fmt::Write as _, io::Write as _, process::ExitCode};

use punchtrail_infra::people::import::ImportError;
use punchtrail_protocol::shown::{self, Shown};
use serde::Serialize;

/// The most of a cell that a table shows, in characters.
const CELL_CHARS_MAX: usize = 80;

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
    exit: u8,
}

impl Answer {
    /// The same for programs and for people.
    pub(super) fn new(object: &impl Serialize, text: impl Into<String>) -> Self {
        Self { json: serde_json::to_string(object), text: text.into(), exit: 0 }
    }

    /// With another exit code than 0.
    pub(super) fn exiting(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Nothing is left to be said: it was printed as it came.
    pub(super) fn silent() -> Self {
        Self { json: Ok(String::new()), text: String::new(), exit: 0 }
    }

    pub(super) fn print(self, json: bool) -> ExitCode {
        let printed = match self.json {
            Ok(object) if json && !object.is_empty() => print_json(&object),
            Ok(_) if !json && !self.text.is_empty() => print(&self.text),
            Ok(_) => Ok(()),
            Err(error) => return refused(&anyhow::Error::new(error), json),
        };
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
    #[error("{0:#}")]
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
    let mut what = format!("{error:#}");
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
        let object = Refused { error: format!("{error:#}"), rows };
        let _ = print_json(&serde_json::to_string(&object).unwrap_or_default());
    }
    ExitCode::from(match error.downcast_ref::<Refusal>() {
        Some(Refusal::Usage(_)) => EXIT_USAGE,
        Some(Refusal::NotVerified(_)) => EXIT_NOT_VERIFIED,
        None => EXIT_REFUSED,
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

/// Rows under a heading, in columns as wide as their widest cell.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let shown = |cell: &String| Shown::new(cell).within(CELL_CHARS_MAX).to_string();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = std::iter::once(&heading).chain(&rows).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
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
}
