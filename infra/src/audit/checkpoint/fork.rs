//! Where a new epoch parted from the one before: a signed note in the new epoch's folder.
//!
//! ```text
//! punchtrail/ORG/2             the new epoch's origin
//! parted from punchtrail/ORG/1
//! 1042                         the fork point: the largest size at which what was signed agreed
//! BASE64                       the root over the events up to there
//! restored Monday's copy       why
//! ```
//! Signed under the name of the epoch that ends, by the key that signed it, unless that key is
//! gone; and always under the new one's name. It has more lines than a checkpoint, so neither can
//! be taken for the other.

use base64::{Engine, engine::general_purpose::STANDARD};
use punchtrail_domain::log::signed_note::{self, NoteError, NoteSigner, NoteVerifier};
use punchtrail_protocol::Digest;

const PARTED_FROM: &str = "parted from ";

/// The end of one epoch and the beginning of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The fork point: what was signed of the first so many events still holds.
    pub after: u64,
    /// The root over them.
    pub root: Digest,
    /// Why the new epoch was opened.
    pub reason: String,
    /// Whether the key of the epoch that ended signed it; it may be gone.
    pub signed: bool,
}

impl Fork {
    fn text(&self, new: &str, old: &str) -> String {
        let Self { after, root, reason, .. } = self;
        format!("{new}\n{PARTED_FROM}{old}\n{after}\n{}\n{reason}\n", STANDARD.encode(root.0))
    }

    /// The note, signed by the epoch that ends, if its key is there, and by the new one.
    ///
    /// # Errors
    /// When the reason isn't a line of text.
    pub(super) fn sign(
        &self,
        old: (&str, Option<&NoteSigner>),
        new: &NoteSigner,
    ) -> Result<String, NoteError> {
        let text = self.text(new.verifier().name().as_str(), old.0);
        let mut note = new.sign(&text)?;
        if let Some(old) = old.1 {
            let other = old.sign(&text)?;
            note.push_str(&other[text.len() + 1..]);
        }
        Ok(note)
    }

    /// Reads the note of the epoch whose key is `new`.
    ///
    /// # Errors
    /// When it isn't one, or a signature is wrong.
    pub(super) fn open(
        note: &str,
        old: &NoteVerifier,
        new: &NoteVerifier,
    ) -> Result<Self, NoteError> {
        let text = signed_note::open(note.as_bytes(), &[old.clone(), new.clone()])?;
        let signed = signed_note::open(note.as_bytes(), std::slice::from_ref(old)).is_ok();
        let mut lines = text.lines();
        let fork = (|| {
            let (_new, _old) = (lines.next()?, lines.next()?);
            let after = lines.next()?.parse().ok()?;
            let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok().map(Digest)?;
            let reason = lines.next()?.to_owned();
            Some(Self { after, root, reason, signed })
        })();
        fork.filter(|fork| fork.text(new.name().as_str(), old.name().as_str()) == text)
            .ok_or(NoteError::Note)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    fn signer(name: &str, seed: u8) -> NoteSigner {
        NoteSigner::new(name.parse().unwrap(), SigningKey::from_bytes(&[seed; 32]))
    }

    #[test]
    fn it_says_who_signed_and_can_not_be_altered() {
        let (old, new) = (signer("punchtrail/o/1", 1), signer("punchtrail/o/2", 2));
        let fork =
            Fork { after: 7, root: Digest::of(b"x"), reason: "a copy".to_owned(), signed: true };
        let read = |note: &str| Fork::open(note, old.verifier(), new.verifier());
        let note = fork.sign(("punchtrail/o/1", Some(&old)), &new).unwrap();
        assert_eq!(read(&note).unwrap(), fork);
        let alone = fork.sign(("punchtrail/o/1", None), &new).unwrap();
        assert_eq!(read(&alone).unwrap(), Fork { signed: false, ..fork.clone() });
        assert_eq!(read(&note.replacen("\n7\n", "\n6\n", 1)), Err(NoteError::BadSignature));
        let elsewhere = fork.sign(("punchtrail/o/9", Some(&old)), &new).unwrap();
        assert_eq!(read(&elsewhere), Err(NoteError::Note), "of another epoch");
        let two_lines = Fork { reason: "a\nb".to_owned(), ..fork };
        let note = two_lines.sign(("punchtrail/o/1", Some(&old)), &new).unwrap();
        assert_eq!(read(&note), Err(NoteError::Note));
    }
}
