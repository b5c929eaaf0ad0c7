//! What was said of the ledger before, outside the database: the signed checkpoints.
//!
//! Those of the newest epoch must all hold. Those of earlier ones must hold up to the fork point
//! that each later epoch recorded when it was opened; what they say beyond it is lost, and told. A
//! note that somebody kept elsewhere must hold, whichever epoch it is of: whoever opens an epoch
//! decides what the folder demands, never what was handed out before.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use punchtrail_domain::log::{
    merkle::Frontier,
    signed_note::{self, NOTE_BYTES_MAX, NoteError, NoteVerifier},
};
use punchtrail_protocol::{Digest, OrgId};

use crate::audit::checkpoint::{Epoch, Folder, FolderError, Kept, origin};

use super::{
    report::{CheckpointsRead, EpochRead, Finding, FindingCode, Findings},
    walk::StepBack,
};

/// A server signs every few seconds at most, so two of these would do.
const READ_ATTEMPTS_MAX: u32 = 5;

/// A signed statement: the first `size` events have this root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    size: u64,
    root: Digest,
}

/// Claims that stand or fall together, smallest first, and whose they are.
#[derive(Debug, Default)]
struct Series {
    /// As a finding names one of them.
    whose: String,
    claims: Vec<Claim>,
}

/// All that is claimed, and what could not be read of it.
#[derive(Debug, Default)]
pub struct Claims {
    newest: Series,
    earlier: Vec<Series>,
    elsewhere: Vec<Series>,
    epochs: Vec<EpochRead>,
    refused: Vec<String>,
    notes: Vec<String>,
}

/// Why claims could not be read. It says nothing about the ledger.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// The folder of checkpoints can't be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file that was to be compared is no checkpoint that can be held against this ledger.
    #[error("{path} can't be compared: {what}. Nothing was verified")]
    Elsewhere { path: PathBuf, what: String },
}

impl Claims {
    /// No checkpoint at hand: only what the database says of itself can be verified.
    pub fn none(why: impl Into<String>) -> Self {
        Self { notes: vec![why.into()], ..Self::default() }
    }

    /// Reads the checkpoints in `data_dir`. Writes nothing.
    ///
    /// # Errors
    /// When the folder can't be read; a note that is damaged or forged is a finding instead.
    pub fn read(data_dir: &Path, org: OrgId) -> Result<Self, ClaimsError> {
        let Some(folder) = Folder::existing(data_dir, org)? else {
            return Ok(Self::none(
                "There is no folder of checkpoints here: what the database says of itself was \
                 verified, not whether it says the same as before.",
            ));
        };
        let mut claims = Self::default();
        let epochs = match folder.epochs() {
            Err(error @ FolderError::Damaged { .. }) => {
                claims.refused.push(error.to_string());
                return Ok(claims);
            }
            epochs => epochs?,
        };
        let newest = epochs.last().map_or(1, |epoch| epoch.number);
        for (at, epoch) in epochs.iter().enumerate() {
            let (kept, damaged) = kept(&folder, epoch.number)?;
            claims.refused.extend(damaged.iter().map(ToString::to_string));
            let ended = Ended::of(&epochs[at + 1..]);
            let (held, lost): (Vec<Claim>, Vec<Claim>) = kept
                .into_iter()
                .map(|kept| Claim { size: kept.checkpoint.size, root: kept.checkpoint.root })
                .partition(|claim| claim.size <= ended.after);
            let whose = match epoch.number == newest {
                true => "a signed checkpoint".to_owned(),
                false => format!("a signed checkpoint of epoch {}", epoch.number),
            };
            let series = Series { whose, claims: held };
            match epoch.number == newest {
                true => claims.newest = series,
                false => claims.earlier.push(series),
            }
            let lost_through = lost.last().map(|claim| claim.size);
            claims.tell(epoch, lost_through.map(|through| (ended, through)));
        }
        Ok(claims)
    }

    /// Adds a note that somebody kept elsewhere, signed by a key of the folder or by one of `keys`.
    ///
    /// # Errors
    /// [`ClaimsError::Elsewhere`] when there is no such file, or when it isn't a checkpoint of this
    /// ledger by a key that is known. One whose signature is wrong is a finding instead.
    pub fn add(
        &mut self,
        path: &Path,
        data_dir: Option<&Path>,
        org: OrgId,
        keys: &[NoteVerifier],
    ) -> Result<(), ClaimsError> {
        let refuse = |what: String| ClaimsError::Elsewhere { path: path.to_owned(), what };
        let note = read_note(path).map_err(refuse)?;
        let folder = data_dir.map(|dir| Folder::existing(dir, org)).transpose()?.flatten();
        match open_note(&note, folder.as_ref(), org, keys)? {
            Ok(claim) => {
                let whose = format!("the checkpoint in {}", path.display());
                self.elsewhere.push(Series { whose, claims: vec![claim] });
                Ok(())
            }
            Err(NoteError::BadSignature) => {
                self.refused.push(format!("{}: {}", path.display(), NoteError::BadSignature));
                Ok(())
            }
            Err(NoteError::Unverified) => Err(refuse(
                "it is signed by none of the keys that are known here; give its key with --vkey"
                    .to_owned(),
            )),
            Err(_) => Err(refuse("it is no checkpoint of this ledger".to_owned())),
        }
    }

    fn tell(&mut self, epoch: &Epoch, lost: Option<(Ended, u64)>) {
        if let Some(fork) = &epoch.fork {
            self.notes.push(format!(
                "Epoch {} was opened: {}. It parted from the one before after position {}{}.",
                epoch.number,
                fork.reason.trim_end_matches('.'),
                fork.after,
                match fork.signed {
                    true => ", which that one's key signed",
                    false => "; that one's key was gone, and didn't sign it",
                }
            ));
        }
        if let Some((ended, through)) = lost {
            self.notes.push(format!(
                "What epoch {} had signed after position {}, up to {through}, is lost or was \
                 changed: epoch {} was opened without it.",
                epoch.number, ended.after, ended.by
            ));
        }
        self.epochs.push(EpochRead {
            epoch: epoch.number,
            after: epoch.fork.as_ref().map(|fork| fork.after),
            reason: epoch.fork.as_ref().map(|fork| fork.reason.clone()),
            signed: epoch.fork.as_ref().map(|fork| fork.signed),
            lost_through: lost.map(|(_, through)| through),
        });
    }

    pub(super) fn comparison(self, findings: &mut Findings) -> (Comparison, Vec<String>) {
        for refused in self.refused {
            findings.add(Finding::aside(FindingCode::BadCheckpoint, refused));
        }
        let all = |series: Vec<Series>| series.into_iter().map(Against::new).collect();
        let comparison = Comparison {
            newest: Against::new(self.newest),
            earlier: all(self.earlier),
            elsewhere: all(self.elsewhere),
            epochs: self.epochs,
            comparable: true,
        };
        (comparison, self.notes)
    }
}

/// Up to where an epoch's claims must still hold, and the later epoch that says so.
#[derive(Debug, Clone, Copy)]
struct Ended {
    after: u64,
    by: u32,
}

impl Ended {
    /// Whoever takes a later epoch's word away makes the earlier claims hold in full, so a missing
    /// one excuses nothing.
    fn of(later: &[Epoch]) -> Self {
        let parted = later.iter().filter_map(|epoch| Some((epoch.fork.as_ref()?.after, epoch)));
        let (after, by) = parted
            .min_by_key(|(after, _)| *after)
            .map_or((u64::MAX, 0), |(after, epoch)| (after, epoch.number));
        Self { after, by }
    }
}

/// The kept checkpoints. A server at work removes old ones, maybe between listing and reading them.
fn kept(folder: &Folder, epoch: u32) -> Result<(Vec<Kept>, Vec<FolderError>), FolderError> {
    let mut attempt = 1;
    loop {
        match folder.kept(epoch) {
            Err(FolderError::Io { source, .. })
                if source.kind() == ErrorKind::NotFound && attempt < READ_ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            other => return other,
        }
    }
}

fn read_note(path: &Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no file".to_owned());
    }
    if about.len() > NOTE_BYTES_MAX as u64 {
        return Err("it is larger than a signed note".to_owned());
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// A checkpoint of this ledger, of whichever epoch its text says.
fn open_note(
    note: &str,
    folder: Option<&Folder>,
    org: OrgId,
    keys: &[NoteVerifier],
) -> Result<Result<Claim, NoteError>, FolderError> {
    let first = note.lines().next().unwrap_or_default();
    let of_this = origin(org, 0);
    let epoch = of_this.strip_suffix('0').and_then(|ours| first.strip_prefix(ours));
    let (Some(epoch), Ok(name)) = (epoch.and_then(|epoch| epoch.parse().ok()), first.parse())
    else {
        return Ok(Err(NoteError::Checkpoint));
    };
    let mut known = keys.to_vec();
    if let Some(folder) = folder {
        known.push(folder.verifier(epoch)?);
    }
    let opened = signed_note::open_checkpoint(note.as_bytes(), &name, &known);
    Ok(opened.map(|checkpoint| Claim { size: checkpoint.size, root: checkpoint.root }))
}

/// Claims, compared one after another as the tree grows.
#[derive(Debug)]
struct Against {
    whose: String,
    claims: std::iter::Peekable<std::vec::IntoIter<Claim>>,
    agreeing: u64,
    through: u64,
    /// The size at which the first one disagreed.
    disagrees: Option<u64>,
}

impl Against {
    fn new(Series { whose, claims }: Series) -> Self {
        let claims = claims.into_iter().peekable();
        Self { whose, claims, agreeing: 0, through: 0, disagrees: None }
    }

    fn at(&mut self, size: u64, roots: &dyn Fn() -> [Digest; 2]) {
        while let Some(claim) = self.claims.next_if(|claim| claim.size <= size) {
            if self.disagrees.is_some() {
                continue;
            }
            if claim.size == size && roots().contains(&claim.root) {
                self.agreeing += 1;
                self.through = size;
            } else {
                self.disagrees = Some(claim.size);
            }
        }
    }

    /// The one place where a claim that doesn't hold becomes a finding.
    fn finish(&mut self, head: u64, steps_back: &[StepBack], findings: &mut Findings) {
        let whose = &self.whose;
        // The ledger's own word, which doesn't make it good: whoever holds it can write that.
        let explained = |size: u64| {
            let explains = |step: &&StepBack| step.after < size && size <= step.seen;
            steps_back.iter().find(explains).map(|step| {
                let StepBack { position, after, .. } = step;
                format!(
                    ". The ledger says itself, at position {position}, that its database went back \
                     to {after} and what came after was lost; if nobody knows of that, it was made \
                     to say so"
                )
            })
        };
        let coded = |code, size| match explained(size) {
            Some(said) => (FindingCode::WentBack, said),
            None => (code, String::new()),
        };
        let beyond = self.claims.by_ref().map(|claim| claim.size).filter(|size| *size > head).max();
        if let Some(size) = beyond {
            let (code, said) = coded(FindingCode::BeyondHead, size);
            findings.add(Finding::within(
                (head + 1, size),
                code,
                format!(
                    "{whose} covers {size} events, the ledger ends at {head}: the newest {} were \
                     removed, or an older copy was put back{said}",
                    size - head
                ),
            ));
        }
        if let Some(size) = self.disagrees {
            let from = self.through + 1;
            let (code, said) = coded(FindingCode::RootMismatch, size);
            findings.add(Finding::within(
                (from, size),
                code,
                format!(
                    "positions {from} to {size} don't have the root that {whose} gives them: at \
                     least one of these events was changed together with its hash, or is another \
                     one{said}"
                ),
            ));
        }
    }
}

/// The tree, grown over the rows and compared with what was claimed of it.
#[derive(Debug)]
pub(super) struct Comparison {
    newest: Against,
    earlier: Vec<Against>,
    elsewhere: Vec<Against>,
    epochs: Vec<EpochRead>,
    /// A hole ends it: without a leaf there is no root.
    comparable: bool,
}

impl Comparison {
    fn all(&mut self) -> impl Iterator<Item = &mut Against> {
        std::iter::once(&mut self.newest).chain(&mut self.earlier).chain(&mut self.elsewhere)
    }

    /// `computed` is over the rows as they stand, `stored` over the hashes stored with them. A
    /// checkpoint agrees with either: if only one agrees, single rows were found to be altered, and
    /// here they are not said to be unknown.
    pub(super) fn at(&mut self, computed: &Frontier, stored: &Frontier) {
        if self.comparable {
            let size = stored.size();
            let roots = || [stored.root(), computed.root()];
            self.all().for_each(|against| against.at(size, &roots));
        }
    }

    pub(super) fn hole(&mut self) {
        self.comparable = false;
    }

    pub(super) fn finish(
        mut self,
        head: u64,
        steps_back: &[StepBack],
        findings: &mut Findings,
    ) -> CheckpointsRead {
        self.all().for_each(|against| against.finish(head, steps_back, findings));
        let through = self.newest.through;
        CheckpointsRead {
            agreeing: self.newest.agreeing,
            through,
            uncovered: head - through,
            earlier: self.earlier.iter().map(|earlier| earlier.agreeing).sum(),
            elsewhere: self.elsewhere.iter().map(|elsewhere| elsewhere.agreeing).sum(),
            epochs: self.epochs,
        }
    }
}

#[cfg(test)]
mod tests {
    use punchtrail_protocol::EpochId;

    use super::*;

    fn grown(leaves: u8) -> Frontier {
        let mut frontier = Frontier::new();
        frontier.extend((0..leaves).map(|leaf| Digest::of(&[leaf])));
        frontier
    }

    fn claim(size: u8) -> Claim {
        Claim { size: size.into(), root: grown(size).root() }
    }

    fn wrong(size: u8) -> Claim {
        Claim { root: Digest::ZERO, ..claim(size) }
    }

    fn series(claims: Vec<Claim>) -> Series {
        Series { whose: "a signed checkpoint".to_owned(), claims }
    }

    fn compare_all(claims: Claims, head: u8) -> (CheckpointsRead, Vec<Finding>) {
        let mut findings = Findings::default();
        let (mut comparison, _) = claims.comparison(&mut findings);
        for size in 1..=head {
            comparison.at(&grown(size), &grown(size));
        }
        let read = comparison.finish(head.into(), &[STEP_BACK], &mut findings);
        (read, findings.into_parts().0)
    }

    const STEP_BACK: StepBack = StepBack { position: 31, epoch: EpochId::NIL, after: 30, seen: 40 };

    #[test]
    fn what_the_ledger_says_of_itself_is_said_with_it() {
        let (_, findings) = compare(vec![claim(20), wrong(35), wrong(50)], 60);
        assert_eq!(findings[0].code, FindingCode::WentBack);
        assert!(findings[0].what.contains("at position 31"), "{}", findings[0].what);
        let (_, findings) = compare(vec![claim(20), wrong(45)], 60);
        assert_eq!(findings[0].code, FindingCode::RootMismatch, "that is no part of it");
        let (_, findings) = compare(vec![claim(20), claim(38)], 32);
        assert_eq!(findings[0].code, FindingCode::WentBack);
    }

    fn compare(claims: Vec<Claim>, head: u8) -> (CheckpointsRead, Vec<Finding>) {
        compare_all(Claims { newest: series(claims), ..Claims::default() }, head)
    }

    #[test]
    fn claims_that_hold_are_counted() {
        let (read, findings) = compare(vec![claim(2), claim(5)], 7);
        assert_eq!((read.agreeing, read.through, read.uncovered), (2, 5, 2));
        assert_eq!(findings, []);
    }

    #[test]
    fn one_that_does_not_hold_gives_the_range_since_the_last_that_did() {
        let (_, findings) = compare(vec![claim(2), wrong(5), claim(6)], 7);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].position, findings[0].through), (Some(3), Some(5)));
        assert_eq!(findings[0].code, FindingCode::RootMismatch);
    }

    #[test]
    fn one_beyond_the_head_says_what_is_gone() {
        let (_, findings) = compare(vec![claim(2), claim(9)], 7);
        assert_eq!((findings[0].position, findings[0].through), (Some(8), Some(9)));
        assert_eq!(findings[0].code, FindingCode::BeyondHead);
    }

    #[test]
    fn two_of_one_size_can_not_both_hold() {
        let (_, findings) = compare(vec![claim(5), wrong(5)], 7);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn an_earlier_epochs_and_those_kept_elsewhere_must_hold_as_well() {
        for (earlier, elsewhere) in [(wrong(4), claim(3)), (claim(4), wrong(3))] {
            let claims = Claims {
                newest: series(vec![claim(5)]),
                earlier: vec![series(vec![earlier])],
                elsewhere: vec![series(vec![elsewhere])],
                ..Claims::default()
            };
            let (read, findings) = compare_all(claims, 5);
            assert_eq!((read.agreeing, read.earlier + read.elsewhere), (1, 1));
            assert_eq!(findings.len(), 1);
            assert_eq!(findings[0].code, FindingCode::RootMismatch);
        }
    }

    #[test]
    fn of_several_forks_the_earliest_counts_and_a_missing_one_excuses_nothing() {
        let epoch = |number, after: Option<u64>| Epoch {
            number,
            origin: String::new(),
            fork: after.map(|after| crate::audit::checkpoint::Fork {
                after,
                root: Digest::ZERO,
                reason: String::new(),
                signed: true,
            }),
        };
        let after = |later: &[Epoch]| Ended::of(later).after;
        assert_eq!(after(&[]), u64::MAX);
        assert_eq!(after(&[epoch(2, Some(7)), epoch(3, Some(4))]), 4);
        assert_eq!(after(&[epoch(2, Some(3)), epoch(3, Some(4))]), 3);
        assert_eq!(after(&[epoch(2, None)]), u64::MAX);
    }
}
