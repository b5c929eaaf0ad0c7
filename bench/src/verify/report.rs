//! All parts, for a person as tables, for programs as JSON.

use serde::Serialize;

use super::{
    checks::{Checks, OfSize, Rates},
    delay::{Delay, Of, Run},
    memory::Memory,
    sqs::Calls,
};
use crate::report::{Aim, REPORTS, write};

/// Local checks a second, of the models alone.
const CHECKS_OF_BARE: f64 = 0.8;
/// Calls to SQS for a thousand messages, to receive, delete and send them.
const CALLS_PER_THOUSAND: f64 = 320.0;
/// How much more memory the server may take while photos wait, in MiB.
const MEMORY_MIB: f64 = 64.0;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    /// Processors that everything shared.
    pub processors: usize,
    pub checks: Option<Checks>,
    pub delay: Option<Delay>,
    pub sqs: Option<Calls>,
    pub memory: Option<Memory>,
    pub aims: Vec<Aim>,
}

impl VerifyReport {
    /// Nothing yet.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let (checks, delay, sqs, memory) = (None, None, None, None);
        Self { processors, checks, delay, sqs, memory, aims: Vec::new() }
    }

    /// Holds it against the aims, prints it, and writes `target/bench/verify.json`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.judge();
        self.print();
        write("verify", &self)?;
        println!("\nwritten to {REPORTS}/verify.json");
        Ok(())
    }

    fn judge(&mut self) {
        for of in self.checks.iter().flat_map(|checks| &checks.sizes) {
            let ratio = of.local.by(of.bare);
            let what = format!("local checks, {}: of the models alone", of.size);
            self.aims.push(Aim::at_least(what, ratio.median, CHECKS_OF_BARE, ""));
        }
        if let Some(calls) = &self.sqs {
            let what = "calls to SQS for a thousand messages";
            self.aims.push(Aim::at_most(what, calls.per_thousand(), CALLS_PER_THOUSAND, ""));
        }
        if let Some(memory) = &self.memory {
            let what = format!("memory more while {} photos wait", memory.photos);
            self.aims.push(Aim::at_most(what, memory.more_mib(), MEMORY_MIB, " MiB"));
        }
    }

    fn print(&self) {
        self.checks.iter().for_each(print_checks);
        self.delay.iter().for_each(print_delay);
        if let Some(calls) = &self.sqs {
            let Calls { messages, send, receive, delete, .. } = calls;
            println!(
                "\ncalls to SQS (Moto) for {messages} messages: send {send}, receive {receive}, \
                 delete {delete}; {:.0} for a thousand",
                calls.per_thousand()
            );
        }
        if let Some(memory) = &self.memory {
            println!(
                "\nmemory of the server, MiB: {:.1} before, {:.1} at most while {} photos of {:.0} \
                 kB came and waited, {:.1} in the end; {:.1} more, {:.1} kB a photo",
                memory.before_mib,
                memory.most_mib,
                memory.photos,
                memory.photo_bytes as f64 / 1_000.0,
                memory.waiting_mib,
                memory.more_mib(),
                memory.more_mib() * 1_048.576 / memory.photos.max(1) as f64
            );
        }
        println!();
        self.aims.iter().for_each(Aim::print);
    }
}

fn print_checks(checks: &Checks) {
    println!(
        "\npictures a second on {} threads{:>15} {:>9} {:>9} {:>9}",
        checks.threads, "best", "of bare", "median", "of bare"
    );
    for of in &checks.sizes {
        let OfSize { size, pictures, picture_bytes, outcomes, bare, steps, local } = of;
        let kb = picture_bytes / 1_000;
        println!("  {size}: {pictures} pictures of {kb} kB, checked: {outcomes:?}");
        for (name, rates) in [("bare", bare), ("steps", steps), ("local", local)] {
            let Rates { best, median } = rates;
            let by = rates.by(*bare);
            println!(
                "    {name:<42} {best:>9.1} {:>9.2} {median:>9.1} {:>9.2}",
                by.best, by.median
            );
        }
    }
}

fn print_delay(delay: &Delay) {
    println!("\nuntil the verdict, ms, {} devices", delay.devices);
    println!(
        "{:>8} {:>8} {:>8} {:>6} {:>6} {:>24} {:>24} {:>24}  backlog",
        "punch/s",
        "punches",
        "verdicts",
        "failed",
        "busy",
        "from due p50/p95/max",
        "from punch p50/p95/max",
        "from photo p50/p95/max"
    );
    for run in delay.runs.iter().chain(&delay.search) {
        let Run { rate, punches, verdicts, busy, grows, .. } = run;
        let shown = |of: &Of| format!("{:.0} / {:.0} / {:.0}", of.p50_ms, of.p95_ms, of.max_ms);
        println!(
            "{rate:>8.2} {punches:>8} {verdicts:>8} {:>6} {busy:>6} {:>24} {:>24} {:>24}  {}",
            run.failed(),
            shown(&run.from_due),
            shown(&run.from_punch),
            shown(&run.from_photo),
            if *grows { "grows" } else { "holds" }
        );
        for (why, times) in &run.failures {
            println!("{:>8} {times} times: {why}", "");
        }
    }
    match delay.highest_that_holds {
        Some(rate) => println!("the highest rate that holds: {rate:.2} punches/s"),
        None if delay.search.is_empty() => {}
        None => println!("no rate held"),
    }
}
