//! What was measured, by size, and its ratio to the first size.

use serde::Serialize;

use super::measure::Measured;

/// How far a ratio to the first size may go.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    fn is_met_by(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

/// One thing that was measured, at each size.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub aim: Aim,
    pub values: Vec<f64>,
    /// Each by the first.
    pub ratios: Vec<f64>,
}

/// All of it.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    /// Events in the ledger.
    pub sizes: Vec<u64>,
    pub rows: Vec<Row>,
}

impl Table {
    /// What is added from now on was measured at this size.
    pub fn size(&mut self, events: u64) {
        self.sizes.push(events);
    }

    /// Adds what was measured, and the processors' time for it, whose aim is that of the rate
    /// turned round.
    pub fn measured(&mut self, name: &str, unit: &'static str, aim: Aim, it: Measured) {
        self.add(name, it.by_clock, unit, aim);
        let aim = match aim {
            Aim::AtLeast(least) => Aim::AtMost(1.0 / least),
            most => most,
        };
        self.add(&format!("{name}_cpu"), it.cpu_us, "µs", aim);
    }

    /// Adds one row's value.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, aim: Aim) {
        eprintln!("{name}: {value:.2} {unit}");
        let known = self.rows.iter().position(|row| row.name == name);
        let index = known.unwrap_or_else(|| {
            let name = name.to_owned();
            self.rows.push(Row { name, unit, aim, values: Vec::new(), ratios: Vec::new() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[index];
        row.values.push(value);
        row.ratios.push(value / row.values[0]);
    }

    /// Prints it.
    pub fn print(&self) {
        print!("{:<20} {:<10} {:>8}", "name", "unit", "aim");
        for size in &self.sizes {
            print!(" {size:>20}");
        }
        println!();
        for row in &self.rows {
            let aim = match row.aim {
                Aim::AtLeast(least) => format!("≥ {least}"),
                Aim::AtMost(most) => format!("≤ {most}"),
            };
            print!("{:<20} {:<10} {aim:>8}", row.name, row.unit);
            for (value, ratio) in row.values.iter().zip(&row.ratios) {
                let missed = if row.aim.is_met_by(*ratio) { "" } else { "!" };
                print!(" {:>20}", format!("{value:.2} ({ratio:.2}{missed})"));
            }
            println!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_first_size() {
        let mut table = Table::default();
        for (size, value) in [(1, 10.0), (5, 8.0), (20, 7.0)] {
            table.size(size);
            table.add("append", value, "punches/s", Aim::AtLeast(0.8));
        }
        assert_eq!(table.rows.len(), 1);
        assert_eq!(table.rows[0].ratios, [1.0, 0.8, 0.7]);
        let aim = table.rows[0].aim;
        assert_eq!([0.8, 0.7].map(|ratio| aim.is_met_by(ratio)), [true, false]);
        assert!(Aim::AtMost(1.3).is_met_by(1.3) && !Aim::AtMost(1.3).is_met_by(1.31));
    }
}
