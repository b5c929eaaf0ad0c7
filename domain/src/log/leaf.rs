//! The leaf: the exact bytes of one event that the ledger's Merkle tree is over.
//!
//! An event's columns are hashed as they are stored, never re-serialised, so that an auditor with
//! SHA-256 and a database dump recomputes every hash (`docs/ledger-format.md` shows how). The tag
//! keeps these bytes apart from anything else this or another system hashes; the length before
//! each text keeps two events from sharing bytes by moving a character across a field's border.
//!
//! The format is frozen. Changing a byte of it would make every ledger written before look
//! tampered with: a new shape is a new tag.

use punchtrail_protocol::Digest;
use sha2::{Digest as _, Sha256};

use crate::log::merkle;

/// What every leaf begins with, after its length.
pub const LEAF_TAG: &str = "punchtrail.event.v1";

/// Longest leaf, in bytes: what an entry bundle of C2SP tlog-tiles can hold, whose entries have
/// two-byte lengths.
pub const LEAF_BYTES_MAX: usize = 65_535;

/// Bytes of a leaf besides its six texts: the tag, seven lengths of four bytes, three integers of
/// eight.
const LEAF_FRAME_BYTES: usize = LEAF_TAG.len() + 7 * 4 + 3 * 8;

/// One event as the ledger keeps it. `payload` and `metadata` are the columns' text, character by
/// character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf<'a> {
    /// Place in the ledger, from 1; the leaf's index in the tree is one less.
    pub position: u64,
    /// When the ledger took the event, in microseconds since 1970.
    pub recorded_at_us: i64,
    /// Name of the aggregate's type.
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    /// The event's number within its aggregate, from 1.
    pub sequence: u64,
    /// Name of the event's type.
    pub event_type: &'a str,
    /// Version of the event's shape.
    pub event_version: &'a str,
    pub payload: &'a str,
    /// What surrounds it (who, request, cause) as JSON text.
    pub metadata: &'a str,
}

/// The event is larger than a leaf may be, and can't enter the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the event takes {length_bytes} bytes in the ledger, more than {LEAF_BYTES_MAX}; it was not \
     written"
)]
pub struct LeafTooLong {
    /// How long the leaf would be, in bytes.
    pub length_bytes: usize,
}

impl Leaf<'_> {
    /// Length of the encoded leaf, in bytes.
    #[must_use]
    pub const fn length_bytes(&self) -> usize {
        LEAF_FRAME_BYTES
            .saturating_add(self.aggregate_type.len())
            .saturating_add(self.aggregate_id.len())
            .saturating_add(self.event_type.len())
            .saturating_add(self.event_version.len())
            .saturating_add(self.payload.len())
            .saturating_add(self.metadata.len())
    }

    /// Appends the leaf's bytes to `out`: tag, position, recorded_at, aggregate type and id,
    /// sequence, event type and version, payload, metadata; integers as eight bytes and lengths as
    /// four, big-endian.
    ///
    /// # Errors
    /// [`LeafTooLong`] past [`LEAF_BYTES_MAX`]; `out` is untouched then.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), LeafTooLong> {
        out.reserve(self.checked_length()?);
        self.write_to(out);
        Ok(())
    }

    /// The RFC 6962 leaf hash, SHA-256(0x00 ‖ leaf), without building the leaf in memory.
    ///
    /// # Errors
    /// [`LeafTooLong`] past [`LEAF_BYTES_MAX`].
    pub fn hash(&self) -> Result<Digest, LeafTooLong> {
        self.checked_length()?;
        let mut hasher = merkle::leaf_hasher();
        self.write_to(&mut hasher);
        Ok(Digest(hasher.finalize().into()))
    }

    fn checked_length(&self) -> Result<usize, LeafTooLong> {
        let length_bytes = self.length_bytes();
        if length_bytes > LEAF_BYTES_MAX {
            return Err(LeafTooLong { length_bytes });
        }
        Ok(length_bytes)
    }

    fn write_to(&self, sink: &mut impl Sink) {
        sink.text(LEAF_TAG);
        sink.take(&self.position.to_be_bytes());
        sink.take(&self.recorded_at_us.to_be_bytes());
        sink.text(self.aggregate_type);
        sink.text(self.aggregate_id);
        sink.take(&self.sequence.to_be_bytes());
        sink.text(self.event_type);
        sink.text(self.event_version);
        sink.text(self.payload);
        sink.text(self.metadata);
    }
}

/// Where a leaf's bytes go: one order of fields for hashing and for encoding.
trait Sink {
    fn take(&mut self, bytes: &[u8]);

    fn text(&mut self, text: &str) {
        // Below LEAF_BYTES_MAX, checked before anything is written.
        self.take(&(text.len() as u32).to_be_bytes());
        self.take(text.as_bytes());
    }
}

impl Sink for Vec<u8> {
    fn take(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for Sha256 {
    fn take(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: Leaf<'static> = Leaf {
        position: 3,
        recorded_at_us: 1_795_251_661_123_456,
        aggregate_type: "punch",
        aggregate_id: "0190a5b2-7c1e-7000-8000-0000000000c1",
        sequence: 1,
        event_type: "Captured",
        event_version: "1",
        payload: r#"{"Captured":{"badge":"Ö-17"}}"#,
        metadata: "{}",
    };

    /// The third event of the worked example in `docs/ledger-format.md`, whose Python computed
    /// this.
    const EXAMPLE_HASH: &str = "1896e7ba9bfbc56ac7b190ab63b0776f417ca4a1bb588b32c376e9f79775c9f3";

    #[test]
    fn the_hash_is_the_one_python_computes() {
        assert_eq!(EXAMPLE.hash().unwrap().to_string(), EXAMPLE_HASH);
    }

    #[test]
    fn a_negative_time_is_twos_complement() {
        let before_1970 = Leaf { recorded_at_us: -1, ..EXAMPLE };
        let mut bytes = Vec::new();
        before_1970.encode_into(&mut bytes).unwrap();
        let start = 4 + LEAF_TAG.len() + 8;
        assert_eq!(bytes[start..start + 8], [0xff; 8]);
    }

    #[test]
    fn a_character_moved_across_a_border_changes_the_hash() {
        let moved = Leaf { aggregate_type: "punc", aggregate_id: "h0190", ..EXAMPLE };
        let unmoved = Leaf { aggregate_type: "punch", aggregate_id: "0190", ..EXAMPLE };
        assert_ne!(moved.hash(), unmoved.hash());
    }

    #[test]
    fn the_longest_leaf_is_taken_and_one_byte_more_refused() {
        let room = LEAF_BYTES_MAX - Leaf { payload: "", ..EXAMPLE }.length_bytes();
        let payload = "x".repeat(room + 1);
        let longest = Leaf { payload: &payload[1..], ..EXAMPLE };
        let mut bytes = Vec::new();
        longest.encode_into(&mut bytes).unwrap();
        assert_eq!(bytes.len(), LEAF_BYTES_MAX);
        assert_eq!(longest.hash(), Ok(merkle::leaf_hash(&bytes)));

        let too_long = Leaf { payload: &payload, ..EXAMPLE };
        let refused = LeafTooLong { length_bytes: LEAF_BYTES_MAX + 1 };
        assert_eq!(too_long.hash(), Err(refused));
        assert_eq!(too_long.encode_into(&mut bytes), Err(refused));
        assert_eq!(bytes.len(), LEAF_BYTES_MAX, "nothing is appended by a refusal");
    }

    proptest! {
        #[test]
        fn streamed_and_encoded_leaves_hash_alike(
            position in any::<u64>(), recorded_at_us in any::<i64>(), sequence in any::<u64>(),
            texts in proptest::array::uniform6(".{0,40}"),
        ) {
            let [aggregate_type, aggregate_id, event_type, event_version, payload, metadata] =
                texts.each_ref().map(String::as_str);
            let leaf = Leaf {
                position, recorded_at_us, aggregate_type, aggregate_id, sequence, event_type,
                event_version, payload, metadata,
            };
            let mut bytes = Vec::new();
            leaf.encode_into(&mut bytes).unwrap();
            prop_assert_eq!(bytes.len(), leaf.length_bytes());
            prop_assert_eq!(leaf.hash(), Ok(merkle::leaf_hash(&bytes)));
        }
    }
}
