//! Merkle tree maths over the ledger's leaves: what lets a checkpoint of 44 characters stand for
//! every event before it.
//!
//! Hashing, roots and proofs follow RFC 6962 §2.1 with SHA-256; verification follows the
//! algorithms of RFC 9162 §2.1.3.2 and §2.1.4.2, which take the same proofs. Leaf and inner hashes
//! are domain-separated by their first byte, so that no event can pass for an inner node.
//!
//! The ledger appends through a [`Frontier`], the roots of the perfect subtrees under the tree's
//! right edge: a hash or two an event, 64 hashes of state at most, however long the ledger is.
//! Proofs are made from a slice of leaf hashes and cost a walk over it; nothing here keeps inner
//! nodes.
//!
//! It must never panic on what it is given: proofs come from strangers. And it must never guess:
//! a proof of the wrong length is refused even if its hashes would fit.

use sha2::{Digest as _, Sha256};

use punchtrail_protocol::Digest;

const HASH_BYTES: usize = 32;

/// Largest tree a stored [`Frontier`] may claim: positions are Postgres `bigint`s.
pub const TREE_SIZE_MAX: u64 = i64::MAX as u64;

/// Longest proof a tree of up to 2^64 leaves can need, in hashes. Anything longer is refused
/// before it is hashed.
pub const PROOF_HASHES_MAX: usize = 65;

const LEAF_PREFIX: u8 = 0x00;
const NODE_PREFIX: u8 = 0x01;

/// Why hashes, proofs or a stored frontier were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// Bytes that [`Frontier::to_bytes`] can't have written.
    #[error("not a stored frontier: {length_bytes} bytes don't fit the tree size they claim")]
    NotAFrontier {
        /// How many bytes were given.
        length_bytes: usize,
    },
    /// The leaf asked about isn't in the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    OutsideTree {
        /// Index of the leaf, from 0.
        index: u64,
        size: u64,
    },
    /// A tree can't have shrunk.
    #[error("a tree of {first} leaves can't be the beginning of one of {second}")]
    Shrunk {
        /// Leaves in the earlier tree.
        first: u64,
        /// Leaves in the later tree.
        second: u64,
    },
    /// The proof has too few or too many hashes for these sizes.
    #[error("the proof has the wrong number of hashes for these tree sizes")]
    ProofLength,
    /// The proof leads to another root: the leaf isn't there, or history was rewritten.
    #[error("the proof leads to another root")]
    RootMismatch,
}

/// The root of the tree without leaves: SHA-256 of nothing (RFC 6962 §2.1).
#[must_use]
pub fn empty_root() -> Digest {
    Digest::of(&[])
}

/// Digest of a leaf: SHA-256(0x00 ‖ `leaf`).
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    let mut hasher = leaf_hasher();
    hasher.update(leaf);
    Digest(hasher.finalize().into())
}

/// A hasher that has taken the leaf prefix, for leaves that never lie in memory as one piece.
pub(crate) fn leaf_hasher() -> Sha256 {
    Sha256::new_with_prefix([LEAF_PREFIX])
}

/// Digest of an inner node: SHA-256(0x01 ‖ `left` ‖ `right`).
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut block = [NODE_PREFIX; 1 + 2 * HASH_BYTES];
    block[1..=HASH_BYTES].copy_from_slice(&left.0);
    block[1 + HASH_BYTES..].copy_from_slice(&right.0);
    Digest(Sha256::digest(block).into())
}

/// Root of the tree over `leaves` (leaf hashes, in order).
#[must_use]
pub fn root_of(leaves: impl IntoIterator<Item = Digest>) -> Digest {
    let mut frontier = Frontier::new();
    frontier.extend(leaves);
    frontier.root()
}

/// The right edge of a growing tree: the roots of its perfect subtrees, largest first, one for
/// each bit set in the size. Enough to append and to tell the root; not enough to prove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The frontier of the tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves in the tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash. One inner hash on average, log₂ of the size at most.
    pub fn push(&mut self, leaf: Digest) {
        let mut subtree = leaf;
        // Each trailing one of the size is a perfect subtree as large as the one in hand.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                subtree = node_hash(&left, &subtree);
            }
        }
        self.peaks.push(subtree);
        self.size += 1;
    }

    /// Root of the tree as it stands (RFC 6962 MTH).
    #[must_use]
    pub fn root(&self) -> Digest {
        self.peaks
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(empty_root)
    }

    /// The frontier as bytes, for storing: the size (u64, big-endian), then the peaks, largest
    /// subtree first, 32 bytes each. At most 2,024 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size_of::<u64>() + self.peaks.len() * HASH_BYTES);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        self.peaks.iter().for_each(|peak| bytes.extend_from_slice(&peak.0));
        bytes
    }

    /// Reads what [`Frontier::to_bytes`] wrote. The hashes are taken as they are: whoever reads a
    /// frontier from an untrusted place compares its root with a signed checkpoint.
    ///
    /// # Errors
    /// [`MerkleError::NotAFrontier`] if the length doesn't fit the size, or the size exceeds
    /// [`TREE_SIZE_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MerkleError> {
        let refused = MerkleError::NotAFrontier { length_bytes: bytes.len() };
        let (size, hashes) = bytes.split_first_chunk().ok_or(refused)?;
        let size = u64::from_be_bytes(*size);
        let (peaks, rest) = hashes.as_chunks::<HASH_BYTES>();
        if size > TREE_SIZE_MAX || !rest.is_empty() || peaks.len() != size.count_ones() as usize {
            return Err(refused);
        }
        Ok(Self { size, peaks: peaks.iter().copied().map(Digest).collect() })
    }
}

impl Extend<Digest> for Frontier {
    fn extend<T: IntoIterator<Item = Digest>>(&mut self, leaves: T) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

/// Proof that the leaf at `index` is in the tree over `leaves`: RFC 6962 §2.1.1 `PATH(index, D)`,
/// from the leaf upward. Hashes the whole slice.
///
/// # Errors
/// [`MerkleError::OutsideTree`] if there is no such leaf.
pub fn inclusion_proof(leaves: &[Digest], index: usize) -> Result<Vec<Digest>, MerkleError> {
    if index >= leaves.len() {
        return Err(MerkleError::OutsideTree { index: index as u64, size: leaves.len() as u64 });
    }
    let (mut subtree, mut index) = (leaves, index);
    let mut path = Vec::new();
    while subtree.len() > 1 {
        let (left, right) = subtree.split_at(split_point(subtree.len()));
        if index < left.len() {
            path.push(slice_root(right));
            subtree = left;
        } else {
            path.push(slice_root(left));
            index -= left.len();
            subtree = right;
        }
    }
    path.reverse();
    Ok(path)
}

/// Proof that the tree over the first `first` leaves is the beginning of the tree over all of
/// `leaves`: RFC 6962 §2.1.2 `PROOF(first, D)`. Empty if `first` is none or all of them. Hashes
/// the whole slice.
///
/// # Errors
/// [`MerkleError::Shrunk`] if there are fewer than `first` leaves.
pub fn consistency_proof(leaves: &[Digest], first: usize) -> Result<Vec<Digest>, MerkleError> {
    if first > leaves.len() {
        return Err(MerkleError::Shrunk { first: first as u64, second: leaves.len() as u64 });
    }
    if first == 0 || first == leaves.len() {
        return Ok(Vec::new());
    }
    let (mut subtree, mut first) = (leaves, first);
    // Whether the old tree is exactly this subtree's beginning from the very first leaf: then the
    // verifier knows its root already.
    let mut known = true;
    let mut path = Vec::new();
    while first < subtree.len() {
        let (left, right) = subtree.split_at(split_point(subtree.len()));
        if first <= left.len() {
            path.push(slice_root(right));
            subtree = left;
        } else {
            path.push(slice_root(left));
            first -= left.len();
            subtree = right;
            known = false;
        }
    }
    if !known {
        path.push(slice_root(subtree));
    }
    path.reverse();
    Ok(path)
}

/// Checks that `leaf` is the leaf at `index` of the tree of `size` leaves with this `root`
/// (RFC 9162 §2.1.3.2).
///
/// # Errors
/// [`MerkleError::OutsideTree`], [`MerkleError::ProofLength`] or [`MerkleError::RootMismatch`].
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), MerkleError> {
    if index >= size {
        return Err(MerkleError::OutsideTree { index, size });
    }
    if proof.len() > PROOF_HASHES_MAX {
        return Err(MerkleError::ProofLength);
    }
    let mut edge = Edge { node: index, last: size - 1 };
    let mut reached = *leaf;
    for sibling in proof {
        reached = match edge.climb()? {
            Side::Left => node_hash(sibling, &reached),
            Side::Right => node_hash(&reached, sibling),
        };
    }
    if edge.last != 0 {
        return Err(MerkleError::ProofLength);
    }
    if reached == *root { Ok(()) } else { Err(MerkleError::RootMismatch) }
}

/// Checks that the tree of `first` leaves with `first_root` is the beginning of the tree of
/// `second` leaves with `second_root` (RFC 9162 §2.1.4.2). Of equal sizes the roots must be equal;
/// every tree begins with the empty one; both take an empty proof.
///
/// # Errors
/// [`MerkleError::Shrunk`], [`MerkleError::ProofLength`] or [`MerkleError::RootMismatch`].
pub fn verify_consistency(
    first: u64,
    first_root: &Digest,
    second: u64,
    second_root: &Digest,
    proof: &[Digest],
) -> Result<(), MerkleError> {
    if first > second {
        return Err(MerkleError::Shrunk { first, second });
    }
    if first == 0 || first == second {
        return verify_trivial(first, first_root, second, second_root, proof);
    }
    if proof.len() > PROOF_HASHES_MAX {
        return Err(MerkleError::ProofLength);
    }
    let (seed, rest) = if first.is_power_of_two() {
        (first_root, proof)
    } else {
        proof.split_first().ok_or(MerkleError::ProofLength)?
    };
    let shift = (first - 1).trailing_ones();
    let mut edge = Edge { node: (first - 1) >> shift, last: (second - 1) >> shift };
    let (mut first_reached, mut second_reached) = (*seed, *seed);
    for sibling in rest {
        match edge.climb()? {
            Side::Left => {
                first_reached = node_hash(sibling, &first_reached);
                second_reached = node_hash(sibling, &second_reached);
            }
            Side::Right => second_reached = node_hash(&second_reached, sibling),
        }
    }
    if edge.last != 0 {
        return Err(MerkleError::ProofLength);
    }
    if first_reached == *first_root && second_reached == *second_root {
        Ok(())
    } else {
        Err(MerkleError::RootMismatch)
    }
}

fn verify_trivial(
    first: u64,
    first_root: &Digest,
    second: u64,
    second_root: &Digest,
    proof: &[Digest],
) -> Result<(), MerkleError> {
    if !proof.is_empty() {
        return Err(MerkleError::ProofLength);
    }
    let empty = empty_root();
    let first_stands = first > 0 || *first_root == empty;
    let second_stands = if first == second {
        first_root == second_root
    } else {
        // The root of any leaf or node differs from the empty tree's.
        *second_root != empty
    };
    if first_stands && second_stands { Ok(()) } else { Err(MerkleError::RootMismatch) }
}

/// On which side of the node in hand the next hash of a proof stands.
enum Side {
    Left,
    Right,
}

/// Where a verification stands on its way up: RFC 9162's `fn` (the node) and `sn` (the last node
/// of the same level).
struct Edge {
    node: u64,
    last: u64,
}

impl Edge {
    /// Takes one step up, and says where the sibling for it stands.
    fn climb(&mut self) -> Result<Side, MerkleError> {
        if self.last == 0 {
            return Err(MerkleError::ProofLength);
        }
        let side = if self.node & 1 == 1 || self.node == self.last {
            // On the right edge, levels at which the node has no sibling are skipped.
            self.shift(self.node.trailing_zeros());
            Side::Left
        } else {
            Side::Right
        };
        self.shift(1);
        Ok(side)
    }

    fn shift(&mut self, levels: u32) {
        self.node = self.node.checked_shr(levels).unwrap_or(0);
        self.last = self.last.checked_shr(levels).unwrap_or(0);
    }
}

/// The largest power of two below `len`, which is at least 2: where RFC 6962 splits a tree.
const fn split_point(len: usize) -> usize {
    1 << (len - 1).ilog2()
}

fn slice_root(leaves: &[Digest]) -> Digest {
    root_of(leaves.iter().copied())
}

#[cfg(test)]
mod tests;
