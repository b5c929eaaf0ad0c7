//! Checkpoints as signed notes: what leaves the database, so that whoever rewrites the database
//! can be caught.
//!
//! A checkpoint says, in three lines of text, which ledger, how many events, and their Merkle root
//! (C2SP tlog-checkpoint). It travels as a signed note (C2SP signed-note): the text, an empty
//! line, and a line for each signature. Signatures are Ed25519 (type 0x01); others may stand
//! beside ours and are ignored unless their key is known.
//!
//! Reading is strict, because a second spelling of one checkpoint would be a second checkpoint to
//! whoever compares them. It must never panic on what it is given, and it must never answer for a
//! note on which a key we know has a signature that fails: that isn't an unknown signer, it is
//! tampering.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use punchtrail_protocol::Digest;

/// Longest note that is read, in bytes. A checkpoint of ours takes about 300.
pub const NOTE_BYTES_MAX: usize = 65_536;

/// Most signature lines that are read. The specification asks for 16 at least.
pub const NOTE_SIGNATURES_MAX: usize = 100;

/// Longest key name or origin, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

const ED25519_TYPE: u8 = 0x01;
const KEY_ID_BYTES: usize = 4;
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// Why a checkpoint, a note or a key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A key name or an origin is empty, too long, or has a space, a control character or a `+`.
    #[error(
        "the name must have 1 to {NAME_BYTES_MAX} bytes, and no spaces, control characters or `+`"
    )]
    Name,
    /// Not a verifier key as [`NoteVerifier`] writes it, or its key id isn't that of its key.
    #[error("not a verifier key: expected <name>+<key id>+<base64 of 0x01 and the public key>")]
    VerifierKey,
    /// The public key is of small order: anyone could sign for it.
    #[error("the public key is weak; make a new one")]
    WeakKey,
    /// Too long, not UTF-8, with control characters, or without text, empty line or signatures.
    #[error("not a signed note")]
    Note,
    /// A key we know, and a signature that isn't its.
    #[error("the signature of a known key is wrong: the note was altered or forged")]
    BadSignature,
    /// No signature by a key we know.
    #[error("the note has no signature by a known key")]
    Unverified,
    /// The text isn't origin, size and root, each on a line of its own, and nothing else.
    #[error("not a checkpoint: expected three lines, origin, size and base64 root")]
    Checkpoint,
}

/// Name of a key, or origin of a ledger: by convention a URL without its scheme, such as
/// `punchtrail.example.com/main`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        if fits && !text.chars().any(|c| c == '+' || c.is_whitespace() || c.is_control()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoteError::Name)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a checkpoint says: the first `size` events of the ledger `origin` have this Merkle root.
///
/// Its `Display` is the note text of C2SP tlog-checkpoint, its `FromStr` reads nothing else.
/// Extension lines, which the specification advises against, are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: Name,
    pub size: u64,
    pub root: Digest,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, BASE64.encode(self.root.0))
    }
}

impl FromStr for Checkpoint {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let body = text.strip_suffix('\n').ok_or(NoteError::Checkpoint)?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(NoteError::Checkpoint);
        };
        Ok(Self {
            origin: origin.parse()?,
            size: decimal(size).ok_or(NoteError::Checkpoint)?,
            root: decoded(root).map(Digest).ok_or(NoteError::Checkpoint)?,
        })
    }
}

/// Digits only, and no leading zero but `0` itself: one spelling for each number.
fn decimal(text: &str) -> Option<u64> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

fn decoded<const N: usize>(base64: &str) -> Option<[u8; N]> {
    BASE64.decode(base64).ok()?.try_into().ok()
}

/// A signing key with its name. Its `Debug` shows the name, never the key.
pub struct NoteSigner {
    key: SigningKey,
    verifier: NoteVerifier,
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoteSigner").field("vkey", &self.vkey()).finish_non_exhaustive()
    }
}

impl NoteSigner {
    /// Signs as `name` with `key`.
    #[must_use]
    pub fn new(name: Name, key: SigningKey) -> Self {
        let verifier = NoteVerifier::of(name, key.verifying_key());
        Self { key, verifier }
    }

    /// The verifier key in its text form, for those who will check the notes.
    #[must_use]
    pub fn vkey(&self) -> String {
        self.verifier.to_string()
    }

    /// Who verifies what this signs.
    #[must_use]
    pub const fn verifier(&self) -> &NoteVerifier {
        &self.verifier
    }

    /// Signs a checkpoint: the whole note, ready to be stored.
    #[must_use]
    pub fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> String {
        self.signed(checkpoint.to_string())
    }

    /// Signs any text: the whole note, ready to be stored.
    ///
    /// # Errors
    /// [`NoteError::Note`] if the text is empty, doesn't end with a newline, or has control
    /// characters other than newlines.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        if text.ends_with('\n') && printable(text) {
            Ok(self.signed(text.to_owned()))
        } else {
            Err(NoteError::Note)
        }
    }

    fn signed(&self, mut note: String) -> String {
        let signature = self.key.sign(note.as_bytes()).to_bytes();
        let stamped = [&self.verifier.key_id[..], &signature].concat();
        let line =
            format!("\n{SIGNATURE_PREFIX}{} {}\n", self.verifier.name, BASE64.encode(stamped));
        note.push_str(&line);
        note
    }
}

/// A public key with its name. Its `Display` and `FromStr` are the verifier key text (vkey) of the
/// specification, `<name>+<key id in hex>+<base64 of type and key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteVerifier {
    name: Name,
    key_id: [u8; KEY_ID_BYTES],
    key: VerifyingKey,
}

impl NoteVerifier {
    /// Takes a public key of 32 bytes under a name.
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`] if the bytes aren't a point on the curve, [`NoteError::WeakKey`]
    /// if it is of small order.
    pub fn new(name: Name, public_key: &[u8; 32]) -> Result<Self, NoteError> {
        let key = VerifyingKey::from_bytes(public_key).map_err(|_| NoteError::VerifierKey)?;
        if key.is_weak() {
            return Err(NoteError::WeakKey);
        }
        Ok(Self::of(name, key))
    }

    fn of(name: Name, key: VerifyingKey) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(name.as_str());
        hasher.update([b'\n', ED25519_TYPE]);
        hasher.update(key.as_bytes());
        let [a, b, c, d, ..]: [u8; 32] = hasher.finalize().into();
        Self { name, key_id: [a, b, c, d], key }
    }

    /// Name of the key.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    fn is_named_by(&self, line: &SignatureLine<'_>) -> bool {
        self.name.as_str() == line.name && self.key_id == line.key_id
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(text.as_bytes(), &signature).is_ok())
    }
}

impl fmt::Display for NoteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = [&[ED25519_TYPE], &self.key.as_bytes()[..]].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.key_id), BASE64.encode(typed))
    }
}

impl FromStr for NoteVerifier {
    type Err = NoteError;

    fn from_str(vkey: &str) -> Result<Self, NoteError> {
        // The key itself may hold a `+` of base64's alphabet, so only the first two part fields.
        let mut fields = vkey.splitn(3, '+');
        let (Some(name), Some(key_id), Some(key)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(NoteError::VerifierKey);
        };
        let [ED25519_TYPE, public_key @ ..]: [u8; 33] =
            decoded(key).ok_or(NoteError::VerifierKey)?
        else {
            return Err(NoteError::VerifierKey);
        };
        let verifier = Self::new(name.parse()?, &public_key)?;
        if hex::encode(verifier.key_id) == key_id {
            Ok(verifier)
        } else {
            Err(NoteError::VerifierKey)
        }
    }
}

/// Opens a note: its text, once at least one signature by one of `verifiers` is good and none by
/// any of them is bad. Signatures by other keys are ignored.
///
/// # Errors
/// [`NoteError::Note`] if it isn't a signed note, [`NoteError::BadSignature`] or
/// [`NoteError::Unverified`].
pub fn open<'n>(note: &'n [u8], verifiers: &[NoteVerifier]) -> Result<&'n str, NoteError> {
    let (text, lines) = parts(note)?;
    let mut verified = false;
    for line in &lines {
        let known: Vec<_> = verifiers.iter().filter(|v| v.is_named_by(line)).collect();
        if known.iter().any(|verifier| verifier.verifies(text, &line.signature)) {
            verified = true;
        } else if !known.is_empty() {
            return Err(NoteError::BadSignature);
        }
    }
    if verified { Ok(text) } else { Err(NoteError::Unverified) }
}

/// Opens a note that holds a checkpoint of `origin`.
///
/// # Errors
/// As [`open`], and [`NoteError::Checkpoint`] if the text is no checkpoint, or another ledger's.
pub fn open_checkpoint(
    note: &[u8],
    origin: &Name,
    verifiers: &[NoteVerifier],
) -> Result<Checkpoint, NoteError> {
    let checkpoint: Checkpoint = open(note, verifiers)?.parse()?;
    if checkpoint.origin == *origin { Ok(checkpoint) } else { Err(NoteError::Checkpoint) }
}

struct SignatureLine<'n> {
    name: &'n str,
    key_id: [u8; KEY_ID_BYTES],
    signature: Vec<u8>,
}

/// The signed text (with its last newline) and the signature lines, whoever signed.
fn parts(note: &[u8]) -> Result<(&str, Vec<SignatureLine<'_>>), NoteError> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteError::Note);
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Note)?;
    if !printable(note) {
        return Err(NoteError::Note);
    }
    // The text may hold empty lines: the last one parts it from the signatures.
    let split = note.rfind("\n\n").ok_or(NoteError::Note)?;
    let (text, signatures) = (&note[..=split], &note[split + 2..]);
    let lines = signatures.strip_suffix('\n').ok_or(NoteError::Note)?;
    if lines.split('\n').count() > NOTE_SIGNATURES_MAX {
        return Err(NoteError::Note);
    }
    let lines =
        lines.split('\n').map(signature_line).collect::<Option<_>>().ok_or(NoteError::Note)?;
    Ok((text, lines))
}

fn signature_line(line: &str) -> Option<SignatureLine<'_>> {
    let (name, stamped) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
    name.parse::<Name>().ok()?;
    let stamped = BASE64.decode(stamped).ok()?;
    let (key_id, signature) = stamped.split_first_chunk()?;
    (!signature.is_empty()).then(|| SignatureLine {
        name,
        key_id: *key_id,
        signature: signature.to_vec(),
    })
}

/// No control characters below U+0020 but newlines.
fn printable(text: &str) -> bool {
    text.bytes().all(|b| b >= b' ' || b == b'\n')
}

#[cfg(test)]
mod tests;
