//! A table for people and the same rows as JSON for comparison.

use std::{fs, path::Path, time::Instant};

use anyhow::Context;
use serde::Serialize;

/// Where reports are written to.
pub const REPORTS: &str = "target/bench";

/// How much of `amount` a second since `started`.
pub fn rate(amount: usize, started: Instant) -> f64 {
    amount as f64 / started.elapsed().as_secs_f64()
}

/// One measured row.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: String,
    pub rate: f64,
    pub unit: &'static str,
    /// The rate by that of another row of the same run.
    pub ratio: Option<f64>,
    pub of: Option<String>,
}

/// What is aimed at (`docs/performance.md`), and whether it was reached.
#[derive(Debug, Clone, Serialize)]
pub struct Aim {
    pub what: String,
    pub measured: f64,
    pub aim: String,
    /// Whether it is; none when this run can't tell.
    pub met: Option<bool>,
}

impl Aim {
    /// No more than `limit`.
    pub fn at_most(what: impl Into<String>, measured: f64, limit: f64, unit: &str) -> Self {
        let aim = format!("at most {limit:.1}{unit}");
        Self { what: what.into(), measured, aim, met: Some(measured <= limit) }
    }

    /// No less than `limit`.
    pub fn at_least(what: impl Into<String>, measured: f64, limit: f64, unit: &str) -> Self {
        let aim = format!("at least {limit:.1}{unit}");
        Self { what: what.into(), measured, aim, met: Some(measured >= limit) }
    }

    /// Prints it for a person.
    pub fn print(&self) {
        let Self { what, measured, aim, met } = self;
        let met = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not judged",
        };
        println!("{what:<55} {measured:>9.2}  {aim:<28} {met}");
    }
}

/// The rows of one run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order they were measured.
    pub rows: Vec<Row>,
}

impl Report {
    /// Adds a row, compared to an earlier one.
    pub fn add(&mut self, name: &str, rate: f64, unit: &'static str, of: Option<&str>) {
        let base = of.and_then(|of| self.rows.iter().find(|row| row.name == of));
        let row = Row {
            name: name.to_owned(),
            rate,
            unit,
            ratio: base.map(|base| rate / base.rate),
            of: base.map(|base| base.name.clone()),
        };
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }

    /// Prints the table and writes `target/bench/NAME.json`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn finish(&self, name: &str) -> anyhow::Result<()> {
        println!("{:<24} {:>12}  {:<12} ratio", "name", "rate", "unit");
        for row in &self.rows {
            println!("{}", line(row));
        }
        write(name, self)?;
        println!("written to {REPORTS}/{name}.json");
        Ok(())
    }
}

/// Writes `target/bench/NAME.json`.
///
/// # Errors
/// When it can't be written.
pub fn write(name: &str, report: &impl Serialize) -> anyhow::Result<()> {
    let path = Path::new(REPORTS).join(format!("{name}.json"));
    fs::create_dir_all(REPORTS).context("make the folder of reports")?;
    fs::write(&path, serde_json::to_string_pretty(report)?).context("write the report")
}

fn line(row: &Row) -> String {
    let ratio = match (&row.ratio, &row.of) {
        (Some(ratio), Some(of)) => format!("{ratio:.2} of {of}"),
        _ => String::new(),
    };
    format!("{:<24} {:>12.0}  {:<12} {ratio}", row.name, row.rate, row.unit)
}
