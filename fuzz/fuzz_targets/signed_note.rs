//! Signed notes, checkpoints and verifier keys: none has a second spelling, and no note is opened
//! that the key didn't sign.
#![no_main]

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use punchtrail_domain::log::signed_note::{
    Checkpoint, Name, NoteSigner, NoteVerifier, open, open_checkpoint,
};

/// The key of the notes in the corpus.
static SIGNER: LazyLock<NoteSigner> = LazyLock::new(|| {
    NoteSigner::new("punchtrail.example".parse().expect("a name"), SigningKey::from_bytes(&[7; 32]))
});
static VERIFIERS: LazyLock<[NoteVerifier; 1]> =
    LazyLock::new(|| [SIGNER.vkey().parse().expect("a key that was written")]);

fuzz_target!(|bytes: &[u8]| {
    // The signature is of the text alone, so what opens was signed here, with other keys' beside.
    if let Ok(text) = open(bytes, &*VERIFIERS) {
        let own = SIGNER.sign(text).expect("what was signed can be");
        let line = own.rsplit_once("\n\n").expect("a note").1;
        let note = str::from_utf8(bytes).expect("a note is UTF-8");
        assert!(note.contains(line), "the key didn't sign it");
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text);
        let note = SIGNER.sign_checkpoint(&checkpoint);
        let read = open_checkpoint(note.as_bytes(), &checkpoint.origin, &*VERIFIERS);
        assert_eq!(read, Ok(checkpoint));
    }
    if let Ok(verifier) = text.parse::<NoteVerifier>() {
        assert_eq!(verifier.to_string(), text);
    }
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(note) = SIGNER.sign(text) {
        assert_eq!(open(note.as_bytes(), &*VERIFIERS), Ok(text));
    }
});
