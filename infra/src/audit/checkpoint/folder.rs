//! The folder of checkpoints: the key that signs them, and one folder an epoch.
//!
//! ```text
//! checkpoints/key              the Ed25519 seed, 64 hexadecimal digits, mode 0600
//! checkpoints/vkey             the verifier key of the newest epoch, to hand to auditors
//! checkpoints/0001/vkey        the same, of that epoch
//! checkpoints/0001/latest      the newest checkpoint, a signed note
//! checkpoints/0001/frontier    the right edge of the tree it was signed over, and its last leaf
//! checkpoints/0001/kept/SIZE   earlier checkpoints: the newest [`KEPT_MAX`], and one a day before
//! checkpoints/0002/fork        why and where a new epoch parted from the one before, signed
//! ```
//! A key that is gone is made anew, and can't sign on in an epoch that another one began.
//!
//! Files are replaced by writing beside them, syncing and renaming, so that a crash leaves the old
//! or the new one, never half of either.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ed25519_dalek::SigningKey;
use punchtrail_domain::log::{
    merkle::Frontier,
    signed_note::{self, Checkpoint, NoteSigner, NoteVerifier},
};
use punchtrail_protocol::{Digest, OrgId};

use super::{Fork, origin};

/// How many of the newest checkpoints are kept; of older ones, the last of each day.
pub const KEPT_MAX: usize = 200;
const DAY_S: u64 = 86_400;

/// Why the folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file holds something else than this program wrote.
    #[error("{path} is damaged: {what}. Nothing was signed. Put the file back from a copy")]
    Damaged { path: PathBuf, what: String },
    /// The key isn't the one that began the epoch.
    #[error(
        "the key that signed {origin} is gone: {path} is another one. Nothing was signed. Put it \
         back, or open a new epoch with `punchtrail checkpoint new-epoch --reason …`"
    )]
    KeyGone { path: PathBuf, origin: String },
    /// The tree's edge doesn't lead to the newest checkpoint, which is whole: it can be made anew
    /// from the leaves, and is.
    #[error("{path} is damaged: {what}")]
    Edge { path: PathBuf, what: String },
    /// The work was interrupted.
    #[error("signing was interrupted: {0}")]
    Interrupted(String),
}

/// An epoch: one unbroken tree under one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    pub number: u32,
    pub origin: String,
    /// Why it was opened, and where it parted from the one before; none for the first.
    pub fork: Option<Fork>,
}

/// A checkpoint as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What it says, its signature verified.
    pub checkpoint: Checkpoint,
    pub note: String,
}

/// The folder of checkpoints of one deployment on this machine.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    org: OrgId,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> FolderError {
    FolderError::Damaged { path: path.to_owned(), what: what.to_string() }
}

impl Folder {
    /// Opens `data_dir/checkpoints`, and makes key and first epoch when there are none.
    ///
    /// # Errors
    /// When a file can't be read or written.
    pub fn open(data_dir: &Path, org: OrgId) -> Result<Self, FolderError> {
        let root = data_dir.join("checkpoints");
        fs::create_dir_all(&root).map_err(at(&root))?;
        make_key(&root.join("key"))?;
        let folder = Self { root, org };
        if folder.numbers()?.is_empty() {
            folder.make_epoch(1, None)?;
        }
        Ok(folder)
    }

    /// Opens `data_dir/checkpoints` if anything was ever signed there; makes nothing.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn existing(data_dir: &Path, org: OrgId) -> Result<Option<Self>, FolderError> {
        let folder = Self { root: data_dir.join("checkpoints"), org };
        if !folder.root.exists() {
            return Ok(None);
        }
        let signed = !folder.numbers()?.is_empty();
        Ok(signed.then_some(folder))
    }

    /// All epochs, oldest first.
    ///
    /// # Errors
    /// When the folder can't be read, or says where an epoch parted and was altered.
    pub fn epochs(&self) -> Result<Vec<Epoch>, FolderError> {
        self.numbers()?
            .into_iter()
            .map(|number| {
                let fork = self.fork(number)?;
                Ok(Epoch { number, origin: origin(self.org, number), fork })
            })
            .collect()
    }

    fn fork(&self, number: u32) -> Result<Option<Fork>, FolderError> {
        let path = self.epoch(number).join("fork");
        let note = match fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        let (old, new) = (self.verifier(number.saturating_sub(1))?, self.verifier(number)?);
        Fork::open(&note, &old, &new).map(Some).map_err(|error| damaged(&path, error))
    }

    /// Opens a new epoch: a new tree from the ledger's first event on, under a new origin. What was
    /// signed before stays as it is. `after` and `root` are the fork point: how much of what was
    /// signed still holds.
    ///
    /// # Errors
    /// When the folder can't be written, or the reason isn't a line of text.
    pub(super) fn open_epoch(
        &self,
        reason: &str,
        (after, root): (u64, Digest),
    ) -> Result<Epoch, FolderError> {
        let ended = self.current()?;
        let number = ended + 1;
        let old = match self.signer(ended) {
            Ok(signer) => Some(signer),
            Err(FolderError::KeyGone { .. }) => None,
            Err(error) => return Err(error),
        };
        let fork = Fork { after, root, reason: reason.to_owned(), signed: old.is_some() };
        let note = fork
            .sign((&origin(self.org, ended), old.as_ref()), &self.new_signer(number)?)
            .map_err(|error| damaged(&self.root, error))?;
        self.make_epoch(number, Some(&note))?;
        Ok(Epoch { number, origin: origin(self.org, number), fork: Some(fork) })
    }

    /// The verifier key of an epoch in its text form, for auditors.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn vkey(&self, epoch: u32) -> Result<String, FolderError> {
        Ok(self.verifier(epoch)?.to_string())
    }

    /// The key that verifies what was signed in an epoch. Of one from before each kept its own, the
    /// folder's.
    pub(in crate::audit) fn verifier(&self, epoch: u32) -> Result<NoteVerifier, FolderError> {
        let path = self.epoch(epoch).join("vkey");
        match fs::read_to_string(&path) {
            Ok(vkey) => vkey.trim_end().parse().map_err(|error| damaged(&path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let published = fs::read_to_string(self.root.join("vkey")).ok();
                let published = published.and_then(|vkey| vkey.trim_end().parse().ok());
                match published {
                    Some(key) if NoteVerifier::name(&key) == &self.name(epoch)? => Ok(key),
                    _ => Ok(self.new_signer(epoch)?.verifier().clone()),
                }
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The newest checkpoint of the newest epoch, if one was made.
    ///
    /// # Errors
    /// When it can't be read or its signature doesn't verify.
    pub fn latest(&self) -> Result<Option<Kept>, FolderError> {
        let epoch = self.current()?;
        let path = self.epoch(epoch).join("latest");
        if !path.exists() {
            return Ok(None);
        }
        self.read(epoch, &path).map(Some)
    }

    /// All kept checkpoints of an epoch, smallest first, and what of them is damaged.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn kept(&self, epoch: u32) -> Result<(Vec<Kept>, Vec<FolderError>), FolderError> {
        let folder = self.epoch(epoch);
        let mut paths = files(&folder.join("kept"))?;
        let latest = folder.join("latest");
        if latest.exists() {
            paths.push(latest);
        }
        let (mut kept, mut damaged) = (Vec::new(), Vec::new());
        for path in &paths {
            match self.read(epoch, path) {
                Ok(one) => kept.push(one),
                Err(error @ FolderError::Damaged { .. }) => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        kept.sort_by_key(|kept| kept.checkpoint.size);
        kept.dedup();
        Ok((kept, damaged))
    }

    /// The right edge of the tree under the newest checkpoint, and the last leaf; checked against
    /// the checkpoint's signature.
    pub(super) fn frontier(&self) -> Result<(Frontier, Digest), FolderError> {
        let epoch = self.current()?;
        let Some(latest) = self.latest()? else { return Ok((Frontier::new(), Digest::ZERO)) };
        // It is written before the checkpoint; a crash or a full disk in between leaves it one
        // ahead, and its spare is the one that is covered.
        for name in ["frontier", "frontier.previous"] {
            let bytes = fs::read(self.epoch(epoch).join(name)).unwrap_or_default();
            if let Some((last, frontier)) = bytes.split_first_chunk::<32>()
                && let Ok(frontier) = Frontier::from_bytes(frontier)
                && super::covers(&latest.checkpoint, &frontier)
            {
                return Ok((frontier, Digest(*last)));
            }
        }
        let what = "neither it nor its spare leads to the root of the newest checkpoint".to_owned();
        Err(FolderError::Edge { path: self.epoch(epoch).join("frontier"), what })
    }

    /// Signs a tree and keeps the checkpoint. `covered` is the tree under the newest one so far,
    /// with its last leaf: the spare, until the new checkpoint is written, so that a write that
    /// fails spoils nothing.
    pub(super) fn keep(
        &self,
        (frontier, last): (&Frontier, Digest),
        covered: (&Frontier, Digest),
    ) -> Result<Kept, FolderError> {
        let epoch = self.current()?;
        let folder = self.epoch(epoch);
        let signer = self.signer(epoch)?;
        let checkpoint =
            Checkpoint { origin: self.name(epoch)?, size: frontier.size(), root: frontier.root() };
        let note = signer.sign_checkpoint(&checkpoint);
        let bytes = |(frontier, last): (&Frontier, Digest)| {
            [last.0.as_slice(), &frontier.to_bytes()].concat()
        };
        if covered.0.size() > 0 {
            replace(&folder.join("frontier.previous"), &bytes(covered))?;
        }
        replace(&folder.join("frontier"), &bytes((frontier, last)))?;
        replace(&folder.join("kept").join(format!("{:020}", checkpoint.size)), note.as_bytes())?;
        replace(&folder.join("latest"), note.as_bytes())?;
        self.thin(&folder.join("kept"))?;
        Ok(Kept { checkpoint, note })
    }

    fn thin(&self, kept: &Path) -> Result<(), FolderError> {
        let mut paths = files(kept)?;
        paths.sort();
        let old = paths.len().saturating_sub(KEPT_MAX);
        let day = |path: &Path| -> Result<u64, FolderError> {
            let written = fs::metadata(path).and_then(|m| m.modified()).map_err(at(path))?;
            let age = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Ok(age.as_secs() / DAY_S)
        };
        for pair in paths[..old].windows(2) {
            if day(&pair[0])? == day(&pair[1])? {
                fs::remove_file(&pair[0]).map_err(at(&pair[0]))?;
            }
        }
        Ok(())
    }

    fn read(&self, epoch: u32, path: &Path) -> Result<Kept, FolderError> {
        let note = fs::read_to_string(path).map_err(at(path))?;
        let verifier = self.verifier(epoch)?;
        let checkpoint =
            signed_note::open_checkpoint(note.as_bytes(), &self.name(epoch)?, &[verifier])
                .map_err(|error| damaged(path, error))?;
        Ok(Kept { checkpoint, note })
    }

    /// What signs in an epoch: the key that began it.
    ///
    /// # Errors
    /// [`FolderError::KeyGone`] when the folder has another key by now.
    pub(super) fn signer(&self, epoch: u32) -> Result<NoteSigner, FolderError> {
        let signer = self.new_signer(epoch)?;
        if *signer.verifier() == self.verifier(epoch)? {
            return Ok(signer);
        }
        Err(FolderError::KeyGone { path: self.root.join("key"), origin: origin(self.org, epoch) })
    }

    fn new_signer(&self, epoch: u32) -> Result<NoteSigner, FolderError> {
        Ok(NoteSigner::new(self.name(epoch)?, key(&self.root.join("key"))?))
    }

    fn name(&self, epoch: u32) -> Result<signed_note::Name, FolderError> {
        origin(self.org, epoch).parse().map_err(|error| damaged(&self.root, error))
    }

    fn epoch(&self, number: u32) -> PathBuf {
        self.root.join(format!("{number:04}"))
    }

    pub(super) fn current(&self) -> Result<u32, FolderError> {
        Ok(self.numbers()?.last().copied().unwrap_or(1))
    }

    fn numbers(&self) -> Result<Vec<u32>, FolderError> {
        let mut numbers: Vec<u32> = fs::read_dir(&self.root)
            .map_err(at(&self.root))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes an epoch's folder, whole or not at all.
    fn make_epoch(&self, number: u32, fork: Option<&str>) -> Result<(), FolderError> {
        let making = self.root.join(format!("{number:04}.new"));
        if making.exists() {
            fs::remove_dir_all(&making).map_err(at(&making))?;
        }
        let kept = making.join("kept");
        fs::create_dir_all(&kept).map_err(at(&kept))?;
        let vkey = format!("{}\n", self.new_signer(number)?.vkey());
        replace(&making.join("vkey"), vkey.as_bytes())?;
        if let Some(fork) = fork {
            replace(&making.join("fork"), fork.as_bytes())?;
        }
        fs::rename(&making, self.epoch(number)).map_err(at(&making))?;
        sync_dir(&self.root)?;
        replace(&self.root.join("vkey"), vkey.as_bytes())
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_none())
        .collect())
}

fn key(path: &Path) -> Result<SigningKey, FolderError> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim_end(), &mut seed).map_err(|error| damaged(path, error))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Makes a signing key unless there is one.
fn make_key(path: &Path) -> Result<(), FolderError> {
    if path.exists() {
        return Ok(());
    }
    let key = SigningKey::from_bytes(&rand::random());
    replace(path, format!("{}\n", hex::encode(key.to_bytes())).as_bytes())
}

/// Replaces a file by one with these bytes, durably; readable by its owner alone.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(at(path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(path: &Path) -> Result<(), FolderError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(frontier: &Frontier, leaves: std::ops::Range<u8>) -> (Frontier, Digest) {
        let mut frontier = frontier.clone();
        let mut last = Digest::ZERO;
        for leaf in leaves {
            last = Digest::of(&[leaf]);
            frontier.push(last);
        }
        (frontier, last)
    }

    #[test]
    fn what_was_kept_is_read_back_and_a_crash_between_the_files_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), OrgId::NIL).unwrap();
        assert_eq!(folder.latest().unwrap(), None);
        let (first, last) = grown(&Frontier::new(), 0..5);
        folder.keep((&first, last), (&Frontier::new(), Digest::ZERO)).unwrap();
        let (second, newer) = grown(&first, 5..9);
        let note = fs::read(dir.path().join("checkpoints/0001/latest")).unwrap();
        folder.keep((&second, newer), (&first, last)).unwrap();
        assert_eq!(folder.frontier().unwrap().0.size(), 9);
        fs::write(dir.path().join("checkpoints/0001/latest"), note).unwrap();
        let again = Folder::open(dir.path(), OrgId::NIL).unwrap();
        let (frontier, leaf) = again.frontier().unwrap();
        assert_eq!((frontier.size(), leaf), (5, last));
    }

    #[test]
    fn a_write_that_fails_at_any_file_spoils_nothing_and_the_next_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), OrgId::NIL).unwrap();
        let nothing = Frontier::new();
        let (mut covered, mut last) = grown(&nothing, 0..5);
        folder.keep((&covered, last), (&nothing, Digest::ZERO)).unwrap();
        let epoch = dir.path().join("checkpoints/0001");
        // What a full disk does to each file in turn: its fresh copy can't be written.
        for blocked in ["frontier.new", "latest.new", "frontier.new", "latest.new"] {
            let (next, newer) = grown(&covered, 5..9);
            fs::create_dir(epoch.join(blocked)).unwrap();
            for _ in 0..2 {
                let kept = folder.keep((&next, newer), (&covered, last));
                assert!(matches!(kept, Err(FolderError::Io { .. })), "{blocked}");
                let (edge, leaf) = folder.frontier().unwrap();
                assert_eq!((edge.size(), leaf), (covered.size(), last), "{blocked}");
            }
            fs::remove_dir(epoch.join(blocked)).unwrap();
            folder.keep((&next, newer), (&covered, last)).unwrap();
            (covered, last) = folder.frontier().unwrap();
            assert_eq!((covered.size(), last), (next.size(), newer));
        }
    }

    #[test]
    fn an_altered_checkpoint_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), OrgId::NIL).unwrap();
        let (frontier, last) = grown(&Frontier::new(), 0..5);
        folder.keep((&frontier, last), (&Frontier::new(), Digest::ZERO)).unwrap();
        let path = dir.path().join("checkpoints/0001/latest");
        let altered = fs::read_to_string(&path).unwrap().replacen("\n5\n", "\n4\n", 1);
        fs::write(&path, altered).unwrap();
        assert!(matches!(folder.latest(), Err(FolderError::Damaged { .. })));
    }

    #[test]
    fn a_new_epoch_has_a_new_origin_and_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), OrgId::NIL).unwrap();
        let (frontier, last) = grown(&Frontier::new(), 0..5);
        folder.keep((&frontier, last), (&Frontier::new(), Digest::ZERO)).unwrap();
        let opened = folder.open_epoch("Monday's copy", (3, Digest::of(b"3"))).unwrap();
        assert_eq!(folder.latest().unwrap(), None);
        let epochs = folder.epochs().unwrap();
        assert_eq!((epochs.len(), &epochs[1]), (2, &opened));
        let fork = opened.fork.unwrap();
        assert_eq!((fork.after, fork.reason.as_str(), fork.signed), (3, "Monday's copy", true));
        assert_eq!(folder.kept(1).unwrap().0.len(), 1);
        assert_ne!(folder.vkey(1).unwrap(), folder.vkey(2).unwrap());
    }

    #[test]
    fn another_key_signs_on_in_no_epoch_but_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), OrgId::NIL).unwrap();
        let (frontier, last) = grown(&Frontier::new(), 0..5);
        let nothing = (&Frontier::new(), Digest::ZERO);
        let keep = || folder.keep((&frontier, last), nothing);
        keep().unwrap();
        fs::remove_file(dir.path().join("checkpoints/key")).unwrap();
        assert!(matches!(keep(), Err(FolderError::Io { .. })), "a running server makes no key");
        Folder::open(dir.path(), OrgId::NIL).unwrap();
        let refused = keep().unwrap_err();
        assert!(matches!(refused, FolderError::KeyGone { .. }), "{refused}");
        assert_eq!(folder.kept(1).unwrap().0.len(), 1, "the old one is verified all the same");
        let fork = folder.open_epoch("the key was lost", (5, frontier.root())).unwrap().fork;
        assert!(!fork.unwrap().signed);
        keep().unwrap();
        assert!(!folder.epochs().unwrap()[1].fork.as_ref().unwrap().signed);
    }
}
