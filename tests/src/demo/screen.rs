//! What the demo shows: chapters, ticks, bars while it works, quotes and tables; never wider than
//! [`WIDTH`]. Bars only appear on a terminal; what they came to is always said in a line.

use std::{io::IsTerminal, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Columns of text.
pub const WIDTH: usize = 96;
const BAR: &str = "     {msg:20} {bar:40} {pos:>4}/{len}";
const SPINNER: &str = "     {spinner} {msg}";
const TICK_EVERY: Duration = Duration::from_millis(120);

/// Prints.
#[derive(Debug)]
pub struct Screen {
    colours: bool,
    chapter: u32,
}

impl Screen {
    /// Stdout, with colours if that is a terminal and nobody minds.
    pub fn new() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours, chapter: 0 }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// The title.
    pub fn title(&self, text: &str, prose: &str) {
        println!("\n{}\n", self.painted("1;36", text));
        self.prose(prose);
    }

    /// The next chapter, and what it is about.
    pub fn chapter(&mut self, title: &str, prose: &str) {
        self.chapter += 1;
        println!("\n{}", self.painted("1", &format!("{}. {title}", self.chapter)));
        self.prose(prose);
    }

    /// Some sentences.
    pub fn prose(&self, text: &str) {
        if text.is_empty() {
            return;
        }
        print!("{}", wrapped(text, "   ", "   "));
    }

    /// Something is done.
    pub fn done(&self, text: &str) {
        self.marked(&self.painted("32", "✓"), text);
    }

    /// Something went as it must not.
    pub fn failed(&self, text: &str) {
        self.marked(&self.painted("1;31", "✗"), text);
    }

    fn marked(&self, mark: &str, text: &str) {
        let lines = wrapped(text, "     ", "     ");
        println!("   {mark}{}", lines.trim_end().strip_prefix("    ").unwrap_or(&lines));
    }

    /// What somebody or something says.
    pub fn quote(&self, title: &str, sentences: &[String]) {
        println!("\n   {}", self.painted("1", title));
        let text = sentences.join(" ");
        print!("{}", wrapped(&text, "   │ ", "   │ "));
    }

    /// Rows under a heading; all but the first column are set to the right when they are numbers.
    pub fn table(&self, heading: &[&str], rows: &[Vec<String>]) {
        let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
        let width = |column: usize| {
            let cells = rows.iter().chain([&heading]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heading.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        println!("\n     {}", self.painted("1", &line(&heading)));
        for row in rows {
            println!("     {}", line(row));
        }
        println!();
    }

    /// Lines to be typed or copied as they are.
    pub fn verbatim(&self, lines: &[String]) {
        for line in lines {
            println!("     {}", self.painted("2", line));
        }
    }

    /// A bar a door.
    pub fn bars(&self, labels: &[(&str, u64)]) -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let bar = |(label, length): &(&str, u64)| {
            let bar = all.add(ProgressBar::new(*length));
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.set_message((*label).to_owned());
            bar
        };
        Bars { bars: labels.iter().map(bar).collect(), all }
    }

    /// Something of which nobody knows how long it takes; cleared when dropped.
    pub fn busy(&self, doing: &str) -> Busy {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(SPINNER) {
            bar.set_style(style);
        }
        bar.set_message(doing.to_owned());
        bar.enable_steady_tick(TICK_EVERY);
        Busy(bar)
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Bars while something works; cleared when dropped.
#[derive(Debug)]
pub struct Bars {
    bars: Vec<ProgressBar>,
    all: MultiProgress,
}

impl Bars {
    /// One bar stands at `position`.
    pub fn set(&self, bar: usize, position: u64) {
        if let Some(bar) = self.bars.get(bar) {
            bar.set_position(position);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for bar in &self.bars {
            bar.finish_and_clear();
        }
        // Fails only where nothing was drawn.
        let _ = self.all.clear();
    }
}

/// A spinner while something works; cleared when dropped.
#[derive(Debug)]
pub struct Busy(ProgressBar);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// `text` in lines of at most [`WIDTH`] columns, the first after `first`, the others after `rest`.
fn wrapped(text: &str, first: &str, rest: &str) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        let length = line.chars().count() + usize::from(!empty) + word.chars().count();
        if !empty && length > WIDTH {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = rest.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_never_wider_than_the_page_and_lose_no_word() {
        let text = "a punch is kept ".repeat(40);
        let lines = wrapped(&text, "   ", "     ");
        assert!(lines.lines().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(
            lines.split_whitespace().collect::<Vec<_>>(),
            text.split_whitespace().collect::<Vec<_>>()
        );
        assert!(
            lines
                .lines()
                .skip(1)
                .all(|line| line.starts_with("     a") || line.starts_with("     "))
        );
    }
}
