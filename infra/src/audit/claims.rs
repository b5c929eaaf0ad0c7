//! What was said of the ledger before, outside the database: the signed checkpoints.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use punchtrail_domain::log::{
    merkle::Frontier,
    signed_note::{self, NOTE_BYTES_MAX, Name, NoteVerifier},
};
use punchtrail_protocol::{Digest, OrgId};

use crate::audit::checkpoint::{Folder, FolderError, Kept, origin};

use super::report::{CheckpointsRead, Finding, FindingCode, Findings};

/// A server signs every few seconds at most, so two of these would do.
const READ_ATTEMPTS_MAX: u32 = 5;

/// A signed statement: the first `size` events have this root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    size: u64,
    root: Digest,
    epoch: u32,
}

/// All that is claimed, and what could not be read of it.
#[derive(Debug, Default)]
pub struct Claims {
    // Smallest first.
    claims: Vec<Claim>,
    newest_epoch: u32,
    refused: Vec<String>,
    notes: Vec<String>,
}

impl Claims {
    /// No checkpoint at hand: only what the database says of itself can be verified.
    pub fn none(why: impl Into<String>) -> Self {
        Self { notes: vec![why.into()], ..Self::default() }
    }

    /// Reads the checkpoints in `data_dir`, and signed notes that were kept elsewhere. Writes
    /// nothing.
    ///
    /// # Errors
    /// When the folder can't be read; a note that is damaged or forged is a finding instead.
    pub fn read(data_dir: &Path, org: OrgId, elsewhere: &[PathBuf]) -> Result<Self, FolderError> {
        if !data_dir.join("checkpoints").join("key").exists() {
            let mut claims = Self::none(
                "There is no folder of checkpoints here: what the database says of itself was \
                 verified, not whether it says the same as before.",
            );
            claims.refused.extend(elsewhere.iter().map(|path| {
                format!("{} can't be verified without the folder's key", path.display())
            }));
            return Ok(claims);
        }
        let folder = Folder::open(data_dir, org)?;
        let mut claims = Self::default();
        let epochs = folder.epochs()?;
        claims.newest_epoch = epochs.last().map_or(1, |epoch| epoch.number);
        for epoch in &epochs {
            if let Some(reason) = &epoch.reason {
                claims.notes.push(format!("Epoch {} was opened: {reason}.", epoch.number));
            }
            match kept(&folder, epoch.number) {
                Ok(kept) => claims.claims.extend(kept.into_iter().map(|kept| Claim {
                    size: kept.checkpoint.size,
                    root: kept.checkpoint.root,
                    epoch: epoch.number,
                })),
                Err(FolderError::Damaged { path, what }) => {
                    claims.refused.push(format!("checkpoint {}: {what}", path.display()));
                }
                Err(other) => return Err(other),
            }
        }
        for path in elsewhere {
            match read_elsewhere(&folder, org, epochs.iter().map(|epoch| epoch.number), path) {
                Ok(claim) => claims.claims.push(claim),
                Err(what) => claims.refused.push(format!("{}: {what}", path.display())),
            }
        }
        claims.claims.sort_by_key(|claim| (claim.size, claim.epoch));
        Ok(claims)
    }

    pub(super) fn comparison(self, findings: &mut Findings) -> (Comparison, Vec<String>) {
        for refused in self.refused {
            findings.add(Finding::aside(FindingCode::BadCheckpoint, refused));
        }
        let (newest, earlier) =
            self.claims.into_iter().partition(|claim| claim.epoch == self.newest_epoch);
        let comparison = Comparison {
            newest: Against::new(newest),
            earlier: Against::new(earlier),
            comparable: true,
        };
        (comparison, self.notes)
    }
}

/// The kept checkpoints. A server at work removes old ones, maybe between listing and reading them.
fn kept(folder: &Folder, epoch: u32) -> Result<Vec<Kept>, FolderError> {
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

/// A note of this deployment that somebody kept: its text says which epoch's it is.
fn read_elsewhere(
    folder: &Folder,
    org: OrgId,
    epochs: impl Iterator<Item = u32>,
    path: &Path,
) -> Result<Claim, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > NOTE_BYTES_MAX as u64 {
        return Err("it is larger than a signed note".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    for epoch in epochs {
        let name: Name = origin(org, epoch).parse().map_err(|error| format!("{error}"))?;
        if text.lines().next() != Some(name.as_str()) {
            continue;
        }
        let vkey = folder.vkey(epoch).map_err(|error| error.to_string())?;
        let verifier: NoteVerifier = vkey.parse().map_err(|error| format!("{error}"))?;
        let checkpoint = signed_note::open_checkpoint(text.as_bytes(), &name, &[verifier])
            .map_err(|error| error.to_string())?;
        return Ok(Claim { size: checkpoint.size, root: checkpoint.root, epoch });
    }
    Err("it is no checkpoint of this ledger".to_owned())
}

/// The claims of one kind, compared one after another as the tree grows.
#[derive(Debug)]
struct Against {
    claims: std::iter::Peekable<std::vec::IntoIter<Claim>>,
    agreeing: u64,
    through: u64,
    /// The size at which the first one disagreed.
    disagrees: Option<u64>,
}

impl Against {
    fn new(claims: Vec<Claim>) -> Self {
        Self { claims: claims.into_iter().peekable(), agreeing: 0, through: 0, disagrees: None }
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
}

/// The tree, grown over the rows and compared with what was claimed of it.
#[derive(Debug)]
pub(super) struct Comparison {
    newest: Against,
    earlier: Against,
    /// A hole ends it: without a leaf there is no root.
    comparable: bool,
}

impl Comparison {
    /// `computed` is over the rows as they stand, `stored` over the hashes stored with them. A
    /// checkpoint agrees with either: if only one agrees, single rows were found to be altered, and
    /// here they are not said to be unknown.
    pub(super) fn at(&mut self, computed: &Frontier, stored: &Frontier) {
        if self.comparable {
            let size = stored.size();
            let roots = || [stored.root(), computed.root()];
            self.newest.at(size, &roots);
            self.earlier.at(size, &roots);
        }
    }

    pub(super) fn hole(&mut self) {
        self.comparable = false;
    }

    pub(super) fn finish(
        mut self,
        head: u64,
        findings: &mut Findings,
        notes: &mut Vec<String>,
    ) -> CheckpointsRead {
        let rest: Vec<Claim> = self.newest.claims.by_ref().collect();
        let beyond = rest.iter().map(|claim| claim.size).filter(|size| *size > head).max();
        if let Some(size) = beyond {
            findings.add(Finding::within(
                (head + 1, size),
                FindingCode::BeyondHead,
                format!(
                    "a signed checkpoint covers {size} events, the ledger ends at {head}: the \
                     newest {} were removed, or an older copy was put back",
                    size - head
                ),
            ));
        }
        if let Some(size) = self.newest.disagrees {
            let from = self.newest.through + 1;
            findings.add(Finding::within(
                (from, size),
                FindingCode::RootMismatch,
                format!(
                    "positions {from} to {size} don't have the root that a signed checkpoint gives \
                     them: at least one of these events was changed together with its hash"
                ),
            ));
        }
        if self.earlier.agreeing > 0 {
            notes.push(format!(
                "{} checkpoint(s) of earlier epochs agree, up to position {}.",
                self.earlier.agreeing, self.earlier.through
            ));
        }
        let parted = self.earlier.disagrees.or_else(|| self.earlier.claims.next().map(|c| c.size));
        if let (Some(size), true) = (parted, self.comparable) {
            notes.push(format!(
                "A checkpoint of an earlier epoch, over {size} events, no longer agrees: as after \
                 a restore, which is what a new epoch is opened for."
            ));
        }
        let through = self.newest.through;
        CheckpointsRead { agreeing: self.newest.agreeing, through, uncovered: head - through }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(leaves: u8) -> Frontier {
        let mut frontier = Frontier::new();
        frontier.extend((0..leaves).map(|leaf| Digest::of(&[leaf])));
        frontier
    }

    fn claim(size: u8) -> Claim {
        Claim { size: size.into(), root: grown(size).root(), epoch: 1 }
    }

    fn compare(claims: Vec<Claim>, head: u8) -> (CheckpointsRead, Vec<Finding>) {
        let mut findings = Findings::default();
        let claims = Claims { claims, newest_epoch: 1, ..Claims::default() };
        let (mut comparison, mut notes) = claims.comparison(&mut findings);
        for size in 1..=head {
            comparison.at(&grown(size), &grown(size));
        }
        let read = comparison.finish(head.into(), &mut findings, &mut notes);
        (read, findings.into_parts().0)
    }

    #[test]
    fn claims_that_hold_are_counted() {
        let (read, findings) = compare(vec![claim(2), claim(5)], 7);
        assert_eq!(read, CheckpointsRead { agreeing: 2, through: 5, uncovered: 2 });
        assert_eq!(findings, []);
    }

    #[test]
    fn one_that_does_not_hold_gives_the_range_since_the_last_that_did() {
        let wrong = Claim { root: Digest::ZERO, ..claim(5) };
        let (_, findings) = compare(vec![claim(2), wrong, claim(6)], 7);
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
        let wrong = Claim { root: Digest::ZERO, ..claim(5) };
        let (_, findings) = compare(vec![claim(5), wrong], 7);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn an_earlier_epoch_may_disagree_and_is_told_of() {
        let mut findings = Findings::default();
        let old = Claim { root: Digest::ZERO, epoch: 1, ..claim(4) };
        let new = Claim { epoch: 2, ..claim(5) };
        let claims = Claims { claims: vec![old, new], newest_epoch: 2, ..Claims::default() };
        let (mut comparison, mut notes) = claims.comparison(&mut findings);
        for size in 1..=5 {
            comparison.at(&grown(size), &grown(size));
        }
        comparison.finish(5, &mut findings, &mut notes);
        assert!(findings.is_empty());
        assert!(notes[0].contains("over 4 events, no longer agrees"), "{notes:?}");
    }
}
