//! The report as a person reads it.

use std::fmt;

use super::{PEAK_S, Report};
use crate::{PHOTOS_AT_ONCE, Waiting};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = &self.outcome;
        let verdict = if outcome.complete {
            match self.photos.outstanding {
                0 => "COMPLETE: every punch is acknowledged, and the files agree with the server",
                _ => {
                    "COMPLETE: every punch is acknowledged and every photo stored, and the files \
                     agree with the server"
                }
            }
        } else if outcome.unacknowledged > 0 {
            "NOT COMPLETE: punches still wait. They are safe in the devices' files; run again with \
             --punches 0 to go on"
        } else if self.photos.waiting > 0 {
            "NOT COMPLETE: every punch is acknowledged, but photos still wait. They are safe in \
             the devices' files; run again with --punches 0 to go on"
        } else {
            "NOT COMPLETE: see below"
        };
        writeln!(f, "{verdict}\n")?;
        writeln!(
            f,
            "  devices      {} ({} drained and said so), seed {}",
            grouped(self.devices as u64),
            grouped(outcome.devices_finished as u64),
            self.seed
        )?;
        if !self.misbehaviour.modes.is_empty() {
            let modes: Vec<_> = self.misbehaviour.modes.iter().map(ToString::to_string).collect();
            writeln!(
                f,
                "  misbehaving  {} of them: {}",
                grouped(self.misbehaviour.devices as u64),
                modes.join(", ")
            )?;
        }
        let statuses: Vec<String> = outcome
            .by_status
            .iter()
            .map(|(status, captures)| format!("{} {status}", grouped(*captures)))
            .collect();
        writeln!(
            f,
            "  punches      {} waited, {} acknowledged, {} still wait; in the files: {}",
            grouped(outcome.outstanding),
            grouped(outcome.acknowledged),
            grouped(outcome.unacknowledged),
            if statuses.is_empty() { "none".to_owned() } else { statuses.join(", ") }
        )?;
        self.photos(f)?;
        for line in &outcome.discrepancies_listed {
            writeln!(f, "  ! {line}")?;
        }
        let unlisted = outcome.discrepancies - outcome.discrepancies_listed.len();
        if unlisted > 0 {
            writeln!(f, "  ! and {unlisted} more")?;
        }
        self.speed(f)?;
        self.calls(f)?;
        self.caveats(f)
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} punches of {} devices wait, and the gate is closed. Enrolling took {:.0} s, \
             capturing {:.0} s",
            grouped(self.punches),
            grouped(self.devices as u64),
            self.phases.enrol_s,
            self.phases.capture_s
        )
    }
}

impl Report {
    fn photos(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let photos = &self.photos;
        if photos.outstanding + photos.waiting == 0 {
            return Ok(());
        }
        write!(
            f,
            "  photos       {} waited, {} stored, {} still wait; {} refused for what they are, {} \
             as busy",
            grouped(photos.outstanding),
            grouped(photos.put),
            grouped(photos.waiting),
            grouped(photos.refused),
            grouped(photos.busy)
        )?;
        match photos.after_punches_s {
            Some(after_s) if after_s >= 0.0 => {
                writeln!(f, "; the last came {after_s:.1} s after the last punch")
            }
            Some(_) => writeln!(f, "; the last came before the last punch"),
            None => writeln!(f),
        }
    }

    fn speed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, phases) = (&self.rate, &self.phases);
        writeln!(
            f,
            "  time         enrolling {:.0} s, capturing {:.0} s, delivering {:.0} s, checking \
             {:.0} s",
            phases.enrol_s, phases.capture_s, phases.deliver_s, phases.check_s
        )?;
        writeln!(
            f,
            "  punches/s    {} mean, {} from a tenth to nine tenths, {} in the best {PEAK_S} s\n",
            grouped(rate.mean_per_s as u64),
            grouped(rate.middle_per_s as u64),
            grouped(rate.peak_per_s as u64)
        )?;
        writeln!(f, "  drained, s after the gate     devices      p50      p99     last")?;
        let rows = [
            ("all", self.drained.all),
            ("well-behaved", self.drained.well_behaved),
            ("misbehaving", self.drained.misbehaving),
        ];
        let all_behave = self.misbehaviour.modes.is_empty();
        for (name, of) in rows.into_iter().take(if all_behave { 1 } else { 3 }) {
            let shown = |s: Option<f64>| s.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}"));
            writeln!(
                f,
                "    {name:<22} {:>7}/{:<7} {:>6} {:>8} {:>8}",
                of.drained,
                of.devices,
                shown(of.p50_s),
                shown(of.p99_s),
                shown(of.last_s)
            )?;
        }
        Ok(())
    }

    fn calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n  answered in, ms          calls      p50      p90      p99    p99.9      max"
        )?;
        let rows = [
            ("batches", self.latency.batches),
            ("heartbeats", self.latency.heartbeats),
            ("manifest", self.latency.manifest),
            ("photos", self.latency.photos),
            ("refused as busy", self.latency.sheds),
        ];
        for (name, p) in rows {
            if name == "photos" && self.photos.outstanding == 0 {
                continue;
            }
            if p.count == 0 {
                writeln!(f, "    {name:<18} {:>9}        -", 0)?;
                continue;
            }
            writeln!(
                f,
                "    {name:<18} {:>9} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
                grouped(p.count),
                p.p50_ms,
                p.p90_ms,
                p.p99_ms,
                p.p999_ms,
                p.max_ms
            )?;
        }
        let failures = &self.failures;
        writeln!(
            f,
            "\n  shed         {} with 503, {} with 429; {} refused otherwise, {} without an \
             answer; {} retries",
            grouped(failures.busy_503),
            grouped(failures.busy_429),
            grouped(failures.refused),
            grouped(failures.unanswered),
            grouped(failures.retries)
        )?;
        if !failures.by_code.is_empty() {
            let codes: Vec<String> = failures
                .by_code
                .iter()
                .map(|(code, calls)| format!("{code} {}", grouped(*calls)))
                .collect();
            writeln!(f, "  by code      {}", codes.join(", "))?;
        }
        writeln!(
            f,
            "  sent         {} calls, at most {} at once; {} punches",
            grouped(self.sent.calls),
            grouped(self.sent.in_flight_max),
            grouped(self.sent.items)
        )?;
        if self.sent.batches_twice + self.sent.garbage > 0 {
            writeln!(
                f,
                "               on purpose: {} batches twice, {} items of garbage",
                grouped(self.sent.batches_twice),
                grouped(self.sent.garbage)
            )?;
        }
        Ok(())
    }

    fn caveats(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let synced = if self.simulator.synced { "synced" } else { "not synced" };
        writeln!(
            f,
            "\n  Captured in bulk (same bytes, chain and signatures, one transaction a device); \
             files {synced}; at most {} open at once.",
            self.simulator.files_max
        )?;
        if self.simulator.waited_for_memory_ms > 0 {
            writeln!(
                f,
                "  The simulator held batches back for {:.1} s in all, to bound its own memory.",
                self.simulator.waited_for_memory_ms as f64 / 1_000.0
            )?;
        }
        if self.photos.waited_for_place_ms > 0 {
            writeln!(
                f,
                "  Photos waited {:.1} s in all for one of the simulator's {PHOTOS_AT_ONCE} places \
                 to be sent.",
                self.photos.waited_for_place_ms as f64 / 1_000.0
            )?;
        }
        if self.simulator.store_failures > 0 {
            writeln!(
                f,
                "  Devices' folders refused {} times; the log says why.",
                self.simulator.store_failures
            )?;
        }
        Ok(())
    }
}

/// A number with its thousands told apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
