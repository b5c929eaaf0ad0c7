//! What a verification found.

use std::collections::BTreeMap;

use punchtrail_domain::device::Gap;
use punchtrail_protocol::{DeviceId, Digest, PunchId};
use serde::Serialize;

/// How many findings are described; more are counted. The lowest positions are kept.
pub const FINDINGS_MAX: usize = 100;
/// How many gaps and forks of devices are listed; more are counted.
pub const DEVICE_NOTES_MAX: usize = 1_000;

/// What is wrong.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FindingCode {
    /// Positions at which no event stands.
    Missing,
    /// A position at which two events stand, or an event beyond the head.
    Misplaced,
    /// An event's row doesn't have the hash that was stored with it.
    LeafMismatch,
    /// Events don't have the root that a signed checkpoint gives them.
    RootMismatch,
    /// A signed checkpoint knows of events beyond the head: the newest rows were removed.
    BeyondHead,
    /// A signed checkpoint covers events that are gone, as the ledger says itself: the database
    /// went back. Whoever holds the database can make it say so.
    WentBack,
    /// A checkpoint's signature is wrong, or it can't be read.
    BadCheckpoint,
    /// An event was recorded before the one in front of it.
    TimeReversed,
    /// The events of an aggregate aren't numbered one by one.
    SequenceBroken,
    /// A capture isn't signed by the key of its device.
    BadSignature,
    /// Bytes kept beside the ledger are gone, or aren't the ones that the event names.
    BytesAltered,
    /// A row of a device's chain is gone, altered, or belongs to no event.
    ChainAltered,
    /// The key that a device's requests are checked against isn't the one it enrolled with.
    KeyAltered,
    /// A note, or who wrote it, isn't the one that the event names, or no event names it.
    NoteAltered,
    /// The number of a badge, whose it is or when isn't what the events say.
    BadgeAltered,
    /// How far a device's numbers are said to be held isn't what its chain shows.
    ProgressAltered,
    /// A device's access isn't what the events say: it is there without an enrolment, or gone, or
    /// revoked only in one place.
    AccessAltered,
    /// A device's sites aren't those that the events assigned it.
    SitesAltered,
    /// What the adjudicator remembers isn't what it walked over.
    MemoryAltered,
    /// A follower's place is beyond the head, is gone, or isn't where its work ends.
    PlaceAltered,
    /// The head's time isn't that of the newest event.
    HeadAltered,
    /// The organisation isn't the one that the devices enrolled for.
    DeploymentAltered,
    /// A read model isn't what the events make it, or readers are shown something else.
    ModelAltered,
    /// A trigger, a key or a table isn't as the migrations made it.
    GuardAltered,
    /// Somebody may do what no migration granted.
    RightGranted,
    /// A setting that the ledger rests on was changed.
    SettingChanged,
}

impl FindingCode {
    /// The code as reports write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The first position it concerns; none when it concerns no event.
    pub position: Option<u64>,
    /// The last position, when it lies somewhere in a range or concerns several.
    pub through: Option<u64>,
    /// What is wrong, as a code.
    pub code: FindingCode,
    pub what: String,
}

impl Finding {
    /// At one event.
    pub fn at(position: u64, code: FindingCode, what: impl Into<String>) -> Self {
        Self { position: Some(position), through: None, code, what: what.into() }
    }

    /// From one event to another.
    pub fn within((from, through): (u64, u64), code: FindingCode, what: impl Into<String>) -> Self {
        let through = (through > from).then_some(through);
        Self { position: Some(from), through, code, what: what.into() }
    }

    /// At no event.
    pub fn aside(code: FindingCode, what: impl Into<String>) -> Self {
        Self { position: None, through: None, code, what: what.into() }
    }
}

/// The findings with the lowest positions, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Findings {
    // By position, then in the order they were found.
    kept: BTreeMap<(u64, u64), Finding>,
    found: u64,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.found += 1;
        self.kept.insert((finding.position.unwrap_or(u64::MAX), self.found), finding);
        if self.kept.len() > FINDINGS_MAX {
            self.kept.pop_last();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn into_parts(self) -> (Vec<Finding>, u64) {
        let found = self.found;
        let kept: Vec<Finding> = self.kept.into_values().collect();
        let more = found - kept.len() as u64;
        (kept, more)
    }
}

/// The signed checkpoints, as far as they were compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckpointsRead {
    /// How many have the root of the events they cover.
    pub agreeing: u64,
    /// How many events the newest of these covers; 0 without one.
    pub through: u64,
    /// How many events came after it, and stand under no checkpoint yet.
    pub uncovered: u64,
    /// How many of earlier epochs agree; all that are not beyond a fork point must.
    pub earlier: u64,
    /// How many that were kept elsewhere agree; all must.
    pub elsewhere: u64,
    /// The epochs in which they were signed, oldest first.
    pub epochs: Vec<EpochRead>,
}

/// An epoch of checkpoints, as its folder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EpochRead {
    pub epoch: u32,
    /// The fork point: up to where what the epoch before had signed still held; none for the first.
    pub after: Option<u64>,
    /// Why it was opened.
    pub reason: Option<String>,
    /// Whether the key of the epoch before signed that.
    pub signed: Option<bool>,
    /// Up to where it had signed what a later epoch was opened without.
    pub lost_through: Option<u64>,
}

/// A number that a device used and that never came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceGap {
    pub device: DeviceId,
    #[serde(flatten)]
    pub gap: Gap,
}

/// A number under which a device sent two captures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceFork {
    pub device: DeviceId,
    pub seq: u64,
    /// The punch that came first; none if that item was quarantined.
    pub first: Option<PunchId>,
    /// The punch that came later; none if that item was quarantined.
    pub second: Option<PunchId>,
    /// Position of the event that says so.
    pub position: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub intact: bool,
    /// The first position at which something is wrong.
    pub first_bad: Option<u64>,
    /// What is wrong, lowest position first, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub findings_more: u64,
    /// How many events were read.
    pub events: u64,
    /// The head that was verified up to.
    pub head: u64,
    /// Root over the stored leaf hashes up to the head.
    pub root: Digest,
    /// How many signatures of captures were checked.
    pub signatures: u64,
    pub checkpoints: CheckpointsRead,
    /// Numbers of devices that never came: facts about the devices, not signs of tampering.
    pub gaps: Vec<DeviceGap>,
    /// Numbers that devices used twice: facts about the devices, not signs of tampering here.
    pub forks: Vec<DeviceFork>,
    /// How many more gaps and forks there are.
    pub devices_more: u64,
    /// Read models that were compared with what the events make of them, if that was asked for.
    pub models: Vec<ModelCompared>,
    /// What the reader should know and what is no sign of tampering.
    pub notes: Vec<String>,
}

/// A read model that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelCompared {
    pub name: String,
    /// Where it stood then.
    pub position: u64,
}

impl Report {
    /// Adds what else was found.
    pub fn add(&mut self, found: Vec<Finding>) {
        let mut all = Findings { found: self.findings_more, ..Findings::default() };
        self.findings.drain(..).chain(found).for_each(|finding| all.add(finding));
        (self.findings, self.findings_more) = all.into_parts();
        self.intact = self.findings.is_empty();
        self.first_bad = first_bad(&self.findings);
    }
}

/// The first bad position: that of the lowest finding, or of one that lies exactly somewhere in the
/// range that the lowest one gives.
pub(super) fn first_bad(findings: &[Finding]) -> Option<u64> {
    let lowest = findings.iter().find(|finding| finding.position.is_some())?;
    let somewhere = lowest.code == FindingCode::RootMismatch;
    let exact = findings.iter().find(|finding| {
        finding.code != FindingCode::RootMismatch
            && finding.position.is_some_and(|at| at <= lowest.through.unwrap_or(at))
    });
    if somewhere { exact.unwrap_or(lowest).position } else { lowest.position }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_positions_are_kept_and_the_rest_counted() {
        let mut findings = Findings::default();
        for position in (1..=300).rev() {
            findings.add(Finding::at(position, FindingCode::LeafMismatch, ""));
        }
        findings.add(Finding::aside(FindingCode::BadCheckpoint, ""));
        let (kept, more) = findings.into_parts();
        assert_eq!((kept.len(), more), (FINDINGS_MAX, 201));
        assert_eq!(kept.last().unwrap().position, Some(100));
    }

    #[test]
    fn an_exact_finding_within_the_first_range_names_the_position() {
        let range = Finding::within((11, 40), FindingCode::RootMismatch, "");
        let exact = Finding::at(17, FindingCode::BadSignature, "");
        let later = Finding::at(50, FindingCode::BadSignature, "");
        assert_eq!(first_bad(&[range.clone(), exact, later.clone()]), Some(17));
        assert_eq!(first_bad(&[range, later]), Some(11));
        assert_eq!(first_bad(&[]), None);
    }

    #[test]
    fn every_code_stands_on_both_pages() {
        use strum::VariantArray as _;
        for page in ["command-line.md", "ledger-format.md"] {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/");
            let text = std::fs::read_to_string(format!("{path}{page}")).unwrap();
            for code in FindingCode::VARIANTS {
                assert!(text.contains(&format!("`{}`", code.as_str())), "{code:?} in {page}");
            }
            for table in crate::audit::tables::TABLES {
                let named =
                    page != "ledger-format.md" || text.contains(&format!("`{}`", table.name));
                assert!(named, "{} in {page}", table.name);
            }
        }
    }

    #[test]
    fn what_is_found_later_is_put_in_its_place() {
        let mut report = Report {
            intact: true,
            first_bad: None,
            findings: Vec::new(),
            findings_more: 0,
            events: 0,
            head: 0,
            root: Digest::ZERO,
            signatures: 0,
            checkpoints: CheckpointsRead::default(),
            gaps: Vec::new(),
            forks: Vec::new(),
            devices_more: 0,
            models: Vec::new(),
            notes: Vec::new(),
        };
        report.add(Vec::new());
        assert!(report.intact);
        let all = (1..=100).map(|n| Finding::at(n, FindingCode::LeafMismatch, "")).collect();
        report.add(all);
        report.add(vec![Finding::aside(FindingCode::ModelAltered, "")]);
        assert!(!report.intact);
        assert_eq!((report.first_bad, report.findings_more), (Some(1), 1));
    }
}
