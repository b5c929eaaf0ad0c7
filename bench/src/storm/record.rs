//! What one run showed, and whether it kept what is promised.

use punchtrail_simulator::report::{Drained, Failures, Outcome, Photos};
use punchtrail_tests::comparison::Comparison;
use serde::Serialize;

use super::{
    Kind,
    memory::Peak,
    photos::Found,
    readers::{Phase, Storm},
    traffic::Drain,
    webhooks::Told,
};

/// One run.
#[derive(Debug, Serialize)]
pub struct RunReport {
    pub kind: Kind,
    /// How many devices took part.
    pub devices: usize,
    /// Promises that were broken; none if all were kept.
    pub broken: Vec<String>,
    /// What shows harm: broken promises, and what readers and devices had to bear.
    pub harm: Vec<String>,
    /// Readers before the storm.
    pub idle: Phase,
    pub storm: Storm,
    pub fleet: Option<FleetPart>,
    /// The most memory and files.
    pub peak: Peak,
    /// Requests that the server refused as busy, by its own account.
    pub server_refusals: u64,
    /// From the last acknowledgement until every follower stood at the head, in seconds.
    pub settled_s: Option<f64>,
    /// What a receiver of webhooks was told, if there was one.
    pub webhooks: Option<Told>,
    pub checked: Option<Checked>,
}

/// The fleet's own account.
#[derive(Debug, Serialize)]
pub struct FleetPart {
    pub outcome: Outcome,
    /// How soon devices were drained.
    pub drained: Drained,
    pub photos: Photos,
    pub failures: Failures,
    pub drain: Drain,
    /// The rate after the spread, of `http`'s.
    pub of_http: Option<f64>,
}

/// The devices' own files held against the ledger.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    pub captures: u64,
    /// Of them, not acknowledged by the device's own account.
    pub waiting: u64,
    /// Acknowledged, and not in the ledger.
    pub lost: u64,
    /// In the ledger more than once.
    pub twice: u64,
    /// In the ledger with other bytes.
    pub other_bytes: u64,
    /// In the ledger and in no file.
    pub foreign: u64,
    /// Positions that are missing.
    pub holes: u64,
    pub head: u64,
    /// What `punchtrail ledger verify` said.
    pub verified: bool,
    /// Of the photos that punches in the ledger name.
    pub photos: Found,
}

impl Checked {
    /// From a comparison, what `ledger verify` said, and which photos were found.
    pub fn of(comparison: &Comparison, verified: bool, photos: Found) -> Self {
        let Comparison {
            captures, waiting, lost, twice, other_bytes, foreign, holes, head, ..
        } = *comparison;
        Self { captures, waiting, lost, twice, other_bytes, foreign, holes, head, verified, photos }
    }

    fn broken(&self) -> Vec<String> {
        let counted = [
            (self.lost, "acknowledged punches are not in the ledger"),
            (self.twice, "punches are in the ledger more than once"),
            (self.other_bytes, "punches are in the ledger with other bytes"),
            (self.foreign, "punches are in the ledger and in no device's file"),
            (self.holes, "positions are missing"),
            (self.waiting, "punches still wait"),
            (self.photos.untold, "punches were not told that their photo came"),
            (self.photos.missing, "photos that punches name are not in the store"),
        ];
        let wrong = counted.iter().filter(|(count, _)| *count > 0);
        let mut broken: Vec<String> =
            wrong.map(|(count, what)| format!("{count} {what}")).collect();
        if !self.verified {
            broken.push("`ledger verify` is not content".to_owned());
        }
        broken
    }
}

impl RunReport {
    /// Nothing yet.
    pub fn new(kind: Kind, devices: usize) -> Self {
        Self {
            kind,
            devices,
            broken: Vec::new(),
            harm: Vec::new(),
            idle: Phase::default(),
            storm: Storm::default(),
            fleet: None,
            peak: Peak::default(),
            server_refusals: 0,
            settled_s: None,
            webhooks: None,
            checked: None,
        }
    }

    /// What kept the run from being carried through.
    pub fn note_failure(&mut self, driven: anyhow::Result<()>) {
        self.broken.extend(driven.err().map(|error| format!("{error:#}")));
    }

    /// Holds what was measured against what is promised.
    pub fn note_promises(&mut self) {
        self.broken.extend(self.checked.iter().flat_map(Checked::broken));
        if let Some(fleet) = self.fleet.as_ref().filter(|fleet| !fleet.outcome.complete) {
            let Outcome { outstanding, acknowledged, discrepancies, devices_finished, .. } =
                fleet.outcome;
            self.broken.push(format!(
                "the fleet is not complete: {acknowledged} of {outstanding} punches acknowledged, \
                 {devices_finished} devices finished, {discrepancies} discrepancies"
            ));
        }
        let waited = self.fleet.as_ref().map_or(0, |fleet| fleet.photos.outstanding);
        let named = self.checked.as_ref().map_or(waited, |checked| checked.photos.named);
        if named != waited {
            self.broken.push(format!("{waited} photos waited, and punches name {named}"));
        }
    }
}
