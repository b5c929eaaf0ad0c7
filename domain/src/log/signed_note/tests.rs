//! The specification's vector and Go's are the judges; the rest is what must be refused.

use proptest::prelude::*;

use super::*;

const SPEC_VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const SPEC_NOTE: &str = "This is an example message.\n\n\
    \u{2014} example.com/foo \
    Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

/// From the documentation of Go's `golang.org/x/mod/sumdb/note`.
const GO_VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    \u{2014} PeterNeumann \
    x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn verifier(vkey: &str) -> NoteVerifier {
    vkey.parse().unwrap()
}

fn signer(seed: u8) -> NoteSigner {
    let name = format!("punchtrail.example.com/{seed}").parse().unwrap();
    NoteSigner::new(name, SigningKey::from_bytes(&[seed; 32]))
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        origin: "punchtrail.example.com/1".parse().unwrap(),
        size: 20_852_163,
        root: Digest::of(b"root"),
    }
}

#[test]
fn the_vector_of_the_specification_verifies() {
    let text = open(SPEC_NOTE.as_bytes(), &[verifier(SPEC_VKEY)]);
    assert_eq!(text, Ok("This is an example message.\n"));
}

#[test]
fn the_vector_of_go_verifies() {
    let text = open(GO_NOTE.as_bytes(), &[verifier(GO_VKEY)]).unwrap();
    assert!(text.ends_with("your problem is.\n"));
}

#[test]
fn the_checkpoint_of_the_specification_is_read_and_written() {
    let text =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let checkpoint: Checkpoint = text.parse().unwrap();
    assert_eq!(checkpoint.origin.as_str(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.size, 20_852_163);
    assert_eq!(checkpoint.to_string(), text);
}

/// Computed and signed by Python's hashlib and cryptography, not by this crate.
#[test]
fn the_worked_example_of_the_documentation_is_ours_to_the_letter() {
    let page = include_str!("../../../../docs/ledger-format.md");
    let rows = page.split("```csv\n").nth(1).unwrap().split("```").next().unwrap();
    let leaves: Vec<Digest> =
        rows.lines().map(|row| row.rsplit(',').next().unwrap().parse().unwrap()).collect();
    let checkpoint = Checkpoint {
        origin: "punchtrail.example.com/1".parse().unwrap(),
        size: leaves.len() as u64,
        root: crate::log::merkle::root_of(leaves),
    };
    assert_eq!(checkpoint.size, 3);
    assert!(page.contains(&format!("`{}`", checkpoint.root)));
    assert!(page.contains(&format!("```\n{}```\n", signer(1).sign_checkpoint(&checkpoint))));
    assert!(page.contains(&format!("```\n{}\n```\n", signer(1).vkey())));
}

#[test]
fn verifier_keys_are_read_as_they_are_written() {
    for vkey in [SPEC_VKEY, GO_VKEY, &signer(7).vkey()] {
        assert_eq!(verifier(vkey).to_string(), vkey);
    }
}

#[test]
fn a_verifier_key_altered_in_any_character_is_refused() {
    for at in 0..SPEC_VKEY.len() {
        let mut altered = SPEC_VKEY.as_bytes().to_vec();
        altered[at] ^= 1;
        let altered = String::from_utf8(altered).unwrap();
        assert!(altered.parse::<NoteVerifier>().is_err(), "{altered}");
    }
}

#[test]
fn a_weak_public_key_is_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let name: Name = "n".parse().unwrap();
    assert_eq!(NoteVerifier::new(name, &identity), Err(NoteError::WeakKey));
}

#[test]
fn a_signed_checkpoint_opens_for_its_key_and_origin_only() {
    let ours = signer(1);
    let note = ours.sign_checkpoint(&checkpoint());
    let known = [ours.verifier().clone()];
    let origin = checkpoint().origin;
    assert_eq!(open_checkpoint(note.as_bytes(), &origin, &known), Ok(checkpoint()));
    let other: Name = "punchtrail.example.com/2".parse().unwrap();
    let refused = open_checkpoint(note.as_bytes(), &other, &known);
    assert_eq!(refused, Err(NoteError::Checkpoint));
    let strangers = [signer(2).verifier().clone()];
    assert_eq!(open(note.as_bytes(), &strangers), Err(NoteError::Unverified));
    assert_eq!(open(note.as_bytes(), &[]), Err(NoteError::Unverified));
}

#[test]
fn every_altered_bit_of_a_note_is_refused() {
    let ours = signer(1);
    let note = ours.sign_checkpoint(&checkpoint());
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut altered = note.clone().into_bytes();
            altered[at] ^= 1 << bit;
            assert!(open(&altered, &[ours.verifier().clone()]).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn signatures_of_unknown_keys_are_ignored_wherever_they_stand() {
    let (ours, theirs) = (signer(1), signer(2));
    let text = checkpoint().to_string();
    let our_line = ours.sign(&text).unwrap()[text.len() + 1..].to_owned();
    let their_line = theirs.sign(&text).unwrap()[text.len() + 1..].to_owned();
    // Another type of signature by a key that happens to have our name.
    let other_type = format!("\u{2014} {} {}\n", ours.verifier().name(), BASE64.encode([4; 77]));
    for lines in [
        format!("{our_line}{their_line}{other_type}"),
        format!("{other_type}{their_line}{our_line}"),
        our_line.repeat(16),
    ] {
        let note = format!("{text}\n{lines}");
        assert_eq!(open(note.as_bytes(), &[ours.verifier().clone()]), Ok(text.as_str()));
    }
}

#[test]
fn a_bad_signature_of_a_known_key_rejects_the_note_beside_good_ones() {
    let (ours, theirs) = (signer(1), signer(2));
    let text = checkpoint().to_string();
    let our_line = ours.sign(&text).unwrap()[text.len() + 1..].to_owned();
    let forged = theirs.sign("another text\n").unwrap()["another text\n".len() + 1..].to_owned();
    let note = format!("{text}\n{our_line}{forged}");
    let both = [ours.verifier().clone(), theirs.verifier().clone()];
    assert_eq!(open(note.as_bytes(), &both), Err(NoteError::BadSignature));
    assert_eq!(open(note.as_bytes(), &both[..1]), Ok(text.as_str()));
}

#[test]
fn a_known_keys_signature_of_another_length_is_bad() {
    let ours = signer(1);
    let text = checkpoint().to_string();
    let short = [&ours.verifier().key_id[..], &[0; 63]].concat();
    let note = format!("{text}\n\u{2014} {} {}\n", ours.verifier().name(), BASE64.encode(short));
    assert_eq!(open(note.as_bytes(), &[ours.verifier().clone()]), Err(NoteError::BadSignature));
}

#[test]
fn a_text_with_empty_lines_is_split_at_the_last() {
    let ours = signer(1);
    let text = "a\n\nb\n\n\u{2014} not a signature\n";
    let note = ours.sign(text).unwrap();
    assert_eq!(open(note.as_bytes(), &[ours.verifier().clone()]), Ok(text));
}

#[test]
fn texts_that_cannot_be_notes_are_not_signed() {
    for text in ["", "no newline", "a\r\n", "a\0\n", "tab\t\n"] {
        assert_eq!(signer(1).sign(text), Err(NoteError::Note), "{text:?}");
    }
}

#[test]
fn what_is_not_a_note_is_refused() {
    let good = signer(1).sign("a\n").unwrap();
    let line = good.split("\n\n").nth(1).unwrap().to_owned();
    let many = line.repeat(NOTE_SIGNATURES_MAX + 1);
    let long = "x".repeat(NOTE_BYTES_MAX);
    for note in [
        "",
        "\n",
        "\n\n",
        "a\n",
        "a\n\n",
        &good[..good.len() - 1],
        &format!("a\n{line}"),
        &format!("a\n\n{line}\n"),
        &format!("a\n\n{}", line.replace('\u{2014}', "-")),
        &format!("a\n\n{}", line.replace("example.com", "example com")),
        &format!("a\n\n{}", line.replace("example.com", "example+com")),
        &format!("a\n\n{}", line.replace('=', "")),
        &format!("a\r\n\n{line}"),
        &format!("a\n\n{many}"),
        &format!("{long}\n\n{line}"),
    ] {
        let shown: String = note.chars().take(60).collect();
        let verdict = open(note.as_bytes(), &[signer(1).verifier().clone()]);
        assert_eq!(verdict, Err(NoteError::Note), "{shown:?}");
    }
    assert_eq!(open(b"\xff\n\n", &[]), Err(NoteError::Note));
}

#[test]
fn other_spellings_of_a_checkpoint_are_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    for text in [
        String::new(),
        "o\n1\n".to_owned(),
        format!("o\n1\n{root}"),
        format!("o\n01\n{root}\n"),
        format!("o\n+1\n{root}\n"),
        format!("o\n-1\n{root}\n"),
        format!("o\n\n{root}\n"),
        format!("o\n18446744073709551616\n{root}\n"),
        format!("o\n1\n{root}\nextension\n"),
        format!("o\n1\n{root}\n\n"),
        format!("o\n1\n{}\n", &root[..43]),
        // Base64 whose unused bits aren't zero, and base64 of another alphabet.
        format!("o\n1\n{}J=\n", &root[..42]),
        format!("o\n1\n{}\n", root.replace('/', "_")),
    ] {
        assert_eq!(text.parse::<Checkpoint>(), Err(NoteError::Checkpoint), "{text:?}");
    }
    for origin in ["", "a b", "a+b", "a\tb", "a\u{2003}b"] {
        let text = format!("{origin}\n1\n{root}\n");
        assert_eq!(text.parse::<Checkpoint>(), Err(NoteError::Name), "{text:?}");
    }
    assert_eq!(format!("o\n0\n{root}\n").parse::<Checkpoint>().unwrap().size, 0);
}

#[test]
fn a_signer_shown_in_a_log_keeps_its_key() {
    let shown = format!("{:?}", signer(1));
    assert!(shown.contains("punchtrail.example.com/1"));
    assert!(!shown.contains("SigningKey") && !shown.contains("1, 1, 1, 1"));
}

proptest! {
    #[test]
    fn any_checkpoint_survives_signing_and_opening(
        origin in "[a-z0-9./-]{1,40}", size in any::<u64>(), root in any::<[u8; 32]>(),
    ) {
        let checkpoint = Checkpoint { origin: origin.parse().unwrap(), size, root: Digest(root) };
        let ours = signer(1);
        let note = ours.sign_checkpoint(&checkpoint);
        let known = [ours.verifier().clone()];
        let read = open_checkpoint(note.as_bytes(), &checkpoint.origin, &known);
        prop_assert_eq!(read, Ok(checkpoint));
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in "(\u{2014} |[a-z+=/ ]|\n|\\PC){0,80}") {
        let known = [signer(1).verifier().clone()];
        prop_assert!(open(text.as_bytes(), &known).is_err());
        if let Ok(checkpoint) = text.parse::<Checkpoint>() {
            prop_assert_eq!(checkpoint.to_string(), text.clone());
        }
        if let Ok(verifier) = text.parse::<NoteVerifier>() {
            prop_assert_eq!(verifier.to_string(), text);
        }
    }
}
